//! Keeps a replica and a bucket the same.
//!
//! The bucket takes part as one more peer of the [`Replica`]: what it holds comes in as that
//! peer's pages, it is one that contents are fetched from, and what the replica has and the bucket
//! has not is stored there. It works with other nodes as peers besides it, and without any.
//!
//! One task, [`ObjectSync::run`]; dropping it stops it between two requests. Everything that it
//! does may be repeated.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use anycast_core::sync::{self, Forced, Lag, Status, SyncError};
use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::super::content::ContentId;
use super::super::manifest::{Digest, Entry, Key};
use super::super::replica::Replica;
use super::super::wire::{Follow, Head, Page};
use super::body::{self, Body, Decoded};
use super::{
    Etag, ObjectError, ObjectStoreBackend, PutManifestError, Replaces, Stored, StoredManifest,
};

/// Entries that are handed to the replica, or taken from it, at a time, so that others get their
/// turn.
const PAGE: usize = 1_000;
/// About so many bytes of entries are taken from the replica at a time.
const PAGE_BYTES: usize = 128 << 10;
/// Contents that are uploaded at a time.
const UPLOADS: usize = 8;
/// How often a manifest is merged anew because other nodes were faster, before a pause.
const ATTEMPTS: u32 = 8;
/// After so long the bucket is asked again which contents it has: somebody may have removed one.
const LIST_AFTER: Duration = Duration::from_secs(3600);
/// How long a change waits for others, so that they go together.
const GATHER: Duration = Duration::from_millis(200);
/// How often `force` looks whether all is here.
const LOOK: Duration = Duration::from_millis(100);
/// How long nothing may move before `force` gives up and says what was done.
const PATIENCE: Duration = Duration::from_secs(30);

/// The node's own part: who drives the [`Replica`] and its folder.
pub trait Host: Send + Sync {
    /// Runs `act` on the replica, with the monotonic clock and the wall clock (microseconds since
    /// 1970), and sees to it that what the replica then puts out is done, here or later:
    ///
    /// - `Fetch`, when it names the bucket among its sources: [`ObjectSync::fetch`];
    /// - `Changed`: [`ObjectSync::changed`];
    /// - `Follow`, when it names the bucket: [`ObjectSync::follow`].
    ///
    /// Does not block for long. `act` does not call the host.
    fn with<T>(&self, act: impl FnOnce(&mut Replica, Instant, u64) -> T) -> T;

    /// A content that is here, from its beginning; `None` when it is not here.
    fn open(
        &self,
        content: ContentId,
    ) -> impl Future<Output = io::Result<Option<Box<dyn AsyncRead + Send + Unpin>>>> + Send;
}

/// See the [module documentation](self).
pub struct ObjectSync<H> {
    backend: ObjectStoreBackend,
    peer: NodeName,
    interval: Duration,
    host: H,
    bell: Notify,
    /// The replica wants to be told from the beginning.
    again: Mutex<bool>,
    /// Why the last attempt failed.
    trouble: Mutex<Option<Reason>>,
    state: tokio::sync::Mutex<State>,
}

/// What is known of the bucket.
#[derive(Default)]
struct State {
    /// Whether the replica believes that the bucket is there.
    is_up: bool,
    /// Whether it was told since then what the bucket has.
    has_told: bool,
    /// Whether the store honours conditions; `None`: not asked yet.
    has_conditions: Option<bool>,
    etag: Option<Etag>,
    digest: Digest,
    /// Entries of the bucket that the replica did not take, or not wholly. They stay there.
    refused: Vec<(Key, Entry)>,
    /// Contents in the bucket, and when that was asked.
    held: BTreeSet<ContentId>,
    /// How many contents were sent since the start.
    sent: u64,
    listed_at: Option<tokio::time::Instant>,
    /// With this digest of the replica there was nothing to be stored.
    settled: Option<Digest>,
}

impl<H: Host> ObjectSync<H> {
    /// `peer` is the name that the replica knows the bucket by: one of its configured peers, and
    /// no node's. The bucket is asked for changes every `interval`; 5 s is a good one.
    #[must_use]
    pub fn new(backend: ObjectStoreBackend, peer: NodeName, interval: Duration, host: H) -> Self {
        Self {
            backend,
            peer,
            interval,
            host,
            bell: Notify::new(),
            again: Mutex::new(false),
            trouble: Mutex::default(),
            state: tokio::sync::Mutex::default(),
        }
    }

