use super::super::bird_text::tests::{FILTERED, PROTOCOLS, STATUS, reply};
use super::super::bird_text::{protocols, routes, status};
use super::*;

const V4: &str = "192.0.2.69/32";

fn v4() -> ServiceAddress {
    V4.parse().unwrap()
}

fn filtered(text: &str) -> Filtered {
    Filtered {
        channel: "router4.ipv4".to_owned(),
        filter: "to_peer".to_owned(),
        service: v4(),
        routes: routes(&reply(text)),
    }
}

/// The sample configuration, preferred.
fn clean() -> BirdFacts {
    let off = |mut one: Protocol| {
        one.restarts_gracefully = false;
        one
    };
    let all = protocols(&reply(PROTOCOLS)).into_iter().map(off);
    BirdFacts {
        socket: "/run/bird/bird.ctl".to_owned(),
        status: status(&reply(STATUS)),
        protocols: all.filter(|one| one.kind != "OSPF").collect(),
        routes: vec![(v4(), routes(&reply(FILTERED)))],
        filtered: vec![filtered(FILTERED)],
        bfd: vec![],
        zero_stubs: vec![("ospf1".to_owned(), Ok(vec![]))],
        export_tables: vec![("router4.ipv4".to_owned(), Ok(true))],
        covered: vec![v4()],
        main_file: Sight::Seen(MainFile {
            path: "/etc/bird/bird.conf".to_owned(),
            is_newer: false,
        }),
    }
}

fn report(facts: &BirdFacts) -> Report {
    let wanted = Wanted {
        services: vec![v4()],
        reads_bird: true,
    };
    let mut report = Report::default();
    examine(facts, &wanted, &mut report);
    report
}

fn only(facts: &BirdFacts) -> Finding {
    let mut report = report(facts);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    report.findings.remove(0)
}

fn with_routes(text: &str) -> BirdFacts {
    BirdFacts {
        routes: vec![(v4(), routes(&reply(text)))],
        filtered: vec![filtered(text)],
        ..clean()
    }
}

#[test]
fn the_sample_is_clean() {
    let report = report(&clean());
    assert_eq!((report.findings, report.unseen), (vec![], vec![]));
}

#[test]
fn no_floor_is_found() {
    let boost_only = FILTERED.split("1007-       ").next().unwrap().to_owned() + "0000 \n";
    let found = only(&with_routes(&boost_only));
    assert_eq!(
        (found.trap, found.severity),
        (Trap::NoFloor, Severity::Trap)
    );
    assert!(
        found.fix.contains("route 192.0.2.69/32 blackhole"),
        "{}",
        found.fix
    );
    // Or it is there, and is not let out.
    let facts = BirdFacts {
        filtered: vec![filtered(&boost_only)],
        ..clean()
    };
    assert_eq!(only(&facts).trap, Trap::NoFloor);
}

#[test]
fn a_floor_below_an_import_is_found() {
    let low = FILTERED.replace("(180)", "(10)");
    let import = "1007-                     unicast [router4 16:51:59] (100/5) [i]\n \tvia 10.0.0.1 on up0\n1008-\tType: BGP univ\n0000 \n";
    let text = low.replace("0000 \n", import);
    let facts = BirdFacts {
        filtered: vec![filtered(FILTERED)],
        ..with_routes(&text)
    };
    let found = only(&facts);
    assert_eq!(
        (found.trap, found.severity),
        (Trap::FloorOutranked, Severity::Trap)
    );
    assert!(found.fix.contains("`preference 180;`"), "{}", found.fix);
    // Nothing is imported now; a filter decides whether it may be.
    let found = only(&with_routes(&low));
    assert_eq!(
        (found.trap, found.severity),
        (Trap::FloorOutranked, Severity::Warning)
    );
    let mut facts = with_routes(&low);
    for protocol in &mut facts.protocols {
        for channel in &mut protocol.channels {
            channel.input = "ACCEPT".to_owned();
        }
    }
    assert_eq!(only(&facts).severity, Severity::Trap);
}

#[test]
fn a_boost_below_the_floor_is_found() {
    let found = only(&with_routes(&FILTERED.replace("(240)", "(170)")));
    assert_eq!(found.trap, Trap::BoostOutranked);
    assert!(found.fix.contains("`preference 240;`"), "{}", found.fix);
}

#[test]
fn a_boost_from_another_interface_is_found() {
    let found = only(&with_routes(&FILTERED.replace("dev lo", "dev svc0")));
    assert_eq!(found.trap, Trap::BoostEverywhere);
    assert!(found.what.contains("svc0"));
}

