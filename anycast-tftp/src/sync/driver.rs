//! File sync at one node: the [replica](super::replica) between the [folder](super::folder) and the
//! peers: those of the mesh, a bucket, or both.
//!
//! # Tasks
//!
//! | task | what it does |
//! |---|---|
//! | act | carries out what the replica decides: the log first, then the disk |
//! | [`look`] | scans the folder, and hears of changes from the kernel |
//! | [`follow`], one for each peer | asks for the peer's changes, and hears where it stands |
//! | [`serve`], one for each question | answers what peers ask |
//! | [`fetch`], and one for each batch | brings contents in |
//! | [`bucket`] | keeps a bucket of an S3-compatible store the same, where there is one |
//! | affinity | tells peers which generation of a group clients have begun with |
//!
//! The replica is behind a lock that nobody holds while a disk or a peer is waited for. All tasks end
//! when [`FileSync`] is dropped; what was being written is whole or absent then, and partial
//! contents are continued by the next start.
//!
//! # When it fails
//!
//! A disk that is full, a name that cannot be stored, a state that cannot be recorded: told in the
//! log and in the status, tried again, and the node is not ready meanwhile. It goes on serving. A
//! folder, a log or a configuration that cannot be used at the start is a [`StartError`].

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: disks, peers and the time of day"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anycast_core::mesh::transport::MeshHandle;
use anycast_core::mesh::transport::streams::{OpenError, Purpose, Receiver, Sender};
use anycast_core::service::NodeName;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use self::bucket::{Bucket, Keeper};
use self::fetch::Fetches;
use super::affinity::Affinity;
use super::content::ContentId;
use super::folder::log::{Log, LogError};
use super::folder::{Folder, FolderError};
use super::replica::{Config, ConfigError, Counts, FetchError, Replica, Restore, RootId, Start};
use crate::store::FsStore;
use crate::store::fs::RootError;

mod act;
mod ask;
#[cfg(feature = "object-store")]
mod bucket;
mod fetch;
mod follow;
mod identified;
mod look;
mod serve;
mod status;
mod store;
mod through;

#[cfg(not(feature = "object-store"))]
#[path = "driver/no_bucket.rs"]
mod bucket;

#[cfg(feature = "object-store")]
pub use bucket::BucketConfig;
pub use status::{Details, PeerDiff};
pub use store::SyncStore;

/// Streams about files that one peer may have open at once: one that follows, the batches it
/// fetches, and what is read through.
const STREAMS: usize = 16;
/// Contents of which recipes or trees are made at once.
const MAKERS: usize = 1;
/// The log is written anew when it is twice as long as after the last time, and longer than this.
const COMPACT_ABOVE: u64 = 4 << 20;
/// What is handed to the log at once.
const RECORD: usize = 128 << 10;

/// What to sync. [`FileSyncConfig::new`] has the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileSyncConfig {
    /// How the replica behaves; its peers are those of the mesh.
    pub replica: Config,
    /// The folder that holds the files, and that clients are served from.
    pub root: PathBuf,
    /// Where the state is kept; of this node alone, and not below `root`.
    pub state: PathBuf,
    /// Between two scans of the whole folder. Default 1 min.
    pub rescan: Duration,
    /// A bucket that has the files too. Default none.
    #[cfg(feature = "object-store")]
    pub bucket: Option<BucketConfig>,
}

impl FileSyncConfig {
    /// The defaults.
    #[must_use]
    pub fn new(replica: Config, root: PathBuf, state: PathBuf) -> Self {
        Self {
            replica,
            root,
            state,
            rescan: Duration::from_secs(60),
            #[cfg(feature = "object-store")]
            bucket: None,
        }
    }
}

/// Why file sync does not start. Nothing was changed but for hidden folders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration of the replica.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store over it.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log is whole, and what it says is not.
    #[error(
        "{path}: what it says cannot be read; move it away: this copy then counts as new, and \
         nothing is lost or deleted",
        path = path.display()
    )]
    State {
        /// The log.
        path: PathBuf,
    },
    /// The bucket.
    #[cfg(feature = "object-store")]
    #[error(transparent)]
    Bucket(#[from] super::object::ObjectError),
    /// The bucket is called like a node.
    #[cfg(feature = "object-store")]
    #[error("{0} is a node's name; call the bucket something else")]
    BucketName(NodeName),
    /// The runtime shuts down.
    #[error("file sync did not start: the process stops")]
    Stopped,
}

