//! What a node shows of itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::orders::{IntentSnapshot, Orders, Saved};
use super::peers::MeshStatus;
use crate::announce::{Preference, Role};
use crate::drain::{self, Drain};
use crate::health::{Reason, Severity, Verdict};
use crate::intent_store::OrderKind;
use crate::machine::{
    Machine, Move, PeerReport, Phase, Readiness, ReadinessState, Standing, State, Turn, TurnPolicy,
};
use crate::node::ServiceSpec;
use crate::reconcile::{Confirmation, Reconciler};
use crate::service::{CheckName, NodeName, ServiceAddresses, ServiceName};

/// The state of one service at one moment, as published by its decision loop.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The service.
    pub service: ServiceName,
    /// Its addresses.
    pub addresses: ServiceAddresses,
    /// This node's role.
    pub role: Role,
    /// The announcer's kind.
    pub announcer: &'static str,
    /// What was decided.
    pub preference: Preference,
    /// The state behind it.
    pub state: State,
    /// Tokens of the update budget left.
    pub tokens: u32,
    /// Since when it is parked for flapping.
    pub parked_since: Option<Instant>,
    /// Since when the service is not healthy.
    pub failing_since: Option<Instant>,
    /// The inputs of readiness.
    pub readiness: Vec<ReadinessState>,
    /// The other members of the fleet and what they last said.
    pub fleet: Vec<(NodeName, Option<PeerReport>)>,
    /// Peers that promise not to withdraw.
    pub grants: usize,
    /// Whether more would matter: the node is to ask its peers for them.
    pub wants_grants: bool,
    /// Since when; `None` while what is in force is not known yet.
    pub since: Option<Instant>,
    /// Why.
    pub reason: Reason,
    /// What would make it preferred.
    pub would_raise: Option<Reason>,
    /// Whether what was decided is in force.
    pub confirmation: Confirmation,
    /// The operator's order in force.
    pub intent: Option<IntentSnapshot>,
    /// How far the drain is that an order or a stop began; `None`: nothing is drained.
    pub drain: Option<DrainSnapshot>,
    /// Its turn to join or to leave; `None`: it takes no part.
    pub turn: Option<TurnSnapshot>,
    /// How long a boost outlives its controller; `None`: it does not end by itself.
    pub dead_man: Option<Duration>,
    /// The checks in the order of the configuration.
    pub checks: Vec<CheckSnapshot>,
    /// When the decision loop completed its last step, or its last attempt to find out what is
    /// in force. A step alone wakes no follower.
    pub stepped: Instant,
}

/// A drain at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainSnapshot {
    /// How far it has come.
    pub phase: drain::Phase,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub why: Reason,
    /// What was in flight when it was last counted; `None` when nobody counts.
    pub in_flight: Option<u64>,
}

impl DrainSnapshot {
    fn of(drain: &Drain) -> Option<Self> {
        let phase = drain.phase();
        (phase != drain::Phase::Idle).then(|| Self {
            phase,
            since: drain.since(),
            why: drain.why().clone(),
            in_flight: drain.in_flight(),
        })
    }
}

/// The turn of a service that takes part, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TurnSnapshot {
    /// When it may join and leave.
    pub policy: TurnPolicy,
    /// What it wants a turn for.
    pub wants: Option<Move>,
    /// What it has used one for, that is not in force yet.
    pub uses: Option<Move>,
    /// What the fleet said last: that it has to wait, or is cut off.
    pub news: Turn,
}

impl TurnSnapshot {
    fn of(machine: &Machine, reconciler: &Reconciler) -> Option<Self> {
        let in_force = reconciler.is_in_force(machine.preference());
        Some(Self {
            policy: machine.policy().turns?,
            wants: machine.wants_turn(),
            uses: machine.used_turn().filter(|_| !in_force),
            news: machine.turn().clone(),
        })
    }
}

