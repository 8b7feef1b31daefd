//! The kernel announcer, `kind = "loopback"`: the service address itself is the announcement.
//!
//! # Contract
//! Each service address is in the kernel twice. The **permanent copy** is on an interface of
//! ours ([`DEFAULT_INTERFACE`]: a dummy, or one end of a veth pair where the kernel has no
//! dummy) and lets the node serve whatever its preference. The **boost** is on `lo`, has a
//! lifetime ([`DEFAULT_DEAD_MAN`]), and is what the routing daemon announces at full
//! preference. (The permanent copy is a point-to-point address, `192.0.2.69 peer 240.0.2.69`,
//! so that no routing daemon takes it for a connected route of the service prefix beside the
//! boost's: FRR would confuse the two. Its peer is never sent anything.) Removing it demotes to the daemon's own low-preference route for the same
//! prefix, the floor. When this process dies, hangs or is stopped, the kernel removes the
//! boost: no process has to be alive for the demotion, and nothing withdraws.
//!
//! Both copies carry protocol tag [`ADDRESS_PROTOCOL`] (IFA_PROTO, Linux 5.18). Only an address on `lo` with
//! that tag *and* a lifetime is ever replaced or removed; permanent copies are never removed,
//! not even when a service is no longer configured. A permanent copy that the operator put on
//! another interface is accepted as it is, and then nothing is created. An existing interface
//! of the configured name is used only when it is a dummy or a veth and its alias starts with
//! `anycast`, or it has no alias and carries tagged addresses alone, or it is down and bare
//! (an earlier attempt was interrupted).
//!
//! # Failure
//! Every `apply` looks first, changes second, and looks again before it says
//! [`Applied::Confirmed`]. The permanent copy is checked at every renewal and repaired before
//! the boost is written. The two looks and the write are not one transaction, and the kernel
//! has no "replace only if mine": another program that takes over one of our addresses within
//! those microseconds is overwritten once.
//!
//! # Tasks and cancellation
//! There are none, unless several share ([`KernelShare`]: one task that listens): connections are driven inside [`Announcer::apply`], [`Announcer::observe`]
//! and [`Announcer::disturbed`]. Dropping one of these futures drops what it had not sent yet,
//! so nothing is written later; the next `apply` completes whatever was left half-done. Each
//! request ends within 2 s; nothing here queues. (While another program holds the kernel's
//! RTNL lock a request sleeps in its system call, and the thread with it; no time-out can cut
//! that short. The dead man runs on.)

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: a boost's lifetime counts from the decision's age"
)]

mod config;
#[cfg(feature = "doctor")]
pub(crate) mod look;
mod message;
mod monitor;
mod netlink;
mod plan;
mod release;
mod share;

use std::sync::Arc;
use std::time::Duration;

use anycast_core::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, Lifetime, Observation, Preference,
};
use anycast_core::health::Reason;
use anycast_core::service::{ServiceAddress, ServiceAddresses};
use async_trait::async_trait;

pub use self::config::{
    ADDRESS_PROTOCOL, DEFAULT_DEAD_MAN, DEFAULT_INTERFACE, KernelConfig, KernelConfigError,
    MAX_DEAD_MAN, MAX_INTERFACE_LEN, MAX_KEEP, MIN_DEAD_MAN,
};
use self::monitor::{Expectation, Monitor};
use self::netlink::{Failure, Netlink};
use self::plan::{Goal, Plan, Snapshot, Step};
pub use self::share::KernelShare;
use self::share::Seat;

/// How often one `apply` looks and changes before it reports that the state does not settle.
/// A first start needs three: create the interface, fill it, look.
const MAX_ROUNDS: usize = 6;

const REMEDY: &str = "CAP_NET_ADMIN is needed: set AmbientCapabilities=CAP_NET_ADMIN in the \
                      systemd unit, or run setcap cap_net_admin+ep on the binary";

const FLOOR_STANDS: &str =
    "the floor stands in the routing daemon's configuration; withdraw it there";

/// Announces a service with an address on `lo` under a kernel dead man.
///
/// It must be used inside a tokio runtime with IO and time enabled, and stays in the network
/// namespace of the thread that polls it.
pub struct KernelAnnouncer {
    config: KernelConfig,
    /// `None` before the first call, and after one that was dropped or lost its connection.
    netlink: Option<Netlink>,
    monitor: Monitor,
    expected: Expectation,
    share: Option<KernelShare>,
    /// Among those that share; `None` before the first call.
    seat: Option<Seat>,
}

/// What became of one batch of steps.
enum Batch {
    /// All were executed.
    Done,
    /// All were executed, and with them every boost was written.
    Renewed,
    /// One met what the snapshot had not shown; it and those after it were not executed.
    Raced(String),
}

