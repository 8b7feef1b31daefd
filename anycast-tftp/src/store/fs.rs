//! Files below one root folder, opened so that nothing leads out of it.
//!
//! The root is opened once; every name is resolved beneath that handle by the kernel
//! (`openat2` with `RESOLVE_BENEATH`, or component by component where the kernel lacks it).
//! Relative symbolic links that stay inside the root work; links that leave it are refused,
//! whoever swaps them at whatever moment. An absolute link is refused wherever it leads: it
//! begins outside. Moving another folder to the root's path has no effect
//! until a new store is opened.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{AtFlags, OFlags, Statx, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Content, CreateError, FileName, OpenError, ReadError, Store, Upload, WritePolicy};

mod shared;
mod upload;

/// Why a root folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the root folder {path} cannot be opened: {source}", path = path.display())]
pub struct RootError {
    /// The folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A store of the files below one folder.
///
/// - Only regular files can be read: FIFOs, devices, sockets and folders are refused without
///   being opened for reading, so none of them can hang a transfer.
/// - A file that is cut or rewritten in place while it is being sent ends its transfers;
///   replace files by renaming a new one into place, as this store itself does.
/// - Uploads are written to a hidden file (its name begins with
///   [`RESERVED_PREFIX`](super::RESERVED_PREFIX)) in the folder of their target, synced, and
///   renamed into place. What a crash left behind is removed at the first upload to that
///   folder. A symbolic link that is overwritten is replaced, not followed.
/// - Transfers of one version of a file share one file descriptor: a boot storm of thousands
///   of clients needs as many as there are files.
#[derive(Debug)]
pub struct FsStore {
    root: Dir,
    shared: Arc<shared::Shared>,
    swept: upload::Swept,
}

impl FsStore {
    /// Opens a root folder.
    ///
    /// # Errors
    /// [`RootError`] when the folder does not exist, is not a folder or may not be searched.
    pub fn open_root(path: &Path) -> Result<Self, RootError> {
        let failed = |source| RootError {
            path: path.to_owned(),
            source,
        };
        let root = Dir::open_ambient_dir(path, ambient_authority()).map_err(failed)?;
        // Opening a folder proves nothing about the right to look names up in it.
        root.metadata(".").map_err(failed)?;
        Ok(Self {
            root,
            shared: Arc::default(),
            swept: upload::Swept::default(),
        })
    }
}

#[cfg(feature = "sync")]
impl FsStore {
    /// A file that somebody else has opened, as a content of this store.
    pub(crate) fn adopt(&self, file: File) -> Result<Arc<FsContent>, OpenError> {
        let metadata = file.metadata().map_err(OpenError::Io)?;
        let version = Version::of(&metadata);
        if let Some(content) = self.shared.find(&version) {
            return Ok(content);
        }
        Ok(shared::Shared::insert(&self.shared, file, version))
    }
}

impl FsStore {
    /// As [`Store::open`], with the file behind it.
    pub(crate) fn open_file(&self, name: &FileName) -> Result<Arc<FsContent>, OpenError> {
        // Looking first keeps devices from being opened at all; the check on the open file
        // below is the one that counts.
        let found = self.root.metadata(name.as_str()).map_err(open_error)?;
        if !found.is_file() {
            return Err(OpenError::NotAFile);
        }
        if let Some(content) = self.shared.find(&Version::of_found(&found)) {
            return Ok(content);
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flag_bits(
            OFlags::NONBLOCK
                .union(OFlags::NOCTTY)
                .union(OFlags::CLOEXEC),
        ));
        let file = self
            .root
            .open_with(name.as_str(), &options)
            .map_err(open_error)?
            .into_std();
        let metadata = file.metadata().map_err(OpenError::Io)?;
        if !metadata.is_file() {
            return Err(OpenError::NotAFile);
        }
        let version = Version::of(&metadata);
        Ok(shared::Shared::insert(&self.shared, file, version))
    }
}

impl Store for FsStore {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        Ok(self.open_file(name)?)
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        upload::create(&self.root, &self.swept, name, policy)
    }
}

