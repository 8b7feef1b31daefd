//! Announcing: preference levels, decisions, and the trait of everything that announces.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::health::Reason;
use crate::service::{ServiceAddress, ServiceAddresses, ServiceName};

/// The two levels that health alone may choose between.
///
/// There is no "withdrawn" here: code that can only produce a `Level` cannot withdraw.
/// That is how [`FailSafe::Demote`](crate::machine::FailSafe::Demote) keeps F1 in the types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum Level {
    /// Announced, but inferior to every preferred node: clients come only when no preferred
    /// node is left, and are served.
    Demoted,
    /// Announced at full preference.
    Preferred,
}

/// What is to be announced.
///
/// The levels are few and shared by the whole fleet, so that nodes at the same level choose
/// the same best path as if all were healthy (F6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preference {
    /// Full preference.
    Preferred,
    /// Inferior, still announced.
    Demoted,
    /// Not announced. Only the machine can build one, from an operator's order or from the
    /// consent of peers under [`FailSafe::Withdraw`](crate::machine::FailSafe::Withdraw).
    Withdrawn(Withdrawal),
}

impl Preference {
    /// Whether the route is gone.
    #[must_use]
    pub const fn is_withdrawn(self) -> bool {
        matches!(self, Self::Withdrawn(_))
    }
}

impl From<Level> for Preference {
    fn from(level: Level) -> Self {
        match level {
            Level::Preferred => Self::Preferred,
            Level::Demoted => Self::Demoted,
        }
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preferred => "preferred",
            Self::Demoted => "demoted",
            Self::Withdrawn(_) => "withdrawn",
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Preference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The right to withdraw, held by a [`Preference::Withdrawn`]. It has no public constructor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Withdrawal {
    cause: WithdrawalCause,
}

impl Withdrawal {
    pub(crate) const fn new(cause: WithdrawalCause) -> Self {
        Self { cause }
    }

    /// Who allowed it.
    #[must_use]
    pub const fn cause(self) -> WithdrawalCause {
        self.cause
    }
}

/// Who allowed a withdrawal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WithdrawalCause {
    /// An operator, by command or by `on_stop = "withdraw"`.
    Operator,
    /// Enough freshly healthy peers, each promising to stay (F5).
    Peers,
}

/// The part a node plays among the nodes of one service. A role outranks only within a
/// level: a demoted primary is inferior to a preferred backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Role {
    /// Takes traffic while preferred.
    #[default]
    Primary,
    /// Takes traffic when no better role is preferred; 1 comes before 2.
    Backup(std::num::NonZeroU8),
}

impl Role {
    /// The local preference that expresses this role at a level: 200 for a preferred primary,
    /// 150 for the first preferred backup and one less for each that follows, 50 for a demoted
    /// primary, 10 for the first demoted backup and one less for each that follows, at least 1.
    ///
    /// A role outranks only within a level, and the order of roles is the same on both, so
    /// that nodes at one level are chosen as if all were healthy (F6); backups after the tenth
    /// are alike when demoted, and so are those after the tenth when preferred.
    #[must_use]
    pub fn local_pref(self, level: Level) -> u32 {
        let (primary, first_backup) = match level {
            Level::Preferred => (200, 150),
            Level::Demoted => (50, 10),
        };
        match self {
            Self::Primary => primary,
            Self::Backup(rank) => first_backup - (u32::from(rank.get()) - 1).min(9),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Backup(rank) => write!(f, "backup({rank})"),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Role {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How long an announcement may outlive the decision that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// The announcer's own dead-man time: unless renewed by a later decision, preference is
    /// lost and the node is demoted.
    DeadMan,
    /// This long, once, because the node stops with `on_stop = "keep"` (an upgrade).
    Keep(Duration),
}

/// One completed decision step: the only thing an [`Announcer`] acts on.
///
/// It has no public constructor; only [`Machine::decide`](crate::machine::Machine::decide)
/// makes one. So nothing but a decision step can renew a boost: a timer that went on beating
/// while the decision loop was dead could not.
#[derive(Debug, Clone)]
pub struct Decision {
    pub(crate) service: ServiceName,
    pub(crate) addresses: ServiceAddresses,
    pub(crate) preference: Preference,
    pub(crate) role: Role,
    pub(crate) lifetime: Lifetime,
    pub(crate) decided_at: Instant,
    pub(crate) reason: Reason,
}

impl Decision {
    /// The service decided on.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Its addresses: never empty.
    #[must_use]
    pub const fn addresses(&self) -> &ServiceAddresses {
        &self.addresses
    }

    /// The preference decided on.
    #[must_use]
    pub const fn preference(&self) -> Preference {
        self.preference
    }

    /// The node's role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// How long the announcement may stand without a further decision.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// When it was decided (monotonic).
    #[must_use]
    pub const fn decided_at(&self) -> Instant {
        self.decided_at
    }

    /// Why, in words for an operator.
    #[must_use]
    pub const fn reason(&self) -> &Reason {
        &self.reason
    }
}

/// What an announcer can express on its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// There is a floor: losing the boost demotes. Without one, losing it *withdraws*, and the
    /// dead man would withdraw without anybody's consent; the node driver refuses to start.
    pub demote: bool,
    /// It can take the route away altogether.
    pub withdraw: bool,
    /// It tells roles apart.
    pub roles: bool,
    /// Preference is lost by itself this long after the last decision. The driver renews at a
    /// third of it. `None`: whatever was announced stays when this process dies.
    pub dead_man: Option<Duration>,
}

impl Capabilities {
    /// An announcer that can do nothing of all this.
    pub const NONE: Self = Self {
        demote: false,
        withdraw: false,
        roles: false,
        dead_man: None,
    };
}

/// What [`Announcer::apply`] achieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The state was read back from where it is true, and is what was decided.
    Confirmed,
    /// It was written, but could not be read back, or the announcer can only come near it
    /// (the reason says which). The driver asks again.
    Unconfirmed(Reason),
}

/// What is in force for one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum InForce {
    /// Announced at full preference.
    Preferred,
    /// Announced at the inferior level.
    Demoted,
    /// Not announced.
    Withdrawn,
}

