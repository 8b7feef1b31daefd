//! The lines of a record.

use std::num::{NonZeroU8, NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::announce::{InForce, Role};
use crate::health::{Evidence, Reason, Severity, Verdict};
use crate::machine::{
    Budget, CheckRule, ChecksError, FailSafe, FlapPolicy, Identity, Input, Intent, Machine,
    PanicPolicy, PeerReport, Policy, Readiness, State, Turn, TurnPolicy, WithdrawPolicy,
};
use crate::service::{CheckName, NodeName, ServiceAddresses, ServiceName};

/// One line of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Header(Header),
    Entry(Entry),
    End(End),
    Dropped { dropped: u64 },
}

/// Where a record comes from, and the machine it begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format's version: 1.
    anycast_record: Version,
    /// The node.
    pub node: NodeName,
    /// The service.
    pub service: ServiceName,
    addresses: ServiceAddresses,
    backup: Option<NonZeroU8>,
    policy: PolicyText,
    checks: Vec<RuleText>,
    readiness: Vec<CheckName>,
    members: Vec<NodeName>,
    observed: Option<ObservedText>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version;

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        if version == 1 {
            Ok(Self)
        } else {
            Err(format!("version {version} is not known; this reads 1"))
        }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ObservedText {
    Preferred,
    Demoted,
    Withdrawn,
}

impl Header {
    pub(super) fn of(machine: &Machine, node: &NodeName, observed: Option<InForce>) -> Self {
        let identity = machine.identity();
        Self {
            anycast_record: Version,
            node: node.clone(),
            service: identity.service.clone(),
            addresses: identity.addresses.clone(),
            backup: match identity.role {
                Role::Primary => None,
                Role::Backup(rank) => Some(rank),
            },
            policy: machine.policy().into(),
            checks: machine
                .checks()
                .map(|(name, severity, _)| RuleText {
                    name: name.clone(),
                    severity,
                })
                .collect(),
            readiness: machine.readiness().map(|r| r.name().clone()).collect(),
            members: machine.members().map(|(name, _)| name.clone()).collect(),
            observed: observed.map(|state| match state {
                InForce::Preferred => ObservedText::Preferred,
                InForce::Demoted => ObservedText::Demoted,
                InForce::Withdrawn => ObservedText::Withdrawn,
            }),
        }
    }

