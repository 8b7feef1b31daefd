//! What the kernel tells of changes (inotify).
//!
//! Every folder is watched before it is listed, by the scan that lists it, so that nothing falls
//! between the two. What is told is a hint where to look, and never more: what our own installs
//! did is found to be as it should.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Config, Event, INotifyWatcher, RecursiveMode, Watcher as _};

use super::{Folder, Shared};
use crate::store::RESERVED_PREFIX;

/// Paths that are remembered until somebody looks; beyond that, everything is to be looked at.
pub const MAX_PENDING: usize = 4096;

/// Why changes cannot be watched. They are found by scanning all the same, later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The kernel refused.
    #[error(
        "changes of {path} cannot be watched: {source}; raise fs.inotify.max_user_watches and \
         max_user_instances, until then changes are found by scanning"
    )]
    Refused {
        /// The root.
        path: String,
        /// What it said.
        #[source]
        source: notify::Error,
    },
}

/// What changed, or may have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Files that were closed after writing or moved into place, for
    /// [`Scope::Paths`](super::Scope::Paths): they need no [quiet](super::ScanOptions::quiet).
    pub closed: Vec<String>,
    /// Other paths, of files and folders: new (and perhaps still being written), removed, or with other
    /// rights.
    pub paths: Vec<String>,
    /// Too much changed, or the kernel lost count: look at everything.
    pub is_everything: bool,
    /// Why not all folders are watched, if so: everything has to be looked at now and then.
    pub trouble: Option<String>,
}

impl Changes {
    /// Whether there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.paths.is_empty() && !self.is_everything
    }
}

#[derive(Debug, Default)]
struct Pending {
    /// And whether they were closed or moved in.
    paths: BTreeMap<String, bool>,
    is_everything: bool,
    trouble: Option<String>,
}

/// The running watch.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: INotifyWatcher,
    pending: Shared<Pending>,
}

impl Folder {
    /// Begins to watch. Folders are watched from the next scan of everything on, which has to follow.
    ///
    /// `wake` is called, from a thread of its own, whenever there is something for
    /// [`take_changes`](Self::take_changes). It must not wait.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch(&self, wake: impl Fn() + Send + 'static) -> Result<(), WatchError> {
        let pending = Shared::<Pending>::default();
        let theirs = Arc::clone(&pending);
        // Events carry the path that was watched, which is absolute.
        let root = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let handler = move |event: notify::Result<Event>| {
            if note(&theirs, &root, event) {
                wake();
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let watcher = INotifyWatcher::new(handler, config).map_err(|source| {
            let path = self.path.display().to_string();
            WatchError::Refused { path, source }
        })?;
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        *watch = Some(Watch { watcher, pending });
        Ok(())
    }

    /// What changed since the last call.
    pub fn take_changes(&self) -> Changes {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watch) = &*watch else {
            return Changes::default();
        };
        let mut pending = lock(&watch.pending);
        let mut changes = Changes {
            is_everything: std::mem::take(&mut pending.is_everything),
            trouble: pending.trouble.take(),
            ..Changes::default()
        };
        for (path, is_closed) in std::mem::take(&mut pending.paths) {
            if is_closed {
                changes.closed.push(path);
            } else {
                changes.paths.push(path);
            }
        }
        changes
    }
}

impl Watch {
    /// Watches one folder, in addition to the others. Repeating it is harmless.
    pub(super) fn add(&mut self, root: &Path, path: &str) {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let folder = if path.is_empty() {
            root
        } else {
            root.join(path)
        };
        if let Err(error) = self.watcher.watch(&folder, RecursiveMode::NonRecursive)
            && !matches!(error.kind, notify::ErrorKind::PathNotFound)
        {
            lock(&self.pending).trouble = Some(format!(
                "{} cannot be watched: {error}; raise fs.inotify.max_user_watches",
                folder.display()
            ));
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whether there is something to look at that was not there before.
fn note(pending: &Mutex<Pending>, root: &Path, event: notify::Result<Event>) -> bool {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            let mut pending = lock(pending);
            pending.trouble = Some(error.to_string());
            return !std::mem::replace(&mut pending.is_everything, true);
        }
    };
    if event.need_rescan() {
        return !std::mem::replace(&mut lock(pending).is_everything, true);
    }
    let is_closed = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => true,
        // Every file that is opened is told, by whomever. What is written is looked at when it is
        // closed. And both names of a rename were told one by one.
        EventKind::Access(_)
        | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Name(RenameMode::Both)) => {
            return false;
        }
        // A second name for an old file (a hard link) is told as new, and is never closed.
        EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Any
        | EventKind::Other => false,
    };
    let mut pending = lock(pending);
    let mut is_new = false;
    for path in &event.paths {
        is_new |= note_path(&mut pending, root, path, is_closed);
    }
    is_new
}

fn note_path(pending: &mut Pending, root: &Path, path: &Path, is_closed: bool) -> bool {
    if pending.is_everything {
        return false;
    }
    let Ok(below) = path.strip_prefix(root) else {
        return false;
    };
    // A name that is not UTF-8 is a trouble that the folder's own listing tells.
    let Some(text) = below.to_str() else {
        let parent = below.parent().and_then(Path::to_str).unwrap_or_default();
        return pending.insert(parent, false);
    };
    if text
        .split('/')
        .any(|part| part.starts_with(RESERVED_PREFIX))
    {
        return false;
    }
    pending.insert(text, is_closed)
}

impl Pending {
    /// What was closed and is then removed or changed otherwise has to be quiet again.
    fn insert(&mut self, path: &str, is_closed: bool) -> bool {
        if path.is_empty() || self.paths.len() >= MAX_PENDING {
            self.paths.clear();
            return !std::mem::replace(&mut self.is_everything, true);
        }
        let was_empty = self.paths.is_empty();
        self.paths.insert(path.to_owned(), is_closed);
        was_empty
    }
}
