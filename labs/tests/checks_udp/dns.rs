//! `dns`, with unbound and knot.

use std::process::Command;

use anycast_core::Verdict;
use anycast_core::health::dns::{DnsCheck, Identity, Question, Transport};
use anycast_core::health::probe::Source;
use anycast_labs::{Netns, Proc, isolated, require};

use super::{
    LONG, SHORT, divert_by_nat, divert_by_rule, folder_of, healthy, here_and_there, node,
    probe_without_descriptors, reason, service, unhealthy, write,
};

const V4: &str = "192.0.2.53/32";
const V6: &str = "2001:db8::53/128";

fn unbound(node: &Netns, identity: &str) -> Proc {
    let config = write(identity, "unbound.conf", "");
    let folder = folder_of(&config);
    let text = format!(
        "server:\n\
         directory: \"{folder}\"\nusername: \"\"\nchroot: \"\"\npidfile: \"\"\n\
         use-syslog: no\nlogfile: \"\"\ndo-daemonize: no\nnum-threads: 1\n\
         module-config: \"iterator\"\n\
         interface: 0.0.0.0\ninterface: ::0\ninterface-automatic: yes\n\
         access-control: 0.0.0.0/0 allow\naccess-control: ::/0 allow\n\
         identity: \"{identity}\"\nnsid: \"ascii_{identity}\"\n\
         local-zone: \"example.\" static\n\
         local-data: \"example. IN SOA ns.example. admin.example. 7 3600 600 86400 300\"\n\
         local-data: \"example. IN NS ns.example.\"\n\
         local-data: \"example. IN MX 10 mail.example.\"\n\
         local-data: \"health.example. IN A 192.0.2.1\"\n\
         local-data: \"health.example. IN A 192.0.2.2\"\n\
         local-data: \"health.example. IN AAAA 2001:db8::1\"\n\
         local-data: 'health.example. IN TXT \"all is well\"'\n\
         local-data: \"_x._udp.example. IN SRV 1 2 53 ns.example.\"\n\
         local-zone: \"refused.\" refuse\n\
         remote-control:\ncontrol-enable: no\n"
    );
    let config = write(identity, "unbound.conf", &text);
    let program = require("unbound", &[], "unbound").unwrap();
    let mut command = Command::new(program);
    command.arg("-d").arg("-c").arg(config);
    Proc::start(node, &format!("unbound-{identity}"), &mut command).unwrap()
}

/// `example.` is a zone; `broken.` is one whose file is missing, which is a SERVFAIL.
fn knot(node: &Netns, identity: &str) -> Proc {
    let big: String = (0..40)
        .map(|n| format!("big TXT \"{n} {}\"\n", "x".repeat(100)))
        .collect();
    let zone = format!(
        "$ORIGIN example.\n$TTL 60\n\
         @ SOA ns admin 7 3600 600 86400 300\n@ NS ns\nns A 192.0.2.1\n\
         health A 192.0.2.1\nhealth A 192.0.2.2\nalias CNAME health\n{big}"
    );
    let folder = folder_of(&write(identity, "example.zone", &zone));
    let text = format!(
        "server:\n  rundir: {folder}\n  listen: [ 0.0.0.0@53, ::@53 ]\n  \
         identity: {identity}\n  nsid: {identity}\n\
         database:\n  storage: {folder}\n\
         log:\n  - target: stderr\n    any: info\n\
         template:\n  - id: default\n    storage: {folder}\n\
         zone:\n  - domain: example.\n    file: example.zone\n  \
         - domain: broken.\n    file: missing.zone\n"
    );
    let config = write(identity, "knot.conf", &text);
    let program = require("knotd", &[], "knot").unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    Proc::start(node, &format!("knot-{identity}"), &mut command).unwrap()
}

fn ask(name: &str, kind: &str) -> Question {
    Question::new(name, kind).unwrap()
}

fn health() -> Question {
    ask("health.example", "A")
}

