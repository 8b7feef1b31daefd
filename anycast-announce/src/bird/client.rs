//! The control socket of a running BIRD.
//!
//! # Contract
//! One connection, made when it is first needed and again after any failure, with one command
//! outstanding at a time. Each step ends within [`TIME_OUT`]. **Cancellation**: a future that
//! is dropped half-way leaves a reply on its way that belongs to nobody; the connection is
//! closed then, and the next command opens another. BIRD may have carried out a command whose
//! reply was never read: callers look at what is in force, and repeat.
//!
//! A daemon that hangs, is confused or hostile costs its caller [`TIME_OUT`] and at most
//! [`MAX_REPLY`](super::reply::MAX_REPLY) bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::command::Command;
use super::reply::{Reply, ReplyError, ReplyParser};
use crate::socket;

/// Longest wait for a connection, and for each reply.
pub const TIME_OUT: Duration = Duration::from_secs(2);

/// `Access denied`: the socket was configured with `restrict`.
const RESTRICTED: u16 = 8007;

/// BIRD's greeting.
const READY: u16 = 1;

/// Why BIRD could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens, or the right to connect is missing. Nothing was sent.
    #[error("{}: {source}; {remedy}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
        /// What to do about it.
        remedy: String,
    },
    /// The connection broke. The command may have been carried out.
    #[error("{}: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No reply in time. The command may have been carried out.
    #[error("{}: no reply within {TIME_OUT:?} to `{command}`", path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The command, or `greeting`.
        command: String,
    },
    /// What came is no reply of BIRD. The command may have been carried out.
    #[error("{}: {source}", path.display())]
    Reply {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ReplyError,
    },
    /// The socket only shows. Nothing was changed.
    #[error(
        "{}: this socket is restricted and may not `{command}`; use BIRD's main control socket",
        path.display()
    )]
    Restricted {
        /// The socket.
        path: PathBuf,
        /// The command.
        command: String,
    },
}

impl ClientError {
    /// Whether waiting may help, as for a BIRD that is being restarted. A missing right does
    /// not come by itself, nor does BIRD at the place of another program.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Broken { .. } | Self::TimedOut { .. } => true,
            Self::Reply { .. } | Self::Restricted { .. } => false,
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    parser: ReplyParser,
}

/// A client of BIRD's control socket.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    /// Absent while a command is under way, so that a dropped future closes the connection.
    connection: Option<Connection>,
}

impl Client {
    /// A client of the socket at `path`; it does not connect yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            connection: None,
        }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a command and waits for its reply, which may be one of failure.
    ///
    /// A connection that BIRD has closed since the last command, as a restart does, is
    /// replaced once, before anything was answered on it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask(&mut self, command: &Command) -> Result<Reply, ClientError> {
        let kept = self.connection.take();
        let was_kept = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        match self.exchange(connection, command).await {
            Err(ClientError::Broken { .. }) if was_kept => {
                let fresh = self.connect().await?;
                self.exchange(fresh, command).await
            }
            result => result,
        }
    }

    async fn exchange(
        &mut self,
        mut connection: Connection,
        command: &Command,
    ) -> Result<Reply, ClientError> {
        let line = format!("{command}\n");
        let reply = timeout(TIME_OUT, async {
            let sent = connection.stream.write_all(line.as_bytes()).await;
            sent.map_err(|source| self.broken(source))?;
            self.next_reply(&mut connection).await
        })
        .await
        .map_err(|_| self.timed_out(&command.to_string()))??;
        self.connection = Some(connection);
        if reply.code() == RESTRICTED {
            return Err(ClientError::Restricted {
                path: self.path.clone(),
                command: command.to_string(),
            });
        }
        Ok(reply)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        timeout(TIME_OUT, async {
            let stream = UnixStream::connect(&self.path).await;
            let stream = stream.map_err(|source| ClientError::Connect {
                remedy: remedy(&self.path, &source),
                path: self.path.clone(),
                source,
            })?;
            let mut connection = Connection {
                stream,
                parser: ReplyParser::new(),
            };
            let greeting = self.next_reply(&mut connection).await?;
            if greeting.code() == READY {
                return Ok(connection);
            }
            let said = format!("{:04} {}", greeting.code(), greeting.last_text());
            Err(ClientError::Reply {
                path: self.path.clone(),
                source: ReplyError::NotBird(said),
            })
        })
        .await
        .map_err(|_| self.timed_out("greeting"))?
    }

    async fn next_reply(&self, connection: &mut Connection) -> Result<Reply, ClientError> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(reply) = connection.parser.poll_reply() {
                return Ok(reply);
            }
            let read = connection.stream.read(&mut bytes).await;
            let length = match read {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let length = length.map_err(|source| self.broken(source))?;
            let taken = connection
                .parser
                .handle_bytes(bytes.get(..length).unwrap_or_default());
            taken.map_err(|source| ClientError::Reply {
                path: self.path.clone(),
                source,
            })?;
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            source,
        }
    }

    fn timed_out(&self, command: &str) -> ClientError {
        ClientError::TimedOut {
            path: self.path.clone(),
            command: command.to_owned(),
        }
    }
}

fn remedy(path: &Path, error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        "is BIRD running, and is that its socket (`bird -s`)?".to_owned()
    } else if kind == io::ErrorKind::PermissionDenied {
        socket::denied(path, "bird")
    } else if kind == io::ErrorKind::ConnectionRefused {
        "nothing listens there: is BIRD running?".to_owned()
    } else {
        "see whether BIRD is running".to_owned()
    }
}
