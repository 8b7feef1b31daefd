//! Putting contents at paths, and taking them away.
//!
//! A file that is replaced is exchanged with the new one, in one step of the kernel, and what came
//! out is looked at: where it is not what was expected, the two are exchanged back. So an edit that
//! was made in the last instant is not lost either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::batch::{Batch, check, discard};
use super::disk;
use super::objects::{split, to_hex};
use super::parents::{self, Parents};
use super::{Folder, Held, ObjectError, hashing, stage};
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};

/// What temporary names in `staging` begin with.
pub(super) const TEMPORARY: &str = "temporary-";

/// What temporary names beside their target begin with: below a mount point.
pub(super) const BESIDE: &str = ".anycast-tftp-install-";

/// More folders than this are made durable by one `syncfs`.
pub(super) const SYNCFS_ABOVE: usize = 32;

/// Copies that are open at a time.
const OPEN_COPIES: usize = 64;

/// Numbers the temporary names of this process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A content that is to have a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The path.
    pub name: FileName,
    /// The content, which must be [here](Folder::has_content).
    pub content: ContentId,
    /// What is at the path now, as the caller knows; None: nothing.
    pub expecting: Option<ContentId>,
    /// Whether what is replaced stays readable by its hash.
    pub keeps_old: bool,
    /// Whether the new content stays readable by its hash when the path is changed in place.
    pub keeps_new: bool,
}

/// A path that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The path.
    pub name: FileName,
    /// What is there now, as the caller knows.
    pub expecting: ContentId,
    /// Whether it stays readable by its hash.
    pub keeps_old: bool,
}

