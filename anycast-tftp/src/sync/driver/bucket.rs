//! A bucket as one more peer: it is asked for what it has, contents are fetched from it, and what it
//! lacks is stored there. See [`object`](crate::sync::object).

use std::io;
use std::io::Seek as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use futures_util::stream::{self, StreamExt as _};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ask::{Failed, Piece};
use super::{FileSyncConfig, Shared, StartError, wall};
use crate::sync::content::ContentId;
use crate::sync::object::{BucketSettings, Host, ObjectError, ObjectStoreBackend, ObjectSync};
use crate::sync::replica::{FetchError, Replica};
use crate::sync::wire::ReadItem;

/// Bytes that are asked for at once.
const RANGE: u64 = 2 << 20;
/// Requests of one batch that are under way; as many answers wait in memory at most.
const RANGES: usize = 8;

/// Which bucket, and how it takes part.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// Where it is.
    pub settings: BucketSettings,
    /// What this node calls it; no node's name.
    pub name: NodeName,
    /// How often it is asked for changes. What changes here is stored at once.
    pub interval: Duration,
}

/// What is fetched from.
pub(super) struct Bucket {
    name: NodeName,
    interval: Duration,
    backend: ObjectStoreBackend,
}

/// The bucket of a configuration, and its name among the peers of the replica.
pub(super) fn prepare(config: &mut FileSyncConfig) -> Result<Option<Bucket>, StartError> {
    let Some(BucketConfig {
        settings,
        name,
        interval,
    }) = config.bucket.take()
    else {
        return Ok(None);
    };
    let replica = &mut config.replica;
    if replica.node == name || replica.peers.contains(&name) {
        return Err(StartError::BucketName(name));
    }
    let backend = ObjectStoreBackend::new(&settings)?;
    replica.peers.push(name.clone());
    Ok(Some(Bucket {
        name,
        interval,
        backend,
    }))
}

impl Bucket {
    pub(super) fn is(&self, peer: &NodeName) -> bool {
        self.name == *peer
    }

    /// Asks for these items, in order, and passes on what comes; see [`ask::receive`](super::ask).
    pub(super) async fn receive(
        &self,
        shared: &Shared,
        items: &[ReadItem],
        pieces: mpsc::Sender<Piece>,
    ) -> Result<(), Failed> {
        // The rest of an item that does not come is not asked for.
        let refused = AtomicUsize::new(usize::MAX);
        let refused = &refused;
        let wanted = items.iter().copied().enumerate();
        let wanted = wanted.flat_map(|(number, item)| {
            ranges(&item).map(move |range| (number, item.content, range))
        });
        let answers = wanted.map(|(number, content, range)| async move {
            let is_refused = refused.load(Ordering::Relaxed) == number;
            let answer = if is_refused {
                None
            } else {
                Some(self.backend.get(content, range).await)
            };
            (number, answer)
        });
        let mut answers = stream::iter(answers).buffered(RANGES);
        while let Some((number, answer)) = answers.next().await {
            let Some(answer) = answer.filter(|_| refused.load(Ordering::Relaxed) != number) else {
                continue;
            };
            let piece = match answer {
                Ok(bytes) => {
                    shared.fetches.count(bytes.len() as u64);
                    Piece::Bytes(bytes.into())
                }
                Err(error @ (ObjectError::Missing { .. } | ObjectError::Damaged { .. })) => {
                    tracing::debug!(%error, "the bucket does not give a content");
                    refused.store(number, Ordering::Relaxed);
                    Piece::Failed(reason(&error))
                }
                Err(error) => return Err(Failed::Peer(reason(&error))),
            };
            if pieces.send(piece).await.is_err() {
                return Err(Failed::lost("it cannot be written"));
            }
        }
        Ok(())
    }

    /// A part of a content, for one who proves it.
    pub(super) async fn read_range(
        &self,
        content: ContentId,
        range: Range<u64>,
    ) -> Result<Vec<u8>, String> {
        let read = self.backend.get(content, range).await;
        read.map_err(|error| error.to_string())
    }
}