/// One check at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckSnapshot {
    /// Its name.
    pub name: CheckName,
    /// Whether it counts.
    pub severity: Severity,
    /// Up, down or not risen yet.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// The last verdict, and when.
    pub last: Option<(Instant, Verdict)>,
    /// Successes in a row, up to `rise`.
    pub successes: u32,
    /// Failures in a row, up to `fall`.
    pub failures: u32,
}

impl Snapshot {
    pub(super) fn starting(spec: &ServiceSpec, now: Instant) -> Self {
        Self {
            service: spec.identity.service.clone(),
            addresses: spec.identity.addresses.clone(),
            role: spec.identity.role,
            announcer: spec.announcer.kind(),
            preference: Preference::Demoted,
            state: State::Auto(Standing::Rising),
            tokens: 0,
            parked_since: None,
            failing_since: None,
            readiness: Vec::new(),
            fleet: Vec::new(),
            grants: 0,
            wants_grants: false,
            since: None,
            reason: "starting: what is in force is being observed".into(),
            would_raise: None,
            confirmation: Confirmation::Pending,
            intent: None,
            drain: None,
            turn: None,
            dead_man: spec.announcer.capabilities().dead_man,
            checks: Vec::new(),
            stepped: now,
        }
    }

    pub(super) fn update(
        &self,
        machine: &Machine,
        reconciler: &Reconciler,
        orders: &Orders,
        drain: &Drain,
    ) -> Self {
        let checks = machine
            .checks()
            .map(|(name, severity, state)| CheckSnapshot {
                name: name.clone(),
                severity,
                phase: state.phase(),
                since: state.since(),
                last: state.last_verdict().cloned(),
                successes: state.successes(),
                failures: state.failures(),
            });
        Self {
            service: self.service.clone(),
            addresses: self.addresses.clone(),
            role: self.role,
            announcer: self.announcer,
            preference: machine.preference(),
            state: machine.state(),
            tokens: machine.tokens(),
            parked_since: machine.parked_since(),
            failing_since: machine.failing_since(),
            readiness: machine.readiness().cloned().collect(),
            fleet: machine
                .members()
                .map(|(name, report)| (name.clone(), report.cloned()))
                .collect(),
            grants: machine.grants(),
            wants_grants: machine.wants_grants(),
            since: Some(machine.since()),
            reason: machine.reason().clone(),
            would_raise: machine.would_raise(),
            confirmation: reconciler
                .confirmation_of(Some(machine.preference()))
                .clone(),
            intent: orders.snapshot(),
            drain: DrainSnapshot::of(drain),
            turn: TurnSnapshot::of(machine, reconciler),
            dead_man: self.dead_man,
            checks: checks.collect(),
            stepped: self.stepped,
        }
    }

    /// How long the service waits for its turn to leave, at most.
    pub(super) fn leave_within(&self) -> Duration {
        let turn = self.turn.as_ref();
        turn.map_or(Duration::ZERO, |turn| turn.policy.leave_within)
    }

    /// Whether this preference was decided and is known to be in force.
    #[must_use]
    pub fn is_in_force(&self, preference: Preference) -> bool {
        self.preference == preference && self.confirmation == Confirmation::Confirmed
    }
}

/// A node's state, as `/status` gives it. Ages are in seconds.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// Its services in the order they were started.
    pub services: Vec<ServiceStatus>,
    /// The other nodes; absent where this node takes part in no mesh.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub mesh: Option<MeshStatus>,
}

impl NodeStatus {
    /// Whether every decision loop lives and what it decided is in force.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.services.iter().all(|s| s.trouble().is_none())
    }
}

