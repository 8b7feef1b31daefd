//! What the engine hands out.

use std::net::SocketAddr;
use std::time::Duration;

use crate::proto::packet::ErrorCode;

/// Why a transfer failed. The engine has said so to the peer where that is due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The server was silent, or repeated itself without progress.
    #[error("no answer for {} ms", after.as_millis())]
    NoAnswer {
        /// How long.
        after: Duration,
    },
    /// The server sent an ERROR.
    #[error("error {code}: {message:?}")]
    Server {
        /// Its code.
        code: ErrorCode,
        /// Its text.
        message: String,
    },
    /// The host answered that nobody listens (ICMP port unreachable).
    #[error("connection refused: nobody listens on the server's port")]
    Refused,
    /// The server answered options that are malformed or were not asked for.
    #[error("unacceptable option acknowledgement: {reason}")]
    Options {
        /// What is wrong with them.
        reason: String,
    },
    /// A DATA packet with more bytes than a block has.
    #[error("a block of {len} bytes where at most {blksize} were agreed on")]
    Oversized {
        /// Its bytes.
        len: usize,
        /// The agreed block size.
        blksize: u16,
    },
    /// [`Client::abort`](super::Client::abort) was called.
    #[error("aborted")]
    Aborted,
}

/// What [`Client::poll_timeout`](super::Client::poll_timeout) waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutReason {
    /// The peer owes an answer.
    Retransmit,
    /// The transfer is complete; the last acknowledgement may still have to be repeated.
    Dally,
}

/// A datagram to send: the first `len` bytes of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Its length in bytes.
    pub len: usize,
}