fn check(question: Question) -> DnsCheck {
    DnsCheck::new(service(&[V4, V6]), question)
}

fn identified(identity: &str) -> [DnsCheck; 3] {
    [
        Identity::nsid(identity),
        Identity::id_server(identity),
        Identity::hostname_bind(identity),
    ]
    .map(|identity| check(health()).with_identity(identity.unwrap()))
}

/// What every server must pass, on both addresses.
fn serves_rightly(node: &Netns) {
    for transport in [Transport::Udp, Transport::Tcp] {
        healthy(node, &check(health()).with_transport(transport));
    }
    for own in identified("ams1") {
        healthy(node, &own);
        healthy(node, &own.with_transport(Transport::Tcp));
    }
    let right = ["192.0.2.2", "192.0.2.1"];
    healthy(node, &check(health().equalling(&right).unwrap()));
    let soa = ["ns.example. admin.example. 7 3600 600 86400 300"];
    healthy(node, &check(ask("example", "SOA").equalling(&soa).unwrap()));
    healthy(node, &check(health().with_recursion(false)));
    let missing = ask("missing.example", "A");
    healthy(
        node,
        &check(missing.clone().with_rcode("NXDOMAIN").unwrap()),
    );

    for other in identified("fra1") {
        let said = reason(node, &other, LONG);
        let expected = r#"192.0.2.53:53: answered by "ams1", not by "fra1""#;
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("[2001:db8::53]:53: answered by"), "{said}");
    }
    unhealthy(node, &check(missing), LONG, "NXDOMAIN instead of NOERROR");
    let fewer = health().equalling(&["192.0.2.1"]).unwrap();
    unhealthy(node, &check(fewer), LONG, "192.0.2.2 as well");
    let other = health().containing(&["192.0.2.9"]).unwrap();
    unhealthy(node, &check(other), LONG, "expected 192.0.2.9");
    let no_data = ask("health.example", "MX");
    unhealthy(node, &check(no_data), LONG, "no health.example. MX");
}

/// Wedged, going on, dead.
fn fails_rightly(node: &Netns, mut server: Proc) {
    server.stop().unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        let check = check(health()).with_transport(transport);
        unhealthy(node, &check, SHORT, "no answer within 500ms");
    }
    server.resume().unwrap();
    healthy(node, &check(health()));
    server.kill().unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        let check = check(health()).with_transport(transport);
        unhealthy(node, &check, LONG, "refused");
    }
}

#[test]
fn unbound_is_healthy_and_its_failures_are_seen() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        unhealthy(&node, &check(health()), LONG, "refused");
        let server = unbound(&node, "ams1");
        serves_rightly(&node);
        for (name, kind, answer) in [
            ("health.example", "AAAA", "2001:db8:0::1"),
            ("health.example", "TXT", "all is well"),
            ("example", "NS", "NS.example"),
            ("example", "MX", "10 mail.example."),
            ("_x._udp.example", "SRV", "1 2 53 ns.example."),
        ] {
            let question = ask(name, kind).equalling(&[answer]).unwrap();
            healthy(&node, &check(question));
        }
        let refused = ask("www.refused", "A");
        unhealthy(&node, &check(refused), LONG, "REFUSED instead");
        fails_rightly(&node, server);
    });
}

#[test]
fn knot_is_healthy_and_its_failures_are_seen() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        let server = knot(&node, "ams1");
        serves_rightly(&node);
        let alias = ask("alias.example", "A").containing(&["192.0.2.1"]);
        healthy(&node, &check(alias.unwrap()));
        // Some 4 kB: cut off over UDP, whole over TCP.
        healthy(&node, &check(ask("big.example", "TXT")));
        let broken = ask("www.broken", "A");
        unhealthy(&node, &check(broken), LONG, "SERVFAIL instead");
        let foreign = ask("www.elsewhere", "A");
        unhealthy(&node, &check(foreign), LONG, "REFUSED instead");
        fails_rightly(&node, server);
    });
}

