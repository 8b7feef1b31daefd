//! The fail-safe machine: from verdicts and an operator's intent to a preference.
//!
//! One [`Machine`] decides for one service on one node. It is pure: no clock, no randomness,
//! no IO; `now` comes in as an argument and two machines share nothing, so services are
//! independent (F11).
//!
//! # Contract
//!
//! - **Inputs** are the `handle_*` methods, or [`handle`](Machine::handle) with an [`Input`].
//! - **The output** is [`decide`](Machine::decide): the whole desired state, not a difference.
//!   Call it after every input and when [`poll_timeout`](Machine::poll_timeout) is due. Asking
//!   twice at one time gives the same answer.
//! - [`poll_event`](Machine::poll_event) tells what changed and why, for logs. At most
//!   [`MAX_EVENTS`] are kept; the oldest is dropped when nobody reads them.
//! - **Time** is monotonic. A `now` before one already seen counts as the latest seen. What
//!   time alone brings about (a hold-down or an order that ends, a token that comes back)
//!   takes effect at its own moment, however late the next input is.
//!
//! # Rules
//!
//! A service is healthy while every critical check is up and every input of readiness is
//! ready. A check falls after `fall` consecutive failures, or at one conclusive failure; it
//! rises after `rise` consecutive successes and once `hold_down` has passed since its last
//! failure (F3). `Unknown` touches neither count (F2). A check of severity `warning` is
//! reported and changes nothing.
//!
//! | operator's intent | service | [`FailSafe::Demote`] | [`FailSafe::Withdraw`] |
//! |---|---|---|---|
//! | withdraw | any | withdrawn | withdrawn |
//! | demote | any | demoted | demoted |
//! | none | healthy | preferred | preferred |
//! | none | flapped too often | demoted | demoted |
//! | none | not healthy, as too much of the fleet | stays preferred if it was | the same |
//! | none | not healthy | demoted | withdrawn while enough peers grant it, else demoted |
//!
//! Under [`FailSafe::Demote`] the right-hand side of "no intent" is a [`Standing`], whose
//! [`Level`](crate::announce::Level) has no withdrawn value (F1). Every automatic change is
//! paid for from the [`Budget`] (F4).
//!
//! Where several nodes share a cost, a healthy one that is to be preferred, and one that is to stop
//! being so by an order or for want of readiness, waits for its [`Turn`] ([`TurnPolicy`], off by
//! default). What fails does not.
//!
//! The states and their transitions are drawn in `docs/machine.svg`; the table behind the
//! drawing is `src/machine/snapshots/transitions.txt`, made from this code by its tests.
//!
//! # Starting
//!
//! A machine adopts what it is told was in force. Adopted as preferred, its checks count as
//! up, so that a restart changes no route; but it decides nothing, and so renews no boost,
//! until every check has spoken once: a process that dies again before its first check is
//! answered must not keep its boost alive. If the boost has run out by then it starts demoted,
//! like any other, and has to rise ([`handle_expiry`](Machine::handle_expiry)).

mod budget;
mod explain;
mod flap;
mod fleet;
mod hysteresis;
mod input;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod model;
mod policy;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod proptests;
mod readiness;
mod settle;
mod state;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod table;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;
mod turns;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::budget::Bucket;
pub use self::budget::Budget;
pub use self::explain::Event;
use self::explain::{ADOPTED, check_event};
pub use self::flap::FlapPolicy;
use self::flap::Flaps;
use self::fleet::Fleet;
pub use self::fleet::{MAX_GRANT, MAX_PEERS, PROMISE_MARGIN, PanicPolicy, PeerReport};
pub use self::hysteresis::{Hysteresis, Phase};
pub use self::input::Input;
pub use self::policy::{FailSafe, Intent, Policy, WithdrawPolicy};
pub use self::readiness::{Readiness, ReadinessState};
pub use self::state::{Standing, State};
use self::turns::Turns;
pub use self::turns::{Move, Turn, TurnPolicy};

use crate::announce::{Decision, InForce, Lifetime, Role};
use crate::health::{Reason, Severity, Verdict};
use crate::service::{CheckName, NodeName, ServiceAddresses, ServiceName};

