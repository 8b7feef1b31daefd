//! The table `[announce]`, and the announcers made of it.
//!
//! ```toml
//! [announce]
//! kind = "loopback" | "bird" | "frr" | "none"
//! floor, dead_man, interface                   # where the kernel carries the preference
//! socket                                       # bird, frr: the daemon's socket
//! channels, carrier, floor_protocols           # bird
//! boost                                        # bird, carrier = "protocol"
//! include, constant, main_config               # bird, carrier = "include"
//! neighbours, carrier                          # frr
//! route_maps, vtysh, vtysh_config_dir          # frr, carrier = "route-map"
//! local_pref | med | prepend | community       # bird, frr: how a level shows; one at most
//! ospf_metric1 | ospf_metric2                  # bird: the same, in a network of OSPF
//! ```

mod build;
mod daemons;
mod levels;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anycast_announce::bird::BirdConfig;
use anycast_announce::frr::FrrConfig;
use anycast_announce::kernel::KernelConfig;
use anycast_core::config::{ConfigError, Period, invalid};
use anycast_core::service::ServiceAddresses;
use serde::Deserialize;

pub use self::build::CannotAnnounce;
pub use self::levels::Levels;

/// `[announce]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnounceTable {
    /// What announces. There is no default.
    pub kind: Option<AnnounceKind>,
    /// Whether the routing daemon holds a permanent route of low preference.
    pub floor: Option<bool>,
    /// How long the boost outlives the daemon. Default 5 s.
    pub dead_man: Option<Period>,
    /// Holds the permanent copies. Default `svc0`.
    pub interface: Option<String>,
    /// BIRD's control socket, or bgpd's vty socket. Default: where Debian has it.
    pub socket: Option<PathBuf>,
    /// BIRD: the channels whose exports are read back, such as `router4.ipv4`.
    pub channels: Option<Vec<String>>,
    /// What carries the preference into the daemon. Default `kernel`.
    pub carrier: Option<CarrierKey>,
    /// BIRD, `carrier = "protocol"`: the protocols that are enabled while preferred.
    pub boost: Option<Vec<String>>,
    /// BIRD: the floor's protocols, which an operator's withdrawal disables. Default: none.
    pub floor_protocols: Option<Vec<String>>,
    /// BIRD, `carrier = "include"`: the file that holds the level.
    pub include: Option<PathBuf>,
    /// BIRD, `carrier = "include"`: the constant in it. Default `anycast_level`.
    pub constant: Option<String>,
    /// BIRD, `carrier = "include"`: its main configuration. Default: where Debian has it.
    pub main_config: Option<PathBuf>,
    /// FRR: the neighbours whose updates are read back.
    pub neighbours: Option<Vec<IpAddr>>,
    /// FRR, `carrier = "route-map"`: the entries that hold the level, `"TO-ROUTER4 10"`.
    pub route_maps: Option<Vec<String>>,
    /// FRR, `carrier = "route-map"`: the program. Default `/usr/bin/vtysh`.
    pub vtysh: Option<PathBuf>,
    /// FRR, `carrier = "route-map"`: where vtysh has its `vtysh.conf`. Default: its own.
    pub vtysh_config_dir: Option<PathBuf>,
    /// The local preference of each level. Default: 200 and 50, and a backup's 150 and 10.
    pub local_pref: Option<Levels>,
    /// The MED of each level.
    pub med: Option<Levels>,
    /// The length of the AS path at each level.
    pub prepend: Option<Levels>,
    /// The community of a demoted route, `"65535:0"`.
    pub community: Option<String>,
    /// The OSPF metric of each level, of an external route of type 1.
    pub ospf_metric1: Option<Levels>,
    /// The same, of type 2.
    pub ospf_metric2: Option<Levels>,
}

/// `kind` in `[announce]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnounceKind {
    /// The kernel announcer.
    Loopback,
    /// The announcer of BIRD.
    Bird,
    /// The announcer of FRR.
    Frr,
    /// Nothing.
    None,
}

