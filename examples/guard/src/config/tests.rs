use std::path::Path;
use std::time::Duration;

use super::*;

const GOOD: &str = r#"
[node]
name = "ams1"
admin = "127.0.0.1:9180"

[announce]
kind = "loopback"
floor = true
dead_man = "5s"

[[service]]
name = "dns"
addresses = ["192.0.2.53/32", "2001:db8::53/128"]
[[service.check]]
kind = "dns"
query = "health.example"
[[service.check]]
kind = "dns"
name = "recursion"
query = "example.com"
severity = "warning"

[[service]]
name = "ntp"
addresses = ["192.0.2.123/32"]
role = "backup"
rank = 2
rise = 5
on_stop = "keep"
[service.announce]
dead_man = "10s"
[[service.check]]
kind = "ntp"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_source(&Source::new(Path::new("guard.toml"), text))
}

fn with(piece: &str, by: &str) -> String {
    assert!(GOOD.contains(piece), "{piece}");
    GOOD.replacen(piece, by, 1)
}

/// Expects one line of error that names all of these.
fn refused(text: &str, names: &[&str]) {
    let line = parse(text).unwrap_err().to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    for name in names {
        assert!(line.contains(name), "{name} is not in: {line}");
    }
}

#[test]
fn services_have_their_own_keys_and_share_the_announcement() {
    let config = parse(GOOD).unwrap();
    let [dns, ntp] = &config.services[..] else {
        panic!("{config:?}")
    };
    assert_eq!(dns.name().as_str(), "dns");
    assert_eq!(dns.checks.len(), 2);
    let dead_man = |service: &Service| service.announce.kernel().unwrap().dead_man();
    assert_eq!(dead_man(dns), Duration::from_secs(5));
    assert_eq!(dead_man(ntp), Duration::from_secs(10));
    let kernel = ntp.announce.kernel().unwrap();
    assert!(kernel.floor(), "taken from [announce]");
    assert_eq!(ntp.policy.rise.get(), 5);
    assert_eq!(ntp.identity.role.to_string(), "backup(2)");
    assert_eq!(ntp.on_stop, OnStop::Keep(Duration::from_secs(600)));
    assert!(config.needs.is_empty());
    assert!(!dns.is_removed);
}

#[test]
fn what_is_wrong_is_told_in_one_line_with_its_place() {
    let typo = with("rise = 5", "ries = 5");
    refused(
        &typo,
        &[
            "guard.toml:28:1: unknown field `ries`",
            "`rise`",
            "`state`, `announce`, `check`",
        ],
    );
    let text = with("role = \"backup\"\nrank = 2", "rank = 2");
    refused(
        &text,
        &[
            "guard.toml:23:1: [[service]] ntp rank: ",
            "set role = \"backup\"",
        ],
    );
    let text = with("dead_man = \"10s\"", "dead_men = \"10s\"");
    refused(
        &text,
        &["guard.toml:31:1: unknown field `dead_men`", "dead_man"],
    );
    let text = with("dead_man = \"10s\"", "dead_man = \"1s\"");
    refused(
        &text,
        &[
            "guard.toml:23:1: [[service]] ntp: [announce] dead_man: ",
            "2 s to 1 h",
        ],
    );
    let text = with("kind = \"ntp\"", "kind = \"npt\"");
    refused(&text, &["guard.toml:33:1: [[check]] ", "npt", "\"ntp\""]);
    let text = with("name = \"ntp\"", "state = \"gone\"\nname = \"ntp\"");
    refused(&text, &["guard.toml:24:9: ", "`gone`", "removed"]);
    let text = with("floor = true\n", "");
    refused(&text, &["[[service]] dns: [announce] floor: is missing"]);
    let text = with("kind = \"loopback\"", "kind = \"none\"");
    refused(&text, &["[[service]] dns: [announce] ", "loopback"]);
    refused("", &["node"]);
}

