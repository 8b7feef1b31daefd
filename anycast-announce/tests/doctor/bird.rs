//! BIRD: the sample, and the sample broken.

use anycast_announce::doctor::{Severity, Trap, Verdict, Wanted};
use anycast_labs::isolated;
use anycast_labs::node::Kind;

use crate::support::{Lab, changed, sample};

const FILE: &str = "bird.conf";

/// The one trap, and no other.
fn names(config: &str, trap: Trap, severity: Severity, place: &str) {
    let lab = Lab::start(Kind::Bird, config);
    let report = lab.finds(trap);
    let worst: Vec<_> = report.of(trap).map(|found| found.severity).collect();
    assert!(worst.contains(&severity), "{report:#?}");
    assert!(
        report.of(trap).any(|found| found.place.contains(place)),
        "{report:#?}"
    );
    let others = report
        .findings
        .iter()
        .filter(|one| one.trap != trap && one.severity == Severity::Trap);
    assert_eq!(others.count(), 0, "{report:#?}");
    assert!(
        report
            .of(trap)
            .all(|found| !found.fix.is_empty() && !found.why.is_empty())
    );
}

#[test]
fn the_sample_is_clean() {
    isolated(|| Lab::start(Kind::Bird, &sample(FILE)).is_clean());
}

#[test]
fn a_floor_below_bgp() {
    let config = changed(FILE, "preference 180", "preference 10");
    isolated(|| {
        names(
            &config,
            Trap::FloorOutranked,
            Severity::Warning,
            "anycast_floor4",
        )
    });
}

#[test]
fn a_floor_below_bgp_that_takes_in_everything() {
    let config = changed(FILE, "preference 180", "preference 10");
    let config = config.replace("import filter from_peer", "import all");
    isolated(|| {
        names(
            &config,
            Trap::FloorOutranked,
            Severity::Trap,
            "anycast_floor6",
        )
    });
}

#[test]
fn no_floor() {
    let config = changed(FILE, "  route 192.0.2.69/32 blackhole;\n", "");
    isolated(|| names(&config, Trap::NoFloor, Severity::Trap, "192.0.2.69"));
}

#[test]
fn a_boost_below_the_floor() {
    let config = changed(FILE, "preference 240", "preference 170");
    isolated(|| {
        names(
            &config,
            Trap::BoostOutranked,
            Severity::Trap,
            "anycast_boost",
        )
    });
}

#[test]
fn one_level_for_floor_and_boost() {
    let config = changed(FILE, "bgp_local_pref = 50", "bgp_local_pref = 200");
    isolated(|| {
        names(
            &config,
            Trap::SameLevel,
            Severity::Trap,
            "filter to_peer of router4.ipv4",
        )
    });
}

#[test]
fn graceful_restart_without_bfd() {
    let config = changed(FILE, "graceful restart off", "graceful restart on");
    isolated(|| names(&config, Trap::GracefulRestart, Severity::Trap, "router4"));
}

#[test]
fn graceful_restart_with_bfd() {
    isolated(|| {
        let config = changed(
            FILE,
            "graceful restart off",
            "direct; bfd on; graceful restart on",
        );
        Lab::start(Kind::Bird, &(config + "\nprotocol bfd {}\n")).is_clean();
    });
}

#[test]
fn an_ospf_stub_whose_cost_is_ignored() {
    let ospf = "\nprotocol ospf v2 igp4 { ipv4 { import none; export none; }; area 0 { \
                interface \"lo\" { stub; cost 100; }; }; }\n";
    let config = sample(FILE) + ospf;
    isolated(|| names(&config, Trap::OspfHostCost, Severity::Trap, "igp4"));
}

#[test]
fn a_file_that_was_edited_since() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &sample(FILE));
        lab.is_clean();
        std::thread::sleep(std::time::Duration::from_secs(4));
        let file = lab.folder().join(FILE);
        std::fs::write(&file, sample(FILE) + "# half of an edi").unwrap();
        let report = lab.finds(Trap::HalfEdited);
        assert_eq!(report.verdict(), Verdict::Warnings, "{report:#?}");
        lab.node.ask("configure").unwrap();
        lab.is_clean();
    });
}

#[test]
fn no_export_table_where_it_is_to_be_read_back() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &sample(FILE));
        lab.is_clean();
        let wanted = Wanted {
            reads_bird: true,
            ..Wanted::default()
        };
        let report = lab.report_wanting(wanted.clone());
        assert_eq!(report.of(Trap::NoExportTable).count(), 2, "{report:#?}");
        let with = sample(FILE).replace("next hop self; };", "next hop self; export table on; };");
        std::fs::write(lab.folder().join(FILE), with).unwrap();
        lab.node.ask("configure").unwrap();
        lab.wait("export tables", || {
            let report = lab.report_wanting(wanted.clone());
            report.of(Trap::NoExportTable).next().is_none()
        });
    });
}

#[test]
fn no_covering_route() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &sample(FILE));
        lab.router.ask("disable backup4").unwrap();
        let report = lab.finds(Trap::NoBackup);
        assert_eq!(report.of(Trap::NoBackup).count(), 1, "{report:#?}");
        assert_eq!(report.verdict(), Verdict::Warnings, "{report:#?}");
    });
}

#[test]
fn a_strict_reverse_path_filter_and_a_permanent_boost() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &sample(FILE));
        let namespace = lab.node.namespace();
        namespace.sysctl("net.ipv4.conf.up.rp_filter", "1").unwrap();
        let report = lab.finds(Trap::ReversePath);
        assert_eq!(report.verdict(), Verdict::Warnings, "{report:#?}");
        namespace.run("ip addr del 192.0.2.69/32 dev lo").unwrap();
        namespace.run("ip addr add 192.0.2.69/32 dev lo").unwrap();
        let report = lab.finds(Trap::PermanentBoost);
        assert_eq!(report.verdict(), Verdict::Traps, "{report:#?}");
    });
}

#[test]
fn a_daemon_that_is_not_there_is_said() {
    isolated(|| {
        let lab = Lab::start(Kind::Bird, &sample(FILE));
        let mut places = lab.places();
        places.bird_socket = lab.folder().join("elsewhere.ctl");
        let facts = lab.inside(anycast_announce::doctor::gather::gather(
            &places,
            Wanted::default(),
        ));
        let report = anycast_announce::doctor::examine(&facts);
        assert_eq!(report.verdict(), Verdict::Blind, "{report:#?}");
        assert!(
            report.unseen[0].why.starts_with("bird runs (pid "),
            "{report:#?}"
        );
    });
}
