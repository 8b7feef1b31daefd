//! The real guard with `kind = "bird"` and `"frr"`, before real daemons and a router that counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its state by printing"
)]

#[path = "../../common/tests/stage/mod.rs"]
mod stage;

use std::fs;
use std::path::Path;

use anycast_labs::node::Kind;
use anycast_labs::{isolate, isolated};

use stage::{Binary, Stage, socket_story, story};

fn config(folder: &Path, announce: &str) -> String {
    let folder = folder.display();
    format!(
        "{announce}\n[[service]]\nname = \"one\"\n\
         addresses = [\"192.0.2.69/32\", \"2001:db8::69/128\"]\n\
         rise = 1\nhold_down = \"100ms\"\nflap_limit = 0\nbudget_refill = \"0s\"\n\
         [[service.check]]\nkind = \"file\"\npath = \"{folder}/well\"\ninterval = \"200ms\"\n"
    )
}

const GUARD: Binary = Binary {
    path: env!("CARGO_BIN_EXE_anycast-guard"),
    config,
    file: "well",
};

#[test]
fn bird_confirms_what_it_exported() {
    isolated(|| story(Kind::Bird, GUARD));
}

#[test]
fn frr_confirms_what_it_sent() {
    isolated(|| story(Kind::Frr, GUARD));
}

#[test]
fn bird_that_is_not_there_or_not_for_us_is_named() {
    isolated(|| socket_story(Kind::Bird, GUARD));
}

#[test]
fn frr_that_is_not_there_or_not_for_us_is_named() {
    isolated(|| socket_story(Kind::Frr, GUARD));
}

/// The boost as protocols of BIRD's own, off at the start.
fn with_protocols(text: String) -> String {
    let boost = |family: &str, prefix: &str| {
        let name = family.trim_start_matches("ipv");
        format!(
            "protocol static boost{name} {{ disabled; {family} {{ preference 241; }}; \
             route {prefix} blackhole; }}\n"
        )
    };
    let text = text.replace("proto = \"anycast_boost\"", "proto ~ \"boost*\"");
    text + &boost("ipv4", "192.0.2.69/32") + &boost("ipv6", "2001:db8::69/128")
}

const STEERED: &str = "carrier = \"protocol\"\nboost = [\"boost4\", \"boost6\"]\n\
                       floor_protocols = [\"anycast_floor4\", \"anycast_floor6\"]";

/// Where no address is set no capability is kept, and an operator's reload is repaired.
#[test]
fn bird_protocols_are_steered_without_any_capability() {
    isolated(|| {
        let mut stage = Stage::new(Kind::Bird, GUARD, with_protocols);
        stage.start(&stage.announce(STEERED));
        stage.until_confirmed("preferred", 200);
        let pid = stage.program().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for set in ["CapPrm:\t", "CapEff:\t", "CapBnd:\t"] {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            assert!(line.ends_with("\t0000000000000000"), "{line}");
        }
        stage.ail();
        stage.until_confirmed("demoted", 50);
        // Drift: it is preferred again behind our back, and that is undone.
        stage.node.ask("enable boost4").unwrap();
        stage.node.ask("enable boost6").unwrap();
        stage.until_router_has(Some(200));
        stage.until_confirmed("demoted", 50);
        assert_eq!(stage.withdrawals(), 0);
        assert_eq!(stage.boosts(), 0);
        stage.stop();
    });
}

