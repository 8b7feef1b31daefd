//! Bringing contents in.
//!
//! # Tasks
//!
//! One takes what is wanted off the queue: a large content alone, small ones together, up to
//! [`BATCH_ITEMS`] and [`BATCH_BYTES`], [`BATCHES`] batches at once, each from the peer that has the
//! least to do among those that have it. A batch asks over one stream, or a few, and a thread writes
//! what comes, hashes it and waits for the disk. Dropped, what has come is kept to be continued.
//!
//! Of a content that has an older version here, the chunks that both have are copied, and only the
//! others are asked for. If that comes to other bytes than the hash says, the content is fetched
//! whole.
//!
//! # When it fails
//!
//! A peer that does not have a content, or goes away, is asked no more for it; the next one is. A
//! peer that sends less than [`PIECE`](super::ask::PIECE) bytes in
//! [`PIECE_TIME`](super::ask::PIECE_TIME) is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::Shared;
use super::ask::{Failed, Piece, ask, receive};
use super::serve::Cursor;
use crate::sync::chunks::{Recipe, Step, plan};
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::folder::{Held, Stage, StageError, Staged};
use crate::sync::replica::FetchError;
use crate::sync::wire::{MAX_ITEMS, Message, ReadItem};

/// Batches under way at once.
const BATCHES: usize = 4;
/// Most contents in one: each is an open descriptor, of which a process may have only 1024.
const BATCH_ITEMS: usize = MAX_ITEMS / 2;
/// Beyond so many bytes nothing is added to a batch.
const BATCH_BYTES: u64 = 16 << 20;
/// A larger content is a batch of its own.
const SMALL: u64 = 1 << 20;
/// Smaller ones are not worth a recipe.
const DELTA_ABOVE: u64 = 128 << 10;
/// Pieces on their way to the disk, in each batch. When it does not take them the stream waits.
const PIECES: usize = 16;

/// What is wanted and who is asked for it.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// As many as the replica has under way.
    waiting: VecDeque<Job>,
    /// What batches are at.
    under_way: BTreeSet<ContentHash>,
    /// Batches of each peer.
    load: BTreeMap<NodeName, usize>,
    bytes: u64,
    basis_bytes: u64,
}

#[derive(Debug, Clone)]
struct Job {
    content: ContentId,
    basis: Option<ContentId>,
    from: Vec<NodeName>,
    /// What the last of those said who were asked.
    said: FetchError,
}

impl Fetches {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, content: ContentId, basis: Option<ContentId>, from: Vec<NodeName>) {
        let said = FetchError::Absent;
        self.lock().waiting.push_back(Job {
            content,
            basis,
            from,
            said,
        });
        self.news.notify_one();
    }

    /// What is under way ends by itself.
    pub(super) fn cancel(&self, hash: &ContentHash) {
        self.lock().waiting.retain(|job| job.content.hash != *hash);
    }

    /// Contents that are being written.
    pub(super) fn under_way(&self) -> BTreeSet<ContentHash> {
        self.lock().under_way.clone()
    }

    /// Bytes that came from peers, and bytes that older versions had.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let state = self.lock();
        (state.bytes, state.basis_bytes)
    }

    /// So many bytes came.
    pub(super) fn count(&self, bytes: u64) {
        self.lock().bytes += bytes;
    }

    /// The next jobs, and the peer that is asked for them. Jobs that nobody is left for are put
    /// into `lost`.
    fn take(&self, shared: &Shared, lost: &mut Vec<Job>) -> Option<(NodeName, Vec<Job>)> {
        let mut state = self.lock();
        loop {
            let first = state.waiting.pop_front()?;
            let up = first.from.iter().filter(|peer| shared.is_up(peer));
            // What a bucket gives is paid for, mostly.
            let load = |peer: &&NodeName| {
                let load = state.load.get(*peer).copied().unwrap_or(0);
                (shared.bucket_called(peer).is_some(), load)
            };
            let Some(peer) = up.min_by_key(load).cloned() else {
                lost.push(first);
                continue;
            };
            let mut batch = vec![first];
            let is_small = |job: &Job| job.content.size <= SMALL && job.basis.is_none();
            let mut bytes = batch[0].content.size;
            if is_small(&batch[0]) {
                let mut kept = VecDeque::new();
                while let Some(job) = state.waiting.pop_front() {
                    let fits = batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES;
                    if !fits {
                        state.waiting.push_front(job);
                        break;
                    }
                    if is_small(&job) && job.from.contains(&peer) {
                        bytes += job.content.size;
                        batch.push(job);
                    } else {
                        kept.push_back(job);
                    }
                }
                kept.append(&mut state.waiting);
                state.waiting = kept;
            }
            *state.load.entry(peer.clone()).or_default() += 1;
            let hashes = batch.iter().map(|job| job.content.hash);
            state.under_way.extend(hashes);
            return Some((peer, batch));
        }
    }

    fn done(&self, peer: &NodeName) {
        let mut state = self.lock();
        if let Some(load) = state.load.get_mut(peer) {
            *load = load.saturating_sub(1);
        }
    }
}

