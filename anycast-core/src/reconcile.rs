//! From decisions to what is in force: retry, renew, observe, repair.
//!
//! A [`Reconciler`] stands between the [machine](crate::machine) and one
//! [`Announcer`](crate::Announcer). It is pure; the driver carries its actions out.
//!
//! # Contract
//!
//! - **Inputs**: [`handle_decision`](Reconciler::handle_decision) with each completed decision
//!   step, [`handle_applied`](Reconciler::handle_applied) and
//!   [`handle_observed`](Reconciler::handle_observed) with the results of its actions,
//!   [`handle_disturbed`](Reconciler::handle_disturbed) when the announcer suspects drift.
//! - **Outputs**: [`poll_action`](Reconciler::poll_action); at most one action is under way,
//!   and its result must come back, a time-out being an error. [`poll_timeout`] says when to
//!   run the next decision step at the latest.
//! - **Level-triggered**: only the latest decision counts. It is applied when the preference
//!   in force is not known to be the one decided, when drift was seen, and to renew the dead
//!   man at a third of its time.
//! - **Renewal needs a decision**: each decision is applied at most once, so a renewal
//!   happens only if the machine has completed another step since the last one. Nothing here
//!   beats by itself.
//! - **Failure**: an error or `Unconfirmed` is asked again with back-off, from
//!   [`RETRY_MIN`] doubling to [`RETRY_MAX`] or a third of the dead-man time, whichever is
//!   shorter. A *different* preference does not wait for that back-off.
//! - An observation that does not match is repaired by the next decision. An observation that
//!   failed says nothing; it never counts as "nothing is announced" (F10). The first one is made
//!   again after [`OBSERVE_AGAIN`]; where that fails too, what was confirmed is `Unconfirmed`,
//!   since a daemon that has died, hangs or sends what means no level vouches for nothing. It is
//!   then asked again as all that is unconfirmed.
//!
//! [`poll_timeout`]: Reconciler::poll_timeout

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod proptests;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;

use std::time::{Duration, Instant};

use crate::announce::{Applied, Capabilities, Decision, Lifetime, Observation, Preference};
use crate::health::Reason;

/// First pause after a failed or unconfirmed apply.
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub const RETRY_MAX: Duration = Duration::from_secs(10);
/// Pause after the first observation that failed, or the period where that is shorter. Failures
/// within it count as one.
pub const OBSERVE_AGAIN: Duration = Duration::from_secs(1);
/// The shortest dead-man time a renewal is planned for; a shorter one is treated as this.
pub const DEAD_MAN_MIN: Duration = Duration::from_millis(300);

/// What the driver is to do next.
#[derive(Debug, Clone)]
pub enum Action {
    /// Call [`Announcer::apply`](crate::Announcer::apply) with this.
    Apply(Decision),
    /// Call [`Announcer::observe`](crate::Announcer::observe).
    Observe,
}

/// How sure it is that what was decided is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase", tag = "state", content = "reason")
)]
pub enum Confirmation {
    /// Nothing was applied yet.
    Pending,
    /// Read back.
    Confirmed,
    /// Written, not read back, or no longer; or drift was seen and is being repaired.
    Unconfirmed(Reason),
    /// The last attempt failed.
    Failing(Reason),
}

/// A decision that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    preference: Preference,
    decided_at: Instant,
    lifetime: Lifetime,
}

