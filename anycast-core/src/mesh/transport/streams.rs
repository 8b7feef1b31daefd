//! Streams between two nodes, each for one purpose.
//!
//! A stream begins with one byte, its [`Purpose`], and then is its users' own. One of a purpose that
//! this node does not know, or that nobody here takes, or beyond [`Purpose::at_once`], is refused
//! with a [`Refusal`]; the connection and its other streams stay.
//!
//! # Queues
//!
//! | queue | holds | when it is full |
//! |---|---|---|
//! | [`Purpose::at_once`], of each peer and purpose | streams that the peer opened and that live | the next is refused ([`Refusal::Busy`]) |
//! | the same again | streams that this node opened to it | [`MeshHandle::open`](super::MeshHandle::open) waits [`OPEN_TIME`], then fails |
//! | [`STREAM_WINDOW`], of each stream | bytes that came and were not read | the peer's writes wait |
//!
//! The window of a connection holds those of all its streams, so a stream that nobody reads never
//! holds up another, least of all the control stream.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frames::{FrameError, Partial};
use crate::service::NodeName;

/// Bytes of one stream that came and were not read yet.
pub const STREAM_WINDOW: u32 = 2 << 20;
/// How long [`open`](super::MeshHandle::open) may take.
pub const OPEN_TIME: Duration = Duration::from_secs(3);
/// How long the first byte of a stream may take; later the stream is refused ([`Refusal::Late`]).
pub const PURPOSE_TIME: Duration = Duration::from_secs(3);

/// Codes that the users of a stream give begin here (RFC 9000, section 20.2).
const OWN_CODES: u32 = 0x1_0000;
/// A [`Sender`] was dropped in the middle.
const DROPPED: u32 = 16;

/// What a stream or a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Purpose {
    /// Files that are the same at every site.
    Files = 1,
    /// Transfers that go on at another node.
    Transfers = 2,
    /// Leases that every site knows.
    Leases = 3,
}

impl Purpose {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Files, Self::Transfers, Self::Leases];

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The purpose of this number; `None`: of a later version.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Files),
            2 => Some(Self::Transfers),
            3 => Some(Self::Leases),
            _ => None,
        }
    }

    /// Streams of one peer that live at once, for each of the two that may open them.
    #[must_use]
    pub const fn at_once(self) -> usize {
        match self {
            Self::Files => 16,
            Self::Transfers | Self::Leases => 4,
        }
    }

    /// Above it there is only the control stream. What has the higher one is sent first.
    const fn priority(self) -> i32 {
        match self {
            Self::Files => 0,
            Self::Transfers => 1 << 8,
            Self::Leases => 2 << 8,
        }
    }
}

/// The control stream's.
const CONTROL_PRIORITY: i32 = 3 << 8;

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "files",
            Self::Transfers => "transfers",
            Self::Leases => "leases",
        })
    }
}

/// Why a peer does not take a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not know the purpose.
    #[error("it does not know this purpose")]
    Unknown,
    /// Nobody there takes streams of this purpose (yet).
    #[error("nobody there takes streams of this purpose")]
    Nobody,
    /// [`Purpose::at_once`] live already.
    #[error("too many streams of this purpose live")]
    Busy,
    /// The first byte took longer than [`PURPOSE_TIME`].
    #[error("it did not say what it is for in time")]
    Late,
}

impl Refusal {
    const ALL: [Self; 4] = [Self::Unknown, Self::Nobody, Self::Busy, Self::Late];

    const fn code(self) -> u32 {
        match self {
            Self::Unknown => 1,
            Self::Nobody => 2,
            Self::Busy => 3,
            Self::Late => 4,
        }
    }
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer is not up, or is none.
    #[error("peer {0} is not up")]
    Down(NodeName),
    /// [`Purpose::at_once`] streams to it live, and none ended within [`OPEN_TIME`].
    #[error("{} streams for {purpose} to {peer} live already", purpose.at_once())]
    Busy {
        /// The peer.
        peer: NodeName,
        /// The purpose.
        purpose: Purpose,
    },
    /// It did not allow another one within [`OPEN_TIME`].
    #[error("{0} allowed no stream within {OPEN_TIME:?}")]
    Late(NodeName),
    /// The connection ended.
    #[error("the connection to {peer} ended: {reason}")]
    Lost {
        /// The peer.
        peer: NodeName,
        /// Why.
        reason: String,
    },
}

