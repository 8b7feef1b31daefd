//! BIRD.

use std::fmt::Write as _;
use std::path::Path;

use super::super::topology::{
    DEAD, HELLO, HOLD_TIME, Protocol, ROUTER_AS, SITES, Topology, distance, site_as,
};

/// The sample with both routers in the place of its one.
pub(super) fn two_routers(protocol: Protocol, text: &str, number: usize) -> String {
    if protocol == Protocol::Ospf {
        return text.replace("interface \"eth0\"", "interface \"up1\", \"up2\"");
    }
    let (head, sessions) = text.split_at(text.find("protocol bgp router4").unwrap());
    let mut whole = head.to_owned();
    for router in [1, 2] {
        whole += &sessions
            .replace("router4", &format!("router{router}_4"))
            .replace("router6", &format!("router{router}_6"))
            .replace("10.0.0.1", &format!("10.10.{router}{number}.1"))
            .replace("2001:db8:0:1::1", &format!("fd00:10:{router}{number}::1"));
    }
    whole
}

/// What was sent can be read back.
pub(super) fn with_export_tables(text: &str) -> String {
    let (without, with) = ("next hop self; };", "next hop self; export table on; };");
    assert!(text.contains(without), "the sample has no {without:?}");
    text.replace(without, with)
}

/// The boost as protocols of BIRD's own, and MED alone for a level: FRR's route-maps hold one value.
pub(super) fn steered(protocol: Protocol, text: &str) -> String {
    let begin = text.find("protocol direct anycast_boost {").unwrap();
    let end = begin + text[begin..].find("\n}\n").unwrap() + "\n}\n".len();
    let mut boosts = String::new();
    for (family, prefix) in [(4, "192.0.2.69/32"), (6, "2001:db8::69/128")] {
        let _ = writeln!(
            boosts,
            "protocol static anycast_boost{family} {{ disabled; \
             ipv{family} {{ preference 241; }}; route {prefix} blackhole; }}"
        );
    }
    let whole = [&text[..begin], &boosts, &text[end..]].concat();
    let whole = whole.replace("proto = \"anycast_boost\"", "proto ~ \"anycast_boost*\"");
    if protocol != Protocol::Ebgp {
        return whole;
    }
    super::without(&whole, &["bgp_path.prepend(", "bgp_community.add("])
}

pub(super) fn router(topology: Topology, router: usize, dump: &Path) -> String {
    let number = router + 1;
    let mut text = format!(
        "log stderr all;\n\
         router id 10.1.{number}.1;\n\
         protocol device {{ scan time 1; }}\n\
         protocol direct clients {{ ipv4; ipv6; interface \"client\"; }}\n"
    );
    if topology.bfd {
        text += super::bfd(anycast_labs::node::Kind::Bird);
    }
    for family in ["ipv4", "ipv6"] {
        let _ = writeln!(
            text,
            "protocol kernel {{ {family} {{ import none; export where source != RTS_DEVICE; }}; }}"
        );
    }
    match topology.protocol {
        Protocol::Ibgp | Protocol::Ebgp => bgp(&mut text, topology, router, dump),
        Protocol::Ospf => ospf(&mut text, topology, router),
    }
    text
}

fn bgp(text: &mut String, topology: Topology, router: usize, dump: &Path) {
    let ebgp = topology.protocol == Protocol::Ebgp;
    let reflect = if ebgp { "" } else { "rr client;" };
    let bfd = if topology.bfd { "bfd on;" } else { "" };
    let _ = writeln!(
        text,
        "mrtdump \"{}\";\nmrtdump protocols {{ messages }};\n\
         template bgp neighbour {{\n\
         local as {ROUTER_AS}; direct; hold time {HOLD_TIME}; graceful restart off;\n\
         connect delay time 1; connect retry time 2; error wait time 1, 2;\n}}\n\
         template bgp site from neighbour {{ {reflect} {bfd} }}",
        dump.display()
    );
    for (site, each) in SITES.iter().enumerate() {
        farther(text, each.device, distance(router, site));
        let (link, name) = (format!("{}{}", router + 1, site + 1), each.device);
        session(
            text,
            "site",
            name,
            &format!("10.10.{link}.2"),
            4,
            site_as(ebgp),
        );
        session(
            text,
            "site",
            name,
            &format!("fd00:10:{link}::2"),
            6,
            site_as(ebgp),
        );
    }
    // Farther than every site: its own best path must not tempt this router.
    farther(text, "peer", 100);
    let other = 2 - router;
    session(
        text,
        "neighbour",
        "peer",
        &format!("10.12.0.{other}"),
        4,
        ROUTER_AS,
    );
    session(
        text,
        "neighbour",
        "peer",
        &format!("fd00:12::{other}"),
        6,
        ROUTER_AS,
    );
}

/// A router prefers its nearest site: a greater MED for a farther one, below all levels. And
/// GRACEFUL_SHUTDOWN is honoured, as RFC 8326 has it.
fn farther(text: &mut String, from: &str, by: u32) {
    let _ = writeln!(
        text,
        "filter from_{} {{\n\
         if defined(bgp_med) then bgp_med = bgp_med + {by}; else bgp_med = {by};\n\
         if (65535, 0) ~ bgp_community then bgp_local_pref = 0;\n\
         accept;\n}}",
        from.replace('-', "_")
    );
}

fn session(text: &mut String, template: &str, name: &str, address: &str, family: u8, remote: u32) {
    let name = name.replace('-', "_");
    let _ = writeln!(
        text,
        "protocol bgp {name}_{family} from {template} {{\n\
         neighbor {address} as {remote};\n\
         ipv{family} {{ import filter from_{name}; export all; next hop self; }};\n}}"
    );
}

fn ospf(text: &mut String, topology: Topology, router: usize) {
    let bfd = if topology.bfd { "bfd on;" } else { "" };
    for (version, family) in [("v2", "ipv4"), ("v3", "ipv6")] {
        let _ = writeln!(
            text,
            "protocol ospf {version} lab_{family} {{\n\
             {family} {{ import all; export none; }};\n area 0 {{\n\
             interface \"client\" {{ stub yes; }};\n\
             interface \"peer\" {{ type ptp; cost 100; hello {HELLO}; dead {DEAD}; }};"
        );
        for (site, each) in SITES.iter().enumerate() {
            let _ = writeln!(
                text,
                "interface \"{}\" {{ type ptp; cost {}; hello {HELLO}; dead {DEAD}; {bfd} }};",
                each.device,
                distance(router, site)
            );
        }
        *text += "};\n}\n";
    }
}
