//! What an open content says that it is, and whether it keeps to it.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use anycast_tftp::store::{Content, OpenError, ReadError, Store as _};
use anycast_tftp::sync::content::ContentId;
use anycast_tftp::sync::tree::Subtrees;
use anycast_tftp::sync::wire::Message;
use tokio::time::sleep;

use crate::nodes::{
    Node, PATIENCE, Peer, absent, content, entry, file, give, give_made, here, members, noise,
    page, tell, until,
};

/// Larger than what is hashed while it is opened.
const LARGE: usize = 5 << 20;

async fn open(node: &Node, path: &str) -> Result<Arc<dyn Content>, OpenError> {
    let (store, path) = (node.sync.store(), file(path));
    let opened = tokio::task::spawn_blocking(move || store.open(&path));
    opened.await.unwrap()
}

async fn open_content(node: &Node, content: ContentId) -> Result<Arc<dyn Content>, OpenError> {
    let store = node.sync.store();
    let opened = tokio::task::spawn_blocking(move || store.open_content(&content));
    opened.await.unwrap()
}

/// Until what the path has is known; then it is this.
async fn known(node: &Node, path: &str, bytes: &[u8]) -> Arc<dyn Content> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let opened = open(node, path).await.unwrap();
        if let Some(id) = opened.id() {
            assert_eq!(id, content(bytes));
            return opened;
        }
        assert!(tokio::time::Instant::now() < end, "{path} stays unknown");
        sleep(Duration::from_millis(20)).await;
    }
}

fn read(opened: &dyn Content, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; length];
    opened.read_at(offset, &mut bytes).map(|()| bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_is_known_soon_and_a_small_one_when_it_is_opened() {
    let all = members(&["node"]);
    let node = Node::start(&all[0], &all).await;
    let large = noise(1, LARGE);
    node.write("large", &large);
    let opened = known(&node, "large", &large).await;
    assert_eq!(opened.size(), LARGE as u64);
    assert_eq!(read(&*opened, 100, 1000).unwrap(), large[100..1100]);
    // Through a link, which is not synced, so that nothing is known beforehand.
    let small = noise(2, 100_000);
    node.write("small", &small);
    std::os::unix::fs::symlink("small", node.root.join("link")).unwrap();
    sleep(Duration::from_millis(100)).await;
    let opened = open(&node, "link").await.unwrap();
    assert_eq!(opened.id(), Some(content(&small)));
    // It is too much to be read for a link, and is opened all the same.
    std::os::unix::fs::symlink("large", node.root.join("other")).unwrap();
    assert_eq!(open(&node, "other").await.unwrap().id(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_changed_in_place_is_no_longer_what_it_was() {
    let all = members(&["node"]);
    let node = Node::start(&all[0], &all).await;
    let (old, new) = (noise(1, LARGE), noise(2, LARGE));
    node.write("large", &old);
    let opened = known(&node, "large", &old).await;
    let path = node.root.join("large");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let writing = fs::File::options().write(true).open(&path).unwrap();
    writing.write_all_at(&new[..4096], 0).unwrap();
    // Not at the end alone: the end may be another node's to send.
    for offset in [0, 1 << 20] {
        let error = read(&*opened, offset, 512).unwrap_err();
        assert!(matches!(error, ReadError::Changed), "{error}");
        let error = opened.try_read_at(offset, &mut [0; 512]).unwrap_err();
        let is_silent = matches!(error, ReadError::Changed | ReadError::WouldBlock);
        assert!(is_silent, "{error}");
    }
    let gone = open_content(&node, content(&old)).await;
    assert!(gone.is_err(), "{gone:?}");
    // With the times that it had.
    writing.write_all_at(&new, 0).unwrap();
    writing.set_modified(modified).unwrap();
    let opened = open(&node, "large").await.unwrap();
    assert_ne!(opened.id(), Some(content(&old)));
    let gone = open_content(&node, content(&old)).await;
    assert!(gone.is_err(), "{gone:?}");
    drop(writing);
    known(&node, "large", &new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_is_opened_by_what_it_is_and_outlives_its_names() {
    let all = members(&["first", "second"]);
    let first = Node::start(&all[0], &all).await;
    let second = Node::start(&all[1], &all).await;
    let (old, new) = (noise(1, LARGE), noise(2, LARGE));
    first.write("a/large", &old);
    second.has("a/large", &old).await;
    let opened = known(&second, "a/large", &old).await;
    known(&first, "a/large", &old).await;
    let pinned = open_content(&first, content(&old)).await.unwrap();
    assert_eq!(pinned.id(), Some(content(&old)));
    first.write("a/large", &new);
    second.has("a/large", &new).await;
    for opened in [&opened, &pinned] {
        let (at, length) = (LARGE - 1000, 1000);
        assert_eq!(read(&**opened, at as u64, length).unwrap(), old[at..]);
    }
    assert_eq!(
        open_content(&second, content(&new)).await.unwrap().id(),
        Some(content(&new))
    );
    // Nobody has it by name any more; who is asked says so.
    let unheard = content(b"nobody has had this");
    until("the peer to be up", || {
        second.mesh.handle().is_up(&all[0].name)
    })
    .await;
    let none = open_content(&second, unheard).await;
    assert!(matches!(none, Err(OpenError::NotFound)), "{none:?}");
    // With a peer that cannot be asked it is not known that nobody has it.
    drop(first);
    until("it to be down", || {
        !second.mesh.handle().is_up(&all[0].name)
    })
    .await;
    let none = open_content(&second, unheard).await;
    assert!(matches!(none, Err(OpenError::Overloaded(_))), "{none:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_that_is_not_here_is_read_through_from_who_has_it() {
    let all = members(&["node", "other"]);
    let bytes = noise(3, 3 << 20);
    let given = bytes.clone();
    let _other = Peer::start(&all[1], &all, move |question, mut sender, _| {
        let bytes = given.clone();
        async move {
            match question {
                Message::Follow(_) => {
                    let entries = vec![entry("other", "image", 9, content(&bytes))];
                    tell(sender, page(5, entries)).await;
                }
                Message::Read(items) if items[0].length == bytes.len() as u64 => {
                    here(&mut sender, items[0].length).await;
                    sleep(PATIENCE).await;
                }
                Message::Read(items) => give(sender, &items, &bytes).await,
                Message::Subtrees(_) => {
                    let trees = Subtrees::of(&bytes[..]).unwrap().encode();
                    give_made(sender, &trees).await;
                }
                _ => absent(sender).await,
            }
        }
    })
    .await;
    let node = Node::start(&all[0], &all).await;
    until("it to be known", || node.sync.details().missing == 1).await;
    let id = content(&bytes);
    for opened in [
        open(&node, "image").await.unwrap(),
        open_content(&node, id).await.unwrap(),
    ] {
        assert_eq!(opened.id(), Some(id));
        let found = tokio::task::spawn_blocking(move || read(&*opened, 1 << 20, 2000));
        assert_eq!(found.await.unwrap().unwrap(), bytes[1 << 20..][..2000]);
    }
}