/// One service's state.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ServiceStatus {
    /// The service.
    pub name: ServiceName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// This node's role.
    pub role: Role,
    /// The announcer's kind.
    pub announcer: &'static str,
    /// Whether its decision loop runs.
    pub running: bool,
    /// `preferred`, `demoted` or `withdrawn`.
    pub preference: Preference,
    /// The state behind it: `healthy`, `adopted`, `held`, `leaving`, `queued`, `waiting`, `parked`,
    /// `unready`, `rising`, `failed`, `yielded`, `drained` or `withdrawn`.
    pub state: State,
    /// Tokens of the update budget left; a raise needs two.
    pub budget_tokens: u32,
    /// How long it has been parked for flapping; absent when it is not.
    pub parked_age_s: Option<f64>,
    /// How long the service has not been healthy; absent when it is.
    pub failing_age_s: Option<f64>,
    /// The inputs of readiness.
    pub readiness: Vec<ReadinessStatus>,
    /// The other members of the fleet.
    pub fleet: Vec<PeerStatus>,
    /// Peers that promise not to withdraw.
    pub grants: usize,
    /// How long it has stood; absent while what is in force is not known yet.
    pub preference_age_s: Option<f64>,
    /// Why.
    pub reason: Reason,
    /// What would make it preferred; absent when it is.
    pub would_raise: Option<Reason>,
    /// Whether what was decided is in force.
    pub confirmation: Confirmation,
    /// The operator's order in force; absent when health decides.
    pub intent: Option<IntentStatus>,
    /// How far the drain is that an order or a stop began; absent when nothing is drained.
    pub drain: Option<DrainStatus>,
    /// Its turn to join or to leave; absent where it takes no part.
    pub turn: Option<TurnStatus>,
    /// The checks in the order of the configuration.
    pub checks: Vec<CheckStatus>,
}

/// An operator's order.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct IntentStatus {
    /// `demote` or `withdraw`.
    pub order: OrderKind,
    /// Why, in the operator's words.
    pub reason: Reason,
    /// Who, and from where.
    pub by: Reason,
    /// How long ago it was given, restarts included.
    pub age_s: f64,
    /// When it ends; absent: when it is lifted.
    pub expires_in_s: Option<f64>,
    /// Whether it survives a restart.
    pub saved: bool,
    /// Why it does not; absent when it does.
    pub unsaved_reason: Option<Reason>,
}

impl IntentStatus {
    fn new(intent: &IntentSnapshot, now: Instant) -> Self {
        let until = intent.until;
        Self {
            order: intent.order,
            reason: intent.reason.clone(),
            by: intent.by.clone(),
            age_s: seconds(now.saturating_duration_since(intent.given)),
            expires_in_s: until.map(|at| seconds(at.saturating_duration_since(now))),
            saved: intent.saved == Saved::Yes,
            unsaved_reason: match &intent.saved {
                Saved::Yes => None,
                Saved::Pending => Some("it is being written".into()),
                Saved::No(reason) => Some(reason.clone()),
            },
        }
    }
}

/// A drain.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainStatus {
    /// `demoting`, `converging`, `finishing` or `done`.
    pub phase: drain::Phase,
    /// How long.
    pub phase_age_s: f64,
    /// Why.
    pub why: Reason,
    /// What was in flight when it was last counted; absent when nobody counts.
    pub in_flight: Option<u64>,
}

/// The turn of a service in an equal-cost set.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TurnStatus {
    /// What it wants one for, `join` or `leave`; absent when it wants none.
    pub wants: Option<Move>,
    /// Whether this node is cut off from most of its fleet: it gets no turn, and what is to leave
    /// waits for none.
    pub cut_off: bool,
    /// What it waits for, or how it is cut off.
    pub reason: Option<Reason>,
}

impl TurnStatus {
    fn new(turn: &TurnSnapshot) -> Self {
        let (cut_off, reason) = match &turn.news {
            Turn::Waits(reason) => (false, turn.wants.map(|_| reason.clone())),
            Turn::CutOff(reason) => (true, Some(reason.clone())),
            Turn::Yours { .. } => (false, None),
        };
        Self {
            wants: turn.wants,
            cut_off,
            reason,
        }
    }
}

/// One input of readiness.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReadinessStatus {
    /// Its name.
    pub name: CheckName,
    /// Whether it counts as ready.
    pub ready: bool,
    /// How long.
    pub age_s: f64,
    /// Why it is not ready or cannot be told; absent otherwise.
    pub reason: Option<Reason>,
}