/// Events kept for [`Machine::poll_event`]; the oldest is dropped when there are more.
pub const MAX_EVENTS: usize = 64;

/// What is decided for: the service and this node's part in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The service's name.
    pub service: ServiceName,
    /// Its addresses.
    pub addresses: ServiceAddresses,
    /// This node's role.
    pub role: Role,
}

/// A check as the machine is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckRule {
    /// Its name, unique within the service.
    pub name: CheckName,
    /// Whether it counts.
    pub severity: Severity,
}

impl From<CheckName> for CheckRule {
    /// A critical check.
    fn from(name: CheckName) -> Self {
        Self {
            name,
            severity: Severity::Critical,
        }
    }
}

/// Why a list of checks was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChecksError {
    /// No check of the list is critical. Without one there is no evidence, and an empty list
    /// never means "remove all" (F10).
    #[error("{service}: the list of checks is empty; name at least one that is critical")]
    Empty {
        /// The service.
        service: ServiceName,
    },
    /// One name is listed twice.
    #[error("{service}: two checks are called {check}")]
    Duplicate {
        /// The service.
        service: ServiceName,
        /// The name.
        check: CheckName,
    },
}

/// The index of a check in the machine's list, as [`Machine::check_id`] gives it. An index
/// that is not (or no longer) in the list is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId(usize);

impl CheckId {
    /// The check at this place of the list.
    #[must_use]
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its place in the list, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// One check as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Check {
    name: CheckName,
    severity: Severity,
    state: Hysteresis,
}

/// The pure decision machine for one service. See the [module documentation](self).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    identity: Identity,
    policy: Policy,
    checks: Vec<Check>,
    readiness: Vec<ReadinessState>,
    intent: Intent,
    fleet: Fleet,
    bucket: Bucket,
    flaps: Flaps,
    turns: Turns,
    /// Adopted as preferred and not yet confirmed by every check.
    adopting: bool,
    /// Since when the service is not healthy.
    failing_since: Option<Instant>,
    state: State,
    /// Since when the preference stands.
    since: Instant,
    reason: Reason,
    latest: Instant,
    /// The next moment at which time alone changes something.
    due: Option<(Instant, &'static str)>,
    events: VecDeque<Event>,
}

impl Machine {
    /// A machine that starts from what was observed in force (`None`: nothing is known, or
    /// the addresses disagree).
    ///
    /// # Errors
    /// [`ChecksError`] when no check is critical or one is named twice.
    pub fn new(
        identity: Identity,
        policy: Policy,
        checks: &[CheckRule],
        observed: Option<InForce>,
        now: Instant,
    ) -> Result<Self, ChecksError> {
        check_list(&identity.service, checks)?;
        let adopting = observed == Some(InForce::Preferred);
        let (phase, standing, reason) = if adopting {
            (Phase::Up, Standing::Adopted, ADOPTED.clone())
        } else {
            let reason = "starting: no check has risen yet".into();
            (Phase::Pending, Standing::Rising, reason)
        };
        let checks = checks.iter().map(|rule| Check::new(rule, phase, now));
        let mut machine = Self {
            identity,
            policy,
            checks: checks.collect(),
            readiness: Vec::new(),
            intent: Intent::Auto,
            fleet: Fleet::new(now),
            bucket: Bucket::new(&policy.budget, now),
            flaps: Flaps::new(adopting, now),
            turns: Turns::new(),
            adopting,
            failing_since: (!adopting).then_some(now),
            state: State::Auto(standing),
            since: now,
            reason,
            latest: now,
            due: None,
            events: VecDeque::new(),
        };
        machine.due = machine.next_due();
        Ok(machine)
    }

    /// The same with inputs of readiness. Until one has spoken it counts as ready where a
    /// preference was adopted, and as not ready elsewhere. One named twice is one.
    #[must_use]
    pub fn with_readiness(mut self, names: &[CheckName]) -> Self {
        for name in names {
            if !self.readiness.iter().any(|known| known.name() == name) {
                let state = ReadinessState::new(name.clone(), self.adopting, self.latest);
                self.readiness.push(state);
            }
        }
        self.settle(self.latest);
        self
    }

