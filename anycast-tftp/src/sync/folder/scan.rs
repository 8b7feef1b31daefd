//! Finding out what is on the disk.
//!
//! A folder is listed, every file in it is looked at, and only those that are not as they were
//! when they were last hashed are hashed, several at a time. What was looked at and what was
//! hashed are compared again before anybody is told, under the lock that installs take as well.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::Folder;
use super::cache::Entry;
use super::disk::{self, GRANULARITY, Stamp};
use super::hashing::{Hashed, Todo, hash_all};
use super::install::BESIDE;
use super::objects::split;
use super::report::{Found, ScanError, ScanOptions, ScanReport, Scope, TroubleKind};
use crate::store::{FileName, MAX_NAME_LEN, RESERVED_PREFIX};

/// Files that are looked at before the changed ones among them are hashed, and before installs get
/// their turn.
const BATCH: usize = 256;

/// Folders that the files of one batch may be in: each is an open descriptor.
const BATCH_FOLDERS: usize = 64;

/// When more than one in so many files was new, memory is worth tidying.
const PACK_SHARE: usize = 8;

/// One scan.
struct Scan<'a> {
    folder: &'a Folder,
    options: ScanOptions,
    found: &'a mut dyn FnMut(Found),
    report: ScanReport,
    /// The file system's time, from before anything was hashed.
    now: i64,
    /// Folders to be listed.
    left: Vec<String>,
    todo: Vec<Todo>,
    todo_folders: usize,
}

impl Folder {
    /// Looks at the disk. `found` is called for every file whose content is another than it was (for
    /// every file, when [`ScanOptions::is_full`]), while the scan goes on; it must not call this folder.
    ///
    /// A hundred thousand unchanged files take well below a second; the others are read at the
    /// speed of the disk. Installs may go on meanwhile. Another scan waits.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan(
        &self,
        scope: Scope<'_>,
        options: ScanOptions,
        found: &mut dyn FnMut(Found),
    ) -> Result<ScanReport, ScanError> {
        let _one_at_a_time = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_root()?;
        let marker = self.marker()?;
        let root_error = |errno: Errno| ScanError::Root {
            path: self.path.display().to_string(),
            source: errno.into(),
        };
        let mut scan = Scan {
            folder: self,
            options,
            found,
            report: ScanReport::default(),
            now: disk::clock(&self.clock).map_err(root_error)?,
            left: Vec::new(),
            todo: Vec::new(),
            todo_folders: 0,
        };
        match scope {
            Scope::All => scan.tree("", true).map_err(root_error)?,
            Scope::Paths(paths) => {
                for path in paths {
                    scan.path(path).map_err(root_error)?;
                }
            }
        }
        scan.hash();
        let mut report = scan.report;
        if report.hashed > report.files / PACK_SHARE {
            self.cache().pack();
        }
        self.check_root()?;
        let is_same = self.marker()? == marker;
        report.marker = marker.filter(|_| is_same);
        Ok(report)
    }

    /// Something may have been mounted over the root, or another folder moved there: what is seen
    /// through the old handle is not what clients are served then.
    fn check_root(&self) -> Result<(), ScanError> {
        let path = || self.path.display().to_string();
        let root_error = |errno: Errno| ScanError::Root {
            path: path(),
            source: errno.into(),
        };
        let named = rustix::fs::stat(&self.path).map_err(root_error)?;
        let opened = rustix::fs::fstat(&self.root).map_err(root_error)?;
        if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) {
            Ok(())
        } else {
            Err(ScanError::Moved(path()))
        }
    }
}

