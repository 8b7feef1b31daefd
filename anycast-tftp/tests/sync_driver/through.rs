//! Files that are known and not here yet, read through from peers.

use std::sync::Arc;

use anycast_tftp::store::{OpenError, Store as _};
use anycast_tftp::sync::tree::Subtrees;
use anycast_tftp::sync::wire::Message;
use tokio::time::sleep;

use crate::nodes::{
    Member, Node, PATIENCE, Peer, absent, content, entry, file, give, give_made, here, members,
    noise, page, tell, told, until,
};

/// More than is asked for at once.
const SIZE: usize = 3 << 20;

/// Keeps the node waiting for the whole; what it does of parts is up to the test.
async fn keep_waiting(mut sender: anycast_core::mesh::transport::Sender, length: u64) {
    here(&mut sender, length).await;
    sleep(PATIENCE).await;
}

/// Has the trees of one content and the bytes of another; one that does not lie tells of the file.
async fn peer(
    member: &Member,
    all: &[Member],
    trees: &Arc<Vec<u8>>,
    blocks: &Arc<Vec<u8>>,
) -> Peer {
    let (trees, blocks) = (Arc::clone(trees), Arc::clone(blocks));
    let entries = if member.name.as_str() == "true" {
        vec![entry("true", "boot/image", 9, content(&blocks))]
    } else {
        Vec::new()
    };
    let answer = move |question, sender, _| {
        let (trees, blocks) = (Arc::clone(&trees), Arc::clone(&blocks));
        let entries = entries.clone();
        async move {
            match question {
                Message::Follow(_) => tell(sender, page(5, entries)).await,
                Message::Read(items) if items[0].length == SIZE as u64 => {
                    keep_waiting(sender, items[0].length).await;
                }
                Message::Read(items) => give(sender, &items, &blocks).await,
                Message::Subtrees(_) => {
                    let trees = Subtrees::of(&trees[..]).unwrap().encode();
                    give_made(sender, &trees).await;
                }
                _ => absent(sender).await,
            }
        }
    };
    Peer::start(member, all, answer).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_here_yet_is_read_through_and_proven() {
    let all = members(&["block-liar", "node", "tree-liar", "true"]);
    let bytes = Arc::new(noise(1, SIZE));
    let other = Arc::new(noise(2, SIZE));
    let mut peers = vec![
        peer(&all[0], &all, &bytes, &other).await,
        peer(&all[2], &all, &other, &other).await,
        peer(&all[3], &all, &bytes, &bytes).await,
    ];
    let node = Node::start(&all[1], &all).await;
    let handle = node.mesh.handle();
    until("all to be up", || {
        all.iter()
            .all(|one| one.name == all[1].name || handle.is_up(&one.name))
    })
    .await;
    until("it to be known", || node.sync.details().missing == 1).await;
    let store = node.sync.store();
    let wanted = Arc::clone(&bytes);
    let reading = tokio::task::spawn_blocking(move || {
        let opened = store.open(&file("boot/image")).unwrap();
        assert_eq!(opened.size(), SIZE as u64);
        let mut found = vec![0; SIZE];
        for (number, piece) in found.chunks_mut(1428).enumerate() {
            opened.read_at(number as u64 * 1428, piece).unwrap();
        }
        assert!(found == *wanted, "other bytes");
        // From the end to the beginning, and across blocks.
        let mut two = [0; 2];
        opened.read_at((64 << 10) - 1, &mut two).unwrap();
        assert_eq!(two, wanted[(64 << 10) - 1..=64 << 10]);
        let unknown = store.open(&file("boot/other"));
        assert!(matches!(unknown, Err(OpenError::NotFound)), "{unknown:?}");
    });
    reading.await.unwrap();
    assert_eq!(told("block-liar", "a block is not what its hash says"), 1);
    assert_eq!(told("true", "not what"), 0);
    assert_eq!(node.read("boot/image"), None, "nothing is there in part");
    // Without the one that does not lie about blocks there is no byte of it.
    drop(peers.pop());
    until("it to be gone", || !handle.is_up(&all[3].name)).await;
    let store = node.sync.store();
    let reading = tokio::task::spawn_blocking(move || match store.open(&file("boot/image")) {
        Err(OpenError::Overloaded(_)) => {}
        Ok(opened) => assert!(opened.read_at(0, &mut [0; 100]).is_err()),
        Err(error) => panic!("{error}"),
    });
    reading.await.unwrap();
    // And without the one whose trees are true it is not opened at all.
    drop(peers.remove(0));
    until("it to be gone", || !handle.is_up(&all[0].name)).await;
    let store = node.sync.store();
    let reading = tokio::task::spawn_blocking(move || {
        let opened = store.open(&file("boot/image"));
        assert!(
            matches!(opened, Err(OpenError::Overloaded(_))),
            "{opened:?}"
        );
    });
    reading.await.unwrap();
    assert!(told("tree-liar", "what a peer says of a content is not true") > 0);
}
