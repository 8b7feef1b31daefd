//! The whole network, and what is seen of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anycast_labs::lsa::Listener;
use anycast_labs::mrt::{Message, Prefix, Record};
use anycast_labs::node::{Node, dump_path};
use anycast_labs::topo::SERVICE;
use anycast_labs::{Netns, diag, eventually, fib, link};

use super::backend::Backend;
use super::config;
use super::probe::Probe;
use super::site::{DEAD_MAN, Site};
use super::topology::{NEAREST, Protocol, ROUTERS, SITES, Topology};

/// What the slowest change takes: a session that was cut, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(100);
/// More than FRR waits before it applies a route-map by itself.
const QUIET: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(50);

/// Dropped by a panic, it prints the state of every node.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) topology: Topology,
    /// Beside each router.
    pub(crate) clients: [Probe; 2],
    /// Beside each router's nearest site.
    pub(crate) probers: [Probe; 2],
    listeners: Option<[Listener; 2]>,
    pub(crate) sites: [Site; 3],
    pub(crate) routers: [Node; 2],
    _namespaces: Vec<Netns>,
}

/// Where everything stood at some time.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    at: Instant,
    messages: [usize; 2],
    clients: [[usize; 2]; 2],
    probers: [[usize; 2]; 2],
}

/// What both first hops heard of one site since a mark, in both address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) updates: usize,
    /// BGP withdrawals, flushed LSAs.
    pub(crate) withdrawals: usize,
    /// BGP sessions that ended or began: each OPEN and each NOTIFICATION. None in OSPF.
    pub(crate) sessions: usize,
}

impl Lab {
    /// With routes between sites and routers, and no controller yet.
    pub(crate) fn build(topology: Topology, backend: Backend) -> Self {
        let hubs = [1, 2].map(|router| {
            let hub = Netns::new(&format!("router-{router}")).unwrap();
            hub.forward().unwrap();
            hub
        });
        join(&hubs[0], "peer", &hubs[1], "peer", ("10.12.0", "fd00:12:0"));
        let clients = [1, 2].map(|router| {
            let client = Netns::new(&format!("client-{router}")).unwrap();
            let nets = (format!("10.1.{router}"), format!("fd00:1:{router}"));
            join(
                &hubs[router - 1],
                "client",
                &client,
                "up",
                (&nets.0, &nets.1),
            );
            client.route("default", &format!("{}.1", nets.0)).unwrap();
            client.route("default", &format!("{}::1", nets.1)).unwrap();
            client
        });
        let places = SITES.map(|place| {
            let site = Netns::new(place.device).unwrap();
            let number = number_of(place.device);
            for (router, hub) in hubs.iter().enumerate() {
                let number = format!("{}{number}", router + 1);
                let nets = (format!("10.10.{number}"), format!("fd00:10:{number}"));
                let up = format!("up{}", router + 1);
                join(hub, place.device, &site, &up, (&nets.0, &nets.1));
            }
            site
        });
        let probers = NEAREST.map(|site| {
            let prober = Netns::new(&format!("prober-{}", SITES[site].device)).unwrap();
            let nets = (format!("10.20.{site}"), format!("fd00:20:{site}"));
            join(&places[site], "probe", &prober, "up", (&nets.0, &nets.1));
            prober.route("default", &format!("{}.1", nets.0)).unwrap();
            prober.route("default", &format!("{}::1", nets.1)).unwrap();
            prober
        });
        let listeners = (topology.protocol == Protocol::Ospf)
            .then(|| hubs.each_ref().map(|hub| Listener::start(hub).unwrap()));
        let mut router = 0;
        let routers = hubs.map(|hub| {
            let kind = ROUTERS[router];
            let text = config::router(topology, router, kind, &dump_path(&hub));
            router += 1;
            Node::start(hub, kind, &text).unwrap()
        });
        let mut number = 0;
        let sites = places.map(|namespace| {
            let text = config::site(topology, backend, number);
            let site = number;
            number += 1;
            for command in config::at_boot(&text) {
                namespace.run(command).unwrap();
            }
            if backend == Backend::Steered {
                at_every_preference(&namespace);
            }
            let node = Node::start(namespace, SITES[site].kind, &text).unwrap();
            Site::new(site, node, topology, backend)
        });
        Self {
            topology,
            clients: clients.each_ref().map(Probe::start),
            probers: probers.each_ref().map(Probe::start),
            listeners,
            sites,
            routers,
            _namespaces: clients.into_iter().chain(probers).collect(),
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.sites[0].backend
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            messages: [0, 1].map(|router| match &self.listeners {
                Some(listeners) => listeners[router].count(),
                None => self.routers[router].received().unwrap().len(),
            }),
            clients: self.clients.each_ref().map(Probe::mark),
            probers: self.probers.each_ref().map(Probe::mark),
        }
    }