impl AnnounceKind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::None => "none",
        }
    }
}

/// `carrier` in `[announce]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierKey {
    /// The service address on `lo`.
    Kernel,
    /// Protocols that are enabled and disabled.
    Protocol,
    /// A file that BIRD's configuration includes.
    Include,
    /// Entries of FRR's outgoing route-maps.
    RouteMap,
}

/// How a service is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announce {
    /// By the kernel announcer.
    Loopback(KernelConfig),
    /// By the announcer of BIRD.
    Bird(BirdConfig),
    /// By the announcer of FRR.
    Frr(FrrConfig),
    /// Not at all: the operator has set the addresses and announces them by other means.
    Nothing,
}

/// The keys that only the kernel's part has.
const KERNEL: [&str; 3] = ["floor", "dead_man", "interface"];
/// The keys of both daemons.
const DAEMON: [&str; 6] = [
    "socket",
    "carrier",
    "local_pref",
    "med",
    "prepend",
    "community",
];
/// The keys of BIRD alone.
const BIRD: [&str; 8] = [
    "channels",
    "boost",
    "floor_protocols",
    "include",
    "constant",
    "main_config",
    "ospf_metric1",
    "ospf_metric2",
];

/// The keys of FRR alone.
const FRR: [&str; 4] = ["neighbours", "route_maps", "vtysh", "vtysh_config_dir"];

