//! Files on their way in: written beside their target under a reserved name, made visible
//! by one rename.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::super::{CreateError, FileName, RESERVED_PREFIX, Upload, WriteError, WritePolicy};

/// How often a free reserved name is looked for before giving up.
const NAME_ATTEMPTS: u32 = 64;

/// How many folders are remembered as swept; beyond that they are swept again.
const MAX_SWEPT: usize = 1024;

/// Numbers the uploads of this process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The folders in which leftovers were looked for already.
#[derive(Debug, Default)]
pub(super) struct Swept(Mutex<BTreeSet<String>>);

impl Swept {
    /// Removes what a crash left in a folder, once.
    ///
    /// A file that is being written is locked by its writer, in whatever process, and stays.
    fn sweep(&self, folder: &Dir, path: &str) {
        {
            let mut swept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.len() >= MAX_SWEPT {
                swept.clear();
            }
            if !swept.insert(path.to_owned()) {
                return;
            }
        }
        let Ok(entries) = folder.entries() else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_ours = name
                .to_str()
                .is_some_and(|name| name.starts_with(RESERVED_PREFIX));
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !is_ours || !is_file {
                continue;
            }
            let Ok(file) = entry.open() else { continue };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let removed = folder.remove_file(&name);
                tracing::info!(folder = path, name = ?name, ok = removed.is_ok(),
                    "removed an unfinished upload that an earlier run left behind");
            }
        }
    }
}

/// Begins an upload.
pub(super) fn create(
    root: &Dir,
    swept: &Swept,
    name: &FileName,
    policy: WritePolicy,
) -> Result<Box<dyn Upload>, CreateError> {
    if policy == WritePolicy::Off {
        return Err(CreateError::Denied);
    }
    let (path, target) = name.split();
    let path = path.unwrap_or(".");
    let folder = root.open_dir(path).map_err(folder_error)?;
    match folder.symlink_metadata(target) {
        Ok(_) if policy == WritePolicy::Create => return Err(CreateError::Exists),
        Ok(found) if !found.is_file() && !found.is_symlink() => return Err(CreateError::NotAFile),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(create_error(error)),
    }
    swept.sweep(&folder, path);
    let (file, hidden) = create_hidden(&folder)?;
    Ok(Box::new(FsUpload {
        folder,
        file,
        hidden: Some(hidden),
        target: target.to_owned(),
        policy,
    }))
}

/// Creates and locks a hidden file. The lock tells other processes that it is not a leftover.
fn create_hidden(folder: &Dir) -> Result<(File, String), CreateError> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(super::flag_bits(OFlags::CLOEXEC));
    let pid = std::process::id();
    for _ in 0..NAME_ATTEMPTS {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{RESERVED_PREFIX}{pid}-{serial}");
        let file = match folder.open_with(&name, &options) {
            Ok(file) => file.into_std(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(create_error(error)),
        };
        let is_locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // A sweeper may have taken it between its creation and its lock.
        let is_linked = file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        if is_locked && is_linked {
            return Ok((file, name));
        }
        let _ = folder.remove_file(&name);
    }
    Err(CreateError::Io(io::Error::other(
        "no free name for an upload",
    )))
}

fn folder_error(error: io::Error) -> CreateError {
    if super::is_missing(&error) {
        return CreateError::NoFolder;
    }
    create_error(error)
}

fn create_error(error: io::Error) -> CreateError {
    let is_read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
    // A name that is too long for the file system cannot be used either.
    if is_read_only || super::is_forbidden(&error) || super::is_missing(&error) {
        return CreateError::Denied;
    }
    if is_full(&error) {
        return CreateError::Full;
    }
    if super::is_overload(&error) {
        return CreateError::Overloaded(error);
    }
    CreateError::Io(error)
}

fn write_error(error: io::Error) -> WriteError {
    if is_full(&error) {
        return WriteError::Full;
    }
    if error.kind() == io::ErrorKind::AlreadyExists {
        return WriteError::Exists;
    }
    WriteError::Io(error)
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[derive(Debug)]
struct FsUpload {
    folder: Dir,
    file: File,
    /// The reserved name, until it is renamed away.
    hidden: Option<String>,
    target: String,
    policy: WritePolicy,
}

impl FsUpload {
    fn publish(&self, hidden: &str) -> io::Result<()> {
        if self.policy == WritePolicy::Overwrite {
            return self.folder.rename(hidden, &self.folder, &self.target);
        }
        let folder = &self.folder;
        let renamed =
            rustix::fs::renameat_with(folder, hidden, folder, &self.target, RenameFlags::NOREPLACE);
        match renamed {
            // File systems without this flag have hard links, which never replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(folder, hidden, folder, &self.target, AtFlags::empty())?;
                // The file is there. A second name that stays is swept by the next process.
                if let Err(error) = self.folder.remove_file(hidden) {
                    tracing::warn!(name = hidden, %error, "cannot remove the hidden name of an upload");
                }
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// The rename itself must survive a power cut.
    fn sync_folder(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.folder, ".", flags, Mode::empty())?;
        Ok(rustix::fs::fsync(folder)?)
    }
}

impl Upload for FsUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(write_error)
    }

    fn commit(mut self: Box<Self>) -> Result<(), WriteError> {
        self.file.sync_all().map_err(write_error)?;
        if let Some(hidden) = self.hidden.as_deref() {
            self.publish(hidden).map_err(write_error)?;
        }
        self.hidden = None;
        self.sync_folder().map_err(write_error)
    }
}

impl Drop for FsUpload {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden
            && let Err(error) = self.folder.remove_file(hidden)
        {
            tracing::warn!(name = %hidden, %error, "cannot remove an unfinished upload");
        }
    }
}
