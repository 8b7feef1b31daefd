//! The BIRD announcer, `kind = "bird"`: a preference is in force when BIRD has exported it.
//!
//! # Contract
//! What [`carries`](Carrier) the preference is chosen by the operator:
//!
//! - [`Carrier::Kernel`], the default: the address on `lo` with its dead man, exactly as
//!   [`kernel`](crate::kernel) does it. BIRD's configuration is never written, and the death
//!   of this process demotes.
//! - [`Carrier::Protocol`]: BIRD's own protocols are enabled and disabled. **There is no dead
//!   man**: when this process dies, what was announced stays announced. For hosts on which
//!   addresses cannot be changed.
//! - [`Carrier::Include`]: a generated file holds the level, and BIRD loads its configuration
//!   anew, see [`mod@include`]. **There is no dead man** either. For policies that floor and boost
//!   cannot express.
//!
//! Either way the answer is read back from the Adj-RIB-Out: the export tables of the channels
//! named in the configuration (`export table on;`). `show route export` is not used, since it
//! runs the filter anew and shows what was never sent. In one case the export table does not
//! show what was sent either: a MED towards another AS, beside other attributes. That is never
//! confirmed. By OSPF, which has no Adj-RIB-Out, what this node originates is read from its
//! link-state database ([`ospf`]); the channels are those of the protocols of OSPF then, and the
//! expression is [`Expression::OspfMetric`]. [`Applied::Confirmed`] means that every
//! established session has sent the level's [attribute](Expression) for every address, and
//! that each address has at least one. Whatever else was found is
//! [`Applied::Unconfirmed`], with the channel and what it sends; so is a BIRD that does not
//! answer. The kernel's boost is renewed all the same, before anything is asked of BIRD: a
//! daemon that hangs or is restarted lowers no healthy node.
//!
//! Until this announcer has applied its first decision, what BIRD cannot tell (it is not up,
//! no session stands) is taken from the kernel where that carries: the boost is what will be
//! exported. After it, what BIRD cannot tell is not known.
//!
//! `Withdrawn` disables the floor's protocols, where these are named; without them a
//! withdrawal cannot be expressed. Protocols disabled by hand come back with any plain
//! `birdc configure`; the driver sees that at its next observation and repairs it.
//!
//! # Tasks and cancellation
//! None: everything runs inside the trait's methods. A dropped future closes the control
//! connection; the next `apply` looks and completes. Each command ends within
//! [`TIME_OUT`](client::TIME_OUT).
//!
//! Measured on BIRD 2.0.12.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: waits for exports in real time"
)]

pub mod client;
pub mod command;
mod config;
pub mod export;
pub mod include;
pub mod loaded;
mod look;
pub mod ospf;
pub mod reply;

use std::time::{Duration, Instant};

use anycast_core::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Level, Observation,
    Preference, Role,
};
use anycast_core::health::Reason;
use anycast_core::service::{ServiceAddress, ServiceAddresses};
use async_trait::async_trait;

use self::client::Client;
use self::command::{Channel, Command, Symbol};
pub use self::config::{BirdConfig, BirdConfigError, Carrier, DEFAULT_SOCKET};
use self::export::exported;
use self::include::{Include, level_of};
use self::ospf::originated;
use crate::attributes::{Attributes, Expression};
use crate::kernel::{KernelAnnouncer, KernelShare};
use crate::readback::{self, Readback, backend};

/// How long an `apply` waits for the exports to show what was decided, and at most a third of
/// the dead-man time, so that waiting never costs a renewal. BIRD exports within milliseconds;
/// a session that is slow to take updates needs longer, and is asked again.
pub const VERIFY_FOR: Duration = Duration::from_secs(2);

/// Pause between two looks at the exports.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The same where BIRD shows its whole link-state database: BIRD is one thread, which has hellos to
/// send meanwhile, and originates an LSA once in 5 s at most.
const LOOK_EVERY_OSPF: Duration = Duration::from_millis(500);

/// The export table is not the wire in one case. Towards another AS BIRD 2.0.12 sends only a MED
/// that its filter has just set, and no longer knows that of one when a route whose filter made
/// more than one change has been through the table. A filter that sets the MED twice and nothing
/// else loses it too, and that alone cannot be seen.
const LOST_MED: &str = "a MED beside other attributes, and towards another AS BIRD 2.0.12 loses \
                        such a MED where the export table is on; let the filter set the MED \
                        alone, and once, or show the level by `community` or `prepend`";

/// An established session.
#[derive(Debug, Clone, Copy)]
struct Session {
    /// With another AS.
    is_external: bool,
}