impl Scan<'_> {
    /// A path that changed, whatever is there now.
    fn path(&mut self, path: &str) -> Result<(), Errno> {
        if path.is_empty() {
            return self.tree("", true);
        }
        // Names come from outside: never upwards, never into the hidden folder.
        let is_odd = |part: &str| {
            part.is_empty() || part == "." || part == ".." || part.starts_with(RESERVED_PREFIX)
        };
        if path.split('/').any(is_odd) {
            return Ok(());
        }
        // Whatever it was, alone or a folder with files in it.
        self.folder.cache().set_seen_in(path, false);
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let looked = disk::open_folder(&self.folder.root, parent)
            .and_then(|folder| Ok((disk::look(&folder, name)?, folder)));
        let folder = match looked {
            Ok((found, _)) if disk::is_folder(&found) => return self.tree(path, false),
            Ok((_, folder)) => Arc::new(folder),
            Err(errno) if disk::is_not_there(errno) => {
                self.gone(path);
                return Ok(());
            }
            Err(errno) => {
                self.folder.cache().set_seen_in(path, true);
                let kind = TroubleKind::Unreadable(errno.to_string());
                self.report.trouble(path.to_owned(), kind);
                return Ok(());
            }
        };
        self.look(&folder, parent, &[name.to_owned()]);
        self.hash();
        self.gone(path);
        Ok(())
    }

    /// A folder and all that is below it.
    fn tree(&mut self, path: &str, is_root: bool) -> Result<(), Errno> {
        self.folder.cache().set_seen_in(path, false);
        self.left.push(path.to_owned());
        while let Some(next) = self.left.pop() {
            self.watch(&next);
            match self.list(&next) {
                Ok(()) => {}
                Err(errno) if is_root && next.is_empty() => return Err(errno),
                // Removed meanwhile: what was in it is gone.
                Err(errno) if disk::is_not_there(errno) => {}
                Err(errno) => {
                    self.folder.cache().set_seen_in(&next, true);
                    let kind = TroubleKind::Unreadable(errno.to_string());
                    self.report.trouble(next, kind);
                }
            }
        }
        self.hash();
        self.gone(path);
        Ok(())
    }

    /// Watched before it is listed: what comes after is told, what came before is listed.
    fn watch(&self, path: &str) {
        let mut watch = self
            .folder
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = &mut *watch {
            watch.add(&self.folder.path, path);
        }
    }

    fn list(&mut self, path: &str) -> Result<(), Errno> {
        let folder = Arc::new(disk::open_folder(&self.folder.root, path)?);
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(name) = name.to_str() else {
                let shown = join(path, &name.to_string_lossy());
                self.report.trouble(shown, TroubleKind::Name);
                continue;
            };
            if name.starts_with(RESERVED_PREFIX) {
                if self.options.is_full && is_leftover(name) {
                    let _ = rustix::fs::unlinkat(&*folder, name, AtFlags::empty());
                }
                continue;
            }
            names.push(name.to_owned());
            if names.len() == BATCH {
                self.look(&folder, path, &names);
                names.clear();
            }
        }
        self.look(&folder, path, &names);
        Ok(())
    }

    /// Looks at files of one folder.
    fn look(&mut self, folder: &Arc<OwnedFd>, path: &str, names: &[String]) {
        let before = self.todo.len();
        let whole = self.folder;
        let mut cache = whole.cache();
        for own in names {
            let name = join(path, own);
            let found = match disk::look(folder, own) {
                Ok(found) => found,
                Err(errno) if disk::is_not_there(errno) => continue,
                Err(errno) => {
                    cache.set_seen_in(&name, true);
                    let kind = TroubleKind::Unreadable(errno.to_string());
                    self.report.trouble(name, kind);
                    continue;
                }
            };
            if disk::is_folder(&found) {
                match check(&name) {
                    Ok(_) => self.left.push(name),
                    Err(kind) => self.report.trouble(name, kind),
                }
                continue;
            }
            if !disk::is_file(&found) {
                self.report.trouble(name, odd(&found));
                continue;
            }
            self.report.files += 1;
            let stamp = Stamp::of(&found);
            let known = cache.get(&name).map(|(key, entry)| (key.clone(), *entry));
            if let Some((key, entry)) = known
                && entry.is_at(&stamp)
                && !entry.is_racy()
            {
                cache.see(&name);
                if self.options.is_full {
                    (self.found)(Found {
                        name: key,
                        content: entry.content(),
                    });
                }
                continue;
            }
            cache.see(&name);
            let quiet = i64::try_from(self.options.quiet.as_nanos()).unwrap_or(i64::MAX);
            // A time in the future is none that says anything.
            let age = self.now.saturating_sub(stamp.modified);
            if (0..quiet).contains(&age) {
                self.report.busy(name);
                continue;
            }
            match check(&name) {
                Ok(name) => self.todo.push(Todo {
                    folder: Arc::clone(folder),
                    name,
                    stamp,
                }),
                Err(kind) => self.report.trouble(name, kind),
            }
        }
        drop(cache);
        if self.todo.len() > before {
            self.todo_folders += 1;
        }
        if self.todo.len() >= BATCH || self.todo_folders >= BATCH_FOLDERS {
            self.hash();
        }
    }

    /// Hashes what has to be, and tells what it is.
    fn hash(&mut self) {
        let todo = std::mem::take(&mut self.todo);
        self.todo_folders = 0;
        if todo.is_empty() {
            return;
        }
        let now = disk::clock(&self.folder.clock).unwrap_or(self.now);
        for (todo, hashed) in todo.iter().zip(hash_all(&todo)) {
            self.settle(todo, hashed, now);
        }
    }

    fn settle(&mut self, todo: &Todo, hashed: Hashed, now: i64) {
        let (_, own) = split(&todo.name);
        let content = match hashed {
            Hashed::Is(content) => content,
            Hashed::Busy => return self.report.busy(todo.name.as_str().to_owned()),
            Hashed::Gone => return,
            Hashed::Failed(errno) => {
                let kind = TroubleKind::Unreadable(errno.to_string());
                return self.report.trouble(todo.name.as_str().to_owned(), kind);
            }
        };
        self.report.hashed += 1;
        self.report.hashed_bytes += content.size;
        let mut cache = self.folder.cache();
        // An install may have replaced it meanwhile, and said so.
        let is_there =
            disk::look(&todo.folder, own).is_ok_and(|found| Stamp::of(&found) == todo.stamp);
        if !is_there {
            drop(cache);
            return self.report.busy(todo.name.as_str().to_owned());
        }
        let is_racy = todo.stamp.modified > now.saturating_sub(GRANULARITY);
        let entry = Entry::new(content, &todo.stamp, is_racy);
        let is_new = cache.insert(todo.name.clone(), entry);
        drop(cache);
        if is_racy {
            self.report.doubt(todo.name.as_str().to_owned());
        }
        if is_new || self.options.is_full {
            (self.found)(Found {
                name: todo.name.clone(),
                content,
            });
        }
    }

    /// Tells what is no longer at a path or below it.
    fn gone(&mut self, path: &str) {
        let mut cache = self.folder.cache();
        let unseen = cache.unseen_in(path);
        for name in unseen {
            let (folder, own) = split(&name);
            let looked = disk::open_folder(&self.folder.root, folder)
                .and_then(|folder| disk::look(folder, own));
            let is_gone = match looked {
                Ok(found) => !disk::is_file(&found),
                Err(errno) => disk::is_not_there(errno),
            };
            if is_gone && let Some((name, content)) = cache.remove(name.as_str()) {
                self.report.gone.push(Found { name, content });
            }
        }
    }
}

/// A copy that another run was about to install, which only one process can have been doing.
fn is_leftover(name: &str) -> bool {
    let own = format!("{BESIDE}{}-", std::process::id());
    name.starts_with(BESIDE) && !name.starts_with(&own)
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        return name.to_owned();
    }
    let mut path = String::with_capacity(folder.len() + 1 + name.len());
    path.push_str(folder);
    path.push('/');
    path.push_str(name);
    path
}

/// The name, if clients can ask for it by exactly this.
fn check(path: &str) -> Result<FileName, TroubleKind> {
    if path.len() > MAX_NAME_LEN {
        return Err(TroubleKind::TooLong);
    }
    match FileName::from_wire(path.as_bytes()) {
        Ok(name) if name.as_str() == path => Ok(name),
        Ok(_) | Err(_) => Err(TroubleKind::Name),
    }
}

fn odd(found: &rustix::fs::Stat) -> TroubleKind {
    if rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Symlink {
        TroubleKind::Link
    } else {
        TroubleKind::NotAFile
    }
}
