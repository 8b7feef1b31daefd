//! Frames on a stream: a length (`u32`, big-endian) and so many bytes.
//!
//! A reader says how long a frame may be and how long it may take: one that is too long is refused
//! by its length alone, and one that trickles in ends with its stream, and with nothing else.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: a frame's time is real time"
)]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout_at;

use super::streams::{Receiver, Sender, StreamError};

/// Bytes of the length.
const HEAD: usize = 4;

/// Why there is no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than its reader takes, or than a length can say.
    #[error("a frame of {length} bytes; at most {max} are taken")]
    Long {
        /// Its length.
        length: usize,
        /// The longest.
        max: usize,
    },
    /// It was not whole in time.
    #[error("a frame took longer than {0:?}")]
    Slow(Duration),
    /// The peer finished the stream in the middle of it.
    #[error("a frame that is cut short")]
    Cut,
    /// The stream ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// What has come of a frame.
#[derive(Debug, Default)]
pub(super) struct Partial {
    began: Option<Instant>,
    head: [u8; HEAD],
    /// Bytes of `head`.
    known: usize,
    body: BytesMut,
}

impl Sender {
    /// Writes one frame. Cancelled, a part of it may have been written, and the stream is of no use.
    ///
    /// # Errors
    /// [`FrameError::Long`] beyond what a `u32` can say; [`FrameError::Stream`].
    pub async fn write_frame(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        let max = u32::MAX as usize;
        let length = u32::try_from(frame.len()).map_err(|_| FrameError::Long {
            length: frame.len(),
            max,
        })?;
        self.write_all(&length.to_be_bytes()).await?;
        Ok(self.write_all(frame).await?)
    }
}

pub(super) async fn read(
    from: &mut Receiver,
    max: usize,
    within: Duration,
) -> Result<Option<Bytes>, FrameError> {
    if from.partial.began.is_none() {
        let Some(first) = from.read_chunk(HEAD).await? else {
            return Ok(None);
        };
        from.partial.began = Some(Instant::now());
        from.partial.add_head(&first);
    }
    let began = from.partial.began.unwrap_or_else(Instant::now);
    let whole = timeout_at((began + within).into(), rest(from, max)).await;
    let frame = whole.map_err(|_| FrameError::Slow(within))??;
    from.partial = Partial::default();
    Ok(Some(frame))
}

async fn rest(from: &mut Receiver, max: usize) -> Result<Bytes, FrameError> {
    while from.partial.known < HEAD {
        let missing = HEAD - from.partial.known;
        let more = from.read_chunk(missing).await?.ok_or(FrameError::Cut)?;
        from.partial.add_head(&more);
    }
    let length = usize::try_from(u32::from_be_bytes(from.partial.head)).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::Long { length, max });
    }
    loop {
        let missing = length - from.partial.body.len();
        if missing == 0 {
            return Ok(from.partial.body.split().freeze());
        }
        let more = from.read_chunk(missing).await?.ok_or(FrameError::Cut)?;
        if more.len() == length {
            return Ok(more); // whole, and without a copy
        }
        // Room grows with what has come, not with what was promised.
        from.partial.body.extend_from_slice(&more);
    }
}

impl Partial {
    fn add_head(&mut self, bytes: &[u8]) {
        for (place, byte) in self.head.iter_mut().skip(self.known).zip(bytes) {
            *place = *byte;
        }
        self.known += bytes.len();
    }
}