/// A running file sync. Dropped, it ends; its folder can be synced again once what was being read or
/// written then has come to an end, and its [store](FileSync::store) is dropped as well.
pub struct FileSync {
    shared: Arc<Shared>,
    store: Arc<SyncStore>,
    bucket: Option<Keeper>,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for FileSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileSync({})", self.shared.folder.path().display())
    }
}

/// What the tasks have in common.
pub(super) struct Shared {
    replica: Mutex<Replica>,
    folder: Folder,
    mesh: Option<MeshHandle>,
    bucket: Option<Bucket>,
    runtime: Handle,
    fetches: Fetches,
    affinity: Mutex<Affinity>,
    /// There are notices to be told.
    noticed: Notify,
    /// Something for the replica's outputs or timers.
    wake: Notify,
    /// Counts what followers may be told.
    changed: watch::Sender<u64>,
    /// Something to look at in the folder.
    look: Notify,
    /// Paths that the replica wants looked at.
    looks: Mutex<BTreeSet<String>>,
    /// Files that were being written.
    busy: Mutex<BTreeSet<String>>,
    /// Files that are to be hashed once more, when their times tell.
    doubtful: Mutex<BTreeSet<String>>,
    /// What the folder has that cannot be synced: each, how many links, how many more.
    unsynced: Mutex<(Vec<String>, usize, usize)>,
    rescan_time: Mutex<Option<Duration>>,
    follows: BTreeMap<NodeName, Notify>,
    /// What had been done when all agreed for the last time.
    agreed: Mutex<Counts>,
    makers: Semaphore,
    /// Contents that are read through.
    remotes: Arc<Semaphore>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({})", self.folder.path().display())
    }
}

impl Shared {
    fn replica(&self) -> MutexGuard<'_, Replica> {
        lock(&self.replica)
    }

    fn affinity(&self) -> MutexGuard<'_, Affinity> {
        lock(&self.affinity)
    }

    /// Tells the replica something; what comes of it is carried out.
    fn with<T>(&self, tell: impl FnOnce(&mut Replica) -> T) -> T {
        let told = tell(&mut self.replica());
        self.wake.notify_one();
        told
    }

    /// Tells how fetches ended.
    fn fetched(&self, ended: Vec<(ContentId, Result<(), FetchError>)>) {
        if ended.is_empty() {
            return;
        }
        let now = Instant::now();
        self.with(|replica| {
            for (content, result) in ended {
                if let Err(error) = &result {
                    tracing::debug!(content = %content.hash, %error, "a content was not fetched");
                }
                replica.handle_fetched(now, content, result);
            }
        });
    }

    /// Whether a peer may be asked. A bucket may, and then shows whether it answers.
    fn is_up(&self, peer: &NodeName) -> bool {
        let mesh = self.mesh.as_ref();
        mesh.is_some_and(|mesh| mesh.is_up(peer)) || self.is_bucket(peer)
    }

    fn is_bucket(&self, peer: &NodeName) -> bool {
        self.bucket_called(peer).is_some()
    }

    fn bucket_called(&self, peer: &NodeName) -> Option<&Bucket> {
        self.bucket.as_ref().filter(|bucket| bucket.is(peer))
    }

    async fn stream_to(&self, peer: &NodeName) -> Result<(Sender, Receiver), OpenError> {
        match &self.mesh {
            Some(mesh) => mesh.open(peer, Purpose::Files).await,
            None => Err(OpenError::Down(peer.clone())),
        }
    }

    fn follows(&self, peer: &NodeName) -> &Notify {
        // There is one for each peer that is followed.
        self.follows.get(peer).unwrap_or(&self.look)
    }

    fn take_looks(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.looks))
            .into_iter()
            .collect()
    }

    fn take_busy(&self) -> BTreeSet<String> {
        std::mem::take(&mut *lock(&self.busy))
    }
}

