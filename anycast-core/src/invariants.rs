//! The safety properties, one function each.
//!
//! Property tests, simulations and labs share these functions, so that a rule has one
//! meaning. Each judges a [`History`]: what went into a machine, and what it decided after
//! each input. They are written against the *rule*, not against the machine: none of them
//! calls it.
//!
//! | # | property | function |
//! |---|---|---|
//! | F1 | under demote, no withdrawal unless an operator ordered it | [`f1_never_withdraws_unordered`] |
//! | F2 | `Unknown` never changes the level | [`f2_unknown_is_neutral`] |
//! | F3 | down only after `fall` failures or a conclusive one; up only after `rise` successes and the hold-down | [`f3_hysteresis`] |
//! | F4 | automatic route changes keep to the budget | [`f4_budget`] |
//! | F5 | withdrawn by itself only with the grants of enough peers, and never all at once | [`f5_withdraws_with_consent`] |
//! | F6 | all nodes at one level choose the same best path as all healthy | [`f6_same_best_path`] |
//! | F7 | the permanent copy is there while any route is announced | [`f7_permanent_copy`] |
//! | F8 | a dead controller's node is demoted within the dead-man time, never withdrawn | [`f8_dead_man`] |
//! | F9 | an operator's order outranks health and survives restarts | [`f9_order_outranks_health`] |
//! | F10 | an absent or empty list never means "remove all" | [`f10_empty_list_removes_nothing`] |
//! | F11 | services are independent; inputs are idempotent; time is monotonic only | [`f11_same_levels`] |
//! | F12 | in an equal-cost set who joins and who leaves in order does so in turn, one at a time | [`f12_changes_in_turn`], [`f12_one_at_a_time`] |

mod fleet;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use crate::announce::{Preference, WithdrawalCause};
use crate::health::{Evidence, Verdict};
use crate::machine::{FailSafe, Intent, Policy};

pub use self::fleet::{
    Announced, Consent, Site, Watched, f5_withdraws_with_consent, f6_same_best_path,
    f7_permanent_copy, f8_dead_man,
};
use self::turns::Patience;
pub use self::turns::{Turned, f12_changes_in_turn, f12_one_at_a_time};
pub use crate::machine::Input;

/// A rule was broken: which, and where in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `"F1"` to `"F12"`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.rule, self.what)
    }
}

impl std::error::Error for Violation {}

/// One step: an input and the preference decided after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Instant,
    /// What came in.
    pub input: Input,
    /// What was decided.
    pub preference: Preference,
}

/// What went into one machine and came out of it, in order of time.
#[derive(Debug, Clone)]
pub struct History {
    /// The policy in force throughout.
    pub policy: Policy,
    /// How many checks the service has, all of them critical.
    pub checks: usize,
    /// Whether the machine started from an adopted preference.
    pub adopted: bool,
    /// The steps.
    pub steps: Vec<Step>,
}

/// F1: under [`FailSafe::Demote`] the preference is withdrawn only while an operator's
/// withdrawal stands.
///
/// # Errors
/// The first step that withdrew without one.
pub fn f1_never_withdraws_unordered(history: &History) -> Result<(), Violation> {
    if history.policy.fail_safe != FailSafe::Demote {
        return Ok(());
    }
    let mut orders = Orders::default();
    for (index, step) in history.steps.iter().enumerate() {
        let ordered = orders.hear(step);
        if let Preference::Withdrawn(withdrawal) = step.preference {
            if ordered != Some(Order::Withdraw) {
                return broken("F1", index, step, "withdrawn without an operator's order");
            }
            if withdrawal.cause() != WithdrawalCause::Operator {
                return broken("F1", index, step, "withdrawn in the name of peers");
            }
        }
    }
    Ok(())
}

/// What an operator has ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Demote,
    Withdraw,
}

/// The order in force, reckoned from the steps. It survives a restart (F9).
#[derive(Debug, Default)]
struct Orders(Option<(Order, Option<Instant>)>);

