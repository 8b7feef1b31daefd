//! The checks `dns`, `ntp` and `icmp` on real daemons and on the kernel: healthy, dead, wedged,
//! answering wrongly, answered by another node, and a checker that has run out of descriptors.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its state by printing"
)]

mod dns;
mod icmp;
mod ntp;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anycast_core::{HealthCheck, ServiceAddresses, Verdict};
use anycast_labs::{Netns, isolate, link};

/// For an answer that comes.
const LONG: Duration = Duration::from_secs(20);
/// For one that does not.
const SHORT: Duration = Duration::from_millis(500);
/// How long a state is waited for.
const WITHIN: Duration = Duration::from_secs(60);

/// A namespace with these addresses on `lo`, as `address/length`.
fn node(name: &str, addresses: &[&str]) -> Netns {
    let node = Netns::new(name).unwrap();
    for address in addresses {
        node.address("lo", address).unwrap();
    }
    node
}

fn service(addresses: &[&str]) -> ServiceAddresses {
    let addresses = addresses.iter().map(|address| address.parse().unwrap());
    ServiceAddresses::new(addresses.collect()).unwrap()
}

/// Runs `work` in the namespace, on a runtime of its own.
fn block_on<T: Send>(node: &Netns, work: impl AsyncFnOnce() -> T + Send) -> T {
    let inside = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(work())
    };
    node.enter(inside).unwrap()
}

/// One probe in the namespace.
fn probe(node: &Netns, check: &(impl HealthCheck + Clone + Sync), timeout: Duration) -> Verdict {
    let mut check = check.clone();
    block_on(node, async || check.check(timeout).await)
}

/// Probes until it is healthy: the daemon has just been started.
fn healthy(node: &Netns, check: &(impl HealthCheck + Clone + Sync)) {
    let begun = Instant::now();
    loop {
        match probe(node, check, LONG) {
            Verdict::Healthy => return,
            other if begun.elapsed() > WITHIN => panic!("{other}"),
            Verdict::Unhealthy(..) | Verdict::Unknown(_) => {}
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The reason why it is unhealthy. Never healthy; a checker that was starved is asked again.
fn reason(node: &Netns, check: &(impl HealthCheck + Clone + Sync), timeout: Duration) -> String {
    let begun = Instant::now();
    while begun.elapsed() < WITHIN {
        match probe(node, check, timeout) {
            Verdict::Unhealthy(reason, _) => return reason.to_string(),
            Verdict::Healthy => panic!("it is healthy"),
            Verdict::Unknown(reason) => {
                assert!(reason.as_str().contains("did not run in time"), "{reason}");
            }
        }
    }
    panic!("starved for {WITHIN:?}");
}

/// Unhealthy, with `hint` in the reason.
#[track_caller]
fn unhealthy(
    node: &Netns,
    check: &(impl HealthCheck + Clone + Sync),
    timeout: Duration,
    hint: &str,
) {
    let reason = reason(node, check, timeout);
    assert!(reason.contains(hint), "{reason}");
}

/// Writes a file into a folder of this lab's own.
fn write(folder: &str, name: &str, text: &str) -> std::path::PathBuf {
    let folder = isolate::work_dir().join(folder);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The folder of a file, for a daemon to work in.
fn folder_of(file: &Path) -> String {
    file.parent().unwrap().to_str().unwrap().to_owned()
}

/// Two nodes with the service addresses on both, joined by a link, `10.0.0.1` and `10.0.0.2`,
/// `fd00::1` and `fd00::2`. All that would keep `here` from being answered by `there` by chance
/// is switched off.
fn here_and_there(addresses: &[&str]) -> (Netns, Netns) {
    let (here, there) = (node("here", addresses), node("there", addresses));
    link(&here, "eth0", &there, "eth0").unwrap();
    for (node, last) in [(&here, 1), (&there, 2)] {
        node.address("eth0", &format!("10.0.0.{last}/24")).unwrap();
        node.address("eth0", &format!("fd00::{last}/64")).unwrap();
        for which in ["all", "eth0", "lo"] {
            let key = |key| format!("net.ipv4.conf.{which}.{key}");
            node.sysctl(&key("rp_filter"), "0").unwrap();
            node.sysctl(&key("accept_local"), "1").unwrap();
        }
        node.forward().unwrap();
    }
    (here, there)
}

/// Sends what is for the service address to the other node, although the address is here: by a
/// rule that comes before the local table. Where a probe does not choose its source, the route
/// does.
fn divert_by_rule(here: &Netns, address: &str) {
    let (family, own, via) = if address.contains(':') {
        ("-6", "fd00::1", "fd00::2")
    } else {
        ("-4", "10.0.0.1", "10.0.0.2")
    };
    for line in [
        "rule add pref 100 lookup local",
        "rule del pref 0",
        &format!("rule add pref 10 to {address} lookup 77"),
        &format!("route add {address} via {via} src {own} table 77"),
    ] {
        here.run(&format!("ip {family} {line}")).unwrap();
    }
}

/// As [`divert_by_rule`], by translating the destination; and the source too, if `both`.
fn divert_by_nat(here: &Netns, address: &str, both: bool) {
    let masquerade = if both { "oifname eth0 masquerade" } else { "" };
    here.nft(&format!(
        "table ip divert {{}}\ndelete table ip divert\ntable ip divert {{\n\
         chain destination {{\ntype nat hook output priority -100\n\
         ip daddr {address} dnat to 10.0.0.2\n}}\n\
         chain source {{\ntype nat hook postrouting priority 100\n{masquerade}\n}}\n}}\n"
    ))
    .unwrap();
}

/// Runs a probe in the namespace with no descriptor left, and one with all of them again.
fn probe_without_descriptors(
    node: &Netns,
    check: &(impl HealthCheck + Clone + Sync),
) -> (Verdict, Verdict) {
    let own = std::process::id().to_string();
    let limit = ["--nofile=256:256", "--pid", &own];
    let limited = Command::new("prlimit").args(limit).status().unwrap();
    assert!(limited.success());
    let mut check = check.clone();
    block_on(node, async || {
        let mut all = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            all.push(file);
        }
        let without = check.check(LONG).await;
        drop(all);
        (without, check.check(LONG).await)
    })
}
