//! `icmp`, with the kernel.

use std::process::Command;

use anycast_core::health::icmp::IcmpCheck;
use anycast_core::health::probe::Source;
use anycast_core::{HealthCheck, Verdict};
use anycast_labs::{Netns, Proc, isolated};

use super::{
    LONG, SHORT, divert_by_nat, divert_by_rule, healthy, here_and_there, node,
    probe_without_descriptors, reason, service, unhealthy,
};

const V4: &str = "192.0.2.1/32";
const V6: &str = "2001:db8::1/128";

fn check() -> IcmpCheck {
    IcmpCheck::new(service(&[V4, V6]))
}

/// Which sockets these processes may open.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Permitted {
    /// Raw ones alone: what a new namespace permits. It cannot be returned to.
    Raw,
    Unprivileged,
}

/// In this order.
const EACH: [Permitted; 2] = [Permitted::Raw, Permitted::Unprivileged];

fn permit(node: &Netns, which: Permitted) {
    if which == Permitted::Unprivileged {
        node.sysctl("net.ipv4.ping_group_range", "0 0").unwrap();
    }
    let range = node.run("cat /proc/sys/net/ipv4/ping_group_range").unwrap();
    let open = range.split_whitespace().eq(["0", "0"]);
    assert_eq!(open, which == Permitted::Unprivileged, "{range}");
}

#[test]
fn the_kernel_replies_to_raw_and_to_unprivileged_sockets() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        for which in EACH {
            permit(&node, which);
            healthy(&node, &check());
            healthy(&node, &check().with_source(Source::Any));
            let elsewhere = service(&[V4, "192.0.2.9/32", "2001:db8::9/128"]);
            let said = reason(&node, &IcmpCheck::new(elsewhere), LONG);
            let lacks = |address| format!("{address}: the address is not on this node");
            let expected = [lacks("192.0.2.9"), lacks("2001:db8::9")].join("; ");
            assert_eq!(said, expected);
        }
    });
}

#[test]
fn silence_is_unhealthy() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        node.sysctl("net.ipv4.icmp_echo_ignore_all", "1").unwrap();
        for which in EACH {
            permit(&node, which);
            let said = reason(&node, &check(), SHORT);
            assert!(said.contains("192.0.2.1: no answer within 500ms"), "{said}");
            assert!(!said.contains("2001:db8::1"), "{said}");
        }
        node.sysctl("net.ipv4.icmp_echo_ignore_all", "0").unwrap();
        healthy(&node, &check());
    });
}

/// In a process that has lost `CAP_NET_RAW`: this test once more, within.
#[test]
fn without_permission_the_check_is_unknown_and_tells_the_remedy() {
    const ROLE: &str = "ANYCAST_LABS_WITHOUT_NET_RAW";
    const NAME: &str = "icmp::without_permission_the_check_is_unknown_and_tells_the_remedy";
    if std::env::var_os(ROLE).is_some() {
        return without_permission();
    }
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        let mut again = Command::new("setpriv");
        again.args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
        again.arg(std::env::current_exe().unwrap());
        again.args(["--exact", NAME, "--nocapture"]).env(ROLE, "1");
        for (which, says) in EACH.into_iter().zip(["unknown", "healthy"]) {
            permit(&node, which);
            let output = node.output(&mut again).unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = said + &String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(&format!("it is {says}")), "{said}");
        }
    });
}

/// In the namespace already.
fn without_permission() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    match runtime.block_on(check().check(LONG)) {
        Verdict::Healthy => println!("it is healthy"),
        Verdict::Unhealthy(reason, _) => panic!("{reason}"),
        Verdict::Unknown(reason) => {
            assert!(reason.as_str().contains("CAP_NET_RAW"), "{reason}");
            assert!(reason.as_str().contains("ping_group_range"), "{reason}");
            println!("it is unknown");
        }
    }
}

/// A raw socket hears the pings of others, and they are not ours.
#[test]
fn other_pings_do_not_disturb() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        permit(&node, Permitted::Raw);
        let mut flood = Command::new("ping");
        flood.args(["-q", "-i", "0.002", "-s", "1400", "192.0.2.1"]);
        let _pings: Vec<Proc> = (0..4)
            .map(|n| Proc::start(&node, &format!("ping{n}"), &mut flood).unwrap())
            .collect();
        for _ in 0..200 {
            healthy(&node, &check());
        }
    });
}

#[test]
fn a_checker_without_descriptors_is_unknown() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        for which in EACH {
            permit(&node, which);
            let (without, with) = probe_without_descriptors(&node, &check());
            let Verdict::Unknown(reason) = &without else {
                panic!("{without}");
            };
            assert!(reason.as_str().contains("open files"), "{reason}");
            assert_eq!(with, Verdict::Healthy);
        }
    });
}

#[test]
fn another_node_is_not_taken_for_this_one() {
    isolated(|| {
        let (here, _there) = here_and_there(&[V4, V6]);
        divert_by_rule(&here, "192.0.2.1");
        divert_by_rule(&here, "2001:db8::1");
        for which in EACH {
            permit(&here, which);
            for address in [V4, V6] {
                let check = IcmpCheck::new(service(&[address]));
                // The danger: without a proof, the other node's reply passes for ours.
                healthy(&here, &check.clone().with_source(Source::Any));
                unhealthy(&here, &check, SHORT, "no answer");
            }
        }
    });
}

/// From either source: to a local address the kernel chooses that address as the source.
#[test]
fn another_node_reached_by_nat_is_not_taken_for_this_one() {
    isolated(|| {
        let (here, _there) = here_and_there(&[V4, V6]);
        divert_by_nat(&here, "192.0.2.1", false);
        for source in [Source::Service, Source::Any] {
            let check = IcmpCheck::new(service(&[V4])).with_source(source);
            unhealthy(&here, &check, SHORT, "no answer");
        }
    });
}