fn flag_bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn open_error(error: io::Error) -> OpenError {
    if is_missing(&error) {
        return OpenError::NotFound;
    }
    if is_forbidden(&error) {
        return OpenError::Denied;
    }
    if is_overload(&error) {
        return OpenError::Overloaded(error);
    }
    OpenError::Io(error)
}

/// Out of descriptors or memory, which passes.
fn is_overload(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)
    )
}

/// Nothing has that name.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

/// The file system refuses, the name leads out of the root, or its links run in a circle.
fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
        || Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// What tells one version of a file from the next, and one file from another while it is
/// open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Version {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn of_cached(found: &Statx) -> Self {
        Self {
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            size: found.stx_size,
            modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into()),
        }
    }

    fn of_found(metadata: &cap_std::fs::Metadata) -> Self {
        use cap_std::fs::MetadataExt as _;

        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// An open file of a folder.
#[derive(Debug)]
pub(crate) struct FsContent {
    file: File,
    version: Version,
    /// Cleared when the file system cannot say whether a read would wait (tmpfs, NFS, FUSE):
    /// then every read is left to threads that may.
    has_nowait: AtomicBool,
    shared: Arc<shared::Shared>,
}

impl Drop for FsContent {
    fn drop(&mut self) {
        self.shared.forget(&self.version);
    }
}

#[cfg(feature = "sync")]
impl FsContent {
    /// The open file.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is still the version that was opened.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        self.check_end(self.version.size, 0)
    }

    /// As above, without asking a disk or a server.
    pub(crate) fn check_cached(&self) -> Result<(), ReadError> {
        self.check_end_cached(self.version.size, 0)
    }
}

impl FsContent {
    /// The version is compared when the end is read: a transfer that mixes two versions
    /// never completes.
    fn check_end(&self, offset: u64, len: usize) -> Result<(), ReadError> {
        if offset.saturating_add(len as u64) < self.version.size {
            return Ok(());
        }
        let metadata = self.file.metadata().map_err(ReadError::Io)?;
        self.compare(&Version::of(&metadata))
    }

    /// As above, from what is known without asking a disk or a server.
    fn check_end_cached(&self, offset: u64, len: usize) -> Result<(), ReadError> {
        if offset.saturating_add(len as u64) < self.version.size {
            return Ok(());
        }
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        match rustix::fs::statx(&self.file, "", flags, StatxFlags::BASIC_STATS) {
            Ok(found) => self.compare(&Version::of_cached(&found)),
            // The thread that may wait asks in another way.
            Err(_) => Err(ReadError::WouldBlock),
        }
    }

    fn compare(&self, found: &Version) -> Result<(), ReadError> {
        if *found == self.version {
            Ok(())
        } else {
            Err(ReadError::Changed)
        }
    }

    fn read_cached(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let mut slices = [IoSliceMut::new(rest)];
            match rustix::io::preadv2(&self.file, &mut slices, at, ReadWriteFlags::NOWAIT) {
                // The end came early.
                Ok(0) => return Err(ReadError::Changed),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                // What fails is read, and fails, where waiting is allowed.
                Err(errno) => {
                    let can_say = !matches!(errno, Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS);
                    self.has_nowait.fetch_and(can_say, Ordering::Relaxed);
                    return Err(ReadError::WouldBlock);
                }
            }
        }
        Ok(())
    }
}

impl Content for FsContent {
    fn size(&self) -> u64 {
        self.version.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        match self.file.read_exact_at(buf, offset) {
            Ok(()) => self.check_end(offset, buf.len()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
            Err(error) => Err(ReadError::Io(error)),
        }
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if !self.has_nowait.load(Ordering::Relaxed) {
            return Err(ReadError::WouldBlock);
        }
        self.read_cached(offset, buf)?;
        self.check_end_cached(offset, buf.len())
    }
}

#[cfg(test)]
mod tests;
