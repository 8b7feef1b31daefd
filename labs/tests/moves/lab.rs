//! The whole network.
//!
//! ```text
//!  client 0 --+            +-- site-a   the one that the router prefers at equal preference
//!  client 1 --+-- router --+-- site-b   the other routing daemon than site-a's
//!  …        --+            +-- site-c
//! ```
//!
//! Router and site-a run the same routing daemon, site-b the other one. What happens, happens to
//! site-a; the sites reach each other through the router.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anycast_labs::node::{Kind, Node};
use anycast_labs::topo::SERVICE as SERVICES;
use anycast_labs::{Netns, diag, eventually, fib, link};

use super::clients::Client;
use super::site::{Announcing, Site};
use super::{Handoff, config};

/// How many sites there are.
pub(crate) const SITES: usize = 3;
const NAMES: [&str; SITES] = ["site-a", "site-b", "site-c"];
/// What the slowest change takes: a session that was cut, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(100);
/// After so long without a change every site is certain of what it has.
const SETTLED: Duration = Duration::from_secs(5);
/// How often the router's route is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Dropped by a panic, it prints the state of every node.
pub(crate) struct Lab {
    pub(crate) clients: Vec<Client>,
    pub(crate) sites: [Site; SITES],
    pub(crate) router: Node,
    pub(crate) image: Vec<u8>,
    pub(crate) handoff: Handoff,
}

impl Lab {
    /// Everything is well, every site has the file `image`, and the router takes site-a.
    pub(crate) fn build(
        router: Kind,
        announcing: Announcing,
        handoff: Handoff,
        image: Vec<u8>,
    ) -> Self {
        let hub = Netns::new("router").unwrap();
        hub.forward().unwrap();
        let other = match router {
            Kind::Bird => Kind::Frr,
            Kind::Frr => Kind::Bird,
        };
        let mut number = 0;
        let sites = NAMES.map(|name| {
            number += 1;
            let namespace = Netns::new(name).unwrap();
            join(&hub, name, &namespace, number);
            let kind = if number == 2 { other } else { router };
            Site::new(namespace, number, kind, announcing)
        });
        for site in &sites {
            site.configure(&sites, handoff);
        }
        let router = Node::start(hub, router, &config::router(router)).unwrap();
        let mut lab = Self {
            clients: Vec::new(),
            sites,
            router,
            image,
            handoff,
        };
        lab.await_sessions();
        for site in &mut lab.sites {
            site.start();
        }
        lab.await_well();
        lab.sites[0].write("image", &lab.image);
        for site in &lab.sites {
            site.until("the file to be there", |site| {
                site.read("image").as_ref() == Some(&lab.image)
            });
        }
        lab.await_well();
        sleep(SETTLED);
        lab
    }

    pub(crate) fn hub(&self) -> &Netns {
        self.router.namespace()
    }

    /// Where the router sends the clients' packets.
    pub(crate) fn taken(&self) -> Option<usize> {
        let device = fib::device(self.hub(), SERVICES[0]).unwrap()?;
        NAMES.iter().position(|name| *name == device)
    }

    /// Waits, at most so long, until the router takes another site than this; answers after what time.
    pub(crate) fn await_left(&self, site: usize, most: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            if self.taken().is_some_and(|taken| taken != site) {
                return Some(begun.elapsed());
            }
            sleep(LOOK);
        }
        None
    }

    /// Every session of BGP and of BFD stands.
    pub(crate) fn await_sessions(&self) {
        let all = 2 * SITES;
        let question = match self.sites[0].kind {
            Kind::Bird => "show bfd sessions",
            Kind::Frr => "show bfd peers brief",
        };
        eventually(RECOVERY, "sessions of BGP and BFD", || {
            let answer = self.router.ask(question).unwrap();
            let is_up = |line: &&str| {
                let mut words = line.split_whitespace();
                words.any(|word| word.eq_ignore_ascii_case("up"))
            };
            self.router.established().unwrap() == all && answer.lines().filter(is_up).count() == all
        })
        .unwrap();
    }

    /// Everything as it is when nothing is wrong.
    pub(crate) fn await_well(&self) {
        self.await_sessions();
        for site in &self.sites {
            site.until("to be preferred, in step with all others", |site| {
                site.decided() == "preferred" && site.is_in_step(SITES - 1)
            });
        }
        eventually(RECOVERY, "the router to take site-a", || {
            self.taken() == Some(0)
        })
        .unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(diag::OnPanic(|| {
            let nodes = std::iter::once(&self.router);
            let nodes = nodes.chain(self.sites.iter().map(|site| &site.node));
            nodes.map(Node::describe).collect()
        }));
    }
}

/// The router is host 1 of the link to this site, and the site host 2.
fn join(hub: &Netns, name: &str, site: &Netns, number: usize) {
    link(hub, name, site, "up").unwrap();
    // The router's end is set down and up, and keeps its addresses.
    hub.sysctl(&format!("net.ipv6.conf.{name}.keep_addr_on_down"), "1")
        .unwrap();
    for (namespace, device, host) in [(hub, name, 1), (site, "up", 2)] {
        namespace
            .address(device, &format!("10.10.{number}.{host}/24"))
            .unwrap();
        namespace
            .address(device, &format!("fd00:10:{number}::{host}/64"))
            .unwrap();
    }
    site.route("default", &format!("10.10.{number}.1")).unwrap();
    site.route("default", &format!("fd00:10:{number}::1"))
        .unwrap();
}
