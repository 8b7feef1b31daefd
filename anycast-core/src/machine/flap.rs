//! Flapping parks demoted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When a service counts as flapping, and how long it must be steady before it is trusted.
///
/// A flapping service is *parked*: demoted whatever its checks say, until it has been healthy
/// without a break for [`park_for`](Self::park_for), or an operator undrains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlapPolicy {
    /// So many falls (healthy, then not) within [`window`](Self::window) park the service.
    /// Default 3; 0 switches it off; at most [`FlapPolicy::MAX_LIMIT`], a larger value counts
    /// as that.
    pub limit: u16,
    /// Default 10 min.
    pub window: Duration,
    /// Default 10 min.
    pub park_for: Duration,
}

impl FlapPolicy {
    /// Largest limit; it bounds what is remembered.
    pub const MAX_LIMIT: u16 = 100;

    /// Never parks.
    pub const OFF: Self = Self {
        limit: 0,
        window: Duration::ZERO,
        park_for: Duration::ZERO,
    };

    fn limit(&self) -> usize {
        usize::from(self.limit.min(Self::MAX_LIMIT))
    }
}

impl Default for FlapPolicy {
    fn default() -> Self {
        Self {
            limit: 3,
            window: Duration::from_secs(600),
            park_for: Duration::from_secs(600),
        }
    }
}

/// The falls of late.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Flaps {
    healthy_since: Option<Instant>,
    /// At most the limit; the oldest is dropped.
    falls: VecDeque<Instant>,
    parked: Option<Instant>,
}

impl Flaps {
    pub(super) fn new(healthy: bool, now: Instant) -> Self {
        Self {
            healthy_since: healthy.then_some(now),
            falls: VecDeque::new(),
            parked: None,
        }
    }

    /// Takes note of the service's health at `now`.
    pub(super) fn note(&mut self, now: Instant, healthy: bool, policy: &FlapPolicy) {
        if policy.limit == 0 {
            self.falls.clear();
            self.parked = None;
        }
        match (self.healthy_since, healthy) {
            (None, true) => self.healthy_since = Some(now),
            (Some(_), false) => {
                self.healthy_since = None;
                self.fall(now, policy);
            }
            (None, false) | (Some(_), true) => {}
        }
        if self.ends(policy).is_some_and(|at| at <= now) {
            self.forget();
        }
    }

    fn fall(&mut self, now: Instant, policy: &FlapPolicy) {
        let limit = policy.limit();
        if limit == 0 {
            return;
        }
        self.falls.push_back(now);
        while self.falls.len() > limit {
            self.falls.pop_front();
        }
        let first = self.falls.front().filter(|_| self.falls.len() == limit);
        let within = |first: &Instant| now.saturating_duration_since(*first) <= policy.window;
        if self.parked.is_none() && first.is_some_and(within) {
            self.parked = Some(now);
        }
    }

    /// Forgets the past: it was steady for long enough, or an operator said so.
    pub(super) fn forget(&mut self) {
        self.falls.clear();
        self.parked = None;
    }

    /// The same, told in other times and without what no longer makes a difference, for a model
    /// check.
    #[cfg(test)]
    pub(super) fn retime(&mut self, now: Instant, to: &dyn Fn(Instant) -> Instant) {
        let parked = self.parked.is_some();
        let healthy = |at| to(if parked { at } else { now });
        self.healthy_since = self.healthy_since.map(healthy);
        self.parked = self.parked.map(|_| to(now));
        self.falls.iter_mut().for_each(|at| *at = to(*at));
    }

    /// Falls remembered.
    pub(super) fn falls(&self) -> usize {
        self.falls.len()
    }

    /// Since when it is parked.
    pub(super) const fn parked(&self) -> Option<Instant> {
        self.parked
    }

    /// When parking ends if the service stays healthy.
    pub(super) fn ends(&self, policy: &FlapPolicy) -> Option<Instant> {
        self.parked?;
        self.healthy_since?.checked_add(policy.park_for)
    }
}
