//! The node driver: checks → machine → announcer, on tokio.
//!
//! # Tasks
//!
//! For each service:
//!
//! | task | does | when it dies |
//! |---|---|---|
//! | decision loop | feeds the [machine](crate::machine), completes decision steps, passes actions on, publishes status | nothing renews the boost: the dead man demotes |
//! | announcer | owns the [`Announcer`](crate::Announcer), carries out one action at a time under [`ANNOUNCER_TIMEOUT`] | the decision loop ends as well ([`NodeHandle::failed`]); the dead man demotes |
//! | one supervisor for each check | builds the check, bounds each probe, replaces a check that panics or hangs | the machine hears no more of it, which changes nothing |
//! | keeper, where there is a [`StateDir`] | brings the file of the operator's order in line with it | orders stand, and are not saved |
//!
//! The announcer is driven through two channels of one place each, so a slow router delays
//! neither a verdict nor another service. Desired state is level-triggered: a decision that
//! was overtaken is never applied.
//!
//! Checks start when the first decision has been carried out (or failed), since before it the
//! service address may not exist; where a boost is adopted, at once.
//!
//! # Checks that fail themselves
//!
//! | a check that | is `Unknown`, and then |
//! |---|---|
//! | panics, or does not come back | is built afresh |
//! | blocks its thread | is built afresh when it lets go of it, in a thread of its own from then on |
//! | is starved, every thread being blocked by others | is built afresh in a spare thread |
//! | leaks descriptors or tasks, found when the process or the probes' runtime runs short of them | is built afresh, as the others are in turn, which alone tells whose they were |
//!
//! What a check leaks out of its own reach, and memory, cannot be had back: the log says that
//! descriptors or tasks run short. None of this delays another check or a decision, provided that the node has a runtime for
//! probes alone ([`Node::with_probe_runtime`]): a check that blocks its thread takes a worker of
//! its runtime, and whatever waits on that worker, with it. A thread that is blocked for ever
//! cannot be had back; they are bounded, and beyond the bound checks stay `Unknown`, which
//! lowers nothing.
//!
//! # Cancellation and stopping
//!
//! Dropping the [`Node`] aborts every task at once; what is in force then stands until the
//! dead man's time is over, as if the process had been killed. [`Node::stop`] carries
//! [`OnStop`] out first, and goes through the [drain].
//!
//! # Operators' orders
//!
//! [`NodeHandle::order`] and [`NodeHandle::undrain`] outrank health. With a [`StateDir`] they
//! survive a restart and end on time ([`intent_store`](crate::intent_store)); they are restored
//! before the first decision. A saved order that cannot be read means that an operator had
//! spoken: the service starts demoted until it is undrained.
#![allow(
    clippy::disallowed_methods,
    reason = "the driver is where time enters; it passes `now` to the engines"
)]

mod announcer;
mod begin;
mod checks;
mod decide;
mod inputs;
mod leaks;
mod orders;
mod peers;
mod probes;
mod spec;
mod status;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use self::checks::{CheckSpec, MAX_RECHECKS};
pub use self::inputs::ReadinessSpec;
pub use self::orders::{
    Clock, IntentSnapshot, KEEP_RETRY, KEEP_TIMEOUT, LOAD_TIMEOUT, Order, Ordered, Saved,
    StandingOrder, StateDir,
};
pub use self::peers::{
    ClientNetworkStatus, ClientsStatus, DataSetStatus, MeshPeerStatus, MeshStatus,
    PeerServiceStatus, PeerTurn,
};
pub use self::spec::{InFlight, OnStop, ServiceSpec};
#[cfg(feature = "mesh")]
pub(crate) use self::status::seconds;
pub use self::status::{
    CheckSnapshot, CheckStatus, DrainSnapshot, DrainStatus, IntentStatus, NodeStatus, PeerStatus,
    ReadinessStatus, ServiceStatus, Snapshot, TurnSnapshot, TurnStatus,
};

use self::inputs::FleetNews;
use self::orders::Ticket;
use self::peers::MeshSlot;
use self::probes::Pool;
use crate::announce::Role;
use crate::drain;
use crate::intent_store::MAX_LASTS;
use crate::machine::{ChecksError, PeerReport, Policy, Turn};
use crate::service::{CheckName, NodeName, ServiceName};

