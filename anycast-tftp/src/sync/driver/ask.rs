//! Asking one peer for contents, for parts of them, and for what is made of them.

use std::sync::Arc;
use std::time::Duration;

use anycast_core::health::Reason;
use anycast_core::mesh::transport::streams::Receiver;
use anycast_core::service::NodeName;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Shared;
use super::serve::write;
use crate::sync::content::ContentId;
use crate::sync::replica::FetchError;
use crate::sync::wire::{MAX_ITEMS, Message, READ_HEAD, ReadHead, ReadItem, ReadStatus};

/// Bytes that are taken from a stream at once.
pub(super) const PIECE: usize = 128 << 10;
/// So many bytes, or what is left, come within this time.
pub(super) const PIECE_TIME: Duration = Duration::from_secs(20);
/// The first byte of an answer comes within this time: a recipe is made of a whole content.
const ANSWER: Duration = Duration::from_secs(60);

/// Why one content of a batch did not come.
#[derive(Debug)]
pub(super) enum Failed {
    /// It cannot be stored here, whoever sends it.
    Disk(FetchError),
    /// What was here already, of an older version or of an earlier attempt, was not what it should
    /// be: that is not the fault of who sent the rest.
    Basis,
    /// What this peer sent, whole, is not what it should be.
    Lie(FetchError),
    /// This peer does not give it.
    Peer(FetchError),
}

impl Failed {
    pub(super) fn lost(error: impl std::fmt::Display) -> Self {
        Self::Peer(FetchError::Other(Reason::new(&error.to_string())))
    }
}

/// What comes for the current item.
pub(super) enum Piece {
    Bytes(Bytes),
    /// It does not come: why.
    Failed(FetchError),
}

/// Asks for these items, in order, and passes on what comes. When it returns `pieces` is closed, and
/// what did not come by then does not come.
pub(super) async fn receive(
    shared: &Arc<Shared>,
    peer: &NodeName,
    items: &[ReadItem],
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Failed> {
    for items in items.chunks(MAX_ITEMS) {
        let opened = shared.stream_to(peer).await;
        let (mut sender, mut receiver) = opened.map_err(Failed::lost)?;
        let question = Message::Read(items.to_vec());
        write(&mut sender, &question).await.map_err(Failed::lost)?;
        sender.finish().map_err(Failed::lost)?;
        for item in items {
            let head = head(&mut receiver).await?;
            let refused = match head.status {
                ReadStatus::Here if head.length == item.length => None,
                ReadStatus::Here => Some(FetchError::Other(Reason::new("it is of another size"))),
                ReadStatus::Absent => Some(FetchError::Absent),
                ReadStatus::Failed => {
                    Some(FetchError::Other(Reason::new("it cannot be read there")))
                }
            };
            if let Some(refused) = refused {
                let is_over = head.length > 0;
                if pieces.send(Piece::Failed(refused)).await.is_err() || is_over {
                    return Err(Failed::lost("it is of another size there"));
                }
                continue;
            }
            let mut left = item.length;
            while left > 0 {
                let size = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                let piece = piece(&mut receiver, size).await?;
                left -= piece.len() as u64;
                shared.fetches.count(piece.len() as u64);
                if pieces.send(Piece::Bytes(piece)).await.is_err() {
                    return Err(Failed::lost("it cannot be written"));
                }
            }
        }
    }
    Ok(())
}

async fn head(receiver: &mut Receiver) -> Result<ReadHead, Failed> {
    let mut head = [0; READ_HEAD];
    let read = timeout(ANSWER, receiver.read_exact(&mut head)).await;
    read.map_err(|_| Failed::lost(format!("no answer within {ANSWER:?}")))?
        .map_err(Failed::lost)?;
    Ok(ReadHead::decode(head))
}

/// So many bytes.
async fn piece(receiver: &mut Receiver, size: usize) -> Result<Bytes, Failed> {
    let mut bytes = BytesMut::with_capacity(size);
    let filled = timeout(PIECE_TIME, async {
        while bytes.len() < size {
            let missing = size - bytes.len();
            if (&mut *receiver)
                .take(missing as u64)
                .read_buf(&mut bytes)
                .await?
                == 0
            {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok::<(), std::io::Error>(())
    });
    let filled = filled.await;
    filled
        .map_err(|_| Failed::lost(format!("fewer than {size} bytes in {PIECE_TIME:?}")))?
        .map_err(Failed::lost)?;
    Ok(bytes.freeze())
}

/// Asks for what is made of a whole content, of at most so many bytes; `None`: it is not to be had
/// there.
pub(super) async fn question(
    shared: &Arc<Shared>,
    peer: &NodeName,
    question: &Message,
    most: u64,
) -> Result<Option<Vec<u8>>, String> {
    let asked = ask(shared, peer, question, most).await;
    asked.map_err(|failed| format!("{failed:?}"))
}

pub(super) async fn ask(
    shared: &Arc<Shared>,
    peer: &NodeName,
    question: &Message,
    most: u64,
) -> Result<Option<Vec<u8>>, Failed> {
    let opened = shared.stream_to(peer).await;
    let (mut sender, mut receiver) = opened.map_err(Failed::lost)?;
    write(&mut sender, question).await.map_err(Failed::lost)?;
    sender.finish().map_err(Failed::lost)?;
    let head = head(&mut receiver).await?;
    if head.status != ReadStatus::Here {
        return Ok(None);
    }
    if head.length > most {
        let length = head.length;
        return Err(Failed::lost(format!(
            "{length} bytes where at most {most} can be"
        )));
    }
    let mut answer = Vec::new();
    let mut left = head.length;
    while left > 0 {
        let size = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let piece = piece(&mut receiver, size).await?;
        left -= piece.len() as u64;
        answer.extend_from_slice(&piece);
    }
    Ok(Some(answer))
}

/// A part of a content, into memory.
pub(super) async fn read_range(
    shared: &Arc<Shared>,
    peer: &NodeName,
    content: ContentId,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>, String> {
    if let Some(bucket) = shared.bucket_called(peer) {
        return bucket.read_range(content, offset..offset + length).await;
    }
    let item = ReadItem {
        content,
        offset,
        length,
    };
    let read = ask(shared, peer, &Message::Read(vec![item]), length).await;
    match read {
        Ok(Some(bytes)) if bytes.len() as u64 == length => Ok(bytes),
        Ok(Some(_)) => Err("it is of another size".to_owned()),
        Ok(None) => Err("it is not there".to_owned()),
        Err(failed) => Err(format!("{failed:?}")),
    }
}
