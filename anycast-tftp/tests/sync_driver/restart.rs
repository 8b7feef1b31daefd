//! A restart in the middle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anycast_tftp::sync::wire::Message;
use tokio::time::sleep;

use crate::nodes::{
    Node, PATIENCE, Peer, absent, content, entry, give, here, members, noise, page, tell, until,
};

const SIZE: usize = 8 << 20;
/// What comes before the restart.
const FIRST: usize = 6 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_with_what_had_come() {
    let all = members(&["node", "source"]);
    let bytes = Arc::new(noise(1, SIZE));
    let whole = content(&bytes);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let has_restarted = Arc::new(AtomicBool::new(false));
    let (seen, goes_on) = (Arc::clone(&asked), Arc::clone(&has_restarted));
    let served = Arc::clone(&bytes);
    let _source = Peer::start(&all[1], &all, move |question, mut sender, _| {
        let (bytes, seen) = (Arc::clone(&served), Arc::clone(&seen));
        let goes_on = goes_on.load(Ordering::Relaxed);
        async move {
            match question {
                Message::Follow(_) => {
                    let entries = vec![entry("source", "image", 9, whole)];
                    tell(sender, page(5, entries)).await;
                }
                Message::Read(items) => {
                    seen.lock().unwrap().push(items[0]);
                    if goes_on {
                        return give(sender, &items, &bytes).await;
                    }
                    here(&mut sender, items[0].length).await;
                    let _ = sender.write_all(&bytes[..FIRST]).await;
                    sleep(PATIENCE).await;
                }
                _ => absent(sender).await,
            }
        }
    })
    .await;
    let Node { sync, mesh, root } = Node::start(&all[0], &all).await;
    until("most of it to be here", || {
        sync.details().fetched_bytes == FIRST as u64
    })
    .await;
    assert!(!root.join("image").exists());
    drop(sync);
    has_restarted.store(true, Ordering::Relaxed);
    let sync = all[0].sync(&mesh, all[0].config(&all)).await;
    let node = Node { root, sync, mesh };
    node.has("image", &bytes).await;
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!((asked[0].offset, asked[0].length), (0, SIZE as u64));
    assert_eq!(asked[1].offset, FIRST as u64);
    let details = node.sync.details();
    assert_eq!(details.fetched_bytes, (SIZE - FIRST) as u64);
}