/// Longest time one `apply` or `observe` may take; then it is dropped and counts as failed.
pub const ANNOUNCER_TIMEOUT: Duration = Duration::from_secs(5);
/// Verdicts waiting for one decision loop. When it is full the checks wait: they poll later,
/// nothing is lost.
pub const VERDICT_QUEUE: usize = 64;
/// Commands waiting for one decision loop; when it is full the caller waits.
pub const COMMAND_QUEUE: usize = 16;
/// Default time between two observations of what is in force.
pub const OBSERVE_EVERY: Duration = Duration::from_secs(5);
/// Longest time [`Node::stop`] waits for the last decision to be confirmed where the boost is
/// kept: long enough for an action that hangs when the stop comes, and for the one that follows
/// it. A drain has its own bounds ([`drain::Settings`]).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(12);
/// Longest interval and time-out of a check: a day.
pub const MAX_CHECK_TIME: Duration = Duration::from_secs(86_400);

/// Why a node could not be started, or a running one not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The list of checks cannot be used.
    #[error(transparent)]
    Checks(#[from] ChecksError),
    /// Losing the boost would withdraw the route.
    #[error(
        "{service}: the {announcer} announcer has no floor, so that losing its boost would \
         withdraw the route; configure a floor on the routing daemon and set floor = true"
    )]
    NoFloor {
        /// The service.
        service: ServiceName,
        /// The announcer's kind.
        announcer: &'static str,
    },
    /// Two services of one node have the same name.
    #[error("two services are called {service}")]
    DuplicateService {
        /// The name.
        service: ServiceName,
    },
    /// A check's interval or time-out is zero or longer than [`MAX_CHECK_TIME`].
    #[error(
        "{service}: the interval and the time-out of {check} must be more than zero and at most \
         a day"
    )]
    CheckTimes {
        /// The service.
        service: ServiceName,
        /// The check.
        check: CheckName,
    },
    /// No service of this name runs here.
    #[error("no service is called {service}")]
    UnknownService {
        /// The name.
        service: ServiceName,
    },
    /// The service's decision loop has ended, or is about to.
    #[error("{service}: its decision loop has ended")]
    Ended {
        /// The service.
        service: ServiceName,
    },
    /// An order cannot be given for this long.
    #[error("{service}: an order lasts longer than nothing and at most ten years")]
    OrderTime {
        /// The service.
        service: ServiceName,
    },
}

pub(crate) enum Command {
    /// An operator's order, or `None` to lift the one in force.
    Order {
        order: Option<Order>,
        taken: oneshot::Sender<Ticket>,
    },
    /// What the configuration orders.
    Standing(StandingOrder),
    Reconfigure {
        policy: Policy,
        checks: Vec<CheckSpec>,
        done: oneshot::Sender<Result<(), NodeError>>,
    },
    /// What was heard of the fleet.
    Fleet(FleetNews),
    /// What the machine was told, as text.
    #[cfg(feature = "record")]
    Record(oneshot::Sender<String>),
    /// With the service's own `on_stop` and a drain; or with another, at once.
    Stop(Option<OnStop>),
}

struct Service {
    name: ServiceName,
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Snapshot>,
    drain: watch::Sender<drain::Settings>,
    dead_man: Option<Duration>,
    decision_loop: AbortOnDrop,
}

/// Running services of this node. See the [module documentation](self).
pub struct Node {
    name: NodeName,
    services: Vec<Service>,
    probes: Option<Handle>,
    /// Made for the first service that is started after `probes` was set.
    pool: Option<Pool>,
    /// Of services that were started before.
    earlier: Vec<Pool>,
    mesh: MeshSlot,
}