impl Session {
    fn loses_med(self, expression: Expression, route: &Attributes) -> bool {
        let by_med = matches!(expression, Expression::Med { .. });
        by_med && self.is_external && route.med.is_some() && route.shown > 1
    }
}

/// Announces a service through a BIRD that runs on this host.
#[derive(Debug)]
pub struct BirdAnnouncer {
    client: Client,
    kernel: Option<KernelAnnouncer>,
    boost: Vec<Symbol>,
    include: Option<Include>,
    channels: Vec<Channel>,
    floor: Vec<Symbol>,
    expression: Option<Expression>,
    /// Whose levels exports are read as; of the last decision.
    role: Role,
    /// The floor's protocols were found or set up, and not taken down since.
    floor_stands: bool,
    /// A first decision was carried; what is in force is no longer what was found.
    has_carried: bool,
}

impl BirdAnnouncer {
    /// An announcer that has spoken to nobody yet. `role` decides which local preferences
    /// mean which level until the first decision says it.
    #[must_use]
    pub fn new(config: BirdConfig, role: Role) -> Self {
        let mut include = None;
        let (kernel, boost) = match config.carrier {
            Carrier::Kernel(kernel) => (Some(KernelAnnouncer::new(kernel)), Vec::new()),
            Carrier::Protocol(boost) => (None, boost),
            Carrier::Include(file) => {
                include = Some(Include::new(file));
                (None, Vec::new())
            }
        };
        Self {
            client: Client::new(&config.socket),
            kernel,
            boost,
            include,
            channels: config.channels,
            floor: config.floor,
            expression: config.expression,
            role,
            floor_stands: false,
            has_carried: false,
        }
    }

    /// Reads the kernel's addresses together with others of this process, see
    /// [`KernelAnnouncer::sharing`]. Without effect where the kernel does not carry.
    #[must_use]
    pub fn sharing(mut self, share: &KernelShare) -> Self {
        self.kernel = self.kernel.map(|kernel| kernel.sharing(share));
        self
    }

    /// Checks that BIRD answers, that its protocols are as named, and the right to change
    /// addresses where that is needed. Changes nothing.
    ///
    /// # Errors
    /// [`AnnounceError`], in one line with the remedy.
    pub async fn probe(&mut self) -> Result<(), AnnounceError> {
        if let Some(kernel) = &mut self.kernel {
            kernel.probe().await?;
        }
        for channel in self.channels.clone() {
            let ask = Command::ShowProtocol(channel.protocol().clone());
            let reply = self.command(ask).await?;
            self.fits(&channel, &reply)?;
        }
        let names = self.boost.iter().chain(&self.floor);
        for name in names.cloned().collect::<Vec<_>>() {
            self.command(Command::ShowProtocol(name)).await?;
        }
        if let Some(include) = &self.include {
            include
                .probe()
                .map_err(|source| backend("BIRD: the include file".to_owned(), source))?;
        } else if self.boost.is_empty() && self.floor.is_empty() {
            return Ok(()); // to show is all that is needed
        }
        // It changes nothing, and a restricted socket denies it. What it says of the
        // configuration is the operator's business.
        let check = self.client.ask(&Command::ConfigureCheck).await;
        check.map(drop).map_err(|source| {
            let what = "BIRD: more is needed than to look".to_owned();
            backend(what, source)
        })
    }

    /// A command whose failure is an error.
    async fn command(&mut self, command: Command) -> Result<reply::Reply, AnnounceError> {
        let reply = self.client.ask(&command).await.map_err(|source| {
            let what = format!("BIRD: `{command}`");
            backend(what, source)
        })?;
        if reply.is_error() {
            let said = format!("{:04} {}", reply.code(), reply.last_text());
            let said = Reason::new(&said);
            return Err(backend(
                format!("BIRD: `{command}` on {}", self.client.path().display()),
                std::io::Error::other(said.to_string()),
            ));
        }
        Ok(reply)
    }

    async fn set(&mut self, names: &[Symbol], enabled: bool) -> Result<(), AnnounceError> {
        for name in names {
            let command = if enabled {
                Command::Enable(name.clone())
            } else {
                Command::Disable(name.clone())
            };
            self.command(command).await?;
        }
        Ok(())
    }

    /// Puts the floor up. One that cannot be known to stand forbids a raise: the loss of that
    /// boost would be a withdrawal.
    async fn raise_floor(&mut self) -> Result<(), AnnounceError> {
        let floor = self.floor.clone();
        self.set(&floor, true).await?;
        self.floor_stands = true;
        Ok(())
    }

