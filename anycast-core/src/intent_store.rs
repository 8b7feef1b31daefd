//! An operator's intent that outlives the process, and ends on time (F9, F11).
//!
//! # Contract
//!
//! A [`SavedIntent`] is what an operator ordered, for how long, and when by which clock. This
//! module is pure: clocks come in as a [`ClockReading`]. What keeps it on disk is
//! `intent_store::file` (feature `node`).
//!
//! # When it ends
//!
//! | restored | it has left |
//! |---|---|
//! | on the boot that it was given on | what CLOCK_BOOTTIME says; the wall clock has no part in it, so that its jumps have no effect (F11). CLOCK_BOOTTIME goes on while the host is suspended |
//! | after a reboot | what the wall clock says, but nothing below zero and never more than it had left when it was last given or restored. It is then bound to the new boot, and to its CLOCK_BOOTTIME alone |
//! | where the boot cannot be told (`/proc` is not there) | as after a reboot |
//!
//! So one that was given for two hours stands for two hours, to the nanosecond, over any
//! number of restarts of the process; after a reboot into a wrong wall clock it may end early,
//! or stand for two hours more, but not longer.

#[cfg(feature = "node")]
pub mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::health::Reason;

/// The longest time an order may be given for: ten years. A longer one is cut to this; one
/// that is to stand for ever is given without a time.
pub const MAX_LASTS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Longest boot id, in bytes. The kernel's is a UUID of 36.
const MAX_BOOT_ID: usize = 64;

/// Which boot of the host this is: the kernel's random `boot_id`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BootId(Arc<str>);

impl BootId {
    /// Wraps an id. `None` when it is empty, longer than 64 bytes or not printable ASCII.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let printable = id.bytes().all(|byte| byte.is_ascii_graphic());
        (!id.is_empty() && id.len() <= MAX_BOOT_ID && printable).then(|| Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What the host's clocks said at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// The boot that `boottime` belongs to; `None` when it cannot be told.
    pub boot: Option<BootId>,
    /// CLOCK_BOOTTIME: time since boot, suspension included. Never goes back on one boot.
    pub boottime: Duration,
    /// The wall clock, as time since 1970-01-01 UTC. May be wrong, and may jump.
    pub wall: Duration,
}

impl ClockReading {
    fn is_same_boot(&self, boot: Option<&BootId>) -> bool {
        self.boot.is_some() && self.boot.as_ref() == boot
    }
}

/// What an operator can order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum OrderKind {
    /// Demote: a drain.
    Demote,
    /// Withdraw.
    Withdraw,
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Demote => "demote",
            Self::Withdraw => "withdraw",
        })
    }
}

/// When an order ends, by each clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    boot: Option<BootId>,
    /// In CLOCK_BOOTTIME of that boot.
    boot_deadline: Duration,
    /// In wall time; what counts after a reboot.
    wall_deadline: Duration,
    /// What it had left when it was bound to that boot: it never has more.
    at_most: Duration,
}

impl Expiry {
    fn new(lasts: Duration, now: &ClockReading) -> Self {
        let lasts = lasts.min(MAX_LASTS);
        Self {
            boot: now.boot.clone(),
            boot_deadline: now.boottime.saturating_add(lasts),
            wall_deadline: now.wall.saturating_add(lasts),
            at_most: lasts,
        }
    }

    fn left(&self, now: &ClockReading) -> Duration {
        let left = if now.is_same_boot(self.boot.as_ref()) {
            self.boot_deadline.saturating_sub(now.boottime)
        } else {
            self.wall_deadline.saturating_sub(now.wall)
        };
        left.min(self.at_most)
    }

    /// Binds it to this boot. The wall deadline stays: it is what the operator was promised.
    fn bind(&mut self, now: &ClockReading) {
        let left = self.left(now);
        self.boot.clone_from(&now.boot);
        self.boot_deadline = now.boottime.saturating_add(left);
        self.at_most = left;
    }
}

/// What an operator ordered, as it is kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedIntent {
    /// What.
    pub order: OrderKind,
    /// Why, in the operator's words.
    pub reason: Reason,
    /// Who, and from where.
    pub by: Reason,
    /// When it was given.
    pub given: ClockReading,
    /// When it ends; `None`: when it is lifted.
    pub expiry: Option<Expiry>,
}

impl SavedIntent {
    /// An order given now, for this long ([`MAX_LASTS`] at most; `None`: until it is lifted).
    #[must_use]
    pub fn new(
        order: OrderKind,
        reason: Reason,
        by: Reason,
        lasts: Option<Duration>,
        now: &ClockReading,
    ) -> Self {
        Self {
            order,
            reason,
            by,
            given: now.clone(),
            expiry: lasts.map(|lasts| Expiry::new(lasts, now)),
        }
    }

    /// How long it still stands: `None` until it is lifted; zero when it is over.
    #[must_use]
    pub fn left(&self, now: &ClockReading) -> Option<Duration> {
        self.expiry.as_ref().map(|expiry| expiry.left(now))
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_over(&self, now: &ClockReading) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }

    /// How long ago it was given; after a reboot as far as the wall clock can tell.
    #[must_use]
    pub fn age(&self, now: &ClockReading) -> Duration {
        if now.is_same_boot(self.given.boot.as_ref()) {
            now.boottime.saturating_sub(self.given.boottime)
        } else {
            now.wall.saturating_sub(self.given.wall)
        }
    }

    /// Takes it up again after a restart, and binds it to this boot. `None` when it is over.
    /// What comes back differs from what was saved only after a reboot; it is to be saved
    /// again then, so that the wall clock is asked once for each boot.
    #[must_use]
    pub fn restore(mut self, now: &ClockReading) -> Option<Self> {
        if self.is_over(now) {
            return None;
        }
        if let Some(expiry) = &mut self.expiry
            && !now.is_same_boot(expiry.boot.as_ref())
        {
            expiry.bind(now);
        }
        Some(self)
    }
}
