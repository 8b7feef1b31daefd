//! A model of the kernel for pure tests and simulations: a permanent copy of each service
//! address, a boost that runs out by itself, and nothing of either process.
//!
//! It outlives the process that drives it, as the kernel does. Like the real announcer it
//! refuses a decision that is older than the dead-man time, puts the permanent copy there
//! before it announces anything, and leaves it there when the route goes.

use std::time::{Duration, Instant};

use crate::announce::{
    Capabilities, Decision, InForce, Lifetime, Observation, Preference, WithdrawalCause,
};
use crate::invariants::Announced;
use crate::service::ServiceAddresses;

/// What the kernel was in at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The boost is there.
    pub preferred: bool,
    /// The route is gone.
    pub withdrawn: bool,
}

/// The decision was older than the dead-man time; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decision is {0:?} old, more than the dead-man time")]
pub struct Stale(pub Duration);

/// The writes that one `apply` is made of, for [`Kernel::apply_partly`].
pub const WRITES: u32 = 3;

/// One node's kernel and routing daemon.
#[derive(Debug, Clone)]
pub struct Kernel {
    addresses: ServiceAddresses,
    dead_man: Duration,
    boost_until: Option<Instant>,
    withdrawn: Option<WithdrawalCause>,
    permanent: bool,
    seen: Vec<Seen>,
}

impl Kernel {
    /// A kernel whose routing daemon announces the floor, with the permanent copy in place.
    #[must_use]
    pub const fn new(addresses: ServiceAddresses, dead_man: Duration) -> Self {
        Self {
            addresses,
            dead_man,
            boost_until: None,
            withdrawn: None,
            permanent: true,
            seen: Vec::new(),
        }
    }

    /// A kernel after a boot: no address is there, and nothing is announced.
    #[must_use]
    pub const fn bare(addresses: ServiceAddresses, dead_man: Duration) -> Self {
        let mut kernel = Self::new(addresses, dead_man);
        kernel.permanent = false;
        kernel
    }

    /// What an announcer over this kernel can express.
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        Capabilities {
            demote: true,
            withdraw: true,
            roles: false,
            dead_man: Some(self.dead_man),
        }
    }

    /// Carries a decision out, whole. True when a route changed, not merely a lifetime.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn apply(&mut self, now: Instant, decision: &Decision) -> Result<bool, Stale> {
        let before = self.state(now);
        self.apply_partly(now, decision, WRITES)?;
        let after = self.state(now);
        self.seen.push(after);
        Ok(before != after)
    }

    /// Carries out the first `writes` of the [`WRITES`] that a decision needs, as when the
    /// announcer is killed, or fails, on its way: first the permanent copy, then what lowers,
    /// then what raises or takes the route away.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn apply_partly(
        &mut self,
        now: Instant,
        decision: &Decision,
        writes: u32,
    ) -> Result<(), Stale> {
        let age = now.saturating_duration_since(decision.decided_at());
        if decision.lifetime() == Lifetime::DeadMan && age >= self.dead_man {
            return Err(Stale(age));
        }
        let lifetime = match decision.lifetime() {
            Lifetime::DeadMan => self.dead_man,
            Lifetime::Keep(keep_for) => keep_for,
        };
        if writes >= 1 {
            self.permanent = true;
        }
        if writes >= 2 {
            match decision.preference() {
                Preference::Demoted | Preference::Withdrawn(_) => self.boost_until = None,
                Preference::Preferred => self.withdrawn = None,
            }
        }
        if writes >= WRITES {
            match decision.preference() {
                Preference::Withdrawn(withdrawal) => self.withdrawn = Some(withdrawal.cause()),
                Preference::Demoted => self.withdrawn = None,
                Preference::Preferred => self.boost_until = Some(decision.decided_at() + lifetime),
            }
        }
        Ok(())
    }

    /// Somebody else removes the boost.
    pub const fn lose_boost(&mut self) {
        self.boost_until = None;
    }

    /// What it is in at `now`.
    #[must_use]
    pub fn state(&self, now: Instant) -> Seen {
        let preferred = self.boost_until.is_some_and(|until| until > now);
        Seen {
            preferred,
            // Without the permanent copy there is no route at the floor.
            withdrawn: self.withdrawn.is_some() || !(self.permanent || preferred),
        }
    }

    /// What is announced at `now`, and whether the address would stay (F7).
    #[must_use]
    pub fn announced(&self, now: Instant) -> Announced {
        let seen = self.state(now);
        Announced {
            route: seen.preferred || !seen.withdrawn,
            permanent: self.permanent,
        }
    }

    /// When the boost runs out, or ran out; `None` where it was taken away.
    #[must_use]
    pub const fn boost_until(&self) -> Option<Instant> {
        self.boost_until
    }

    /// In whose name the route is gone, if it is.
    #[must_use]
    pub const fn withdrawn(&self) -> Option<WithdrawalCause> {
        self.withdrawn
    }

    /// Whether the permanent copy of each address is there.
    #[must_use]
    pub const fn has_permanent_copy(&self) -> bool {
        self.permanent
    }

    /// Remembers what it is in at `now`.
    pub fn look(&mut self, now: Instant) {
        let seen = self.state(now);
        self.seen.push(seen);
    }

    /// What an announcer would read back.
    #[must_use]
    pub fn observe(&self, now: Instant) -> Observation {
        let state = match self.state(now) {
            Seen {
                withdrawn: true, ..
            } => InForce::Withdrawn,
            Seen {
                preferred: true, ..
            } => InForce::Preferred,
            Seen { .. } => InForce::Demoted,
        };
        Observation {
            addresses: self.addresses.iter().map(|a| (a, state)).collect(),
        }
    }

    /// Every state it was in after an `apply` or at a `look`.
    #[must_use]
    pub fn into_seen(self) -> Vec<Seen> {
        self.seen
    }
}
