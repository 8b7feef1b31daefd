//! What the operator chooses about the announcer of FRR.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::route_map::RouteMaps;
use crate::attributes::Expression;
use crate::kernel::KernelConfig;

/// Where Debian's FRR has bgpd's vty socket.
pub const DEFAULT_SOCKET: &str = "/run/frr/bgpd.vty";

/// What carries the preference into FRR.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carrier {
    /// The service address on `lo`, under the kernel's dead man.
    Kernel(KernelConfig),
    /// Entries of outgoing route-maps. No dead man.
    RouteMap(RouteMaps),
}

/// What the operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrrConfig {
    pub(super) socket: PathBuf,
    pub(super) carrier: Carrier,
    pub(super) neighbours: Vec<IpAddr>,
    pub(super) expression: Option<Expression>,
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
    /// The carrier names no entry.
    #[error("names no entry of a route-map; name each, such as \"TO-ROUTER4 10\"")]
    NoEntry,
    /// bgpd is asked, and knows nothing of OSPF.
    #[error("what FRR announces by OSPF is not read back; use kind = \"loopback\" there")]
    Ospf,
    /// A route-map entry cannot hold it in one line.
    #[error("a route-map entry holds a local preference or a MED")]
    NoNumber,
}

impl FrrConfig {
    /// Reads back what was sent to `neighbours`, one or more.
    ///
    /// # Errors
    /// [`FrrConfigError::NoNeighbour`], [`FrrConfigError::Twice`].
    pub fn new(kernel: KernelConfig, neighbours: Vec<IpAddr>) -> Result<Self, FrrConfigError> {
        Self::carried(Carrier::Kernel(kernel), neighbours)
    }

    /// The same, carried by this.
    ///
    /// # Errors
    /// [`FrrConfigError::NoNeighbour`], [`FrrConfigError::Twice`],
    /// [`FrrConfigError::NoEntry`].
    pub fn carried(carrier: Carrier, neighbours: Vec<IpAddr>) -> Result<Self, FrrConfigError> {
        if matches!(&carrier, Carrier::RouteMap(maps) if maps.entries().is_empty()) {
            return Err(FrrConfigError::NoEntry);
        }
        if neighbours.is_empty() {
            return Err(FrrConfigError::NoNeighbour);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = neighbours.iter().find(|one| !seen.insert(**one)) {
            return Err(FrrConfigError::Twice(*twice));
        }
        Ok(Self {
            socket: DEFAULT_SOCKET.into(),
            carrier,
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
    /// primary, see [`Role::local_pref`](anycast_core::announce::Role::local_pref).
    ///
    /// # Errors
    /// [`FrrConfigError::Order`], [`FrrConfigError::Community`], [`FrrConfigError::Ospf`],
    /// [`FrrConfigError::NoNumber`].
    pub fn with_expression(mut self, expression: Expression) -> Result<Self, FrrConfigError> {
        if matches!(expression, Expression::Community(_)) {
            return Err(FrrConfigError::Community);
        }
        if matches!(expression, Expression::OspfMetric { .. }) {
            return Err(FrrConfigError::Ospf);
        }
        if !expression.is_ordered() {
            return Err(FrrConfigError::Order);
        }
        let is_path = matches!(expression, Expression::Prepend { .. });
        if is_path && matches!(self.carrier, Carrier::RouteMap(_)) {
            return Err(FrrConfigError::NoNumber);
        }
        self.expression = Some(expression);
        Ok(self)
    }

    /// bgpd's vty socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What carries the preference.
    #[must_use]
    pub const fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// The kernel's part, where it carries.
    #[must_use]
    pub const fn kernel(&self) -> Option<&KernelConfig> {
        match &self.carrier {
            Carrier::Kernel(kernel) => Some(kernel),
            Carrier::RouteMap(_) => None,
        }
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
