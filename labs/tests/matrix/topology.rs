//! What is connected with what.
//!
//! ```text
//!  client-1 ── router-1 (BIRD) ──┬── site-a (BIRD) ── prober-a
//!                  │    \        │
//!                  │     ───── site-b (BIRD, never touched)
//!                  │    /        │
//!  client-2 ── router-2 (FRR) ───┴── site-c (FRR) ─── prober-c
//! ```
//!
//! Every site has a link to each router, and each router its nearest site: a for the first one,
//! c for the second one; b is the second choice of both. So whatever happens to both a and c at
//! once is seen with BIRD and with FRR at the node, and with both at the first hop. A prober
//! reaches the service at its site whatever the routes say.

use anycast_labs::node::Kind;

/// BGP's hold time, as the samples have it. In seconds.
pub(crate) const HOLD_TIME: u16 = 9;
/// OSPF's, likewise.
pub(crate) const HELLO: u16 = 3;
/// OSPF's, likewise.
pub(crate) const DEAD: u16 = 9;
/// The routers' AS.
pub(crate) const ROUTER_AS: u32 = 65000;

/// How routes are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// iBGP; both routers are route reflectors.
    Ibgp,
    /// OSPFv2 and OSPFv3.
    Ospf,
    /// eBGP between sites and routers, iBGP between the routers.
    Ebgp,
}

impl Protocol {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ibgp => "iBGP",
            Self::Ospf => "OSPF",
            Self::Ebgp => "eBGP",
        }
    }

    /// What the first hop hears of a node that is preferred: local preference, metric or MED.
    pub(crate) const fn boost(self) -> u32 {
        match self {
            Self::Ibgp => 200,
            Self::Ospf | Self::Ebgp => 100,
        }
    }

    /// And of one that is demoted.
    pub(crate) const fn floor(self) -> u32 {
        match self {
            Self::Ibgp => 50,
            Self::Ospf => 10_000,
            Self::Ebgp => 1000,
        }
    }
}

/// One network: what runs on it is a section of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) protocol: Protocol,
    /// Between routers and sites.
    pub(crate) bfd: bool,
}

pub(crate) const IBGP: Topology = Topology::new(Protocol::Ibgp, false);
pub(crate) const OSPF: Topology = Topology::new(Protocol::Ospf, false);
pub(crate) const EBGP: Topology = Topology::new(Protocol::Ebgp, false);
pub(crate) const IBGP_BFD: Topology = Topology::new(Protocol::Ibgp, true);
pub(crate) const OSPF_BFD: Topology = Topology::new(Protocol::Ospf, true);
pub(crate) const EBGP_BFD: Topology = Topology::new(Protocol::Ebgp, true);

impl Topology {
    /// In the order of the document.
    pub(crate) const ALL: [Self; 6] = [IBGP, OSPF, EBGP, IBGP_BFD, OSPF_BFD, EBGP_BFD];

    const fn new(protocol: Protocol, bfd: bool) -> Self {
        Self { protocol, bfd }
    }

    pub(crate) fn name(self) -> String {
        let with = if self.bfd { " with BFD" } else { "" };
        self.protocol.name().to_owned() + with
    }
}

/// A site, and the device that leads to it from each router.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) device: &'static str,
    pub(crate) kind: Kind,
}

pub(crate) const SITES: [Place; 3] = [
    Place {
        device: "site-a",
        kind: Kind::Bird,
    },
    Place {
        device: "site-b",
        kind: Kind::Bird,
    },
    Place {
        device: "site-c",
        kind: Kind::Frr,
    },
];

/// What runs at each router.
pub(crate) const ROUTERS: [Kind; 2] = [Kind::Bird, Kind::Frr];

/// The nearest site of each router: those to which things happen.
pub(crate) const NEAREST: [usize; 2] = [0, 2];
/// The second choice of both.
pub(crate) const SECOND: usize = 1;

/// From a router to a site.
pub(crate) const fn distance(router: usize, site: usize) -> u32 {
    if site == SECOND {
        20
    } else if site == NEAREST[router] {
        10
    } else {
        30
    }
}

/// The sites' AS.
pub(crate) const fn site_as(ebgp: bool) -> u32 {
    if ebgp { 65010 } else { ROUTER_AS }
}
