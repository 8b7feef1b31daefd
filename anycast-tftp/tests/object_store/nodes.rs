//! Nodes that know of each other by a bucket alone.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anycast_core::sync::{Sync as _, SyncError};
use anycast_tftp::store::FileName;
use anycast_tftp::sync::content::{ContentHash, ContentId};
use anycast_tftp::sync::object::{
    Host, ObjectStoreBackend, ObjectSync, PART, Replaces, StoredManifest,
};
use anycast_tftp::sync::replica::{
    Config, DiskError, FetchError, Item, Output, Replica, RootId, Source, Start,
};
use tokio::io::AsyncRead;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::s3::{Proxy, S3, settings};

/// Longest wait for something that must happen: generous, machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// No two replicas of a test are the same writer.
static INCARNATIONS: AtomicU64 = AtomicU64::new(1);

/// A folder in memory and the replica that keeps it.
struct Folder {
    replica: Replica,
    files: BTreeMap<FileName, Vec<u8>>,
    kept: BTreeMap<ContentHash, Vec<u8>>,
}

pub(crate) struct Memory {
    folder: Mutex<Folder>,
    outputs: UnboundedSender<Output>,
}

impl Memory {
    fn new(node: &str) -> (Self, UnboundedReceiver<Output>) {
        let mut config = Config::new(node.parse().unwrap(), vec!["bucket".parse().unwrap()]);
        config.quiet = Duration::from_millis(50);
        config.lag_grace = Duration::ZERO;
        let start = Start {
            now: Instant::now(),
            wall: wall(),
            epoch: 1,
            incarnation: INCARNATIONS.fetch_add(1, Ordering::Relaxed),
        };
        let (outputs, receiver) = unbounded_channel();
        let memory = Self {
            folder: Mutex::new(Folder {
                replica: Replica::new(config, start).unwrap(),
                files: BTreeMap::new(),
                kept: BTreeMap::new(),
            }),
            outputs,
        };
        memory.with(|replica, now, wall| {
            replica.handle_root(None, RootId(7));
            replica.handle_scan_began();
            replica.handle_scan_ended(now, wall);
        });
        (memory, receiver)
    }

    fn on<T>(&self, act: impl FnOnce(&mut Folder, Instant, u64) -> T) -> T {
        let mut folder = self.folder.lock().unwrap();
        let done = act(&mut folder, Instant::now(), wall());
        while let Some(output) = folder.replica.poll_output() {
            if let Output::Record(_) = output {
                folder.replica.handle_recorded(Instant::now(), Ok(()));
            } else {
                // Nobody reads them once the node ends.
                let _ = self.outputs.send(output);
            }
        }
        done
    }

    fn look(&self, path: &FileName) {
        self.on(|folder, now, wall| {
            let ticket = folder.replica.ticket();
            match folder.files.get(path).map(|bytes| id(bytes)) {
                Some(content) => folder
                    .replica
                    .handle_found(now, wall, ticket, path, content),
                None => folder.replica.handle_gone(now, wall, ticket, path),
            }
        });
    }
}

impl Host for Memory {
    fn with<T>(&self, act: impl FnOnce(&mut Replica, Instant, u64) -> T) -> T {
        self.on(|folder, now, wall| act(&mut folder.replica, now, wall))
    }

    async fn open(
        &self,
        content: ContentId,
    ) -> io::Result<Option<Box<dyn AsyncRead + Send + Unpin>>> {
        let found = self.on(|folder, _, _| {
            let path = folder.replica.locate(&content);
            let file = path.and_then(|path| folder.files.get(&path));
            file.or_else(|| folder.kept.get(&content.hash)).cloned()
        });
        Ok(found.map(|bytes| Box::new(Cursor::new(bytes)) as _))
    }
}

impl Folder {
    fn install(&mut self, items: &[Item]) -> Result<(), DiskError> {
        for item in items {
            let here = self.files.get(&item.path).map(|bytes| id(bytes));
            if here != item.expecting {
                return Err(DiskError::Differs(item.path.clone()));
            }
        }
        for item in items {
            let source = match &item.source {
                Source::Kept => self.kept.get(&item.content.hash),
                Source::Path(path) => self.files.get(path),
            };
            let hash = item.content.hash;
            let bytes = source.cloned().ok_or(DiskError::Source(hash))?;
            self.files.insert(item.path.clone(), bytes);
        }
        Ok(())
    }

    fn remove(&mut self, path: &FileName, expecting: ContentId) -> Result<(), DiskError> {
        if self.files.get(path).map(|bytes| id(bytes)) != Some(expecting) {
            return Err(DiskError::Differs(path.clone()));
        }
        self.files.remove(path);
        Ok(())
    }
}

