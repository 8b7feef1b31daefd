//! The order of a drain: demote, let the routes converge, finish what is in flight, stop.
//!
//! A [`Drain`] is pure and knows of one service on one node. It decides nothing about routes;
//! it tells how far the order has come, so that nobody pulls a plug too early.
//!
//! | phase | until | at most |
//! |---|---|---|
//! | [`Demoting`](Phase::Demoting) | the demotion is in force | [`confirm`](Settings::confirm), from the begin |
//! | [`Converging`](Phase::Converging) | the routers have had time to move | [`converge`](Settings::converge), always the whole of it since the demotion came into force |
//! | [`Finishing`](Phase::Finishing) | nothing is in flight | [`finish`](Settings::finish) |
//! | [`Done`](Phase::Done) | a stop may follow | – |
//!
//! # Contract
//!
//! - **Inputs**: [`handle_begin`](Drain::handle_begin) when an operator's order or a stop
//!   wants traffic gone, [`handle_cancel`](Drain::handle_cancel) when it may come back,
//!   [`handle_lowered`](Drain::handle_lowered) with whether the demotion (or withdrawal) is in
//!   force, [`handle_in_flight`](Drain::handle_in_flight) with what is still being served,
//!   [`handle_timeout`](Drain::handle_timeout).
//! - **Outputs** are the getters. [`poll_timeout`](Drain::poll_timeout) says when to come back;
//!   while what is in flight is waited for, it asks for a count every [`COUNT_EVERY`].
//! - **Order**: never `Done` before the routes had the whole of `converge` since the demotion
//!   came into force. A demotion that is lost again (drift) goes back to `Demoting`.
//! - **Bounded**: done at the latest `confirm` + `converge` + `finish` after the begin. A
//!   demotion that is not confirmed within `confirm` counts as made: nothing renews the boost
//!   any more, so choose `confirm` longer than the dead-man time.
//! - **Cancelled** at any moment it is idle again, and the next drain begins anew.
//! - **Time** is monotonic. A `now` before one already seen counts as the latest seen.
//!
//! A service that registers no count has nothing that can be waited for: its drain is done
//! once the routes have converged.

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

use crate::health::Reason;

/// Time between two counts of what is in flight, while it is waited for.
pub const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Default of [`Settings::converge`].
pub const CONVERGE: Duration = Duration::from_secs(5);
/// Longest time each setting can be: a day. A longer one counts as this.
pub const MAX_TIME: Duration = Duration::from_secs(86_400);

/// How long each phase may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long the demotion may take to be confirmed, from the begin of the drain. Default
    /// 12 s.
    pub confirm: Duration,
    /// How long the routes are given to move once the demotion is in force. Default
    /// [`CONVERGE`], which is long for BGP within a site and for an IGP; a stop takes at least
    /// this.
    pub converge: Duration,
    /// How long what is in flight is waited for after that. Default 30 s.
    pub finish: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            confirm: Duration::from_secs(12),
            converge: CONVERGE,
            finish: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The longest that a whole drain can take.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.confirm.min(MAX_TIME) + self.converge.min(MAX_TIME) + self.finish.min(MAX_TIME)
    }
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum Phase {
    /// Nothing is being drained.
    Idle,
    /// The demotion is not known to be in force yet.
    Demoting,
    /// It is in force; routers are moving.
    Converging,
    /// What is in flight is waited for.
    Finishing,
    /// Drained: a stop disturbs nobody, or the time for waiting is over.
    Done,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Demoting => "demoting",
            Self::Converging => "converging",
            Self::Finishing => "finishing",
            Self::Done => "done",
        })
    }
}

/// The order of one service's drain. See the [module documentation](self).
#[derive(Debug, Clone)]
pub struct Drain {
    settings: Settings,
    phase: Phase,
    since: Instant,
    why: Reason,
    /// Since when the demotion is in force.
    lowered: Option<Instant>,
    /// When a demotion that is not confirmed counts as made.
    give_up: Instant,
    in_flight: Option<u64>,
    counted: Instant,
    latest: Instant,
}

