//! `anycastctl` against a running node, and against what is none.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: what goes wrong here fails it"
)]

mod orders;
mod records;
mod support;
mod sync;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use anycast_core::announce::Preference;
use anycast_core::health::Verdict;

use crate::support::{anycastctl, command, one_line_of_error, start, text};

#[test]
fn a_preferred_service_is_shown_as_a_table() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let output = anycastctl(&["status", "--admin", &node.admin]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(table.starts_with("node ams1\n"), "{table}");
    let line = |start: &str| {
        let found = table.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line {start:?} in\n{table}"))
    };
    let service = line("tftp     preferred");
    assert!(
        service.contains("primary") && service.contains("yes ("),
        "{table}"
    );
    let check = line("tftp     probe");
    assert!(
        check.contains(" up ") && check.contains("healthy ("),
        "{table}"
    );
    assert!(table.contains("192.0.2.69 2001:db8::69"), "{table}");
}

#[test]
fn a_demoted_service_says_why_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("ctl.sock").display());
    let node = start(
        &socket,
        Verdict::gone("the disk is gone"),
        Preference::Demoted,
    );
    let output = anycastctl(&["--admin", &node.admin, "status"]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(table.contains("tftp     demoted"), "{table}");
    assert!(table.contains("the disk is gone"), "{table}");
}

#[test]
fn json_is_the_nodes_own_answer() {
    let node = start("[::1]:0", Verdict::Healthy, Preference::Preferred);
    let output = anycastctl(&["--admin", &node.admin, "status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["node"], "ams1");
    assert_eq!(json["services"][0]["preference"], "preferred");
    assert_eq!(json["services"][0]["checks"][0]["name"], "probe");
}

#[test]
fn nobody_there_is_one_clear_line() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = one_line_of_error(&anycastctl(&["--admin", &free.to_string(), "status"]), 3);
    assert!(
        error.contains(&format!("no node answers at {free}: is it running")),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("absent.sock").display());
    let error = one_line_of_error(&anycastctl(&["--admin", &socket, "status"]), 3);
    assert!(
        error.contains(&format!("no node answers at {socket}")),
        "{error}"
    );
}

/// Answers one request with these bytes, then keeps the connection open until the client goes.
fn answering(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if !bytes.starts_with(b"SSH") {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
        }
        // The client may refuse the answer half-way.
        let _ = stream.write_all(&bytes);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    address
}

#[test]
fn what_is_no_node_is_told_apart() {
    let http = |head: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let cases = [
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "cannot be read"),
        (http("404 Not Found", b"no"), "answered 404"),
        (http("200 OK", b"<html>"), "cannot be read"),
        (http("200 OK", b"{\"node\": 7}"), "cannot be read"),
        (http("200 OK", b"\xff\xfe"), "cannot be read"),
        (http("200 OK", &vec![b' '; 17 << 20]), "cannot be read"),
        (Vec::new(), "no complete answer within 6 s"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec(),
            "no complete answer",
        ),
    ];
    for (answer, expected) in cases {
        let start: Vec<u8> = answer.iter().copied().take(40).collect();
        let address = answering(answer).to_string();
        let error = one_line_of_error(&anycastctl(&["--admin", &address, "status"]), 1);
        assert!(
            error.contains(expected),
            "{:?}: {error}",
            String::from_utf8_lossy(&start)
        );
    }
}

