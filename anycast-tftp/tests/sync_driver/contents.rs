//! Peers with a good key that send other contents than they should, or none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anycast_tftp::sync::chunks::Recipe;
use anycast_tftp::sync::wire::Message;
use tokio::time::sleep;

use crate::nodes::{
    Node, Peer, absent, content, entry, give_made, here, members, noise, page, tell, told, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_that_is_not_what_its_hash_says_is_fetched_from_another_peer() {
    let all = members(&["forger", "node", "third"]);
    let _forger = Peer::start(&all[0], &all, |question, mut sender, _| async move {
        match question {
            Message::Follow(_) => tell(sender, page(5, Vec::new())).await,
            Message::Read(items) => {
                for item in items {
                    here(&mut sender, item.length).await;
                    let bytes = noise(1, usize::try_from(item.length).unwrap());
                    let _ = sender.write_all(&bytes).await;
                }
                let _ = sender.finish();
            }
            _ => absent(sender).await,
        }
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let third = Node::start(&all[2], &all).await;
    for number in 0..8 {
        let bytes = noise(100 + number, 300_000);
        third.write("file", &bytes);
        node.has("file", &bytes).await;
    }
    assert!(told("forger", "is not what its hash says") > 0);
    assert_eq!(told("third", "is not what its hash says"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_forger_left_half_way_is_not_blamed_on_who_sends_the_rest() {
    let all = members(&["half", "node", "rest"]);
    let _half = Peer::start(&all[0], &all, |question, mut sender, _| async move {
        match question {
            Message::Follow(_) => tell(sender, page(5, Vec::new())).await,
            Message::Read(items) => {
                here(&mut sender, items[0].length).await;
                let bytes = noise(1, usize::try_from(items[0].length / 2).unwrap());
                let _ = sender.write_all(&bytes).await;
                let _ = sender.finish();
            }
            _ => absent(sender).await,
        }
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let rest = Node::start(&all[2], &all).await;
    let bytes = noise(3, 3_000_000);
    rest.write("file", &bytes);
    node.has("file", &bytes).await;
    assert_eq!(told("rest", "is not what its hash says"), 0);
    assert_eq!(node.sync.details().counts["failed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipe_that_is_not_true_costs_a_transfer_and_no_file() {
    let all = members(&["cook", "node", "third"]);
    let old = noise(1, 500_000);
    let recipe = Recipe::of(&old[..]).unwrap().encode();
    let asked = AtomicUsize::new(0);
    let _cook = Peer::start(&all[0], &all, move |question, mut sender, _| {
        let recipe = recipe.clone();
        let turn = asked.fetch_add(1, Ordering::Relaxed);
        async move {
            match question {
                Message::Follow(_) => tell(sender, page(5, Vec::new())).await,
                // All of it is in the old version; there is no end to it; it is none.
                Message::Recipe(_) => match turn % 3 {
                    0 => give_made(sender, &recipe).await,
                    1 => here(&mut sender, u64::MAX).await,
                    _ => give_made(sender, &[0xff; 18]).await,
                },
                _ => absent(sender).await,
            }
        }
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let third = Node::start(&all[2], &all).await;
    third.write("file", &old);
    node.has("file", &old).await;
    for number in 0..6 {
        third.write("file", &old);
        node.has("file", &old).await;
        let mut new = old.clone();
        new[300_000 + number] ^= 1;
        third.write("file", &new);
        node.has("file", &new).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_of_a_size_beyond_all_disks_holds_up_nothing_else() {
    let all = members(&["boaster", "node", "third"]);
    let mut vast = content(b"vast");
    vast.size = u64::MAX;
    let _boaster = Peer::start(&all[0], &all, move |question, mut sender, _| async move {
        match question {
            Message::Follow(_) => {
                let entries = vec![entry("boaster", "vast", 9, vast)];
                tell(sender, page(5, entries)).await;
            }
            Message::Read(items) => {
                here(&mut sender, items[0].length).await;
                let _ = sender.write_all(&noise(1, 200_000)).await;
                let _ = sender.finish();
            }
            _ => absent(sender).await,
        }
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let third = Node::start(&all[2], &all).await;
    until("it to be tried", || {
        node.sync.details().counts["failed"] > 0
    })
    .await;
    third.write("honest", b"content");
    node.has("honest", b"content").await;
    assert!(!node.sync.now().ready);
    assert_eq!(node.read("vast"), None);
}

/// Takes as long as a peer is given for a piece: twenty seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_that_trickles_is_left_for_another_peer() {
    let all = members(&["dripper", "node", "third"]);
    let _dripper = Peer::start(&all[0], &all, |question, mut sender, _| async move {
        match question {
            Message::Follow(_) => tell(sender, page(5, Vec::new())).await,
            Message::Read(items) => {
                here(&mut sender, items[0].length).await;
                while sender.write_all(&[0]).await.is_ok() {
                    sleep(Duration::from_secs(1)).await;
                }
            }
            _ => absent(sender).await,
        }
    })
    .await;
    let node = Node::start(&all[1], &all).await;
    let third = Node::start(&all[2], &all).await;
    let bytes = noise(5, 400_000);
    third.write("file", &bytes);
    // What comes after it does not wait for it.
    let small = noise(6, 1000);
    sleep(Duration::from_secs(1)).await;
    third.write("other", &small);
    node.has("file", &bytes).await;
    node.has("other", &small).await;
}
