//! From what is known to a state: the one place where preferences come from.

use std::time::Instant;

use super::explain::{ADOPTED, HEALTHY, check_event, explain};
use super::{Check, Event, FailSafe, Intent, Machine, Phase, ReadinessState, Standing, State};
use crate::announce::Preference;
use crate::health::{Reason, Severity};

/// Why a service is not healthy, the worst first.
#[derive(Debug, Clone, Copy)]
enum Fault<'a> {
    Down(&'a Check),
    Unready(&'a ReadinessState),
    Rising(&'a Check),
}

impl Fault<'_> {
    const fn standing(self) -> Standing {
        match self {
            Self::Down(_) => Standing::Failed,
            Self::Unready(_) => Standing::Unready,
            Self::Rising(_) => Standing::Rising,
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::Down(check) | Self::Rising(check) => explain(check),
            Self::Unready(readiness) => readiness.reason(),
        }
    }
}

impl Machine {
    /// Brings everything that depends on time alone up to `now`, each thing at its own moment,
    /// and returns the time to use.
    pub(super) fn advance(&mut self, now: Instant) -> Instant {
        let now = self.latest.max(now);
        while let Some((at, _)) = self.due
            && at <= now
        {
            self.latest = at;
            self.advance_to(at);
        }
        self.latest = now;
        now
    }

    pub(super) fn advance_to(&mut self, at: Instant) {
        for index in 0..self.checks.len() {
            if self.checks[index].state.advance(at, &self.policy) {
                let event = check_event(&self.checks[index]);
                self.push_event(event);
            }
        }
        self.expire_intent(at);
        self.settle(at);
    }

    pub(super) fn expire_intent(&mut self, now: Instant) {
        if self.intent.until().is_some_and(|until| until <= now) {
            self.intent = Intent::Auto;
        }
    }

    /// Recomputes the state and records the change.
    pub(super) fn settle(&mut self, now: Instant) {
        self.settle_with(now, true);
    }

    /// The same for a change that somebody else has made already.
    pub(super) fn settle_unpaid(&mut self, now: Instant) {
        self.settle_with(now, false);
    }

    fn settle_with(&mut self, now: Instant, paid: bool) {
        self.bucket.advance(now, &self.policy.budget);
        self.fleet.advance(now);
        let spoke = |check: &Check| check.state.has_spoken();
        let ready_spoke = |state: &ReadinessState| state.last().is_some();
        if self.adopting && self.checks.iter().all(spoke) && self.readiness.iter().all(ready_spoke)
        {
            self.adopting = false;
        }
        let faulty = self.fault().is_some();
        match (self.failing_since, faulty) {
            (None, true) => self.failing_since = Some(now),
            (Some(_), false) => self.failing_since = None,
            (None, false) | (Some(_), true) => {}
        }
        let held = faulty && self.is_held_back(now);
        self.flaps.note(now, !faulty || held, &self.policy.flap);
        let (wanted, reason) = self.wanted(held);
        let state = if paid {
            self.pay(now, wanted)
        } else {
            self.forget_turn();
            wanted
        };
        let reason = if state == wanted {
            self.with_turn_missed(reason)
        } else {
            self.unpaid_reason(state, &reason)
        };
        self.enter(now, state, reason);
        self.due = self.next_due();
    }

    fn enter(&mut self, now: Instant, state: State, reason: Reason) {
        let from = std::mem::replace(&mut self.state, state);
        if from.preference() != state.preference() {
            self.since = now;
            self.push_event(Event::Preference {
                at: now,
                from: from.preference(),
                to: state.preference(),
                state,
                reason: reason.clone(),
            });
        } else if from != state {
            self.push_event(Event::State {
                at: now,
                from,
                to: state,
                reason: reason.clone(),
            });
        }
        self.reason = reason;
    }

    /// The state that is due, regardless of the budget.
    fn wanted(&self, held: bool) -> (State, Reason) {
        match &self.intent {
            Intent::Withdraw { reason, by, .. } => (
                State::Withdrawn,
                format!("withdrawn by {by}: {reason}").into(),
            ),
            Intent::Demote { reason, by, .. } => {
                (State::Drained, format!("demoted by {by}: {reason}").into())
            }
            Intent::Auto => self.automatic(held),
        }
    }

    fn automatic(&self, held: bool) -> (State, Reason) {
        let (standing, reason) = self.standing(held);
        match &self.policy.fail_safe {
            FailSafe::Demote => (State::Auto(standing), reason),
            FailSafe::Withdraw(policy) => {
                // A service that flaps, waits or rises is well enough not to be withdrawn.
                if !matches!(standing, Standing::Failed | Standing::Unready) {
                    return (State::Auto(standing), reason);
                }
                let (grants, needed) = (self.fleet.grants(), usize::from(policy.min_peers.get()));
                if self.fleet.is_bound() {
                    let reason = format!("{reason}; not withdrawn: bound by a promise to a peer");
                    (State::Auto(standing), reason.into())
                } else if grants < needed {
                    let reason =
                        format!("{reason}; not withdrawn: {grants} of {needed} peers grant it");
                    (State::Auto(standing), reason.into())
                } else {
                    let reason = format!("{reason}; {grants} healthy peers stay");
                    (State::Yielded, reason.into())
                }
            }
        }
    }

    /// What health, readiness, flapping and the fleet amount to: never a withdrawal.
    fn standing(&self, held: bool) -> (Standing, Reason) {
        let fault = self.fault();
        match fault {
            Some(fault) if held => {
                let reason = format!(
                    "held: too much of the fleet fails at once to believe it; {}",
                    fault.reason()
                );
                (Standing::Held, reason.into())
            }
            Some(fault) => (fault.standing(), fault.reason()),
            None if self.flaps.parked().is_some() => {
                let reason = "parked: it flapped too often, and has to be steady for a while";
                (Standing::Parked, reason.into())
            }
            None if self.adopting => (Standing::Adopted, ADOPTED.clone()),
            None => (Standing::Healthy, HEALTHY.clone()),
        }
    }

    fn fault(&self) -> Option<Fault<'_>> {
        let in_phase = |phase| self.critical().find(move |c| c.state.phase() == phase);
        let unready = || self.readiness.iter().find(|state| !state.is_ready());
        in_phase(Phase::Down)
            .map(Fault::Down)
            .or_else(|| unready().map(Fault::Unready))
            .or_else(|| in_phase(Phase::Pending).map(Fault::Rising))
    }

    /// Whether a fall is not to be believed. Only a preferred node holds: it is never raised
    /// by this.
    fn is_held_back(&self, now: Instant) -> bool {
        let gone =
            |check: &Check| check.state.is_conclusive() || check.state.phase() == Phase::Pending;
        // Under an order nothing holds, from the order on: else when the fall is noted would
        // depend on which input happens to come next.
        if self.intent != Intent::Auto || self.critical().any(gone) {
            return false;
        }
        match self.state {
            State::Auto(Standing::Held) => self.fleet.panics(now, &self.policy.panic, false),
            State::Auto(Standing::Healthy | Standing::Adopted) => {
                self.fleet.panics(now, &self.policy.panic, true)
            }
            State::Auto(_) | State::Yielded | State::Drained | State::Withdrawn => false,
        }
    }

    /// Whether a check has failed, or has not risen.
    pub(super) fn has_failed_check(&self) -> bool {
        self.critical()
            .any(|check| check.state.phase() != Phase::Up)
    }

    /// Pays for the change to `wanted` if it is one, or says what may be had instead.
    fn pay(&mut self, now: Instant, wanted: State) -> State {
        let (from, to) = (self.state.preference(), wanted.preference());
        let may_raise = self.bucket.allows_raise();
        if let Some(standing) = self.wait_for_turn(now, wanted, may_raise) {
            let instead = State::Auto(standing);
            // From a withdrawal to waiting for more.
            if rank(from) != rank(instead.preference()) {
                self.bucket.spend(now, &self.policy.budget);
                // That may have been what the raise needs: it is no turn that is missing first.
                if standing == Standing::Queued && !self.bucket.allows_raise() {
                    return State::Auto(Standing::Waiting);
                }
            }
            return instead;
        }
        if rank(from) == rank(to) {
            return wanted;
        }
        let raises = to == Preference::Preferred;
        // After an automatic withdrawal a token must be left for taking it back.
        let yields = wanted == State::Yielded;
        if (raises || yields) && !may_raise {
            let (standing, _) = self.standing(false);
            let instead = State::Auto(if raises { Standing::Waiting } else { standing });
            if rank(from) != rank(instead.preference()) {
                self.bucket.spend(now, &self.policy.budget);
            }
            return instead;
        }
        self.bucket.spend(now, &self.policy.budget);
        wanted
    }

    fn unpaid_reason(&self, state: State, reason: &Reason) -> Reason {
        if let State::Auto(standing @ (Standing::Queued | Standing::Leaving)) = state {
            return self.reason_to_wait(standing, reason);
        }
        if state == State::Auto(Standing::Waiting) {
            return "healthy, but the route changed too often: the update budget is used up".into();
        }
        format!("{reason}; not withdrawn: the update budget is used up").into()
    }

    pub(super) fn critical(&self) -> impl Iterator<Item = &Check> {
        let critical = |check: &&Check| check.severity == Severity::Critical;
        self.checks.iter().filter(critical)
    }

    /// The next moment after `latest` at which time alone changes something.
    pub(super) fn next_due(&self) -> Option<(Instant, &'static str)> {
        let policy = &self.policy;
        let rises = self
            .checks
            .iter()
            .filter_map(|check| check.state.rise_deadline(policy))
            .map(|at| (at, "a hold-down ends"));
        let intent = self
            .intent
            .until()
            .map(|at| (at, "an operator's intent expires"));
        let waits = self.state == State::Auto(Standing::Waiting) || self.is_refused_withdrawal();
        let budget = waits
            .then(|| self.bucket.raise_at(&policy.budget))
            .flatten()
            .map(|at| (at, "the update budget allows a raise"));
        let parked = self.flaps.ends(&policy.flap).map(|at| (at, "parking ends"));
        let held = self.state == State::Auto(Standing::Held);
        let consent = policy.fail_safe != FailSafe::Demote;
        let fleet = self.fleet.due(&policy.panic, held, consent);
        let leaves = self
            .leaves_at()
            .map(|at| (at, "what leaves waits no longer for its turn"));
        rises
            .chain(leaves)
            .chain(intent)
            .chain(budget)
            .chain(parked)
            .chain(fleet)
            .filter(|(at, _)| *at > self.latest)
            .min_by_key(|(at, _)| *at)
    }

    /// Whether a withdrawal that peers grant waits for the budget.
    fn is_refused_withdrawal(&self) -> bool {
        match self.policy.fail_safe {
            FailSafe::Demote => false,
            FailSafe::Withdraw(_) => !self.bucket.allows_raise(),
        }
    }
}

/// Preferences in order, the cause of a withdrawal left out: two withdrawals are one route.
const fn rank(preference: Preference) -> u8 {
    match preference {
        Preference::Withdrawn(_) => 0,
        Preference::Demoted => 1,
        Preference::Preferred => 2,
    }
}
