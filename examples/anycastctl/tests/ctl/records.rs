//! `record` from a running node, and `replay` of what it wrote.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use anycast_core::admin::AdminConfig;
use anycast_core::announce::Preference;
use anycast_core::health::Verdict;

use crate::support::{anycastctl, command, one_line_of_error, start, start_with, text};

fn replay(file: &Path, extra: &[&str]) -> Output {
    let file = file.display().to_string();
    anycastctl(&[&["replay", file.as_str()], extra].concat())
}

#[test]
fn what_a_node_decided_is_fetched_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ctl.sock").display().to_string();
    let admin = format!("unix:{socket}");
    let node = start(&admin, Verdict::Healthy, Preference::Preferred);
    let ask = |extra: &[&str]| anycastctl(&[&["--socket", socket.as_str()], extra].concat());
    assert!(
        ask(&["drain", "tftp", "--reason", "new disks"])
            .status
            .success()
    );
    node.in_force(Preference::Demoted);
    let record = ask(&["record"]);
    assert_eq!(record.status.code(), Some(0), "{}", text(&record.stderr));
    assert_eq!(ask(&["record", "--service", "tftp"]).status.code(), Some(0));
    let error = one_line_of_error(&ask(&["record", "--service", "dns"]), 1);
    assert!(error.contains("no service is called dns"), "{error}");
    // Replayed where no node is.
    drop(node);
    let file = folder.path().join("incident.jsonl");
    fs::write(&file, &record.stdout).unwrap();
    let output = replay(&file, &[]);
    let timeline = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        timeline.starts_with("tftp on ams1, replayed\n"),
        "{timeline}"
    );
    for piece in [
        "preferred (healthy)",
        "every check is up",
        "demoted (drained)",
        "new disks",
    ] {
        assert!(timeline.contains(piece), "{piece}\n{timeline}");
    }
    assert!(timeline.contains("\nas recorded: "), "{timeline}");
    // By way of standard input it is the same.
    let mut child = command(&["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&record.stdout)
        .unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), timeline);
    // All inputs are more than those that decided something.
    let all = text(&replay(&file, &["--all"]).stdout);
    assert!(all.lines().count() >= timeline.lines().count(), "{all}");
}

#[test]
fn a_record_that_replays_to_something_else_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(
        &format!("unix:{}", folder.path().join("ctl.sock").display()),
        Verdict::Healthy,
        Preference::Preferred,
    );
    let record = text(&anycastctl(&["--admin", &node.admin, "record"]).stdout);
    let (before, last) = record.trim_end().rsplit_once('\n').unwrap();
    let changed = format!(
        "{before}\n{}\n",
        last.replace("preferred", "de\\u001b[2Jmoted")
    );
    let file = folder.path().join("incident.jsonl");
    fs::write(&file, &changed).unwrap();
    let output = replay(&file, &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    let place = format!("error: {}:{}: ", file.display(), changed.lines().count());
    assert!(error.starts_with(&place), "{error}");
    assert!(error.contains("comes to preferred (healthy)"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let shown = text(&output.stdout);
    assert!(shown.contains("NOT as recorded: 1 of "), "{shown}");
    assert!(!shown.contains('\x1b') && !error.contains('\x1b'));
}

#[test]
fn what_is_no_record_is_one_line_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.jsonl");
    let name = file.display().to_string();
    for (content, why) in [
        (&b""[..], format!("{name}: the record is empty")),
        (b"\x1b[2J\n", format!("{name}:1: ")),
        (
            b"\xff\xfe",
            format!("{name}: cannot be read: it is no UTF-8 text"),
        ),
        (
            b"{\"dropped\": 1}",
            format!("{name}:1: the first line is not a header"),
        ),
    ] {
        fs::write(&file, content).unwrap();
        let error = one_line_of_error(&replay(&file, &[]), 1);
        assert!(error.contains(&why), "{why} is not in: {error}");
        assert!(!error.contains('\x1b'));
    }
    let error = one_line_of_error(&replay(&folder.path().join("absent"), &[]), 1);
    assert!(error.contains("absent: cannot be read: "), "{error}");
}

#[test]
fn over_tcp_a_record_needs_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "a-token-of-these-tests").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config: AdminConfig = "127.0.0.1:0".parse().unwrap();
    let config = config.with_token_file(path.clone()).unwrap();
    let node = start_with(&config, Verdict::Healthy, Preference::Preferred);
    let error = one_line_of_error(&anycastctl(&["--admin", &node.admin, "record"]), 1);
    assert!(error.contains("need the header Authorization"), "{error}");
    let file = path.display().to_string();
    let arguments = ["--admin", &node.admin, "record", "--token-file", &file];
    let output = anycastctl(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("anycast_record"));
}
