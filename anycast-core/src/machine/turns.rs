//! Turns: a node of an equal-cost set joins and leaves it when the fleet lets it.
//!
//! Whose turn it is the fleet decides (the mesh, where there is one); here is what waits for it.
//! Without a [`TurnPolicy`] nothing does.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Intent, Machine, Standing, State};
use crate::announce::Preference;
use crate::health::Reason;

/// When a service takes part in turns. What joins, from demoted to preferred, waits for its turn
/// for as long as it takes. What leaves in order, by an operator or since its data are not ready,
/// waits for [`leave_within`](Self::leave_within) at most, and not at all where this node is cut off
/// from most of its fleet. What fails or flaps is demoted at once. What is adopted as preferred needs no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnPolicy {
    /// For how long nothing may have changed in the fleet before a turn. Default 10 s, at most an
    /// hour. (The machine has no use for it: whoever gives the turns has.)
    pub spacing: Duration,
    /// Longest wait of what leaves. Default 60 s; 0: it does not wait.
    pub leave_within: Duration,
}

impl Default for TurnPolicy {
    fn default() -> Self {
        Self {
            spacing: Duration::from_secs(10),
            leave_within: Duration::from_secs(60),
        }
    }
}

/// What the fleet says of this node's turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Turn {
    /// It is this node's, until then. It is used at once, or not at all: one that comes when nothing
    /// waits for it is gone.
    Yours {
        /// Its end. One turn has one end: the same twice is the same turn.
        until: Instant,
    },
    /// It is not this node's, for this reason.
    Waits(Reason),
    /// This node is cut off from most of its fleet, as the reason says. So it is before it hears
    /// anything.
    CutOff(Reason),
}

/// A change that needs a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum Move {
    /// To preferred.
    Join,
    /// From preferred, by an order or for want of readiness.
    Leave,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Join => "join",
            Self::Leave => "leave",
        })
    }
}

/// The turns of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Turns {
    /// Never [`Turn::Yours`].
    news: Turn,
    /// A turn that can be used now, and will be gone in a moment.
    until: Option<Instant>,
    /// The end of the last one.
    last: Option<Instant>,
    /// The last change was made in a turn.
    used: Option<Move>,
    /// Since when it wants to leave.
    leaving_since: Option<Instant>,
    /// Why it left without its turn.
    unturned: Option<Reason>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            news: Turn::CutOff("nothing is heard of the fleet yet".into()),
            until: None,
            last: None,
            used: None,
            leaving_since: None,
            unturned: None,
        }
    }

    const fn because(&self) -> Option<&Reason> {
        match &self.news {
            Turn::Waits(reason) | Turn::CutOff(reason) => Some(reason),
            Turn::Yours { .. } => None,
        }
    }

    fn wait(&self) -> &str {
        self.because().map_or("", Reason::as_str)
    }

    /// The same, told in other times, for a model check.
    #[cfg(test)]
    pub(super) fn retime(&mut self, to: &dyn Fn(Instant) -> Instant) {
        // A turn that is over by more than any time in the model is over.
        self.last = None;
        self.leaving_since = self.leaving_since.map(to);
        self.used = None;
        self.unturned = None;
    }
}

impl Machine {
    /// The fleet says whose turn it is. Has an effect only with a [`TurnPolicy`].
    pub fn handle_turn(&mut self, now: Instant, turn: Turn) {
        let now = self.advance(now);
        match turn {
            Turn::Yours { until } if until > now && self.turns.last != Some(until) => {
                self.turns.last = Some(until);
                self.turns.until = Some(until);
            }
            Turn::Yours { .. } => {}
            news @ (Turn::Waits(_) | Turn::CutOff(_)) => self.turns.news = news,
        }
        self.settle(now);
        self.turns.until = None;
    }

