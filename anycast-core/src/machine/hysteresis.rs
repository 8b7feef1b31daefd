//! Rise, fall and hold-down of one check.

use std::time::Instant;

use super::Policy;
use crate::health::{Evidence, Reason, Verdict};

/// The state of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum Phase {
    /// It has not risen since the node started, and has not fallen either.
    Pending,
    /// It counts as healthy.
    Up,
    /// It counts as failed.
    Down,
}

/// Rise, fall and hold-down of one check (F2, F3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hysteresis {
    phase: Phase,
    since: Instant,
    /// The last fall was conclusive.
    conclusive: bool,
    successes: u32,
    failures: u32,
    /// When the last of `rise` successes came.
    last_success: Option<Instant>,
    last_failure: Option<(Instant, Reason)>,
    last_verdict: Option<(Instant, Verdict)>,
}

impl Hysteresis {
    pub(super) const fn new(phase: Phase, now: Instant) -> Self {
        Self {
            phase,
            since: now,
            conclusive: false,
            successes: 0,
            failures: 0,
            last_success: None,
            last_failure: None,
            last_verdict: None,
        }
    }

    /// Whether it counts as up.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Since when.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Successes in a row, up to `rise`.
    #[must_use]
    pub const fn successes(&self) -> u32 {
        self.successes
    }

    /// Failures in a row, up to `fall`.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The last failure of the service, and when.
    #[must_use]
    pub const fn last_failure(&self) -> Option<&(Instant, Reason)> {
        self.last_failure.as_ref()
    }

    /// The last verdict, `Unknown` included, and when.
    #[must_use]
    pub const fn last_verdict(&self) -> Option<&(Instant, Verdict)> {
        self.last_verdict.as_ref()
    }

    /// Whether it is down by conclusive evidence since it last was up.
    #[must_use]
    pub fn is_conclusive(&self) -> bool {
        self.phase == Phase::Down && self.conclusive
    }

    /// Whether it has given any verdict yet, `Unknown` included.
    #[must_use]
    pub const fn has_spoken(&self) -> bool {
        self.last_verdict.is_some()
    }

    /// Takes a verdict; the caller has called [`advance`](Self::advance) for `now` before.
    /// True when the phase changed.
    pub(super) fn handle_verdict(
        &mut self,
        now: Instant,
        verdict: Verdict,
        policy: &Policy,
    ) -> bool {
        let changed = match &verdict {
            Verdict::Healthy => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1).min(policy.rise.get());
                self.last_success = Some(now);
                self.advance(now, policy)
            }
            Verdict::Unhealthy(reason, evidence) => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1).min(policy.fall.get());
                self.last_failure = Some((now, reason.clone()));
                let conclusive = *evidence == Evidence::Conclusive;
                self.conclusive = conclusive || (self.phase == Phase::Down && self.conclusive);
                let falls = conclusive || self.failures >= policy.fall.get();
                falls && self.enter(Phase::Down, now)
            }
            Verdict::Unknown(_) => false,
        };
        self.last_verdict = Some((now, verdict));
        changed
    }

    /// Forgets what it counted, but not the last failure, which the hold-down counts from.
    pub(super) fn start_anew(&mut self, now: Instant) {
        self.successes = 0;
        self.failures = 0;
        self.last_success = None;
        self.enter(Phase::Pending, now);
    }

    /// The same, told in other times and without what no longer makes a difference, for a model
    /// check.
    #[cfg(test)]
    pub(super) fn retime(
        &mut self,
        now: Instant,
        policy: &Policy,
        to: &dyn Fn(Instant) -> Instant,
    ) {
        self.since = to(now);
        self.conclusive = self.is_conclusive();
        self.last_success = self.last_success.map(|_| to(now));
        let failed = self.last_failure.take();
        self.last_failure = failed
            .filter(|(at, _)| *at + policy.hold_down > now)
            .map(|(at, _)| (to(at), Reason::from("told in the model")));
        let spoke = self.last_verdict.take();
        self.last_verdict = spoke.map(|_| (to(now), Verdict::Healthy));
    }

    /// Rises if the hold-down has ended by `now`. True when the phase changed.
    pub(super) fn advance(&mut self, now: Instant, policy: &Policy) -> bool {
        match self.rise_deadline(policy) {
            Some(at) if at <= now => self.enter(Phase::Up, at),
            Some(_) | None => false,
        }
    }

    /// When it rises if nothing else happens.
    pub(super) fn rise_deadline(&self, policy: &Policy) -> Option<Instant> {
        if self.phase == Phase::Up || self.successes < policy.rise.get() {
            return None;
        }
        let risen = self.last_success?;
        match &self.last_failure {
            // A hold-down beyond the end of time never ends.
            Some((at, _)) => Some(at.checked_add(policy.hold_down)?.max(risen)),
            None => Some(risen),
        }
    }

    fn enter(&mut self, phase: Phase, at: Instant) -> bool {
        if self.phase == phase {
            return false;
        }
        self.phase = phase;
        self.since = at;
        true
    }
}
