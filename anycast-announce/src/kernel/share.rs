//! What the announcers of one process have in common.
//!
//! # Contract
//! With many services, each on its own would read all addresses of the host for every renewal,
//! and hear of every renewal of every other: work that grows with the square of their number.
//! Those that share read together and hear once.
//!
//! **Reading.** A dump serves every look that was asked for *before it began*, and none that
//! came later, so what is shared is never older than a dump of one's own. Where more than
//! [`FEW`] share, looks for a renewal are gathered: reading takes at most about a twentieth of
//! the time, and a look waits at most [`MAX_GATHER`]. A look for a demotion never waits, though a
//! demotion may come behind a renewal of the same service that does.
//!
//! **Hearing.** One subscription, read by one task, which ends with the last that shares. It
//! tells those whose expectation an event disturbs, and all when events were lost.
//!
//! **Connections** are kept between calls, at most [`MAX_IDLE`]; whoever uses one owns it
//! meanwhile, and what is dropped half-way takes its connection along.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: the age of a dump is real time"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anycast_core::service::ServiceAddress;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::monitor::{Event, Expectation, Monitor};
use super::netlink::{Dump, Failure, Netlink};

/// The longest that a look waits for others.
const MAX_GATHER: Duration = Duration::from_millis(200);
/// How much longer than a dump the pause after it is.
const PAUSE_FACTOR: u32 = 20;
/// Up to so many announcers nobody waits: what they would save together is not worth it.
const FEW: usize = 32;
/// Idle connections that are kept. More are closed after use.
const MAX_IDLE: usize = 4;

/// What several [`KernelAnnouncer`](super::KernelAnnouncer)s of one process share: see
/// [`KernelAnnouncer::sharing`](super::KernelAnnouncer::sharing).
///
/// All that share must be polled inside one tokio runtime and in one network namespace.
#[derive(Clone, Default)]
pub struct KernelShare(Arc<Shared>);

#[derive(Default)]
struct Shared {
    idle: Mutex<Vec<Netlink>>,
    /// Held by whoever reads.
    reading: tokio::sync::Mutex<Option<Arc<Dump>>>,
    not_before: Mutex<Option<Instant>>,
    audience: Arc<Mutex<Audience>>,
    task: Mutex<Option<AbortHandle>>,
}

impl std::fmt::Debug for KernelShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelShare").finish_non_exhaustive()
    }
}

/// A thread that panicked with one of these locks held has left nothing half-done in them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KernelShare {
    pub(super) fn take(&self) -> Option<Netlink> {
        lock(&self.0.idle).pop()
    }

    pub(super) fn put_back(&self, netlink: Netlink) {
        let mut idle = lock(&self.0.idle);
        if idle.len() < MAX_IDLE {
            idle.push(netlink);
        }
    }

    /// A dump that began after this call.
    ///
    /// Those that wait hold no connection, which has a large buffer.
    pub(super) async fn dump(&self, urgent: bool) -> Result<Arc<Dump>, Failure> {
        let asked = Instant::now();
        let pause = *lock(&self.0.not_before);
        if let Some(until) = pause.filter(|until| !urgent && *until > asked) {
            tokio::time::sleep_until(until.min(asked + MAX_GATHER).into()).await;
        }
        let mut last = self.0.reading.lock().await;
        if let Some(dump) = last.as_ref().filter(|dump| dump.began_after(asked)) {
            return Ok(Arc::clone(dump));
        }
        let began = Instant::now();
        let mut netlink = self.take().map_or_else(Netlink::open, Ok)?;
        let dump = Arc::new(netlink.dump().await?);
        self.put_back(netlink);
        let now = Instant::now();
        let pause = (now - began).saturating_mul(PAUSE_FACTOR).min(MAX_GATHER);
        let are_many = lock(&self.0.audience).members.len() > FEW;
        *lock(&self.0.not_before) = are_many.then_some(now + pause);
        *last = Some(Arc::clone(&dump));
        Ok(dump)
    }

    /// Begins to listen, at the first call; must be called inside a tokio runtime.
    pub(super) fn join(&self) -> Seat {
        let mut task = lock(&self.0.task);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            // Before the caller reads, or what changes until the task first runs would be missed.
            let mut monitor = Monitor::default();
            monitor.ensure_open();
            let audience = Arc::clone(&self.0.audience);
            *task = Some(tokio::spawn(listen(monitor, audience)).abort_handle());
        }
        let told = Arc::new(Notify::new());
        let mut audience = lock(&self.0.audience);
        audience.next += 1;
        let id = audience.next;
        let member = Member {
            expected: Expectation::default(),
            told: Arc::clone(&told),
        };
        audience.members.insert(id, member);
        Seat {
            audience: Arc::clone(&self.0.audience),
            id,
            told,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// Those that want to hear.
#[derive(Default)]
struct Audience {
    next: u64,
    members: BTreeMap<u64, Member>,
    by_address: BTreeMap<IpAddr, Vec<u64>>,
}

struct Member {
    expected: Expectation,
    told: Arc<Notify>,
}

impl Audience {
    fn forget(&mut self, id: u64, addresses: &[ServiceAddress]) {
        for address in addresses {
            if let Some(members) = self.by_address.get_mut(&address.ip()) {
                members.retain(|member| *member != id);
                if members.is_empty() {
                    self.by_address.remove(&address.ip());
                }
            }
        }
    }

    fn tell(&self, event: &Event) {
        let tell = |member: &Member| {
            if event.disturbs(&member.expected) {
                member.told.notify_one();
            }
        };
        match event.ip() {
            Some(ip) => {
                let ids = self.by_address.get(&ip).into_iter().flatten();
                ids.filter_map(|id| self.members.get(id)).for_each(tell);
            }
            None => self.members.values().for_each(tell),
        }
    }
}

/// One member's place.
pub(super) struct Seat {
    audience: Arc<Mutex<Audience>>,
    id: u64,
    told: Arc<Notify>,
}

impl Seat {
    /// What is put into force now, and so expected to be heard of.
    pub(super) fn expect(&self, expected: &Expectation) {
        let audience = &mut *lock(&self.audience);
        let Some(member) = audience.members.get_mut(&self.id) else {
            return;
        };
        let old = std::mem::replace(&mut member.expected, expected.clone());
        if old.addresses != expected.addresses {
            audience.forget(self.id, &old.addresses);
            for address in &expected.addresses {
                audience
                    .by_address
                    .entry(address.ip())
                    .or_default()
                    .push(self.id);
            }
        }
    }

    /// As [`Monitor::disturbed`]. What happened since the last call counts. Cancel-safe.
    pub(super) async fn disturbed(&self) {
        self.told.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut audience = lock(&self.audience);
        if let Some(member) = audience.members.remove(&self.id) {
            audience.forget(self.id, &member.expected.addresses);
        }
    }
}

async fn listen(mut monitor: Monitor, audience: Arc<Mutex<Audience>>) {
    loop {
        let event = monitor.next().await;
        lock(&audience).tell(&event);
    }
}