    /// What this router heard of this site about this address, and the last level announced.
    fn heard_at(
        &self,
        router: usize,
        site: usize,
        service: IpAddr,
        since: usize,
    ) -> (Heard, Option<u32>) {
        let mut heard = Heard::default();
        let mut level = None;
        if let Some(listeners) = &self.listeners {
            let origin = Ipv4Addr::new(10, 10, 0, u8::try_from(site + 1).unwrap());
            // OSPFv3 numbers its LSAs as it likes: after a restart the route may have another
            // one, and the old one is then flushed. That withdraws nothing, and neither does a
            // flush of what does not stand.
            let mut standing = BTreeMap::new();
            for (number, external) in listeners[router].heard(origin, service) {
                let counts = usize::from(number >= since);
                if !external.flushed {
                    standing.insert(external.id, external.metric);
                    heard.updates += counts;
                } else if standing.remove(&external.id).is_some() && standing.is_empty() {
                    heard.withdrawals += counts;
                }
            }
            level = standing.into_values().min();
            return (heard, level);
        }
        let records = self.routers[router].received().unwrap();
        let peer = neighbour(router, site, service);
        for record in records
            .iter()
            .skip(since)
            .filter(|record| record.peer == peer)
        {
            read(
                record,
                service,
                &mut heard,
                &mut level,
                self.topology.protocol,
                self.backend(),
            );
        }
        (heard, level)
    }

    /// What both first hops heard of this site, in both families.
    pub(crate) fn heard(&self, site: usize, mark: &Mark) -> Heard {
        let mut sum = Heard::default();
        for router in [0, 1] {
            for service in SERVICE {
                let (heard, _) = self.heard_at(router, site, service, mark.messages[router]);
                sum.updates += heard.updates;
                sum.withdrawals += heard.withdrawals;
                sum.sessions += heard.sessions;
            }
        }
        sum
    }

    /// The LSAs behind [`heard`](Self::heard), for whom it surprises.
    pub(crate) fn external_routes(&self, site: usize, mark: &Mark) -> String {
        let origin = Ipv4Addr::new(10, 10, 0, u8::try_from(site + 1).unwrap());
        let mut text = String::new();
        for (router, listener) in self.listeners.iter().flatten().enumerate() {
            for service in SERVICE {
                for (number, external) in listener.heard(origin, service) {
                    let when = if number < mark.messages[router] {
                        "before"
                    } else {
                        "since"
                    };
                    writeln!(text, "router {router}, {service}, {when}: {external:?}").unwrap();
                }
            }
        }
        text
    }

    /// Both first hops have heard this level of this site in both families, and nothing later.
    fn is_at(&self, site: usize, level: u32) -> bool {
        [0, 1].into_iter().all(|router| {
            SERVICE.into_iter().all(|service| {
                let (_, last) = self.heard_at(router, site, service, 0);
                last == Some(level)
            })
        })
    }

