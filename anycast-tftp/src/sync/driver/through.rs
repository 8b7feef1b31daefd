//! A file that is known and not here yet, read through from a peer.
//!
//! Its content is asked for block by block, as it is read, and each block is proven by the hash of the
//! whole before a byte of it is sent on ([`Subtrees`]). Whole files go on being fetched meanwhile; a
//! transfer that began through a peer ends through peers.
//!
//! Reads wait for a peer, at most [`PATIENCE`] each, on the threads of the server that may.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anycast_core::service::NodeName;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::Shared;
use super::ask::{question, read_range};
use crate::store::{Content, OpenError, ReadError};
use crate::sync::content::ContentId;
use crate::sync::tree::{BLOCK, Subtrees};
use crate::sync::wire::Message;

/// Longest wait for a peer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Blocks that are asked for at once: 1 MiB, a window of the largest transfers and more.
const AHEAD: u64 = 16;
/// Blocks that are kept of one content.
const KEPT: usize = 32;
/// Contents that are open at once; a further one is not opened, and its client asks again.
pub(super) const MAX_OPEN: usize = 64;

/// A content that peers have.
pub(super) struct Remote {
    shared: Arc<Shared>,
    runtime: Handle,
    content: ContentId,
    trees: Subtrees,
    peers: Vec<NodeName>,
    /// Which of them gave the last blocks.
    answers: AtomicUsize,
    blocks: Mutex<BTreeMap<u64, Arc<[u8]>>>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.content.hash)
    }
}

impl Remote {
    /// Opens a content at whichever of these peers has it. Blocks.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] where each of them says that it has not; with
    /// [`OpenError::Overloaded`] it may come to be there in a moment.
    pub(super) fn open(
        shared: &Arc<Shared>,
        content: ContentId,
        peers: Vec<NodeName>,
    ) -> Result<Arc<dyn Content>, OpenError> {
        let place = Arc::clone(&shared.remotes).try_acquire_owned();
        let place = place.map_err(|_| {
            OpenError::Overloaded(io::Error::other("too many files are read through at once"))
        })?;
        let most = Subtrees::encoded_len(content.size).ok_or(OpenError::NotFound)?;
        let runtime = shared.runtime.clone();
        let trees_of = Message::Subtrees(content);
        let mut last = String::from("no peer is up");
        let mut lacking = 0;
        // A bucket has no trees.
        for peer in peers.iter().filter(|peer| !shared.is_bucket(peer)) {
            let asked = question(shared, peer, &trees_of, most);
            let answer = runtime.block_on(async { timeout(PATIENCE, asked).await });
            let trees = match answer {
                Ok(Ok(Some(bytes))) => Subtrees::decode(content, &bytes).map_err(|error| {
                    tracing::warn!(%peer, %error, "what a peer says of a content is not true");
                    error.to_string()
                }),
                Ok(Ok(None)) => {
                    lacking += 1;
                    Err("it is not there".to_owned())
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(format!("no answer within {PATIENCE:?}")),
            };
            match trees {
                Ok(trees) => {
                    tracing::debug!(%peer, content = %content.hash, "read through");
                    let mut peers = peers.clone();
                    // The one that has it first.
                    peers.sort_by_key(|other| other != peer);
                    return Ok(Arc::new(Self {
                        shared: Arc::clone(shared),
                        runtime,
                        content,
                        trees,
                        peers,
                        answers: AtomicUsize::new(0),
                        blocks: Mutex::default(),
                        _place: place,
                    }));
                }
                Err(error) => last = format!("{peer}: {error}"),
            }
        }
        if lacking > 0 && lacking == peers.len() {
            return Err(OpenError::NotFound);
        }
        // The client is to ask again, not to give up.
        Err(OpenError::Overloaded(io::Error::other(last)))
    }

    fn block(&self, index: u64) -> Result<Arc<[u8]>, ReadError> {
        if let Some(block) = self.blocks().get(&index) {
            return Ok(Arc::clone(block));
        }
        let end = (index + AHEAD).min(self.trees.blocks());
        let range = |index| self.trees.range(index).unwrap_or_default();
        let (start, stop) = (range(index).start, range(end.saturating_sub(1)).end);
        let mut last = String::new();
        // Who has given some is asked for the next; whoever lies or is silent costs that once.
        let answers = self.answers.load(Ordering::Relaxed);
        let peers = self.peers.iter().enumerate().cycle().skip(answers);
        for (number, peer) in peers.take(self.peers.len()) {
            let asked = read_range(&self.shared, peer, self.content, start, stop - start);
            let answer = self
                .runtime
                .block_on(async { timeout(PATIENCE, asked).await });
            let bytes = match answer {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => {
                    last = format!("{peer}: {error}");
                    continue;
                }
                Err(_) => {
                    last = format!("{peer}: no answer within {PATIENCE:?}");
                    continue;
                }
            };
            let pieces = bytes.chunks(BLOCK).zip(index..end);
            let proven = |(bytes, index)| self.trees.verify_block(index, bytes).is_ok();
            if !pieces.clone().all(proven) {
                tracing::warn!(%peer, content = %self.content.hash, "a block is not what its hash says");
                last = format!("{peer}: a block is not what its hash says");
                continue;
            }
            self.answers.store(number, Ordering::Relaxed);
            let mut blocks = self.blocks();
            if blocks.len() + AHEAD as usize > KEPT {
                blocks.clear();
            }
            for (bytes, index) in pieces {
                blocks.insert(index, bytes.into());
            }
            if let Some(block) = blocks.get(&index) {
                return Ok(Arc::clone(block));
            }
        }
        Err(ReadError::Io(io::Error::other(last)))
    }

    fn blocks(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<[u8]>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content for Remote {
    fn size(&self) -> u64 {
        self.content.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let block = self.block(at / BLOCK as u64)?;
            let skip = usize::try_from(at % BLOCK as u64).unwrap_or(usize::MAX);
            let part = block.get(skip..).filter(|part| !part.is_empty());
            let part = part.ok_or(ReadError::Changed)?;
            let rest = &mut buf[done..];
            let size = part.len().min(rest.len());
            rest[..size].copy_from_slice(&part[..size]);
            done += size;
        }
        Ok(())
    }

    /// Each block is proven by it.
    fn id(&self) -> Option<ContentId> {
        Some(self.content)
    }

    /// Always read on a thread that may wait, for a peer or for the lock.
    fn try_read_at(&self, _offset: u64, _buf: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::WouldBlock)
    }
}
