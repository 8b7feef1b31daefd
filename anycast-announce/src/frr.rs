//! The FRR announcer, `kind = "frr"`: a preference is in force when bgpd has sent it.
//!
//! # Contract
//! The operator chooses what [`carries`](Carrier) the preference:
//!
//! - [`Carrier::Kernel`]: the address on `lo` with its dead man, exactly as
//!   [`kernel`](crate::kernel) does it; FRR's configuration holds floor and boost and is never
//!   written.
//! - [`Carrier::RouteMap`]: an entry of the neighbours' outgoing route-maps, see
//!   [`route_map`]. **There is no dead man**: when this process dies, the level stays.
//!
//! What was sent is read back from the Adj-RIB-Out (`advertised-routes json`) of each
//! neighbour named in the configuration, over bgpd's vty socket, which answers in under a
//! millisecond where starting vtysh takes forty. [`Applied::Confirmed`] means that every
//! established session has sent the level's [attribute](Expression) for every address, and
//! that each address has at least one; whatever else was found is [`Applied::Unconfirmed`],
//! with the neighbour and what it was sent, and so is a bgpd that does not answer. The boost is
//! renewed all the same, before anything is asked of bgpd: a daemon that hangs or is restarted
//! lowers no healthy node. Until the first decision was carried, what bgpd cannot tell is taken
//! from the kernel: the boost is what will be announced. After it, it is not known.
//!
//! A withdrawal cannot be expressed: the floor stands in FRR's configuration.
//! FRR 8.4 does not print communities there, so [`Expression::Community`] is refused.
//!
//! # Tasks and cancellation
//! None: everything runs inside the trait's methods. A dropped future closes the connection;
//! the next `apply` looks and completes.
//!
//! Measured on FRR 8.4.4.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: waits for updates in real time"
)]

pub mod advertised;
pub mod client;
mod config;
pub mod route_map;
pub mod vty;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anycast_core::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Level, Observation,
    Preference, Role,
};
use anycast_core::health::Reason;
use anycast_core::service::{ServiceAddress, ServiceAddresses};
use async_trait::async_trait;

use self::advertised::{Advertised, is_established};
use self::client::{Client, Question};
pub use self::config::{Carrier, DEFAULT_SOCKET, FrrConfig, FrrConfigError};
use self::route_map::{RouteMaps, clause};
use crate::attributes::Expression;
use crate::kernel::{KernelAnnouncer, KernelShare};
use crate::readback::{self, Readback, backend};

/// How long an `apply` waits for bgpd to have sent what was decided. The first update after a
/// start waits for the session's initial tables; then it is asked again. At most a third of
/// the dead-man time, so that waiting never costs a renewal.
pub const VERIFY_FOR: Duration = Duration::from_secs(2);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Announces a service through an FRR that runs on this host.
#[derive(Debug)]
pub struct FrrAnnouncer {
    client: Client,
    kernel: Option<KernelAnnouncer>,
    route_maps: Option<RouteMaps>,
    neighbours: Vec<IpAddr>,
    expression: Option<Expression>,
    /// Whose levels updates are read as; of the last decision.
    role: Role,
    /// A first decision was carried; what is in force is no longer what was found.
    has_carried: bool,
}