/// Why a stream goes on no longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer does not take it. Seen by the first read or by a later write of who opened it.
    #[error("the peer refused the stream: {0}")]
    Refused(Refusal),
    /// The peer's [`Sender`] was dropped in the middle: what came is not whole.
    #[error("the peer left the stream in the middle")]
    Left,
    /// The peer called [`Sender::reset`] or [`Receiver::stop`] with this code.
    #[error("the peer gave the stream up, code {0}")]
    GivenUp(u16),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Lost(String),
    /// It was finished, reset or stopped here.
    #[error("the stream has been closed here")]
    Closed,
}

impl StreamError {
    fn of_code(code: VarInt) -> Self {
        let code = code.into_inner();
        let refusal = Refusal::ALL
            .into_iter()
            .find(|refusal| u64::from(refusal.code()) == code);
        let own = code.checked_sub(u64::from(OWN_CODES));
        match (refusal, own.and_then(|own| u16::try_from(own).ok())) {
            (Some(refusal), _) => Self::Refused(refusal),
            (None, Some(own)) => Self::GivenUp(own),
            // Also a receiver that was dropped: code 0.
            (None, None) => Self::Left,
        }
    }
}

impl From<ConnectionError> for StreamError {
    fn from(error: ConnectionError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::of_code(code),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead => Self::Closed,
            ReadError::ZeroRttRejected => Self::Lost("no early data is taken".to_owned()),
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::of_code(code),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream => Self::Closed,
            WriteError::ZeroRttRejected => Self::Lost("no early data is taken".to_owned()),
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Refused(_) => io::ErrorKind::ConnectionRefused,
            StreamError::Left | StreamError::GivenUp(_) => io::ErrorKind::ConnectionReset,
            StreamError::Lost(_) => io::ErrorKind::ConnectionAborted,
            StreamError::Closed => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// A place among the streams that live; free when the last half of the stream is dropped.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// The half of a stream that is written.
///
/// Bytes are on their way when a write returns, not at the peer. A write waits while the peer does
/// not read ([`STREAM_WINDOW`]); how long is the caller's to bound.
///
/// # Cancellation
/// Dropped before [`finish`](Self::finish) it tells the peer so ([`StreamError::Left`]): what is not
/// whole never looks whole. After `finish` it may be dropped at once, and all is delivered.
#[derive(Debug)]
pub struct Sender {
    stream: SendStream,
    base: i32,
    is_over: bool,
    _place: Option<Place>,
}

impl Sender {
    pub(super) fn new(stream: SendStream, purpose: Option<Purpose>, place: Option<Place>) -> Self {
        let base = purpose.map_or(CONTROL_PRIORITY, Purpose::priority);
        // It fails on a stream that is over, for which it does not matter.
        let _ = stream.set_priority(base);
        Self {
            stream,
            base,
            is_over: false,
            _place: place,
        }
    }

    /// Among the streams of its purpose to this peer, those with the greater number are sent first;
    /// 0 at the start. Across purposes it says nothing.
    pub fn set_priority(&self, within: u8) {
        // It fails on a stream that is over, for which it does not matter.
        let _ = self.stream.set_priority(self.base + i32::from(within));
    }

    /// Writes all of it. Cancelled, any part of it may have been written.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The same without a copy.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn write_chunk(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        Ok(self.stream.write_chunk(bytes).await?)
    }

    /// Nothing more follows; the peer's reads end with what was written.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when it was finished or reset before.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.is_over = true;
        self.stream.finish().map_err(|_| StreamError::Closed)
    }

    /// Gives the stream up: what was not sent is not sent. The peer's reads fail with
    /// [`StreamError::GivenUp`]. Does nothing to a stream that is over.
    pub fn reset(&mut self, code: u16) {
        self.abandon(OWN_CODES + u32::from(code));
    }

    /// Waits until the peer has all of a finished stream (`Ok`), or wants no more of it.
    /// Cancellation loses nothing.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn delivered(&mut self) -> Result<(), StreamError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::of_code(code)),
            Err(error) => Err(StreamError::Lost(error.to_string())),
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.abandon(refusal.code());
    }

    fn abandon(&mut self, code: u32) {
        self.is_over = true;
        // It fails on a stream that is over, which is as good.
        let _ = self.stream.reset(VarInt::from_u32(code));
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.is_over {
            self.abandon(DROPPED);
        }
    }
}

impl AsyncWrite for Sender {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        polled.map_err(|error| StreamError::from(error).into())
    }

    /// There is nothing to flush: what is written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [`Sender::finish`].
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(io::Error::from))
    }
}

/// The half of a stream that is read.
///
/// Reads wait for as long as the peer is up and says nothing: how long is the caller's to bound,
/// but for [`read_frame`](Self::read_frame) within a frame.
///
/// # Cancellation
/// Cancelled reads lose nothing. Dropped before its end it tells the peer that no more is wanted.
#[derive(Debug)]
pub struct Receiver {
    pub(super) stream: RecvStream,
    pub(super) partial: Partial,
    _place: Option<Place>,
}