/// Fetches for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut batches: JoinSet<()> = JoinSet::new();
    loop {
        let mut lost = Vec::new();
        while batches.len() < BATCHES {
            let Some((peer, jobs)) = shared.fetches.take(&shared, &mut lost) else {
                break;
            };
            batches.spawn(batch(Arc::clone(&shared), peer, jobs));
        }
        let lost = lost.into_iter().map(|job| (job.content, Err(job.said)));
        shared.fetched(lost.collect());
        tokio::select! {
            () = shared.fetches.news.notified() => {}
            Some(_) = batches.join_next() => {}
        }
    }
}

async fn batch(shared: Arc<Shared>, peer: NodeName, jobs: Vec<Job>) {
    let outcomes = transfer(&shared, &peer, &jobs).await;
    shared.fetches.done(&peer);
    let mut again = Vec::new();
    let mut ended = Vec::with_capacity(jobs.len());
    let hashes: Vec<_> = jobs.iter().map(|job| job.content.hash).collect();
    for (mut job, outcome) in jobs.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => ended.push((job.content, Ok(()))),
            Err(Failed::Disk(error)) => ended.push((job.content, Err(error))),
            // The same peer, whole.
            Err(Failed::Basis) => {
                job.basis = None;
                again.push(job);
            }
            Err(Failed::Lie(said)) => {
                tracing::warn!(%peer, content = %job.content.hash, "what a peer sent is not what its hash says");
                job.from.retain(|asked| *asked != peer);
                job.said = said;
                again.push(job);
            }
            Err(Failed::Peer(said)) => {
                job.from.retain(|asked| *asked != peer);
                job.said = said;
                again.push(job);
            }
        }
    }
    // All at once, so that what comes of them is recorded and installed together.
    shared.fetched(ended);
    let mut state = shared.fetches.lock();
    for hash in hashes {
        state.under_way.remove(&hash);
    }
    for job in again.into_iter().rev() {
        state.waiting.push_front(job);
    }
    drop(state);
    shared.fetches.news.notify_one();
}

impl Failed {
    fn of_stage(error: &StageError, had_some: bool) -> Self {
        match error {
            StageError::Full(_) => Self::Disk(FetchError::Full),
            StageError::Corrupt(_) | StageError::Basis(_) if had_some => Self::Basis,
            StageError::Corrupt(_) => Self::Lie(FetchError::Other(Reason::new(&error.to_string()))),
            StageError::Short(_) | StageError::TooLong(_) => Self::lost(error),
            StageError::Denied(_)
            | StageError::Busy(_)
            | StageError::Basis(_)
            | StageError::Io { .. } => {
                Self::Disk(FetchError::Other(Reason::new(&error.to_string())))
            }
        }
    }
}

/// One content on its way in.
struct Work {
    stage: Stage,
    steps: Vec<Step>,
    basis: Option<Held>,
}

