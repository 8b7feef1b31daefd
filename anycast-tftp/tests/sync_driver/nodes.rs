//! Nodes in this process: a mesh on the loopback, a folder, and file sync between them; and peers with
//! a good key that say whatever a test wants them to.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anycast_core::mesh::identity::{Fingerprint, Identity};
use anycast_core::mesh::transport::{
    Mesh, MeshConfig, MeshError, PeerConfig, Purpose, Receiver, Sender,
};
use anycast_core::service::NodeName;
use anycast_labs::logged::Logged;
use anycast_tftp::store::FileName;
use anycast_tftp::sync::content::{ContentHash, ContentId};
use anycast_tftp::sync::driver::{FileSync, FileSyncConfig, StartError};
use anycast_tftp::sync::folder::FolderError;
use anycast_tftp::sync::manifest::{Digest, Dot, Entry, Key, Version, Writer};
use anycast_tftp::sync::replica::Config;
use anycast_tftp::sync::wire::{Head, MAX_FRAME, Message, Page, ReadHead, ReadItem, ReadStatus};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn file(path: &str) -> FileName {
    FileName::from_wire(path.as_bytes()).unwrap()
}

pub(crate) fn content(bytes: &[u8]) -> ContentId {
    ContentId {
        hash: ContentHash(*blake3::hash(bytes).as_bytes()),
        size: bytes.len() as u64,
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// What this process has logged so far.
pub(crate) fn logged() -> Logged {
    static LOGGED: OnceLock<Logged> = OnceLock::new();
    let logged = LOGGED.get_or_init(|| {
        let logged = Logged::new("anycast_tftp", tracing::Level::WARN);
        tracing::subscriber::set_global_default(logged.clone()).unwrap();
        logged
    });
    logged.clone()
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Somebody in the mesh: its key and where it listens.
pub(crate) struct Member {
    pub(crate) name: NodeName,
    pub(crate) address: SocketAddr,
    fingerprint: Fingerprint,
    folder: tempfile::TempDir,
}

/// As many as are named; each knows all others.
pub(crate) fn members(names: &[&str]) -> Vec<Member> {
    logged();
    let member = |one: &&str| {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::generate().unwrap();
        identity.save_new(&folder.path().join("key")).unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        Member {
            name: name(one),
            address: socket.local_addr().unwrap(),
            fingerprint: identity.fingerprint(),
            folder,
        }
    };
    names.iter().map(member).collect()
}

impl Member {
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Takes part in the mesh.
    pub(crate) async fn join(&self, all: &[Self]) -> Mesh {
        let peer = |other: &Self| PeerConfig {
            name: other.name.clone(),
            address: other.address,
            fingerprints: vec![other.fingerprint],
        };
        let others = all.iter().filter(|other| other.name != self.name);
        let peers: Vec<_> = others.map(peer).collect();
        let end = Instant::now() + PATIENCE;
        loop {
            let started = Mesh::start(MeshConfig {
                name: self.name.clone(),
                listen: self.address,
                identity: Identity::load(&self.folder.path().join("key")).unwrap(),
                peers: peers.clone(),
            });
            match started {
                Ok(mesh) => return mesh,
                // The socket of the one before is still closing.
                Err(MeshError::Listen { .. }) if Instant::now() < end => {
                    sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn config(&self, all: &[Self]) -> Config {
        let others = all.iter().map(|other| other.name.clone());
        let peers = others.filter(|other| *other != self.name).collect();
        let mut config = Config::new(self.name.clone(), peers);
        config.quiet = Duration::from_millis(200);
        config.settle = Duration::from_millis(200);
        config.retry_least = Duration::from_millis(100);
        config
    }

    /// Begins to sync; what an earlier one of this process was at comes to an end first.
    pub(crate) async fn sync(&self, mesh: &Mesh, config: Config) -> FileSync {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut sync = FileSyncConfig::new(config.clone(), self.root(), self.state());
            sync.rescan = Duration::from_secs(3600);
            let started = FileSync::start(sync, mesh.handle());
            match started.await {
                Ok(sync) => return sync,
                Err(StartError::Folder(FolderError::InUse { .. })) if Instant::now() < end => {
                    sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// An honest node that runs.
pub(crate) struct Node {
    pub(crate) root: PathBuf,
    pub(crate) sync: FileSync,
    pub(crate) mesh: Mesh,
}

impl Node {
    pub(crate) async fn start(member: &Member, all: &[Member]) -> Self {
        Self::with(member, all, member.config(all)).await
    }

    pub(crate) async fn with(member: &Member, all: &[Member], config: Config) -> Self {
        let mesh = member.join(all).await;
        let sync = member.sync(&mesh, config).await;
        let root = member.root();
        Self { root, sync, mesh }
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        write(&self.root, path, bytes);
    }

    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(path)).ok()
    }

    pub(crate) async fn has(&self, path: &str, bytes: &[u8]) {
        let mut end = Instant::now();
        end += PATIENCE;
        while self.read(path).as_deref() != Some(bytes) {
            let says = || format!("{:#?}\n{:#?}", self.sync.now(), self.sync.details());
            assert!(Instant::now() < end, "{path} does not come\n{}", says());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// As a careful program does.
pub(crate) fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Not below the root: a name that is there for a moment may be synced, and counts as deleted then.
    let new = root.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

/// A peer with a good key. What it answers to each question is up to the test.
pub(crate) struct Peer {
    pub(crate) mesh: Mesh,
    _tasks: JoinSet<()>,
}

impl Peer {
    pub(crate) async fn start<F, A>(member: &Member, all: &[Member], answer: F) -> Self
    where
        F: Fn(Message, Sender, Receiver) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let mesh = member.join(all).await;
        let mut incoming = mesh.accept(Purpose::Files, 16);
        let answer = Arc::new(answer);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Some((_, sender, mut receiver)) = incoming.next().await {
                let answer = Arc::clone(&answer);
                streams.spawn(async move {
                    let Ok(Some(frame)) = receiver.read_frame(MAX_FRAME, PATIENCE).await else {
                        return;
                    };
                    let Ok(Some(question)) = Message::decode(&frame) else {
                        return;
                    };
                    answer(question, sender, receiver).await;
                });
            }
        });
        Self {
            mesh,
            _tasks: tasks,
        }
    }
}

/// An entry that this node wrote.
pub(crate) fn entry(node: &str, path: &str, counter: u64, content: ContentId) -> (Key, Entry) {
    let mut entry = Entry::default();
    let writer = Writer {
        node: name(node),
        incarnation: 7,
    };
    entry.write(Dot { writer, counter }, Version::File(content));
    (Key::File(file(path)), entry)
}

/// One page with these entries: all that there is in this epoch.
pub(crate) fn page(epoch: u64, entries: Vec<(Key, Entry)>) -> Page {
    Page {
        epoch,
        after: 0,
        upto: entries.len() as u64,
        entries,
    }
}

/// Tells a page and then, for ever, that this is all.
pub(crate) async fn tell(mut sender: Sender, page: Page) {
    let head = Head {
        epoch: page.epoch,
        seq: page.upto,
        digest: Digest(1),
        files: page.entries.len() as u64,
        missing: 0,
    };
    let frames = [Message::Page(page), Message::Head(head)];
    for frame in frames {
        if sender.write_all(&frame.encode().unwrap()).await.is_err() {
            return;
        }
    }
    loop {
        sleep(Duration::from_secs(1)).await;
        let frame = Message::Head(head).encode().unwrap();
        if sender.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// Says that so many bytes come.
pub(crate) async fn here(sender: &mut Sender, length: u64) {
    let status = ReadStatus::Here;
    let head = ReadHead { status, length }.encode();
    let _ = sender.write_all(&head).await;
}

/// That it is not there.
pub(crate) async fn absent(mut sender: Sender) {
    let (status, length) = (ReadStatus::Absent, 0);
    let head = ReadHead { status, length }.encode();
    let _ = sender.write_all(&head).await;
    let _ = sender.finish();
}

/// The part that was asked for.
pub(crate) async fn give(mut sender: Sender, items: &[ReadItem], bytes: &[u8]) {
    for item in items {
        here(&mut sender, item.length).await;
        let start = usize::try_from(item.offset).unwrap();
        let end = start + usize::try_from(item.length).unwrap();
        let _ = sender.write_all(&bytes[start..end]).await;
    }
    let _ = sender.finish();
}

/// An answer that is made of a whole content.
pub(crate) async fn give_made(mut sender: Sender, bytes: &[u8]) {
    here(&mut sender, bytes.len() as u64).await;
    let _ = sender.write_all(bytes).await;
    let _ = sender.finish();
}

/// How often something was logged of a peer.
pub(crate) fn told(peer: &str, what: &str) -> usize {
    let peer = format!("peer={peer} ");
    let lines = logged().lines();
    let told = |line: &&String| line.contains(&peer) && line.contains(what);
    lines.iter().filter(told).count()
}
