//! The FRR announcer, `kind = "frr"`: a preference is in force when bgpd has sent it.
//!
//! # Contract
//! The address on `lo` with its dead man carries the preference, exactly as
//! [`kernel`](crate::kernel) does it; FRR's configuration holds floor and boost and is never
//! written. What was sent is read back from the Adj-RIB-Out (`advertised-routes json`) of each
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
pub mod vty;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anycast_core::announce::{
    AnnounceError, Announcer, Applied, Capabilities, Decision, InForce, Observation, Role,
};
use anycast_core::health::Reason;
use anycast_core::service::{ServiceAddress, ServiceAddresses};
use async_trait::async_trait;

use self::advertised::{Advertised, is_established};
use self::client::{Client, Question};
use crate::attributes::Expression;
use crate::kernel::{KernelAnnouncer, KernelConfig, KernelShare};
use crate::readback::{self, Readback, backend};

/// How long an `apply` waits for bgpd to have sent what was decided. The first update after a
/// start waits for the session's initial tables; then it is asked again. At most a third of
/// the dead-man time, so that waiting never costs a renewal.
pub const VERIFY_FOR: Duration = Duration::from_secs(2);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where Debian's FRR has bgpd's vty socket.
pub const DEFAULT_SOCKET: &str = "/run/frr/bgpd.vty";

/// What the operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrrConfig {
    socket: PathBuf,
    kernel: KernelConfig,
    neighbours: Vec<IpAddr>,
    expression: Option<Expression>,
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrrConfigError {
    /// There is no neighbour to read updates back from.
    #[error("names no neighbour, so nothing could be read back; name each by its address")]
    NoNeighbour,
    /// A neighbour is listed twice.
    #[error("{0} is listed twice")]
    Twice(IpAddr),
    /// The levels are equal or the wrong way round.
    #[error("a demoted route must be inferior to a preferred one")]
    Order,
    /// FRR does not show it.
    #[error("FRR does not show which communities were sent, so they cannot be read back")]
    Community,
}

impl FrrConfig {
    /// Reads back what was sent to `neighbours`, one or more.
    ///
    /// # Errors
    /// [`FrrConfigError::NoNeighbour`], [`FrrConfigError::Twice`].
    pub fn new(kernel: KernelConfig, neighbours: Vec<IpAddr>) -> Result<Self, FrrConfigError> {
        if neighbours.is_empty() {
            return Err(FrrConfigError::NoNeighbour);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = neighbours.iter().find(|one| !seen.insert(**one)) {
            return Err(FrrConfigError::Twice(*twice));
        }
        Ok(Self {
            socket: DEFAULT_SOCKET.into(),
            kernel,
            neighbours,
            expression: None,
        })
    }

    /// bgpd's vty socket; default [`DEFAULT_SOCKET`].
    #[must_use]
    pub fn with_socket(mut self, socket: PathBuf) -> Self {
        self.socket = socket;
        self
    }

    /// The attribute that FRR's route-maps set. Default: local preference, 200 and 50 for a
    /// primary, see [`Role::local_pref`].
    ///
    /// # Errors
    /// [`FrrConfigError::Order`], [`FrrConfigError::Community`].
    pub fn with_expression(mut self, expression: Expression) -> Result<Self, FrrConfigError> {
        if matches!(expression, Expression::Community(_)) {
            return Err(FrrConfigError::Community);
        }
        if !expression.is_ordered() {
            return Err(FrrConfigError::Order);
        }
        self.expression = Some(expression);
        Ok(self)
    }

    /// bgpd's vty socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The kernel's part.
    #[must_use]
    pub const fn kernel(&self) -> &KernelConfig {
        &self.kernel
    }

    /// The neighbours that are read back: one or more.
    #[must_use]
    pub fn neighbours(&self) -> &[IpAddr] {
        &self.neighbours
    }

    /// The attribute that shows a level; None: local preference, by role.
    #[must_use]
    pub const fn expression(&self) -> Option<Expression> {
        self.expression
    }
}

/// Announces a service through an FRR that runs on this host.
#[derive(Debug)]
pub struct FrrAnnouncer {
    client: Client,
    kernel: KernelAnnouncer,
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
        Self {
            client: Client::new(&config.socket),
            kernel: KernelAnnouncer::new(config.kernel),
            neighbours: config.neighbours,
            expression: config.expression,
            role,
            has_carried: false,
        }
    }

    /// Reads the kernel's addresses together with others of this process, see
    /// [`KernelAnnouncer::sharing`].
    #[must_use]
    pub fn sharing(mut self, share: &KernelShare) -> Self {
        self.kernel = self.kernel.sharing(share);
        self
    }

    /// Checks that bgpd answers and knows the neighbours, and the right to change addresses.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`AnnounceError`], in one line with the remedy.
    pub async fn probe(&mut self) -> Result<(), AnnounceError> {
        self.kernel.probe().await?;
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
        Ok(())
    }

    async fn ask(&mut self, question: Question) -> Result<String, AnnounceError> {
        let what = || format!("FRR: `{question}`");
        let reply = self.client.ask(question).await;
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
        capabilities.dead_man = self.kernel.capabilities().dead_man;
        capabilities
    }

    async fn apply(&mut self, decision: &Decision) -> Result<Applied, AnnounceError> {
        self.role = decision.role();
        let carried = self.kernel.apply(decision).await?;
        self.has_carried = true;
        if decision.preference().is_withdrawn() {
            // As near as it comes: demoted, and the kernel announcer says why no nearer.
            return Ok(carried);
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
        let kernel = self.kernel.observe(addresses).await?;
        let (list, patience): (Vec<_>, _) = (addresses.iter().collect(), self.patience());
        let sent = match tokio::time::timeout(patience, self.sent(&list)).await {
            Ok(found) => found.and_then(|found| found.observation(&list)),
            Err(_) => {
                let why = std::io::Error::other(self.slow(patience).to_string());
                Err(backend("what is announced".to_owned(), why))
            }
        };
        match sent {
            // The permanent copy may be gone while the floor is still announced.
            Ok(sent) => Ok(readback::lowest(sent, &kernel)),
            Err(error) if !self.has_carried => {
                let reason = readback::reason(&error);
                tracing::warn!(%reason, "what is announced is not known; starting from the kernel");
                Ok(kernel)
            }
            Err(error) => Err(error),
        }
    }

    async fn disturbed(&mut self) {
        self.kernel.disturbed().await;
    }
}