    /// A new machine as the recorded one was when the record began.
    pub(super) fn machine(&self, start: Instant) -> Result<Machine, ChecksError> {
        let checks: Vec<_> = self.checks.iter().map(RuleText::rule).collect();
        let identity = Identity {
            service: self.service.clone(),
            addresses: self.addresses.clone(),
            role: self.backup.map_or(Role::Primary, Role::Backup),
        };
        let observed = self.observed.map(|state| match state {
            ObservedText::Preferred => InForce::Preferred,
            ObservedText::Demoted => InForce::Demoted,
            ObservedText::Withdrawn => InForce::Withdrawn,
        });
        let machine = Machine::new(identity, (&self.policy).into(), &checks, observed, start)?;
        Ok(machine
            .with_members(&self.members)
            .with_readiness(&self.readiness))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuleText {
    name: CheckName,
    severity: Severity,
}

impl RuleText {
    fn rule(&self) -> CheckRule {
        CheckRule {
            name: self.name.clone(),
            severity: self.severity,
        }
    }
}

/// Durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyText {
    /// Absent: demote.
    withdraw_with_peers: Option<NonZeroU16>,
    rise: NonZeroU32,
    fall: NonZeroU32,
    hold_down: u64,
    budget_burst: NonZeroU32,
    budget_refill: u64,
    flap_limit: u16,
    flap_window: u64,
    park_for: u64,
    panic_percent: u8,
    panic_within: u64,
    fresh_for: u64,
    /// Both absent: it takes no turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_spacing: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leave_within: Option<u64>,
}

impl From<&Policy> for PolicyText {
    fn from(policy: &Policy) -> Self {
        Self {
            withdraw_with_peers: match policy.fail_safe {
                FailSafe::Demote => None,
                FailSafe::Withdraw(rule) => Some(rule.min_peers),
            },
            rise: policy.rise,
            fall: policy.fall,
            hold_down: nanos(policy.hold_down),
            budget_burst: policy.budget.burst,
            budget_refill: nanos(policy.budget.refill),
            flap_limit: policy.flap.limit,
            flap_window: nanos(policy.flap.window),
            park_for: nanos(policy.flap.park_for),
            panic_percent: policy.panic.percent,
            panic_within: nanos(policy.panic.within),
            fresh_for: nanos(policy.panic.fresh_for),
            turn_spacing: policy.turns.map(|turns| nanos(turns.spacing)),
            leave_within: policy.turns.map(|turns| nanos(turns.leave_within)),
        }
    }
}

impl From<&PolicyText> for Policy {
    fn from(text: &PolicyText) -> Self {
        Self {
            fail_safe: match text.withdraw_with_peers {
                None => FailSafe::Demote,
                Some(min_peers) => FailSafe::Withdraw(WithdrawPolicy { min_peers }),
            },
            rise: text.rise,
            fall: text.fall,
            hold_down: Duration::from_nanos(text.hold_down),
            budget: Budget {
                burst: text.budget_burst,
                refill: Duration::from_nanos(text.budget_refill),
            },
            flap: FlapPolicy {
                limit: text.flap_limit,
                window: Duration::from_nanos(text.flap_window),
                park_for: Duration::from_nanos(text.park_for),
            },
            panic: PanicPolicy {
                percent: text.panic_percent,
                within: Duration::from_nanos(text.panic_within),
                fresh_for: Duration::from_nanos(text.fresh_for),
            },
            turns: text
                .turn_spacing
                .zip(text.leave_within)
                .map(|(spacing, leave_within)| TurnPolicy {
                    spacing: Duration::from_nanos(spacing),
                    leave_within: Duration::from_nanos(leave_within),
                }),
        }
    }
}

/// One input and what was decided after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) at: i64,
    pub(super) input: InputText,
    pub(super) preference: String,
    pub(super) state: String,
}

impl Entry {
    pub(super) fn new(start: Instant, now: Instant, input: InputText, machine: &Machine) -> Self {
        Self {
            at: offset(start, now),
            input,
            preference: machine.preference().to_string(),
            state: machine.state().to_string(),
        }
    }

    pub(super) fn at(&self, start: Instant) -> Result<Instant, &'static str> {
        moment(start, self.at).ok_or("its time is out of range")
    }
}

/// What stood when the record was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    until: i64,
    pub(super) preference: String,
    pub(super) state: String,
}

impl End {
    pub(super) fn new(start: Instant, at: Instant, state: State) -> Self {
        Self {
            until: offset(start, at),
            preference: state.preference().to_string(),
            state: state.to_string(),
        }
    }

    pub(super) fn at(&self, start: Instant) -> Result<Instant, &'static str> {
        moment(start, self.until).ok_or("its time is out of range")
    }
}

/// An input in plain data. Checks are named, not numbered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum InputText {
    Healthy {
        check: CheckName,
    },
    Unhealthy {
        check: CheckName,
        reason: Reason,
        #[serde(default)]
        conclusive: bool,
    },
    Unknown {
        check: CheckName,
        reason: Reason,
    },
    Ready {
        name: CheckName,
    },
    NotReady {
        name: CheckName,
        reason: Reason,
    },
    ReadinessUnknown {
        name: CheckName,
        reason: Reason,
    },
    Undrain {},
    Drain {
        reason: Reason,
        by: Reason,
        until: Option<i64>,
    },
    Withdraw {
        reason: Reason,
        by: Reason,
        until: Option<i64>,
    },
    Peer {
        peer: NodeName,
        heard: i64,
        preferred: bool,
        draining: bool,
        failing: Option<i64>,
    },
    Members {
        members: Vec<NodeName>,
    },
    Grant {
        peer: NodeName,
        until: i64,
    },
    GrantRequest {
        peer: NodeName,
        duration: u64,
    },
    Turn {
        until: i64,
    },
    WaitsForTurn {
        reason: Reason,
    },
    CutOff {
        reason: Reason,
    },
    Checks {
        checks: Vec<RuleText>,
    },
    Policy(Box<PolicyText>),
    Expiry {},
}

