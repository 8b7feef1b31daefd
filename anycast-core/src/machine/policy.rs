//! What the operator sets: the policy, and intents.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use super::{Budget, FlapPolicy, PanicPolicy, TurnPolicy};
use crate::health::Reason;

/// What to do with the route of a service that is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FailSafe {
    /// Make it inferior; never withdraw it. For iBGP and an IGP, and the default: when the
    /// checks themselves break everywhere, all nodes are equally inferior, which selects
    /// exactly as if all were healthy.
    #[default]
    Demote,
    /// Withdraw it, but only with the consent of peers; else demote. For eBGP, where a
    /// demotion may not reach the neighbour's decision.
    Withdraw(WithdrawPolicy),
}

/// The conditions of an automatic withdrawal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WithdrawPolicy {
    /// How many freshly healthy peers must promise to stay (F5). Default 1.
    pub min_peers: NonZeroU16,
}

impl Default for WithdrawPolicy {
    fn default() -> Self {
        Self {
            min_peers: NonZeroU16::MIN,
        }
    }
}

/// How verdicts become a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Demote or withdraw. Default: demote.
    pub fail_safe: FailSafe,
    /// Consecutive successes before a check counts as up. Default 3.
    pub rise: NonZeroU32,
    /// Consecutive failures before a check counts as down. Default 2: one lost datagram
    /// moves no route.
    pub fall: NonZeroU32,
    /// Time without a failure before a check may rise. Default 5 s; 0 switches it off.
    pub hold_down: Duration,
    /// How many route changes the service may cause.
    pub budget: Budget,
    /// When it counts as flapping.
    pub flap: FlapPolicy,
    /// When too much of the fleet falls at once to be believed.
    pub panic: PanicPolicy,
    /// Whether it joins and leaves in turn. Default: not.
    pub turns: Option<TurnPolicy>,
}

impl Default for Policy {
    fn default() -> Self {
        const DEFAULT_RISE: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
        const DEFAULT_FALL: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
        Self {
            fail_safe: FailSafe::default(),
            rise: DEFAULT_RISE,
            fall: DEFAULT_FALL,
            hold_down: Duration::from_secs(5),
            budget: Budget::default(),
            flap: FlapPolicy::default(),
            panic: PanicPolicy::default(),
            turns: None,
        }
    }
}

/// What the operator wants, regardless of health (F9).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Intent {
    /// Nothing in particular: health decides.
    #[default]
    Auto,
    /// Demoted: a drain, or a stop with `on_stop = "demote"`.
    Demote {
        /// Why, in the operator's words.
        reason: Reason,
        /// Who ordered it, and from where.
        by: Reason,
        /// When it lapses; `None`: when it is lifted.
        until: Option<Instant>,
    },
    /// Withdrawn: by command, or a stop with `on_stop = "withdraw"`. The only way to a
    /// withdrawal under [`FailSafe::Demote`].
    Withdraw {
        /// Why, in the operator's words.
        reason: Reason,
        /// Who ordered it, and from where.
        by: Reason,
        /// When it lapses; `None`: when it is lifted.
        until: Option<Instant>,
    },
}

impl Intent {
    /// When it lapses.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        match self {
            Self::Auto => None,
            Self::Demote { until, .. } | Self::Withdraw { until, .. } => *until,
        }
    }
}