#[test]
fn no_boost_is_found() {
    let mut facts = clean();
    let floor = FILTERED.replace("Type: device", "Type: static");
    facts
        .protocols
        .retain(|one| one.kind != "Direct" && one.name != "off1");
    facts.routes = vec![(v4(), routes(&reply(&floor)))];
    // Carried by a protocol: the better static route is the boost.
    assert_eq!(report(&facts).findings, []);
    let at = FILTERED.find("1007-       ").unwrap();
    let floor = format!(
        "1007-Table master4:\n {V4} {}",
        FILTERED[at..].trim_start_matches("1007-")
    );
    facts.routes = vec![(v4(), routes(&reply(&floor)))];
    facts.filtered = vec![];
    assert_eq!(only(&facts).trap, Trap::NoBoost);
    // The filter keeps it in.
    let facts = BirdFacts {
        filtered: vec![filtered(&floor)],
        ..clean()
    };
    assert_eq!(only(&facts).trap, Trap::NoBoost);
}

#[test]
fn one_level_for_both_is_found() {
    let same = FILTERED.replace("local_pref: 50", "local_pref: 200");
    assert_eq!(only(&with_routes(&same)).trap, Trap::SameLevel);
    let none = FILTERED.replace("1012-\tBGP.local_pref: 50\n", "");
    let none = none.replace("1012-\tBGP.local_pref: 200\n", "");
    assert!(only(&with_routes(&none)).what.contains("by default"));
    let upside_down = FILTERED.replace("local_pref: 50", "local_pref: 250");
    assert!(
        only(&with_routes(&upside_down))
            .what
            .contains("only at 200")
    );
    // Told apart by something else than local preference.
    let med = FILTERED.replace("local_pref: 50", "med: 500");
    let med = med.replace("local_pref: 200", "med: 100");
    assert_eq!(report(&with_routes(&med)).findings, []);
    // `export all`, and a filter that cannot be asked.
    for (output, severity) in [("ACCEPT", Severity::Trap), ("(unnamed)", Severity::Note)] {
        let mut facts = clean();
        facts.filtered.clear();
        for protocol in facts
            .protocols
            .iter_mut()
            .filter(|one| one.name == "router4")
        {
            protocol.channels[0].output = output.to_owned();
        }
        let found = only(&facts);
        assert_eq!((found.trap, found.severity), (Trap::SameLevel, severity));
    }
}

#[test]
fn graceful_restart_without_bfd_is_found() {
    let facts = BirdFacts {
        protocols: protocols(&reply(PROTOCOLS)),
        ..clean()
    };
    let found = report(&facts);
    assert_eq!(found.of(Trap::GracefulRestart).count(), 2, "{found:?}");
    let bfd = ["10.0.0.1", "2001:db8:0:1::1"].map(|ip| ip.parse().unwrap());
    let watched = BirdFacts {
        bfd: bfd.into(),
        ..facts
    };
    assert_eq!(report(&watched).findings, []);
}

#[test]
fn an_ospf_stub_at_metric_0_is_found() {
    let facts = BirdFacts {
        zero_stubs: vec![("ospf1".to_owned(), Ok(vec![v4().ip()]))],
        ..clean()
    };
    let found = only(&facts);
    assert_eq!(found.trap, Trap::OspfHostCost);
    assert!(
        found.fix.contains("stubnet 192.0.2.69/32 { cost"),
        "{}",
        found.fix
    );
}

#[test]
fn a_missing_export_table_is_found_where_it_is_wanted() {
    let facts = BirdFacts {
        export_tables: vec![("router4.ipv4".to_owned(), Ok(false))],
        ..clean()
    };
    assert_eq!(only(&facts).trap, Trap::NoExportTable);
    let mut report = Report::default();
    let wanted = Wanted {
        services: vec![v4()],
        reads_bird: false,
    };
    examine(&facts, &wanted, &mut report);
    assert_eq!(report.findings, []);
}

#[test]
fn a_file_that_was_changed_since_is_found() {
    let facts = BirdFacts {
        main_file: Sight::Seen(MainFile {
            path: "/etc/bird/bird.conf".to_owned(),
            is_newer: true,
        }),
        ..clean()
    };
    let found = only(&facts);
    assert_eq!(
        (found.trap, found.severity),
        (Trap::HalfEdited, Severity::Warning)
    );
}

#[test]
fn no_covering_route_is_found() {
    let facts = BirdFacts {
        covered: vec![],
        ..clean()
    };
    let found = only(&facts);
    assert_eq!(
        (found.trap, found.severity),
        (Trap::NoBackup, Severity::Warning)
    );
}

#[test]
fn what_bird_refuses_to_show_is_said() {
    let no = || "8007 Access denied".to_owned();
    let facts = BirdFacts {
        routes: vec![(v4(), Err(no()))],
        zero_stubs: vec![("ospf1".to_owned(), Err(no()))],
        export_tables: vec![("router4.ipv4".to_owned(), Err(no()))],
        main_file: Sight::Unseen("Permission denied".to_owned()),
        ..clean()
    };
    assert_eq!(report(&facts).unseen.len(), 4);
}
