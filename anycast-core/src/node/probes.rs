//! Where probes run, and what becomes of a thread that a check blocks.
//!
//! Probes share the threads of one runtime. A check that *blocks* a thread (a busy loop, a
//! `std::thread::sleep`, a file system that hangs) cannot be stopped from outside. So:
//!
//! - Its supervisor knows that the task is in the middle of a step, says so, and builds the
//!   check afresh only when that step has ended: it never blocks two threads. From then on the
//!   check has a thread of its own.
//! - Where every thread is blocked at once, the other checks are built afresh in a spare
//!   thread, about [`LOOK`] to twice that later.
//! - All these threads are bounded by [`MAX_THREADS`]. One that is blocked for ever stays until
//!   the process ends.
//!
//! | task | does | when it dies |
//! |---|---|---|
//! | watch, one for each node that has a runtime for probes | asks it every [`LOOK`] whether it still runs anything, and looks for [leaks] | checks that are starved stay so, and `Unknown` |

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use super::leaks::{self, Leaks, Usage};
use super::{AbortOnDrop, now, spawn};
use crate::service::{CheckName, ServiceName};

/// How long a runtime may run nothing, all its threads being in steps that do not end, before
/// it counts as blocked.
const LOOK: Duration = Duration::from_millis(500);
/// Most threads of one node beside the runtime of the probes: those of checks that have blocked
/// one, and spares. When there is none left, a check that needs one is `Unknown` until there is.
const MAX_THREADS: usize = 64;

/// Looks after which leaks are looked for again.
const LOOKS_FOR_LEAKS: u32 = 10;

/// Which check of which service.
pub(super) type Key = (ServiceName, CheckName);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The places of one node. Ends its watch when it is dropped.
pub(super) struct Pool {
    places: Arc<Places>,
    _watch: Option<AbortOnDrop>,
}

impl Pool {
    /// Probes run in this runtime, which is theirs alone, or else in the present one.
    pub(super) fn new(given: Option<&Handle>) -> Self {
        let home = given.cloned().unwrap_or_else(Handle::current);
        let places = Arc::new(Places {
            home: Arc::new(Place::new(home, None)),
            spares: Mutex::default(),
            threads: Arc::new(Semaphore::new(MAX_THREADS)),
            runs: Mutex::default(),
            leaks: Leaks::new(),
        });
        // Whoever shares a runtime with the probes is blocked with it, and cannot watch it.
        let watch = given.map(|_| spawn(watch(Arc::clone(&places))));
        Self {
            places,
            _watch: watch,
        }
    }

    pub(super) fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }
}

/// Where a check can run.
pub(super) struct Places {
    home: Arc<Place>,
    spares: Mutex<Vec<Arc<Place>>>,
    threads: Arc<Semaphore>,
    /// The last run of each check: of those that are supervised, and of those that kept their
    /// thread when they no longer were.
    runs: Mutex<BTreeMap<Key, Run>>,
    leaks: Leaks,
}

impl Places {
    /// For a check that blocks nothing, as far as is known; or for one that does.
    ///
    /// # Errors
    /// In words, what is missing; later there may be some.
    pub(super) fn find(&self, blocks: bool) -> io::Result<Arc<Place>> {
        if blocks {
            return self.thread();
        }
        let spares = lock(&self.spares);
        let all = [&self.home].into_iter().chain(spares.iter());
        let mut usable = all.filter(|place| !place.is_blocked());
        let none = || io::Error::other("checks block every thread");
        usable.next().cloned().ok_or_else(none)
    }

    fn thread(&self) -> io::Result<Arc<Place>> {
        let permit = Arc::clone(&self.threads).try_acquire_owned();
        let none = |_| io::Error::other(format!("{MAX_THREADS} threads are blocked already"));
        let (handle, thread) = Thread::start(permit.map_err(none)?)?;
        Ok(Arc::new(Place::new(handle, Some(thread))))
    }