impl Standing {
    const fn of(decision: &Decision) -> Self {
        Self {
            preference: decision.preference,
            decided_at: decision.decided_at,
            lifetime: decision.lifetime,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Applying(Standing),
    Observing,
}

/// Drives one announcer towards the latest decision. See the [module documentation](self).
#[derive(Debug)]
pub struct Reconciler {
    capabilities: Capabilities,
    observe_every: Duration,
    /// The latest decision, until it is applied.
    decision: Option<Decision>,
    /// What the latest decision wants, applied or not.
    wanted: Option<Preference>,
    busy: Option<Busy>,
    /// What was last applied without an error.
    applied: Option<Standing>,
    /// The boost in force was made by an earlier process and has to be seen once more before
    /// it is renewed.
    adopting: bool,
    /// It was not there any more.
    adoption_lost: bool,
    confirmation: Confirmation,
    /// An attempt at this preference failed; not again before then.
    retry: Option<(Preference, Instant)>,
    attempts: u32,
    drifted: bool,
    /// When the first observation failed since something was last seen or written.
    unseen: Option<Instant>,
    /// What was confirmed is not, since it cannot be observed.
    is_blind: bool,
    observe_at: Option<Instant>,
}

impl Reconciler {
    /// A reconciler for an announcer with these capabilities that observes every
    /// `observe_every` (its period: drift is repaired within it).
    #[must_use]
    pub const fn new(capabilities: Capabilities, observe_every: Duration) -> Self {
        Self {
            capabilities,
            observe_every,
            decision: None,
            wanted: None,
            busy: None,
            applied: None,
            adopting: false,
            adoption_lost: false,
            confirmation: Confirmation::Pending,
            retry: None,
            attempts: 0,
            drifted: false,
            unseen: None,
            is_blind: false,
            observe_at: None,
        }
    }

    /// The same, where a boost of an earlier process was in force at the start. Before it is
    /// renewed for the first time it is observed once more: one that has run out meanwhile is
    /// not made anew, but reported by [`take_lost_adoption`](Self::take_lost_adoption).
    #[must_use]
    pub const fn adopting(mut self) -> Self {
        self.adopting = true;
        self
    }

    /// Whether the adopted boost has turned out to be gone; says so once. The machine is to
    /// be told by [`handle_expiry`](crate::machine::Machine::handle_expiry).
    pub const fn take_lost_adoption(&mut self) -> bool {
        std::mem::replace(&mut self.adoption_lost, false)
    }

    /// A decision step has completed; it replaces any earlier one.
    pub fn handle_decision(&mut self, decision: Decision) {
        if self.wanted != Some(decision.preference()) {
            self.attempts = 0;
        }
        if decision.preference() != Preference::Preferred {
            self.adopting = false; // what is to go need not be there
        }
        self.wanted = Some(decision.preference());
        self.decision = Some(decision);
    }

    /// The outcome of [`Action::Apply`].
    pub fn handle_applied(&mut self, now: Instant, outcome: Result<Applied, Reason>) {
        let Some(Busy::Applying(standing)) = self.busy.take() else {
            return;
        };
        let preference = standing.preference;
        self.unseen = None;
        self.is_blind = false;
        match outcome {
            Ok(Applied::Confirmed) => {
                self.applied = Some(standing);
                self.confirmation = Confirmation::Confirmed;
                self.retry = None;
                self.attempts = 0;
                self.drifted = false;
                self.observe_at = later(now, self.observe_every);
            }
            Ok(Applied::Unconfirmed(reason)) => {
                self.applied = Some(standing);
                self.confirmation = Confirmation::Unconfirmed(reason);
                self.back_off(now, preference);
            }
            Err(reason) => {
                self.applied = None;
                self.confirmation = Confirmation::Failing(reason);
                self.back_off(now, preference);
            }
        }
    }

    /// The outcome of [`Action::Observe`].
    pub fn handle_observed(&mut self, now: Instant, outcome: Result<Observation, Reason>) {
        if self.busy != Some(Busy::Observing) {
            return;
        }
        self.busy = None;
        self.observe_at = later(now, self.observe_every);
        let observation = match outcome {
            Ok(observation) => observation,
            Err(reason) => {
                if self.adopting {
                    self.confirmation = Confirmation::Failing(reason);
                    self.back_off(now, Preference::Preferred);
                } else {
                    self.handle_unseen(now, &reason);
                }
                return;
            }
        };
        self.unseen = None;
        if std::mem::replace(&mut self.adopting, false) {
            self.retry = None;
            self.attempts = 0;
            self.adoption_lost = !observation.matches(Preference::Preferred);
            if self.adoption_lost {
                self.decision = None; // it was made before this was known
            }
            return;
        }
        let Some(Standing { preference, .. }) = self.applied else {
            return;
        };
        // A withdrawal that the announcer can only come near never matches; it is already
        // being asked again as unconfirmed.
        let was_blind = std::mem::replace(&mut self.is_blind, false);
        let confirmed = was_blind || self.confirmation == Confirmation::Confirmed;
        if was_blind {
            self.confirmation = Confirmation::Confirmed;
            self.retry = None;
            self.attempts = 0;
        }
        if confirmed && !observation.matches(preference) {
            self.drifted = true;
            self.confirmation = Confirmation::Unconfirmed(
                format!("drift: {:?} is in force", observation.addresses).into(),
            );
        }
    }

    /// One failure is bad luck; what fails twice vouches for nothing.
    fn handle_unseen(&mut self, now: Instant, reason: &Reason) {
        let first = *self.unseen.get_or_insert(now);
        let again = later(first, self.observe_every.min(OBSERVE_AGAIN));
        if again.is_some_and(|again| now < again) {
            self.observe_at = again;
            return;
        }
        let Some(Standing { preference, .. }) = self.applied else {
            return;
        };
        if self.confirmation == Confirmation::Confirmed {
            self.is_blind = true;
            let reason = format!("confirmed before, and not at two looks in a row: {reason}");
            self.confirmation = Confirmation::Unconfirmed(reason.into());
            self.back_off(now, preference);
        }
    }

    /// Somebody else may have changed what is in force: observe now, not at the next period.
    pub const fn handle_disturbed(&mut self, now: Instant) {
        self.observe_at = Some(now);
    }

    /// The next thing to do at `now`, if any.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if self.busy.is_some() {
            return None;
        }
        if self.apply_deadline().is_some_and(|(at, _)| at <= now)
            && let Some(decision) = self.decision.take()
        {
            if self.adopting {
                self.decision = Some(decision);
                self.busy = Some(Busy::Observing);
                return Some(Action::Observe);
            }
            self.busy = Some(Busy::Applying(Standing::of(&decision)));
            return Some(Action::Apply(decision));
        }
        if self.applied.is_some() && self.observe_at.is_some_and(|at| at <= now) {
            self.busy = Some(Busy::Observing);
            return Some(Action::Observe);
        }
        None
    }