impl Node {
    /// A node without services yet.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            services: Vec::new(),
            probes: None,
            pool: None,
            earlier: Vec::new(),
            mesh: MeshSlot::default(),
        }
    }

    /// Runs the probes of services started from now on in this runtime (a multi-thread one of
    /// their own), and everything else in the runtime that [`start`](Self::start) is called
    /// in. Default: everything in the latter. The runtime must outlive the node.
    #[must_use]
    pub fn with_probe_runtime(mut self, probes: Handle) -> Self {
        self.probes = Some(probes);
        self.earlier.extend(self.pool.take());
        self
    }

    /// Starts a service: its checks, its decision loop and its announcer. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`]; nothing was started then.
    pub fn start(&mut self, spec: ServiceSpec) -> Result<(), NodeError> {
        let name = spec.identity.service.clone();
        if self.services.iter().any(|service| service.name == name) {
            return Err(NodeError::DuplicateService { service: name });
        }
        if !spec.announcer.capabilities().demote {
            return Err(NodeError::NoFloor {
                service: name,
                announcer: spec.announcer.kind(),
            });
        }
        checks::validate(&name, &spec.checks)?;
        if spec.identity.role != Role::Primary && !spec.announcer.capabilities().roles {
            tracing::warn!(
                service = %name,
                role = %spec.identity.role,
                announcer = spec.announcer.kind(),
                "this announcer cannot tell roles apart: the node is announced like a primary \
                 unless the routing daemon is configured otherwise"
            );
        }
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (publish, snapshot) = watch::channel(Snapshot::starting(&spec, now()));
        let (drain, drain_settings) = watch::channel(spec.drain);
        let dead_man = spec.announcer.capabilities().dead_man;
        let probes = self.probes.as_ref();
        let pool = self.pool.get_or_insert_with(|| Pool::new(probes));
        let decision_loop = spawn(decide::run(
            self.name.clone(),
            spec,
            pool.places(),
            inbox,
            drain_settings,
            publish,
        ));
        self.services.push(Service {
            name,
            commands,
            snapshot,
            drain,
            dead_man,
            decision_loop,
        });
        Ok(())
    }

    /// A cheap handle to read status and steer the node from elsewhere.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        NodeHandle {
            name: self.name.clone(),
            services: self
                .services
                .iter()
                .map(|service| HandleEntry {
                    name: service.name.clone(),
                    commands: service.commands.clone(),
                    snapshot: service.snapshot.clone(),
                    drain: service.drain.clone(),
                })
                .collect(),
            mesh: self.mesh.clone(),
        }
    }

    /// Carries out each service's [`OnStop`] and ends every task, all services side by side.
    /// Where the boost is not kept it waits for the whole drain: until the routes have
    /// converged and nothing is in flight any more, at most about
    /// [`drain::Settings::longest`], and before that for its turn to leave, where it takes part
    /// ([`TurnPolicy::leave_within`]). The service must go on serving until this returns.
    ///
    /// [`TurnPolicy::leave_within`]: crate::machine::TurnPolicy::leave_within
    ///
    /// Dropping the future aborts what is left.
    pub async fn stop(self) {
        self.stop_all(None).await;
    }

    /// The same, but with this [`OnStop`] for every service, and without a drain: it waits, at
    /// most about [`STOP_TIMEOUT`], until the last decision is confirmed. A node whose service
    /// has died must be demoted whatever its configuration says about orderly stops, and has
    /// nothing in flight that could be waited for.
    pub async fn stop_with(self, on_stop: OnStop) {
        self.stop_all(Some(on_stop)).await;
    }

    async fn stop_all(self, on_stop: Option<OnStop>) {
        for service in &self.services {
            // A closed channel means the loop has ended already.
            let _ = service.commands.send(Command::Stop(on_stop)).await;
        }
        let limits = self.services.iter().map(|service| {
            let settings = *service.drain.borrow();
            let turn = service.snapshot.borrow().leave_within();
            turn + spec::stop_limit(settings, service.dead_man)
        });
        let limit = limits.max().unwrap_or(STOP_TIMEOUT) + Duration::from_secs(1);
        let ends = tokio::time::Instant::now() + limit;
        for mut service in self.services {
            let _ = tokio::time::timeout_at(ends, &mut service.decision_loop.0).await;
        }
    }
}

struct HandleEntry {
    name: ServiceName,
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Snapshot>,
    drain: watch::Sender<drain::Settings>,
}

/// Reads and steers a running [`Node`]. Cheap to clone; outlives the node harmlessly.
#[derive(Clone)]
pub struct NodeHandle {
    name: NodeName,
    services: Arc<[HandleEntry]>,
    mesh: MeshSlot,
}