    pub(crate) fn await_level(&self, sites: &[usize], level: u32) {
        for site in sites {
            let what = format!("{} to be heard at {level}", SITES[*site].device);
            if let Err(error) = eventually(RECOVERY, &what, || self.is_at(*site, level)) {
                let last = |router| SERVICE.map(|service| self.heard_at(router, *site, service, 0));
                panic!(
                    "{error}; at each router, in each family: {:?}",
                    [0, 1].map(last)
                );
            }
        }
    }

    /// Waits until both routers take these sites, each in both families; answers after what time
    /// since the mark each did.
    pub(crate) fn await_best(&self, sites: [usize; 2], mark: &Mark) -> [Duration; 2] {
        let mut since = [None; 2];
        let what = format!(
            "the routers to take {:?}",
            sites.map(|site| SITES[site].device)
        );
        let deadline = Instant::now() + RECOVERY;
        loop {
            for router in [0, 1] {
                if self.takes(router, sites[router]) {
                    since[router].get_or_insert_with(|| mark.at.elapsed());
                } else {
                    since[router] = None;
                }
            }
            if let [Some(first), Some(second)] = since {
                return [first, second];
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            sleep(LOOK);
        }
    }

    fn takes(&self, router: usize, site: usize) -> bool {
        let hub = self.routers[router].namespace();
        SERVICE.into_iter().all(|service| {
            fib::device(hub, service).unwrap().as_deref() == Some(SITES[site].device)
        })
    }

    /// Both clients are answered by the site that their router takes.
    pub(crate) fn await_answers(&self, sites: [usize; 2]) {
        for (client, site) in self.clients.iter().zip(sites) {
            client.await_site(site);
        }
    }

    /// Queries of this router's client that were lost since the mark, of how many.
    pub(crate) fn clients_lost(&self, router: usize, mark: &Mark) -> (usize, usize) {
        self.clients[router].lost(mark.clients[router])
    }

    /// Queries to this router's nearest site itself that were lost since the mark, of how many.
    pub(crate) fn node_lost(&self, router: usize, mark: &Mark) -> (usize, usize) {
        self.probers[router].lost(mark.probers[router])
    }

    /// Everything as it is when all is well.
    pub(crate) fn await_well(&self, mark: &Mark) -> [Duration; 2] {
        let back = self.await_best(NEAREST, mark);
        self.await_level(&[0, 1, 2], self.topology.protocol.boost());
        self.await_answers(NEAREST);
        back
    }

    /// What was said of the last change has been said. FRR tells the routers of a route-map again,
    /// and nothing new, `bgp route-map delay-timer` after it was changed: 5 s.
    pub(crate) fn await_quiet(&self) {
        if self.backend() != Backend::Steered {
            return;
        }
        let is_quiet = || {
            let mark = self.mark();
            sleep(QUIET);
            [0, 1, 2]
                .into_iter()
                .all(|site| self.heard(site, &mark) == Heard::default())
        };
        eventually(RECOVERY, "nothing to be heard any more", is_quiet).unwrap();
    }

    /// Sessions and adjacencies stand: each site has routes to both clients, and each router a
    /// route to the other one's.
    pub(crate) fn await_sessions(&self) {
        eventually(RECOVERY, "sessions and adjacencies", || {
            self.are_established()
                && self.sites.iter().all(|site| {
                    let four = site.namespace().run("ip -4 route").unwrap();
                    let six = site.namespace().run("ip -6 route").unwrap();
                    [1, 2].into_iter().all(|router| {
                        four.contains(&format!("10.1.{router}.0/24"))
                            && six.contains(&format!("fd00:1:{router}::/64"))
                    })
                })
        })
        .unwrap();
    }

    /// Every session of BGP stands, each router's with the other and with each site in each family:
    /// routes come from either router, and so prove less.
    fn are_established(&self) -> bool {
        let is_ospf = self.topology.protocol == Protocol::Ospf;
        let all = 2 * (SITES.len() + 1);
        is_ospf
            || self
                .routers
                .iter()
                .all(|router| router.established().unwrap() == all)
    }

    /// Every site has a BFD session of each family with each router, where there is BFD at all.
    pub(crate) fn await_bfd(&self) {
        if !self.topology.bfd {
            return;
        }
        let questions = ["show bfd sessions", "show bfd peers brief"];
        for (router, question) in self.routers.iter().zip(questions) {
            eventually(RECOVERY, "BFD sessions", || {
                let answer = router.ask(question).unwrap();
                let is_up = |line: &&str| {
                    let mut words = line.split_whitespace();
                    words.any(|word| word.eq_ignore_ascii_case("up"))
                };
                answer.lines().filter(is_up).count() == 2 * SITES.len()
            })
            .unwrap();
        }
    }

    /// Starts every controller; each finds its service well.
    pub(crate) fn start_controllers(&mut self) {
        for site in &mut self.sites {
            site.start_controller(DEAD_MAN);
        }
    }

    /// Every packet between this router and this site is lost; the link stays up.
    pub(crate) fn cut(&self, router: usize, device: &str) {
        self.routers[router].namespace().cut(device).unwrap();
    }

    pub(crate) fn heal(&self, router: usize, device: &str) {
        self.routers[router].namespace().heal(device).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(diag::OnPanic(|| {
            let nodes = self.routers.iter();
            let nodes = nodes.chain(self.sites.iter().map(|site| &site.node));
            nodes.map(Node::describe).collect()
        }));
    }
}

/// Where the kernel does not carry the preference, the host has the service's addresses for good.
fn at_every_preference(site: &Netns) {
    for service in SERVICE {
        let length = if service.is_ipv4() { 32 } else { 128 };
        site.address("lo", &format!("{service}/{length}")).unwrap();
    }
}

/// 1 for `site-a`.
fn number_of(device: &str) -> usize {
    let index = SITES.iter().position(|place| place.device == device);
    index.unwrap() + 1
}

/// The site's address on the link to the router.
fn neighbour(router: usize, site: usize, service: IpAddr) -> IpAddr {
    let link = format!("{}{}", router + 1, site + 1);
    let text = match service {
        IpAddr::V4(_) => format!("10.10.{link}.2"),
        IpAddr::V6(_) => format!("fd00:10:{link}::2"),
    };
    text.parse().unwrap()
}

fn read(
    record: &Record,
    service: IpAddr,
    heard: &mut Heard,
    level: &mut Option<u32>,
    protocol: Protocol,
    backend: Backend,
) {
    let prefix = Prefix::host(service);
    match &record.message {
        Message::Open | Message::Notification(..) => {
            heard.sessions += 1;
            *level = None;
        }
        Message::Update(update) => {
            if update.withdrawn.contains(&prefix) {
                heard.withdrawals += 1;
                *level = None;
            }
            if update.announced.contains(&prefix) {
                heard.updates += 1;
                *level = match protocol {
                    Protocol::Ebgp if backend.has_med() => update.med,
                    Protocol::Ebgp if update.path_length > 1 => Some(protocol.floor()),
                    Protocol::Ebgp => Some(protocol.boost()),
                    Protocol::Ibgp | Protocol::Ospf => update.local_pref,
                };
            }
        }
        Message::Keepalive | Message::Other(_) => {}
    }
}

/// Link two namespaces; the first one is host 1 of both networks, the other one host 2.
fn join(a: &Netns, a_device: &str, b: &Netns, b_device: &str, nets: (&str, &str)) {
    link(a, a_device, b, b_device).unwrap();
    for (namespace, device, host) in [(a, a_device, 1), (b, b_device, 2)] {
        namespace
            .address(device, &format!("{}.{host}/24", nets.0))
            .unwrap();
        namespace
            .address(device, &format!("{}::{host}/64", nets.1))
            .unwrap();
    }
}
