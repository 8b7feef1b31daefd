//! What the rest of the folder asks the kernel: folders opened without following a link, and what
//! tells one version of a file from the next.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// What a file system may round times to (FAT: 2 s), in nanoseconds.
pub(super) const GRANULARITY: i64 = 2_000_000_000;
/// What the clock of a file system with fine times may lag behind, in nanoseconds.
pub(super) const TICK: i64 = 20_000_000;

/// Opens a folder below another, component by component: no link is followed, so nothing leads out
/// whatever is swapped meanwhile. An empty path is the folder itself.
pub(super) fn open_folder(root: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let mut folder = open_one(root, ".")?;
    for component in path.split('/').filter(|part| !part.is_empty()) {
        folder = open_one(&folder, component)?;
    }
    Ok(folder)
}

fn open_one(folder: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// Opens a regular file for reading; what is not one is refused without waiting for its other end.
pub(super) fn open_file(folder: impl AsFd, name: &str) -> Result<(File, Stamp), Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if !is_file(&found) {
        return Err(Errno::INVAL);
    }
    Ok((file.into(), Stamp::of(&found)))
}

pub(super) fn create_file(folder: impl AsFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644))?.into())
}

/// Looks at a name without following it.
pub(super) fn look(folder: impl AsFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn is_file(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
}

pub(super) fn is_folder(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
}

/// Nothing that we would sync is there: no such name, or a link or file where a folder was.
pub(super) fn is_not_there(errno: Errno) -> bool {
    is_missing(errno) || errno == Errno::LOOP
}

/// Nothing has that name.
pub(super) fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

pub(super) fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

pub(super) fn is_denied(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM | Errno::ROFS)
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Makes a folder, unless it is there.
pub(super) fn make_folder(parent: impl AsFd, name: &str) -> Result<bool, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The time as the file system's own clock has it: a server's may differ from ours.
pub(super) fn clock(probe: &File) -> Result<i64, Errno> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::futimens(probe, &times)?;
    Ok(Stamp::of(&rustix::fs::fstat(probe)?).modified)
}

/// What tells one version of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
    /// Nanoseconds since 1970; also changed by renaming and linking.
    pub(super) changed: i64,
}

impl Stamp {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_wrap,
        clippy::cast_lossless,
        reason = "the types of these fields differ between architectures"
    )]
    pub(super) fn of(found: &Stat) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000) + nanos;
        Self {
            device: found.st_dev,
            inode: found.st_ino,
            size: u64::try_from(found.st_size).unwrap_or(0),
            modified: nanos(found.st_mtime as i64, found.st_mtime_nsec as i64),
            changed: nanos(found.st_ctime as i64, found.st_ctime_nsec as i64),
        }
    }

    /// The same version, though it was linked or renamed since.
    pub(super) fn is_moved(&self, other: &Self) -> bool {
        (self.device, self.inode, self.size, self.modified)
            == (other.device, other.inode, other.size, other.modified)
    }

    /// All of it in 64 bits, of which the lowest two are clear.
    pub(super) fn print(&self) -> u64 {
        let mut bytes = [0; 40];
        let fields = [
            self.device,
            self.inode,
            self.size,
            self.modified.cast_unsigned(),
            self.changed.cast_unsigned(),
        ];
        for (to, from) in bytes.chunks_exact_mut(8).zip(fields) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        let hash = blake3::hash(&bytes);
        let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first) & !3
    }
}