impl NodeHandle {
    /// The node's state now, with reasons and ages.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let now = now();
        NodeStatus {
            node: self.name.clone(),
            services: self
                .services
                .iter()
                .map(|service| {
                    let running = !service.commands.is_closed();
                    ServiceStatus::new(&service.snapshot.borrow(), running, now)
                })
                .collect(),
            mesh: self.mesh.tell(now),
        }
    }

    /// What is known of the other nodes is told from here on, in [`NodeStatus::mesh`].
    #[cfg(feature = "mesh")]
    pub(crate) fn show_mesh(&self, tell: impl Fn(Instant) -> MeshStatus + Send + Sync + 'static) {
        self.mesh.fill(tell);
    }

    /// When each service's decision loop completed its last step. A loop that lives completes
    /// one at least every few seconds, since it observes what is in force that often
    /// ([`ServiceSpec::observe_every`]); so a watchdog can tell one that stands still.
    pub fn steps(&self) -> impl Iterator<Item = (&ServiceName, Instant)> {
        self.services
            .iter()
            .map(|service| (&service.name, service.snapshot.borrow().stepped))
    }

    /// Waits until a decision loop or an announcer has died (it panicked), and names the
    /// service; for ever if none does. What was in force then runs out by the dead man; only
    /// a new process helps. Cancel-safe.
    pub async fn failed(&self) -> ServiceName {
        let mut ends: Vec<_> = self
            .services
            .iter()
            .map(|service| {
                Box::pin(async move {
                    service.commands.closed().await;
                    service.name.clone()
                })
            })
            .collect();
        std::future::poll_fn(|context| {
            ends.iter_mut()
                .map(|end| end.as_mut().poll(context))
                .find(std::task::Poll::is_ready)
                .unwrap_or(std::task::Poll::Pending)
        })
        .await
    }

    /// Follows one service's state; a change of any part wakes the receiver.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`].
    pub fn watch(&self, service: &ServiceName) -> Result<watch::Receiver<Snapshot>, NodeError> {
        Ok(self.entry(service)?.snapshot.clone())
    }

    /// Gives an operator's order, which outranks health until it ends or is lifted, and which
    /// a later one replaces. It takes effect at once. The answer comes when it is also on the
    /// disk, so that it survives a restart, or says why it is not ([`Saved::No`]), at most
    /// [`KEEP_TIMEOUT`] later. Whether what it demands is in force is told by
    /// [`watch`](Self::watch). Idempotent. An order stands also when this future is dropped
    /// once it was taken.
    ///
    /// # Errors
    /// [`NodeError::OrderTime`], [`NodeError::UnknownService`] or [`NodeError::Ended`]; nothing
    /// was changed then.
    pub async fn order(&self, service: &ServiceName, order: Order) -> Result<Ordered, NodeError> {
        let possible = |lasts: Duration| !lasts.is_zero() && lasts <= MAX_LASTS;
        if !order.lasts.is_none_or(possible) {
            return Err(NodeError::OrderTime {
                service: service.clone(),
            });
        }
        self.give(service, Some(order)).await
    }

    /// Lifts the order in force, if there is one, and forgets it on the disk: health decides
    /// again, or what the configuration orders ([`StandingOrder`]). Otherwise like
    /// [`order`](Self::order).
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    pub async fn undrain(&self, service: &ServiceName) -> Result<Ordered, NodeError> {
        self.give(service, None).await
    }

    /// The configuration orders this from now on, in place of what it ordered before. An
    /// operator's order stays in force; this one stands when that ends or is lifted. One that is
    /// given again changes nothing.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    pub async fn set_standing(
        &self,
        service: &ServiceName,
        standing: StandingOrder,
    ) -> Result<(), NodeError> {
        self.send(service, Command::Standing(standing)).await
    }

    async fn give(
        &self,
        service: &ServiceName,
        order: Option<Order>,
    ) -> Result<Ordered, NodeError> {
        let (taken, answer) = oneshot::channel();
        self.send(service, Command::Order { order, taken }).await?;
        match answer.await {
            Ok(ticket) => Ok(Ordered {
                saved: ticket.saved().await,
            }),
            Err(_) => Err(NodeError::Ended {
                service: service.clone(),
            }),
        }
    }

    /// The members of the fleet are now these, this node left out.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    pub async fn set_members(
        &self,
        service: &ServiceName,
        members: Vec<NodeName>,
    ) -> Result<(), NodeError> {
        let news = FleetNews::Members(members);
        self.send(service, Command::Fleet(news)).await
    }

    /// A member says how it is; the report of another is ignored.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    pub async fn report_peer(
        &self,
        service: &ServiceName,
        peer: NodeName,
        report: PeerReport,
    ) -> Result<(), NodeError> {
        let news = FleetNews::Peer(peer, report);
        self.send(service, Command::Fleet(news)).await
    }

    /// A peer promises not to withdraw until then (this node's monotonic clock, counted from
    /// when it was asked).
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    pub async fn take_grant(
        &self,
        service: &ServiceName,
        peer: NodeName,
        until: Instant,
    ) -> Result<(), NodeError> {
        let news = FleetNews::Grant(peer, until);
        self.send(service, Command::Fleet(news)).await
    }

    /// A peer asks for this node's promise not to withdraw for so long. `Some`: it is given,
    /// for that time. A service that has not begun yet gives none.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    pub async fn request_grant(
        &self,
        service: &ServiceName,
        peer: NodeName,
        duration: Duration,
    ) -> Result<Option<Duration>, NodeError> {
        let (answer, granted) = oneshot::channel();
        let news = FleetNews::GrantRequest(peer, duration, answer);
        self.send(service, Command::Fleet(news)).await?;
        Ok(granted.await.unwrap_or(None))
    }

    /// Whose turn it is to join or leave, for a service with a [`TurnPolicy`].
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`].
    ///
    /// [`TurnPolicy`]: crate::machine::TurnPolicy
    pub async fn tell_turn(&self, service: &ServiceName, turn: Turn) -> Result<(), NodeError> {
        let news = FleetNews::Turn(turn);
        self.send(service, Command::Fleet(news)).await
    }

    /// What the service's machine was told since it started and what it decided, as the text
    /// that [`record::Replay`](crate::record::Replay) reads.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`] or [`NodeError::Ended`], also for a service that has not
    /// begun yet.
    #[cfg(feature = "record")]
    pub async fn record(&self, service: &ServiceName) -> Result<String, NodeError> {
        let (answer, text) = oneshot::channel();
        self.send(service, Command::Record(answer)).await?;
        text.await.map_err(|_| NodeError::Ended {
            service: service.clone(),
        })
    }

    /// Replaces policy and checks. Checks that keep their name keep their state, so that a
    /// reload that changes nothing moves no route.
    ///
    /// # Errors
    /// [`NodeError`]; the old ones then stay in force.
    pub async fn reconfigure(
        &self,
        service: &ServiceName,
        policy: Policy,
        checks: Vec<CheckSpec>,
    ) -> Result<(), NodeError> {
        let (done, answer) = oneshot::channel();
        let command = Command::Reconfigure {
            policy,
            checks,
            done,
        };
        self.send(service, command).await?;
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(NodeError::Ended {
                service: service.clone(),
            }),
        }
    }

    /// Replaces the settings of a service's drain (a reload), with effect at once also on one
    /// that is under way.
    ///
    /// # Errors
    /// [`NodeError::UnknownService`].
    pub fn set_drain(
        &self,
        service: &ServiceName,
        settings: drain::Settings,
    ) -> Result<(), NodeError> {
        self.entry(service)?.drain.send_replace(settings);
        Ok(())
    }

    async fn send(&self, service: &ServiceName, command: Command) -> Result<(), NodeError> {
        let entry = self.entry(service)?;
        let sent = entry.commands.send(command).await;
        sent.map_err(|_| NodeError::Ended {
            service: service.clone(),
        })
    }

    fn entry(&self, service: &ServiceName) -> Result<&HandleEntry, NodeError> {
        self.services
            .iter()
            .find(|entry| entry.name == *service)
            .ok_or_else(|| NodeError::UnknownService {
                service: service.clone(),
            })
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A task that does not outlive its owner.
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(task))
}