/// What an announcer found in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// One entry for each service address, in the order of the service's list.
    pub addresses: Vec<(ServiceAddress, InForce)>,
}

impl Observation {
    /// The one state all addresses share, or `None` when they differ (a half-written change)
    /// or when nothing was seen.
    #[must_use]
    pub fn agreed(&self) -> Option<InForce> {
        let (_, first) = *self.addresses.first()?;
        let same = self.addresses.iter().all(|(_, state)| *state == first);
        same.then_some(first)
    }

    /// Whether what is in force is what was decided.
    #[must_use]
    pub fn matches(&self, preference: Preference) -> bool {
        let wanted = match preference {
            Preference::Preferred => InForce::Preferred,
            Preference::Demoted => InForce::Demoted,
            Preference::Withdrawn(_) => InForce::Withdrawn,
        };
        self.agreed() == Some(wanted)
    }
}

/// Why an announcer could not apply or observe.
///
/// None of these changes the level decided: the driver retries with back-off, observes
/// again, and lets the dead man demote if it comes to that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The right is missing. Nothing was changed.
    #[error("{what}: permission denied; {remedy}")]
    Permission {
        /// What was tried.
        what: String,
        /// What the operator can do about it.
        remedy: String,
    },
    /// Acting would break the service or touch what is not ours. Nothing was changed for
    /// this address; others may have been.
    #[error("{address}: refused: {reason}")]
    Refused {
        /// The address concerned.
        address: ServiceAddress,
        /// Why it is refused, and what to do.
        reason: String,
    },
    /// The announcer cannot express this preference. Nothing was changed.
    #[error("{service}: {preference} cannot be expressed: {reason}")]
    Inexpressible {
        /// The service.
        service: ServiceName,
        /// What was asked for.
        preference: Preference,
        /// Why it cannot be.
        reason: String,
    },
    /// The decision is older than the dead-man time; acting on it would defeat the dead man.
    /// Nothing was changed.
    #[error("{service}: the decision is {age:?} old, more than the dead-man time")]
    Stale {
        /// The service.
        service: ServiceName,
        /// Its age.
        age: Duration,
    },
    /// The kernel or the daemon failed or refused. What was written before stays.
    #[error("{what}")]
    Backend {
        /// What was tried, and on what.
        what: String,
        /// The backend's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Puts decisions into force on a router, a routing daemon or the kernel.
///
/// The driver owns one announcer for each service and never calls two methods at once. It is
/// level-triggered: it passes the *whole* desired state each time, repeats it to renew the
/// dead man, and repairs what it observes to have drifted. Object-safe.
#[async_trait]
pub trait Announcer: Send {
    /// A short name for logs and status: `loopback`, `bird`.
    fn kind(&self) -> &'static str;

    /// What this announcer can express. Constant over its life.
    fn capabilities(&self) -> Capabilities;

    /// Puts a decision into force, and renews its dead man.
    ///
    /// - **Idempotent**: applying the same decision again changes no route; it only renews.
    /// - **Cancellation**: the driver drops the future after its time-out (5 s). A half-done
    ///   change must be completed or found by the next `apply`; never may a drop leave the
    ///   service address without its permanent copy.
    /// - **Deadline**: refuse a decision older than the dead-man time
    ///   ([`AnnounceError::Stale`]).
    /// - **Scope**: touch only the addresses named in the decision, and only what is ours.
    ///
    /// # Errors
    /// See [`AnnounceError`]; each says what was changed. To fail-safe an error means "not
    /// known": the level stays, the driver retries and observes.
    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError>;

    /// Reads what is in force for these addresses. Changes nothing; cancel-safe.
    ///
    /// # Errors
    /// [`AnnounceError::Permission`] or [`AnnounceError::Backend`]. To fail-safe that is
    /// "not known", never "nothing is announced".
    async fn observe(&mut self, addresses: &ServiceAddresses)
    -> Result<Observation, AnnounceError>;

    /// Waits until something that this announcer put into force may have been changed by
    /// somebody else. A hint: the driver observes at once instead of at the next period.
    ///
    /// The default waits for ever. Cancel-safe.
    async fn disturbed(&mut self) {
        std::future::pending().await
    }
}
