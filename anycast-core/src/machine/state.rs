//! The states a service can be in, and the preference of each.

use std::fmt;

use crate::announce::{Level, Preference, Withdrawal, WithdrawalCause};

/// What health, readiness, the fleet and the budget amount to, without an operator's order.
///
/// Each has a [`Level`], a type without a withdrawn value: nothing that only produces a
/// `Standing` can withdraw. [`FailSafe::Demote`](super::FailSafe::Demote) produces nothing
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Preferred when this node started; not every check has spoken yet.
    Adopted,
    /// Healthy and ready.
    Healthy,
    /// Not healthy, but too much of the fleet fails at once to believe it: stays preferred.
    Held,
    /// Healthy and ready, but others of the fleet change first: a raise has to wait for its turn.
    Queued,
    /// Ordered to leave, or not ready any more, but others of the fleet change first: stays preferred
    /// until its turn, for a bounded time.
    Leaving,
    /// Healthy and ready, but a raise has to wait for the update budget.
    Waiting,
    /// Flapped too often; demoted until it has been steady.
    Parked,
    /// An input of readiness says no.
    Unready,
    /// A check has not risen yet.
    Rising,
    /// A check is down.
    Failed,
}

impl Standing {
    /// The level that it deserves.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Adopted | Self::Healthy | Self::Held | Self::Leaving => Level::Preferred,
            Self::Queued
            | Self::Waiting
            | Self::Parked
            | Self::Unready
            | Self::Rising
            | Self::Failed => Level::Demoted,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Healthy => "healthy",
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Leaving => "leaving",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Unready => "unready",
            Self::Rising => "rising",
            Self::Failed => "failed",
        }
    }
}

/// The state of a service on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No operator's order: health decides.
    Auto(Standing),
    /// Not healthy, and enough peers promised to stay ([`FailSafe::Withdraw`] only).
    ///
    /// [`FailSafe::Withdraw`]: super::FailSafe::Withdraw
    Yielded,
    /// Demoted by an operator.
    Drained,
    /// Withdrawn by an operator.
    Withdrawn,
}

impl State {
    /// What is announced in this state.
    #[must_use]
    pub const fn preference(self) -> Preference {
        match self {
            Self::Auto(standing) => match standing.level() {
                Level::Preferred => Preference::Preferred,
                Level::Demoted => Preference::Demoted,
            },
            Self::Yielded => Preference::Withdrawn(Withdrawal::new(WithdrawalCause::Peers)),
            Self::Drained => Preference::Demoted,
            Self::Withdrawn => Preference::Withdrawn(Withdrawal::new(WithdrawalCause::Operator)),
        }
    }

    /// Whether an operator ordered it.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        match self {
            Self::Drained | Self::Withdrawn => true,
            Self::Auto(_) | Self::Yielded => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto(standing) => standing.name(),
            Self::Yielded => "yielded",
            Self::Drained => "drained",
            Self::Withdrawn => "withdrawn",
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
