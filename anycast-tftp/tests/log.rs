//! Every transfer leaves one line in the log.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use anycast_labs::logged::Logged;
use anycast_tftp::server::{Settings, WritePolicy};
use common::{Client, TestServer, ack, error, pattern, rrq};
use tracing::Level;

#[test]
fn every_transfer_leaves_one_line() {
    let logged = Logged::new("anycast_tftp", Level::INFO);
    tracing::subscriber::set_global_default(logged.clone()).unwrap();
    let settings = Settings::new().with_writes(WritePolicy::Create);
    let (server, _) = TestServer::of_memory(&[("f", pattern(1000))], settings);
    // What this host reads from itself, such as a health check, leaves none.
    let own = Client::new(server.address());
    assert_eq!(own.fetch("f", &[]), pattern(1000));
    server.wait_for("own", |stats| stats.engine.completed_reads == 1);
    let new = || Client::bound("127.0.0.2:0", server.address());
    assert_eq!(new().fetch("f", &[("blksize", "600")]), pattern(1000));
    server.wait_for("read", |stats| stats.engine.completed_reads == 2);
    assert_eq!(new().put("new", &pattern(700)), ack(2));
    server.wait_for("written", |stats| stats.engine.completed_writes == 1);
    assert_eq!(new().ask_error(&rrq("missing", &[])), 1);
    server.wait_for("missing", |stats| stats.engine.refused_not_found == 1);
    assert_eq!(new().ask_error(&rrq("../x\u{1b}[2J", &[])), 2);
    server.wait_for("refused", |stats| stats.engine.refused_access == 1);
    let client = new();
    client.ask(&rrq("f", &[]));
    client.send(&error(0, b"stop\n"));
    server.wait_for("aborted", |stats| stats.engine.aborted == 1);
    let client = new();
    client.ask(&rrq("f", &[("tsize", "0")]));
    client.send(&error(8, b""));
    server.wait_for("asked", |stats| stats.engine.probes == 1);

    // Other lines may stand beside them, such as the warning of a small receive buffer.
    let mut lines = logged.lines();
    lines.retain(|line| line.contains(" message=transfer "));
    let expected: [&[&str]; 5] = [
        &[
            "client=127.0.0.2:",
            "file=\"f\"",
            "direction=\"read\"",
            "bytes=1000",
            "blksize=600",
            "retries=",
            "milliseconds=",
            "result=complete",
        ],
        &[
            "file=\"new\"",
            "direction=\"write\"",
            "bytes=700",
            "result=complete",
        ],
        &["file=\"missing\"", "refused: error 1"],
        &["file=\"../x [2J\"", "refused: error 2", "illegal character"],
        &["file=\"f\"", "ended by the client", "\"stop \""],
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        for part in parts {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}