/// Why a path did not get its content, or was not removed. It is as it was, but for
/// [`Unsynced`](Self::Unsynced).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Something else is there than the caller expects. To be scanned first.
    #[error("{0} was changed here meanwhile")]
    Changed(FileName),
    /// The content is not here.
    #[error("the content {hash} of {name} is not here")]
    NoContent {
        /// The path.
        name: FileName,
        /// The content.
        hash: ContentHash,
    },
    /// A part of the path is no folder: a file, or a symbolic link.
    #[error("{name} cannot be stored: {at} is not a folder; remove or rename one of the two")]
    FileInTheWay {
        /// The path.
        name: FileName,
        /// The part of it.
        at: String,
    },
    /// There is a folder of that name, and it is not empty.
    #[error(
        "{0} cannot be stored: there is a folder of that name; remove or rename one of the two"
    )]
    FolderInTheWay(FileName),
    /// There is a link, device, FIFO or socket of that name.
    #[error("{0} cannot be stored: something of that name is not a file")]
    NotAFile(FileName),
    /// The file system ignores case, and a file of this name in another spelling is there.
    #[error("{name} cannot be stored: to this file system it is the same name as {other}")]
    SameName {
        /// The path.
        name: FileName,
        /// The other's own name.
        other: String,
    },
    /// The file system has no names as long as this.
    #[error("{0} cannot be stored: the name is too long for this file system")]
    NameTooLong(FileName),
    /// The disk or a quota is full.
    #[error("no space left to store {0}")]
    Full(FileName),
    /// The file system refuses: rights, or mounted read-only.
    #[error("{0} may not be written: access denied")]
    Denied(FileName),
    /// It has its content, or is removed; whether that survives a power cut is not known.
    #[error("{name} was changed, and the disk did not confirm it: {source}")]
    Unsynced {
        /// The path.
        name: FileName,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Anything else, such as a failing disk.
    #[error("{name} cannot be stored: {source}")]
    Io {
        /// The path.
        name: FileName,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl InstallError {
    pub(super) fn new(name: &FileName, errno: Errno) -> Self {
        let name = name.clone();
        match errno {
            Errno::NAMETOOLONG => Self::NameTooLong(name),
            // A folder went away between two steps.
            Errno::NOENT => Self::Changed(name),
            full if disk::is_full(full) => Self::Full(name),
            denied if disk::is_denied(denied) => Self::Denied(name),
            other => Self::Io {
                name,
                source: other.into(),
            },
        }
    }
}

/// Where a content waits to be renamed into place.
#[derive(Debug)]
pub(super) enum Source {
    /// It is the object itself.
    Object(String),
    /// A copy in `staging`.
    Temporary(String),
    /// A copy in the folder of the target, which is on another file system.
    Beside(String),
}

#[derive(Debug)]
pub(super) struct Ready {
    pub(super) put: Put,
    /// None: the path has the content.
    pub(super) source: Option<Source>,
}

/// Contents that are on the disk and ready to be renamed to their paths. Dropped, nothing happens.
#[derive(Debug)]
pub struct Prepared<'a> {
    folder: &'a Folder,
    items: Vec<Result<Ready, InstallError>>,
    /// Folders that got a new folder.
    unsynced: BTreeSet<String>,
}

impl Folder {
    /// Brings contents to where one rename gives them their paths: makes folders, copies what must
    /// be copied, waits for the disk. No path changes yet.
    ///
    /// Contents come from [objects](Self::sync_all) or from other paths. An object that is put at one
    /// path, and not kept, is not copied. Puts in the order of their paths are the cheapest.
    pub fn prepare(&self, puts: &[Put]) -> Prepared<'_> {
        let mut uses: BTreeMap<ContentHash, usize> = BTreeMap::new();
        for put in puts {
            *uses.entry(put.content.hash).or_default() += 1;
        }
        let mut parents = Parents::new(self);
        let mut copies = Vec::new();
        let mut prepared = Prepared {
            folder: self,
            items: Vec::with_capacity(puts.len()),
            unsynced: BTreeSet::new(),
        };
        for put in puts {
            let left = uses.entry(put.content.hash).or_default();
            *left = left.saturating_sub(1);
            let may_move = *left == 0 && !put.keeps_new;
            let item = self.prepare_one(put, may_move, &mut parents);
            let (item, copy) = match item {
                Ok((ready, copy)) => (Ok(ready), copy),
                Err(error) => (Err(error), None),
            };
            copies.extend(copy.map(|copy| (prepared.items.len(), copy)));
            prepared.items.push(item);
            if copies.len() >= OPEN_COPIES {
                prepared.sync_copies(&mut copies);
            }
        }
        prepared.sync_copies(&mut copies);
        prepared.unsynced = parents.into_changed();
        prepared
    }

    fn prepare_one(
        &self,
        put: &Put,
        may_move: bool,
        parents: &mut Parents<'_>,
    ) -> Result<(Ready, Option<File>), InstallError> {
        let name = &put.name;
        let failed = |errno| InstallError::new(name, errno);
        let parent = parents.make(name)?;
        let (_, own) = split(name);
        if self.ignores_case
            && let Some(other) = parents::other_spelling(&*parent, own)
        {
            let name = name.clone();
            return Err(InstallError::SameName { name, other });
        }
        let found = parents::look_at_target(&*parent, name)?;
        let mut ready = Ready {
            put: put.clone(),
            source: None,
        };
        if check(&self.cache(), name, found.as_ref(), put.expecting)? == Some(put.content) {
            return Ok((ready, None));
        }
        let absent = || InstallError::NoContent {
            name: name.clone(),
            hash: put.content.hash,
        };
        let held = match self.open_content(&put.content) {
            Ok(held) => held,
            Err(ObjectError::Absent(_)) => return Err(absent()),
            Err(ObjectError::Io { source, .. }) => return Err(failed(disk::errno(&source))),
        };
        let is_here = self.is_our_disk(&*parent).map_err(failed)?;
        let object = to_hex(&put.content.hash.0);
        if is_here && may_move && disk::look(&self.objects, &object).is_ok() {
            ready.source = Some(Source::Object(object));
            return Ok((ready, None));
        }
        let source = serial_name(is_here);
        let (place, temporary) = source.place(self, parent.as_fd());
        match copy(&held, place, temporary) {
            Ok(Some(file)) => {
                ready.source = Some(source);
                Ok((ready, Some(file)))
            }
            Ok(None) => {
                discard(place, temporary);
                Err(absent())
            }
            Err(error) => {
                discard(place, temporary);
                Err(failed(disk::errno(&error)))
            }
        }
    }

    /// Whether objects can be renamed to there.
    pub(super) fn is_our_disk(&self, parent: impl AsFd) -> Result<bool, Errno> {
        let ours = rustix::fs::fstat(&self.staging)?.st_dev;
        Ok(rustix::fs::fstat(parent)?.st_dev == ours)
    }
}

impl Source {
    pub(super) fn place<'a>(
        &'a self,
        folder: &'a Folder,
        parent: BorrowedFd<'a>,
    ) -> (BorrowedFd<'a>, &'a str) {
        match self {
            Self::Object(name) => (folder.objects.as_fd(), name),
            Self::Temporary(name) => (folder.staging.as_fd(), name),
            Self::Beside(name) => (parent, name),
        }
    }
}

