//! The daemons' configurations: the samples, with one router, IPv4 and as many prefixes as asked.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anycast_labs::node::Kind;

use super::Subject;

/// Of this network, as many host routes as are announced.
pub(super) const NETWORK: &str = "10.128.0.0/16";

/// The prefixes, as many as asked: 10.128.0.1 and those that follow.
pub(super) fn addresses(count: u32) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 1));
    (first..first + count).map(Ipv4Addr::from)
}

/// The router prefers what has the higher local preference, or the lower MED.
pub(super) fn router(dump: &Path) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id 10.10.0.1;\nprotocol device {{}}\n\
         mrtdump \"{}\";\nmrtdump protocols {{ messages }};\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         template bgp site {{ local as 65000; direct; rr client; hold time 90;\n\
         connect delay time 1; connect retry time 2; error wait time 1, 2;\n\
         ipv4 {{ import all; export none; }}; }}\n",
        dump.display()
    );
    for (name, host) in [("a", "10.10.1.2"), ("b", "10.10.2.2")] {
        let _ = writeln!(
            text,
            "protocol bgp {name} from site {{ neighbor {host} as 65000; }}"
        );
    }
    text
}

/// Between a's levels, whichever attribute shows them.
pub(super) fn second(count: u32) -> String {
    let mut text = "log stderr all;\nrouter id 10.10.0.3;\nprotocol device {}\n\
                    protocol bgp hub { local as 65000; direct; neighbor 10.10.2.1 as 65000;\n\
                    hold time 90; connect delay time 1; connect retry time 2;\n\
                    ipv4 { import none; next hop self; export filter {\n\
                    bgp_local_pref = 100; bgp_med = 500; accept; }; }; }\n\
                    protocol static { ipv4;\n"
        .to_owned();
    for address in addresses(count) {
        let _ = writeln!(text, "route {address}/32 blackhole;");
    }
    text + "}\n"
}

pub(super) fn first(subject: Subject, kind: Kind, count: u32, include: &Path) -> String {
    match kind {
        Kind::Bird => bird(subject, count, include),
        Kind::Frr => frr(subject, count),
    }
}

fn bird(subject: Subject, count: u32, include: &Path) -> String {
    let mut text = include_str!("../../../../examples/routing/bird.conf")
        .replace("log syslog all;", "log stderr all;")
        .replace("10.0.0.2", "10.10.0.2")
        .replace("10.0.0.1", "10.10.1.1")
        .replace(
            "net = 192.0.2.69/32",
            &format!("net ~ [ {NETWORK}{{32,32}} ]"),
        )
        .replace("next hop self; };", "next hop self; export table on; };");
    let routes = |text: &mut String, name: &str, state: &str, preference: u32| {
        let _ = writeln!(
            text,
            "protocol static {name} {{ {state} ipv4 {{ preference {preference}; }};"
        );
        for address in addresses(count) {
            let _ = writeln!(text, "route {address}/32 blackhole;");
        }
        *text += "}\n";
    };
    text = text.replace("  route 192.0.2.69/32 blackhole;\n", "");
    routes(&mut text, "anycast_floor_more", "", 180);
    match subject {
        Subject::Protocol => {
            text = text.replace("proto = \"anycast_boost\"", "proto ~ \"boost*\"");
            routes(&mut text, "boost4", "disabled;", 241);
        }
        Subject::Include | Subject::Script => {
            text = text.replace(
                "if proto ~ \"anycast_floor*\" then { bgp_local_pref = 50; accept; }",
                "if proto ~ \"anycast_floor*\" then { bgp_local_pref = anycast_level; accept; }",
            );
            text = format!("include \"{}\";\n{text}", include.display());
        }
        Subject::Loopback(_) | Subject::Daemon(_) | Subject::RouteMap | Subject::Exabgp => {}
    }
    text
}

fn frr(subject: Subject, count: u32) -> String {
    let mut networks = String::new();
    for address in addresses(count) {
        let _ = writeln!(networks, "  network {address}/32 route-map FLOOR");
    }
    let mut text = include_str!("../../../../examples/routing/frr.conf")
        .replace("log syslog informational", "log stdout")
        .replace("10.0.0.2", "10.10.0.2")
        .replace("10.0.0.1", "10.10.1.1")
        .replace("  network 192.0.2.69/32 route-map FLOOR\n", &networks)
        .replace("permit 192.0.2.69/32", &format!("permit {NETWORK} ge 32"));
    if subject == Subject::RouteMap {
        text = text
            .replace("  redistribute connected route-map BOOST4\n", "")
            .replace(
                "route-map TO-ROUTER4 permit 10\n",
                "route-map TO-ROUTER4 permit 10\n set local-preference 50\n",
            );
    }
    text
}

pub(super) fn exabgp(health: &Path, decided: &Path) -> String {
    let (health, decided) = (health.display(), decided.display());
    format!(
        "process watch {{\n run /usr/bin/python3 -m exabgp healthcheck --no-syslog --no-ack \
         --interval 1 --fast-interval 1 --rise 1 --fall 1 --timeout 2 --no-ip-setup \
         --up-metric 100 --down-metric 1000 --ip 10.128.0.1/32 --next-hop 10.10.1.2 \
         --execute \"touch {decided}\" --cmd \"test -e {health}\";\n encoder text;\n}}\n\
         neighbor 10.10.1.1 {{\n router-id 10.10.0.2;\n local-address 10.10.1.2;\n \
         local-as 65000;\n peer-as 65000;\n hold-time 90;\n family {{ ipv4 unicast; }}\n \
         api {{ processes [ watch ]; }}\n}}\n"
    )
}
