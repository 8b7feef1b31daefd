//! `drain`, `undrain` and `withdraw` on a running node.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anycast_core::admin::AdminConfig;
use anycast_core::announce::{InForce, Preference};
use anycast_core::health::Verdict;

use crate::support::{anycastctl, command, one_line_of_error, start, start_with, text};

const TOKEN: &str = "a-token-of-these-tests";

#[test]
fn a_drain_and_its_end_over_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ctl.sock").display().to_string();
    let node = start(
        &format!("unix:{socket}"),
        Verdict::Healthy,
        Preference::Preferred,
    );
    let output = anycastctl(&[
        "--socket",
        &socket,
        "drain",
        "tftp",
        "--for",
        "2h",
        "--reason",
        "new disks",
    ]);
    let (said, warned) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{warned}");
    assert!(
        said.starts_with("tftp on ams1: drained, for 2h 0m")
            && said.contains("now demoted, in force"),
        "{said}"
    );
    assert!(
        warned.lines().all(|line| line.starts_with("warning: ")),
        "{warned}"
    );
    assert!(warned.contains("was not checked"), "{warned}");
    assert_eq!(node.announcer.in_force(), InForce::Demoted);
    let shown = text(&anycastctl(&["--socket", &socket, "status"]).stdout);
    assert!(shown.contains("new disks"), "{shown}");
    let explained = text(&anycastctl(&["--socket", &socket, "explain", "tftp"]).stdout);
    assert!(explained.contains("(drained)"), "{explained}");
    let output = anycastctl(&["--socket", &socket, "undrain", "tftp"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("the order is lifted"));
    node.in_force(Preference::Preferred);
    let output = anycastctl(&["--socket", &socket, "withdraw", "tftp", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("now withdrawn, in force"));
    assert_eq!(node.announcer.in_force(), InForce::Withdrawn);
}

#[test]
fn what_is_refused_is_one_line_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ctl.sock").display().to_string();
    let node = start(
        &format!("unix:{socket}"),
        Verdict::Healthy,
        Preference::Preferred,
    );
    for (arguments, status, why) in [
        (&["drain", "dns"][..], 1, "no service is called dns"),
        (&["explain", "dns"], 1, "has no service dns; it has: tftp"),
        (&["checks", "dns"], 1, "has no service dns"),
        (&["drain", "tftp", "--for", "soon"], 2, "is not a duration"),
        (
            &["drain", "tftp", "--for", "0s"],
            2,
            "between 1s and 10 years",
        ),
    ] {
        let output = anycastctl(&[&["--socket", socket.as_str()], arguments].concat());
        let error = one_line_of_error(&output, status);
        assert!(error.contains(why), "{arguments:?}: {error}");
    }
    assert_eq!(node.announcer.in_force(), InForce::Preferred);
}

#[test]
fn an_order_that_is_not_in_force_is_exit_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ctl.sock").display().to_string();
    let node = start(
        &format!("unix:{socket}"),
        Verdict::Healthy,
        Preference::Preferred,
    );
    node.announcer.set_failing(true);
    let output = anycastctl(&["--socket", &socket, "drain", "tftp"]);
    let warned = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{warned}");
    assert!(text(&output.stdout).contains("not in force yet"));
    let last = warned.lines().last().unwrap();
    assert!(
        last.starts_with("error: the order stands, but is not in force yet"),
        "{warned}"
    );
}

#[test]
fn over_tcp_the_token_decides() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, token, mode) in [
        ("right", TOKEN, 0o600),
        ("wrong", "another-token-than-that", 0o600),
        ("open", TOKEN, 0o644),
    ] {
        fs::write(path(name), token).unwrap();
        fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    }
    let config: AdminConfig = "127.0.0.1:0".parse().unwrap();
    let config = config.with_token_file(path("right")).unwrap();
    let node = start_with(&config, Verdict::Healthy, Preference::Preferred);
    let url = format!("http://{}/", node.admin);
    let drain = |token: Option<&str>| {
        let file = token.map(|name| path(name).display().to_string());
        let token = file.as_deref().map(|file| ["--token-file", file]);
        let token = token.as_ref().map_or(&[][..], |token| &token[..]);
        anycastctl(&[&["--url", &url, "drain", "tftp"], token].concat())
    };
    for (token, why) in [
        (None, "need the header Authorization"),
        (Some("wrong"), "this is not the token"),
        (Some("open"), "chmod 640"),
        (Some("absent"), "cannot be read"),
    ] {
        let error = one_line_of_error(&drain(token), 1);
        assert!(error.contains(why), "{token:?}: {error}");
        assert!(!error.contains(TOKEN));
    }
    assert_eq!(node.announcer.in_force(), InForce::Preferred);
    let output = drain(Some("right"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(node.announcer.in_force(), InForce::Demoted);
    // The same from the environment.
    let output = command(&["undrain", "tftp"])
        .env("ANYCASTCTL_ADMIN", &node.admin)
        .env("ANYCASTCTL_TOKEN_FILE", path("right"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    node.in_force(Preference::Preferred);
}

#[test]
fn a_node_that_takes_no_orders_over_tcp_names_the_remedy() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let output = anycastctl(&["--admin", &node.admin, "drain", "tftp"]);
    let error = one_line_of_error(&output, 1);
    assert!(
        error.contains("use the Unix socket, or set token_file"),
        "{error}"
    );
}

#[test]
fn the_last_preferred_node_of_a_fleet_is_drained_by_force_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ctl.sock").display().to_string();
    let admin = format!("unix:{socket}");
    let node = start(&admin, Verdict::Healthy, Preference::Preferred);
    let ask = |extra: &[&str]| anycastctl(&[&["--socket", socket.as_str()], extra].concat());
    node.has_peer(false);
    for verb in ["drain", "withdraw"] {
        let error = one_line_of_error(&ask(&[verb, "tftp"]), 1);
        assert!(error.contains("would leave none"), "{error}");
        assert!(error.contains("or give force"), "{error}");
    }
    assert_eq!(node.announcer.in_force(), InForce::Preferred);
    let output = ask(&["drain", "tftp", "--force", "--reason", "it burns"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("by force"));
    node.in_force(Preference::Demoted);
    assert_eq!(ask(&["undrain", "tftp"]).status.code(), Some(0));
    node.in_force(Preference::Preferred);
    // Another that stays preferred takes its traffic: no force is needed.
    node.has_peer(true);
    let output = ask(&["drain", "tftp"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let status = text(&ask(&["status"]).stdout);
    assert!(
        status.contains("order: demote (no reason given), by "),
        "{status}"
    );
    assert!(status.contains("drain: "), "{status}");
}