impl Orders {
    /// The order in force after this step.
    fn hear(&mut self, step: &Step) -> Option<Order> {
        match &step.input {
            Input::Intent(Intent::Withdraw { until, .. }) => {
                self.0 = Some((Order::Withdraw, *until));
            }
            Input::Intent(Intent::Demote { until, .. }) => self.0 = Some((Order::Demote, *until)),
            Input::Intent(Intent::Auto) => self.0 = None,
            Input::Verdict(..)
            | Input::Readiness(..)
            | Input::Peer(..)
            | Input::Members(_)
            | Input::Grant(..)
            | Input::GrantRequest(..)
            | Input::Turn(_)
            | Input::Checks(_)
            | Input::Policy(_)
            | Input::Timeout
            | Input::Expiry
            | Input::Restart => {}
        }
        let lapsed = |(_, until): &(Order, Option<Instant>)| until.is_some_and(|at| at <= step.at);
        if self.0.as_ref().is_some_and(lapsed) {
            self.0 = None;
        }
        self.0.map(|(order, _)| order)
    }
}

/// F9: while an operator's order stands, exactly what was ordered is decided, whatever the
/// checks say and however often the node restarts. Where nodes take turns, a node that is preferred
/// when it is ordered to leave may stay so until its turn, for `leave_within` at most; once it has
/// obeyed it obeys.
///
/// # Errors
/// The first step at which something else was decided.
pub fn f9_order_outranks_health(history: &History) -> Result<(), Violation> {
    let mut orders = Orders::default();
    let mut patience = Patience::default();
    let mut was_preferred = history.adopted;
    for (index, step) in history.steps.iter().enumerate() {
        let ordered = orders.hear(step);
        let obeyed = match ordered {
            None => true,
            Some(Order::Demote) => step.preference == Preference::Demoted,
            Some(Order::Withdraw) => step.preference.is_withdrawn(),
        };
        let (policy, is_ordered) = (history.policy.turns, ordered.is_some());
        let waits = patience.allows(step, is_ordered, was_preferred, policy);
        was_preferred = step.preference == Preference::Preferred;
        if !obeyed && !waits {
            return broken("F9", index, step, "an operator ordered otherwise");
        }
    }
    Ok(())
}

/// F4: in any span of time no more automatic changes than the burst and what was refilled in
/// it. What an operator orders or lifts, what the kernel does by itself and a restart are not
/// counted. The history must have a step at every moment at which the machine asked for one.
///
/// # Errors
/// The last step of the first span with too many changes.
pub fn f4_budget(history: &History) -> Result<(), Violation> {
    let budget = &history.policy.budget;
    if budget.refill.is_zero() {
        return Ok(());
    }
    let burst = u128::from(budget.burst.max(crate::machine::Budget::MIN_BURST).get());
    let mut orders = Orders::default();
    let (mut ordered, mut before) = (None, None);
    let mut changes: Vec<Instant> = Vec::new();
    for (index, step) in history.steps.iter().enumerate() {
        let was_ordered = std::mem::replace(&mut ordered, orders.hear(step));
        let was = before.replace(rank(step.preference));
        let foreign = matches!(
            step.input,
            Input::Intent(_) | Input::Expiry | Input::Restart | Input::Policy(_)
        );
        if matches!(step.input, Input::Restart) {
            changes.clear(); // a new process begins with a full bucket
        }
        let changed = was.is_some_and(|was| was != rank(step.preference));
        if !changed || foreign || ordered.is_some() || was_ordered != ordered {
            continue;
        }
        changes.push(step.at);
        for (n, first) in changes.iter().enumerate() {
            let count = (changes.len() - n) as u128;
            let span = step.at.saturating_duration_since(*first).as_nanos();
            if count > burst + span / budget.refill.as_nanos() {
                let what = format!("{count} changes in {} ns", span);
                return broken("F4", index, step, &what);
            }
        }
    }
    Ok(())
}

