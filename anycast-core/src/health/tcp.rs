//! The check `tcp`: a connection to the service address, and what the service says on it.
//!
//! Each probe connects to every address of the service at once, sends what it was told to, if
//! anything, and waits for the text that it was told to expect, if any.
//!
//! # What its proof is worth
//!
//! The probe comes from the service address, so the handshake was completed by **this node**
//! and no other ([`Source`]). That is all that a bare connection proves: the *kernel* of this
//! node accepts connections for somebody. It goes on doing so for a service that hangs, until
//! the queue of the listening socket is full, which the probes themselves bring about after as
//! many of them as its backlog holds. Where the service speaks, let it: with
//! [`TcpCheck::with_greeting`] or [`TcpCheck::with_exchange`] the *process* must answer. Text
//! that is the same on every node does not tell a local proxy from the service behind it.
//!
//! | what happened | verdict |
//! |---|---|
//! | every address accepted, and said what was expected | `Healthy` |
//! | refused, unreachable, no connection or not all of the text within the time-out | `Unhealthy` |
//! | the address is not on this node | `Unhealthy` |
//! | closed or reset before the text, or [`MAX_READ`] bytes without it | `Unhealthy` |
//! | out of descriptors, memory, ports; this host's firewall refuses; this host ran late | `Unknown` |
//!
//! If several addresses disagree, `Unhealthy` outweighs `Unknown`, and `Unknown` `Healthy`; the
//! reason names each address and port that failed.
//!
//! # What it leaves behind
//!
//! Nothing. A connection on which nothing was said ends with a reset (SO_LINGER 0): a FIN would
//! leave a socket in TIME_WAIT for a minute, 60 of them for each check at one probe a second,
//! to protect data that was never sent. A service sees a connection that was reset before its
//! first byte, as from a port scan. After an exchange the connection ends with a FIN, as the
//! service expects of a client; then a socket in TIME_WAIT stays for a minute. One that failed
//! is reset.
//!
//! # Tasks, cancellation, bounds
//!
//! No task is started; dropping the probe closes its connections. It reads at most
//! [`MAX_READ`] bytes from each address and keeps to its time-out.

#[cfg(feature = "config")]
mod table;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;

#[cfg(feature = "config")]
pub use self::table::TcpTable;
use super::probe::exchange::{Patience, all};
use super::probe::{self, Source, verdict_on};
use super::{HealthCheck, Verdict};
use crate::service::ServiceAddresses;

/// Most bytes that are read in search of the expected text. A service that has sent as many
/// without it is `Unhealthy`.
pub const MAX_READ: usize = 4096;
/// Longest text to send or to expect, in bytes.
pub const MAX_TEXT: usize = 1024;
/// How much of what a service said instead is quoted in a reason, in bytes.
const QUOTED: usize = 64;

/// Why a text cannot be sent or expected. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TcpCheckError {
    /// It is empty.
    #[error("{which}: is empty; name at least one character, or remove it")]
    Empty {
        /// `send` or `expect`.
        which: &'static str,
    },
    /// It is longer than [`MAX_TEXT`].
    #[error("{which}: is {len} bytes long; shorten it to at most {MAX_TEXT}")]
    TooLong {
        /// `send` or `expect`.
        which: &'static str,
        /// Its length in bytes.
        len: usize,
    },
}

/// The check `tcp`. See the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub struct TcpCheck {
    targets: Arc<[SocketAddr]>,
    source: Source,
    send: Arc<[u8]>,
    expect: Option<Arc<[u8]>>,
}

impl TcpCheck {
    /// A bare connection to each of these addresses, which may be some of the service's only.
    #[must_use]
    pub fn new(addresses: &ServiceAddresses, port: NonZeroU16) -> Self {
        let target = |address: crate::ServiceAddress| SocketAddr::new(address.ip(), port.get());
        Self {
            targets: addresses.iter().map(target).collect(),
            source: Source::default(),
            send: Arc::default(),
            expect: None,
        }
    }

    /// Where probes come from. Default: [`Source::Service`].
    #[must_use]
    pub const fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// The service speaks first, and `expect` is somewhere in its first [`MAX_READ`] bytes:
    /// `220 ` of a mail server, `SSH-2.0-`.
    ///
    /// # Errors
    /// [`TcpCheckError`].
    pub fn with_greeting(mut self, expect: impl AsRef<[u8]>) -> Result<Self, TcpCheckError> {
        self.expect = Some(text("expect", expect.as_ref())?);
        self.send = Arc::default();
        Ok(self)
    }

