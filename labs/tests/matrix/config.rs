//! Configurations of the routing daemons: the samples at the sites, with this lab's addresses;
//! the routers' own.

mod bird;
mod frr;

use std::path::Path;

use anycast_labs::node::Kind;

use super::topology::{Protocol, SITES, Topology};

/// The file of `examples/routing` that a site runs.
fn sample(protocol: Protocol, kind: Kind) -> &'static str {
    match (protocol, kind) {
        (Protocol::Ibgp, Kind::Bird) => include_str!("../../../examples/routing/bird.conf"),
        (Protocol::Ibgp, Kind::Frr) => include_str!("../../../examples/routing/frr.conf"),
        (Protocol::Ebgp, Kind::Bird) => include_str!("../../../examples/routing/bird-ebgp.conf"),
        (Protocol::Ebgp, Kind::Frr) => include_str!("../../../examples/routing/frr-ebgp.conf"),
        (Protocol::Ospf, Kind::Bird) => include_str!("../../../examples/routing/bird-ospf.conf"),
        (Protocol::Ospf, Kind::Frr) => include_str!("../../../examples/routing/frr-ospf.conf"),
    }
}

const fn bfd(kind: Kind) -> &'static str {
    match kind {
        Kind::Bird => include_str!("../../../examples/routing/bird-bfd.conf"),
        Kind::Frr => include_str!("../../../examples/routing/frr-bfd.conf"),
    }
}

/// What a router runs. `router` is 0 or 1; its messages go to `dump`.
pub(crate) fn router(topology: Topology, router: usize, kind: Kind, dump: &Path) -> String {
    match kind {
        Kind::Bird => bird::router(topology, router, dump),
        Kind::Frr => frr::router(topology, router, dump),
    }
}

/// The sample that operators start from, at this site: so it cannot rot.
pub(crate) fn site(topology: Topology, site: usize) -> String {
    let kind = SITES[site].kind;
    let number = site + 1;
    let mut text = sample(topology.protocol, kind).to_owned();
    let mut replace = |sample: &str, ours: &str| {
        assert!(text.contains(sample), "the sample has no {sample:?}");
        text = text.replace(sample, ours);
    };
    replace("10.0.0.2", &format!("10.10.0.{number}"));
    match kind {
        Kind::Bird => replace("log syslog all;", "log stderr all;"),
        Kind::Frr => replace("log syslog informational", "log stdout"),
    }
    if topology.bfd {
        replace(
            match kind {
                Kind::Bird => "# with BFD: ",
                Kind::Frr => "! with BFD: ",
            },
            "",
        );
    }
    // A second router beside the one of the sample.
    text = match kind {
        Kind::Bird => bird::two_routers(topology.protocol, &text, number),
        Kind::Frr => frr::two_routers(topology.protocol, &text, number),
    };
    if !topology.bfd {
        return text;
    }
    match kind {
        Kind::Bird => text + bfd(kind),
        Kind::Frr => frr::before_router(&text, bfd(kind)),
    }
}

/// What a sample says that the host does at boot.
pub(crate) fn at_boot(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("! at boot: "))
}

#[test]
fn the_samples_have_everything_that_the_lab_replaces() {
    for topology in Topology::ALL {
        for (number, each) in SITES.iter().enumerate() {
            let text = site(topology, number);
            for stale in ["10.0.0.", "2001:db8:0:1::1", "eth0", "syslog"] {
                assert!(
                    !text.contains(stale),
                    "{topology:?} {each:?}: {stale}\n{text}"
                );
            }
        }
    }
}