impl std::fmt::Debug for KernelAnnouncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelAnnouncer")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KernelAnnouncer {
    /// An announcer that has not spoken to the kernel yet.
    #[must_use]
    pub fn new(config: KernelConfig) -> Self {
        let expected = Expectation {
            interface: config.interface().to_owned(),
            ..Expectation::default()
        };
        Self {
            config,
            netlink: None,
            monitor: Monitor::default(),
            expected,
            share: None,
            seat: None,
        }
    }

    /// Reads the kernel's addresses, and hears of their changes, together with the others of
    /// this process that share. With many services that saves most of the cost; what each sees
    /// is as fresh as on its own.
    #[must_use]
    pub fn sharing(mut self, share: &KernelShare) -> Self {
        self.share = Some(share.clone());
        self
    }

    /// Checks the right to change addresses, and changes nothing. For a clear start-up error.
    ///
    /// # Errors
    /// [`AnnounceError::Permission`] without CAP_NET_ADMIN in this network namespace,
    /// [`AnnounceError::Backend`] when the kernel is older than 5.18 or cannot be asked.
    pub async fn probe(&mut self) -> Result<(), AnnounceError> {
        let mut netlink = self.take_netlink()?;
        let probed = netlink.probe().await;
        self.put_back(netlink, probed, || "changing service addresses".to_owned())
    }

    fn take_netlink(&mut self) -> Result<Netlink, AnnounceError> {
        let idle = self.share.as_ref().and_then(KernelShare::take);
        match self.netlink.take().or(idle) {
            Some(netlink) => Ok(netlink),
            None => {
                release::check()?;
                Netlink::open().map_err(|failure| explain(failure, "asking the kernel".to_owned()))
            }
        }
    }

    /// Keeps the connection for the next call unless the failure was its own.
    fn put_back<T>(
        &mut self,
        netlink: Netlink,
        result: Result<T, Failure>,
        what: impl FnOnce() -> String,
    ) -> Result<T, AnnounceError> {
        if result.as_ref().err().is_none_or(Failure::spares_connection) {
            self.keep(netlink);
        }
        result.map_err(|failure| explain(failure, what()))
    }

    fn keep(&mut self, netlink: Netlink) {
        match &self.share {
            Some(share) => share.put_back(netlink),
            None => self.netlink = Some(netlink),
        }
    }

    /// Tells those who listen what is expected, before anything is read or changed.
    fn listen(&mut self) {
        if let Some(share) = &self.share {
            let seat = self.seat.get_or_insert_with(|| share.join());
            seat.expect(&self.expected);
        }
    }

    async fn look(
        &mut self,
        addresses: &[ServiceAddress],
        urgent: bool,
    ) -> Result<Snapshot, AnnounceError> {
        if self.share.is_none() {
            self.monitor.drain().await;
        }
        let interface = self.config.interface();
        let what = format!("reading the addresses of lo and {interface}");
        let shared = match &self.share {
            Some(share) => {
                release::check()?;
                let dump = share.dump(urgent).await;
                Some(dump.map_err(|failure| explain(failure, what.clone()))?)
            }
            None => None,
        };
        let mut netlink = self.take_netlink()?;
        let dump = match shared {
            Some(dump) => Ok(dump),
            None => netlink.dump().await.map(Arc::new),
        };
        let interface = self.config.interface();
        let seen = match dump {
            Ok(dump) => netlink.snapshot(&dump, interface, addresses).await,
            Err(failure) => Err(failure),
        };
        self.put_back(netlink, seen, || what)
    }

    /// Executes a batch up to its end, or up to a change by somebody else.
    async fn execute(&mut self, plan: &Plan, decision: &Decision) -> Result<Batch, AnnounceError> {
        let mut batch = Batch::Done;
        for &step in &plan.steps {
            let lifetime = match step {
                Step::CreateBoost { .. } | Step::RenewBoost { .. } => self.lifetime(decision)?,
                Step::CreateLink
                | Step::MarkLink { .. }
                | Step::SetUp { .. }
                | Step::CreateCopy { .. }
                | Step::MakePermanent { .. }
                | Step::RemoveBoost { .. } => 0,
            };
            let mut netlink = self.take_netlink()?;
            let done = netlink
                .execute(step, self.config.interface(), lifetime)
                .await;
            let interface = self.config.interface().to_owned();
            let what = describe(step, &interface);
            if let Err(failure) = &done
                && failure.is_race()
            {
                self.keep(netlink);
                return Ok(Batch::Raced(format!("{what}: {failure}")));
            }
            self.put_back(netlink, done, || what.clone())?;
            if lifetime > 0 {
                batch = Batch::Renewed;
            }
            if !matches!(step, Step::RenewBoost { .. }) {
                tracing::info!(service = %decision.service(), "{what}");
            }
        }
        Ok(batch)
    }

    /// What is left of the decision's time, in the kernel's whole seconds, rounded to the
    /// nearest: with the age of a decision near zero, rounding down would lose a second at
    /// every renewal.
    fn lifetime(&self, decision: &Decision) -> Result<u32, AnnounceError> {
        let age = decision.decided_at().elapsed();
        let whole = match decision.lifetime() {
            Lifetime::DeadMan => self.config.dead_man(),
            Lifetime::Keep(time) => time.min(MAX_KEEP),
        };
        let left = whole.saturating_sub(age) + Duration::from_millis(500);
        match u32::try_from(left.as_secs()) {
            Ok(seconds) if seconds > 0 => Ok(seconds),
            Ok(_) | Err(_) => Err(stale(decision, age)),
        }
    }

    fn check(&self, decision: &Decision) -> Result<Goal, AnnounceError> {
        let age = decision.decided_at().elapsed();
        if decision.lifetime() == Lifetime::DeadMan && age >= self.config.dead_man() {
            return Err(stale(decision, age));
        }
        match decision.preference() {
            Preference::Preferred => Ok(Goal::Renewed),
            Preference::Demoted if !self.config.floor() => Err(AnnounceError::Inexpressible {
                service: decision.service().clone(),
                preference: Preference::Demoted,
                reason: "the routing daemon has no floor (floor = false): without the boost the \
                         route is withdrawn"
                    .to_owned(),
            }),
            Preference::Demoted | Preference::Withdrawn(_) => Ok(Goal::Absent),
        }
    }

    fn outcome(&self, decision: &Decision) -> Applied {
        match decision.preference() {
            Preference::Withdrawn(_) if self.config.floor() => {
                Applied::Unconfirmed(Reason::new(FLOOR_STANDS))
            }
            Preference::Preferred | Preference::Demoted | Preference::Withdrawn(_) => {
                Applied::Confirmed
            }
        }
    }
}