impl FrrAnnouncer {
    /// An announcer that has spoken to nobody yet. `role` decides which local preferences
    /// mean which level until the first decision says it.
    #[must_use]
    pub fn new(config: FrrConfig, role: Role) -> Self {
        let (kernel, route_maps) = match config.carrier {
            Carrier::Kernel(kernel) => (Some(KernelAnnouncer::new(kernel)), None),
            Carrier::RouteMap(maps) => (None, Some(maps)),
        };
        Self {
            client: Client::new(&config.socket),
            kernel,
            route_maps,
            neighbours: config.neighbours,
            expression: config.expression,
            role,
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

    /// Checks that bgpd answers and knows the neighbours, and the right to change addresses.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`AnnounceError`], in one line with the remedy.
    pub async fn probe(&mut self) -> Result<(), AnnounceError> {
        if let Some(kernel) = &mut self.kernel {
            kernel.probe().await?;
        }
        let summary = self.ask(Question::Summary).await?;
        for neighbour in self.neighbours.clone() {
            let name = neighbour.to_string();
            let is_known = [true, false].into_iter().any(|is_v4| {
                let state = is_established(&summary, is_v4, &name);
                state.is_ok_and(|state| state.is_some())
            });
            if !is_known {
                let why = std::io::Error::other("bgpd has no such neighbour in its default VRF");
                return Err(backend(format!("FRR: neighbour {name}"), why));
            }
        }
        if let Some(maps) = self.route_maps.clone() {
            self.differing(&maps, "").await?;
            // A vtysh that works, and the right to use it.
            let look = ["show version".to_owned()];
            let looked = maps.run(self.client.path(), &look);
            looked
                .await
                .map_err(|e| backend("FRR: vtysh".to_owned(), e))?;
        }
        Ok(())
    }

    /// The entries that do not say this, as the lines that lead to each.
    async fn differing(
        &mut self,
        maps: &RouteMaps,
        wanted: &str,
    ) -> Result<Vec<String>, AnnounceError> {
        let word = wanted.split(' ').next().unwrap_or_default();
        let mut differing = Vec::new();
        self.ask(Question::Enable).await?;
        for entry in maps.entries() {
            let text = self.ask(Question::RouteMap(entry.clone())).await?;
            let found = clause(&text, entry, word)
                .map_err(|e| backend(format!("FRR: {entry}"), e))?
                .ok_or_else(|| {
                    let why = "there is no such entry, and to set something in it would make \
                               one that permits everything; configure it first";
                    backend(format!("FRR: {entry}"), std::io::Error::other(why))
                })?;
            if found.as_deref() != Some(wanted) {
                differing.push(entry.to_string());
            }
        }
        Ok(differing)
    }

    /// Sets the level in the route-maps and has it sent, unless both is done.
    async fn carry_in(
        &mut self,
        maps: &RouteMaps,
        decision: &Decision,
    ) -> Result<(), AnnounceError> {
        let is_preferred = decision.preference() == Preference::Preferred;
        let level = if is_preferred {
            Level::Preferred
        } else {
            Level::Demoted
        };
        let wanted = route_map::wanted(self.expression, self.role, level);
        let differing = self.differing(maps, &wanted).await?;
        let addresses: Vec<_> = decision.addresses().iter().collect();
        let is_sent = |found: &Readback| found.differs(&addresses, decision.preference()).is_none();
        if differing.is_empty() && is_sent(&self.sent(&addresses).await?) {
            return Ok(());
        }
        let mut lines = Vec::new();
        if !differing.is_empty() {
            lines.push("configure terminal".to_owned());
            for entry in differing {
                lines.extend([entry, format!("set {wanted}")]);
            }
            lines.push("end".to_owned());
        }
        lines.extend(self.clears(&addresses).await?);
        let done = maps.run(self.client.path(), &lines).await;
        done.map_err(|e| backend("FRR: changing the route-maps".to_owned(), e))?;
        match self.differing(maps, &wanted).await?.first() {
            None => Ok(()),
            Some(entry) => {
                let why =
                    format!("it was set to `{wanted}` and does not say so; who else sets it?");
                Err(backend(format!("FRR: {entry}"), std::io::Error::other(why)))
            }
        }
    }

    /// The commands that have every established session sent what has changed.
    async fn clears(&mut self, addresses: &[ServiceAddress]) -> Result<Vec<String>, AnnounceError> {
        let summary = self.ask(Question::Summary).await?;
        let mut lines = Vec::new();
        for (is_v4, family) in [(true, "ipv4"), (false, "ipv6")] {
            if !addresses.iter().any(|one| one.ip().is_ipv4() == is_v4) {
                continue;
            }
            for neighbour in &self.neighbours {
                let state = is_established(&summary, is_v4, &neighbour.to_string());
                let state = state.map_err(|e| backend("FRR: sessions".to_owned(), e))?;
                if state == Some(true) {
                    lines.push(format!("clear bgp {family} unicast {neighbour} soft out"));
                }
            }
        }
        Ok(lines)
    }

    async fn ask(&mut self, question: Question) -> Result<String, AnnounceError> {
        let what = || format!("FRR: `{question}`");
        let reply = self.client.ask(question.clone()).await;
        let reply = reply.map_err(|source| backend(what(), source))?;
        if reply.is_success() {
            return Ok(reply.text);
        }
        let said = Reason::new(reply.text.trim());
        let why = std::io::Error::other(format!("status {}: {said}", reply.status));
        Err(backend(what(), why))
    }

    /// What each established session was sent, by address.
    async fn sent(&mut self, addresses: &[ServiceAddress]) -> Result<Readback, AnnounceError> {
        let expression = self.expression;
        let expression = expression.unwrap_or_else(|| Expression::local_pref(self.role));
        let summary = self.ask(Question::Summary).await?;
        let mut found = Readback::default();
        for is_v4 in [true, false] {
            let family: Vec<_> = addresses
                .iter()
                .copied()
                .filter(|address| address.ip().is_ipv4() == is_v4)
                .collect();
            if family.is_empty() {
                continue;
            }
            for neighbour in self.neighbours.clone() {
                let state = is_established(&summary, is_v4, &neighbour.to_string());
                let state = state.map_err(|e| backend("FRR: sessions".to_owned(), e))?;
                match state {
                    // It does not carry this family.
                    None => continue,
                    Some(false) => {
                        found.silent.push(neighbour.to_string());
                        continue;
                    }
                    Some(true) => {}
                }
                let text = self.ask(Question::Advertised(neighbour, is_v4)).await?;
                let sent = Advertised::parse(&text)
                    .map_err(|e| backend(format!("FRR: neighbour {neighbour}"), e))?;
                for &address in &family {
                    let level = match sent.route(address) {
                        None => Ok(InForce::Withdrawn),
                        Some(attributes) => expression.level(&attributes),
                    };
                    found.sent.push((neighbour.to_string(), address, level));
                }
            }
        }
        Ok(found)
    }

    /// Waits until what was sent is as decided, for a time.
    async fn verify(
        &mut self,
        decision: &Decision,
        deadline: Instant,
    ) -> Result<Applied, AnnounceError> {
        let addresses: Vec<_> = decision.addresses().iter().collect();
        loop {
            let found = self.sent(&addresses).await?;
            match found.differs(&addresses, decision.preference()) {
                None => return Ok(Applied::Confirmed),
                Some(how) if Instant::now() + LOOK_EVERY >= deadline => {
                    return Ok(Applied::Unconfirmed(Reason::new(&how)));
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// How long bgpd may take beside the dead man.
    fn patience(&self) -> Duration {
        readback::patience(self.capabilities().dead_man, VERIFY_FOR)
    }

    fn slow(&self, patience: Duration) -> Reason {
        let socket = self.client.path().display();
        Reason::new(&format!(
            "{socket}: bgpd has not answered within {patience:?}"
        ))
    }
}

#[async_trait]
impl Announcer for FrrAnnouncer {
    fn kind(&self) -> &'static str {
        "frr"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::NONE;
        capabilities.demote = true;
        capabilities.roles = self.expression.is_none();
        if let Some(kernel) = &self.kernel {
            capabilities.dead_man = kernel.capabilities().dead_man;
        }
        capabilities
    }

    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        self.role = decision.role();
        if let Some(kernel) = &mut self.kernel {
            let carried = kernel.apply(decision).await?;
            self.has_carried = true;
            if decision.preference().is_withdrawn() {
                // As near as it comes: demoted, and the kernel announcer says why no nearer.
                return Ok(carried);
            }
        } else if let Some(maps) = self.route_maps.clone() {
            if decision.preference().is_withdrawn() {
                return Err(AnnounceError::Inexpressible {
                    service: decision.service().clone(),
                    preference: decision.preference(),
                    reason: "the route stands in FRR's configuration; withdraw it there".to_owned(),
                });
            }
            self.carry_in(&maps, decision).await?;
            self.has_carried = true;
        }
        let patience = self.patience();
        let verified = self.verify(decision, Instant::now() + patience);
        match tokio::time::timeout(patience + LOOK_EVERY, verified).await {
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
        let sent = match tokio::time::timeout(patience, self.sent(&list)).await {
            Ok(found) => found.and_then(|found| found.observation(&list)),
            Err(_) => {
                let why = std::io::Error::other(self.slow(patience).to_string());
                Err(backend("what is announced".to_owned(), why))
            }
        };
        match (kernel, sent) {
            (None, sent) => sent,
            // The permanent copy may be gone while the floor is still announced.
            (Some(kernel), Ok(sent)) => Ok(readback::lowest(sent, &kernel)),
            (Some(kernel), Err(error)) if !self.has_carried => {
                let reason = readback::reason(&error);
                tracing::warn!(%reason, "what is announced is not known; starting from the kernel");
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
