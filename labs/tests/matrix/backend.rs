//! The announcers under test. Another one is a variant here, and a lab of its own for each
//! topology in which it can announce.

use std::path::Path;
use std::time::Duration;

use anycast_labs::node::Kind;

use super::topology::{Protocol, Topology};

/// What announces at every site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The kernel announcer.
    Loopback,
    /// The announcer of the site's daemon: the kernel carries, and the daemon tells what it sent.
    Daemon,
    /// The same, without the kernel: BIRD's protocols are enabled and disabled, and FRR's outgoing
    /// route-maps set.
    Steered,
}

/// Of a site, what its announcer is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) kind: Kind,
    /// 1 for `site-a`.
    pub(crate) number: usize,
    /// Where the daemon has its sockets.
    pub(crate) sockets: &'a Path,
}

impl Backend {
    /// Those that run by this protocol. What steers without the kernel has nothing of its own there.
    pub(crate) const fn of(topology: Topology) -> &'static [Self] {
        match topology.protocol {
            Protocol::Ibgp | Protocol::Ebgp => &[Self::Loopback, Self::Daemon, Self::Steered],
            Protocol::Ospf => &[Self::Loopback, Self::Daemon],
        }
    }

    /// As the table has it.
    pub(crate) const fn name(self, protocol: Protocol, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Loopback, _) => "loopback",
            // What FRR announces by OSPF is not read back.
            (Self::Daemon, Kind::Frr) if matches!(protocol, Protocol::Ospf) => "loopback",
            (Self::Daemon, Kind::Bird) => "bird",
            (Self::Daemon, Kind::Frr) => "frr",
            (Self::Steered, Kind::Bird) => "bird, protocol",
            (Self::Steered, Kind::Frr) => "frr, route-map",
        }
    }

    /// Behind the topology's name in a heading.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Loopback => "",
            Self::Daemon => ", read back from the daemons",
            Self::Steered => ", without the kernel",
        }
    }

    /// Whether a level is a MED by eBGP, or a path and a community alone.
    pub(crate) const fn has_med(self) -> bool {
        match self {
            Self::Loopback | Self::Steered => true,
            Self::Daemon => false,
        }
    }

    /// Whether a node whose controller is dead or frozen is demoted.
    pub(crate) const fn has_dead_man(self) -> bool {
        match self {
            Self::Loopback | Self::Daemon => true,
            Self::Steered => false,
        }
    }

    /// The table `[announce]` of the controller.
    pub(crate) fn table(self, protocol: Protocol, dead_man: Duration, place: Place<'_>) -> String {
        let dead_man = dead_man.as_secs();
        let kernel = format!("floor = true\ndead_man = \"{dead_man}s\"\n");
        let loopback = format!("[announce]\nkind = \"loopback\"\n{kernel}");
        match self {
            Self::Loopback => loopback,
            Self::Daemon if protocol == Protocol::Ospf && place.kind == Kind::Frr => loopback,
            Self::Daemon => place.daemon(protocol) + &self.shows(protocol, place.kind) + &kernel,
            Self::Steered => {
                place.daemon(protocol) + &self.shows(protocol, place.kind) + &place.steering()
            }
        }
    }

    /// What a level is read back from.
    fn shows(self, protocol: Protocol, kind: Kind) -> String {
        let (boost, floor) = (protocol.boost(), protocol.floor());
        let levels = format!("{{ preferred = {boost}, demoted = {floor} }}\n");
        match (protocol, self, kind) {
            // Local preference is the default.
            (Protocol::Ibgp, ..) => String::new(),
            (Protocol::Ospf, ..) => format!("ospf_metric2 = {levels}"),
            (Protocol::Ebgp, Self::Steered, _) => format!("med = {levels}"),
            (Protocol::Ebgp, _, Kind::Bird) => "community = \"65535:0\"\n".to_owned(),
            // FRR shows no communities.
            (Protocol::Ebgp, _, Kind::Frr) => {
                "prepend = { preferred = 0, demoted = 3 }\n".to_owned()
            }
        }
    }
}

impl Place<'_> {
    /// Whom the announcer asks, and about what.
    fn daemon(self, protocol: Protocol) -> String {
        let (sockets, number) = (self.sockets.display(), self.number);
        match self.kind {
            Kind::Bird => {
                let channels = match protocol {
                    Protocol::Ospf => "\"anycast_ospf4.ipv4\", \"anycast_ospf6.ipv6\"",
                    Protocol::Ibgp | Protocol::Ebgp => {
                        "\"router1_4.ipv4\", \"router1_6.ipv6\", \
                         \"router2_4.ipv4\", \"router2_6.ipv6\""
                    }
                };
                format!(
                    "[announce]\nkind = \"bird\"\nsocket = \"{sockets}/bird.ctl\"\n\
                     channels = [{channels}]\n"
                )
            }
            Kind::Frr => format!(
                "[announce]\nkind = \"frr\"\nsocket = \"{sockets}/bgpd.vty\"\n\
                 neighbours = [\"10.10.1{number}.1\", \"fd00:10:1{number}::1\", \
                 \"10.10.2{number}.1\", \"fd00:10:2{number}::1\"]\n"
            ),
        }
    }

    /// How it steers where the kernel does not carry.
    fn steering(self) -> String {
        match self.kind {
            Kind::Bird => "carrier = \"protocol\"\nfloor = true\n\
                           boost = [\"anycast_boost4\", \"anycast_boost6\"]\n"
                .to_owned(),
            Kind::Frr => format!(
                "carrier = \"route-map\"\nroute_maps = [\"TO-ROUTER4 10\", \"TO-ROUTER6 10\"]\n\
                 vtysh_config_dir = \"{}\"\n",
                self.sockets.display()
            ),
        }
    }
}