async fn transfer(shared: &Arc<Shared>, peer: &NodeName, jobs: &[Job]) -> Vec<Result<(), Failed>> {
    let mut outcomes: Vec<Option<Result<(), Failed>>> = jobs.iter().map(|_| None).collect();
    let mut works = Vec::new();
    for (number, (job, staged)) in jobs.iter().zip(stage(shared, jobs).await).enumerate() {
        let begun = match staged {
            Ok(staged) => Ok(begin(shared, peer, job, staged).await),
            Err(failed) => Err(failed),
        };
        match begun {
            Ok(work) => works.push((number, work)),
            Err(failed) => outcomes[number] = Some(Err(failed)),
        }
    }
    let items: Vec<_> = works.iter().flat_map(|(_, work)| work.items()).collect();
    let (pieces, coming) = mpsc::channel(PIECES);
    let writer = Arc::clone(shared);
    let writing = tokio::task::spawn_blocking(move || write_works(&writer, works, coming));
    let received = match shared.bucket_called(peer) {
        Some(bucket) => bucket.receive(shared, &items, pieces).await,
        None => receive(shared, peer, &items, pieces).await,
    };
    if let Err(error) = &received {
        tracing::debug!(%peer, ?error, "a stream of contents ended early");
    }
    let written = writing.await.unwrap_or_default();
    for (number, outcome) in written {
        outcomes[number] = Some(outcome);
    }
    // A content of which nothing is known was not reached.
    let unreached = || Err(Failed::lost("the stream ended before it"));
    let filled = outcomes.into_iter();
    filled
        .map(|outcome| outcome.unwrap_or_else(unreached))
        .collect()
}

impl Work {
    fn items(&self) -> Vec<ReadItem> {
        let content = self.stage.content();
        let item = |step: &Step| match *step {
            Step::Fetch { offset, len } => Some(ReadItem {
                content,
                offset,
                length: len,
            }),
            Step::CopyFromBasis { .. } => None,
        };
        self.steps.iter().filter_map(item).collect()
    }
}

/// Finds out what is here of these contents.
async fn stage(shared: &Arc<Shared>, jobs: &[Job]) -> Vec<Result<Stage, Failed>> {
    let owner = Arc::clone(shared);
    let contents: Vec<_> = jobs.iter().map(|job| job.content).collect();
    let staged = tokio::task::spawn_blocking(move || {
        let stage = |content| owner.folder.stage(content);
        let staged = contents.into_iter().map(stage);
        staged.collect::<Vec<_>>()
    });
    match staged.await {
        Ok(staged) => {
            let failed = |error: StageError| Failed::of_stage(&error, false);
            let staged = staged.into_iter().map(|staged| staged.map_err(failed));
            staged.collect()
        }
        Err(error) => jobs.iter().map(|_| Err(Failed::lost(&error))).collect(),
    }
}

/// Finds out what is to be asked for.
async fn begin(shared: &Arc<Shared>, peer: &NodeName, job: &Job, stage: Stage) -> Work {
    let content = job.content;
    let offset = stage.offset();
    let whole = |stage| Work {
        stage,
        steps: vec![Step::Fetch {
            offset,
            len: content.size - offset,
        }],
        basis: None,
    };
    let wanted = job.basis.filter(|_| content.size >= DELTA_ABOVE);
    let Some(basis) = wanted else {
        return whole(stage);
    };
    match steps(shared, peer, content, basis, offset).await {
        Some((steps, basis)) => Work {
            stage,
            steps,
            basis: Some(basis),
        },
        None => whole(stage),
    }
}

/// What to copy from an older version and what to ask for, from `offset` on; `None`: it is not
/// worth it.
async fn steps(
    shared: &Arc<Shared>,
    peer: &NodeName,
    content: ContentId,
    basis: ContentId,
    offset: u64,
) -> Option<(Vec<Step>, Held)> {
    let basis = shared.open(basis).await?;
    let most = Recipe::max_encoded_len(content.size);
    // Both take as long as it takes to read a whole content: there and here at once.
    let own = tokio::task::spawn_blocking(move || {
        let own = Recipe::of(Cursor(&basis, 0)).ok()?;
        Some((own, basis))
    });
    let wanted = Message::Recipe(content);
    let (asked, own) = tokio::join!(ask(shared, peer, &wanted, most), own);
    let recipe = match asked {
        Ok(recipe) => recipe?,
        Err(error) => {
            tracing::debug!(%peer, ?error, "no recipe; the content is fetched whole");
            return None;
        }
    };
    let (own, basis) = own.ok()??;
    let planned = tokio::task::spawn_blocking(move || {
        let wanted = Recipe::decode(content.size, &recipe).ok()?;
        Some(plan(&wanted, &own))
    });
    let steps = planned.await.ok()??;
    let steps = from_offset(steps, offset);
    let fetched: u64 = steps
        .iter()
        .map(|step| match *step {
            Step::Fetch { len, .. } => len,
            Step::CopyFromBasis { .. } => 0,
        })
        .sum();
    let worth = fetched < (content.size - offset) / 10 * 9;
    worth.then_some((steps, basis))
}

