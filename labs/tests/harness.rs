//! The harness itself: namespaces, links, faults, daemons.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells its state by printing"
)]

use std::process::Command;
use std::time::Duration;

use anycast_labs::{Netns, Proc, eventually, isolate, isolated, link, require};

fn pair() -> (Netns, Netns) {
    let (a, b) = (Netns::new("a").unwrap(), Netns::new("b").unwrap());
    link(&a, "eth0", &b, "eth1").unwrap();
    a.address("eth0", "10.0.0.1/24").unwrap();
    b.address("eth1", "10.0.0.2/24").unwrap();
    a.address("eth0", "fd00::1/64").unwrap();
    b.address("eth1", "fd00::2/64").unwrap();
    (a, b)
}

#[test]
fn two_namespaces_reach_each_other() {
    isolated(|| {
        assert!(isolate::inside().is_some());
        let (a, _b) = pair();
        a.run("ping -c 1 -W 5 10.0.0.2").unwrap();
        a.run("ping -c 1 -W 5 fd00::2").unwrap();
    });
}

#[test]
fn a_cut_link_is_up_and_carries_nothing_until_healed() {
    isolated(|| {
        let (a, b) = pair();
        a.run("ping -c 1 -W 5 10.0.0.2").unwrap();
        b.cut("eth1").unwrap();
        assert!(a.run("ping -c 2 -i 0.2 -W 1 10.0.0.2").is_err());
        assert!(a.run("ip link show dev eth0").unwrap().contains("state UP"));
        b.heal("eth1").unwrap();
        a.run("ping -c 1 -W 5 10.0.0.2").unwrap();
        b.down("eth1").unwrap();
        let gone = || {
            a.run("ip link show dev eth0")
                .unwrap()
                .contains("NO-CARRIER")
        };
        eventually(Duration::from_secs(20), "the carrier to go", gone).unwrap();
    });
}

#[test]
fn loss_loses_some_and_not_all() {
    isolated(|| {
        let (a, b) = pair();
        b.lose("eth1", 50).unwrap();
        let command = ["-c", "200", "-i", "0.005", "-W", "1", "10.0.0.2"];
        let output = a.output(Command::new("ping").args(command)).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let received = said
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .unwrap();
        let received: u32 = received
            .split(", ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!((20..180).contains(&received), "{said}");
    });
}

#[test]
fn a_failed_command_shows_itself_and_what_it_said() {
    isolated(|| {
        let a = Netns::new("a").unwrap();
        let error = a.run("ip link show dev nosuch").unwrap_err().to_string();
        assert!(error.contains("a: ip link show dev nosuch"), "{error}");
        assert!(error.contains("does not exist"), "{error}");
    });
}

#[test]
fn a_process_ends_with_its_guard() {
    isolated(|| {
        let a = Netns::new("a").unwrap();
        let mut sleeper = Proc::start(&a, "sleeper", Command::new("sleep").arg("1000")).unwrap();
        sleeper.stop().unwrap();
        assert!(sleeper.has_ended().unwrap().is_none());
        let path = format!("/proc/{}", sleeper.id());
        assert!(std::fs::exists(&path).unwrap());
        drop(sleeper);
        assert!(!std::fs::exists(&path).unwrap());
    });
}

#[test]
fn the_inside_sees_no_link_and_no_process_of_the_outside() {
    isolated(|| {
        assert_eq!(std::process::id(), 1);
        let links = Command::new("ip")
            .args(["-o", "link"])
            .output()
            .unwrap()
            .stdout;
        assert_eq!(String::from_utf8(links).unwrap().lines().count(), 1);
        assert_eq!(std::fs::read_dir(isolate::work_dir()).unwrap().count(), 0);
    });
}

/// In a user namespace whose limits forbid further namespaces: they bind what
/// is below it and nothing else on the machine.
#[test]
fn a_refusal_is_one_line_that_names_what_to_enable() {
    const ROLE: &str = "ANYCAST_LABS_REFUSED";
    if std::env::var_os(ROLE).is_some() {
        let error = isolate::Isolation::new(["--list"]).start().unwrap_err();
        println!("refused: {error}");
        return;
    }
    let forbid = "for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces || exit 1; done; exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", forbid, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_refusal_is_one_line_that_names_what_to_enable",
            "--nocapture",
        ])
        .env(ROLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let refusal = said
        .lines()
        .find(|line| line.contains("refused: "))
        .unwrap();
    assert!(refusal.contains("not permitted"), "{refusal}");
    assert!(
        refusal.contains("sysctl -w user.max_user_namespaces=15000"),
        "{refusal}"
    );
}

#[test]
fn a_missing_daemon_is_one_line_that_names_its_package() {
    let error = require("no-such-daemon", &[], "its-package").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no-such-daemon is not installed: apt install its-package"
    );
    isolated(|| {
        let a = Netns::new("a").unwrap();
        let error = a.spawn(Command::new("nft").env("PATH", "/nonexistent"));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .ends_with("apt install nftables")
        );
    });
}