    /// The node's part.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The replica has something new to tell. Cheap; changes in quick succession go together.
    pub fn changed(&self) {
        self.bell.notify_one();
    }

    /// The replica wants all that the bucket has.
    pub fn follow(&self) {
        *lock(&self.again) = true;
        self.bell.notify_one();
    }

    /// Writes a content from the bucket to `writer`; verified when it succeeds.
    ///
    /// # Errors
    /// See [`ObjectStoreBackend::fetch`].
    pub async fn fetch(
        &self,
        content: ContentId,
        writer: impl AsyncWrite + Unpin,
    ) -> Result<(), ObjectError> {
        self.backend.fetch(content, writer).await
    }

    /// Keeps the two the same until it is dropped.
    pub async fn run(&self) {
        loop {
            // What is wrong is in the status, and was logged when it began.
            let _ = self.reconcile().await;
            let rung = tokio::time::timeout(self.interval, self.bell.notified()).await;
            if rung.is_ok() {
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// Why the bucket cannot be used.
    #[must_use]
    pub fn trouble(&self) -> Option<Reason> {
        lock(&self.trouble).clone()
    }

    /// How many contents were stored there since the start. Waits for a request that is under way.
    pub async fn sent(&self) -> u64 {
        self.state.lock().await.sent
    }

    /// Compares the two now, contents too.
    ///
    /// # Errors
    /// [`ObjectError`]; it is tried again at the next interval.
    pub async fn look(&self) -> Result<(), ObjectError> {
        self.state.lock().await.listed_at = None;
        self.reconcile().await
    }

    /// Once in both directions.
    async fn reconcile(&self) -> Result<(), ObjectError> {
        let mut state = self.state.lock().await;
        let done = self.exchange(&mut state).await;
        match &done {
            Ok(()) => {
                if lock(&self.trouble).take().is_some() {
                    tracing::info!(bucket = ?self.backend, "the bucket can be used again");
                }
            }
            Err(error) => {
                let reason = Reason::new(&error.to_string());
                if lock(&self.trouble).replace(reason).is_none() {
                    tracing::warn!("{error}");
                }
                // One whose manifest cannot be read is there, and nobody knows what it has.
                let is_there = matches!(
                    error,
                    ObjectError::NoManifest { .. } | ObjectError::TooLarge { .. }
                );
                if !is_there && std::mem::take(&mut state.is_up) {
                    self.host
                        .with(|replica, _, _| replica.handle_peer_down(&self.peer));
                }
            }
        }
        done
    }

    async fn exchange(&self, state: &mut State) -> Result<(), ObjectError> {
        for attempt in 0..ATTEMPTS {
            self.pull(state).await?;
            self.list(state).await?;
            let ours = self.host.with(|replica, _, _| replica.manifest().digest());
            if state.settled == Some(ours) {
                return Ok(());
            }
            let body = self.collect(state);
            self.upload(state, &body).await?;
            let pushed = if body.digest() == state.digest {
                Ok(())
            } else {
                self.push(state, &body).await
            };
            match pushed {
                Ok(()) => {
                    // Not when something is not recorded yet, or refused, or not to be had.
                    let is_all = body.digest() == ours && body.contents().is_subset(&state.held);
                    state.settled = is_all.then_some(ours);
                    return Ok(());
                }
                Err(PutManifestError::Conflict { .. }) => {
                    // Nodes that collide once must not collide for ever: the name of the node
                    // decides who waits longer.
                    let spread = self
                        .host
                        .with(|replica, _, _| spread(&replica.config().node));
                    tokio::time::sleep(spread * (attempt + 1)).await;
                }
                Err(PutManifestError::Object(error)) => return Err(error),
            }
        }
        // Others are busy writing. What is here goes with the next attempt.
        self.bell.notify_one();
        Ok(())
    }

    /// Takes in what the bucket has, if that has changed.
    async fn pull(&self, state: &mut State) -> Result<(), ObjectError> {
        if !state.is_up {
            // The replica is to wait for what it has, however long that takes to come.
            self.backend.reach().await?;
            state.is_up = true;
            state.has_told = false;
            // Another one may answer at the same address.
            state.listed_at = None;
            self.host
                .with(|replica, now, _| replica.handle_peer_up(now, &self.peer));
        }
        if std::mem::take(&mut *lock(&self.again)) || !state.has_told {
            state.etag = None;
        }
        let found = self.backend.get_manifest(state.etag.as_ref()).await?;
        let (decoded, etag) = match found {
            StoredManifest::Unchanged => return Ok(()),
            StoredManifest::Absent if state.has_told && state.etag.is_none() => return Ok(()),
            StoredManifest::Absent => {
                // With it the contents may be gone.
                state.listed_at = None;
                (Decoded::default(), None)
            }
            StoredManifest::Found { bytes, etag } => {
                let decoded = body::decode(&bytes);
                let decoded = decoded.map_err(|error| self.backend.no_manifest(&error))?;
                (decoded, Some(etag))
            }
        };
        state.has_told = true;
        state.settled = None;
        state.digest = decoded.digest;
        state.refused = self.hand_over(decoded.entries, epoch(etag.as_ref()), decoded.digest);
        state.etag = etag;
        Ok(())
    }

    /// Gives entries to the replica, and returns what it did not take.
    fn hand_over(
        &self,
        entries: Vec<(Key, Entry)>,
        epoch: u64,
        digest: Digest,
    ) -> Vec<(Key, Entry)> {
        let files = entries.len() as u64;
        let mut refused = Vec::new();
        let mut after = 0;
        let mut entries = entries.into_iter();
        loop {
            let entries: Vec<_> = entries.by_ref().take(PAGE).collect();
            let page = Page {
                epoch,
                after,
                upto: after + entries.len() as u64,
                entries,
            };
            self.host
                .with(|replica, now, _| replica.handle_page(now, &self.peer, &page));
            let known = |key: &Key| {
                self.host
                    .with(|replica, _, _| replica.manifest().entry(key))
            };
            let lacks = |(key, entry): &(Key, Entry)| known(key).unwrap_or_default().merge(entry);
            after = page.upto;
            let is_last = page.entries.len() < PAGE;
            refused.extend(page.entries.into_iter().filter(lacks));
            if is_last {
                break;
            }
        }
        self.tell_head(epoch, files, digest);
        refused
    }

    fn tell_head(&self, epoch: u64, files: u64, digest: Digest) {
        let head = Head {
            epoch,
            seq: files,
            digest,
            files,
            missing: 0,
        };
        self.host
            .with(|replica, now, _| replica.handle_head(now, &self.peer, head));
    }

    /// What is to be in the bucket: all that the replica has recorded, and what it refused.
    fn collect(&self, state: &State) -> Body {
        let mut body = Body::default();
        let mut follow = self.host.with(|replica, _, _| Follow {
            epoch: replica.head().epoch,
            since: 0,
        });
        loop {
            let page = self
                .host
                .with(|replica, _, _| replica.page(follow, PAGE_BYTES));
            if page.entries.is_empty() {
                break;
            }
            for (key, entry) in page.entries {
                body.set(key, &entry);
            }
            follow.since = page.upto;
        }
        for (key, entry) in &state.refused {
            body.merge(key, entry);
        }
        body
    }

    /// Asks which contents the bucket has, once and then rarely.
    async fn list(&self, state: &mut State) -> Result<(), ObjectError> {
        let is_old = |at: tokio::time::Instant| at.elapsed() > LIST_AFTER;
        if state.listed_at.is_none_or(is_old) {
            state.held = self.backend.list().await?.into_iter().collect();
            state.listed_at = Some(tokio::time::Instant::now());
            state.settled = None;
        }
        Ok(())
    }

    /// Stores the contents that the bucket lacks and this node has.
    async fn upload(&self, state: &mut State, body: &Body) -> Result<(), ObjectError> {
        let lacking: Vec<_> = body.contents().difference(&state.held).copied().collect();
        let uploads = lacking.into_iter().map(|content| self.upload_one(content));
        let mut uploads = stream::iter(uploads).buffer_unordered(UPLOADS);
        while let Some(stored) = uploads.try_next().await? {
            if let Some((content, stored)) = stored {
                state.held.insert(content);
                state.sent += u64::from(stored == Stored::Uploaded);
            }
        }
        Ok(())
    }

    /// The content and what was done, if the bucket has it now. What is not here is for another node to store, and a
    /// file that changed meanwhile is soon another version.
    async fn upload_one(
        &self,
        content: ContentId,
    ) -> Result<Option<(ContentId, Stored)>, ObjectError> {
        let reader = match self.host.open(content).await {
            Ok(Some(reader)) => reader,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(hash = %content.hash, %error, "a file cannot be read to be uploaded");
                return Ok(None);
            }
        };
        match self.backend.put(content, reader).await {
            Ok(stored) => Ok(Some((content, stored))),
            Err(error @ (ObjectError::Changed { .. } | ObjectError::Local { .. })) => {
                tracing::debug!("{error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn push(&self, state: &mut State, body: &Body) -> Result<(), PutManifestError> {
        let has_conditions = match state.has_conditions {
            Some(known) => known,
            None => self.ask_conditions(state).await?,
        };
        let replaces = match &state.etag {
            _ if !has_conditions => Replaces::Anything,
            None => Replaces::Nothing,
            Some(etag) => Replaces::Only(etag.clone()),
        };
        let etag = self.backend.put_manifest(body.encode(), replaces).await?;
        let (epoch, files) = (epoch(Some(&etag)), body.len() as u64);
        let page = Page {
            epoch,
            after: 0,
            upto: files,
            entries: Vec::new(),
        };
        state.etag = Some(etag);
        state.digest = body.digest();
        self.host
            .with(|replica, now, _| replica.handle_page(now, &self.peer, &page));
        self.tell_head(epoch, files, state.digest);
        Ok(())
    }

    async fn ask_conditions(&self, state: &mut State) -> Result<bool, ObjectError> {
        let node = self
            .host
            .with(|replica, _, _| replica.config().node.clone());
        let conditions = self.backend.conditions(&node).await?;
        let has_both = conditions.if_match && conditions.if_none_match;
        if !has_both {
            tracing::warn!(
                bucket = ?self.backend,
                ?conditions,
                "the store ignores conditions: nodes that write at the same time undo each other \
                 and have to write again; changes may be late"
            );
        }
        state.has_conditions = Some(has_both);
        Ok(has_both)
    }
}

#[async_trait]
impl<H: Host> sync::Sync for ObjectSync<H> {
    async fn status(&self) -> Result<Status, SyncError> {
        let mut status = self.host.with(|replica, now, _| replica.status(now));
        if let Some(trouble) = &*lock(&self.trouble) {
            status.reason = format!("{}; {trouble}", status.reason).into();
        }
        Ok(status)
    }

    async fn lag(&self) -> Result<Lag, SyncError> {
        Ok(self.host.with(|replica, now, _| replica.lag(now)))
    }

    async fn force(&self) -> Result<Forced, SyncError> {
        let before = self.host.with(|replica, now, wall| {
            let before = replica.counts();
            replica.force(now, wall);
            before
        });
        let sent = self.sent().await;
        let reconcile = async || {
            let done = self.reconcile().await;
            done.map_err(|error| SyncError::Unreachable {
                data_set: "files".to_owned(),
                reason: Reason::new(&error.to_string()),
            })
        };
        self.state.lock().await.listed_at = None;
        reconcile().await?;
        let mut moved_at = tokio::time::Instant::now();
        let mut last = Lag::Unknown;
        loop {
            let lag = self
                .host
                .with(|replica, now, _| replica.lag_of(now, &self.peer));
            let items = |lag| match lag {
                Lag::Behind { items, .. } => items,
                Lag::None | Lag::Unknown => 0,
            };
            if items(lag) != items(last) {
                moved_at = tokio::time::Instant::now();
            }
            if items(lag) == 0 || moved_at.elapsed() > PATIENCE {
                break;
            }
            last = lag;
            tokio::time::sleep(LOOK).await;
        }
        // What the replica has decided meanwhile.
        reconcile().await?;
        let mut forced = self.host.with(|replica, _, _| replica.forced(&before));
        forced.sent = self.sent().await - sent;
        Ok(forced)
    }
}

/// The replica tells by it whether the bucket's entries are still those that it was given.
fn epoch(etag: Option<&Etag>) -> u64 {
    let hash = blake3::hash(etag.map_or("", |etag| &etag.0).as_bytes());
    let (first, _) = hash.as_bytes().split_at(8);
    first
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// 20 to 275 ms, another one for most nodes.
fn spread(node: &NodeName) -> Duration {
    let hash = blake3::hash(node.as_str().as_bytes());
    let [first, ..] = hash.as_bytes();
    Duration::from_millis(20 + u64::from(*first))
}

/// What a panic left behind is whole: each holds one value.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
