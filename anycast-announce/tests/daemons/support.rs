//! A node with a routing daemon, and the router that it talks to.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anycast_announce::kernel::KernelConfig;
use anycast_core::announce::{Announcer, Applied, Decision, InForce, Lifetime, Preference};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing;
use anycast_labs::mrt::{self, Message, Prefix};
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::{Netns, eventually, link};

pub(crate) const V4: &str = "192.0.2.69/32";
pub(crate) const V6: &str = "2001:db8::69/128";
pub(crate) const BOTH: [&str; 2] = [V4, V6];

/// What a wait may take on a machine that stands still for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One thread, so that everything stays in the namespace that it entered.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

pub(crate) fn kernel(dead_man: u64) -> KernelConfig {
    let time = Duration::from_secs(dead_man);
    KernelConfig::new(true).with_dead_man(time).unwrap()
}

pub(crate) fn service() -> ServiceAddresses {
    let addresses = BOTH.iter().map(|text| text.parse().unwrap()).collect();
    ServiceAddresses::new(addresses).unwrap()
}

pub(crate) fn name() -> ServiceName {
    ServiceName::new("tftp").unwrap()
}

pub(crate) fn now(preference: Preference) -> Decision {
    testing::decision(
        name(),
        service(),
        preference,
        Lifetime::DeadMan,
        Instant::now(),
    )
}

pub(crate) async fn in_force(announcer: &mut dyn Announcer) -> Option<InForce> {
    announcer.observe(&service()).await.unwrap().agreed()
}

pub(crate) fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/routing");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// The folder of a node's sockets.
pub(crate) fn folder(node: &Netns) -> PathBuf {
    dump_path(node).parent().unwrap().to_owned()
}

/// A node with this daemon and configuration, and its router: 10.0.0.1 and 2001:db8:0:1::1.
pub(crate) struct Lab {
    pub(crate) node: Node,
    pub(crate) router: Node,
}

impl Lab {
    pub(crate) fn start(kind: Kind, config: &str) -> Self {
        Self::start_in(65000, kind, config)
    }

    /// The node's AS; the router's is 65000.
    pub(crate) fn start_in(node_as: u32, kind: Kind, config: &str) -> Self {
        let (node, hub) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
        link(&node, "up", &hub, "down").unwrap();
        for (namespace, device, host) in [(&node, "up", 2), (&hub, "down", 1)] {
            let v4 = format!("10.0.0.{host}/24");
            namespace.address(device, &v4).unwrap();
            let v6 = format!("2001:db8:0:1::{host}/64");
            namespace.address(device, &v6).unwrap();
        }
        let router = {
            let text = router(node_as, &dump_path_of("router"));
            Node::start(hub, Kind::Bird, &text).unwrap()
        };
        let node = Node::start(node, kind, config).unwrap();
        let lab = Self { node, router };
        // FRR 8.4 may turn a change before its End-of-RIB into a withdrawal and an update. BIRD
        // sends none without graceful restart.
        let ended = || kind == Kind::Bird || lab.ends_of_rib() == 2;
        if let Err(error) = eventually(PATIENCE, "End-of-RIB of both sessions", ended) {
            panic!("{error}\n{}", lab.router.describe());
        }
        lab
    }

    /// Runs `work` in the node's namespace.
    pub(crate) fn run(&self, work: impl AsyncFnOnce() + Send) {
        let run = || runtime().block_on(work());
        self.node.namespace().enter(run).unwrap();
    }

    /// Applies until it is confirmed: a session that has just come up takes its time.
    pub(crate) async fn confirm(&self, announcer: &mut dyn Announcer, preference: Preference) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let applied = announcer.apply(&now(preference)).await.unwrap();
            if applied == Applied::Confirmed {
                return;
            }
            if Instant::now() > deadline {
                panic!("{preference}: {applied:?}\n{}", self.node.describe());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn ends_of_rib(&self) -> usize {
        let end = Message::Update(mrt::Update::default());
        let records = self.router.received().unwrap();
        let mut peers: Vec<_> = records
            .iter()
            .filter(|record| record.message == end)
            .map(|record| format!("{:?}", record.peer))
            .collect();
        peers.sort();
        peers.dedup();
        peers.len()
    }

    /// All announcements that the router received.
    pub(crate) fn updates(&self) -> Vec<mrt::Update> {
        let records = self.router.received().unwrap().into_iter();
        let update = |message| match message {
            Message::Update(update) => Some(update),
            Message::Open | Message::Notification(..) | Message::Keepalive | Message::Other(_) => {
                None
            }
        };
        records
            .filter_map(|record| update(record.message))
            .filter(|update| !update.announced.is_empty())
            .collect()
    }

    pub(crate) fn router_hears(&self, what: &str, is_it: impl Fn(&mrt::Update) -> bool) {
        let heard = || self.updates().iter().any(&is_it);
        if let Err(error) = eventually(PATIENCE, what, heard) {
            panic!("{error}: {:?}", self.updates());
        }
    }

    pub(crate) fn withdrawals(&self) -> usize {
        let records = self.router.received().unwrap();
        let withdrawn = |message: &Message| match message {
            Message::Update(update) => update.withdrawn.len(),
            Message::Open | Message::Notification(..) | Message::Keepalive | Message::Other(_) => 0,
        };
        records
            .iter()
            .map(|record| withdrawn(&record.message))
            .sum()
    }

    /// What the router routes by, at the local preference.
    pub(crate) fn best(&self, address: &str) -> Option<u32> {
        let address: anycast_core::ServiceAddress = address.parse().unwrap();
        let best = self.router.best(Prefix::host(address.ip())).unwrap();
        best.map(|best| best.local_pref)
    }

    /// Whatever was confirmed is on its way; the router takes it in a moment later.
    pub(crate) fn router_has(&self, local_pref: Option<u32>) {
        for address in BOTH {
            let what = format!("{address} at {local_pref:?}");
            let has = || self.best(address) == local_pref;
            if let Err(error) = eventually(PATIENCE, &what, has) {
                panic!("{error}\n{}", self.router.describe());
            }
        }
    }
}

fn dump_path_of(name: &str) -> PathBuf {
    anycast_labs::isolate::work_dir().join(name).join("bgp.mrt")
}

fn router(node_as: u32, dump: &Path) -> String {
    format!(
        r#"
log stderr all;
router id 10.0.0.1;
mrtdump "{}";
mrtdump protocols {{ messages }};
protocol device {{}}
template bgp node {{ local as 65000; connect delay time 1; connect retry time 2; error wait time 1, 2; }}
protocol bgp node4 from node {{ neighbor 10.0.0.2 as {node_as}; ipv4 {{ import all; export none; }}; }}
protocol bgp node6 from node {{ neighbor 2001:db8:0:1::2 as {node_as}; ipv6 {{ import all; export none; }}; }}
"#,
        dump.display()
    )
}
