//! Names that change: checked, exchanged, and made durable together.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags, Stat};
use rustix::io::Errno;

use super::cache::{Cache, Entry};
use super::disk::{self, GRANULARITY, Stamp, TICK};
use super::install::{InstallError, Ready, Removal, SYNCFS_ABOVE, Source, copy, serial_name};
use super::objects::{split, to_hex};
use super::parents::{self, Parents};
use super::{Folder, Held};
use crate::store::FileName;
use crate::sync::content::ContentId;

/// Names that change together and are made durable together.
pub(super) struct Batch<'a> {
    folder: &'a Folder,
    parents: Parents<'a>,
    pub(super) answers: Vec<Result<(), InstallError>>,
    /// Folders in which names changed, and which answers depend on them.
    pub(super) touched: BTreeMap<String, Vec<(usize, FileName)>>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(folder: &'a Folder) -> Self {
        Self {
            folder,
            parents: Parents::new(folder),
            answers: Vec::new(),
            touched: BTreeMap::new(),
        }
    }

    /// The next answer depends on the folder of this name.
    pub(super) fn note(&mut self, name: &FileName, is_changed: bool) {
        if is_changed {
            let (folder, _) = split(name);
            let here = (self.answers.len(), name.clone());
            self.touched
                .entry(folder.to_owned())
                .or_default()
                .push(here);
        }
    }

    pub(super) fn put(&mut self, ready: &Ready) -> Result<(), InstallError> {
        let Some(source) = &ready.source else {
            return Ok(());
        };
        let (put, name) = (&ready.put, &ready.put.name);
        let failed = |errno| InstallError::new(name, errno);
        let parent = self.parents.open(name)?;
        let (_, own) = split(name);
        let (from, temporary) = source.place(self.folder, parent.as_fd());
        let mut cache = self.folder.cache();
        let found = parents::look_at_target(&*parent, name)?;
        check(&cache, name, found.as_ref(), put.expecting)?;
        let new = disk::look(from, temporary).map_err(failed)?;
        match &found {
            None => rename_new(from, temporary, &*parent, own).map_err(failed)?,
            Some(old) => {
                self.keep_rights(from, temporary, old);
                exchange(from, temporary, &*parent, own, old)
                    .map_err(failed)?
                    .then_some(())
                    .ok_or_else(|| InstallError::Changed(name.clone()))?;
                self.set_aside(from, temporary, put.expecting, put.keeps_old);
            }
        }
        if matches!(source, Source::Object(_)) {
            self.folder.known().remove(&put.content.hash);
        }
        let now = disk::look(&*parent, own).map(|found| Stamp::of(&found));
        match now {
            Ok(now) if now.is_moved(&Stamp::of(&new)) => {
                let entry = Entry::new(put.content, &now, is_racy(&now));
                cache.insert(name.clone(), entry);
            }
            // Replaced again at once: the next scan sees another file than is remembered.
            Ok(_) | Err(_) => {
                let entry = Entry::new(put.content, &Stamp::of(&new), true);
                cache.insert(name.clone(), entry);
            }
        }
        Ok(())
    }

    /// The new file may be read by whom the old one may be. What is refused stays as it is.
    fn keep_rights(&self, from: BorrowedFd<'_>, temporary: &str, old: &Stat) {
        let Ok((file, _)) = disk::open_file(from, temporary) else {
            return;
        };
        let Ok(new) = rustix::fs::fstat(&file) else {
            return;
        };
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
            let owner = rustix::fs::Uid::from_raw(old.st_uid);
            let group = rustix::fs::Gid::from_raw(old.st_gid);
            let _ = rustix::fs::fchown(&file, Some(owner), Some(group));
        }
        let mode = Mode::from_raw_mode(old.st_mode & 0o777);
        if Mode::from_raw_mode(new.st_mode & 0o7777) != mode {
            let _ = rustix::fs::fchmod(&file, mode);
        }
    }

    /// What had the path is kept as an object, or goes.
    fn set_aside(
        &self,
        from: BorrowedFd<'_>,
        temporary: &str,
        old: Option<ContentId>,
        is_kept: bool,
    ) {
        let Some(old) = old.filter(|_| is_kept) else {
            return discard(from, temporary);
        };
        let object = to_hex(&old.hash.0);
        match rustix::fs::renameat(from, temporary, &self.folder.objects, &object) {
            // Verified when it is opened: its writer may still have it open.
            Ok(()) => {
                self.folder.known().remove(&old.hash);
                // Of two names of one file, renaming one to the other leaves both.
                let inode = |place, name: &str| disk::look(place, name).map(|found| found.st_ino);
                let left = inode(from, temporary);
                if left.is_ok() && left == inode(self.folder.objects.as_fd(), &object) {
                    discard(from, temporary);
                }
            }
            Err(Errno::XDEV) => {
                let copied = disk::open_file(from, temporary).map_err(io::Error::from);
                let copied = copied.and_then(|(file, stamp)| {
                    copy(
                        &Held::new(file, stamp, old),
                        self.folder.objects.as_fd(),
                        &object,
                    )
                });
                if let Err(error) = copied {
                    tracing::warn!(content = %old.hash, %error, "a replaced content cannot be kept");
                }
                discard(from, temporary);
            }
            Err(error) => {
                tracing::warn!(content = %old.hash, %error, "a replaced content cannot be kept");
                discard(from, temporary);
            }
        }
    }

    /// Says whether there was something to remove.
    pub(super) fn remove(&mut self, removal: &Removal) -> Result<bool, InstallError> {
        let name = &removal.name;
        let failed = |errno| InstallError::new(name, errno);
        let parent = match self.parents.open(name) {
            Ok(parent) => parent,
            Err(InstallError::Changed(_) | InstallError::FileInTheWay { .. }) => {
                self.folder.cache().remove(name.as_str());
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let (_, own) = split(name);
        let mut cache = self.folder.cache();
        let old = match disk::look(&*parent, own) {
            Ok(found) if disk::is_file(&found) => found,
            Ok(_) => return Err(InstallError::Changed(name.clone())),
            Err(errno) if disk::is_missing(errno) => {
                cache.remove(name.as_str());
                return Ok(false);
            }
            Err(errno) => return Err(failed(errno)),
        };
        check(&cache, name, Some(&old), Some(removal.expecting))?;
        let is_here = self.folder.is_our_disk(&*parent).map_err(failed)?;
        let source = serial_name(is_here);
        let (place, temporary) = source.place(self.folder, parent.as_fd());
        rename_new(&*parent, own, place, temporary).map_err(failed)?;
        let is_same = disk::look(place, temporary)
            .is_ok_and(|out| Stamp::of(&out).is_moved(&Stamp::of(&old)));
        if !is_same {
            // Where yet another has taken the name, this one was replaced by its own writer.
            let _ = rename_new(place, temporary, &*parent, own);
            return Err(InstallError::Changed(name.clone()));
        }
        self.set_aside(place, temporary, Some(removal.expecting), removal.keeps_old);
        cache.remove(name.as_str());
        Ok(true)
    }

    /// Waits for the disk: once for each folder.
    pub(super) fn finish(mut self) -> Vec<Result<(), InstallError>> {
        let folder = self.folder;
        let mut is_synced = false;
        if !self.touched.is_empty() {
            let _ = rustix::fs::fsync(&folder.objects);
        }
        if self.touched.len() > SYNCFS_ABOVE {
            is_synced = rustix::fs::syncfs(&folder.root).is_ok();
        }
        for (path, names) in &self.touched {
            let synced = disk::open_folder(&folder.root, path).and_then(|opened| {
                if is_synced && folder.is_our_disk(&opened)? {
                    return Ok(());
                }
                rustix::fs::fsync(opened)
            });
            let Err(errno) = synced else { continue };
            if disk::is_missing(errno) {
                // Removed since: there is nothing left that could be lost.
                continue;
            }
            for (index, name) in names {
                if let Some(answer) = self.answers.get_mut(*index) {
                    *answer = Err(InstallError::Unsynced {
                        name: name.clone(),
                        source: errno.into(),
                    });
                }
            }
        }
        std::mem::take(&mut self.answers)
    }
}

/// Compares what is at a path with what the caller expects, and says what it is.
pub(super) fn check(
    cache: &Cache,
    name: &FileName,
    found: Option<&Stat>,
    expecting: Option<ContentId>,
) -> Result<Option<ContentId>, InstallError> {
    let changed = || InstallError::Changed(name.clone());
    match (found, expecting) {
        (None, None) => Ok(None),
        (Some(found), Some(expecting)) => {
            let (_, entry) = cache.get(name.as_str()).ok_or_else(changed)?;
            let is_same = entry.is_at(&Stamp::of(found)) && entry.content() == expecting;
            is_same.then_some(Some(expecting)).ok_or_else(changed)
        }
        (None, Some(_)) | (Some(_), None) => Err(changed()),
    }
}

/// Could the file be changed again without its times showing it?
///
/// Whoever changes it from now on sets its time of modification to then. That is another one than
/// it has now, unless that is as young as the clock is coarse.
fn is_racy(now: &Stamp) -> bool {
    let is_coarse = now.modified % 1_000_000_000 == 0;
    let window = if is_coarse { GRANULARITY } else { TICK };
    now.modified > now.changed.saturating_sub(window)
}

pub(super) fn discard(folder: impl AsFd, name: &str) {
    if let Err(error) = rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        tracing::debug!(name, %error, "cannot remove a temporary name");
    }
}