    /// Runs a probe in this place. An [earlier](Self::earlier) run of the same check must have
    /// been waited for.
    pub(super) fn run<F>(self: &Arc<Self>, key: Key, place: Arc<Place>, probe: F) -> Supervised
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let in_step = Arc::new(AtomicBool::new(false));
        let (running, ended) = watch::channel(());
        let probe = Stepped {
            probe: Some(Box::pin(probe)),
            steps: Arc::clone(&place.steps),
            in_step: Arc::clone(&in_step),
            _running: running,
        };
        let task = place.handle.spawn(probe);
        let run = Run {
            abort: task.abort_handle(),
            in_step,
            ended,
            place,
        };
        lock(&self.runs).insert(key.clone(), run.clone());
        Supervised {
            key,
            task,
            run,
            places: Arc::clone(self),
        }
    }

    /// The last run of this check, if it has not ended: a supervisor before this one may not be
    /// gone yet, or it left a thread blocked.
    pub(super) fn earlier(&self, key: &Key) -> Option<Run> {
        let runs = lock(&self.runs);
        runs.get(key).filter(|run| !run.has_ended()).cloned()
    }

    /// For a check that starts now.
    pub(super) fn leaks(&self) -> leaks::Follow {
        self.leaks.follow()
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            descriptors: leaks::descriptors(),
            tasks: self.home.handle.metrics().num_alive_tasks(),
            checks: lock(&self.runs).len(),
        }
    }

    fn forget(&self, key: &Key, of: &Run) {
        let mut runs = lock(&self.runs);
        if of.is_in_step() {
            runs.retain(|_, run| !run.has_ended());
        } else if runs.get(key).is_some_and(|run| run.is(of)) {
            runs.remove(key);
        }
    }

    /// Makes sure that there is a place that is not blocked, and tells those who are in one
    /// that is.
    fn give_up(&self, place: &Place) {
        place.blocked.send_replace(true);
        if self.find(false).is_err() {
            match self.thread() {
                Ok(spare) => lock(&self.spares).push(spare),
                Err(error) => {
                    tracing::error!(%error, "checks block every thread, and there is no other for the rest: they are unknown");
                    return;
                }
            }
        }
        tracing::error!("checks block every thread of the probes; the others go on elsewhere");
    }
}

/// One runtime.
pub(super) struct Place {
    handle: Handle,
    threads: usize,
    steps: Arc<Steps>,
    blocked: watch::Sender<bool>,
    /// Ends with the last who uses it.
    _thread: Option<Thread>,
}

impl Place {
    fn new(handle: Handle, thread: Option<Thread>) -> Self {
        Self {
            threads: handle.metrics().num_workers(),
            handle,
            steps: Arc::default(),
            blocked: watch::Sender::new(false),
            _thread: thread,
        }
    }

    fn is_blocked(&self) -> bool {
        *self.blocked.borrow()
    }

    /// Every thread was in a step, and none of those has ended since.
    fn stands_still(&self, since: u64) -> bool {
        let running = self.steps.running.load(Ordering::Acquire);
        running >= self.threads && self.steps.ended.load(Ordering::Acquire) == since
    }
}

/// A thread with a runtime of its own, which ends when this is dropped, or when what blocks it
/// then does.
struct Thread(#[allow(dead_code, reason = "its drop is what is waited for")] oneshot::Sender<()>);

impl Thread {
    fn start(permit: OwnedSemaphorePermit) -> io::Result<(Handle, Self)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let name = "anycast-probe".to_owned();
        thread::Builder::new().name(name).spawn(move || {
            // Nothing is ever sent.
            let _ = runtime.block_on(stopped);
            // Work in `spawn_blocking` may never end.
            runtime.shutdown_background();
            drop(permit);
        })?;
        Ok((handle, Self(stop)))
    }
}

/// Steps of the probes in one place.
#[derive(Default)]
struct Steps {
    running: AtomicUsize,
    ended: AtomicU64,
}

/// A probe that tells when it is run.
struct Stepped {
    probe: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    steps: Arc<Steps>,
    in_step: Arc<AtomicBool>,
    _running: watch::Sender<()>,
}

/// One step, until it is dropped.
struct Step<'a>(&'a Steps, &'a AtomicBool);