impl Receiver {
    pub(super) fn new(stream: RecvStream, place: Option<Place>) -> Self {
        Self {
            stream,
            partial: Partial::default(),
            _place: place,
        }
    }

    /// The next bytes, at most `max`, without a copy; `None` at the end of a stream that the peer
    /// has finished.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        let chunk = self.stream.read_chunk(max, true).await?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }

    /// The next frame (see [`frames`](super::frames)), at most `max` bytes; `None` when the peer has
    /// finished the stream before one. It is whole within `within` of its first byte; for its first
    /// byte it waits without end. A read that is cancelled within a frame is gone on with by the
    /// next call, and only by that.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub async fn read_frame(
        &mut self,
        max: usize,
        within: Duration,
    ) -> Result<Option<Bytes>, FrameError> {
        super::frames::read(self, max, within).await
    }

    /// No more is wanted: the peer's writes fail with [`StreamError::GivenUp`]. Does nothing to a
    /// stream that is over.
    pub fn stop(&mut self, code: u16) {
        self.end(OWN_CODES + u32::from(code));
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.end(refusal.code());
    }

    fn end(&mut self, code: u32) {
        // It fails on a stream that is over, which is as good.
        let _ = self.stream.stop(VarInt::from_u32(code));
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.stream.poll_read_buf(cx, into);
        polled.map_err(|error| StreamError::from(error).into())
    }
}

/// A stream that a peer opened.
pub type Arrival = (NodeName, Sender, Receiver);

/// Streams of one purpose that peers open. Dropped, further ones are refused
/// ([`Refusal::Nobody`]).
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Arrival>);

impl Incoming {
    /// The next one, and who opened it; `None` once the mesh has stopped, or when the purpose was
    /// taken by a later [`accept`](super::MeshHandle::accept). Cancellation loses none.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.0.recv().await
    }
}

/// Who takes streams of which purpose.
#[derive(Debug, Default)]
pub(super) struct Ports(Mutex<BTreeMap<Purpose, Port>>);

#[derive(Debug)]
struct Port {
    queue: mpsc::Sender<Arrival>,
    at_once: usize,
    places: BTreeMap<NodeName, Arc<Semaphore>>,
}

impl Ports {
    pub(super) fn accept(&self, purpose: Purpose, at_once: usize, peers: usize) -> Incoming {
        let at_once = at_once.clamp(1, purpose.at_once());
        // As many as may live, so it is never full.
        let (queue, incoming) = mpsc::channel(at_once * peers.max(1));
        let port = Port {
            queue,
            at_once,
            places: BTreeMap::new(),
        };
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ports.insert(purpose, port);
        Incoming(incoming)
    }

    /// Nobody takes any more.
    pub(super) fn close(&self) {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ports.clear();
    }

    /// A stream of `peer` for `purpose` has come.
    pub(super) fn deliver(
        &self,
        peer: &NodeName,
        purpose: Purpose,
        send: SendStream,
        receive: RecvStream,
    ) {
        let taken = self.take(peer, purpose);
        let (queue, place) = match taken {
            Ok(taken) => taken,
            Err(refusal) => return refuse(send, receive, refusal),
        };
        let place = Arc::new(place);
        let sender = Sender::new(send, Some(purpose), Some(Arc::clone(&place)));
        let receiver = Receiver::new(receive, Some(place));
        let sent = queue.try_send((peer.clone(), sender, receiver));
        if let Err(unsent) = sent {
            let (_, mut sender, mut receiver) = unsent.into_inner();
            sender.refuse(Refusal::Nobody);
            receiver.refuse(Refusal::Nobody);
        }
    }

    fn take(
        &self,
        peer: &NodeName,
        purpose: Purpose,
    ) -> Result<(mpsc::Sender<Arrival>, OwnedSemaphorePermit), Refusal> {
        let mut ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let port = ports.get_mut(&purpose).ok_or(Refusal::Nobody)?;
        let at_once = port.at_once;
        let places = port
            .places
            .entry(peer.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(at_once)));
        let place = Arc::clone(places).try_acquire_owned();
        Ok((port.queue.clone(), place.map_err(|_| Refusal::Busy)?))
    }
}

/// Ends a stream, and it alone.
pub(super) fn refuse(send: SendStream, receive: RecvStream, refusal: Refusal) {
    Sender::new(send, None, None).refuse(refusal);
    Receiver::new(receive, None).refuse(refusal);
}

#[cfg(test)]
mod tests;