/// The level in an include file: no capability, and no dead man.
#[test]
fn bird_is_configured_by_an_include_file() {
    isolated(|| {
        let folder = isolate::work_dir();
        let levels = folder.join("levels");
        fs::create_dir(&levels).unwrap();
        let level = levels.join("one.conf");
        let header = "# Written by anycast, and replaced at every change of preference.\n";
        fs::write(&level, format!("{header}define anycast_level = 50;\n")).unwrap();
        let include = format!("include \"{}\";\n", level.display());
        let mut stage = Stage::new(Kind::Bird, GUARD, |text| {
            let from = "if proto = \"anycast_boost\" then { bgp_local_pref = 200; accept; }";
            assert!(text.contains(from));
            include + &text.replace(from, "{ bgp_local_pref = anycast_level; accept; }")
        });
        let main = stage.socket().with_file_name("bird.conf");
        let keys = format!(
            "carrier = \"include\"\ninclude = \"{}\"\nmain_config = \"{}\"",
            level.display(),
            main.display()
        );
        let announce = stage.announce(&keys).replace("floor = true\n", "");
        stage.start(&announce);
        stage.until_confirmed("preferred", 200);
        stage.ail();
        stage.until_confirmed("demoted", 50);
        stage.heal();
        stage.until_confirmed("preferred", 200);
        assert_eq!(stage.withdrawals(), 0);
        // An operator at work is told, and not run over.
        let text = fs::read_to_string(&main).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::write(&main, text).unwrap();
        stage.ail();
        stage.until_unconfirmed("is newer than what BIRD has loaded");
        stage.until_router_has(Some(200));
        stage.node.ask("configure").unwrap();
        stage.until_confirmed("demoted", 50);
        stage.stop();
    });
}

/// The level in outgoing route-maps, through vtysh, which inherits no capability either.
#[test]
fn frr_is_steered_by_its_route_maps() {
    isolated(|| {
        let mut stage = Stage::new(Kind::Frr, GUARD, |mut text| {
            for family in ["4", "6"] {
                let boost = format!("  redistribute connected route-map BOOST{family}\n");
                let entry = format!("route-map TO-ROUTER{family} permit 10\n");
                assert!(text.contains(&boost) && text.contains(&entry));
                text = text.replace(&boost, "");
                text = text.replace(&entry, &format!("{entry} set local-preference 50\n"));
            }
            text
        });
        let folder = stage.socket().parent().unwrap().display().to_string();
        let keys = format!(
            "carrier = \"route-map\"\nroute_maps = [\"TO-ROUTER4 10\", \"TO-ROUTER6 10\"]\n\
             vtysh_config_dir = \"{folder}\""
        );
        let announce = stage.announce(&keys).replace("floor = true\n", "");
        stage.start(&announce);
        stage.until_confirmed("preferred", 200);
        stage.ail();
        stage.until_confirmed("demoted", 50);
        stage.heal();
        stage.until_confirmed("preferred", 200);
        // bgpd comes back with what its file says, and is brought up to date.
        stage.kill_daemon();
        stage.until("the loss to be logged", |stage| {
            stage.program().tail(100).contains("cannot be observed")
        });
        stage.restart_daemon();
        stage.until_confirmed("preferred", 200);
        assert_eq!(stage.boosts(), 0);
        stage.stop();
        stage.until_router_has(Some(50));
    });
}

#[test]
fn a_dry_run_tells_the_daemon_and_changes_nothing() {
    isolated(|| {
        let stage = Stage::new(Kind::Bird, GUARD, |text| text);
        let said = stage.says(&stage.announce(""), &["--dry-run"]);
        println!("{said}");
        for part in ["by: bird at ", "router4.ipv4", "in force now: ", "healthy"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        assert_eq!(stage.boosts(), 0);
    });
}

/// Each service has its own announcer.
#[test]
fn services_of_one_guard_are_announced_each_in_its_way() {
    fn two(folder: &Path, announce: &str) -> String {
        let text = config(folder, announce);
        let folder = folder.display();
        format!(
            "{text}[[service]]\nname = \"two\"\naddresses = [\"192.0.2.53/32\"]\nrise = 1\n\
             hold_down = \"100ms\"\n[service.announce]\nkind = \"loopback\"\n\
             [[service.check]]\nkind = \"file\"\npath = \"{folder}\"\ninterval = \"200ms\"\n"
        )
    }
    isolated(|| {
        let binary = Binary {
            config: two,
            ..GUARD
        };
        let mut stage = Stage::new(Kind::Frr, binary, |text| text);
        stage.start(&stage.announce("dead_man = \"5s\""));
        stage.until_confirmed("preferred", 200);
        stage.kill_daemon();
        stage.until_unconfirmed("bgpd");
        stage.until("the other to be confirmed all the same", |stage| {
            let services = stage.services();
            services[1]["announcer"] == "loopback"
                && services[1]["confirmation"]["state"] == "confirmed"
        });
        stage.stop();
    });
}