/// Two withdrawals are one route, whoever allowed them.
const fn rank(preference: Preference) -> u8 {
    match preference {
        Preference::Withdrawn(_) => 0,
        Preference::Demoted => 1,
        Preference::Preferred => 2,
    }
}

/// F2: a history and the same history without its `Unknown` verdicts reach the same levels at
/// the same times.
///
/// # Errors
/// The first remaining step at which they differ.
pub fn f2_unknown_is_neutral(with: &History, without: &History) -> Result<(), Violation> {
    let kept: Vec<_> = with
        .steps
        .iter()
        .filter(|step| !matches!(step.input, Input::Verdict(_, Verdict::Unknown(_))))
        .collect();
    if kept.len() != without.steps.len() {
        return Err(Violation {
            rule: "F2",
            what: "the histories differ in more than Unknown verdicts".to_owned(),
        });
    }
    for (index, (a, b)) in kept.iter().zip(&without.steps).enumerate() {
        if a.preference != b.preference {
            let what = format!("{} with Unknowns, {} without", a.preference, b.preference);
            return broken("F2", index, b, &what);
        }
    }
    Ok(())
}

/// F3: a machine without an operator's intent is preferred only while each check is up, where
/// up and down are reckoned here from the verdicts alone, and is lowered only when one is not;
/// except that a node whose fleet panics may hold. Where nothing else has a say (no budget, no
/// flap parking, no inputs of readiness, no fleet, nothing withdrawn) it is preferred exactly
/// while each check is up. Except there, the history must have a step at every moment at which
/// the machine asked for one.
///
/// # Errors
/// The first step whose level differs from the reckoning.
pub fn f3_hysteresis(history: &History) -> Result<(), Violation> {
    let mut reckonings = vec![Reckoning::new(history.adopted); history.checks];
    let mut orders = Orders::default();
    let exact = history.is_plain();
    let holds = history.has(|input| matches!(input, Input::Peer(..)));
    let unready = history.has(|input| matches!(input, Input::Readiness(..)));
    let mut was_preferred = history.adopted;
    for (index, step) in history.steps.iter().enumerate() {
        match &step.input {
            Input::Verdict(check, verdict) => {
                if let Some(reckoning) = reckonings.get_mut(check.index()) {
                    reckoning.hear(step.at, verdict, &history.policy);
                }
            }
            Input::Expiry => reckonings.iter_mut().for_each(Reckoning::start_anew),
            Input::Restart | Input::Checks(_) | Input::Policy(_) => {
                return broken("F3", index, step, "this input begins another history");
            }
            Input::Readiness(..)
            | Input::Intent(_)
            | Input::Peer(..)
            | Input::Members(_)
            | Input::Grant(..)
            | Input::GrantRequest(..)
            | Input::Turn(_)
            | Input::Timeout => {}
        }
        let ordered = orders.hear(step).is_some();
        let mut all_up = true;
        for reckoning in &mut reckonings {
            all_up &= reckoning.is_up(step.at, &history.policy);
        }
        let preferred = step.preference == Preference::Preferred;
        let lowered = was_preferred && !preferred;
        let raised = !std::mem::replace(&mut was_preferred, preferred) && preferred;
        if ordered {
            continue;
        }
        if preferred && !all_up && (raised || !holds) {
            return broken("F3", index, step, "preferred, but a check is not up");
        }
        if !preferred && all_up && (exact || (lowered && !unready)) {
            return broken("F3", index, step, "not preferred, but every check is up");
        }
    }
    Ok(())
}

impl History {
    fn has(&self, which: impl Fn(&Input) -> bool) -> bool {
        self.steps.iter().any(|step| which(&step.input))
    }