/// A node; its tasks end with it.
pub(crate) struct Node {
    pub(crate) sync: Arc<ObjectSync<Memory>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    fn start(name: &str, server: &S3) -> Self {
        Self::start_at(name, &server.url)
    }

    fn start_at(name: &str, url: &str) -> Self {
        let mut node = Self::idle_at(name, url);
        let run = Arc::clone(&node.sync);
        node.tasks
            .push(tokio::spawn(async move { run.run().await }));
        node
    }

    /// Looks at the bucket only when it is forced.
    pub(crate) fn idle_at(name: &str, url: &str) -> Self {
        let (memory, outputs) = Memory::new(name);
        let peer = "bucket".parse().unwrap();
        let bucket = ObjectStoreBackend::new(&settings(url)).unwrap();
        let interval = Duration::from_millis(200);
        let sync = Arc::new(ObjectSync::new(bucket, peer, interval, memory));
        let ticks = Arc::clone(&sync);
        let tasks = vec![
            tokio::spawn(carry_out(Arc::clone(&sync), outputs)),
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    ticks
                        .host()
                        .with(|replica, now, wall| replica.handle_timeout(now, wall));
                }
            }),
        ];
        Self { sync, tasks }
    }

    pub(crate) fn edit(&self, path: &str, bytes: &[u8]) {
        let path = name(path);
        let host = self.sync.host();
        host.on(|folder, _, _| folder.files.insert(path.clone(), bytes.to_vec()));
        host.look(&path);
    }

    pub(crate) fn delete(&self, path: &str) {
        let path = name(path);
        let host = self.sync.host();
        host.on(|folder, _, _| folder.files.remove(&path));
        host.look(&path);
    }

    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.sync.host().on(|folder, _, _| {
            let files = folder.files.iter();
            let files = files.map(|(path, bytes)| (path.as_str().to_owned(), bytes.clone()));
            files.collect()
        })
    }

    async fn says(&self) -> (bool, String) {
        let status = self.sync.status().await.unwrap();
        (status.ready, status.reason.to_string())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the replica wants done.
async fn carry_out(sync: Arc<ObjectSync<Memory>>, mut outputs: UnboundedReceiver<Output>) {
    while let Some(output) = outputs.recv().await {
        let host = sync.host();
        match output {
            Output::Fetch { content, .. } => {
                let sync = Arc::clone(&sync);
                tokio::spawn(async move {
                    let mut bytes = Cursor::new(Vec::new());
                    let fetched = sync.fetch(content, &mut bytes).await;
                    sync.host().on(|folder, now, _| {
                        let fetched = fetched.map_err(|_| FetchError::Absent);
                        if fetched.is_ok() {
                            folder.kept.insert(content.hash, bytes.into_inner());
                        }
                        folder.replica.handle_fetched(now, content, fetched);
                    });
                });
            }
            Output::Install { id, items, .. } => host.on(|folder, now, _| {
                let done = folder.install(&items);
                folder.replica.handle_done(now, id, done);
            }),
            Output::Remove {
                id,
                path,
                expecting,
            } => host.on(|folder, now, _| {
                let done = folder.remove(&path, expecting);
                folder.replica.handle_done(now, id, done);
            }),
            Output::Keep { content, path } => host.on(|folder, now, _| {
                let bytes = folder.files.get(&path).cloned();
                let kept = bytes.ok_or_else(|| DiskError::Differs(path.clone()));
                let kept = kept.map(|bytes| drop(folder.kept.insert(content.hash, bytes)));
                folder.replica.handle_kept(now, content, kept);
            }),
            Output::Release(content) => {
                host.on(|folder, _, _| drop(folder.kept.remove(&content.hash)));
            }
            Output::Look(path) => host.look(&path),
            Output::Changed => sync.changed(),
            Output::Follow(_) => sync.follow(),
            Output::Record(_) | Output::Mark(_) | Output::Cancel(_) | Output::Unserve(_) | _ => {}
        }
    }
}

fn id(bytes: &[u8]) -> ContentId {
    ContentId {
        hash: ContentHash(*blake3::hash(bytes).as_bytes()),
        size: bytes.len() as u64,
    }
}

fn name(path: &str) -> FileName {
    FileName::from_wire(path.as_bytes()).unwrap()
}

/// The wall clock in microseconds.
fn wall() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_micros()).unwrap()
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not so in a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn files_come_to_be_the_same_at_all_nodes() {
    let server = S3::start();
    let (oslo, rome) = (Node::start("oslo", &server), Node::start("rome", &server));
    let kernel = vec![7; PART + 1];
    oslo.edit("boot/kernel", &kernel);
    rome.edit("boot/menu", b"one\n");
    let is_ready = async |node: &Node| node.says().await.0;
    eventually("both have both and are ready", async || {
        let files = oslo.files();
        files.len() == 2 && files == rome.files() && is_ready(&oslo).await && is_ready(&rome).await
    })
    .await;
    assert_eq!(rome.files()["boot/kernel"], kernel);
    rome.edit("boot/menu", b"two\n");
    oslo.delete("boot/kernel");
    let expected = BTreeMap::from([("boot/menu".to_owned(), b"two\n".to_vec())]);
    eventually("the edit and the deletion are everywhere", async || {
        oslo.files() == expected && rome.files() == expected
    })
    .await;
    // A node that comes late gets all, and a node that is told to look says what it did.
    let wien = Node::start("wien", &server);
    wien.sync.force().await.unwrap();
    eventually("the third has it", async || wien.files() == expected).await;
}