#[test]
fn an_empty_list_is_no_configuration() {
    let (services, _) = GOOD.split_once("[[service]]").unwrap();
    refused(services, &["[[service]]: there is none", "at least one"]);
    let empty = with("[\"192.0.2.123/32\"]", "[]");
    refused(&empty, &["guard.toml:25:13: ", "name at least one"]);
    let unchecked = with("[[service.check]]\nkind = \"ntp\"\n", "");
    refused(
        &unchecked,
        &["[[service]] ntp: [[service.check]]: there is none"],
    );
    let unheard = with(
        "query = \"health.example\"",
        "query = \"a.example\"\nseverity = \"warning\"",
    );
    refused(&unheard, &["[[service]] dns: ", "none is critical"]);
}

#[test]
fn two_services_share_neither_name_nor_address() {
    let text = with("name = \"ntp\"", "name = \"dns\"");
    refused(&text, &["guard.toml:23:1: ", "two services are called dns"]);
    let text = with("192.0.2.123/32", "192.0.2.53/32");
    refused(
        &text,
        &[
            "guard.toml:23:1: [[service]] ntp addresses: ",
            "192.0.2.53/32 is an address of dns already",
            "into one service",
        ],
    );
}

#[test]
fn only_a_restart_changes_what_is_bound_to_the_kernel_or_to_a_peer() {
    let old = parse(GOOD).unwrap();
    for (piece, by, key) in [
        ("name = \"ams1\"", "name = \"fra1\"", "[node] name"),
        ("127.0.0.1:9180", "127.0.0.1:9181", "[node] admin"),
        (
            "192.0.2.53/32",
            "192.0.2.54/32",
            "[[service]] dns addresses",
        ),
        ("rank = 2", "rank = 3", "[[service]] ntp role"),
        (
            "on_stop = \"keep\"",
            "on_stop = \"demote\"",
            "[[service]] ntp on_stop",
        ),
        (
            "dead_man = \"10s\"",
            "dead_man = \"11s\"",
            "[[service]] ntp announce",
        ),
        (
            "name = \"ntp\"",
            "name = \"time\"",
            "the new [[service]] time",
        ),
    ] {
        let new = parse(&with(piece, by)).unwrap();
        assert_eq!(old.needs_restart(&new).as_deref(), Some(key));
    }
    for (piece, by) in [
        ("rise = 5", "rise = 2"),
        ("health.example", "other.example"),
        ("name = \"ntp\"", "state = \"removed\"\nname = \"ntp\""),
    ] {
        let new = parse(&with(piece, by)).unwrap();
        assert_eq!(old.needs_restart(&new), None);
        assert!(old.left_out(&new).is_empty());
    }
}

#[test]
fn a_service_goes_by_saying_so_and_not_by_being_left_out() {
    let (without, _) = GOOD.rsplit_once("[[service]]").unwrap();
    let (both, one) = (parse(GOOD).unwrap(), parse(without).unwrap());
    assert_eq!(
        both.left_out(&one),
        ["ntp"].map(|name| both.service(&name.parse().unwrap()).unwrap().name())
    );
    let said = parse(&with(
        "name = \"ntp\"",
        "name = \"ntp\"\nstate = \"removed\"",
    ))
    .unwrap();
    assert!(said.services[1].is_removed);
    assert!(said.left_out(&one).is_empty());
    assert_eq!(said.needs_restart(&one), None);
    // Once it is gone, nobody remembers it.
    assert_eq!(
        one.needs_restart(&both).as_deref(),
        Some("the new [[service]] ntp")
    );
}

#[test]
fn capabilities_are_kept_for_the_checks_that_need_them() {
    for (text, expected) in [
        ("kind = 'tcp'", CapabilitySet::empty()),
        ("kind = 'icmp'", CapabilitySet::NET_RAW),
        (
            "kind = 'process'\nunit = 'a.service'",
            CapabilitySet::empty(),
        ),
        (
            "kind = 'process'\nexecutable = '/bin/a'",
            CapabilitySet::SYS_PTRACE,
        ),
        (
            "kind = 'any'\n[[check]]\nkind = 'icmp'\n[[check]]\nkind = 'exec'\nuser = 'nobody'",
            CapabilitySet::NET_RAW
                | CapabilitySet::SETUID
                | CapabilitySet::SETGID
                | CapabilitySet::KILL,
        ),
    ] {
        let table = text.parse().unwrap();
        assert_eq!(needs::of(&table), expected, "{text}");
    }
}
