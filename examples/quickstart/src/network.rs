//! The network: a client, a router and two sites, each in a namespace.
//!
//! ```text
//!  client ── router ─┬─ site-a
//!                    └─ site-b
//! ```
//!
//! Both sites announce the service address. With BIRD, router and sites speak iBGP; each
//! site has a floor (50) and a boost (200), and of two equal routes the router takes that of
//! site-a, whose router id is lower. Without BIRD the [follower](crate::follower) decides by
//! the same numbers.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anycast_labs::mrt::{Message, Prefix};
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::{Netns, link, process};

use crate::error::Error;
use crate::follower::{BOOST, FLOOR, Table};

/// The service address.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 69);
/// The sites; at equal preference the router takes the first.
pub(crate) const SITES: [&str; 2] = ["site-a", "site-b"];
/// AS number of router and sites.
const AS: u32 = 65_000;

/// The site's end of its link with the router: its routes' next hop.
pub(crate) const fn site_address(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, site as u8 + 1, 2)
}

/// The router's end of that link.
pub(crate) const fn router_address(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, site as u8 + 1, 1)
}

/// The site of either end of a link between router and site.
pub(crate) fn site_of(address: Ipv4Addr) -> Option<usize> {
    (0..SITES.len()).find(|&site| address == site_address(site) || address == router_address(site))
}

/// How the routes come about.
#[derive(Debug)]
enum Routing {
    Bird {
        router: Box<Node>,
        sites: Box<[Node; 2]>,
    },
    Follower {
        router: Netns,
        sites: [Netns; 2],
        table: Mutex<Table>,
    },
}

/// What the router was told by a site, from some moment on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The preferences, in order.
    pub(crate) preferences: Vec<u32>,
    /// How often the route was withdrawn.
    pub(crate) withdrawals: usize,
    /// How often the session began or ended.
    pub(crate) sessions: usize,
}

/// The whole network.
#[derive(Debug)]
pub(crate) struct Network {
    client: Netns,
    routing: Routing,
}

