//! The sample configurations of `examples/routing`, unchanged, under the real daemons: they
//! parse, and a router hears preferred and demoted from them without a withdrawal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anycast_core::announce::Preference;
use anycast_core::service::ServiceAddress;
use anycast_labs::mrt::{self, Message, Prefix};
use anycast_labs::node::{Kind, Node, dump_path};
use anycast_labs::{Netns, eventually, isolated, link, require};

use crate::support::{BOTH, LONG, PATIENCE, announcer, confirm, now, runtime};

fn sample(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/routing");
    folder.join(name)
}

fn accepts(command: &mut Command) -> bool {
    command.output().unwrap().status.success()
}

#[test]
fn bird_parses_its_sample() {
    let bird = require("bird", &["/usr/sbin"], "bird2").unwrap();
    let parse = |file: &Path| accepts(Command::new(&bird).args(["-p", "-c"]).arg(file));
    assert!(parse(&sample("bird.conf")));
    assert!(!parse(&sample("frr.conf")));
}

#[test]
fn frr_parses_its_sample() {
    let vtysh = require("vtysh", &[], "frr").unwrap();
    let parse = |file: &Path| accepts(Command::new(&vtysh).args(["-C", "-f"]).arg(file));
    assert!(parse(&sample("frr.conf")));
    assert!(!parse(&sample("bird.conf")));
}

/// What the samples call their router: 10.0.0.1 and 2001:db8:0:1::1, AS 65000.
fn router(namespace: Netns) -> Node {
    let config = format!(
        r#"
log stderr all;
router id 10.0.0.1;
mrtdump "{}";
mrtdump protocols {{ messages }};
protocol device {{}}
template bgp node {{ local as 65000; connect delay time 1; connect retry time 2; error wait time 1, 2; }}
protocol bgp node4 from node {{ neighbor 10.0.0.2 as 65000; ipv4 {{ import all; export none; }}; }}
protocol bgp node6 from node {{ neighbor 2001:db8:0:1::2 as 65000; ipv6 {{ import all; export none; }}; }}
"#,
        dump_path(&namespace).display()
    );
    Node::start(namespace, Kind::Bird, &config).unwrap()
}

fn withdrawals(router: &Node) -> usize {
    let records = router.received().unwrap();
    let withdrawn = |message: &Message| match message {
        Message::Update(update) => update.withdrawn.len(),
        Message::Open | Message::Notification(..) | Message::Keepalive | Message::Other(_) => 0,
    };
    records
        .iter()
        .map(|record| withdrawn(&record.message))
        .sum()
}

/// Every update that the router heard, a line each.
fn history(router: &Node) -> String {
    let records = router.received().unwrap();
    records
        .iter()
        .filter(|record| matches!(record.message, Message::Update(_)))
        .map(|record| format!("{record:?}\n"))
        .collect()
}

/// The local preferences announced for an address so far, each once in a row.
fn announced(router: &Node, prefix: Prefix) -> Vec<u32> {
    let mut all = Vec::new();
    for record in router.received().unwrap() {
        if let Message::Update(update) = record.message
            && update.announced.contains(&prefix)
        {
            all.extend(update.local_pref);
        }
    }
    all.dedup();
    all
}

fn hears(router: &Node, local_prefs: &[u32]) {
    for address in BOTH {
        let address: ServiceAddress = address.parse().unwrap();
        let prefix = Prefix::host(address.ip());
        let what = format!("{address} at local preferences {local_prefs:?}");
        let heard = || announced(router, prefix) == local_prefs;
        if let Err(error) = eventually(PATIENCE, &what, heard) {
            panic!("{error}\n{}", router.describe());
        }
        let best = router.best(prefix).unwrap().unwrap();
        assert_eq!(Some(&best.local_pref), local_prefs.last());
    }
}

/// Waits for the End-of-RIB of both sessions (RFC 4724). FRR 8.4 may turn a change that comes
/// before it into a withdrawal and an announcement.
fn initial_tables_are_through(router: &Node) {
    let end = Message::Update(mrt::Update::default());
    let ended = || {
        let records = router.received().unwrap();
        let ends = records.iter().filter(|record| record.message == end);
        let peers: BTreeSet<_> = ends.map(|record| record.peer).collect();
        peers.len() == 2
    };
    eventually(PATIENCE, "End-of-RIB of both sessions", ended).unwrap();
}

fn announces(kind: Kind, file: &str) {
    let (node, hub) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
    link(&node, "up", &hub, "down").unwrap();
    for (namespace, device, host) in [(&node, "up", 2), (&hub, "down", 1)] {
        namespace
            .address(device, &format!("10.0.0.{host}/24"))
            .unwrap();
        namespace
            .address(device, &format!("2001:db8:0:1::{host}/64"))
            .unwrap();
    }
    let router = router(hub);
    let config = std::fs::read_to_string(sample(file)).unwrap();
    let node = Node::start(node, kind, &config).unwrap();
    // The floor stands by itself.
    hears(&router, &[50]);
    if kind == Kind::Frr {
        initial_tables_are_through(&router);
    }
    let apply = |preference, dead_man| {
        let work = async { confirm(&mut announcer(true, dead_man), now(preference)).await };
        node.namespace().enter(|| runtime().block_on(work)).unwrap();
    };
    apply(Preference::Preferred, LONG);
    hears(&router, &[50, 200]);
    apply(Preference::Demoted, LONG);
    hears(&router, &[50, 200, 50]);
    // And the kernel's own demotion; until then the daemon has time to announce.
    apply(Preference::Preferred, Duration::from_secs(20));
    hears(&router, &[50, 200, 50, 200, 50]);
    assert_eq!(
        withdrawals(&router),
        0,
        "{}\n{}",
        history(&router),
        router.describe()
    );
}

#[test]
fn bird_announces_floor_and_boost() {
    isolated(|| announces(Kind::Bird, "bird.conf"));
}

#[test]
fn frr_announces_floor_and_boost() {
    isolated(|| announces(Kind::Frr, "frr.conf"));
}