    /// The same with peers to compare itself with (this node left out). Reports of others are
    /// ignored; at most [`MAX_PEERS`] count.
    #[must_use]
    pub fn with_members(mut self, members: &[NodeName]) -> Self {
        self.fleet.set_members(members);
        self
    }

    /// A check has spoken. `Unknown` is remembered for status and changes nothing else (F2).
    pub fn handle_verdict(&mut self, now: Instant, check: CheckId, verdict: Verdict) {
        let now = self.advance(now);
        let Some(entry) = self.checks.get_mut(check.0) else {
            return;
        };
        let changed = entry.state.handle_verdict(now, verdict, &self.policy);
        if changed {
            let event = check_event(entry);
            self.push_event(event);
        } else if entry.state.phase() == Phase::Up && !self.adopting {
            return; // the common case: nothing that is decided on has changed
        }
        self.settle(now);
    }

    /// An input of readiness has spoken. A name that was not given to
    /// [`with_readiness`](Self::with_readiness) is ignored.
    pub fn handle_readiness(&mut self, now: Instant, name: &CheckName, readiness: Readiness) {
        let now = self.advance(now);
        let known = |state: &&mut ReadinessState| state.name() == name;
        let Some(entry) = self.readiness.iter_mut().find(known) else {
            return;
        };
        if entry.handle(now, readiness) {
            let event = Event::Readiness {
                at: now,
                name: name.clone(),
                ready: entry.is_ready(),
                reason: (!entry.is_ready()).then(|| entry.reason()),
            };
            self.push_event(event);
        }
        self.settle(now);
    }

    /// The operator's intent is now this. It outranks health (F9). One that has lapsed already
    /// counts as none. [`Intent::Auto`] also ends parking: the operator trusts the service.
    pub fn handle_intent(&mut self, now: Instant, intent: Intent) {
        let now = self.advance(now);
        if intent == Intent::Auto {
            self.flaps.forget();
        }
        self.intent = intent;
        self.expire_intent(now);
        self.settle(now);
    }

    /// A peer says how it is. Reports of nodes that are not members are ignored.
    pub fn handle_peer(&mut self, now: Instant, peer: &NodeName, report: PeerReport) {
        let now = self.advance(now);
        self.fleet.hear(peer, report);
        self.settle(now);
    }

    /// The members of the fleet are now these (a reload).
    pub fn handle_members(&mut self, now: Instant, members: &[NodeName]) {
        let now = self.advance(now);
        self.fleet.set_members(members);
        self.settle(now);
    }

    /// A fresh healthy peer promises not to withdraw until `until`, at most [`MAX_GRANT`] from
    /// now. Has an effect only under [`FailSafe::Withdraw`]. A peer that takes its promise back
    /// gives an `until` that is past.
    pub fn handle_grant(&mut self, now: Instant, peer: NodeName, until: Instant) {
        let now = self.advance(now);
        self.fleet.take_grant(now, peer, until);
        self.settle(now);
    }

    /// A peer asks for this node's promise not to withdraw for so long. `Some`: it is given,
    /// for at most [`MAX_GRANT`], and binds from now on. `None`: this node is not preferred and
    /// known to be healthy itself (an adopted check that has said nothing but `Unknown` is not
    /// known), or an operator has a hand on it. To be called only while the preference is in
    /// force ([`Reconciler::is_in_force`]): a node whose route is still gone, although it was
    /// decided to announce it again, is none that stays.
    ///
    /// [`Reconciler::is_in_force`]: crate::reconcile::Reconciler::is_in_force
    pub fn handle_grant_request(
        &mut self,
        now: Instant,
        peer: NodeName,
        duration: Duration,
    ) -> Option<Duration> {
        let now = self.advance(now);
        if !self.is_known_healthy() {
            return None;
        }
        let granted = self.fleet.promise(now, peer, duration);
        self.settle(now);
        granted
    }