#[tokio::test]
async fn edits_that_did_not_know_of_each_other_are_both_kept() {
    let server = S3::start();
    let (oslo, rome) = (Node::start("oslo", &server), Node::start("rome", &server));
    oslo.edit("motd", b"from oslo");
    rome.edit("motd", b"from rome");
    eventually("both have both", async || {
        let files = oslo.files();
        files.len() == 2 && files == rome.files()
    })
    .await;
    let files = oslo.files();
    let (other, _) = files.iter().find(|(path, _)| *path != "motd").unwrap();
    assert!(other.starts_with("motd.conflict-"), "{other}");
    let mut contents: Vec<_> = files.values().collect();
    contents.sort();
    assert_eq!(contents, [b"from oslo", b"from rome"]);
}

#[tokio::test]
async fn many_who_write_at_once_lose_nothing() {
    let server = S3::start();
    write_at_once(&server.url).await;
}

#[tokio::test]
async fn without_conditions_files_are_late_and_not_lost() {
    let server = S3::start();
    let url = Proxy::without_conditions(&server).url;
    let bucket = ObjectStoreBackend::new(&settings(&url)).unwrap();
    let conditions = bucket.conditions(&"oslo".parse().unwrap()).await.unwrap();
    assert!(!conditions.if_match && !conditions.if_none_match);
    write_at_once(&url).await;
}

async fn write_at_once(url: &str) {
    let names = ["oslo", "rome", "wien"];
    let nodes = names.map(|name| Node::start_at(name, url));
    for number in 0..8 {
        for (node, name) in nodes.iter().zip(names) {
            node.edit(&format!("{name}-{number}"), name.as_bytes());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("all have all", async || {
        nodes.iter().all(|node| node.files().len() == 24)
    })
    .await;
}

#[tokio::test]
async fn an_empty_bucket_deletes_nothing_and_is_filled_again() {
    let server = S3::start();
    let (oslo, rome) = (Node::start("oslo", &server), Node::start("rome", &server));
    oslo.edit("a", b"1");
    oslo.edit("b", b"2");
    eventually("both have both", async || rome.files().len() == 2).await;
    let bucket = server.bucket();
    let found = async || bucket.get_manifest(None).await.unwrap();
    eventually("the manifest is there", async || {
        found().await != StoredManifest::Absent
    })
    .await;
    server.curl(&["-X", "DELETE"], "boot/sites/a/manifest");
    eventually("it is there again", async || {
        found().await != StoredManifest::Absent
    })
    .await;
    let object = format!("boot/sites/a/objects/{}", id(b"1").hash);
    server.curl(&["-X", "DELETE"], &object);
    oslo.sync.force().await.unwrap();
    assert!(bucket.has(id(b"1")).await.unwrap());
    assert_eq!(oslo.files().len(), 2);
    assert_eq!(rome.files(), oslo.files());
}

#[tokio::test]
async fn what_is_no_manifest_is_told_and_left_alone() {
    let server = S3::start();
    let bucket = server.bucket();
    let newer = b"anycast files 2\nsomething".to_vec();
    let put = bucket.put_manifest(newer.clone(), Replaces::Nothing).await;
    put.unwrap();
    let oslo = Node::start("oslo", &server);
    oslo.edit("a", b"1");
    eventually("it says so", async || {
        oslo.says().await.1.contains("is no manifest")
    })
    .await;
    let found = bucket.get_manifest(None).await.unwrap();
    assert!(matches!(found, StoredManifest::Found { bytes, .. } if bytes == newer));
}

#[tokio::test]
async fn a_node_that_is_cut_off_keeps_its_files_and_says_why() {
    let server = S3::start();
    let oslo = Node::start("oslo", &server);
    oslo.edit("a", b"1");
    eventually("it is ready", async || oslo.says().await.0).await;
    let url = server.url.clone();
    drop(server);
    eventually("it says why", async || oslo.says().await.1.contains(&url)).await;
    let (is_ready, why) = oslo.says().await;
    assert!(is_ready, "{why}");
    assert_eq!(oslo.files().len(), 1);
    let told = oslo.sync.force().await.unwrap_err();
    assert!(matches!(told, SyncError::Unreachable { .. }), "{told}");
}