/// What is known of one peer. Everything but the name is absent until it is first heard.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeName,
    /// How long ago it was heard.
    pub heard_age_s: Option<f64>,
    /// Whether it is preferred.
    pub preferred: Option<bool>,
    /// Whether an operator has drained or withdrawn it.
    pub draining: Option<bool>,
    /// How long it has not been healthy; absent when it is.
    pub failing_age_s: Option<f64>,
}

/// One check's state.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckStatus {
    /// Its name.
    pub name: CheckName,
    /// `critical` or `warning`; one of the latter changes no level.
    pub severity: Severity,
    /// `up`, `down` or `pending`.
    pub phase: Phase,
    /// How long.
    pub phase_age_s: f64,
    /// The last verdict in words; absent before the first.
    pub verdict: Option<String>,
    /// How long ago it was given.
    pub verdict_age_s: Option<f64>,
    /// Successes in a row, up to `rise`.
    pub successes: u32,
    /// Failures in a row, up to `fall`.
    pub failures: u32,
}

impl ServiceStatus {
    /// What keeps the decision from being in force, or `None`. A demotion is no trouble.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        if !self.running {
            return Some("its decision loop has ended".to_owned());
        }
        match &self.confirmation {
            Confirmation::Confirmed => None,
            Confirmation::Pending => Some("nothing was applied yet".to_owned()),
            Confirmation::Unconfirmed(reason) => Some(format!("not confirmed: {reason}")),
            Confirmation::Failing(reason) => Some(format!("cannot be applied: {reason}")),
        }
    }

    pub(super) fn new(snapshot: &Snapshot, running: bool, now: Instant) -> Self {
        let age = |at: Instant| seconds(now.saturating_duration_since(at));
        let checks = snapshot.checks.iter().map(|check| CheckStatus {
            name: check.name.clone(),
            severity: check.severity,
            phase: check.phase,
            phase_age_s: age(check.since),
            verdict: check.last.as_ref().map(|(_, verdict)| verdict.to_string()),
            verdict_age_s: check.last.as_ref().map(|(at, _)| age(*at)),
            successes: check.successes,
            failures: check.failures,
        });
        let readiness = snapshot.readiness.iter().map(|state| ReadinessStatus {
            name: state.name().clone(),
            ready: state.is_ready(),
            age_s: age(state.since()),
            reason: match state.last() {
                Some((_, Readiness::NotReady(reason) | Readiness::Unknown(reason))) => {
                    Some(reason.clone())
                }
                Some((_, Readiness::Ready)) | None => None,
            },
        });
        let fleet = snapshot.fleet.iter().map(|(node, report)| PeerStatus {
            node: node.clone(),
            heard_age_s: report.as_ref().map(|r| age(r.heard_at)),
            preferred: report.as_ref().map(|r| r.preferred),
            draining: report.as_ref().map(|r| r.draining),
            failing_age_s: report.as_ref().and_then(|r| r.failing_since).map(age),
        });
        Self {
            name: snapshot.service.clone(),
            addresses: snapshot.addresses.iter().map(|a| a.ip()).collect(),
            role: snapshot.role,
            announcer: snapshot.announcer,
            running,
            preference: snapshot.preference,
            state: snapshot.state,
            budget_tokens: snapshot.tokens,
            parked_age_s: snapshot.parked_since.map(age),
            failing_age_s: snapshot.failing_since.map(age),
            readiness: readiness.collect(),
            fleet: fleet.collect(),
            grants: snapshot.grants,
            preference_age_s: snapshot.since.map(age),
            reason: snapshot.reason.clone(),
            would_raise: snapshot.would_raise.clone(),
            confirmation: snapshot.confirmation.clone(),
            intent: snapshot.intent.as_ref().map(|i| IntentStatus::new(i, now)),
            drain: snapshot.drain.as_ref().map(|drain| DrainStatus {
                phase: drain.phase,
                phase_age_s: age(drain.since),
                why: drain.why.clone(),
                in_flight: drain.in_flight,
            }),
            turn: snapshot.turn.as_ref().map(TurnStatus::new),
            checks: checks.collect(),
        }
    }
}

/// In seconds, to the millisecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