    /// Whether checks and operators alone have a say.
    fn is_plain(&self) -> bool {
        let foreign = |input: &Input| matches!(input, Input::Peer(..) | Input::Readiness(..));
        self.policy.budget.refill.is_zero()
            && self.policy.flap.limit == 0
            && self.policy.fail_safe == FailSafe::Demote
            && self.policy.turns.is_none()
            && !self.has(foreign)
    }
}

/// What the verdicts of one check amount to, reckoned from the whole list each time: slow,
/// and too simple to be wrong in the way the machine could be.
#[derive(Debug, Clone)]
struct Reckoning {
    up: bool,
    /// Every verdict heard, `Unknown` left out: whether it was a success.
    heard: Vec<(Instant, bool)>,
    last_failure: Option<Instant>,
}

impl Reckoning {
    const fn new(up: bool) -> Self {
        Self {
            up,
            heard: Vec::new(),
            last_failure: None,
        }
    }

    fn start_anew(&mut self) {
        self.up = false;
        self.heard.clear();
    }

    fn hear(&mut self, at: Instant, verdict: &Verdict, policy: &Policy) {
        self.is_up(at, policy);
        match verdict {
            Verdict::Unknown(_) => {}
            Verdict::Healthy => self.heard.push((at, true)),
            Verdict::Unhealthy(_, evidence) => {
                self.heard.push((at, false));
                self.last_failure = Some(at);
                let in_a_row = self.heard.iter().rev().take_while(|(_, ok)| !ok).count();
                let enough = in_a_row >= policy.fall.get() as usize;
                if enough || *evidence == Evidence::Conclusive {
                    self.up = false;
                }
            }
        }
    }

    fn is_up(&mut self, now: Instant, policy: &Policy) -> bool {
        let in_a_row = self.heard.iter().rev().take_while(|(_, ok)| *ok).count();
        let held = self.last_failure.is_none_or(|at| {
            at.checked_add(policy.hold_down)
                .is_some_and(|end| now >= end)
        });
        if in_a_row >= policy.rise.get() as usize && held {
            self.up = true;
        }
        self.up
    }
}

/// F10: `listed` is what was asked to stay (absent or empty when a file, a dump or a peer's
/// answer was missing); `removed` is what was taken away in consequence. Nothing may be.
///
/// # Errors
/// When an absent or empty list removed something.
pub fn f10_empty_list_removes_nothing<T, R: fmt::Debug>(
    listed: Option<&[T]>,
    removed: &[R],
) -> Result<(), Violation> {
    if listed.is_none_or(<[T]>::is_empty) && !removed.is_empty() {
        return Err(Violation {
            rule: "F10",
            what: format!("an absent or empty list removed {removed:?}"),
        });
    }
    Ok(())
}

/// F11: the same service saw the same levels, whatever was done to others, however often an
/// input was repeated, and wherever the wall clock stood. Compares the level after the last
/// step of each moment.
///
/// # Errors
/// The first moment at which the two histories differ.
pub fn f11_same_levels(one: &History, other: &History) -> Result<(), Violation> {
    let last_of_each_moment = |history: &History| -> BTreeMap<Instant, Preference> {
        let steps = history.steps.iter();
        steps.map(|step| (step.at, step.preference)).collect()
    };
    let (one, other) = (last_of_each_moment(one), last_of_each_moment(other));
    if one.len() != other.len() {
        return Err(Violation {
            rule: "F11",
            what: format!("{} moments against {}", one.len(), other.len()),
        });
    }
    for ((at, a), (other_at, b)) in one.iter().zip(&other) {
        if at != other_at || a != b {
            return Err(Violation {
                rule: "F11",
                what: format!("{a} at {at:?} against {b} at {other_at:?}"),
            });
        }
    }
    Ok(())
}

fn broken(rule: &'static str, index: usize, step: &Step, what: &str) -> Result<(), Violation> {
    Err(Violation {
        rule,
        what: format!("step {index} ({:?} at {:?}): {what}", step.input, step.at),
    })
}
