//! The folder of files at one node: everything that touches the disk.
//!
//! It knows paths ([`FileName`]) and contents ([`ContentId`]), and nothing of versions.
//!
//! # Contract
//!
//! - All calls may block on the disk; none waits for another node. All take `&self` and may be made
//!   from several threads; of scans one runs at a time.
//! - Nothing is opened, created or removed through a symbolic link: nothing leads out of the root,
//!   whatever is swapped meanwhile. Links, devices and FIFOs below the root are told and left alone.
//! - What is on the disk and is not what the caller [expects](Put::expecting) is never replaced or
//!   removed: it is an edit that has to be looked at first ([`InstallError::Changed`]).
//! - A path never has a part of a content. A content is on the disk before it has a path, and a path
//!   is on the disk before [`Prepared::commit`] says so.
//! - A crash at any moment leaves every path with its old content or its new one. What it leaves in
//!   the hidden folder is used again or removed by [`Folder::open`], [`Folder::release`] and [`Folder::sweep_staging`].
//!
//! # The hidden folder
//!
//! `<root>/.anycast-tftp-sync/`, which no client can read and no scan enters:
//!
//! | name | what it is |
//! |---|---|
//! | `objects/<hash>` | contents that are on the disk and have no path, or must outlive it |
//! | `staging/<hash>` | contents of which a part is here |
//! | `root-id` | which copy this is: it tells another disk from an emptied folder |
//! | `clock` | an empty file that asks the file system for its time |

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use self::lock::Locked;
use super::content::ContentId;
use crate::store::{FileName, RESERVED_PREFIX};

mod batch;
mod cache;
mod direct;
mod disk;
mod hashing;
mod identify;
mod install;
mod lock;
pub mod log;
mod objects;
mod parents;
mod report;
mod save;
mod scan;
mod stage;
mod watch;

pub use identify::{DOUBT, SMALL};
pub use install::{InstallError, Prepared, Put, Removal};
pub use objects::{Held, ObjectError, Swept};
pub use report::{
    Found, MAX_TROUBLES, ScanError, ScanOptions, ScanReport, Scope, Trouble, TroubleKind,
};
pub use stage::{Stage, StageError, Staged};
pub use watch::{Changes, MAX_PENDING, WatchError};

/// The hidden folder's name.
pub const HIDDEN: &str = ".anycast-tftp-sync";

/// The marker in the hidden folder.
const MARKER: &str = "root-id";

const _: () = assert!(
    HIDDEN.len() > RESERVED_PREFIX.len(),
    "the hidden folder is out of the reach of clients"
);

/// Which copy of the files this is: drawn at random when the copy begins.
pub type RootId = [u8; 16];

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It, or the hidden folder in it, cannot be opened or made.
    #[error("the folder {path} cannot be used: {source}", path = path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process syncs it, or uses the same state.
    #[error("the folder {path} is in use by another process", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The marker is there and is none of ours.
    #[error("{path} is not a marker of file sync; move it away, this copy then counts as new",
        path = path.display())]
    BadMarker {
        /// The marker.
        path: PathBuf,
    },
    /// The marker could not be written.
    #[error("{path} cannot be written: {source}", path = path.display())]
    Mark {
        /// The marker.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The files below one root, and what is kept beside them.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    root: OwnedFd,
    hidden: OwnedFd,
    objects: OwnedFd,
    staging: OwnedFd,
    clock: Locked,
    state: PathBuf,
    ignores_case: bool,
    /// What is at each path. Held while a name is looked at or changed, never while a file is read.
    cache: Mutex<cache::Cache>,
    known: Mutex<objects::Known>,
    /// Held by the scan that runs.
    scanning: Mutex<()>,
    watch: Mutex<Option<watch::Watch>>,
    /// Locked, so that no other process uses the same state.
    _lock: Locked,
}