    /// What comes first. A floor that stands is looked after later: the boost must not wait
    /// for a BIRD that hangs.
    async fn carry(&mut self, decision: &Decision) -> Result<(), AnnounceError> {
        let is_preferred = decision.preference() == Preference::Preferred;
        if !decision.preference().is_withdrawn() && !self.floor_stands {
            let raised = self.raise_floor().await;
            if is_preferred || self.kernel.is_none() {
                raised?;
            }
        }
        if let Some(kernel) = &mut self.kernel {
            // What it could not confirm shows in the exports.
            drop(kernel.apply(decision).await?);
        } else if let Some(include) = &mut self.include {
            let level = if is_preferred {
                Level::Preferred
            } else {
                Level::Demoted
            };
            let value = level_of(self.expression, self.role, level);
            let loaded = include.load(&mut self.client, value).await;
            loaded.map_err(|source| backend("BIRD: the include file".to_owned(), source))?;
        } else {
            let boost = self.boost.clone();
            self.set(&boost, is_preferred).await?;
        }
        self.has_carried = true;
        Ok(())
    }

    /// What comes after it: the floor, and the proof.
    async fn settle(
        &mut self,
        decision: &Decision,
        deadline: Instant,
    ) -> Result<Applied, AnnounceError> {
        if decision.preference().is_withdrawn() {
            let floor = self.floor.clone();
            self.floor_stands = false;
            self.set(&floor, false).await?;
        } else {
            self.raise_floor().await?;
        }
        self.verify(decision, deadline).await
    }

    /// How long BIRD may take beside the dead man.
    fn patience(&self) -> Duration {
        readback::patience(self.capabilities().dead_man, VERIFY_FOR)
    }

    fn slow(&self, patience: Duration) -> Reason {
        let socket = self.client.path().display();
        Reason::new(&format!(
            "{socket}: BIRD has not answered within {patience:?}"
        ))
    }

    /// Refuses a channel of another kind of protocol than the expression is read back from: its
    /// session would only ever seem to be down.
    fn fits(&self, channel: &Channel, reply: &reply::Reply) -> Result<(), AnnounceError> {
        let wanted = if self.is_ospf() { "OSPF" } else { "BGP" };
        let kind = reply.lines().iter().find_map(|line| {
            let mut words = line.text.split_whitespace();
            (words.next() == Some(channel.protocol().as_str())).then(|| words.next())?
        });
        match kind {
            Some(kind @ ("BGP" | "OSPF")) if kind != wanted => {
                let why = if self.is_ospf() {
                    "its protocol is BGP, where no level shows as a metric of OSPF"
                } else {
                    "its protocol is OSPF; say by `ospf_metric2` (or 1) how a level shows"
                };
                let what = format!("BIRD: the channel {channel}");
                Err(backend(what, std::io::Error::other(why)))
            }
            _ => Ok(()),
        }
    }

    /// The session behind this channel, where it stands.
    async fn session(&mut self, channel: &Channel) -> Result<Option<Session>, AnnounceError> {
        let name = channel.protocol();
        let ask = if matches!(self.expression, Some(Expression::Med { .. })) {
            Command::ShowProtocolAll(name.clone())
        } else {
            Command::ShowProtocol(name.clone())
        };
        // A protocol of OSPF without a neighbour is "Alone".
        let stands = if self.is_ospf() {
            "Running"
        } else {
            "Established"
        };
        let reply = self.command(ask).await?;
        let is_established = reply.lines().iter().any(|line| {
            let mut words = line.text.split_whitespace();
            words.next() == Some(name.as_str()) && words.last() == Some(stands)
        });
        let is_external = reply.lines().iter().any(|line| {
            let mut words = line.text.split_whitespace();
            words.next() == Some("Session:") && words.next() == Some("external")
        });
        Ok(is_established.then_some(Session { is_external }))
    }

    const fn is_ospf(&self) -> bool {
        matches!(self.expression, Some(Expression::OspfMetric { .. }))
    }

    /// The routes that this channel has sent, or that its protocol originates.
    async fn sent_by(
        &mut self,
        channel: &Channel,
        addresses: &[ServiceAddress],
    ) -> Result<Vec<(ServiceAddress, Option<Attributes>)>, AnnounceError> {
        // The whole link-state database comes in one reply, so it is asked for once.
        let database = if self.is_ospf() {
            let ask = Command::ShowOspfState(channel.protocol().clone());
            Some(self.said(&ask).await?)
        } else {
            None
        };
        let mut sent = Vec::new();
        for &address in addresses.iter().filter(|one| channel.carries(**one)) {
            let route = if let Some(database) = &database {
                originated(database, address)
            } else {
                let ask = Command::ShowExported(channel.clone(), address);
                let reply = self.said(&ask).await?;
                exported(&reply, address).map(|route| route.map(|route| route.attributes))
            };
            let wrong = |source| backend(format!("BIRD: {channel}: {address}"), source);
            sent.push((address, route.map_err(wrong)?));
        }
        Ok(sent)
    }

