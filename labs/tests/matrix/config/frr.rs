//! FRR.

use std::fmt::Write as _;
use std::path::Path;

use super::super::topology::{
    DEAD, HELLO, HOLD_TIME, Protocol, ROUTER_AS, SITES, Topology, distance, site_as,
};

/// The sample with both routers in the place of its one.
pub(super) fn two_routers(protocol: Protocol, text: &str, number: usize) -> String {
    if protocol == Protocol::Ospf {
        return twice(text, "interface eth0\n", "exit\n", |block, router| {
            block.replace("eth0", &format!("up{router}"))
        });
    }
    let mut whole = String::new();
    for line in text.lines() {
        let (four, six) = ("10.0.0.1", "2001:db8:0:1::1");
        let routers: &[u8] = if line.contains(four) || line.contains(six) {
            &[1, 2]
        } else {
            &[0]
        };
        for router in routers {
            whole += &line
                .replace(four, &format!("10.10.{router}{number}.1"))
                .replace(six, &format!("fd00:10:{router}{number}::1"));
            whole.push('\n');
        }
    }
    whole
}

/// The block from `begin` to `end`, for each router.
fn twice(text: &str, begin: &str, end: &str, for_router: impl Fn(&str, u8) -> String) -> String {
    let from = text.find(begin).unwrap();
    let length = text[from..].find(end).unwrap() + end.len();
    let (block, rest) = text[from..].split_at(length);
    [
        &text[..from],
        &for_router(block, 1),
        &for_router(block, 2),
        rest,
    ]
    .concat()
}

/// `snippet` before the first `router`.
pub(super) fn before_router(text: &str, snippet: &str) -> String {
    let at = text.find("\nrouter ").unwrap() + 1;
    [&text[..at], snippet, &text[at..]].concat()
}

/// One route for each family, whose level the outgoing route-map has, and nothing else of it.
pub(super) fn steered(protocol: Protocol, text: &str) -> String {
    let mut whole = super::without(
        text,
        &[
            "  redistribute connected route-map BOOST",
            " set as-path prepend ",
            " set community 65535:0",
        ],
    );
    let level = match protocol {
        Protocol::Ibgp | Protocol::Ospf => format!("set local-preference {}", protocol.floor()),
        Protocol::Ebgp => format!("set metric {}", protocol.floor()),
    };
    for family in [4, 6] {
        let entry = format!("route-map TO-ROUTER{family} permit 10\n");
        assert!(whole.contains(&entry), "the sample has no {entry:?}");
        whole = whole.replace(&entry, &format!("{entry} {level}\n"));
    }
    whole
}

pub(super) fn router(topology: Topology, router: usize, dump: &Path) -> String {
    let mut text = format!("frr defaults traditional\nhostname router-{}\n", router + 1);
    match topology.protocol {
        Protocol::Ibgp | Protocol::Ebgp => bgp(&mut text, topology, router, dump),
        Protocol::Ospf => ospf(&mut text, topology, router),
    }
    if topology.bfd {
        return before_router(&text, super::bfd(anycast_labs::node::Kind::Frr));
    }
    text
}

/// Every neighbour of a router: its device, its address on the link in one family, its AS.
fn neighbours(topology: Topology, router: usize, v4: bool) -> Vec<(&'static str, String, u32)> {
    let ebgp = topology.protocol == Protocol::Ebgp;
    let other = 2 - router;
    let mut all: Vec<_> = SITES
        .iter()
        .enumerate()
        .map(|(site, each)| {
            let link = format!("{}{}", router + 1, site + 1);
            let address = if v4 {
                format!("10.10.{link}.2")
            } else {
                format!("fd00:10:{link}::2")
            };
            (each.device, address, site_as(ebgp))
        })
        .collect();
    let peer = if v4 {
        format!("10.12.0.{other}")
    } else {
        format!("fd00:12::{other}")
    };
    all.push(("peer", peer, ROUTER_AS));
    all
}

fn bgp(text: &mut String, topology: Topology, router: usize, dump: &Path) {
    let number = router + 1;
    let _ = writeln!(text, "dump bgp all {}", dump.display());
    // A router prefers its nearest site: a greater MED for a farther one, below all levels. The
    // other router's best path is farther than every site.
    let distances = SITES.iter().enumerate();
    let distances = distances.map(|(site, each)| (each.device, distance(router, site)));
    for (name, distance) in distances.chain([("peer", 100)]) {
        let _ = writeln!(
            text,
            "route-map FROM-{name} permit 10\n set metric +{distance}\nexit"
        );
    }
    let _ = writeln!(text, "route-map ALL permit 10\nexit");
    let _ = writeln!(
        text,
        "router bgp {ROUTER_AS}\n bgp router-id 10.1.{number}.1\n no bgp default ipv4-unicast\n\
         \x20bgp graceful-restart-disable\n\
         \x20timers bgp {} {HOLD_TIME}",
        HOLD_TIME / 3
    );
    let families = [("ipv4", true), ("ipv6", false)];
    for (_, v4) in families {
        for (name, address, remote) in neighbours(topology, router, v4) {
            let _ = writeln!(text, " neighbor {address} remote-as {remote}");
            let _ = writeln!(text, " neighbor {address} timers connect 2");
            if topology.bfd && name != "peer" {
                let _ = writeln!(text, " neighbor {address} bfd profile anycast");
            }
        }
    }
    for (family, v4) in families {
        let _ = writeln!(text, " address-family {family} unicast");
        let _ = writeln!(text, "  maximum-paths 1\n  maximum-paths ibgp 1");
        let clients = if v4 {
            format!("10.1.{number}.0/24")
        } else {
            format!("fd00:1:{number}::/64")
        };
        let _ = writeln!(text, "  network {clients}");
        for (name, address, _) in neighbours(topology, router, v4) {
            let _ = writeln!(text, "  neighbor {address} activate");
            let _ = writeln!(text, "  neighbor {address} route-map FROM-{name} in");
            let _ = writeln!(text, "  neighbor {address} route-map ALL out");
            let _ = writeln!(text, "  neighbor {address} next-hop-self force");
            if topology.protocol == Protocol::Ibgp && name != "peer" {
                let _ = writeln!(text, "  neighbor {address} route-reflector-client");
            }
        }
        let _ = writeln!(text, " exit-address-family");
    }
    *text += "exit\nend\n";
}

fn ospf(text: &mut String, topology: Topology, router: usize) {
    let distances = SITES.iter().enumerate();
    let distances = distances.map(|(site, each)| (each.device, distance(router, site)));
    for (name, cost) in distances.chain([("peer", 100)]) {
        let _ = writeln!(text, "interface {name}");
        for ospf in ["ip ospf", "ipv6 ospf6"] {
            let _ = writeln!(
                text,
                " {ospf} area 0.0.0.0\n {ospf} network point-to-point\n {ospf} cost {cost}\n \
                 {ospf} hello-interval {HELLO}\n {ospf} dead-interval {DEAD}"
            );
            if topology.bfd && name != "peer" {
                // ospfd takes the profile alone for nothing.
                let _ = writeln!(text, " {ospf} bfd\n {ospf} bfd profile anycast");
            }
        }
        *text += "exit\n";
    }
    let _ = writeln!(
        text,
        "interface client\n ip ospf area 0.0.0.0\n ip ospf passive\n ipv6 ospf6 area 0.0.0.0\n \
         ipv6 ospf6 passive\nexit\n\
         router ospf\n ospf router-id 10.1.{number}.1\nexit\n\
         router ospf6\n ospf6 router-id 10.1.{number}.1\nexit\nend",
        number = router + 1
    );
}
