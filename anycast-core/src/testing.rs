//! For implementors of the traits: decisions to feed them with, and conformance suites.
//!
//! Feature `testing`; meant for `[dev-dependencies]`.

#[cfg(feature = "testing")]
pub mod announcer_suite;
#[cfg(feature = "testing")]
pub mod fakes;
#[cfg(feature = "testing")]
pub mod health_suite;
pub mod kernel;
#[cfg(feature = "testing")]
pub mod sync_suite;
#[cfg(feature = "testing")]
mod violation;

#[cfg(feature = "testing")]
pub use violation::Violation;

use std::time::Instant;

use crate::announce::{Decision, Lifetime, Preference, Role, Withdrawal, WithdrawalCause};
use crate::service::{ServiceAddresses, ServiceName};

/// A withdrawal ordered by an operator, for tests of announcers.
#[must_use]
pub const fn withdrawn_by_operator() -> Preference {
    Preference::Withdrawn(Withdrawal::new(WithdrawalCause::Operator))
}

/// A decision made at `decided_at`, for tests of announcers.
#[must_use]
pub fn decision(
    service: ServiceName,
    addresses: ServiceAddresses,
    preference: Preference,
    lifetime: Lifetime,
    decided_at: Instant,
) -> Decision {
    Decision {
        service,
        addresses,
        preference,
        role: Role::Primary,
        lifetime,
        decided_at,
        reason: "test".into(),
    }
}
