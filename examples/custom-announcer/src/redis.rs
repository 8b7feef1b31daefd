//! A check that asks a Redis server on its Unix socket: `PING`, `+PONG`.
//!
//! The socket is this host's own, so no other node can answer.
//!
//! | what was found | verdict |
//! |---|---|
//! | `+PONG` | `Healthy` |
//! | another answer, an end without one, silence, nobody listens, no socket | `Unhealthy` |
//! | no descriptor or permission for the probe, a probe that was not run in time | `Unknown` |

#![allow(
    clippy::disallowed_methods,
    reason = "a check measures whether it met its own deadline"
)]

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use anycast_core::{HealthCheck, Verdict};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

const QUESTION: &[u8] = b"PING\r\n";
const ANSWER: &[u8] = b"+PONG\r\n";
/// A time-out that is noticed later than this says nothing about the server.
const STARVED: Duration = Duration::from_millis(200);

/// The check. See the [module](self).
#[derive(Debug, Clone)]
pub struct RedisCheck {
    socket: PathBuf,
}

impl RedisCheck {
    /// A check of the server at this socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    async fn probe(&self) -> Verdict {
        let path = self.socket.display();
        let failed = |error: io::Error| {
            let text = format!("{path}: {error}");
            if is_ours(&error) {
                Verdict::unknown(text)
            } else {
                Verdict::unhealthy(text)
            }
        };
        let mut stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(error) => return failed(error),
        };
        if let Err(error) = stream.write_all(QUESTION).await {
            return failed(error);
        }
        // Not a byte more than the answer has: a flood is not read.
        let mut answer = [0; ANSWER.len()];
        let mut length = 0;
        while length < ANSWER.len() {
            match stream.read(&mut answer[length..]).await {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) => return failed(error),
            }
            if !ANSWER.starts_with(&answer[..length]) {
                break;
            }
        }
        if answer == *ANSWER {
            return Verdict::Healthy;
        }
        let said = answer[..length].escape_ascii();
        Verdict::unhealthy(format!("{path}: said \"{said}\", not \"+PONG\""))
    }
}

/// The error says something of this process or host, not of the server.
fn is_ours(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = 105;
    let scarce = matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS));
    scarce
        || matches!(
            error.kind(),
            ErrorKind::PermissionDenied | ErrorKind::OutOfMemory
        )
}

#[async_trait]
impl HealthCheck for RedisCheck {
    /// Cancel-safe: a dropped probe closes its connection.
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let deadline = Instant::now() + timeout;
        if let Ok(verdict) = timeout_at(deadline, self.probe()).await {
            return verdict;
        }
        let path = self.socket.display();
        if deadline.elapsed() > STARVED {
            return Verdict::unknown(format!("{path}: this check was not run in time"));
        }
        Verdict::unhealthy(format!("{path}: no answer within {timeout:?}"))
    }
}