#[async_trait]
impl Announcer for KernelAnnouncer {
    fn kind(&self) -> &'static str {
        "loopback"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::NONE;
        capabilities.demote = self.config.floor();
        capabilities.withdraw = !self.config.floor();
        capabilities.dead_man = Some(self.config.dead_man());
        capabilities
    }

    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        let mut goal = self.check(decision)?;
        let addresses: Vec<_> = decision.addresses().iter().collect();
        self.expected.addresses.clone_from(&addresses);
        self.expected.boost = Some(goal != Goal::Absent);
        self.listen();
        let mut raced = String::new();
        for _ in 0..MAX_ROUNDS {
            let snapshot = self.look(&addresses, goal == Goal::Absent).await?;
            let plan = plan::plan(&snapshot, self.config.interface(), &addresses, goal);
            if plan.steps.is_empty() {
                return match plan.refusals.into_iter().next() {
                    None => Ok(self.outcome(decision)),
                    Some(plan::Refusal { address, reason }) => {
                        Err(AnnounceError::Refused { address, reason })
                    }
                };
            }
            match self.execute(&plan, decision).await? {
                // What remains is to see it there.
                Batch::Renewed => goal = Goal::Present,
                Batch::Done => {}
                Batch::Raced(how) => raced = how,
            }
        }
        let reason = format!("somebody else keeps changing the service addresses; {raced}");
        Ok(Applied::Unconfirmed(Reason::new(&reason)))
    }

    async fn observe(
        &mut self,
        addresses: &ServiceAddresses,
    ) -> Result<Observation, AnnounceError> {
        let addresses: Vec<_> = addresses.iter().collect();
        self.expected.addresses.clone_from(&addresses);
        self.listen();
        let snapshot = self.look(&addresses, false).await?;
        let floor = self.config.floor();
        let observed = addresses
            .iter()
            .map(|&address| (address, plan::in_force(&snapshot, address, floor)))
            .collect();
        Ok(Observation {
            addresses: observed,
        })
    }

    async fn disturbed(&mut self) {
        self.listen();
        match &self.seat {
            Some(seat) => seat.disturbed().await,
            None => self.monitor.disturbed(&self.expected).await,
        }
    }
}

fn stale(decision: &Decision, age: Duration) -> AnnounceError {
    AnnounceError::Stale {
        service: decision.service().clone(),
        age,
    }
}

fn explain(failure: Failure, what: String) -> AnnounceError {
    if failure.is_permission() {
        return AnnounceError::Permission {
            what,
            remedy: REMEDY.to_owned(),
        };
    }
    AnnounceError::Backend {
        what,
        source: Box::new(failure),
    }
}

/// What a step does, as it stands in logs and errors.
fn describe(step: Step, interface: &str) -> String {
    match step {
        Step::CreateLink => format!("creating the interface {interface}"),
        Step::MarkLink { .. } => format!("marking the interface {interface} as ours"),
        Step::SetUp { .. } => format!("setting the interface {interface} up"),
        Step::CreateCopy { address, .. } => {
            format!("adding the permanent copy of {address} to {interface}")
        }
        Step::MakePermanent { address, .. } => {
            format!("making the copy of {address} on {interface} permanent again")
        }
        Step::CreateBoost { address, .. } => format!("adding the boost of {address} to lo"),
        Step::RenewBoost { address, .. } => format!("renewing the boost of {address} on lo"),
        Step::RemoveBoost { address, .. } => format!("removing the boost of {address} from lo"),
    }
}
