//! Folders on the way to a path: made when needed, removed when empty.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, Stat};
use rustix::io::Errno;

use super::objects::split;
use super::{Folder, InstallError, disk};
use crate::store::FileName;

/// How deep a tree of empty folders may be that gives way to a file.
const MAX_DEPTH: usize = 32;

/// Opens the folders of paths, one after the other.
pub(super) struct Parents<'a> {
    folder: &'a Folder,
    /// Paths in one folder mostly come together.
    last: Option<(String, Arc<OwnedFd>)>,
    changed: BTreeSet<String>,
}

impl<'a> Parents<'a> {
    pub(super) fn new(folder: &'a Folder) -> Self {
        Self {
            folder,
            last: None,
            changed: BTreeSet::new(),
        }
    }

    /// Folders that got a new folder.
    pub(super) fn into_changed(self) -> BTreeSet<String> {
        self.changed
    }

    /// The folder of a path, which must be there.
    pub(super) fn open(&mut self, name: &FileName) -> Result<Arc<OwnedFd>, InstallError> {
        self.walk(name, false)
    }

    /// The folder of a path, made where it is not there.
    pub(super) fn make(&mut self, name: &FileName) -> Result<Arc<OwnedFd>, InstallError> {
        self.walk(name, true)
    }

    fn walk(&mut self, name: &FileName, makes: bool) -> Result<Arc<OwnedFd>, InstallError> {
        let (path, _) = split(name);
        if let Some((last, opened)) = &self.last
            && last == path
        {
            return Ok(Arc::clone(opened));
        }
        let failed = |errno| InstallError::new(name, errno);
        let mut folder = disk::open_folder(&self.folder.root, "").map_err(failed)?;
        let mut done = String::new();
        for component in path.split('/').filter(|part| !part.is_empty()) {
            let mut next = disk::open_folder(&folder, component);
            if makes && next.as_ref().is_err_and(|errno| *errno == Errno::NOENT) {
                next = self.make_one(&folder, &done, component);
            }
            if !done.is_empty() {
                done.push('/');
            }
            done.push_str(component);
            folder = match next {
                Ok(next) => next,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let name = name.clone();
                    return Err(InstallError::FileInTheWay { name, at: done });
                }
                Err(errno) => return Err(failed(errno)),
            };
        }
        let folder = Arc::new(folder);
        self.last = Some((path.to_owned(), Arc::clone(&folder)));
        Ok(folder)
    }

    fn make_one(&mut self, parent: &OwnedFd, path: &str, name: &str) -> Result<OwnedFd, Errno> {
        if disk::make_folder(parent, name)? {
            let made = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            };
            let mut cache = self.folder.cache();
            cache.made.insert(made.into());
            cache.is_dirty = true;
            self.changed.insert(path.to_owned());
        }
        disk::open_folder(parent, name)
    }
}

/// What has a file's name now. Empty folders give way.
pub(super) fn look_at_target(
    parent: impl AsFd,
    name: &FileName,
) -> Result<Option<Stat>, InstallError> {
    let (_, own) = split(name);
    match disk::look(&parent, own) {
        Ok(found) if disk::is_file(&found) => Ok(Some(found)),
        Ok(found) if disk::is_folder(&found) => {
            if remove_empty_tree(&parent, own, MAX_DEPTH) {
                Ok(None)
            } else {
                Err(InstallError::FolderInTheWay(name.clone()))
            }
        }
        Ok(_) => Err(InstallError::NotAFile(name.clone())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(InstallError::new(name, errno)),
    }
}

/// The kernel removes none that is not empty.
fn remove_empty_tree(parent: impl AsFd, name: &str, depth: usize) -> bool {
    let remove = || rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
    if remove().is_ok() {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let Ok(folder) = disk::open_folder(&parent, name) else {
        return false;
    };
    let Ok(entries) = Dir::read_from(&folder) else {
        return false;
    };
    for entry in entries.flatten() {
        let own = entry.file_name();
        if matches!(own.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_gone = own
            .to_str()
            .is_ok_and(|own| remove_empty_tree(&folder, own, depth - 1));
        if !is_gone {
            return false;
        }
    }
    remove().is_ok()
}

/// Removes a folder and those above it, as long as an install made them and they are empty. Says
/// which folder lost one.
pub(super) fn remove_empty(folder: &Folder, path: &str) -> Option<String> {
    let mut cache = folder.cache();
    let mut path = path;
    let mut touched = None;
    while cache.made.contains(path) {
        let (above, own) = path.rsplit_once('/').unwrap_or(("", path));
        let removed = disk::open_folder(&folder.root, above)
            .and_then(|above| rustix::fs::unlinkat(above, own, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) => touched = Some(above.to_owned()),
            Err(errno) if disk::is_missing(errno) => {}
            Err(_) => break,
        }
        cache.made.remove(path);
        cache.is_dirty = true;
        path = above;
    }
    touched
}

/// The name that stands there in place of `name`, on a file system that ignores case.
pub(super) fn other_spelling(parent: impl AsFd, name: &str) -> Option<String> {
    let entries = Dir::read_from(parent).ok()?;
    let names = entries.flatten().filter_map(|entry| {
        let own = entry.file_name().to_str().ok()?;
        Some(own.to_owned())
    });
    other_of(names, name)
}

pub(super) fn other_of(names: impl Iterator<Item = String>, name: &str) -> Option<String> {
    let folded = name.to_lowercase();
    let mut other = None;
    for found in names {
        if found == name {
            return None;
        }
        if found.to_lowercase() == folded {
            other = Some(found);
        }
    }
    other
}
