//! The lab's network: a client, a router, two sites and a prober.
//!
//! ```text
//!  client ── router ── site-a ── prober
//!               └───── site-b ─────┘
//! ```
//!
//! Router and sites speak iBGP (AS 65000), one session for each address family.
//! Both sites announce the service address; at equal preference the router
//! takes site-a, whose router id is lower. The prober stands beside the sites
//! and reaches the service *at* one of them, whatever the routes say
//! ([`Lab::probe_at`]).

mod config;

use std::net::IpAddr;

use crate::mrt::{Message, Prefix, Record};
use crate::netns::{Netns, link};
use crate::node::service::Tftpd;
use crate::node::{Best, Kind, Node, NodeError};

/// The service addresses.
pub const SERVICE: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 69)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x69)),
];
/// Local preference of a node that is preferred.
pub const BOOST: u32 = 200;
/// Local preference of a node that is demoted.
pub const FLOOR: u32 = 50;
/// After how many seconds of silence a BGP session ends. Long enough that a
/// machine that is busy with other things does not end one.
pub const HOLD_TIME: u16 = 15;

/// One site: its routing daemon and its service.
#[derive(Debug)]
pub struct Site {
    /// The service; ended before the routing daemon.
    pub tftpd: Tftpd,
    /// The node.
    pub node: Node,
    number: u8,
}

impl Site {
    /// Its address on the link to the router, which is its routes' next hop.
    #[must_use]
    pub fn next_hop(&self, service: IpAddr) -> IpAddr {
        let number = u16::from(self.number);
        match service {
            IpAddr::V4(_) => [10, 10, self.number, 2].into(),
            IpAddr::V6(_) => [0xfd00, 0x10, number, 0, 0, 0, 0, 2].into(),
        }
    }

    /// The router's device on the link to it.
    #[must_use]
    pub fn router_device(&self) -> &str {
        self.node.namespace().name()
    }

    /// Start the service.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn start(&mut self) -> Result<(), NodeError> {
        self.tftpd.start(self.node.namespace())
    }
}

/// The whole network. Dropped by a panic, it prints the state of every node.
#[derive(Debug)]
pub struct Lab {
    /// Site a, which the router prefers at equal preference, and site b.
    pub sites: [Site; 2],
    /// The router.
    pub router: Node,
    /// The client beyond the router.
    pub client: Netns,
    /// The prober beside the sites.
    pub prober: Netns,
}

impl Lab {
    /// Build it, with daemons started but not the services. Each site serves
    /// `files`.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn build(router: Kind, site: Kind, files: &[(&str, &[u8])]) -> Result<Self, NodeError> {
        let [client, prober] = [Netns::new("client")?, Netns::new("prober")?];
        let hub = Netns::new("router")?;
        hub.forward()?;
        join(&client, &hub, "client", 1, 0)?;
        client.route("default", "10.1.0.1")?;
        client.route("default", "fd00:1:0::1")?;
        let a = Self::lay_site(1, "site-a", &hub, &prober)?;
        let b = Self::lay_site(2, "site-b", &hub, &prober)?;
        let config = config::router(router, &crate::node::dump_path(&hub));
        let router = Node::start(hub, router, &config)?;
        let site = |namespace: Netns, number| -> Result<Site, NodeError> {
            let config = config::site(site, number).map_err(NodeError::Sample)?;
            let tftpd = Tftpd::new(&namespace, files)?;
            Ok(Site {
                tftpd,
                node: Node::start(namespace, site, &config)?,
                number,
            })
        };
        let sites = [site(a, 1)?, site(b, 2)?];
        Ok(Self {
            sites,
            router,
            client,
            prober,
        })
    }

    fn lay_site(number: u8, name: &str, hub: &Netns, prober: &Netns) -> Result<Netns, NodeError> {
        let site = Netns::new(name)?;
        join(&site, hub, name, 10, number)?;
        link(&site, "probe", prober, name)?;
        for (namespace, device, host) in [(&site, "probe", 2), (prober, name, 1)] {
            namespace.address(device, &format!("10.20.{number}.{host}/24"))?;
            namespace.address(device, &format!("fd00:20:{number}::{host}/64"))?;
        }
        site.route("default", &format!("10.10.{number}.1"))?;
        site.route("default", &format!("fd00:10:{number}::1"))?;
        Ok(site)
    }

    /// Let the prober reach the service at this site (0 or 1), and only there.
    ///
    /// # Errors
    /// [`NodeError::Netns`].
    pub fn probe_at(&self, site: usize) -> Result<(), NodeError> {
        let number = self.sites[site].number;
        for (service, via) in SERVICE
            .iter()
            .zip([format!("10.20.{number}.2"), format!("fd00:20:{number}::2")])
        {
            let family = if service.is_ipv4() { "-4" } else { "-6" };
            self.prober
                .run(&format!("ip {family} route replace {service} via {via}"))?;
        }
        Ok(())
    }

    /// Where the router sends packets for this service address.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn best(&self, service: IpAddr) -> Result<Option<Best>, NodeError> {
        self.router.best(Prefix::host(service))
    }

    /// What the router received from `site` about `service`, in order, from the
    /// message number `since` on (counted over all senders).
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn heard(&self, site: usize, service: IpAddr, since: usize) -> Result<Heard, NodeError> {
        let peer = self.sites[site].next_hop(service);
        let records = self.router.received()?;
        Ok(Heard::from(
            records.iter().skip(since),
            peer,
            Prefix::host(service),
        ))
    }

    /// How many messages the router has received so far.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn messages(&self) -> Result<usize, NodeError> {
        Ok(self.router.received()?.len())
    }

    /// The state of every node.
    #[must_use]
    pub fn describe(&self) -> String {
        let nodes = [&self.router, &self.sites[0].node, &self.sites[1].node];
        nodes.map(Node::describe).concat()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(crate::diag::OnPanic(|| self.describe()));
    }
}

/// What one neighbour said about one prefix, at the first hop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Local preferences announced, in order.
    pub announced: Vec<u32>,
    /// Withdrawals.
    pub withdrawn: usize,
    /// Sessions opened or ended: each OPEN and each NOTIFICATION.
    pub sessions: usize,
}

impl Heard {
    fn from<'a>(records: impl Iterator<Item = &'a Record>, peer: IpAddr, prefix: Prefix) -> Self {
        let mut heard = Self::default();
        for record in records.filter(|record| record.peer == peer) {
            match &record.message {
                Message::Open | Message::Notification(..) => heard.sessions += 1,
                Message::Update(update) => {
                    heard.withdrawn += usize::from(update.withdrawn.contains(&prefix));
                    if update.announced.contains(&prefix) {
                        heard.announced.extend(update.local_pref);
                    }
                }
                Message::Keepalive | Message::Other(_) => {}
            }
        }
        heard
    }
}

/// Link `end` (device `up`) with the router `hub` (device `device`); the hub is
/// host 1 and the end host 2 of 10.`net`.`number`.0/24 and fd00:`net`:`number`::/64.
fn join(end: &Netns, hub: &Netns, device: &str, net: u8, number: u8) -> Result<(), NodeError> {
    link(end, "up", hub, device)?;
    for (namespace, device, host) in [(end, "up", 2), (hub, device, 1)] {
        namespace.address(device, &format!("10.{net}.{number}.{host}/24"))?;
        namespace.address(device, &format!("fd00:{net}:{number}::{host}/64"))?;
    }
    Ok(())
}