    /// The turn that this machine waits for.
    #[must_use]
    pub const fn wants_turn(&self) -> Option<Move> {
        match self.state {
            State::Auto(Standing::Queued) => Some(Move::Join),
            State::Auto(Standing::Leaving) => Some(Move::Leave),
            State::Auto(_) | State::Yielded | State::Drained | State::Withdrawn => None,
        }
    }

    /// The change that this machine has made in the last turn that it had, if it stands; the turn
    /// is needed until the change is in force.
    #[must_use]
    pub const fn used_turn(&self) -> Option<Move> {
        self.turns.used
    }

    /// What the fleet said last of this node's turn: that it has to wait, or is cut off.
    #[must_use]
    pub const fn turn(&self) -> &Turn {
        &self.turns.news
    }

    /// Which turn a change to this state needs.
    fn move_to(&self, wanted: State) -> Option<Move> {
        self.policy.turns?;
        let preferred = |state: State| state.preference() == Preference::Preferred;
        match (preferred(self.state), preferred(wanted)) {
            (false, true) => Some(Move::Join),
            (true, false) if self.leaves_in_order() => Some(Move::Leave),
            (true, _) | (false, false) => None,
        }
    }

    /// Whether nothing but an order, or data that are not ready, keeps it from being preferred.
    fn leaves_in_order(&self) -> bool {
        let is_unready = self.readiness.iter().any(|state| !state.is_ready());
        !self.has_failed_check() && (self.intent != Intent::Auto || is_unready)
    }

    /// What becomes of a change to `wanted`: `Some`: it has to wait, in this standing. Notes what
    /// waits and what is used.
    pub(super) fn wait_for_turn(
        &mut self,
        now: Instant,
        wanted: State,
        may_raise: bool,
    ) -> Option<Standing> {
        let change = self.move_to(wanted);
        if wanted.preference() == Preference::Preferred || !self.leaves_in_order() {
            self.turns.unturned = None;
        }
        if change != Some(Move::Leave) {
            self.turns.leaving_since = None;
        }
        let (change, policy) = (change?, self.policy.turns?);
        let has_turn = self.turns.until.is_some();
        match change {
            // The budget comes first: a turn is for what can be done.
            Move::Join if !may_raise => return None,
            Move::Join if !has_turn => return Some(Standing::Queued),
            Move::Join => {}
            Move::Leave => {
                let since = *self.turns.leaving_since.get_or_insert(now);
                let is_late = now.saturating_duration_since(since) >= policy.leave_within;
                self.turns.unturned = match &self.turns.news {
                    _ if has_turn || policy.leave_within.is_zero() => None,
                    Turn::CutOff(reason) => Some(format!("not in turn: {reason}").into()),
                    _ if is_late => {
                        let within = policy.leave_within;
                        Some(format!("not in turn: none came within {within:?}").into())
                    }
                    Turn::Waits(_) | Turn::Yours { .. } => return Some(Standing::Leaving),
                };
                self.turns.leaving_since = None;
            }
        }
        self.turns.used = has_turn.then_some(change);
        None
    }

    /// A change that nothing waits for, or that needed no turn.
    pub(super) fn forget_turn(&mut self) {
        self.turns.used = None;
        self.turns.leaving_since = None;
    }

    pub(super) fn reason_to_be_raised(&self) -> Reason {
        format!("its turn; {}", self.turns.wait()).into()
    }

    pub(super) fn reason_to_wait(&self, standing: Standing, reason: &Reason) -> Reason {
        let wait = self.turns.wait();
        if standing == Standing::Queued {
            return format!("healthy; waits for its turn: {wait}").into();
        }
        format!("{reason}; stays preferred until its turn: {wait}").into()
    }

    /// Says of what has left without its turn that it did.
    pub(super) fn with_turn_missed(&self, reason: Reason) -> Reason {
        match &self.turns.unturned {
            Some(missed) => format!("{reason}; {missed}").into(),
            None => reason,
        }
    }

    /// When what leaves waits no longer.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        let since = self.turns.leaving_since?;
        since.checked_add(self.policy.turns?.leave_within)
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;