    /// A reply, whatever it says.
    async fn said(&mut self, ask: &Command) -> Result<reply::Reply, AnnounceError> {
        let reply = self.client.ask(ask).await;
        reply.map_err(|source| backend(format!("BIRD: `{ask}`"), source))
    }

    /// What each established session has sent, by address.
    async fn exports(&mut self, addresses: &[ServiceAddress]) -> Result<Readback, AnnounceError> {
        let expression = self.expression;
        let expression = expression.unwrap_or_else(|| Expression::local_pref(self.role));
        let mut found = Readback::default();
        for channel in self.channels.clone() {
            let Some(session) = self.session(&channel).await? else {
                found.silent.push(channel.to_string());
                continue;
            };
            for (address, route) in self.sent_by(&channel, addresses).await? {
                let level = match route {
                    None => Ok(InForce::Withdrawn),
                    Some(route) if session.loses_med(expression, &route) => {
                        Err(LOST_MED.to_owned())
                    }
                    Some(route) => expression.level(&route),
                };
                found.sent.push((channel.to_string(), address, level));
            }
        }
        Ok(found)
    }

    /// Waits until the exports are as decided, for a time.
    async fn verify(
        &mut self,
        decision: &Decision,
        deadline: Instant,
    ) -> Result<Applied, AnnounceError> {
        let addresses: Vec<_> = decision.addresses().iter().collect();
        let pause = if self.is_ospf() {
            LOOK_EVERY_OSPF
        } else {
            LOOK_EVERY
        };
        loop {
            let found = self.exports(&addresses).await?;
            match found.differs(&addresses, decision.preference()) {
                None => return Ok(Applied::Confirmed),
                Some(how) if Instant::now() + pause >= deadline => {
                    return Ok(Applied::Unconfirmed(Reason::new(&how)));
                }
                Some(_) => tokio::time::sleep(pause).await,
            }
        }
    }
}

#[async_trait]
impl Announcer for BirdAnnouncer {
    fn kind(&self) -> &'static str {
        "bird"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::NONE;
        capabilities.demote = true;
        capabilities.withdraw = !self.floor.is_empty();
        capabilities.roles = self.expression.is_none();
        if let Some(kernel) = &self.kernel {
            capabilities.dead_man = kernel.capabilities().dead_man;
        }
        capabilities
    }

    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        self.role = decision.role();
        if decision.preference().is_withdrawn() && self.floor.is_empty() {
            return Err(AnnounceError::Inexpressible {
                service: decision.service().clone(),
                preference: decision.preference(),
                reason: "the floor stands in BIRD's configuration; name its protocols in \
                         `floor_protocols`, or withdraw it there"
                    .to_owned(),
            });
        }
        self.carry(decision).await?;
        let patience = self.patience();
        let settled = self.settle(decision, Instant::now() + patience);
        match tokio::time::timeout(patience + LOOK_EVERY, settled).await {
            Ok(Ok(applied)) => Ok(applied),
            // It was written, and cannot be read back.
            Ok(Err(error)) => Ok(Applied::Unconfirmed(readback::reason(&error))),
            Err(_) => Ok(Applied::Unconfirmed(self.slow(patience))),
        }
    }

    async fn observe(
        &mut self,
        addresses: &ServiceAddresses,
    ) -> Result<Observation, AnnounceError> {
        let kernel = match &mut self.kernel {
            Some(kernel) => Some(kernel.observe(addresses).await?),
            None => None,
        };
        let (list, patience): (Vec<_>, _) = (addresses.iter().collect(), self.patience());
        let exported = match tokio::time::timeout(patience, self.exports(&list)).await {
            Ok(found) => found.and_then(|found| found.observation(&list)),
            Err(_) => {
                let why = std::io::Error::other(self.slow(patience).to_string());
                Err(backend("what is exported".to_owned(), why))
            }
        };
        match (kernel, exported) {
            (None, exported) => exported,
            // The permanent copy may be gone while the floor is still exported.
            (Some(kernel), Ok(exported)) => Ok(readback::lowest(exported, &kernel)),
            (Some(kernel), Err(error)) if !self.has_carried => {
                let reason = readback::reason(&error);
                tracing::warn!(%reason, "what is exported is not known; starting from the kernel");
                Ok(kernel)
            }
            (Some(_), Err(error)) => Err(error),
        }
    }

    async fn disturbed(&mut self) {
        match &mut self.kernel {
            Some(kernel) => kernel.disturbed().await,
            None => std::future::pending().await,
        }
    }
}