impl Drain {
    /// An idle one.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            phase: Phase::Idle,
            since: now,
            why: idle(),
            lowered: None,
            give_up: now,
            in_flight: None,
            counted: now,
            latest: now,
        }
    }

    /// Other settings from now on (a reload). `converge` and `finish` count at once, `confirm`
    /// for the next drain.
    pub fn handle_settings(&mut self, now: Instant, settings: Settings) {
        let now = self.advance(now);
        self.settings = settings;
        self.settle(now);
    }

    /// Traffic is to go, for this reason. One that is under way, or done, goes on.
    pub fn handle_begin(&mut self, now: Instant, why: &Reason) {
        let now = self.advance(now);
        if self.phase == Phase::Idle {
            self.give_up = later(now, self.settings.confirm);
            self.enter(now, Phase::Demoting, why.clone());
        }
        self.settle(now);
    }

    /// Traffic may come back.
    pub fn handle_cancel(&mut self, now: Instant) {
        let now = self.advance(now);
        if self.phase != Phase::Idle {
            self.enter(now, Phase::Idle, idle());
        }
    }

    /// Whether the node is known to be demoted, or withdrawn, now: to be told also while
    /// nothing is drained.
    pub fn handle_lowered(&mut self, now: Instant, lowered: bool) {
        let now = self.advance(now);
        self.lowered = match self.lowered {
            since @ Some(_) if lowered => since,
            _ => lowered.then_some(now),
        };
        self.settle(now);
    }

    /// How much is in flight now.
    pub fn handle_in_flight(&mut self, now: Instant, count: u64) {
        let now = self.advance(now);
        self.in_flight = Some(count);
        self.counted = now;
        self.settle(now);
    }

    /// Time has passed. Idempotent, harmless when early.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.settle(now);
    }

    /// When to come back, and why. `None` while idle and when done.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self.phase {
            Phase::Idle | Phase::Done => None,
            Phase::Demoting => Some((self.give_up, "a demotion counts as made")),
            Phase::Converging => Some((self.converged(), "routes have converged")),
            Phase::Finishing => {
                let count = later(self.counted, COUNT_EVERY);
                let end = self.ends(self.settings.finish);
                Some((count.min(end), "what is in flight is counted"))
            }
        }
    }

    /// How far it has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when it is in this phase.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Why it is in this phase.
    #[must_use]
    pub const fn why(&self) -> &Reason {
        &self.why
    }

    /// What was in flight when it was last counted; `None` when nobody counts.
    #[must_use]
    pub const fn in_flight(&self) -> Option<u64> {
        self.in_flight
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    fn ends(&self, time: Duration) -> Instant {
        later(self.since, time)
    }

    fn converged(&self) -> Instant {
        let since = self.lowered.unwrap_or(self.since).min(self.since);
        later(since, self.settings.converge)
    }

    fn enter(&mut self, now: Instant, phase: Phase, why: Reason) {
        (self.phase, self.since, self.why) = (phase, now, why);
    }

    /// Takes every step that is due.
    fn settle(&mut self, now: Instant) {
        while let Some((phase, why)) = self.next(now) {
            self.enter(now, phase, why.as_str().into());
        }
    }

    fn next(&self, now: Instant) -> Option<(Phase, String)> {
        let given_up = now >= self.give_up;
        match self.phase {
            Phase::Idle | Phase::Done => None,
            Phase::Demoting if self.lowered.is_some() => Some((
                Phase::Converging,
                "the demotion is in force; routes move".to_owned(),
            )),
            Phase::Demoting => given_up.then(|| {
                let confirm = self.settings.confirm;
                let why = format!("the demotion was not confirmed within {confirm:?}; going on");
                (Phase::Converging, why)
            }),
            Phase::Converging | Phase::Finishing if self.lowered.is_none() && !given_up => Some((
                Phase::Demoting,
                "the demotion was in force and is no longer confirmed".to_owned(),
            )),
            Phase::Converging => (now >= self.converged()).then(|| {
                let why = "routes have moved; what is in flight is finished";
                (Phase::Finishing, why.to_owned())
            }),
            Phase::Finishing => self.finished(now).map(|why| (Phase::Done, why)),
        }
    }

    fn finished(&self, now: Instant) -> Option<String> {
        match self.in_flight {
            None => Some("routes have moved; nobody counts what is in flight".to_owned()),
            Some(0) => Some("routes have moved; nothing is in flight".to_owned()),
            Some(count) => {
                let finish = self.settings.finish;
                (now >= self.ends(finish)).then(|| format!("{count} in flight after {finish:?}"))
            }
        }
    }
}

fn idle() -> Reason {
    "nothing is being drained".into()
}

fn later(at: Instant, time: Duration) -> Instant {
    at.checked_add(time.min(MAX_TIME)).unwrap_or(at)
}
