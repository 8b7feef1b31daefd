//! One node: its engine of turns, its machine, and what is in force, which outlives both.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::super::{Need, Part, TurnState, Turns};
use crate::announce::{InForce, Preference, Role};
use crate::health::Verdict;
use crate::invariants::{self, History, Step};
use crate::machine::{
    Budget, CheckId, FlapPolicy, Identity, Input, Intent, Machine, Move, PanicPolicy, Policy, Turn,
    TurnPolicy,
};
use crate::mesh::wire::{ServiceStatus, Status, WaitsFor};
use crate::service::{CheckName, NodeName, ServiceAddresses, ServiceName};

pub(super) const SECOND: u64 = 1_000_000;
/// How long a boost outlives its controller.
pub(super) const DEAD_MAN: Duration = Duration::from_secs(6);
pub(super) const LEAVE_WITHIN: Duration = Duration::from_secs(45);

/// A node's own idea of time: it starts anywhere, and runs a little fast or slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) base: Instant,
    /// Ticks for a million microseconds.
    pub(super) rate: u64,
}

impl Clock {
    pub(super) fn at(&self, time: u64) -> Instant {
        let own = u128::from(time) * u128::from(self.rate) / u128::from(SECOND);
        self.base + Duration::from_micros(u64::try_from(own).unwrap())
    }

    /// The true time at which it shows this, or the one after.
    pub(super) fn when(&self, at: Instant) -> u64 {
        let own = at.saturating_duration_since(self.base).as_micros();
        let time = own * u128::from(SECOND) / u128::from(self.rate) + 1;
        u64::try_from(time).unwrap()
    }
}

pub(super) struct Process {
    /// `None`: of the version before.
    pub(super) turns: Option<Turns>,
    pub(super) machine: Machine,
    history: History,
    /// What the machine was told last.
    told: Option<TurnState>,
    /// What the engine was told last.
    asked: Option<(Need, bool, Duration)>,
    pub(super) sequence: u64,
    /// What was said of itself last.
    pub(super) said: Option<(bool, bool, crate::mesh::wire::TurnStage)>,
}

pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) clock: Clock,
    pub(super) speaks: bool,
    pub(super) process: Option<Process>,
    pub(super) is_preferred: bool,
    /// What was in force runs out then, if nobody renews it.
    pub(super) runs_out: Option<u64>,
    pub(super) is_well: bool,
    pub(super) incarnation: u64,
    /// The turn that it has: since when, and until when by its clock.
    pub(super) held: Option<(u64, Instant)>,
}

pub(super) fn service() -> ServiceName {
    ServiceName::new("tftp").unwrap()
}

pub(super) fn name(index: usize) -> NodeName {
    NodeName::new(&format!("n{index}")).unwrap()
}

impl Node {
    fn policy(&self, spacing: Duration) -> Policy {
        Policy {
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
            hold_down: Duration::ZERO,
            budget: Budget::OFF,
            flap: FlapPolicy::OFF,
            panic: PanicPolicy {
                percent: 100,
                ..PanicPolicy::default()
            },
            turns: self.speaks.then_some(TurnPolicy {
                spacing,
                leave_within: LEAVE_WITHIN,
            }),
            ..Policy::default()
        }
    }

    pub(super) fn start(&mut self, time: u64, spacing: Duration, peers: &[NodeName]) {
        let now = self.clock.at(time);
        let policy = self.policy(spacing);
        let identity = Identity {
            service: service(),
            addresses: ServiceAddresses::new(vec!["192.0.2.69/32".parse().unwrap()]).unwrap(),
            role: Role::Primary,
        };
        let rules = [CheckName::new("check").unwrap().into()];
        let observed = if self.is_preferred {
            InForce::Preferred
        } else {
            InForce::Demoted
        };
        let machine = Machine::new(identity, policy, &rules, Some(observed), now).unwrap();
        self.incarnation += 1;
        let turns = Turns::new(now, self.name.clone(), peers, self.incarnation << 32);
        self.process = Some(Process {
            turns: self.speaks.then_some(turns),
            machine,
            history: History {
                policy,
                checks: 1,
                adopted: self.is_preferred,
                steps: Vec::new(),
            },
            told: None,
            asked: None,
            sequence: 0,
            said: None,
        });
    }

    pub(super) fn hear(&mut self, time: u64, input: &Input) {
        let now = self.clock.at(time);
        let Some(process) = &mut self.process else {
            return;
        };
        let machine = &mut process.machine;
        let mut note = |at, input, machine: &Machine| {
            process.history.steps.push(Step {
                at,
                input,
                preference: machine.preference(),
            });
        };
        while let Some((due, _)) = machine.poll_timeout()
            && due <= now
        {
            machine.handle_timeout(due);
            note(due, Input::Timeout, machine);
        }
        machine.handle(now, input);
        note(now, input.clone(), machine);
    }

    pub(super) fn probe(&mut self, time: u64) {
        let verdict = if self.is_well {
            Verdict::Healthy
        } else {
            Verdict::unhealthy("no answer")
        };
        self.hear(time, &Input::Verdict(CheckId::new(0), verdict));
    }

