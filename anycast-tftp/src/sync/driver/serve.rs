//! What this node answers its peers about files.
//!
//! Each stream carries one question. Each is answered by a task of its own; the mesh bounds how many
//! there are of one peer. A question that is not whole within [`QUESTION`] ends its stream, and so
//! does a peer that takes no byte for [`STALLED`]: it costs nobody else anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anycast_core::mesh::transport::frames::FrameError;
use anycast_core::mesh::transport::streams::{Incoming, Receiver, Sender, StreamError};
use anycast_core::service::NodeName;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Shared;
use crate::sync::chunks::Recipe;
use crate::sync::content::ContentId;
use crate::sync::folder::Held;
use crate::sync::tree::Subtrees;
use crate::sync::wire::{
    Follow, MAX_FRAME, Message, PAGE, READ_HEAD, ReadHead, ReadItem, ReadStatus, WireError,
};

/// A question is whole after so long.
const QUESTION: Duration = Duration::from_secs(5);
/// A peer that takes nothing for so long is left.
pub(super) const STALLED: Duration = Duration::from_secs(10);
/// How often a follower hears where this copy stands, if nothing changes.
const HEAD_EVERY: Duration = Duration::from_secs(1);
/// Bytes read from the disk at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait to be sent on one stream.
const PIECES: usize = 4;

/// Why a stream was left.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("it asked nothing that this node knows")]
    Unknown,
    #[error("it took nothing for {STALLED:?}")]
    Stalled,
}