/// Renames to a name that nothing has.
fn rename_new(from: impl AsFd, old: &str, to: impl AsFd, new: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        // File systems without this flag have hard links, which never replace either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(&from, old, AtFlags::empty())
        }
        // Something came to be there since it was looked at.
        Err(Errno::EXIST) => Err(Errno::NOENT),
        other => other,
    }
}

/// Exchanges two files, and says whether what came out is `old`; otherwise they are as they were.
pub(super) fn exchange(
    from: BorrowedFd<'_>,
    temporary: &str,
    to: impl AsFd,
    name: &str,
    old: &Stat,
) -> Result<bool, Errno> {
    let exchange = || rustix::fs::renameat_with(from, temporary, &to, name, RenameFlags::EXCHANGE);
    match exchange() {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS) => return replace(from, temporary, to, name),
        Err(errno) => return Err(errno),
    }
    let is_old =
        disk::look(from, temporary).is_ok_and(|out| Stamp::of(&out).is_moved(&Stamp::of(old)));
    if !is_old {
        exchange()?;
    }
    Ok(is_old)
}

/// As [`exchange`], for file systems that cannot: the old file gets another name first.
pub(super) fn replace(
    from: BorrowedFd<'_>,
    temporary: &str,
    to: impl AsFd,
    name: &str,
) -> Result<bool, Errno> {
    let aside = format!("{temporary}-old");
    let is_linked = rustix::fs::linkat(&to, name, from, &aside, AtFlags::empty()).is_ok();
    rustix::fs::renameat(from, temporary, &to, name)?;
    if is_linked {
        rustix::fs::renameat(from, &aside, from, temporary)?;
    }
    Ok(true)
}