    pub(super) fn order(&mut self, time: u64, drain: bool) {
        let intent = if drain {
            Intent::Demote {
                reason: "work".into(),
                by: "alice".into(),
                until: None,
            }
        } else {
            Intent::Auto
        };
        self.hear(time, &Input::Intent(intent));
    }

    /// What the machine is to know of its turn now, if it does not; whether it changes in it.
    pub(super) fn tell(&mut self, time: u64) -> bool {
        let process = self.process.as_ref();
        let turns = process.and_then(|process| process.turns.as_ref());
        let Some((_, state)) = turns.and_then(|turns| turns.states().next()) else {
            return false;
        };
        if self
            .process
            .as_ref()
            .is_some_and(|p| p.told.as_ref() == Some(&state))
        {
            return false;
        }
        let turn = match &state {
            TurnState::CutOff { .. } => Turn::CutOff("cut off".into()),
            TurnState::Has { until } => Turn::Yours { until: *until },
            TurnState::Waits {
                what: WaitsFor::Node { node, .. },
                ..
            } => Turn::Waits(node.as_str().into()),
            TurnState::Waits { .. } => Turn::Waits("others".into()),
        };
        if let Some(process) = &mut self.process {
            process.told = Some(state);
        }
        let before = self.preference();
        // What is due by then comes first.
        self.hear(time, &Input::Timeout);
        let is_turn = matches!(turn, Turn::Yours { .. });
        let waited = before == self.preference();
        self.hear(time, &Input::Turn(turn));
        is_turn && waited && before != self.preference()
    }

    fn preference(&self) -> Option<Preference> {
        Some(self.process.as_ref()?.machine.preference())
    }

    pub(super) fn is_untold(&self) -> bool {
        let Some(process) = &self.process else {
            return false;
        };
        let state = process
            .turns
            .as_ref()
            .and_then(|turns| turns.states().next());
        state.is_some_and(|(_, state)| process.told.as_ref() != Some(&state))
    }

    /// Whether the engine does not know yet what the machine wants, or what is in force.
    pub(super) fn is_unasked(&self, spacing: Duration) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|p| p.asked != Some((self.need(), self.is_preferred, spacing)))
    }

    fn need(&self) -> Need {
        let Some(process) = &self.process else {
            return Need::Nothing;
        };
        let leaves = |change| change == Move::Leave;
        let machine = &process.machine;
        let in_force = (machine.preference() == Preference::Preferred) == self.is_preferred;
        match (machine.wants_turn(), machine.used_turn()) {
            (Some(change), _) => Need::Turn {
                leaves: leaves(change),
            },
            (None, Some(change)) if !in_force => Need::Uses {
                leaves: leaves(change),
            },
            (None, _) => Need::Nothing,
        }
    }

    /// What the engine is to know of the machine.
    pub(super) fn parts(&mut self, time: u64, spacing: Duration) {
        let (now, need, status) = (self.clock.at(time), self.need(), self.service_status());
        let is_preferred = self.is_preferred;
        if let Some(process) = &mut self.process {
            process.asked = Some((need, is_preferred, spacing));
        }
        if let Some(turns) = self.process.as_mut().and_then(|p| p.turns.as_mut()) {
            turns.handle_parts(now, BTreeMap::from([(service(), Part { spacing, need })]));
            turns.handle_own_status(now, &[status]);
        }
    }

    fn service_status(&self) -> ServiceStatus {
        let turns = self.process.as_ref().and_then(|p| p.turns.as_ref());
        ServiceStatus {
            name: service(),
            preferred: self.is_preferred,
            draining: false,
            failing_for: None,
            outlives: self.speaks.then_some(6000),
            turn: turns.map_or_else(Default::default, |turns| turns.stage(&service())),
        }
    }

    pub(super) fn status(&mut self) -> Option<Status> {
        let status = self.service_status();
        let process = self.process.as_mut()?;
        process.sequence += 1;
        let gives_turns = process.turns.as_ref().is_some_and(Turns::gives_turns);
        process.said = Some((gives_turns, status.preferred, status.turn));
        Some(Status {
            sequence: process.sequence,
            services: vec![status],
            gives_turns,
            ..Status::default()
        })
    }

    /// Whether it would say something else of itself than it did.
    pub(super) fn has_news(&self) -> bool {
        let status = self.service_status();
        self.process.as_ref().is_some_and(|process| {
            let gives_turns = process.turns.as_ref().is_some_and(Turns::gives_turns);
            process.said != Some((gives_turns, status.preferred, status.turn))
        })
    }

    /// When it has a turn, its end by its clock.
    pub(super) fn turn(&self) -> Option<Instant> {
        let turns = self.process.as_ref()?.turns.as_ref()?;
        match turns.states().next()?.1 {
            TurnState::Has { until } => Some(until),
            TurnState::CutOff { .. } | TurnState::Waits { .. } => None,
        }
    }

    pub(super) fn judge(&self) -> Result<(), invariants::Violation> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        invariants::f9_order_outranks_health(&process.history)?;
        invariants::f12_changes_in_turn(&process.history)
    }
}