/// Answers every stream that peers open, for ever.
pub(super) async fn serve(shared: Arc<Shared>, mut incoming: Incoming) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            arrival = incoming.next() => {
                let Some((peer, sender, receiver)) = arrival else { return };
                streams.spawn(answer(Arc::clone(&shared), peer, sender, receiver));
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn answer(shared: Arc<Shared>, peer: NodeName, sender: Sender, receiver: Receiver) {
    if let Err(error) = ask(&shared, &peer, sender, receiver).await {
        // A peer that goes away is no news; one that says what it may not is.
        match error {
            ServeError::Stream(_) | ServeError::Frame(FrameError::Stream(_)) => {
                tracing::debug!(%peer, %error, "a stream about files ended");
            }
            ServeError::Frame(_)
            | ServeError::Wire(_)
            | ServeError::Unknown
            | ServeError::Stalled => {
                tracing::warn!(%peer, %error, "a stream about files was ended");
            }
        }
    }
}

async fn ask(
    shared: &Arc<Shared>,
    peer: &NodeName,
    mut sender: Sender,
    mut receiver: Receiver,
) -> Result<(), ServeError> {
    let question = timeout(QUESTION, receiver.read_frame(MAX_FRAME, QUESTION)).await;
    let question = question.map_err(|_| FrameError::Slow(QUESTION))??;
    let Some(question) = question else {
        return Ok(());
    };
    match Message::decode(&question)? {
        Some(Message::Follow(follow)) => tokio::select! {
            told = tell(shared, peer, &mut sender, follow) => told,
            ended = receiver.read_chunk(1) => match ended {
                // Nothing more is to be said by who follows.
                Ok(Some(_)) => Err(ServeError::Unknown),
                Ok(None) => Ok(()),
                Err(error) => Err(error.into()),
            },
        },
        Some(Message::Read(items)) => send_items(shared, sender, items).await,
        Some(Message::Recipe(content)) => {
            let recipe = |held: &Held| {
                Recipe::of(Cursor(held, 0))
                    .ok()
                    .map(|recipe| recipe.encode())
            };
            send_made(shared, &mut sender, content, recipe).await
        }
        Some(Message::Subtrees(content)) => {
            let trees = |held: &Held| {
                Subtrees::of(Cursor(held, 0))
                    .ok()
                    .map(|trees| trees.encode())
            };
            send_made(shared, &mut sender, content, trees).await
        }
        Some(Message::Affinity(notices)) => {
            shared
                .affinity()
                .handle_notices(Instant::now().into_std(), &notices);
            Ok(sender.finish()?)
        }
        Some(_) | None => Err(ServeError::Unknown),
    }
}

/// Tells a follower all changes, as they come, and where this copy stands.
async fn tell(
    shared: &Arc<Shared>,
    peer: &NodeName,
    sender: &mut Sender,
    follow: Follow,
) -> Result<(), ServeError> {
    let mut changed = shared.changed.subscribe();
    let mut since = follow;
    tracing::debug!(%peer, ?follow, "a peer follows");
    loop {
        changed.borrow_and_update();
        loop {
            let (page, head) = {
                let replica = shared.replica();
                (replica.page(since, PAGE), replica.head())
            };
            if page.entries.is_empty() && page.upto == page.after {
                write(sender, &Message::Head(head)).await?;
                break;
            }
            since = Follow {
                epoch: page.epoch,
                since: page.upto,
            };
            write(sender, &Message::Page(page)).await?;
        }
        // Whichever comes first; the sender lives as long as `shared`.
        let _ = timeout(HEAD_EVERY, changed.changed()).await;
    }
}

/// Writes one message; a peer that does not take it in time is left.
pub(super) async fn write(sender: &mut Sender, message: &Message) -> Result<(), ServeError> {
    let frame = message.encode()?;
    timeout(STALLED, sender.write_all(&frame))
        .await
        .map_err(|_| ServeError::Stalled)??;
    Ok(())
}

async fn write_bytes(sender: &mut Sender, bytes: Bytes) -> Result<(), ServeError> {
    timeout(STALLED, sender.write_chunk(bytes))
        .await
        .map_err(|_| ServeError::Stalled)??;
    Ok(())
}

async fn write_head(
    sender: &mut Sender,
    status: ReadStatus,
    length: u64,
) -> Result<(), ServeError> {
    let head = ReadHead { status, length };
    write_bytes(sender, Bytes::copy_from_slice(&head.encode())).await
}

/// The items of a [`Message::Read`]: one thread reads ahead while the peer takes what was read.
async fn send_items(
    shared: &Arc<Shared>,
    mut sender: Sender,
    items: Vec<ReadItem>,
) -> Result<(), ServeError> {
    let (pieces, mut ready) = mpsc::channel(PIECES);
    let owner = Arc::clone(shared);
    let reading = tokio::task::spawn_blocking(move || {
        let mut last = None;
        // It has ended early where the peer has, or a content was changed.
        let _ = items
            .into_iter()
            .try_for_each(|item| read_item(&owner, &mut last, item, &pieces));
    });
    while let Some(piece) = ready.recv().await {
        let Ok(bytes) = piece else {
            sender.reset(1);
            return Ok(());
        };
        write_bytes(&mut sender, bytes).await?;
    }
    if reading.await.is_err() {
        sender.reset(1);
        return Ok(());
    }
    Ok(sender.finish()?)
}

/// What was read, with the head of its item before the first piece; or that the content was cut or
/// changed in place meanwhile, and the peer must not take it for whole.
type Read = Result<Bytes, Changed>;

struct Changed;

/// No more is to be read.
struct Over;

/// One item. `last` is what the one before it was of: ranges of one content come together.
fn read_item(
    shared: &Shared,
    last: &mut Option<Held>,
    item: ReadItem,
    pieces: &mpsc::Sender<Read>,
) -> Result<(), Over> {
    let send = |piece: Read| pieces.blocking_send(piece).map_err(|_| Over);
    let head = |status, length| ReadHead { status, length }.encode();
    let refuse = |status| send(Ok(Bytes::copy_from_slice(&head(status, 0))));
    let open = || shared.folder.open_content(&item.content).ok();
    let is_same = |held: &Held| held.content() == item.content;
    let Some(held) = last.take().filter(is_same).or_else(open) else {
        return refuse(ReadStatus::Absent);
    };
    let held = last.insert(held);
    let length = held.content().size.saturating_sub(item.offset);
    let length = length.min(item.length);
    let end = item.offset.saturating_add(length);
    let (mut offset, mut before) = (item.offset, READ_HEAD);
    loop {
        let size = usize::try_from(end - offset).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = vec![0; before + size];
        let (to_head, to_bytes) = piece.split_at_mut(before);
        match held.read_at(offset, to_bytes) {
            Ok(()) => {}
            // Another one may be there by its name.
            Err(error) if before > 0 => {
                tracing::warn!(content = %item.content.hash, %error, "a content cannot be read for a peer");
                *last = None;
                return refuse(ReadStatus::Failed);
            }
            Err(error) => {
                tracing::warn!(content = %item.content.hash, %error, "a content changed while it was read");
                let _ = send(Err(Changed));
                return Err(Over);
            }
        }
        if before > 0 {
            to_head.copy_from_slice(&head(ReadStatus::Here, length));
        }
        send(Ok(Bytes::from(piece)))?;
        (offset, before) = (offset + size as u64, 0);
        if offset >= end {
            return Ok(());
        }
    }
}

/// What is made of a whole content: a [`ReadHead`] and the bytes.
async fn send_made(
    shared: &Arc<Shared>,
    sender: &mut Sender,
    content: ContentId,
    make: impl FnOnce(&Held) -> Option<Vec<u8>> + Send + 'static,
) -> Result<(), ServeError> {
    let made = match shared.open(content).await {
        None => Err(ReadStatus::Absent),
        Some(held) => {
            // Reading a content as a whole takes a disk's time: one at a time for each node.
            let turn = shared.makers.acquire().await;
            let made = tokio::task::spawn_blocking(move || make(&held)).await;
            drop(turn);
            made.ok().flatten().ok_or(ReadStatus::Failed)
        }
    };
    match made {
        Ok(bytes) => {
            write_head(sender, ReadStatus::Here, bytes.len() as u64).await?;
            let mut rest = Bytes::from(bytes);
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE));
                write_bytes(sender, piece).await?;
            }
        }
        Err(status) => write_head(sender, status, 0).await?,
    }
    Ok(sender.finish()?)
}

/// Reads a content from its beginning.
pub(super) struct Cursor<'a>(pub(super) &'a Held, pub(super) u64);

impl io::Read for Cursor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.0.content().size.saturating_sub(self.1);
        let size = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        let Some(buf) = buf.get_mut(..size) else {
            return Ok(0);
        };
        self.0.read_at(self.1, buf)?;
        self.1 += size as u64;
        Ok(size)
    }
}

impl Shared {
    /// A content, if it is here.
    pub(super) async fn open(self: &Arc<Self>, content: ContentId) -> Option<Held> {
        let shared = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || shared.folder.open_content(&content));
        opened.await.ok()?.ok()
    }
}