impl InputText {
    /// `None` for what is not recorded, and for a check that is not listed.
    pub(super) fn of(machine: &Machine, input: &Input, start: Instant) -> Option<Self> {
        let until = |at: &Option<Instant>| at.map(|at| offset(start, at));
        Some(match input {
            Input::Verdict(check, verdict) => {
                let (name, ..) = machine.checks().nth(check.index())?;
                Self::verdict(name.clone(), verdict)
            }
            Input::Readiness(name, readiness) => match readiness.clone() {
                Readiness::Ready => Self::Ready { name: name.clone() },
                Readiness::NotReady(reason) => Self::NotReady {
                    name: name.clone(),
                    reason,
                },
                Readiness::Unknown(reason) => Self::ReadinessUnknown {
                    name: name.clone(),
                    reason,
                },
            },
            Input::Intent(Intent::Auto) => Self::Undrain {},
            Input::Intent(Intent::Demote {
                reason,
                by,
                until: at,
            }) => Self::Drain {
                reason: reason.clone(),
                by: by.clone(),
                until: until(at),
            },
            Input::Intent(Intent::Withdraw {
                reason,
                by,
                until: at,
            }) => Self::Withdraw {
                reason: reason.clone(),
                by: by.clone(),
                until: until(at),
            },
            Input::Peer(peer, report) => Self::Peer {
                peer: peer.clone(),
                heard: offset(start, report.heard_at),
                preferred: report.preferred,
                draining: report.draining,
                failing: until(&report.failing_since),
            },
            Input::Members(members) => Self::Members {
                members: members.clone(),
            },
            Input::Grant(peer, at) => Self::Grant {
                peer: peer.clone(),
                until: offset(start, *at),
            },
            Input::GrantRequest(peer, duration) => Self::GrantRequest {
                peer: peer.clone(),
                duration: nanos(*duration),
            },
            Input::Turn(Turn::Yours { until }) => Self::Turn {
                until: offset(start, *until),
            },
            Input::Turn(Turn::Waits(reason)) => Self::WaitsForTurn {
                reason: reason.clone(),
            },
            Input::Turn(Turn::CutOff(reason)) => Self::CutOff {
                reason: reason.clone(),
            },
            Input::Checks(rules) => Self::Checks {
                checks: rules
                    .iter()
                    .map(|rule| RuleText {
                        name: rule.name.clone(),
                        severity: rule.severity,
                    })
                    .collect(),
            },
            Input::Policy(policy) => Self::Policy(Box::new(policy.into())),
            Input::Expiry => Self::Expiry {},
            Input::Timeout | Input::Restart => return None,
        })
    }

    fn verdict(check: CheckName, verdict: &Verdict) -> Self {
        match verdict.clone() {
            Verdict::Healthy => Self::Healthy { check },
            Verdict::Unhealthy(reason, evidence) => Self::Unhealthy {
                check,
                reason,
                conclusive: evidence == Evidence::Conclusive,
            },
            Verdict::Unknown(reason) => Self::Unknown { check, reason },
        }
    }