    /// When the next decision step is due at the latest, and why. `None` while an action is
    /// under way or nothing was decided yet.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.busy.is_some() {
            return None;
        }
        let observe = self
            .observe_at
            .filter(|_| self.applied.is_some())
            .map(|at| (at, "observation is due"));
        self.apply_deadline()
            .into_iter()
            .chain(observe)
            .min_by_key(|(at, _)| *at)
    }

    /// Whether what was decided is in force.
    #[must_use]
    pub fn confirmation(&self) -> &Confirmation {
        self.confirmation_of(self.wanted)
    }

    /// Whether this preference, which the machine may have reached without a decision having
    /// come here yet, is in force.
    #[must_use]
    pub fn confirmation_of(&self, preference: Option<Preference>) -> &Confirmation {
        // What is known of an earlier decision says nothing of this one.
        let changing =
            matches!(self.busy, Some(Busy::Applying(s)) if Some(s.preference) != preference);
        let of_another = changing || self.applied.map(|s| s.preference) != preference;
        match self.confirmation {
            Confirmation::Confirmed | Confirmation::Unconfirmed(_)
                if self.applied.is_some() && of_another =>
            {
                &Confirmation::Pending
            }
            Confirmation::Pending
            | Confirmation::Confirmed
            | Confirmation::Unconfirmed(_)
            | Confirmation::Failing(_) => &self.confirmation,
        }
    }

    /// Whether this preference was applied and read back.
    #[must_use]
    pub fn is_confirmed(&self, preference: Preference) -> bool {
        self.confirmation == Confirmation::Confirmed
            && self.busy.is_none()
            && self.applied.is_some_and(|s| s.preference == preference)
    }

    /// Whether this preference is known to be in force, and nothing under way is about to change
    /// it: it was read back, and at most it is being renewed or observed.
    #[must_use]
    pub fn is_in_force(&self, preference: Preference) -> bool {
        let stays = match self.busy {
            None | Some(Busy::Observing) => true,
            Some(Busy::Applying(standing)) => standing.preference == preference,
        };
        stays
            && *self.confirmation() == Confirmation::Confirmed
            && self.applied.is_some_and(|s| s.preference == preference)
    }

    /// Whether the boost last applied has outlived its dead-man time: it counts from that
    /// decision, not from the last step, so a pause shorter than it may be long enough.
    #[must_use]
    pub fn has_run_out(&self, now: Instant) -> bool {
        let (Some(standing), Some(dead_man)) = (self.applied, self.capabilities.dead_man) else {
            return false;
        };
        standing.preference == Preference::Preferred
            && standing.lifetime == Lifetime::DeadMan
            && now.saturating_duration_since(standing.decided_at) >= dead_man
    }

    /// Whether the boost was confirmed to stand without renewal ([`Lifetime::Keep`]).
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.busy.is_none() && self.stands_kept()
    }

    fn stands_kept(&self) -> bool {
        let kept = |s: Standing| matches!(s.lifetime, Lifetime::Keep(_));
        self.confirmation == Confirmation::Confirmed && self.applied.is_some_and(kept)
    }

    /// Whether this preference was applied as far as the announcer can express it: confirmed,
    /// or written and not contradicted.
    #[must_use]
    pub fn is_settled(&self, preference: Preference) -> bool {
        self.busy.is_none()
            && !self.drifted
            && self.applied.is_some_and(|s| s.preference == preference)
    }

    /// When the latest wish has to be applied (again), and why.
    fn apply_deadline(&self) -> Option<(Instant, &'static str)> {
        let wanted = self.wanted?;
        if let Some((failed, at)) = self.retry
            && failed == wanted
        {
            return Some((at, "a retry is due"));
        }
        let past = self.decision.as_ref().map(Decision::decided_at);
        match self.applied {
            Some(Standing {
                preference,
                decided_at,
                ..
            }) if preference == wanted => {
                if self.drifted {
                    return Some((past.unwrap_or(decided_at), "drift is to be repaired"));
                }
                let keeps = |d: &Decision| matches!(d.lifetime(), Lifetime::Keep(_));
                if self.decision.as_ref().is_some_and(keeps) {
                    // Once is enough: what stands without renewal is not renewed.
                    let due = (decided_at, "the node stops and keeps its boost");
                    return (!self.stands_kept()).then_some(due);
                }
                let renews = wanted == Preference::Preferred;
                let third = self.third().filter(|_| renews)?;
                Some((decided_at + third, "renewal is due"))
            }
            Some(Standing { decided_at, .. }) => {
                Some((past.unwrap_or(decided_at), "the decision changed"))
            }
            None => past.map(|at| (at, "the first decision")),
        }
    }

    fn third(&self) -> Option<Duration> {
        Some(self.capabilities.dead_man?.max(DEAD_MAN_MIN) / 3)
    }

    fn back_off(&mut self, now: Instant, preference: Preference) {
        let longest = self.third().map_or(RETRY_MAX, |third| third.min(RETRY_MAX));
        let pause = RETRY_MIN
            .saturating_mul(1 << self.attempts.min(16))
            .min(longest);
        self.attempts = self.attempts.saturating_add(1);
        self.retry = later(now, pause).map(|at| (preference, at));
    }
}

fn later(now: Instant, pause: Duration) -> Option<Instant> {
    now.checked_add(pause)
}
