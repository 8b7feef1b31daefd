//! `ntp`, with chronyd serving a time of its own; `-x`: it never touches a clock.

use std::process::Command;
use std::time::Duration;

use anycast_core::Verdict;
use anycast_core::health::ntp::NtpCheck;
use anycast_core::health::probe::Source;
use anycast_labs::{Netns, Proc, isolated, require};

use super::{
    LONG, SHORT, divert_by_nat, divert_by_rule, folder_of, healthy, here_and_there, node,
    probe_without_descriptors, reason, service, unhealthy, write,
};

const V4: &str = "192.0.2.123/32";
const V6: &str = "2001:db8::123/128";

/// `own`: what is in its configuration besides the bare necessities.
fn chronyd(node: &Netns, own: &str) -> Proc {
    let folder = folder_of(&write(node.name(), "chrony.conf", ""));
    let text = format!("{own}\ncmdport 0\nbindcmdaddress /\npidfile {folder}/chronyd.pid\n");
    let config = write(node.name(), "chrony.conf", &text);
    let program = require("chronyd", &[], "chrony").unwrap();
    let mut command = Command::new(program);
    command
        .args(["-x", "-d", "-F", "0", "-u", "root", "-f"])
        .arg(config);
    Proc::start(node, &format!("chronyd-{}", node.name()), &mut command).unwrap()
}

fn check() -> NtpCheck {
    NtpCheck::new(service(&[V4, V6]))
}

#[test]
fn chronyd_is_healthy_and_its_failures_are_seen() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        unhealthy(&node, &check(), LONG, "refused");
        let mut server = chronyd(&node, "local stratum 8\nallow");
        healthy(&node, &check());
        healthy(&node, &check().with_max_stratum(8));
        let bounded = check().with_max_distance(Duration::from_secs(1));
        healthy(&node, &bounded.with_max_offset(Duration::from_secs(1)));
        let first = check().with_max_stratum(7);
        let said = reason(&node, &first, LONG);
        assert!(
            said.contains("192.0.2.123:123: stratum 8, at most 7"),
            "{said}"
        );
        assert!(said.contains("[2001:db8::123]:123: stratum 8"), "{said}");

        server.stop().unwrap();
        unhealthy(&node, &check(), SHORT, "no answer within 500ms");
        server.resume().unwrap();
        healthy(&node, &check());
        server.kill().unwrap();
        unhealthy(&node, &check(), LONG, "refused");
    });
}

#[test]
fn a_chronyd_that_is_not_synchronised_is_unhealthy() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        // TEST-NET-3: never answers.
        let _server = chronyd(&node, "server 203.0.113.1\nallow");
        let begun = std::time::Instant::now();
        while begun.elapsed() < super::WITHIN {
            let said = reason(&node, &check(), LONG);
            if said.contains("not synchronised") {
                return;
            }
            assert!(said.contains("refused"), "{said}");
        }
        panic!("chronyd does not answer");
    });
}

/// The server must serve its own service address: the documentation says so.
#[test]
fn a_chronyd_that_does_not_serve_the_service_address_is_unhealthy() {
    isolated(|| {
        let node = node("ams1", &[V4]);
        let _server = chronyd(&node, "local stratum 8\nallow 127.0.0.1");
        let only = NtpCheck::new(service(&[V4]));
        healthy(&node, &NtpCheck::new(service(&["127.0.0.1/32"])));
        unhealthy(&node, &only, SHORT, "no answer within 500ms");
    });
}

#[test]
fn a_checker_without_descriptors_is_unknown() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        let _server = chronyd(&node, "local stratum 8\nallow");
        healthy(&node, &check());
        let (without, with) = probe_without_descriptors(&node, &check());
        let Verdict::Unknown(reason) = &without else {
            panic!("{without}");
        };
        assert!(reason.as_str().contains("open files"), "{reason}");
        assert_eq!(with, Verdict::Healthy);
    });
}

#[test]
fn another_node_is_not_taken_for_this_one() {
    isolated(|| {
        let (here, there) = here_and_there(&[V4, V6]);
        let _other = chronyd(&there, "local stratum 8\nallow");
        divert_by_rule(&here, "192.0.2.123");
        divert_by_rule(&here, "2001:db8::123");
        for address in [V4, V6] {
            let check = NtpCheck::new(service(&[address]));
            // The danger: without a proof, the other node's answer passes for ours.
            healthy(&here, &check.clone().with_source(Source::Any));
            let said = reason(&here, &check, SHORT);
            assert!(said.contains("no answer"), "{said}");
        }
    });
}

/// The last is the limit of the proof, as the check's documentation states it.
#[test]
fn another_node_reached_by_nat_is_not_taken_for_this_one_unless_both_addresses_are_translated() {
    isolated(|| {
        let (here, there) = here_and_there(&[V4, V6]);
        let _other = chronyd(&there, "local stratum 8\nallow");
        healthy(&there, &check());
        divert_by_nat(&here, "192.0.2.123", false);
        for source in [Source::Service, Source::Any] {
            let check = NtpCheck::new(service(&[V4])).with_source(source);
            unhealthy(&here, &check, SHORT, "no answer");
        }
        divert_by_nat(&here, "192.0.2.123", true);
        healthy(&here, &NtpCheck::new(service(&[V4])));
    });
}