impl Folder {
    /// Opens the folder `root`, which must exist, and `state_dir`, which is created: what is at each
    /// path is remembered there between runs, so that a restart hashes only what changed.
    ///
    /// What a crash left half done is removed. Partial contents are kept, to be continued.
    ///
    /// # Errors
    /// [`FolderError`]; nothing but the hidden folder has been created.
    pub fn open(root: &Path, state_dir: &Path) -> Result<Self, FolderError> {
        let failed = |source: io::Error| FolderError::Open {
            path: root.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root_fd =
            rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let made = |parent: &OwnedFd, name: &str| -> Result<OwnedFd, FolderError> {
            disk::make_folder(parent, name)
                .and_then(|_| disk::open_folder(parent, name))
                .map_err(|errno| failed(errno.into()))
        };
        let hidden = made(&root_fd, HIDDEN)?;
        let objects = made(&hidden, "objects")?;
        let staging = made(&hidden, "staging")?;
        let clock = disk::create_file(&hidden, "clock").map_err(|errno| failed(errno.into()))?;
        let lock = lock_state(root, state_dir)?;
        let clock = Locked::new(clock).ok_or_else(|| FolderError::InUse {
            path: root.to_owned(),
        })?;
        let ignores_case = disk::look(&hidden, "CLOCK").is_ok();
        let folder = Self {
            path: root.to_owned(),
            root: root_fd,
            hidden,
            objects,
            staging,
            clock,
            state: state_dir.to_owned(),
            ignores_case,
            cache: Mutex::default(),
            known: Mutex::default(),
            scanning: Mutex::new(()),
            watch: Mutex::default(),
            _lock: lock,
        };
        folder.read_marker()?;
        folder.load();
        folder.sweep_leftovers();
        Ok(folder)
    }

    /// The folder that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file system takes `Boot` and `boot` for one name: files whose names differ in
    /// case alone cannot both be here.
    #[must_use]
    pub fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// Which copy this is, as the marker says now. None where there is no marker: a new copy, or one
    /// whose files were lost.
    ///
    /// # Errors
    /// [`FolderError`] when there is a marker that cannot be read.
    pub fn marker(&self) -> Result<Option<RootId>, FolderError> {
        self.read_marker()
    }

    fn read_marker(&self) -> Result<Option<RootId>, FolderError> {
        let path = || self.path.join(HIDDEN).join(MARKER);
        let read = || -> Result<Option<String>, io::Error> {
            let mut file = match disk::open_file(&self.hidden, MARKER) {
                Ok((file, _)) => file.take(64),
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(Some(String::from_utf8_lossy(&text).into_owned()))
        };
        let text = read().map_err(|source| FolderError::Open {
            path: path(),
            source,
        })?;
        let Some(text) = text else { return Ok(None) };
        let id = objects::from_hex(text.trim_end());
        id.map(Some)
            .ok_or_else(|| FolderError::BadMarker { path: path() })
    }

    /// Writes the marker, durably.
    ///
    /// # Errors
    /// [`FolderError::Mark`]; the old marker or none is there then.
    pub fn mark(&self, id: &RootId) -> Result<(), FolderError> {
        let temporary = "root-id.new";
        let write = || -> Result<(), io::Error> {
            let mut file = disk::create_file(&self.hidden, temporary)?;
            file.set_len(0)?;
            file.write_all(objects::to_hex(id).as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            rustix::fs::renameat(&self.hidden, temporary, &self.hidden, MARKER)?;
            rustix::fs::fsync(&self.hidden)?;
            // The hidden folder's own name, which `open` may have just made.
            Ok(rustix::fs::fsync(&self.root)?)
        };
        write().map_err(|source| FolderError::Mark {
            path: self.path.join(HIDDEN).join(MARKER),
            source,
        })
    }

    /// What is at a path, as the last scan or install saw it.
    #[must_use]
    pub fn content_at(&self, name: &FileName) -> Option<ContentId> {
        self.cache().content(name.as_str())
    }

    /// How many files there are, as the last scan or install saw it.
    #[must_use]
    pub fn files(&self) -> usize {
        self.cache().len()
    }

    /// Removes what a crash left of an install: temporary names. Nothing refers to them.
    fn sweep_leftovers(&self) {
        for name in objects::names(&self.staging).unwrap_or_default() {
            if name.starts_with(install::TEMPORARY) {
                let _ = rustix::fs::unlinkat(&self.staging, &name, AtFlags::empty());
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, cache::Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, objects::Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock_state(root: &Path, state_dir: &Path) -> Result<Locked, FolderError> {
    let failed = |source| FolderError::Open {
        path: state_dir.to_owned(),
        source,
    };
    std::fs::create_dir_all(state_dir).map_err(failed)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let lock = options.open(state_dir.join("lock")).map_err(failed)?;
    Locked::new(lock).ok_or_else(|| FolderError::InUse {
        path: root.to_owned(),
    })
}

/// Shared by the folder and the thread that listens to the kernel.
type Shared<T> = Arc<Mutex<T>>;

#[cfg(test)]
mod tests;
