//! Why a transfer failed.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::proto::client::{Failure, RequestError};
use crate::proto::packet::ErrorCode;

/// A transfer that failed: which one, and why.
#[derive(Debug, thiserror::Error)]
#[error("{file:?} at {server}: {kind}")]
pub struct TransferError {
    server: SocketAddr,
    file: String,
    #[source]
    kind: TransferErrorKind,
}

impl TransferError {
    pub(super) fn new(server: SocketAddr, file: &str, kind: TransferErrorKind) -> Self {
        Self {
            server,
            file: file.to_owned(),
            kind,
        }
    }

    /// The server as it was given.
    #[must_use]
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// The file as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Why.
    #[must_use]
    pub const fn kind(&self) -> &TransferErrorKind {
        &self.kind
    }
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferErrorKind {
    /// The transfer cannot be asked for; nothing was sent.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No socket could be opened: this host's failure, not the server's.
    #[error("cannot open a UDP socket{}", LocalAddress(*local))]
    Bind {
        /// The address asked for.
        local: Option<IpAddr>,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The server was silent, or repeated itself without progress.
    #[error("no answer for {:.1} s", after.as_secs_f32())]
    NoAnswer {
        /// How long.
        after: Duration,
    },
    /// Nobody listens on the server's port (ICMP port unreachable).
    #[error("connection refused: nobody listens on the server's port")]
    Refused,
    /// The server sent an ERROR.
    #[error("the server says: error {code}: {message:?}")]
    Server {
        /// Its code.
        code: ErrorCode,
        /// Its text.
        message: String,
    },
    /// The server broke the protocol.
    #[error("protocol violation by the server: {0}")]
    Protocol(String),
    /// This host could not send or receive.
    #[error("cannot send or receive on the UDP socket")]
    Socket(#[source] io::Error),
    /// The sink of a get failed; the server was told.
    #[error("cannot write the received data")]
    Sink(#[source] io::Error),
    /// The source of a put failed; the server was told.
    #[error("cannot read the data to send")]
    Source(#[source] io::Error),
}

impl From<&Failure> for TransferErrorKind {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::NoAnswer { after } => Self::NoAnswer { after: *after },
            Failure::Server { code, message } => Self::Server {
                code: *code,
                message: message.clone(),
            },
            Failure::Refused => Self::Refused,
            Failure::Options { .. } | Failure::Oversized { .. } | Failure::Aborted => {
                Self::Protocol(failure.to_string())
            }
        }
    }
}

struct LocalAddress(Option<IpAddr>);

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |local| write!(f, " on {local}"))
    }
}