impl FileSync {
    /// Opens the folder and the state, and begins. Must be called within a tokio runtime. Cancelled,
    /// it has not begun.
    ///
    /// Without a mesh its peers are never up, and the files come and go by the bucket alone.
    ///
    /// # Errors
    /// [`StartError`]; a peer or a bucket that is not there is none.
    pub async fn start(
        mut config: FileSyncConfig,
        mesh: impl Into<Option<MeshHandle>>,
    ) -> Result<Self, StartError> {
        let mesh = mesh.into();
        let rescan = config.rescan;
        let nodes = config.replica.peers.clone();
        let bucket = bucket::prepare(&mut config)?;
        let peers = config.replica.peers.clone();
        let opened = tokio::task::spawn_blocking(move || open(config)).await;
        let Opened {
            replica,
            folder,
            log,
            store,
        } = opened.map_err(|_| StartError::Stopped)??;
        let hold = replica.config().hold;
        let follows = peers.iter().map(|peer| (peer.clone(), Notify::new()));
        let shared = Arc::new(Shared {
            folder,
            runtime: Handle::current(),
            fetches: Fetches::default(),
            affinity: Mutex::new(Affinity::new(hold)),
            noticed: Notify::new(),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
            look: Notify::new(),
            looks: Mutex::default(),
            busy: Mutex::default(),
            doubtful: Mutex::default(),
            unsynced: Mutex::default(),
            rescan_time: Mutex::default(),
            follows: follows.collect(),
            agreed: Mutex::default(),
            makers: Semaphore::new(MAKERS),
            remotes: Arc::new(Semaphore::new(through::MAX_OPEN)),
            replica: Mutex::new(replica),
            mesh,
            bucket,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(act::act(Arc::clone(&shared), log));
        tasks.spawn(look::look(Arc::clone(&shared), rescan));
        tasks.spawn(fetch::run(Arc::clone(&shared)));
        tasks.spawn(follow::tell_affinity(Arc::clone(&shared), nodes.clone()));
        if let Some(mesh) = &shared.mesh {
            let incoming = mesh.accept(Purpose::Files, STREAMS);
            tasks.spawn(serve::serve(Arc::clone(&shared), incoming));
            for node in nodes {
                tasks.spawn(follow::follow(Arc::clone(&shared), mesh.clone(), node));
            }
        }
        let bucket = Keeper::start(&shared, &mut tasks);
        let store = Arc::new(SyncStore::new(Arc::clone(&shared), store));
        Ok(Self {
            shared,
            store,
            bucket,
            _tasks: tasks,
        })
    }

    /// The files, for a server. It goes on serving what is here when this is dropped.
    #[must_use]
    pub fn store(&self) -> Arc<SyncStore> {
        Arc::clone(&self.store)
    }
}

struct Opened {
    replica: Replica,
    folder: Folder,
    log: Log,
    store: FsStore,
}

fn open(config: FileSyncConfig) -> Result<Opened, StartError> {
    let folder = Folder::open(&config.root, &config.state)?;
    let store = FsStore::open_root(&config.root)?;
    let path = config.state.join("log");
    let start = Start {
        now: Instant::now(),
        wall: wall(),
        epoch: random(),
        incarnation: random(),
    };
    let mut restore = Restore::new(config.replica, start)?;
    let (log, recovered) = Log::open(&path, &mut |record| restore.handle_bytes(record))?;
    let (mut replica, restored) = restore.finish();
    // The log proves each record, so nothing of it is torn that it has not cut off.
    if restored.is_torn {
        return Err(StartError::State { path });
    }
    if recovered.torn > 0 {
        let bytes = recovered.torn;
        tracing::warn!(path = %path.display(), bytes, "the last write of the state was not finished; it was cut off");
    }
    for object in folder.objects().unwrap_or_default() {
        replica.handle_kept(start.now, object, Ok(()));
    }
    tracing::info!(
        root = %config.root.display(),
        entries = replica.manifest().len(),
        files = folder.files(),
        "syncing files"
    );
    Ok(Opened {
        replica,
        folder,
        log,
        store,
    })
}

/// In microseconds since 1970.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// The marker's bytes as the replica has them.
fn marker_of(id: super::folder::RootId) -> RootId {
    let [a, b, c, d, e, f, g, h, ..] = id;
    RootId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

fn id_of(marker: RootId) -> super::folder::RootId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&marker.0.to_be_bytes());
    id
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic leaves it half changed but a fault of ours, and then serving goes on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