fn reason(error: &ObjectError) -> FetchError {
    match error {
        ObjectError::Missing { .. } => FetchError::Absent,
        ObjectError::Settings { .. }
        | ObjectError::Denied { .. }
        | ObjectError::NoBucket { .. }
        | ObjectError::Damaged { .. }
        | ObjectError::NoManifest { .. }
        | ObjectError::TooLarge { .. }
        | ObjectError::Changed { .. }
        | ObjectError::Local { .. }
        | ObjectError::Failed { .. } => FetchError::Other(Reason::new(&error.to_string())),
    }
}

fn ranges(item: &ReadItem) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = item.offset.saturating_add(item.length);
    let mut start = item.offset;
    std::iter::from_fn(move || {
        let range = start..end.min(start.saturating_add(RANGE));
        start = range.end;
        (!range.is_empty()).then_some(range)
    })
}

/// The node's own part of [`ObjectSync`].
pub(super) struct Driven(Arc<Shared>);

impl Host for Driven {
    fn with<T>(&self, act: impl FnOnce(&mut Replica, Instant, u64) -> T) -> T {
        self.0.with(|replica| act(replica, Instant::now(), wall()))
    }

    async fn open(
        &self,
        content: ContentId,
    ) -> io::Result<Option<Box<dyn AsyncRead + Send + Unpin>>> {
        let Some(held) = self.0.open(content).await else {
            return Ok(None);
        };
        let mut file = held.file().try_clone()?;
        // It may have been hashed through the same description.
        file.rewind()?;
        Ok(Some(Box::new(tokio::fs::File::from_std(file))))
    }
}

/// Keeps the bucket and this copy the same.
#[derive(Clone)]
pub(super) struct Keeper(Arc<ObjectSync<Driven>>);

impl Keeper {
    /// Begins, where there is a bucket.
    pub(super) fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) -> Option<Self> {
        let bucket = shared.bucket.as_ref()?;
        let (backend, name) = (bucket.backend.clone(), bucket.name.clone());
        let host = Driven(Arc::clone(shared));
        let sync = ObjectSync::new(backend, name.clone(), bucket.interval, host);
        let sync = Arc::new(sync);
        tasks.spawn(keep(Arc::clone(&sync), name));
        Some(Self(sync))
    }

    /// Why the bucket cannot be used.
    pub(super) fn trouble(&self) -> Option<Reason> {
        self.0.trouble()
    }

    /// Contents that were stored there since the start.
    pub(super) async fn sent(&self) -> u64 {
        self.0.sent().await
    }

    /// Compares everything now.
    pub(super) async fn look(&self) -> Result<(), Reason> {
        let looked = self.0.look().await;
        looked.map_err(|error| Reason::new(&error.to_string()))
    }
}

async fn keep(sync: Arc<ObjectSync<Driven>>, name: NodeName) {
    let shared = &sync.host().0;
    let again = shared.follows(&name);
    let mut changed = shared.changed.subscribe();
    let ring = async {
        loop {
            tokio::select! {
                // The sender lives as long as `shared`.
                _ = changed.changed() => sync.changed(),
                () = again.notified() => sync.follow(),
            }
        }
    };
    tokio::join!(sync.run(), ring);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::content::ContentHash;

    #[test]
    fn an_item_is_asked_for_in_ranges_that_cover_it() {
        let covered = |offset, length| {
            let content = ContentId {
                hash: ContentHash([0; 32]),
                size: offset + length,
            };
            let item = ReadItem {
                content,
                offset,
                length,
            };
            ranges(&item).collect::<Vec<_>>()
        };
        assert!(covered(0, 0).is_empty());
        assert_eq!(covered(7, RANGE), vec![7..7 + RANGE; 1]);
        assert_eq!(covered(0, RANGE + 1), [0..RANGE, RANGE..RANGE + 1]);
    }
}
