//! The property of an equal-cost set: who joins and leaves does so in turn.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{History, Orders, Reckoning, Step, Violation, broken};
use crate::announce::Preference;
use crate::machine::{FlapPolicy, Input, Readiness, Turn, TurnPolicy};
use crate::service::{CheckName, NodeName};

/// F12 on one machine: with a [`TurnPolicy`] it becomes preferred only with a turn, each turn at
/// most once. It stops being preferred without one only where a check is not up, where the kernel
/// did it, where it has flapped, where the node is cut off, or where an order or want of readiness
/// has waited for `leave_within`. The history must have a step at every moment at which the machine asked for one,
/// and no other policy, checks or members than it began with.
///
/// # Errors
/// The first step that changed out of turn.
pub fn f12_changes_in_turn(history: &History) -> Result<(), Violation> {
    let Some(policy) = history.policy.turns else {
        return Ok(());
    };
    let mut checks = vec![Reckoning::new(history.adopted); history.checks];
    let mut turns = Turns::default();
    let mut leaving = Leaving::default();
    let mut falls = Falls::default();
    let mut was_preferred = history.adopted;
    for (index, step) in history.steps.iter().enumerate() {
        if let Input::Verdict(check, verdict) = &step.input
            && let Some(check) = checks.get_mut(check.index())
        {
            check.hear(step.at, verdict, &history.policy);
        }
        let is_kernels = matches!(step.input, Input::Expiry | Input::Restart);
        if is_kernels {
            checks.iter_mut().for_each(Reckoning::start_anew);
        }
        let mut all_up = true;
        for check in &mut checks {
            all_up &= check.is_up(step.at, &history.policy);
        }
        let has_turn = turns.hear(step.at, &step.input);
        let is_late = leaving.hear(step, &policy);
        let has_flapped = falls.hear(all_up && leaving.unready.is_empty(), &history.policy.flap);
        let preferred = step.preference == Preference::Preferred;
        let raised = !was_preferred && preferred;
        let lowered = was_preferred && !preferred;
        if raised && !has_turn && !matches!(step.input, Input::Restart) {
            return broken("F12", index, step, "joined out of turn");
        }
        let is_free = is_kernels || turns.is_cut_off || !all_up || has_flapped;
        let may_leave = has_turn || is_late || is_free;
        if lowered && !may_leave {
            return broken("F12", index, step, "left out of turn");
        }
        was_preferred = preferred;
    }
    Ok(())
}

/// What the fleet said.
#[derive(Debug)]
struct Turns {
    is_cut_off: bool,
    last: Option<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            is_cut_off: true,
            last: None,
        }
    }
}

impl Turns {
    /// Whether this step brings a turn that was not there before.
    fn hear(&mut self, at: Instant, input: &Input) -> bool {
        let Input::Turn(turn) = input else {
            return false;
        };
        match turn {
            Turn::Yours { until } => *until > at && self.last.replace(*until) != Some(*until),
            Turn::Waits(_) => {
                self.is_cut_off = false;
                false
            }
            Turn::CutOff(_) => {
                self.is_cut_off = true;
                false
            }
        }
    }
}

/// How often the service has fallen. When that was has no part in it: F12 is not about flapping.
#[derive(Debug, Default)]
struct Falls {
    is_down: bool,
    count: u16,
}

impl Falls {
    /// Whether it may be parked.
    fn hear(&mut self, is_well: bool, policy: &FlapPolicy) -> bool {
        let falls = u16::from(!is_well && !self.is_down);
        self.count = self.count.saturating_add(falls);
        self.is_down = !is_well;
        policy.limit > 0 && self.count >= policy.limit.min(FlapPolicy::MAX_LIMIT)
    }
}

/// What there is to leave for, reckoned from the steps.
#[derive(Debug, Default)]
struct Leaving {
    orders: Orders,
    /// The inputs of readiness that say no.
    unready: BTreeSet<CheckName>,
    /// Since when there has been one or the other without a break.
    since: Option<Instant>,
}

impl Leaving {
    /// Whether that is as long ago as may be waited.
    fn hear(&mut self, step: &Step, policy: &TurnPolicy) -> bool {
        let is_ordered = self.orders.hear(step).is_some();
        if let Input::Readiness(name, readiness) = &step.input {
            match readiness {
                Readiness::Ready => {
                    self.unready.remove(name);
                }
                Readiness::NotReady(_) => {
                    self.unready.insert(name.clone());
                }
                Readiness::Unknown(_) => {}
            }
        }
        if !is_ordered && self.unready.is_empty() {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(step.at);
        step.at.saturating_duration_since(since) >= policy.leave_within
    }
}

/// A turn that a node had, in a time that all share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// The node.
    pub node: NodeName,
    /// Since when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

/// F12 in a fleet: of one service one node at a time has a turn, and each begins so long after the
/// one before has ended.
///
/// # Errors
/// The first that came too early.
pub fn f12_one_at_a_time(turns: &[Turned], spacing: Duration) -> Result<(), Violation> {
    let mut turns: Vec<_> = turns.iter().collect();
    turns.sort_by_key(|turn| turn.from);
    let mut before: Option<&Turned> = None;
    for turn in turns {
        if let Some(before) = before
            && turn.from < before.until + spacing
        {
            let what = format!(
                "{} has its turn at {:?}; {} had one until {:?}, and {spacing:?} have to be between",
                turn.node, turn.from, before.node, before.until
            );
            return Err(Violation { rule: "F12", what });
        }
        before = before.filter(|b| b.until >= turn.until).or(Some(turn));
    }
    Ok(())
}

/// Whether this order may still wait for its turn (F9): a node that was preferred when it was given
/// stays so for `leave_within` at most.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
    obeyed: bool,
}

impl Patience {
    /// After each step; `ordered` as the orders say.
    pub(super) fn allows(
        &mut self,
        step: &Step,
        ordered: bool,
        was_preferred: bool,
        policy: Option<TurnPolicy>,
    ) -> bool {
        if !ordered {
            *self = Self::default();
            return true;
        }
        let preferred = step.preference == Preference::Preferred;
        if !preferred {
            self.obeyed = true;
        }
        let began = self.since.is_none();
        let since = *self.since.get_or_insert(step.at);
        if began && !was_preferred {
            self.obeyed = true;
        }
        let within = policy.map_or(Duration::ZERO, |policy| policy.leave_within);
        let waits = step.at.saturating_duration_since(since) < within;
        preferred && !self.obeyed && waits && policy.is_some()
    }
}
