//! A TFTP client over tokio: [`Client::get`] and [`Client::put`].
//!
//! A thin driver of the [engine](crate::proto::client); which packets are sent and when is
//! decided there. Each transfer has a socket of its own, bound to a fresh port.
//!
//! **Back pressure.** A block is acknowledged only after the sink has taken it, the last one
//! after the sink was flushed. Memory: one datagram, and in a put one window.
//!
//! **Tasks.** A transfer runs in the caller's task. After a get one detached task lives for
//! at most [`Settings::dally`] (1 s by default) to repeat the last acknowledgement, and does
//! nothing else; a dally of zero spawns none.
//!
//! **Cancellation.** Dropping the future of a transfer ends it: the socket is closed, and the
//! server is sent one ERROR 0 so that it does not wait. What the sink took stays there.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this module is the runtime: it owns the clock and the sockets of the client engine"
)]

mod error;
mod socket;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::error::{TransferError, TransferErrorKind};
pub use crate::proto::client::{Agreed, RequestError, Rollover, Settings};
pub use crate::proto::packet::{ErrorCode, Mode};

use self::socket::Link;
use self::stream::{Sink, Source};
use crate::proto::client as engine;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of file that the sink has taken, or that the server has acknowledged.
    pub bytes: u64,
    /// Bytes in all, if known. In netascii it is a hint.
    pub total: Option<u64>,
}

/// A transfer that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transferred {
    /// Bytes of file: written to the sink, or read from the source.
    pub bytes: u64,
    /// Blocks on the wire, the last short one included.
    pub blocks: u64,
    /// What was agreed on with the server.
    pub agreed: Agreed,
    /// Address and port that the server answered from.
    pub peer: SocketAddr,
    /// Packets that were sent again.
    pub retransmissions: u64,
    /// From the request to the last byte.
    pub duration: Duration,
}

/// Gets and puts files. Cheap to clone; one client may run any number of transfers at once.
#[derive(Debug, Clone, Default)]
pub struct Client {
    settings: Settings,
    local: Option<IpAddr>,
}

impl Client {
    /// A client that asks for these settings.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            local: None,
        }
    }

    /// Sends from this address instead of the one that the routing table chooses.
    #[must_use]
    pub const fn local_address(mut self, address: IpAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// Reads `file` from `server` into `sink`, and calls `progress` after every block.
    ///
    /// Names neither retry nor resume: a transfer that failed is begun again by calling
    /// this again with an empty sink.
    ///
    /// # Errors
    /// [`TransferError`], which names server and file. The sink may hold a part of the file.
    pub async fn get<W>(
        &self,
        server: SocketAddr,
        file: &str,
        sink: &mut W,
        progress: impl FnMut(Progress),
    ) -> Result<Transferred, TransferError>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        self.read(server, file, sink, progress)
            .await
            .map_err(|kind| TransferError::new(server, file, kind))
    }

    /// Writes all of `source` to `file` on `server`, and calls `progress` as blocks are
    /// acknowledged. `size` in bytes, if known, lets the server refuse in time.
    ///
    /// # Errors
    /// [`TransferError`], which names server and file. Whether the server kept anything is
    /// its own affair; ours keeps nothing.
    pub async fn put<R>(
        &self,
        server: SocketAddr,
        file: &str,
        source: &mut R,
        size: Option<u64>,
        progress: impl FnMut(Progress),
    ) -> Result<Transferred, TransferError>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        self.write(server, file, source, size, progress)
            .await
            .map_err(|kind| TransferError::new(server, file, kind))
    }

    async fn read<W>(
        &self,
        server: SocketAddr,
        file: &str,
        sink: &mut W,
        mut progress: impl FnMut(Progress),
    ) -> Result<Transferred, TransferErrorKind>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let start = Instant::now();
        let engine = engine::Client::read(server, file.as_bytes(), self.settings.clone(), start)?;
        let mut link = Link::open(engine, server, self.local)?;
        let mut sink = Sink::new(sink, self.settings.chosen_mode());
        loop {
            link.flush().await?;
            let written = if link.next().await? {
                sink.write(link.payload()).await
            } else {
                Ok(())
            };
            let complete = link.engine().outcome() == Some(Ok(()));
            let written = match written {
                Ok(()) if complete => sink.finish().await,
                other => other,
            };
            if let Err(error) = written {
                link.abort(ErrorCode::DiskFull, "the receiver cannot store the file");
                return Err(TransferErrorKind::Sink(error));
            }
            let total = link.engine().agreed().and_then(|agreed| agreed.size);
            let bytes = sink.bytes();
            progress(Progress { bytes, total });
            if complete {
                let done = link.transferred(bytes, start)?;
                link.flush().await?;
                link.dally(self.settings.dally_time());
                return Ok(done);
            }
        }
    }

    async fn write<R>(
        &self,
        server: SocketAddr,
        file: &str,
        source: &mut R,
        size: Option<u64>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Transferred, TransferErrorKind>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let start = Instant::now();
        let settings = self.settings.clone();
        let engine = engine::Client::write(server, file.as_bytes(), size, settings, start)?;
        let mut link = Link::open(engine, server, self.local)?;
        let mut source = Source::new(source, self.settings.chosen_mode());
        loop {
            while let Some(len) = link.engine().wants_block() {
                match source.block(len).await {
                    Ok(block) => link.provide(block),
                    Err(error) => {
                        link.abort(ErrorCode::NotDefined, "the sender cannot read the file");
                        return Err(TransferErrorKind::Source(error));
                    }
                }
                link.flush().await?;
            }
            link.flush().await?;
            link.next().await?;
            let complete = link.engine().outcome() == Some(Ok(()));
            let bytes = if complete {
                source.bytes()
            } else {
                link.acknowledged().min(source.bytes())
            };
            progress(Progress { bytes, total: size });
            if complete {
                return link.transferred(bytes, start);
            }
        }
    }
}

#[cfg(test)]
mod tests;
