//! What a service is made of, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use super::{
    ANNOUNCER_TIMEOUT, CheckSpec, OBSERVE_EVERY, ReadinessSpec, STOP_TIMEOUT, StandingOrder,
    StateDir,
};
use crate::announce::Announcer;
use crate::drain;
use crate::machine::{Identity, Policy};
use crate::service::NodeName;

/// What becomes of the announcement when the node stops in an orderly way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStop {
    /// Demote: the boost is removed, and the service is drained. The default. A service that
    /// an operator has withdrawn stays so.
    #[default]
    Demote,
    /// Keep the present preference for this long (an upgrade), then the kernel demotes.
    Keep(Duration),
    /// Withdraw, as the operator's explicit wish; then the service is drained.
    Withdraw,
}

/// Counts what a service has in flight (transfers, sessions), for its drain. It is called from
/// the decision loop, about ten times a second while a drain waits for it: it must not block,
/// and a panic in it ends the loop.
pub type InFlight = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One service to run.
pub struct ServiceSpec {
    /// Name, addresses, role.
    pub identity: Identity,
    /// Rise, fall, hold-down, fail-safe.
    pub policy: Policy,
    /// The checks: at least one.
    pub checks: Vec<CheckSpec>,
    /// What announces it.
    pub announcer: Box<dyn Announcer>,
    /// What to do at an orderly stop.
    pub on_stop: OnStop,
    /// Time between two observations; drift is repaired within it. Default [`OBSERVE_EVERY`].
    pub observe_every: Duration,
    /// Where operators' orders survive a restart. `None`: they do not. Default `None`.
    pub state: Option<StateDir>,
    /// What the configuration itself orders. Default `None`.
    pub standing: Option<StandingOrder>,
    /// How long each phase of a drain may take. `confirm` is made longer than the announcer's
    /// dead-man time where it is not.
    pub drain: drain::Settings,
    /// What the node needs besides a healthy service before it may be preferred. Default none.
    pub readiness: Vec<ReadinessSpec>,
    /// The other members of the fleet, which reports are taken from. Default none.
    pub members: Vec<NodeName>,
    /// What is waited for at the end of a drain. `None`, the default: nothing.
    pub in_flight: Option<InFlight>,
}

impl ServiceSpec {
    /// A service with the defaults for everything else.
    #[must_use]
    pub fn new(
        identity: Identity,
        policy: Policy,
        checks: Vec<CheckSpec>,
        announcer: Box<dyn Announcer>,
    ) -> Self {
        Self {
            identity,
            policy,
            checks,
            announcer,
            on_stop: OnStop::default(),
            observe_every: OBSERVE_EVERY,
            state: None,
            standing: None,
            drain: drain::Settings::default(),
            readiness: Vec::new(),
            members: Vec::new(),
            in_flight: None,
        }
    }
}

/// After the dead-man time nothing is left that a demotion could have missed.
const DEAD_MAN_MARGIN: Duration = Duration::from_secs(1);

/// The settings of a drain, made to fit an announcer with this dead-man time.
pub(super) fn fit(settings: drain::Settings, dead_man: Option<Duration>) -> drain::Settings {
    let least = dead_man.unwrap_or_default().saturating_add(DEAD_MAN_MARGIN);
    drain::Settings {
        confirm: settings.confirm.max(least),
        ..settings
    }
}

/// Longest time that a stop may take with these settings: every phase, and an action that
/// hangs at its end.
pub(super) fn stop_limit(settings: drain::Settings, dead_man: Option<Duration>) -> Duration {
    let drain = fit(settings, dead_man).longest() + ANNOUNCER_TIMEOUT;
    drain.max(STOP_TIMEOUT)
}
