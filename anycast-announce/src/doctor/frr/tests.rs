use super::super::frr_text::tests::{RUNNING, SAMPLE};
use super::*;

fn services() -> Vec<ServiceAddress> {
    ["192.0.2.69/32", "2001:db8::69/128"]
        .map(|text| text.parse().unwrap())
        .into()
}

fn facts(running: &str) -> FrrFacts {
    FrrFacts {
        socket: "/run/frr/bgpd.vty".to_owned(),
        running: Config::parse(running),
        file: Sight::Absent,
        covered: services(),
    }
}

fn report(facts: &FrrFacts) -> Report {
    let wanted = Wanted {
        services: services(),
        reads_bird: false,
    };
    let mut report = Report::default();
    examine(facts, &wanted, &mut report);
    report
}

fn found(running: &str) -> Vec<(Trap, Severity)> {
    let report = report(&facts(running));
    let found = report.findings.iter();
    found.map(|one| (one.trap, one.severity)).collect()
}

fn with(line: &str) -> String {
    let text = RUNNING.replace(
        " neighbor 10.0.0.1 remote-as 65000\n",
        &format!(" neighbor 10.0.0.1 remote-as 65000\n{line}\n"),
    );
    assert_ne!(text, RUNNING);
    text
}

fn without(line: &str) -> String {
    let text = RUNNING.replace(line, "");
    assert_ne!(text, RUNNING);
    text
}

#[test]
fn the_sample_is_clean() {
    let path = "/etc/frr/frr.conf".to_owned();
    let facts = FrrFacts {
        file: Sight::Seen((path, Config::parse(SAMPLE))),
        ..facts(RUNNING)
    };
    let report = report(&facts);
    assert_eq!((report.findings, report.unseen), (vec![], vec![]));
}

#[test]
fn import_check_is_found() {
    let text = without(" no bgp network import-check\n");
    let report = report(&facts(&text));
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(report.findings[0].trap, Trap::ImportCheck);
    assert!(
        report.findings[0]
            .fix
            .contains("`no bgp network import-check`")
    );
}

#[test]
fn delay_timer_0_is_found_wherever_it_stands() {
    let trap = [(Trap::DelayTimer, Severity::Trap)];
    assert_eq!(
        found(&format!("bgp route-map delay-timer 0\n{RUNNING}")),
        trap
    );
    assert_eq!(found(&with(" bgp route-map delay-timer 0")), trap);
    assert_eq!(
        found(&format!("bgp route-map delay-timer 1\n{RUNNING}")),
        []
    );
}

#[test]
fn slow_updates_are_found() {
    let slow = [(Trap::SlowUpdates, Severity::Warning)];
    for line in [
        " coalesce-time 9000",
        " neighbor 10.0.0.1 advertisement-interval 30",
        " neighbor 10.0.0.1 timers delayopen 60",
        " bgp update-delay 120",
    ] {
        assert_eq!(found(&with(line)), slow, "{line}");
    }
    assert_eq!(
        found(&with(" neighbor 10.0.0.1 advertisement-interval 1")),
        []
    );
}

#[test]
fn no_floor_is_found() {
    let text = without("  network 192.0.2.69/32 route-map FLOOR\n");
    assert_eq!(found(&text), [(Trap::NoFloor, Severity::Trap)]);
    let shorter = RUNNING.replace("network 192.0.2.69/32", "network 192.0.2.0/24");
    assert_eq!(found(&shorter), [(Trap::NoFloor, Severity::Trap)]);
}

#[test]
fn no_boost_and_a_boost_from_everywhere_are_found() {
    let text = without("  redistribute connected route-map BOOST4\n");
    assert_eq!(found(&text), [(Trap::NoBoost, Severity::Trap)]);
    let everywhere = without(" match interface lo\n match ip address");
    assert_eq!(
        found(&everywhere),
        [(Trap::BoostEverywhere, Severity::Trap)]
    );
}

#[test]
fn one_level_for_both_is_found() {
    let same = RUNNING.replace("local-preference 50", "local-preference 200");
    let trap = (Trap::SameLevel, Severity::Trap);
    assert_eq!(found(&same), [trap, trap]);
    let lower = RUNNING.replace("local-preference 50", "local-preference 201");
    assert_eq!(found(&lower), [trap, trap]);
    let no_level = without(" set local-preference 200\n").replace(" set local-preference 50\n", "");
    assert_eq!(found(&no_level), [trap, trap]);
    // Told apart by something else.
    let prepend = RUNNING.replace("set local-preference 50", "set as-path prepend 65000");
    let prepend = prepend.replace("set local-preference 200", "set metric 1");
    assert_eq!(found(&prepend), []);
    let out = RUNNING.replace(
        "route-map TO-ROUTER4 permit 10\n",
        "route-map TO-ROUTER4 permit 10\n set local-preference 100\n",
    );
    assert_eq!(found(&out), [(Trap::SameLevel, Severity::Warning)]);
}

#[test]
fn graceful_restart_without_bfd_is_found() {
    let on = RUNNING.replace("bgp graceful-restart-disable", "bgp graceful-restart");
    assert_ne!(on, RUNNING);
    let trap = (Trap::GracefulRestart, Severity::Trap);
    assert_eq!(found(&on), [trap, trap]);
    let watched = on.replace(
        " neighbor 10.0.0.1 remote-as 65000\n",
        " neighbor 10.0.0.1 remote-as 65000\n neighbor 10.0.0.1 bfd\n",
    );
    assert_eq!(found(&watched), [trap]);
    assert_eq!(found(&with(" neighbor 10.0.0.1 graceful-restart")), [trap]);
    let grouped = " neighbor G peer-group\n neighbor G bfd\n neighbor 10.0.0.1 peer-group G\n neighbor 10.0.0.1 graceful-restart";
    assert_eq!(found(&with(grouped)), []);
}

#[test]
fn a_file_that_does_not_run_is_found() {
    let compare = |file: &str| {
        let path = "/etc/frr/frr.conf".to_owned();
        let facts = FrrFacts {
            file: Sight::Seen((path, Config::parse(file))),
            ..facts(RUNNING)
        };
        report(&facts)
    };
    let edited = SAMPLE.replace("set local-preference 200", "set local-preference 300");
    let found = compare(&edited);
    assert_eq!(found.findings.len(), 1);
    let finding = &found.findings[0];
    assert_eq!(finding.trap, Trap::HalfEdited);
    assert!(
        finding
            .what
            .contains("BOOST4 permit 10 / set local-preference 300"),
        "{finding:?}"
    );
    let flat: String = SAMPLE
        .lines()
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    assert_eq!(compare(&flat).unseen.len(), 1);
}

#[test]
fn a_file_that_may_not_be_read_is_said() {
    let facts = FrrFacts {
        file: Sight::Unseen("Permission denied".to_owned()),
        ..facts(RUNNING)
    };
    assert_eq!(report(&facts).unseen.len(), 1);
}

#[test]
fn no_covering_route_is_found() {
    let facts = FrrFacts {
        covered: vec![],
        ..facts(RUNNING)
    };
    let found = report(&facts);
    assert_eq!(found.of(Trap::NoBackup).count(), 2);
}
