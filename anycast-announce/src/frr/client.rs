//! The vty socket of a running bgpd: reading only.
//!
//! # Contract
//! One connection, made when it is first needed and again after any failure; one command
//! outstanding. Each step ends within [`TIME_OUT`]. **Cancellation**: a dropped future closes
//! the connection, since a reply that belongs to nobody may be on its way.
//!
//! Nothing is written through it: from FRR 10 on part of the configuration belongs to another
//! daemon, and only vtysh knows which.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::route_map::Entry;
use super::vty::{Reply, ReplyParser, TooLong};
use crate::socket;

/// Longest wait for a connection, and for each reply.
pub const TIME_OUT: Duration = Duration::from_secs(2);

/// Why bgpd could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing listens, or the right to connect is missing.
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
    /// The connection broke.
    #[error("{}: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No reply in time.
    #[error("{}: no reply within {TIME_OUT:?} to `{question}`", path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        question: String,
    },
    /// What came has no end.
    #[error("{}: {source}", path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// How long it may be.
        #[source]
        source: TooLong,
    },
}

impl ClientError {
    /// Whether waiting may help, as for a bgpd that is being restarted. A missing right does
    /// not come by itself, nor does bgpd at the place of another program.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Broken { .. } | Self::TimedOut { .. } => true,
            Self::TooLong { .. } => false,
        }
    }
}

/// A question. It is made of checked parts only: no name of the configuration gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// The sessions of the default VRF.
    Summary,
    /// What was sent to a neighbour, of IPv4 (true) or IPv6.
    Advertised(IpAddr, bool),
    /// The right to see the configuration, for this connection. Changes nothing.
    Enable,
    /// The route-map that this entry is of. Only after [`Question::Enable`].
    RouteMap(Entry),
    /// The configuration that runs, of the daemon asked.
    RunningConfig,
    /// Its routes of a prefix.
    Routes(IpAddr, u8),
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Summary => f.write_str("show bgp summary json"),
            Self::Enable => f.write_str("enable"),
            Self::RouteMap(entry) => write!(f, "show route-map {} json", entry.name()),
            Self::RunningConfig => f.write_str("show running-config"),
            Self::Routes(ip, length) => {
                let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
                write!(f, "show bgp {family} unicast {ip}/{length} json")
            }
            Self::Advertised(neighbour, is_v4) => {
                let family = if *is_v4 { "ipv4" } else { "ipv6" };
                write!(
                    f,
                    "show bgp {family} unicast neighbors {neighbour} advertised-routes json"
                )
            }
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    parser: ReplyParser,
}

/// A client of bgpd's vty socket.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    /// Absent while a question is under way.
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

    /// Asks, on a fresh connection where bgpd has closed the one that was kept.
    ///
    /// # Errors
    /// [`ClientError`]. A reply that says "no" is none.
    pub async fn ask(&mut self, question: Question) -> Result<Reply, ClientError> {
        if let Some(kept) = self.connection.take() {
            match self.exchange(kept, &question).await {
                Err(ClientError::Broken { .. }) => {}
                result => return result,
            }
        }
        let fresh = self.connect().await?;
        self.exchange(fresh, &question).await
    }

    async fn exchange(
        &mut self,
        mut connection: Connection,
        question: &Question,
    ) -> Result<Reply, ClientError> {
        let line = format!("{question}\0");
        let reply = timeout(TIME_OUT, async {
            let sent = connection.stream.write_all(line.as_bytes()).await;
            sent.map_err(|source| self.broken(source))?;
            self.next_reply(&mut connection).await
        })
        .await
        .map_err(|_| self.timed_out(&question.to_string()))??;
        self.connection = Some(connection);
        Ok(reply)
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let stream = timeout(TIME_OUT, UnixStream::connect(&self.path))
            .await
            .map_err(|_| self.timed_out("connecting"))?;
        let stream = stream.map_err(|source| ClientError::Connect {
            remedy: remedy(&self.path, &source),
            path: self.path.clone(),
            source,
        })?;
        Ok(Connection {
            stream,
            parser: ReplyParser::new(),
        })
    }

    async fn next_reply(&self, connection: &mut Connection) -> Result<Reply, ClientError> {
        let mut bytes = [0; 16 << 10];
        loop {
            if let Some(reply) = connection.parser.poll_reply() {
                return Ok(reply);
            }
            let length = match connection.stream.read(&mut bytes).await {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let length = length.map_err(|source| self.broken(source))?;
            let received = bytes.get(..length).unwrap_or_default();
            let taken = connection.parser.handle_bytes(received);
            taken.map_err(|source| ClientError::TooLong {
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

    fn timed_out(&self, question: &str) -> ClientError {
        ClientError::TimedOut {
            path: self.path.clone(),
            question: question.to_owned(),
        }
    }
}

fn remedy(path: &Path, error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        "is bgpd running, and is that its vty socket?".to_owned()
    } else if kind == io::ErrorKind::PermissionDenied {
        socket::denied(path, "frrvty")
    } else if kind == io::ErrorKind::ConnectionRefused {
        "nothing listens there: is bgpd running?".to_owned()
    } else {
        "see whether bgpd is running".to_owned()
    }
}