impl AnnounceTable {
    /// This table's keys, and for those that it lacks the keys of `defaults`. What belongs to
    /// another kind of announcer than this table's is not taken over.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        let kind = self.kind.or(defaults.kind);
        let is_same = kind == defaults.kind;
        let none = Self::default();
        let (own, theirs) = (self, if is_same { defaults } else { &none });
        // One expression replaces another.
        let shown = if own.shows() { own } else { theirs };
        // A carrier goes with what it steers.
        let carrying = if own.carrier.is_some() { own } else { theirs };
        Self {
            kind,
            floor: own.floor.or(defaults.floor),
            dead_man: own.dead_man.or(defaults.dead_man),
            interface: own.interface.clone().or(defaults.interface.clone()),
            socket: own.socket.clone().or(theirs.socket.clone()),
            channels: own.channels.clone().or(theirs.channels.clone()),
            carrier: carrying.carrier,
            boost: own.boost.clone().or(carrying.boost.clone()),
            floor_protocols: own
                .floor_protocols
                .clone()
                .or(theirs.floor_protocols.clone()),
            include: own.include.clone().or(carrying.include.clone()),
            constant: own.constant.clone().or(carrying.constant.clone()),
            main_config: own.main_config.clone().or(theirs.main_config.clone()),
            neighbours: own.neighbours.clone().or(theirs.neighbours.clone()),
            route_maps: own.route_maps.clone().or(carrying.route_maps.clone()),
            vtysh: own.vtysh.clone().or(carrying.vtysh.clone()),
            vtysh_config_dir: own
                .vtysh_config_dir
                .clone()
                .or(carrying.vtysh_config_dir.clone()),
            local_pref: shown.local_pref,
            med: shown.med,
            prepend: shown.prepend,
            community: shown.community.clone(),
            ospf_metric1: shown.ospf_metric1,
            ospf_metric2: shown.ospf_metric2,
        }
    }

    const fn shows(&self) -> bool {
        self.local_pref.is_some()
            || self.med.is_some()
            || self.prepend.is_some()
            || self.community.is_some()
            || self.ospf_metric1.is_some()
            || self.ospf_metric2.is_some()
    }

    /// Checks the keys against each other, and against the service's addresses. `table` is how
    /// the table is called in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn resolve(
        &self,
        path: &Path,
        table: &str,
        addresses: &ServiceAddresses,
    ) -> Result<Announce, ConfigError> {
        let invalid = |key: &str, reason: &str| invalid(path, format!("{table} {key}"), reason);
        let Some(kind) = self.kind else {
            let reason = "is missing; set kind = \"loopback\", or \"bird\" or \"frr\"";
            return Err(invalid("kind", reason));
        };
        if let Some(key) = self.without_effect(kind) {
            let kind = kind.as_str();
            let reason = format!("has no effect with kind = \"{kind}\"; remove it");
            return Err(invalid(key, &reason));
        }
        let resolved = match kind {
            AnnounceKind::None => Ok(Announce::Nothing),
            AnnounceKind::Loopback => self.kernel().map(Announce::Loopback),
            AnnounceKind::Bird => self.bird(addresses).map(Announce::Bird),
            AnnounceKind::Frr => self.frr().map(Announce::Frr),
        };
        resolved.map_err(|Fault { key, reason }| invalid(key, &reason))
    }

    /// The first key that is given and means nothing for this kind.
    fn without_effect(&self, kind: AnnounceKind) -> Option<&'static str> {
        let given = [
            (self.floor.is_some(), "floor"),
            (self.dead_man.is_some(), "dead_man"),
            (self.interface.is_some(), "interface"),
            (self.socket.is_some(), "socket"),
            (self.channels.is_some(), "channels"),
            (self.carrier.is_some(), "carrier"),
            (self.boost.is_some(), "boost"),
            (self.floor_protocols.is_some(), "floor_protocols"),
            (self.include.is_some(), "include"),
            (self.constant.is_some(), "constant"),
            (self.main_config.is_some(), "main_config"),
            (self.neighbours.is_some(), "neighbours"),
            (self.route_maps.is_some(), "route_maps"),
            (self.vtysh.is_some(), "vtysh"),
            (self.vtysh_config_dir.is_some(), "vtysh_config_dir"),
            (self.local_pref.is_some(), "local_pref"),
            (self.med.is_some(), "med"),
            (self.prepend.is_some(), "prepend"),
            (self.community.is_some(), "community"),
            (self.ospf_metric1.is_some(), "ospf_metric1"),
            (self.ospf_metric2.is_some(), "ospf_metric2"),
        ];
        let known: &[&[&str]] = match kind {
            AnnounceKind::None => &[],
            AnnounceKind::Loopback => &[&KERNEL],
            AnnounceKind::Bird => &[&KERNEL, &DAEMON, &BIRD],
            AnnounceKind::Frr => &[&KERNEL, &DAEMON, &FRR],
        };
        given
            .into_iter()
            .find(|(given, key)| *given && !known.iter().any(|keys| keys.contains(key)))
            .map(|(_, key)| key)
    }

    fn kernel(&self) -> Result<KernelConfig, Fault> {
        let mut config = KernelConfig::new(self.has_floor()?);
        if let Some(interface) = &self.interface {
            let named = config.with_interface(interface);
            config = named.map_err(|error| Fault::new("interface", &error))?;
        }
        if let Some(dead_man) = self.dead_man {
            let timed = config.with_dead_man(dead_man.get());
            config = timed.map_err(|error| Fault::new("dead_man", &error))?;
        }
        Ok(config)
    }

    fn has_floor(&self) -> Result<bool, Fault> {
        match self.floor {
            Some(true) => Ok(true),
            Some(false) => Err(Fault::new(
                "floor",
                &"without a floor a demotion would withdraw the route; configure one on the \
                  routing daemon (see examples/routing) and set floor = true",
            )),
            None => Err(Fault::new(
                "floor",
                &"is missing; set floor = true once the routing daemon holds a permanent \
                  low-preference route for each service address (see examples/routing)",
            )),
        }
    }
}

/// What is wrong with which key.
#[derive(Debug)]
struct Fault {
    key: &'static str,
    reason: String,
}

impl Fault {
    fn new(key: &'static str, reason: &dyn std::fmt::Display) -> Self {
        Self {
            key,
            reason: reason.to_string(),
        }
    }
}