impl<'a> Step<'a> {
    fn begin(steps: &'a Steps, in_step: &'a AtomicBool) -> Self {
        steps.running.fetch_add(1, Ordering::AcqRel);
        in_step.store(true, Ordering::Release);
        Self(steps, in_step)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.1.store(false, Ordering::Release);
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Future for Stepped {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let _step = Step::begin(&this.steps, &this.in_step);
        match &mut this.probe {
            Some(probe) => probe.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Stepped {
    /// What a check does when it is dropped is a step as well.
    fn drop(&mut self) {
        let _step = Step::begin(&self.steps, &self.in_step);
        self.probe = None;
    }
}

/// One instance of a check. Clones are the same one.
#[derive(Clone)]
pub(super) struct Run {
    abort: AbortHandle,
    in_step: Arc<AtomicBool>,
    ended: watch::Receiver<()>,
    place: Arc<Place>,
}

impl Run {
    pub(super) fn abort(&self) {
        self.abort.abort();
    }

    /// Whether it keeps a thread at this moment.
    pub(super) fn is_in_step(&self) -> bool {
        self.in_step.load(Ordering::Acquire)
    }

    fn has_ended(&self) -> bool {
        self.ended.has_changed().is_err()
    }

    /// Waits until it has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        // Nothing is ever sent: only its end is told.
        while self.ended.changed().await.is_ok() {}
    }

    /// Tells when every thread of its place is blocked.
    pub(super) fn blocked(&self) -> watch::Receiver<bool> {
        self.place.blocked.subscribe()
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.in_step, &other.in_step)
    }
}

/// The task of a check, which is aborted when this is dropped.
pub(super) struct Supervised {
    key: Key,
    task: JoinHandle<()>,
    run: Run,
    places: Arc<Places>,
}

impl Supervised {
    pub(super) const fn run(&self) -> &Run {
        &self.run
    }

    /// Waits until it has ended, and tells how.
    pub(super) async fn join(&mut self) -> Result<(), JoinError> {
        (&mut self.task).await
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.run.abort();
        self.places.forget(&self.key, &self.run);
    }
}

/// Waits until every thread of the place is blocked.
pub(super) async fn all_blocked(blocked: &mut watch::Receiver<bool>) {
    if blocked.wait_for(|blocked| *blocked).await.is_err() {
        std::future::pending().await
    }
}

/// A place that is asked whether it runs anything.
struct Asked {
    place: Arc<Place>,
    answer: JoinHandle<()>,
}

/// Finds places that are blocked, and those that are free again.
async fn watch(places: Arc<Places>) {
    let mut asked: Vec<Asked> = Vec::new();
    for look in (0..LOOKS_FOR_LEAKS).cycle() {
        if look == 0 {
            places.leaks.look(now(), places.usage());
        }
        ask(&places, &mut asked);
        let since: Vec<_> = asked
            .iter()
            .map(|asked| asked.place.steps.ended.load(Ordering::Acquire))
            .collect();
        tokio::time::sleep(LOOK).await;
        for (asked, since) in asked.iter().zip(since) {
            let (place, answers) = (&asked.place, asked.answer.is_finished());
            if place.is_blocked() && answers {
                place.blocked.send_replace(false);
                tracing::info!("threads of the probes that checks had blocked are free again");
            } else if !place.is_blocked() && !answers && place.stands_still(since) {
                places.give_up(place);
            }
        }
    }
}

/// Asks every place that has answered, and forgets spares that nobody needs any more.
fn ask(places: &Places, asked: &mut Vec<Asked>) {
    asked.retain(|asked| !asked.answer.is_finished());
    let mut spares = lock(&places.spares);
    if !places.home.is_blocked() {
        // One that is waited for is in `asked`, too.
        spares.retain(|spare| Arc::strong_count(spare) > 1);
    }
    for place in [&places.home].into_iter().chain(spares.iter()) {
        if !asked.iter().any(|asked| Arc::ptr_eq(&asked.place, place)) {
            asked.push(Asked {
                place: Arc::clone(place),
                answer: place.handle.spawn(std::future::ready(())),
            });
        }
    }
}
