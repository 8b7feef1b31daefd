//! FRR: the sample, and the sample broken.

use std::process::Command;

use anycast_announce::doctor::{Severity, Trap, Verdict};
use anycast_labs::isolated;
use anycast_labs::node::Kind;

use crate::support::{Lab, changed, sample};

const FILE: &str = "frr.conf";

/// This trap on both families, or everywhere at once, and no other.
fn names(config: &str, trap: Trap) {
    let lab = Lab::start(Kind::Frr, config);
    let report = lab.finds(trap);
    let others = report
        .findings
        .iter()
        .filter(|one| one.trap != trap && one.severity > Severity::Note);
    assert_eq!(others.count(), 0, "{report:#?}");
    assert!(
        report
            .of(trap)
            .all(|found| !found.fix.is_empty() && !found.why.is_empty())
    );
}

fn configure(lab: &Lab, lines: &[&str]) {
    let folder = lab.folder();
    let mut vtysh = Command::new("vtysh");
    vtysh.arg("--vty_socket").arg(&folder);
    vtysh.arg("--config_dir").arg(&folder);
    vtysh.args(["-c", "configure terminal"]);
    for line in lines {
        vtysh.args(["-c", line]);
    }
    let output = lab.node.namespace().output(&mut vtysh).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_sample_is_clean() {
    isolated(|| Lab::start(Kind::Frr, &sample(FILE)).is_clean());
}

#[test]
fn import_check() {
    isolated(|| {
        names(
            &changed(FILE, " no bgp network import-check\n", ""),
            Trap::ImportCheck,
        )
    });
}

#[test]
fn delay_timer_0() {
    let config = changed(
        FILE,
        "router bgp 65000\n",
        "bgp route-map delay-timer 0\nrouter bgp 65000\n",
    );
    isolated(|| names(&config, Trap::DelayTimer));
}

#[test]
fn updates_that_leave_late() {
    let late = " timers bgp 3 9\n neighbor 10.0.0.1 remote-as 65000\n neighbor 10.0.0.1 \
                advertisement-interval 30\n";
    isolated(|| names(&changed(FILE, " timers bgp 3 9\n", late), Trap::SlowUpdates));
}

#[test]
fn graceful_restart_without_bfd() {
    let config = changed(
        FILE,
        " bgp graceful-restart-disable\n",
        " bgp graceful-restart\n",
    );
    isolated(|| names(&config, Trap::GracefulRestart));
}

#[test]
fn one_level_for_floor_and_boost() {
    let config = changed(
        FILE,
        " set local-preference 50\n",
        " set local-preference 200\n",
    );
    isolated(|| names(&config, Trap::SameLevel));
}

#[test]
fn no_floor() {
    let config = changed(FILE, "  network 192.0.2.69/32 route-map FLOOR\n", "");
    isolated(|| names(&config, Trap::NoFloor));
}

#[test]
fn no_boost() {
    let config = changed(FILE, "  redistribute connected route-map BOOST6\n", "");
    isolated(|| names(&config, Trap::NoBoost));
}

#[test]
fn a_boost_from_any_interface() {
    isolated(|| {
        names(
            &changed(FILE, " match interface lo\n", ""),
            Trap::BoostEverywhere,
        )
    });
}

#[test]
fn what_runs_is_not_what_stands_in_the_file() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample(FILE));
        lab.is_clean();
        configure(
            &lab,
            &["route-map BOOST4 permit 10", "set local-preference 210"],
        );
        let report = lab.finds(Trap::HalfEdited);
        assert_eq!(report.verdict(), Verdict::Warnings, "{report:#?}");
        let found = report.of(Trap::HalfEdited).next().unwrap();
        assert!(found.what.contains("set local-preference 210"), "{found:?}");
    });
}

#[test]
fn a_copy_without_a_peer() {
    isolated(|| {
        let lab = Lab::start(Kind::Frr, &sample(FILE));
        let namespace = lab.node.namespace();
        namespace
            .run("ip addr del 192.0.2.69 peer 240.0.2.69/32 dev svc0")
            .unwrap();
        namespace.run("ip addr add 192.0.2.69/32 dev svc0").unwrap();
        let report = lab.finds(Trap::CopyWithoutPeer);
        assert_eq!(report.verdict(), Verdict::Traps, "{report:#?}");
    });
}