/// The steps that are left when so much of the content is here.
fn from_offset(steps: Vec<Step>, mut skip: u64) -> Vec<Step> {
    let mut left = Vec::with_capacity(steps.len());
    for step in steps {
        let (Step::Fetch { offset, len } | Step::CopyFromBasis { offset, len }) = step;
        let cut = skip.min(len);
        skip -= cut;
        let (offset, len) = (offset + cut, len - cut);
        if len > 0 {
            left.push(match step {
                Step::Fetch { .. } => Step::Fetch { offset, len },
                Step::CopyFromBasis { .. } => Step::CopyFromBasis { offset, len },
            });
        }
    }
    left
}

/// Writes contents as their pieces come, and waits for the disk. In a thread that may block.
fn write_works(
    shared: &Shared,
    works: Vec<(usize, Work)>,
    mut coming: mpsc::Receiver<Piece>,
) -> Vec<(usize, Result<(), Failed>)> {
    let mut outcomes = Vec::new();
    let mut whole: Vec<(usize, Staged)> = Vec::new();
    for (number, work) in works {
        match write_work(shared, work, &mut coming) {
            Ok(staged) => whole.push((number, staged)),
            Err(failed) => outcomes.push((number, Err(failed))),
        }
    }
    let (numbers, staged): (Vec<_>, Vec<_>) = whole.into_iter().unzip();
    let synced = shared.folder.sync_all(staged);
    for (number, synced) in numbers.into_iter().zip(synced) {
        let synced = synced.map(drop);
        outcomes.push((
            number,
            synced.map_err(|error| Failed::of_stage(&error, false)),
        ));
    }
    outcomes
}

/// One content. After a failure the pieces of its other items are taken and thrown away, so that the
/// next content gets its own.
fn write_work(
    shared: &Shared,
    mut work: Work,
    coming: &mut mpsc::Receiver<Piece>,
) -> Result<Staged, Failed> {
    let had_some = work.basis.is_some() || work.stage.offset() > 0;
    let mut failed = None;
    for step in &work.steps {
        match *step {
            Step::CopyFromBasis { offset, len } => {
                let Some(basis) = work.basis.as_ref().filter(|_| failed.is_none()) else {
                    continue;
                };
                match work.stage.write_from_basis(basis, offset, len) {
                    Ok(()) => shared.fetches.lock().basis_bytes += len,
                    Err(error) => failed = Some(Failed::of_stage(&error, had_some)),
                }
            }
            Step::Fetch { len, .. } => {
                let mut left = len;
                while left > 0 {
                    match coming.blocking_recv() {
                        None => {
                            return Err(failed.unwrap_or_else(|| Failed::lost("it ended early")));
                        }
                        Some(Piece::Failed(error)) => {
                            failed.get_or_insert(Failed::Peer(error));
                            break;
                        }
                        Some(Piece::Bytes(bytes)) => {
                            left = left.saturating_sub(bytes.len() as u64);
                            if failed.is_none()
                                && let Err(error) = work.stage.write(&bytes)
                            {
                                failed = Some(Failed::of_stage(&error, had_some));
                            }
                        }
                    }
                }
            }
        }
    }
    match failed {
        Some(failed) => Err(failed),
        None => work
            .stage
            .finish()
            .map_err(|error| Failed::of_stage(&error, had_some)),
    }
}