#[test]
fn a_service_address_that_went_away_is_unhealthy() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        let _server = unbound(&node, "ams1");
        healthy(&node, &check(health()));
        node.run("ip addr del 2001:db8::53/128 dev lo").unwrap();
        let said = reason(&node, &check(health()), LONG);
        assert_eq!(said, "[2001:db8::53]:53: the address is not on this node");
    });
}

#[test]
fn a_firewall_of_this_host_that_stops_the_probe_blames_nobody() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        let _server = unbound(&node, "ams1");
        healthy(&node, &check(health()));
        let block = "table inet block {\nchain out {\n\
                     type filter hook output priority 0\nudp dport 53 drop\n}\n}\n";
        node.nft(block).unwrap();
        let said = super::probe(&node, &check(health()), LONG);
        assert!(matches!(said, Verdict::Unknown(_)), "{said}");
    });
}

#[test]
fn a_checker_without_descriptors_is_unknown() {
    isolated(|| {
        let node = node("ams1", &[V4, V6]);
        let _server = unbound(&node, "ams1");
        for transport in [Transport::Udp, Transport::Tcp] {
            let check = check(health()).with_transport(transport);
            healthy(&node, &check);
            let (without, with) = probe_without_descriptors(&node, &check);
            let Verdict::Unknown(reason) = &without else {
                panic!("{without}");
            };
            assert!(reason.as_str().contains("open files"), "{reason}");
            assert_eq!(with, Verdict::Healthy);
        }
    });
}

/// The probe is led to another node, which holds the address too and answers in our stead.
/// From the service address nothing comes back; from another address only the identity tells.
fn is_not_fooled(here: &Netns, addresses: &[&str]) {
    for transport in [Transport::Udp, Transport::Tcp] {
        let check = DnsCheck::new(service(addresses), health()).with_transport(transport);
        let said = reason(here, &check, SHORT);
        assert!(!said.contains("answered"), "{said}");
        let from_any = check.with_source(Source::Any);
        // The danger: without a proof, the other node's answer passes for ours.
        healthy(here, &from_any);
        let nsid = Identity::nsid("here").unwrap();
        let check = from_any.clone().with_identity(nsid);
        unhealthy(here, &check, LONG, r#"answered by "there""#);
        let id_server = Identity::id_server("here").unwrap();
        let check = from_any.with_identity(id_server);
        unhealthy(here, &check, LONG, r#"answered by "there""#);
    }
}

#[test]
fn another_node_reached_by_a_rule_is_not_taken_for_this_one() {
    isolated(|| {
        let (here, there) = here_and_there(&[V4, V6]);
        let _other = unbound(&there, "there");
        divert_by_rule(&here, "192.0.2.53");
        divert_by_rule(&here, "2001:db8::53");
        is_not_fooled(&here, &[V4]);
        is_not_fooled(&here, &[V6]);
    });
}

#[test]
fn another_node_reached_by_nat_is_not_taken_for_this_one() {
    isolated(|| {
        let (here, there) = here_and_there(&[V4, V6]);
        let _other = knot(&there, "there");
        healthy(&there, &check(health()));
        divert_by_nat(&here, "192.0.2.53", false);
        let check = DnsCheck::new(service(&[V4]), health());
        let said = reason(&here, &check, SHORT);
        assert!(!said.contains("answered"), "{said}");
    });
}

/// The limit of the proof, as the check's documentation states it: against a translation of
/// both addresses the source proves nothing, and the identity does.
#[test]
fn against_full_translation_only_the_identity_helps() {
    isolated(|| {
        let (here, there) = here_and_there(&[V4, V6]);
        let _other = knot(&there, "there");
        divert_by_nat(&here, "192.0.2.53", true);
        let check = DnsCheck::new(service(&[V4]), health());
        healthy(&here, &check);
        for identity in [Identity::nsid("here"), Identity::id_server("here")] {
            let check = check.clone().with_identity(identity.unwrap());
            unhealthy(&here, &check, LONG, r#"answered by "there""#);
        }
    });
}
