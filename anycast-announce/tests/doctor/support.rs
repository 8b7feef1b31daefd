//! A node with a routing daemon, its router, and what the doctor says of the node.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anycast_announce::doctor::gather::{Places, gather};
use anycast_announce::doctor::{Report, Trap, Verdict, Wanted, examine};
use anycast_announce::kernel::{KernelAnnouncer, KernelConfig};
use anycast_core::announce::{Announcer, Applied, Lifetime, Preference};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing;
use anycast_labs::mrt::Prefix;
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::{Netns, eventually, link};

const BOTH: [&str; 2] = ["192.0.2.69/32", "2001:db8::69/128"];
/// What a wait may take on a machine that stands still for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// It announces the backup routes, as the router of a cautious operator does.
const ROUTER: &str = r#"
log stderr all;
router id 10.0.0.1;
protocol device {}
protocol static backup4 { ipv4; route 192.0.2.0/24 blackhole; }
protocol static backup6 { ipv6; route 2001:db8::/48 blackhole; }
template bgp node { local as 65000; connect delay time 1; connect retry time 2; error wait time 1, 2; }
protocol bgp node4 from node { neighbor 10.0.0.2 as 65000; ipv4 { import all; export where proto = "backup4"; next hop self; }; }
protocol bgp node6 from node { neighbor 2001:db8:0:1::2 as 65000; ipv6 { import all; export where proto = "backup6"; next hop self; }; }
"#;

pub(crate) fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/routing");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// A sample with one thing changed.
pub(crate) fn changed(name: &str, from: &str, to: &str) -> String {
    let text = sample(name);
    let other = text.replace(from, to);
    assert_ne!(other, text, "{from:?} is not in {name}");
    other
}

pub(crate) struct Lab {
    pub(crate) node: Node,
    pub(crate) router: Node,
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn service() -> ServiceAddresses {
    let addresses = BOTH.iter().map(|text| text.parse().unwrap()).collect();
    ServiceAddresses::new(addresses).unwrap()
}

impl Lab {
    /// With its sessions established, and the node preferred.
    pub(crate) fn start(kind: Kind, config: &str) -> Self {
        let (node, hub) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
        link(&node, "up", &hub, "down").unwrap();
        for (namespace, device, host) in [(&node, "up", 2), (&hub, "down", 1)] {
            let v4 = format!("10.0.0.{host}/24");
            namespace.address(device, &v4).unwrap();
            let v6 = format!("2001:db8:0:1::{host}/64");
            namespace.address(device, &v6).unwrap();
        }
        // What the host has is not the matter here.
        for which in ["all", "default", "up"] {
            let key = format!("net.ipv4.conf.{which}.rp_filter");
            node.sysctl(&key, "0").unwrap();
        }
        let router = Node::start(hub, Kind::Bird, ROUTER).unwrap();
        let node = Node::start(node, kind, config).unwrap();
        let lab = Self { node, router };
        lab.wait("two sessions", || {
            lab.node.established().is_ok_and(|up| up == 2)
        });
        let v4 = Prefix {
            address: "192.0.2.0".parse().unwrap(),
            length: 24,
        };
        let v6 = Prefix {
            address: "2001:db8::".parse().unwrap(),
            length: 48,
        };
        lab.wait("the backup routes", || {
            [v4, v6]
                .iter()
                .all(|one| lab.node.best(*one).unwrap().is_some())
        });
        lab.inside(async {
            let config = KernelConfig::new(true);
            let config = config.with_dead_man(Duration::from_secs(3600)).unwrap();
            let name = ServiceName::new("tftp").unwrap();
            let wish = Preference::Preferred;
            let now = Instant::now();
            let decision = testing::decision(name, service(), wish, Lifetime::DeadMan, now);
            let applied = KernelAnnouncer::new(config).apply(&decision).await.unwrap();
            assert_eq!(applied, Applied::Confirmed);
        });
        lab
    }

    pub(crate) fn wait(&self, what: &str, done: impl Fn() -> bool) {
        if let Err(error) = eventually(PATIENCE, what, done) {
            panic!(
                "{error}\n{}\n{}",
                self.node.describe(),
                self.router.describe()
            );
        }
    }

    pub(crate) fn inside<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let run = || runtime().block_on(work);
        self.node.namespace().enter(run).unwrap()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        dump_path(self.node.namespace())
            .parent()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn places(&self) -> Places {
        let folder = self.folder();
        Places {
            bird_socket: folder.join("bird.ctl"),
            bird_file: folder.join("absent.conf"),
            frr_socket: folder.join("bgpd.vty"),
            frr_file: folder.join("frr.conf"),
            programs: vec!["anycast-tftpd".to_owned()],
            units: vec![],
        }
    }

    /// What the doctor says, knowing no more than it sees.
    pub(crate) fn report(&self) -> Report {
        self.report_wanting(Wanted::default())
    }

    pub(crate) fn report_wanting(&self, wanted: Wanted) -> Report {
        let places = self.places();
        examine(&self.inside(gather(&places, wanted)))
    }

    /// The boost takes a moment to become a route.
    pub(crate) fn finds(&self, trap: Trap) -> Report {
        self.wait(&format!("the doctor to find {trap}"), || {
            self.report().of(trap).next().is_some()
        });
        self.report()
    }

    /// Nothing is found, and everything was seen.
    pub(crate) fn is_clean(&self) {
        let clean = || self.report().verdict() == Verdict::Clean;
        if let Err(error) = eventually(PATIENCE, "a clean report", clean) {
            panic!("{error}: {:#?}\n{}", self.report(), self.node.describe());
        }
        let report = self.report();
        assert!(
            report.seen.iter().any(|seen| seen.contains("192.0.2.69")),
            "{report:?}"
        );
    }
}
