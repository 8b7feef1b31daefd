//! Readiness: what a node needs besides a healthy service before it may be preferred.

use std::time::Instant;

use crate::health::Reason;
use crate::service::CheckName;

/// What an input of readiness says: its data is in step with the fleet, its clock is right,
/// its disk has room, its pool has addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// The node may be preferred.
    Ready,
    /// The node may not be preferred, and is demoted if it is.
    NotReady(Reason),
    /// It cannot be told: neither lowers a node that is preferred nor lets one rise that is
    /// not.
    Unknown(Reason),
}

/// One input of readiness as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadinessState {
    name: CheckName,
    /// What it counts as until it has said so definitely.
    assumed: bool,
    said: Option<bool>,
    since: Instant,
    last: Option<(Instant, Readiness)>,
}

impl ReadinessState {
    pub(super) const fn new(name: CheckName, ready: bool, now: Instant) -> Self {
        Self {
            name,
            assumed: ready,
            said: None,
            since: now,
            last: None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &CheckName {
        &self.name
    }

    /// Whether it counts as ready: as it last knew.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.said.unwrap_or(self.assumed)
    }

    /// Whether it is ready, and not merely assumed to be.
    pub(super) fn has_said_ready(&self) -> bool {
        self.said == Some(true)
    }

    /// Since when.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// What it last said, `Unknown` included, and when.
    #[must_use]
    pub const fn last(&self) -> Option<&(Instant, Readiness)> {
        self.last.as_ref()
    }

    /// True when it changed.
    pub(super) fn handle(&mut self, now: Instant, readiness: Readiness) -> bool {
        let before = self.is_ready();
        match readiness {
            Readiness::Ready => self.said = Some(true),
            Readiness::NotReady(_) => self.said = Some(false),
            Readiness::Unknown(_) => {}
        }
        self.last = Some((now, readiness));
        self.changed_from(before, now)
    }

    /// As at a start that adopts nothing.
    pub(super) fn start_anew(&mut self, now: Instant) {
        let before = self.is_ready();
        self.assumed = false;
        self.changed_from(before, now);
    }

    fn changed_from(&mut self, before: bool, now: Instant) -> bool {
        let changed = before != self.is_ready();
        if changed {
            self.since = now;
        }
        changed
    }

    pub(super) fn reason(&self) -> Reason {
        match &self.last {
            Some((_, Readiness::NotReady(reason) | Readiness::Unknown(reason))) => {
                format!("{} is not ready: {reason}", self.name).into()
            }
            Some((_, Readiness::Ready)) | None => {
                format!("{} has not said that it is ready", self.name).into()
            }
        }
    }
}
