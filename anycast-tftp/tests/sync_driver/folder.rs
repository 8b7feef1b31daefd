//! A folder that is not as it should be while the node runs.

use std::fs;

use anycast_tftp::sync::replica::Mode;

use crate::nodes::{Node, members, until};

/// What a mirror has of its own is in the way of what the origin has later, the same or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mirror_had_already_becomes_what_its_origin_has() {
    let all = members(&["mirror", "origin"]);
    let mode = |number: usize| {
        let mut config = all[number].config(&all);
        config.mode = Mode::Origin(all[1].name.clone());
        config
    };
    let mirror = Node::with(&all[0], &all, mode(0)).await;
    mirror.write("same", b"same");
    mirror.write("other", b"of the mirror");
    until("both to be found", || {
        mirror.sync.details().counts["strays"] == 2
    })
    .await;
    let origin = Node::with(&all[1], &all, mode(1)).await;
    origin.write("same", b"same");
    origin.write("other", b"of the origin");
    mirror.has("other", b"of the origin").await;
    until("all to be as it should", || {
        mirror.sync.details().missing == 0
    })
    .await;
    mirror.has("same", b"same").await;
    until("to be ready", || mirror.sync.now().ready).await;
}

const MARKER: &str = ".anycast-tftp-sync/root-id";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_read_for_a_moment_is_read_again() {
    let all = members(&["node", "third"]);
    let node = Node::start(&all[0], &all).await;
    let third = Node::start(&all[1], &all).await;
    node.write("before", b"content");
    third.has("before", b"content").await;
    until("to be ready", || node.sync.now().ready).await;
    let marker = node.read(MARKER).unwrap();
    fs::write(node.root.join(MARKER), "nonsense").unwrap();
    node.write("meanwhile", b"content");
    until("the trouble", || !node.sync.now().ready).await;
    let why = node.sync.now().reason.to_string();
    assert!(why.contains("is not a marker of file sync"), "{why}");
    fs::write(node.root.join(MARKER), marker).unwrap();
    third.has("meanwhile", b"content").await;
    until("to be ready again", || node.sync.now().ready).await;
    assert_eq!(node.sync.details().counts["lost"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_lost_its_marker_is_another_one_and_nothing_is_deleted() {
    let all = members(&["node", "third"]);
    let node = Node::start(&all[0], &all).await;
    let third = Node::start(&all[1], &all).await;
    for file in ["one", "two", "three"] {
        node.write(file, file.as_bytes());
        third.has(file, file.as_bytes()).await;
    }
    until("to be ready", || node.sync.now().ready).await;
    fs::remove_file(node.root.join(MARKER)).unwrap();
    fs::remove_file(node.root.join("one")).unwrap();
    node.write("two", b"two");
    until("it to be found", || node.sync.details().counts["lost"] > 0).await;
    node.has("one", b"one").await;
    until("to be ready again", || node.sync.now().ready).await;
    for one in [&node, &third] {
        assert_eq!(one.sync.details().entries, 3);
        for file in ["one", "two", "three"] {
            assert_eq!(one.read(file).as_deref(), Some(file.as_bytes()));
        }
        assert_eq!(one.sync.details().counts["deletions"], 0);
        assert_eq!(one.sync.details().conflicts, [] as [String; 0]);
    }
    // It goes on as before.
    fs::remove_file(node.root.join("three")).unwrap();
    until("the deletion", || third.read("three").is_none()).await;
}
