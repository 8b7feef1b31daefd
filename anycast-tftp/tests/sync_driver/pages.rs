//! Peers with a good key that say of their files what may not be.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anycast_core::mesh::transport::Purpose;
use anycast_tftp::sync::wire::{Follow, MAX_FRAME, Message};

use crate::nodes::{
    Node, PATIENCE, Peer, absent, content, entry, give, members, name, page, tell, told, until,
};

/// What an honest name is made into; of the same length, so that the rest of the page stays right.
const NAMES: [(&str, &[u8]); 6] = [
    ("aa/escape", b"../escape"),
    ("b/aa/escape", b"b/../escape"),
    ("aetc/escape", b"/etc/escape"),
    ("a-escape", b"a\0escape"),
    ("aanycast-tftp-sync/root-id", b".anycast-tftp-sync/root-id"),
    ("a/escape", b".//scape"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_lead_elsewhere_are_refused_and_their_sender_is_named() {
    let all = members(&["liar-of-names", "node", "third"]);
    let asked = AtomicUsize::new(0);
    let _liar = Peer::start(&all[0], &all, move |question, mut sender, _| {
        let turn = asked.fetch_add(1, Ordering::Relaxed);
        async move {
            let Message::Follow(_) = question else {
                return absent(sender).await;
            };
            let (good, bad) = NAMES[turn % NAMES.len()];
            assert_eq!(good.len(), bad.len());
            let told = page(5, vec![entry("liar-of-names", good, 9, content(b"x"))]);
            let mut frame = Message::Page(told).encode().unwrap();
            let at = frame
                .windows(good.len())
                .position(|one| one == good.as_bytes());
            let at = at.unwrap();
            frame[at..at + bad.len()].copy_from_slice(bad);
            let _ = sender.write_all(&frame).await;
            let _ = sender.delivered().await;
        }
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let third = Node::start(&all[2], &all).await;
    until("every name to be refused", || {
        told("liar-of-names", "cannot be used") >= 2 * NAMES.len()
    })
    .await;
    third.write("honest", b"content");
    node.has("honest", b"content").await;
    assert_eq!(node.sync.details().entries, 1);
    let above = fs::read_dir(node.root.parent().unwrap()).unwrap();
    assert_eq!(above.count(), 3, "key, root and state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_through_a_link_writes_nothing_outside() {
    let all = members(&["node", "sly", "third"]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("mine"), "mine").unwrap();
    let root = all[0].root();
    symlink(outside.path(), root.join("out")).unwrap();
    fs::create_dir(root.join("in")).unwrap();
    symlink("../out", root.join("in/deep")).unwrap();
    symlink(outside.path().join("mine"), root.join("file")).unwrap();
    let bytes = b"sly content";
    let paths = ["out/evil", "in/deep/evil", "out/mine", "file"];
    let _sly = Peer::start(&all[1], &all, move |question, sender, _| async move {
        let entries = paths
            .iter()
            .map(|path| entry("sly", path, 9, content(bytes)));
        match question {
            Message::Follow(_) => tell(sender, page(5, entries.collect())).await,
            Message::Read(items) => give(sender, &items, bytes).await,
            _ => absent(sender).await,
        }
    })
    .await;
    let node = Node::start(&all[0], &all).await;
    let third = Node::start(&all[2], &all).await;
    for path in paths {
        third.has(path, bytes).await;
    }
    until("the paths to be told", || {
        let troubles = node.sync.details().troubles.join("\n");
        paths.iter().all(|path| troubles.contains(path))
    })
    .await;
    third.write("honest", b"content");
    node.has("honest", b"content").await;
    assert_eq!(fs::read(outside.path().join("mine")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(
        fs::symlink_metadata(root.join("file"))
            .unwrap()
            .is_symlink()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_four_gibibytes_is_refused_by_its_length() {
    let all = members(&["long", "node", "third"]);
    let long = Peer::start(&all[0], &all, |_, mut sender, _| async move {
        let _ = sender.write_all(&[0xff; 4]).await;
        let _ = sender.write_all(&[2; 100_000]).await;
        let _ = sender.delivered().await;
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let third = Node::start(&all[2], &all).await;
    until("the peer's pages to be refused", || {
        told("long", "a frame of 4294967295 bytes") > 1
    })
    .await;
    // And the same as a question.
    let (mut sender, mut receiver) = long
        .mesh
        .handle()
        .open(&name("node"), Purpose::Files)
        .await
        .unwrap();
    sender.write_all(&[0xff; 4]).await.unwrap();
    assert!(!matches!(receiver.read_chunk(1).await, Ok(Some(_))));
    until("the question to be refused", || {
        told("long", "a stream about files was ended") > 0
    })
    .await;
    third.write("honest", b"content");
    node.has("honest", b"content").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_names_stop_at_max_files_and_their_sender_is_told() {
    let all = members(&["endless", "node", "third"]);
    let third = Node::start(&all[2], &all[1..]).await;
    let mut config = all[1].config(&all);
    config.max_files = 1000;
    let node = Node::with(&all[1], &all, config).await;
    third.write("known", b"before");
    node.has("known", b"before").await;
    let _endless = Peer::start(&all[0], &all, |question, mut sender, _| async move {
        let Message::Follow(_) = question else {
            return absent(sender).await;
        };
        for number in 0_u64.. {
            let names = (0..100).map(|one| format!("endless/{number}-{one}"));
            let entries = names.map(|one| entry("endless", &one, 9, content(one.as_bytes())));
            let mut page = page(5, entries.collect());
            page.after = number * 100;
            page.upto = page.after + 100;
            let frame = Message::Page(page).encode().unwrap();
            if sender.write_all(&frame).await.is_err() {
                return;
            }
        }
    })
    .await;
    until("the bound to be told", || {
        let troubles = node.sync.details().troubles.join("\n");
        troubles.contains("list of files is full (1000)") && troubles.contains("from endless")
    })
    .await;
    third.write("known", b"after");
    node.has("known", b"after").await;
    assert_eq!(node.sync.details().entries, 1000);
    assert!(!node.sync.now().ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_played_again_change_nothing() {
    let all = members(&["node", "player", "third"]);
    let recorded = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let tape = Arc::clone(&recorded);
    let player = Peer::start(&all[1], &all, move |question, mut sender, _| {
        let tape = Arc::clone(&tape);
        async move {
            let Message::Follow(_) = question else {
                return absent(sender).await;
            };
            loop {
                let frames = tape.lock().unwrap().clone();
                for frame in frames {
                    if sender.write_all(&frame).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    })
    .await;
    let node = Node::start(&all[0], &all).await;
    let third = Node::start(&all[2], &all).await;
    node.write("changed", b"old");
    node.write("deleted", b"old");
    third.has("changed", b"old").await;
    third.has("deleted", b"old").await;
    let handle = player.mesh.handle();
    until("the player to be up", || handle.is_up(&name("node"))).await;
    let (mut sender, mut receiver) = handle.open(&name("node"), Purpose::Files).await.unwrap();
    let follow = Message::Follow(Follow { epoch: 0, since: 0 });
    sender.write_all(&follow.encode().unwrap()).await.unwrap();
    loop {
        let frame = receiver
            .read_frame(MAX_FRAME, PATIENCE)
            .await
            .unwrap()
            .unwrap();
        let length = u32::try_from(frame.len()).unwrap();
        let whole = [&length.to_be_bytes()[..], &frame].concat();
        let is_head = matches!(Message::decode(&frame), Ok(Some(Message::Head(_))));
        recorded.lock().unwrap().push(whole);
        if is_head {
            break;
        }
    }
    third.write("changed", b"new");
    fs::remove_file(third.root.join("deleted")).unwrap();
    node.has("changed", b"new").await;
    until("the deletion", || node.read("deleted").is_none()).await;
    // It has been played many times, and is once more before this comes.
    third.write("honest", b"content");
    node.has("honest", b"content").await;
    for one in [&node, &third] {
        one.has("changed", b"new").await;
        assert_eq!(one.read("deleted"), None);
        assert_eq!(one.sync.details().conflicts, [] as [String; 0]);
        assert_eq!(one.sync.details().entries, 3);
    }
}