impl Network {
    /// Whether BIRD is installed; else how to get it.
    pub(crate) fn bird() -> Result<(), String> {
        for program in ["bird", "birdc"] {
            process::require(program, &[], "bird2").map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Builds it; with BIRD, starts that everywhere.
    pub(crate) fn build(with_bird: bool) -> Result<Self, Error> {
        let client = Netns::new("client")?;
        let router = Netns::new("router")?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        join(&client, &router, "client", [10, 1, 0])?;
        client.route("default", "10.1.0.1")?;
        let site = |site: usize| -> Result<Netns, Error> {
            let namespace = Netns::new(SITES[site])?;
            let [a, b, c, gateway] = router_address(site).octets();
            join(&namespace, &router, SITES[site], [a, b, c])?;
            namespace.route("default", &format!("{a}.{b}.{c}.{gateway}"))?;
            Ok(namespace)
        };
        let sites = [site(0)?, site(1)?];
        let routing = if with_bird {
            let config = router_config(&dump_path(&router).to_string_lossy());
            let router = Node::start(router, Kind::Bird, &config)?;
            let [a, b] = sites;
            let a = Node::start(a, Kind::Bird, &site_config(0))?;
            let b = Node::start(b, Kind::Bird, &site_config(1))?;
            Routing::Bird {
                router: Box::new(router),
                sites: Box::new([a, b]),
            }
        } else {
            Routing::Follower {
                router,
                sites,
                table: Mutex::default(),
            }
        };
        Ok(Self { client, routing })
    }

    pub(crate) const fn client(&self) -> &Netns {
        &self.client
    }

    pub(crate) const fn router(&self) -> &Netns {
        match &self.routing {
            Routing::Bird { router, .. } => router.namespace(),
            Routing::Follower { router, .. } => router,
        }
    }

    pub(crate) const fn site(&self, site: usize) -> &Netns {
        match &self.routing {
            Routing::Bird { sites, .. } => sites[site].namespace(),
            Routing::Follower { sites, .. } => &sites[site],
        }
    }

    /// The follower's table, where it is in use.
    pub(crate) const fn table(&self) -> Option<&Mutex<Table>> {
        match &self.routing {
            Routing::Bird { .. } => None,
            Routing::Follower { table, .. } => Some(table),
        }
    }

    /// BIRD's own name and version, where it is in use.
    pub(crate) fn bird_version(&self) -> Result<Option<String>, Error> {
        let Routing::Bird { router, .. } = &self.routing else {
            return Ok(None);
        };
        let answer = router.ask("show status")?;
        let first = answer.lines().next().unwrap_or("BIRD");
        Ok(Some(first.trim_end_matches(" ready.").to_owned()))
    }

    /// Cuts `site` off: its link goes down.
    pub(crate) fn cut(&self, site: usize) -> Result<(), Error> {
        Ok(self.router().down(SITES[site])?)
    }

    /// The preference that the router knows of `site`.
    pub(crate) fn preference(&self, site: usize) -> Result<Option<u32>, Error> {
        match &self.routing {
            Routing::Bird { .. } => {
                let heard = self.heard(site, 0)?.unwrap_or_default();
                Ok(heard.preferences.last().copied())
            }
            Routing::Follower { table, .. } => {
                let table = table.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(table.preference(site, Instant::now()))
            }
        }
    }

    /// How many BGP messages the router has received so far; 0 without BGP.
    pub(crate) fn messages(&self) -> Result<usize, Error> {
        match &self.routing {
            Routing::Bird { router, .. } => Ok(router.received()?.len()),
            Routing::Follower { .. } => Ok(0),
        }
    }

    /// What the router was told by BGP from `site` about the service address, from its
    /// message number `since` on: counted in BIRD's own dump of every message received.
    pub(crate) fn heard(&self, site: usize, since: usize) -> Result<Option<Heard>, Error> {
        let Routing::Bird { router, .. } = &self.routing else {
            return Ok(None);
        };
        let peer = IpAddr::V4(site_address(site));
        let prefix = Prefix::host(IpAddr::V4(SERVICE));
        let mut heard = Heard::default();
        let records = router.received()?;
        for record in records
            .iter()
            .skip(since)
            .filter(|record| record.peer == peer)
        {
            match &record.message {
                Message::Open | Message::Notification(..) => heard.sessions += 1,
                Message::Update(update) => {
                    heard.withdrawals += usize::from(update.withdrawn.contains(&prefix));
                    if update.announced.contains(&prefix) {
                        heard.preferences.extend(update.local_pref);
                    }
                }
                Message::Keepalive | Message::Other(_) => {}
            }
        }
        Ok(Some(heard))
    }
}

/// Links `end` (device `up`) with the router (device `device`), which is host 1 of `net`.
fn join(end: &Netns, router: &Netns, device: &str, net: [u8; 3]) -> Result<(), Error> {
    let [a, b, c] = net;
    link(end, "up", router, device)?;
    end.address("up", &format!("{a}.{b}.{c}.2/24"))?;
    router.address(device, &format!("{a}.{b}.{c}.1/24"))?;
    Ok(())
}

fn router_config(dump: &str) -> String {
    let mut config = format!(
        r#"log stderr all;
mrtdump "{dump}";
mrtdump protocols {{ messages }};
router id 10.1.0.1;
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; }}
"#
    );
    for site in 0..SITES.len() {
        config += &format!(
            r#"protocol bgp site{site} {{
  local as {AS}; neighbor {} as {AS}; direct;
  connect delay time 1; connect retry time 2; error wait time 1, 2;
  ipv4 {{ import all; export none; }};
}}
"#,
            site_address(site)
        );
    }
    config
}

fn site_config(site: usize) -> String {
    format!(
        r#"log stderr all;
router id {};
protocol device {{}}
protocol direct boost {{
  interface "lo";
  ipv4 {{ preference 240; import where net = {SERVICE}/32; }};
}}
protocol static floor {{
  ipv4 {{ preference 180; }};
  route {SERVICE}/32 blackhole;
}}
filter to_router {{
  if net != {SERVICE}/32 then reject;
  if proto = "boost" then bgp_local_pref = {BOOST}; else bgp_local_pref = {FLOOR};
  accept;
}}
protocol bgp uplink {{
  local as {AS}; neighbor {} as {AS}; direct;
  connect delay time 1; connect retry time 2; error wait time 1, 2;
  ipv4 {{ import none; export filter to_router; next hop self; }};
}}
"#,
        site_address(site),
        router_address(site)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_link_are_its_site_and_nothing_else_is() {
        for site in [0, 1] {
            assert_eq!(site_of(site_address(site)), Some(site));
            assert_eq!(site_of(router_address(site)), Some(site));
        }
        assert_eq!(site_of(SERVICE), None);
        assert_eq!(site_of(Ipv4Addr::new(10, 1, 0, 1)), None);
    }
}
