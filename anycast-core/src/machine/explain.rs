//! Why the machine decided as it did: events, reasons, and what would change them.

use std::sync::LazyLock;
use std::time::Instant;

use super::{
    Check, CheckId, FailSafe, Flaps, Hysteresis, Identity, Intent, Machine, PeerReport, Phase,
    Policy, ReadinessState, Standing, State,
};
use crate::announce::Preference;
use crate::health::{Reason, Severity};
use crate::service::{CheckName, NodeName};

/// The commonest reasons, shared so that the common path allocates nothing.
pub(super) static HEALTHY: LazyLock<Reason> = LazyLock::new(|| Reason::new("every check is up"));
pub(super) static ADOPTED: LazyLock<Reason> =
    LazyLock::new(|| Reason::new("adopted: preferred when this node started"));

/// What changed, for logs and status.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The preference changed.
    Preference {
        /// When.
        at: Instant,
        /// Before.
        from: Preference,
        /// After.
        to: Preference,
        /// The state now.
        state: State,
        /// Why.
        reason: Reason,
    },
    /// The state changed, and the preference did not.
    State {
        /// When.
        at: Instant,
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why.
        reason: Reason,
    },
    /// A check rose or fell.
    Check {
        /// When.
        at: Instant,
        /// Which.
        check: CheckName,
        /// Whether it counts.
        severity: Severity,
        /// Its state now.
        phase: Phase,
        /// Its last failure, if it fell.
        reason: Option<Reason>,
    },
    /// An input of readiness changed.
    Readiness {
        /// When.
        at: Instant,
        /// Which.
        name: CheckName,
        /// What it says now.
        ready: bool,
        /// Why not, if not.
        reason: Option<Reason>,
    },
}

/// What can be read of a machine.
impl Machine {
    /// The preference at the last input.
    #[must_use]
    pub const fn preference(&self) -> Preference {
        self.state.preference()
    }

    /// The state behind the preference.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Since when the preference stands.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// Why the preference is what it is.
    #[must_use]
    pub const fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The service decided for.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The operator's intent in force.
    #[must_use]
    pub const fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Since when the service is not healthy, whatever is announced; for reports to peers.
    #[must_use]
    pub const fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// Since when it is parked for flapping.
    #[must_use]
    pub const fn parked_since(&self) -> Option<Instant> {
        Flaps::parked(&self.flaps)
    }

    /// Falls of late that count towards parking, at most the policy's limit.
    #[must_use]
    pub fn falls(&self) -> usize {
        self.flaps.falls()
    }

    /// Tokens of the update budget left at the last input.
    #[must_use]
    pub const fn tokens(&self) -> u32 {
        self.bucket.tokens()
    }

    /// The checks and their states, in the order of the list.
    pub fn checks(&self) -> impl Iterator<Item = (&CheckName, Severity, &Hysteresis)> {
        self.checks
            .iter()
            .map(|check| (&check.name, check.severity, &check.state))
    }

    /// The inputs of readiness, in the order they were named.
    pub fn readiness(&self) -> impl Iterator<Item = &ReadinessState> {
        self.readiness.iter()
    }

    /// The other members of the fleet and what they last said.
    pub fn members(&self) -> impl Iterator<Item = (&NodeName, Option<&PeerReport>)> {
        self.fleet.members()
    }

    /// Peers whose grant stands.
    #[must_use]
    pub fn grants(&self) -> usize {
        self.fleet.grants()
    }

    /// Whether grants of peers would matter now: the service failed or is not ready, the policy
    /// is to withdraw, and neither a promise nor the budget forbids it. To be asked for again
    /// and again, before those that stand expire.
    #[must_use]
    pub fn wants_grants(&self) -> bool {
        match (self.policy.fail_safe, self.state) {
            (FailSafe::Withdraw(_), State::Yielded) => true,
            (FailSafe::Withdraw(_), State::Auto(Standing::Failed | Standing::Unready)) => {
                !self.fleet.is_bound() && self.bucket.allows_raise()
            }
            (FailSafe::Demote | FailSafe::Withdraw(_), _) => false,
        }
    }

    /// Whether no other member is freshly known to be preferred: to drain this node would
    /// leave the fleet without a preferred one. `None`: there is no fleet to compare with.
    #[must_use]
    pub fn is_last_preferred(&self, now: Instant) -> Option<bool> {
        let nobody_else = self
            .fleet
            .nobody_else(now.max(self.latest), &self.policy.panic)?;
        Some(nobody_else && self.preference() == Preference::Preferred)
    }

    /// The check of this name.
    #[must_use]
    pub fn check_id(&self, name: &CheckName) -> Option<CheckId> {
        self.checks
            .iter()
            .position(|check| check.name == *name)
            .map(CheckId)
    }

    /// Whether an adopted preference still waits for every check to speak once. (Whatever
    /// lowers it meanwhile, a failed check or an operator, is decided at once.)
    #[must_use]
    pub fn awaits_first_verdicts(&self) -> bool {
        self.adopting && self.preference() == Preference::Preferred
    }

    /// What would make the node preferred again, or `None` when it is.
    #[must_use]
    pub fn would_raise(&self) -> Option<Reason> {
        if self.preference() == Preference::Preferred {
            return None;
        }
        if !matches!(self.intent, Intent::Auto) {
            return Some("the operator's intent is lifted or expires".into());
        }
        match self.state {
            State::Auto(Standing::Waiting) => {
                let wait = self
                    .bucket
                    .raise_at(&self.policy.budget)
                    .map(|at| at.saturating_duration_since(self.latest).as_secs());
                Some(match wait {
                    Some(seconds) => format!("the update budget, in {seconds} s").into(),
                    None => "the update budget".into(),
                })
            }
            State::Auto(Standing::Queued) => Some(self.reason_to_be_raised()),
            State::Auto(Standing::Parked) => {
                let wait = self
                    .flaps
                    .ends(&self.policy.flap)
                    .map_or(0, |at| at.saturating_duration_since(self.latest).as_secs());
                Some(format!("{wait} s more without a fall, or an undrain").into())
            }
            State::Auto(_) | State::Yielded | State::Drained | State::Withdrawn => {
                Some(self.waiting_for().join("; ").into())
            }
        }
    }

    fn waiting_for(&self) -> Vec<String> {
        let rise = self.policy.rise.get();
        let checks = self
            .critical()
            .filter(|check| check.state.phase() != Phase::Up)
            .map(|check| match rise.saturating_sub(check.state.successes()) {
                0 => format!("{}: the hold-down ends", check.name),
                missing => format!("{}: {missing} more successes in a row", check.name),
            });
        let unready = self.readiness.iter().filter(|state| !state.is_ready());
        let unready = unready.map(|state| format!("{}: becomes ready", state.name()));
        checks.chain(unready).collect()
    }
}

pub(super) fn explain(check: &Check) -> Reason {
    let name = &check.name;
    let state = match check.state.phase() {
        Phase::Up => return format!("{name} is up").into(),
        Phase::Pending => "has not risen yet",
        Phase::Down => "is down",
    };
    match check.state.last_failure() {
        Some((_, reason)) => format!("{name} {state}: {reason}").into(),
        None => format!("{name} {state}").into(),
    }
}

pub(super) fn check_event(check: &Check) -> Event {
    let down = check.state.phase() == Phase::Down;
    Event::Check {
        at: check.state.since(),
        check: check.name.clone(),
        severity: check.severity,
        phase: check.state.phase(),
        reason: check
            .state
            .last_failure()
            .filter(|_| down)
            .map(|(_, reason)| reason.clone()),
    }
}
