//! `anycastctl sync`.

use anycast_core::announce::Preference;
use anycast_core::health::Verdict;

use crate::support::{anycastctl, one_line_of_error, start, text};

#[test]
fn what_is_missing_is_shown_and_what_force_did_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", folder.path().join("ctl.sock").display());
    let node = start(&socket, Verdict::Healthy, Preference::Preferred);
    let run = |arguments: &[&str]| {
        let output = anycastctl(&[&["--admin", &node.admin, "sync"][..], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let status = run(&["status"]);
    assert!(
        status.contains("files  not ready  2 items, for 1m 15s  2 files are missing"),
        "{status}"
    );
    assert!(status.contains("fra1  2 items, for 1m 15s"), "{status}");
    assert!(
        status.contains("troubles  a/b: the disk is full"),
        "{status}"
    );
    let diff = run(&["diff"]);
    assert!(
        diff.contains("fra1  boot/linux  -     1.5 MiB  being fetched"),
        "{diff}"
    );
    assert!(
        diff.contains("fra1: 1 more\nlon1: not known: it is down"),
        "{diff}"
    );
    assert_eq!(diff, run(&["diff", "files"]));
    let json: serde_json::Value = serde_json::from_str(&run(&["diff", "--json"])).unwrap();
    assert_eq!(json["fra1"]["more"], 1);
    assert_eq!(
        run(&["force"]),
        "files: 9 compared, 2 fetched, 0 sent, 0 removed\nfiles: as the fleet has it\n"
    );
    assert!(
        run(&["force", "files"]).contains(" 0 fetched"),
        "a second one finds nothing to do"
    );
    assert!(run(&["status"]).contains("files  ready"));
    let output = anycastctl(&["--admin", &node.admin, "sync", "diff", "leases"]);
    let error = one_line_of_error(&output, 1);
    assert!(error.contains("no data leases; it has: files"), "{error}");
}

#[test]
fn an_order_over_tcp_without_a_token_is_refused() {
    let node = start("127.0.0.1:0", Verdict::Healthy, Preference::Preferred);
    let output = anycastctl(&["--admin", &node.admin, "sync", "force"]);
    let error = one_line_of_error(&output, 1);
    assert!(error.contains("token"), "{error}");
}
