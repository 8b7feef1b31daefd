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
//!
//! Either way the answer is read back from the Adj-RIB-Out: the export tables of the channels
//! named in the configuration (`export table on;`). `show route export` is not used, since it
//! runs the filter anew and shows what was never sent. [`Applied::Confirmed`] means that every
//! established session has sent the level's [attribute](Expression) for every address, and
//! that each address has at least one. Whatever else was found is
//! [`Applied::Unconfirmed`], with the channel and what it sends.
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
pub mod export;
mod look;
pub mod reply;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anycast_core::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Observation, Preference,
    Role,
};
use anycast_core::health::Reason;
use anycast_core::service::{ServiceAddress, ServiceAddresses};
use async_trait::async_trait;

use self::client::Client;
use self::command::{Channel, Command, Symbol};
use self::export::exported;
use crate::attributes::Expression;
use crate::kernel::{KernelAnnouncer, KernelConfig};
use crate::readback::{Readback, backend};

/// How long an `apply` waits for the exports to show what was decided. BIRD exports within
/// milliseconds; a session that is slow to take updates needs longer, and is asked again.
pub const VERIFY_FOR: Duration = Duration::from_secs(2);

/// Pause between two looks at the exports.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where Debian's BIRD has its control socket.
pub const DEFAULT_SOCKET: &str = "/run/bird/bird.ctl";

/// What carries the preference into BIRD.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// The service address on `lo`, under the kernel's dead man.
    Kernel(KernelConfig),
    /// Protocols that are enabled while preferred. No dead man.
    Protocol(Vec<Symbol>),
}

/// What the operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirdConfig {
    socket: PathBuf,
    carrier: Carrier,
    channels: Vec<Channel>,
    floor: Vec<Symbol>,
    expression: Option<Expression>,
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BirdConfigError {
    /// There is no channel to read exports from.
    #[error("names no channel, so nothing could be read back; name each, such as router4.ipv4")]
    NoChannel,
    /// The carrier names no protocol.
    #[error("names no protocol that is the boost")]
    NoBoost,
    /// A protocol cannot be both.
    #[error("{0} is both boost and floor; losing the boost would withdraw")]
    Both(String),
    /// The levels are equal or the wrong way round.
    #[error("a demoted route must be inferior to a preferred one")]
    Order,
}

impl BirdConfig {
    /// Reads exports back from `channels`, one or more.
    ///
    /// # Errors
    /// [`BirdConfigError::NoChannel`], [`BirdConfigError::NoBoost`].
    pub fn new(carrier: Carrier, channels: Vec<Channel>) -> Result<Self, BirdConfigError> {
        if channels.is_empty() {
            return Err(BirdConfigError::NoChannel);
        }
        if matches!(&carrier, Carrier::Protocol(boost) if boost.is_empty()) {
            return Err(BirdConfigError::NoBoost);
        }
        Ok(Self {
            socket: DEFAULT_SOCKET.into(),
            carrier,
            channels,
            floor: Vec::new(),
            expression: None,
        })
    }

    /// The control socket; default [`DEFAULT_SOCKET`].
    #[must_use]
    pub fn with_socket(mut self, socket: PathBuf) -> Self {
        self.socket = socket;
        self
    }

    /// The protocols of the floor, which an operator's withdrawal disables. Default: none,
    /// and a withdrawal cannot be expressed.
    ///
    /// # Errors
    /// [`BirdConfigError::Both`].
    pub fn with_floor(mut self, floor: Vec<Symbol>) -> Result<Self, BirdConfigError> {
        if let Carrier::Protocol(boost) = &self.carrier
            && let Some(both) = floor.iter().find(|name| boost.contains(name))
        {
            return Err(BirdConfigError::Both(both.as_str().to_owned()));
        }
        self.floor = floor;
        Ok(self)
    }

    /// The attribute that BIRD's filters set. Default: local preference, 200 and 50 for a
    /// primary, see [`Role::local_pref`].
    ///
    /// # Errors
    /// [`BirdConfigError::Order`].
    pub fn with_expression(mut self, expression: Expression) -> Result<Self, BirdConfigError> {
        if !expression.is_ordered() {
            return Err(BirdConfigError::Order);
        }
        self.expression = Some(expression);
        Ok(self)
    }
}