impl Prepared<'_> {
    /// Whether every path can get its content. A caller that wants all or nothing drops this when not.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.items.iter().all(Result::is_ok)
    }

    /// What is in the way, if anything is: the places of the puts, and why.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &InstallError)> {
        let items = self.items.iter().enumerate();
        items.filter_map(|(index, item)| Some((index, item.as_ref().err()?)))
    }

    /// Renames what is ready, and waits until the disk has it. One answer for each put, in order.
    pub fn commit(mut self) -> Vec<Result<(), InstallError>> {
        let mut batch = Batch::new(self.folder);
        for item in std::mem::take(&mut self.items) {
            let answer = match item {
                Ok(ready) => {
                    let answer = batch.put(&ready);
                    if answer.is_err() {
                        self.folder.discard(&ready);
                    }
                    batch.note(&ready.put.name, answer.is_ok());
                    answer
                }
                Err(error) => Err(error),
            };
            batch.answers.push(answer);
        }
        for made in std::mem::take(&mut self.unsynced) {
            batch.touched.entry(made).or_default();
        }
        batch.finish()
    }

    /// Copies are on the disk before they get a path.
    fn sync_copies(&mut self, copies: &mut Vec<(usize, File)>) {
        let staging = &self.folder.staging;
        // What is below a mount point is on another file system.
        let is_ours = |file: &File| self.folder.is_our_disk(file).unwrap_or(false);
        let is_synced = copies.len() > SYNCFS_ABOVE
            && copies.iter().all(|(_, file)| is_ours(file))
            && rustix::fs::syncfs(staging).is_ok();
        for (index, file) in copies.drain(..) {
            if is_synced {
                continue;
            }
            if let Err(errno) = rustix::fs::fsync(&file)
                && let Some(item) = self.items.get_mut(index)
                && let Ok(ready) = item
            {
                self.folder.discard(ready);
                *item = Err(InstallError::new(&ready.put.name, errno));
            }
        }
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        for ready in self.items.iter().flatten() {
            self.folder.discard(ready);
        }
    }
}

impl Folder {
    /// Prepares and commits, each put for itself.
    pub fn install(&self, puts: &[Put]) -> Vec<Result<(), InstallError>> {
        self.prepare(puts).commit()
    }

    /// Removes files, and folders that an install made and that are empty then, and waits until the
    /// disk has it. One answer for each, in order. What is not there is removed.
    pub fn remove(&self, removals: &[Removal]) -> Vec<Result<(), InstallError>> {
        let mut batch = Batch::new(self);
        for removal in removals {
            let answer = batch.remove(removal);
            batch.note(&removal.name, matches!(answer, Ok(true)));
            batch.answers.push(answer.map(|_| ()));
        }
        let mut made = Vec::new();
        for removal in removals {
            let (folder, _) = split(&removal.name);
            if !folder.is_empty() && made.last().is_none_or(|last| last != folder) {
                made.push(folder.to_owned());
            }
        }
        for folder in made {
            if let Some(left) = parents::remove_empty(self, &folder) {
                batch.touched.entry(left).or_default();
            }
        }
        batch.finish()
    }

    /// Removes a copy that is not used. Objects stay.
    fn discard(&self, ready: &Ready) {
        match &ready.source {
            None | Some(Source::Object(_)) => {}
            Some(Source::Temporary(name)) => discard(&self.staging, name),
            Some(Source::Beside(name)) => {
                let (folder, _) = split(&ready.put.name);
                if let Ok(parent) = disk::open_folder(&self.root, folder) {
                    discard(parent, name);
                }
            }
        }
    }
}

/// A temporary name that nothing has.
pub(super) fn serial_name(is_here: bool) -> Source {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    if is_here {
        return Source::Temporary(format!("{TEMPORARY}{serial}"));
    }
    let pid = std::process::id();
    Source::Beside(format!("{BESIDE}{pid}-{serial}"))
}

/// Copies a content, which must not be changed meanwhile. None: it was, or was not what it should.
pub(super) fn copy(held: &Held, folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<File>> {
    let file = disk::create_file(folder, name)?;
    let size = held.content().size;
    file.set_len(0)?;
    let mut from = 0;
    let copied = stage::copy_range(held.file(), &mut from, &file, 0, size);
    let mut to = &file;
    let mut source = held.file();
    if copied < size {
        source.seek(SeekFrom::Start(copied))?;
        to.seek(SeekFrom::Start(copied))?;
        io::copy(&mut source.take(size - copied), &mut to)?;
    }
    // What was copied is what counts.
    let is_right = hashing::hash_file(&file)? == held.content();
    Ok(is_right.then_some(file))
}