#[test]
fn a_wrong_command_line_is_exit_status_2() {
    for arguments in [
        &["--admin", "192.0.2.1:9180", "status"][..],
        &["--admin", "unix:relative", "status"],
        &["--admin", "localhost", "status"],
        &["--url", "https://127.0.0.1:9180", "status"],
        &["--url", "http://127.0.0.1:1", "--socket", "/x", "status"],
        &["drain"],
        &["drain", "no/name"],
        &["status", "--watch", "0"],
        &["status", "--watch", "--json"],
        &["status", "--count", "2"],
        &["undrain", "tftp", "--for", "2h"],
        &["frobnicate"],
        &[],
    ] {
        let output = anycastctl(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn the_environment_names_the_node() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let output = command(&["status"])
        .env("ANYCASTCTL_ADMIN", &node.admin)
        .output()
        .unwrap();
    assert!(text(&output.stdout).starts_with("node ams1\n"));
    let output = command(&["status"])
        .env("ANYCASTCTL_ADMIN", "nonsense")
        .output()
        .unwrap();
    let error = one_line_of_error(&output, 2);
    assert!(error.contains("the variable ANYCASTCTL_ADMIN"), "{error}");
}

#[test]
fn checks_and_the_chain_are_told() {
    let node = start(
        "127.0.0.1:0",
        Verdict::unhealthy("no answer within 500 ms"),
        Preference::Demoted,
    );
    let output = anycastctl(&["--admin", &node.admin, "checks", "tftp"]);
    let checks = text(&output.stdout);
    assert!(checks.contains("tftp     probe  critical"), "{checks}");
    assert!(
        checks.contains("unhealthy: no answer within 500 ms ("),
        "{checks}"
    );
    let output = anycastctl(&["--admin", &node.admin, "explain", "tftp"]);
    let chain = text(&output.stdout);
    for start in [
        "tftp on ams1: demoted for",
        "checks     probe: ",
        "readiness  no inputs",
        "fleet      this node knows no other",
        "decision   demoted for",
        "announcer  yes (recording)",
        "route      192.0.2.69: announced at the inferior level",
    ] {
        assert!(
            chain.lines().any(|line| line.starts_with(start)),
            "{start}\n{chain}"
        );
    }
    assert!(chain.contains("to be preferred: probe: "), "{chain}");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let shown = |extra: &[&str], no_colour: &str| {
        let output = command(&[&["--admin", node.admin.as_str(), "status"], extra].concat())
            .env("NO_COLOR", no_colour)
            .output();
        text(&output.unwrap().stdout).contains('\x1b')
    };
    assert!(!shown(&[], ""));
    assert!(!shown(&["--color", "never"], ""));
    assert!(shown(&["--color", "always"], ""));
    // What is said on the command line comes before the environment.
    assert!(shown(&["--color", "always"], "1"));
}

/// util-linux' `script` gives the command a terminal.
fn on_a_terminal(arguments: &str, variables: &[(&str, &str)]) -> String {
    let command = format!(
        "stty cols 60 rows 12; {} {arguments}",
        env!("CARGO_BIN_EXE_anycastctl")
    );
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_terminal_gets_colours_and_lines_that_fit() {
    let node = start(
        "127.0.0.1:0",
        Verdict::unhealthy("one two three four five six seven eight nine ten eleven twelve"),
        Preference::Demoted,
    );
    let command = format!("--admin {} explain tftp", node.admin);
    let shown = on_a_terminal(&command, &[]);
    assert!(shown.contains("\x1b[33mdemoted\x1b[0m"), "{shown}");
    let plain = on_a_terminal(&command, &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b'), "{plain}");
    assert!(plain.contains("demoted"), "{plain}");
    for line in plain.lines() {
        assert!(line.chars().count() <= 60, "{line}");
    }
    let dumb = on_a_terminal(&command, &[("TERM", "dumb")]);
    assert!(!dumb.contains('\x1b'), "{dumb}");
}

#[test]
fn watching_draws_again_over_the_same_place_and_ends() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let command = format!("--admin {} status --watch 0.2 --count 3", node.admin);
    let shown = on_a_terminal(&command, &[]);
    assert_eq!(shown.matches("\x1b[H").count(), 3, "{shown}");
    assert_eq!(shown.matches("node ams1").count(), 3, "{shown}");
    // In a pipe nothing is drawn over, and nothing steers.
    let output = anycastctl(&[
        "--admin",
        &node.admin,
        "status",
        "--watch",
        "0.2",
        "--count",
        "2",
    ]);
    let shown = text(&output.stdout);
    assert!(!shown.contains('\x1b'), "{shown}");
    assert_eq!(shown.matches("node ams1").count(), 2, "{shown}");
}

#[test]
fn watching_ends_when_nobody_reads_any_more() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let mut child = command(&["--admin", &node.admin, "status", "--watch", "0.2"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_node_that_is_restarted_is_waited_for() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let admin = node.admin.clone();
    let mut child = command(&[
        "--admin", &admin, "status", "--watch", "0.2", "--count", "5",
    ])
    .stdout(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut first = [0; 9];
    output.read_exact(&mut first).unwrap();
    drop(node);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("error: no node answers at"), "{rest}");
    assert!(child.wait().unwrap().success());
}