/// Announces a service through a BIRD that runs on this host.
#[derive(Debug)]
pub struct BirdAnnouncer {
    client: Client,
    kernel: Option<KernelAnnouncer>,
    boost: Vec<Symbol>,
    channels: Vec<Channel>,
    floor: Vec<Symbol>,
    expression: Option<Expression>,
    /// Whose levels exports are read as; of the last decision.
    role: Role,
}

impl BirdAnnouncer {
    /// An announcer that has spoken to nobody yet. `role` decides which local preferences
    /// mean which level until the first decision says it.
    #[must_use]
    pub fn new(config: BirdConfig, role: Role) -> Self {
        let (kernel, boost) = match config.carrier {
            Carrier::Kernel(kernel) => (Some(KernelAnnouncer::new(kernel)), Vec::new()),
            Carrier::Protocol(boost) => (None, boost),
        };
        Self {
            client: Client::new(&config.socket),
            kernel,
            boost,
            channels: config.channels,
            floor: config.floor,
            expression: config.expression,
            role,
        }
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
        let channels = self.channels.iter().map(Channel::protocol);
        let names = channels.chain(&self.boost).chain(&self.floor);
        for name in names.cloned().collect::<Vec<_>>() {
            self.command(Command::ShowProtocol(name)).await?;
        }
        Ok(())
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

    /// The floor is put up before anything else, and taken down after everything else.
    async fn carry(&mut self, decision: &Decision) -> Result<(), AnnounceError> {
        let (floor, boost) = (self.floor.clone(), self.boost.clone());
        let is_withdrawn = decision.preference().is_withdrawn();
        if !is_withdrawn {
            self.set(&floor, true).await?;
        }
        match &mut self.kernel {
            // What it could not confirm shows in the exports.
            Some(kernel) => drop(kernel.apply(decision).await?),
            None => {
                let is_preferred = decision.preference() == Preference::Preferred;
                self.set(&boost, is_preferred).await?;
            }
        }
        if is_withdrawn {
            self.set(&floor, false).await?;
        }
        Ok(())
    }

    async fn is_established(&mut self, channel: &Channel) -> Result<bool, AnnounceError> {
        let name = channel.protocol();
        let reply = self.command(Command::ShowProtocol(name.clone())).await?;
        Ok(reply.lines().iter().any(|line| {
            let mut words = line.text.split_whitespace();
            words.next() == Some(name.as_str()) && words.last() == Some("Established")
        }))
    }

    /// What each established session has sent, by address.
    async fn exports(&mut self, addresses: &[ServiceAddress]) -> Result<Readback, AnnounceError> {
        let expression = self.expression;
        let expression = expression.unwrap_or_else(|| Expression::local_pref(self.role));
        let mut found = Readback::default();
        for channel in self.channels.clone() {
            if !self.is_established(&channel).await? {
                found.silent.push(channel.to_string());
                continue;
            }
            for &address in addresses.iter().filter(|one| channel.carries(**one)) {
                let ask = Command::ShowExported(channel.clone(), address);
                let reply = self
                    .client
                    .ask(&ask)
                    .await
                    .map_err(|source| backend(format!("BIRD: `{ask}`"), source))?;
                let route = exported(&reply, address)
                    .map_err(|source| backend(format!("BIRD: {channel}: {address}"), source))?;
                let level = match route {
                    None => Ok(InForce::Withdrawn),
                    Some(route) => expression.level(&route.attributes),
                };
                found.sent.push((channel.to_string(), address, level));
            }
        }
        Ok(found)
    }

    /// Waits until the exports are as decided, for a time.
    async fn verify(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        let addresses: Vec<_> = decision.addresses().iter().collect();
        let deadline = Instant::now() + VERIFY_FOR;
        loop {
            let found = self.exports(&addresses).await?;
            match found.differs(&addresses, decision.preference()) {
                None => return Ok(Applied::Confirmed),
                Some(how) if Instant::now() >= deadline => {
                    return Ok(Applied::Unconfirmed(Reason::new(&how)));
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
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
        self.verify(decision).await
    }

    async fn observe(
        &mut self,
        addresses: &ServiceAddresses,
    ) -> Result<Observation, AnnounceError> {
        let addresses: Vec<_> = addresses.iter().collect();
        self.exports(&addresses).await?.observation(&addresses)
    }

    async fn disturbed(&mut self) {
        match &mut self.kernel {
            Some(kernel) => kernel.disturbed().await,
            None => std::future::pending().await,
        }
    }
}
