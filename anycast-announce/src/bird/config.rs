//! What the operator chooses about the announcer of BIRD.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::command::{Channel, Symbol};
use super::include::IncludeFile;
use crate::attributes::Expression;
use crate::kernel::KernelConfig;

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
    /// A file that BIRD's configuration includes, and that holds the level. No dead man.
    Include(IncludeFile),
}

/// What the operator chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirdConfig {
    pub(super) socket: PathBuf,
    pub(super) carrier: Carrier,
    pub(super) channels: Vec<Channel>,
    pub(super) floor: Vec<Symbol>,
    pub(super) expression: Option<Expression>,
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
    /// A channel is listed twice.
    #[error("{0} is listed twice")]
    Twice(String),
    /// The levels are equal or the wrong way round.
    #[error("a demoted route must be inferior to a preferred one")]
    Order,
    /// An include file cannot hold it.
    #[error("an include file holds a number: a local preference, a MED or a metric of OSPF")]
    NoNumber,
}

impl BirdConfig {
    /// Reads exports back from `channels`, one or more.
    ///
    /// # Errors
    /// [`BirdConfigError::NoChannel`], [`BirdConfigError::Twice`],
    /// [`BirdConfigError::NoBoost`].
    pub fn new(carrier: Carrier, channels: Vec<Channel>) -> Result<Self, BirdConfigError> {
        if channels.is_empty() {
            return Err(BirdConfigError::NoChannel);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = channels.iter().find(|one| !seen.insert(*one)) {
            return Err(BirdConfigError::Twice(twice.to_string()));
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
    /// primary, see [`Role::local_pref`](anycast_core::announce::Role::local_pref).
    ///
    /// # Errors
    /// [`BirdConfigError::Order`], [`BirdConfigError::NoNumber`].
    pub fn with_expression(mut self, expression: Expression) -> Result<Self, BirdConfigError> {
        if !expression.is_ordered() {
            return Err(BirdConfigError::Order);
        }
        let is_number = matches!(
            expression,
            Expression::LocalPref { .. } | Expression::Med { .. } | Expression::OspfMetric { .. }
        );
        if matches!(self.carrier, Carrier::Include(_)) && !is_number {
            return Err(BirdConfigError::NoNumber);
        }
        self.expression = Some(expression);
        Ok(self)
    }

    /// The control socket.
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
            Carrier::Protocol(_) | Carrier::Include(_) => None,
        }
    }

    /// The channels whose exports are read back: one or more.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The protocols that are enabled and disabled. No other service may steer them.
    pub fn steered(&self) -> impl Iterator<Item = &Symbol> {
        let boost = match &self.carrier {
            Carrier::Protocol(boost) => &boost[..],
            Carrier::Kernel(_) | Carrier::Include(_) => &[],
        };
        boost.iter().chain(&self.floor)
    }

    /// The attribute that shows a level; None: local preference, by role.
    #[must_use]
    pub const fn expression(&self) -> Option<Expression> {
        self.expression
    }
}