    pub(super) fn to_input(&self, machine: &Machine, start: Instant) -> Result<Input, String> {
        let time = |at: i64| moment(start, at).ok_or_else(|| "a time is out of range".to_owned());
        let until = |at: &Option<i64>| at.map(time).transpose();
        let verdict = |check: &CheckName, verdict| match machine.check_id(check) {
            Some(id) => Ok(Input::Verdict(id, verdict)),
            None => Err(format!("no check is called {check}")),
        };
        Ok(match self.clone() {
            Self::Healthy { check } => verdict(&check, Verdict::Healthy)?,
            Self::Unhealthy {
                check,
                reason,
                conclusive,
            } => {
                let evidence = if conclusive {
                    Evidence::Conclusive
                } else {
                    Evidence::Probe
                };
                verdict(&check, Verdict::Unhealthy(reason, evidence))?
            }
            Self::Unknown { check, reason } => verdict(&check, Verdict::Unknown(reason))?,
            Self::Ready { name } => Input::Readiness(name, Readiness::Ready),
            Self::NotReady { name, reason } => Input::Readiness(name, Readiness::NotReady(reason)),
            Self::ReadinessUnknown { name, reason } => {
                Input::Readiness(name, Readiness::Unknown(reason))
            }
            Self::Undrain {} => Input::Intent(Intent::Auto),
            Self::Drain {
                reason,
                by,
                until: at,
            } => Input::Intent(Intent::Demote {
                reason,
                by,
                until: until(&at)?,
            }),
            Self::Withdraw {
                reason,
                by,
                until: at,
            } => Input::Intent(Intent::Withdraw {
                reason,
                by,
                until: until(&at)?,
            }),
            Self::Peer {
                peer,
                heard,
                preferred,
                draining,
                failing,
            } => {
                let report = PeerReport {
                    heard_at: time(heard)?,
                    preferred,
                    draining,
                    failing_since: until(&failing)?,
                };
                Input::Peer(peer, report)
            }
            Self::Members { members } => Input::Members(members),
            Self::Grant { peer, until } => Input::Grant(peer, time(until)?),
            Self::GrantRequest { peer, duration } => {
                Input::GrantRequest(peer, Duration::from_nanos(duration))
            }
            Self::Turn { until } => {
                let until = time(until)?;
                Input::Turn(Turn::Yours { until })
            }
            Self::WaitsForTurn { reason } => Input::Turn(Turn::Waits(reason)),
            Self::CutOff { reason } => Input::Turn(Turn::CutOff(reason)),
            Self::Checks { checks } => Input::Checks(checks.iter().map(RuleText::rule).collect()),
            Self::Policy(policy) => Input::Policy((&*policy).into()),
            Self::Expiry {} => Input::Expiry,
        })
    }

    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Healthy { check } => format!("{check}: healthy"),
            Self::Unhealthy {
                check,
                reason,
                conclusive: false,
            } => {
                format!("{check}: unhealthy: {reason}")
            }
            Self::Unhealthy {
                check,
                reason,
                conclusive: true,
            } => format!("{check}: gone: {reason}"),
            Self::Unknown { check, reason } => format!("{check}: unknown: {reason}"),
            Self::Ready { name } => format!("{name}: ready"),
            Self::NotReady { name, reason } => format!("{name}: not ready: {reason}"),
            Self::ReadinessUnknown { name, reason } => format!("{name}: unknown: {reason}"),
            Self::Undrain {} => "undrain".to_owned(),
            Self::Drain { reason, by, .. } => format!("drain by {by}: {reason}"),
            Self::Withdraw { reason, by, .. } => format!("withdraw by {by}: {reason}"),
            Self::Peer {
                peer,
                preferred,
                failing,
                ..
            } => {
                let level = if *preferred {
                    "preferred"
                } else {
                    "not preferred"
                };
                let health = if failing.is_some() {
                    "failing"
                } else {
                    "healthy"
                };
                format!("{peer} is {level}, {health}")
            }
            Self::Members { members } => format!("the fleet has {} other members", members.len()),
            Self::Grant { peer, .. } => format!("{peer} grants"),
            Self::GrantRequest { peer, .. } => format!("{peer} asks for a grant"),
            Self::Turn { .. } => "its turn".to_owned(),
            Self::WaitsForTurn { reason } => format!("waits for its turn: {reason}"),
            Self::CutOff { reason } => format!("cut off: {reason}"),
            Self::Checks { checks } => format!("reload: {} checks", checks.len()),
            Self::Policy(_) => "reload: policy".to_owned(),
            Self::Expiry {} => "the boost ran out".to_owned(),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn offset(start: Instant, at: Instant) -> i64 {
    let forward = at.saturating_duration_since(start).as_nanos();
    let back = start.saturating_duration_since(at).as_nanos();
    let clamp = |n: u128| i64::try_from(n).unwrap_or(i64::MAX);
    clamp(forward) - clamp(back)
}

fn moment(start: Instant, at: i64) -> Option<Instant> {
    let duration = Duration::from_nanos(at.unsigned_abs());
    if at < 0 {
        start.checked_sub(duration)
    } else {
        start.checked_add(duration)
    }
}