    /// Replaces the list of checks (a reload). A check that stays keeps its state; a new one
    /// counts as up while the service is healthy, so that a reload flaps no route.
    ///
    /// # Errors
    /// [`ChecksError`]; the old list then stays in force.
    pub fn handle_checks(&mut self, now: Instant, checks: &[CheckRule]) -> Result<(), ChecksError> {
        check_list(&self.identity.service, checks)?;
        let now = self.advance(now);
        let all_up = self.critical().all(|c| c.state.phase() == Phase::Up);
        let phase = if all_up { Phase::Up } else { Phase::Pending };
        let mut old = std::mem::take(&mut self.checks);
        for rule in checks {
            let kept = old.iter().position(|check| check.name == rule.name);
            self.checks.push(match kept {
                Some(index) => Check {
                    severity: rule.severity,
                    ..old.swap_remove(index)
                },
                None => Check::new(rule, phase, now),
            });
        }
        self.settle(now);
        Ok(())
    }

    /// Replaces the policy (a reload). Counts are kept; the budget is cut to the new burst.
    pub fn handle_policy(&mut self, now: Instant, policy: Policy) {
        let now = self.advance(now);
        self.policy = policy;
        self.advance_to(now);
    }

    /// The boost has run out by itself: decisions stood still for longer than it lives (the
    /// process was stopped, the host was paused), or an adopted one ended before every check
    /// had spoken. As after a restart that finds no boost, every check has to rise anew; what
    /// was known before raises nothing. The change is the kernel's own and costs no token.
    pub fn handle_expiry(&mut self, now: Instant) {
        let now = self.advance(now);
        for check in &mut self.checks {
            check.state.start_anew(now);
        }
        for readiness in &mut self.readiness {
            readiness.start_anew(now);
        }
        self.adopting = false;
        self.settle_unpaid(now);
    }

    /// Time has passed. Idempotent, harmless when early.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// Completes a decision step: the whole desired state at `now`.
    ///
    /// `None` only while an adopted preference waits for every check to speak once; nothing
    /// is to be applied or renewed then.
    pub fn decide(&mut self, now: Instant) -> Option<Decision> {
        self.advance(now);
        if self.awaits_first_verdicts() {
            return None;
        }
        Some(self.decision(Lifetime::DeadMan))
    }

    /// The last decision of a node that stops with `on_stop = "keep"`: the present preference,
    /// standing for `keep_for` without renewal.
    pub fn decide_keep(&mut self, now: Instant, keep_for: Duration) -> Decision {
        self.advance(now);
        self.decision(Lifetime::Keep(keep_for))
    }

    /// When [`decide`](Self::decide) may answer differently without a further input, and why.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.due
    }

    /// The oldest change not yet told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn decision(&self, lifetime: Lifetime) -> Decision {
        Decision {
            service: self.identity.service.clone(),
            addresses: self.identity.addresses.clone(),
            preference: self.preference(),
            role: self.identity.role,
            lifetime,
            decided_at: self.latest,
            reason: self.reason.clone(),
        }
    }

    /// Preferred on evidence of this process. Whether a check has said `Unknown` has no part in
    /// it (F2), since a promise binds what is decided later.
    fn is_known_healthy(&self) -> bool {
        let preferred = matches!(
            self.state,
            State::Auto(Standing::Healthy | Standing::Adopted)
        );
        preferred
            && self.critical().all(|check| check.state.successes() > 0)
            && self.readiness.iter().all(ReadinessState::has_said_ready)
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl Check {
    fn new(rule: &CheckRule, phase: Phase, now: Instant) -> Self {
        Self {
            name: rule.name.clone(),
            severity: rule.severity,
            state: Hysteresis::new(phase, now),
        }
    }
}

pub(crate) fn check_list(service: &ServiceName, checks: &[CheckRule]) -> Result<(), ChecksError> {
    if !checks
        .iter()
        .any(|rule| rule.severity == Severity::Critical)
    {
        return Err(ChecksError::Empty {
            service: service.clone(),
        });
    }
    let mut sorted: Vec<_> = checks.iter().map(|rule| &rule.name).collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ChecksError::Duplicate {
            service: service.clone(),
            check: pair[0].clone(),
        }),
        None => Ok(()),
    }
}