    /// The probe sends `send`, and `expect` is somewhere in the first [`MAX_READ`] bytes that
    /// the service says: `PING\r\n` and `+PONG`.
    ///
    /// # Errors
    /// [`TcpCheckError`].
    pub fn with_exchange(
        mut self,
        send: impl AsRef<[u8]>,
        expect: impl AsRef<[u8]>,
    ) -> Result<Self, TcpCheckError> {
        self.send = text("send", send.as_ref())?;
        self.expect = Some(text("expect", expect.as_ref())?);
        Ok(self)
    }

    async fn probe(&self, target: SocketAddr, patience: Patience) -> Verdict {
        let Some(expect) = &self.expect else {
            let accepts = probe::tcp_accepts(target, self.source);
            return match patience.run(accepts).await {
                Some(Ok(())) => Verdict::Healthy,
                Some(Err(verdict)) => verdict,
                None => patience.over(target, "no connection"),
            };
        };
        let stream = match patience.run(probe::tcp(target, self.source)).await {
            Some(Ok(stream)) => stream,
            Some(Err(verdict)) => return verdict,
            None => return patience.over(target, "no connection"),
        };
        let mut heard = Vec::new();
        let conversation = self.converse(&stream, target, expect, &mut heard);
        match patience.run(conversation).await {
            Some(Ok(())) => {
                probe::close_politely(&stream);
                Verdict::Healthy
            }
            Some(Err(verdict)) => verdict,
            None => patience.over(target, &missing(expect, &heard)),
        }
    }

    async fn converse(
        &self,
        stream: &TcpStream,
        target: SocketAddr,
        expect: &[u8],
        heard: &mut Vec<u8>,
    ) -> Result<(), Verdict> {
        let sent = send_all(stream, &self.send).await;
        sent.map_err(|error| verdict_on(target, "sending", &error))?;
        while !contains(heard, expect) {
            if heard.len() >= MAX_READ {
                let missing = missing(expect, heard);
                let reason = format!("{target}: {missing} in its first {MAX_READ} bytes");
                return Err(Verdict::unhealthy(reason));
            }
            let read = read_some(stream, heard).await;
            if read.map_err(|error| verdict_on(target, "reading", &error))? == 0 {
                let missing = missing(expect, heard);
                let reason = format!("{target}: {missing} before it closed the connection");
                return Err(Verdict::unhealthy(reason));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl HealthCheck for TcpCheck {
    /// Cancel-safe: dropping it closes its connections.
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let patience = Patience::new(timeout);
        all(self.targets.iter().map(|to| self.probe(*to, patience))).await
    }
}

fn text(which: &'static str, text: &[u8]) -> Result<Arc<[u8]>, TcpCheckError> {
    match text.len() {
        0 => Err(TcpCheckError::Empty { which }),
        len if len > MAX_TEXT => Err(TcpCheckError::TooLong { which, len }),
        _ => Ok(text.into()),
    }
}

async fn send_all(stream: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Appends what has come, up to [`MAX_READ`] in all; 0: the service closed the connection.
async fn read_some(stream: &TcpStream, heard: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        let mut buffer = [0; 1024];
        let room = buffer.len().min(MAX_READ.saturating_sub(heard.len()));
        match stream.try_read(&mut buffer[..room]) {
            Ok(read) => {
                heard.extend_from_slice(&buffer[..read]);
                return Ok(read);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn contains(heard: &[u8], expect: &[u8]) -> bool {
    heard.windows(expect.len()).any(|window| window == expect)
}

/// `it did not say "220 ", but "554 n…"`.
fn missing(expect: &[u8], heard: &[u8]) -> String {
    let mut text = format!("it did not say {:?}", String::from_utf8_lossy(expect));
    if !heard.is_empty() {
        let quoted = heard.get(..QUOTED).unwrap_or(heard);
        // Writing to a String cannot fail.
        let _ = write!(text, ", but {:?}", String::from_utf8_lossy(quoted));
    }
    text
}

#[cfg(test)]
mod tests;
