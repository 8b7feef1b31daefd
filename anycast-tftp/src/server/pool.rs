//! Store requests on blocking threads, a bounded number at once.
//!
//! Three lanes: opening files, reading and writing those that are open, and opening contents of
//! transfers that other nodes began, which may wait for a peer. A folder that hangs fills the first
//! lane at most, and transfers that run go on; peers that hang fill the last at most. A thread takes the next request
//! of its lane by itself, so that none waits for the task of the socket.
//!
//! Dropping the pool forgets the requests that wait; a thread ends with the one it is at.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::proto::jobs::{StoreReply, StoreRequest};
use crate::store::{OpenError, Store};

/// Most threads of one listen address that open files. When all hang, requests wait, and
/// beyond [`Settings::with_max_pending_opens`](super::Settings::with_max_pending_opens) they
/// are dropped.
pub const MAX_OPEN_THREADS: usize = 16;

/// Most threads of one listen address that read and write open files. When all hang,
/// transfers that need the disk wait; those whose bytes are in memory do not.
pub const MAX_TRANSFER_THREADS: usize = 32;

/// Most threads of one listen address that open what is pinned. When all hang, transfers that other
/// nodes began wait for their content.
pub const MAX_PIN_THREADS: usize = 8;

/// Beyond so many files that are being opened the socket lets the threads catch up before it
/// takes more datagrams.
const OPENS_AHEAD: usize = 256;

/// Longest wait for the threads to get below [`OPENS_AHEAD`]. When they do not, the store is
/// slow, and is not waited for again before they have.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Requests that wait before it is worth looking for idle ones.
const TRIM_ABOVE: usize = 256;

#[derive(Debug, Default)]
struct Queue {
    running: usize,
    trim_above: usize,
    waiting: VecDeque<(StoreRequest, Arc<dyn Store>)>,
}

#[derive(Debug)]
struct Lane {
    limit: usize,
    queue: Mutex<Queue>,
}

impl Lane {
    fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            queue: Mutex::default(),
        })
    }

    // Nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does next. None: it ends.
    fn take(&self) -> Option<(StoreRequest, Arc<dyn Store>)> {
        let mut queue = self.lock();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.running = queue.running.saturating_sub(1);
        }
        next
    }

    /// Forgets what nobody waits for any more once it may be half of all: a client may ask
    /// for ever more while the disk hangs.
    fn trim(queue: &mut Queue) {
        if queue.waiting.len() > queue.trim_above.max(TRIM_ABOVE) {
            queue.waiting.retain(|(request, _)| !request.is_idle());
            queue.trim_above = queue.waiting.len() * 2;
        }
    }

    fn outstanding(&self) -> usize {
        let queue = self.lock();
        queue.running + queue.waiting.len()
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    open: Arc<Lane>,
    transfer: Arc<Lane>,
    pin: Arc<Lane>,
    /// As many as there are requests: at most one for each session, opens up to their limit, and
    /// pins up to [`MAX_CONTENTS`](crate::handoff::limits::MAX_CONTENTS).
    replies: UnboundedReceiver<StoreReply>,
    sender: UnboundedSender<StoreReply>,
    /// The store was waited for in vain.
    is_slow: bool,
    pub(super) waits: u64,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for lane in [&self.open, &self.transfer, &self.pin] {
            let waiting = std::mem::take(&mut lane.lock().waiting);
            drop(waiting);
        }
    }
}

impl Pool {
    pub(super) fn new() -> Self {
        let (sender, replies) = unbounded_channel();
        Self {
            open: Lane::new(MAX_OPEN_THREADS),
            transfer: Lane::new(MAX_TRANSFER_THREADS),
            pin: Lane::new(MAX_PIN_THREADS),
            replies,
            sender,
            is_slow: false,
            waits: 0,
        }
    }

    /// Runs a request as soon as a thread is free.
    pub(super) fn run(&mut self, request: StoreRequest, store: &Arc<dyn Store>) {
        let lane = match &request {
            StoreRequest::Open { .. } | StoreRequest::Create { .. } => &self.open,
            StoreRequest::Pin { .. } => &self.pin,
            StoreRequest::Load { .. }
            | StoreRequest::Index { .. }
            | StoreRequest::Write { .. }
            | StoreRequest::Discard { .. }
            | StoreRequest::Close { .. } => &self.transfer,
        };
        let mut queue = lane.lock();
        queue.waiting.push_back((request, Arc::clone(store)));
        if queue.running >= lane.limit {
            self.waits += 1;
            Lane::trim(&mut queue);
            return;
        }
        queue.running += 1;
        drop(queue);
        let (lane, replies) = (Arc::clone(lane), self.sender.clone());
        tokio::task::spawn_blocking(move || work(&lane, &replies));
    }

    /// The next reply. Waits for ever when nothing runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> StoreReply {
        match self.replies.recv().await {
            Some(reply) => reply,
            // The pool holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// A reply that is there already.
    pub(super) fn try_next(&mut self) -> Option<StoreReply> {
        self.replies.try_recv().ok()
    }

    /// Until when the threads may catch up; None when there is no need to wait for them, or
    /// no use.
    pub(super) fn catch_up(&mut self, now: Instant) -> Option<Instant> {
        let is_behind = self.open.outstanding() >= OPENS_AHEAD;
        self.is_slow &= is_behind;
        (is_behind && !self.is_slow).then_some(now + CATCH_UP)
    }

    /// Whether the threads have caught up; when they have not by the deadline, they are not
    /// waited for again.
    pub(super) fn has_caught_up(&mut self, is_late: bool) -> bool {
        let is_behind = self.open.outstanding() >= OPENS_AHEAD;
        self.is_slow = is_behind && is_late;
        !is_behind
    }
}

fn work(lane: &Lane, replies: &UnboundedSender<StoreReply>) {
    while let Some((request, store)) = lane.take() {
        if let Some(reply) = run(request, &*store) {
            // Nobody waits for it once the server has stopped.
            let _ = replies.send(reply);
        }
    }
}

fn run(request: StoreRequest, store: &dyn Store) -> Option<StoreReply> {
    let id = request.id();
    let pinned = match &request {
        StoreRequest::Pin { content } => Some(*content),
        StoreRequest::Open { .. }
        | StoreRequest::Create { .. }
        | StoreRequest::Load { .. }
        | StoreRequest::Index { .. }
        | StoreRequest::Write { .. }
        | StoreRequest::Discard { .. }
        | StoreRequest::Close { .. } => None,
    };
    let caught = catch_unwind(AssertUnwindSafe(|| request.run(store)));
    caught.unwrap_or_else(|_| {
        tracing::error!("a store panicked");
        let lost = || OpenError::Io(std::io::Error::other("the store panicked"));
        id.map(StoreReply::Lost)
            .or_else(|| pinned.map(|content| StoreReply::Pinned(content, Err(lost()))))
    })
}
