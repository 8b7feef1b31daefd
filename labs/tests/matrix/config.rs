//! Configurations of the routing daemons: the samples at the sites, with this lab's addresses;
//! the routers' own.

mod bird;
mod frr;

use std::path::Path;

use anycast_labs::node::Kind;

use super::backend::Backend;
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

/// The sample that operators start from, at this site: so it cannot rot. For an announcer that
/// wants more of the daemon, with what `examples/routing/README.md` says to change.
pub(crate) fn site(topology: Topology, backend: Backend, site: usize) -> String {
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
    let reads_table = backend != Backend::Loopback && topology.protocol != Protocol::Ospf;
    if reads_table && kind == Kind::Bird {
        text = bird::with_export_tables(&text);
    }
    if topology.protocol == Protocol::Ebgp && !backend.has_med() {
        text = match kind {
            Kind::Bird => text
                .replace("bgp_med = 100; ", "")
                .replace("bgp_med = 1000;", ""),
            Kind::Frr => without(&text, &[" set metric "]),
        };
        assert!(!text.contains("set metric") && !text.contains("bgp_med"));
    }
    if backend == Backend::Steered {
        text = match kind {
            Kind::Bird => bird::steered(topology.protocol, &text),
            Kind::Frr => frr::steered(topology.protocol, &text),
        };
    }
    if !topology.bfd {
        return text;
    }
    match kind {
        Kind::Bird => text + bfd(kind),
        Kind::Frr => frr::before_router(&text, bfd(kind)),
    }
}

/// All lines but those that have one of these in them.
fn without(text: &str, these: &[&str]) -> String {
    text.lines()
        .filter(|line| !these.iter().any(|each| line.contains(each)))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What a sample says that the host does at boot.
pub(crate) fn at_boot(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("! at boot: "))
}

#[test]
fn the_samples_have_everything_that_the_lab_replaces() {
    let labs = Topology::ALL.into_iter().flat_map(|topology| {
        let with = move |backend: &Backend| (topology, *backend);
        Backend::of(topology).iter().map(with)
    });
    for (topology, backend) in labs {
        for (number, each) in SITES.iter().enumerate() {
            let text = site(topology, backend, number);
            for stale in ["10.0.0.", "2001:db8:0:1::1", "eth0", "syslog"] {
                assert!(
                    !text.contains(stale),
                    "{topology:?} {backend:?} {each:?}: {stale}\n{text}"
                );
            }
        }
    }
}
