//! The file of a saved intent, and the host's clocks.
//!
//! One file a service: `intent-<service>.json` in the state folder. No intent, no file.
//!
//! **Saving** writes a temporary file, syncs it, renames it over the old one and syncs the
//! folder: whatever happens between any two of these, a reader finds the old intent or the
//! new one, whole. When [`IntentFile::save`] has answered, the intent survives a power cut.
//!
//! **Loading** never panics and never guesses. A file that is there means that an operator had
//! spoken; one that cannot be understood is a [`LoadError`], and the driver then starts
//! demoted by intent. [`IntentFile::set_aside`] keeps such a file beside it as `.bad` for a
//! human to look at.
//!
//! Everything here blocks on the disk: call it from a thread that may block.
#![allow(
    clippy::disallowed_methods,
    reason = "this is where the host's clocks are read"
)]

#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{BootId, ClockReading, Expiry, MAX_LASTS, OrderKind, SavedIntent};
use crate::service::ServiceName;

/// Largest file that is read, in bytes. What is written is below 4 KiB.
pub const MAX_FILE: u64 = 64 * 1024;
/// The version of the format that is written. A file of a later one is not understood.
pub const VERSION: u64 = 1;
/// Mode of a state folder that had to be created.
const FOLDER_MODE: u32 = 0o750;
/// Mode of the file.
const FILE_MODE: u32 = 0o640;

/// Reads the host's clocks. The boot id is read once, by [`SystemClock::new`].
#[derive(Debug, Clone)]
pub struct SystemClock {
    boot: Option<BootId>,
}

impl SystemClock {
    /// Where the kernel tells its boot id.
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

    /// Reads the boot id. Where it cannot be read, intents are restored as after a reboot.
    #[must_use]
    pub fn new() -> Self {
        let boot = std::fs::read_to_string(Self::BOOT_ID)
            .ok()
            .and_then(|id| BootId::new(id.trim()));
        Self { boot }
    }

    /// What the clocks say now.
    #[must_use]
    pub fn read(&self) -> ClockReading {
        let boottime = clock_gettime(ClockId::Boottime);
        ClockReading {
            boot: self.boot.clone(),
            boottime: Duration::new(
                u64::try_from(boottime.tv_sec).unwrap_or_default(),
                u32::try_from(boottime.tv_nsec).unwrap_or_default(),
            ),
            // A clock before 1970 is wrong whatever it says.
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a saved intent could not be read. Whether an operator had spoken is then not known, or
/// known and not what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file, or the folder, cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It is a folder, a link, a pipe, or larger than [`MAX_FILE`].
    #[error("{} is not a regular file of at most {MAX_FILE} bytes", path.display())]
    NotAnIntent {
        /// The file.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error("{} has format {version}, and this release reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// It speaks of another service: it was renamed or copied.
    #[error("{} is of the service {found}", path.display())]
    OtherService {
        /// The file.
        path: PathBuf,
        /// The service named in it.
        found: ServiceName,
    },
    /// Empty, cut off, damaged, or a value out of range.
    #[error("{} cannot be understood: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why an intent could not be saved or removed. What was saved before still is, or is no
/// longer: a reader finds one of the two, whole.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what} failed: {source}", path.display())]
pub struct SaveError {
    path: PathBuf,
    what: &'static str,
    #[source]
    source: io::Error,
}

/// The file of one service's intent.
#[derive(Debug, Clone)]
pub struct IntentFile {
    service: ServiceName,
    folder: PathBuf,
    path: PathBuf,
}

impl IntentFile {
    /// The file of this service in this folder. Nothing is touched.
    #[must_use]
    pub fn new(folder: &Path, service: &ServiceName) -> Self {
        Self {
            service: service.clone(),
            folder: folder.to_owned(),
            path: folder.join(format!("intent-{service}.json")),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where one that was not understood is kept: the same name with `.bad` after it.
    #[must_use]
    pub fn bad_path(&self) -> PathBuf {
        with_suffix(&self.path, ".bad")
    }

    /// Reads it. `None` when there is none, or no folder.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self) -> Result<Option<SavedIntent>, LoadError> {
        match self.read() {
            Ok(Some(text)) => self.parse(&text).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if !is_link(&error) => Err(LoadError::Unreadable {
                path: self.path.clone(),
                source: error,
            }),
            Ok(None) | Err(_) => Err(LoadError::NotAnIntent {
                path: self.path.clone(),
            }),
        }
    }

    /// The bytes; `None` when it is not a regular file or too large.
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        // A pipe must not block, and a link is not followed: nobody but us writes here.
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut text)?;
        let short_enough = u64::try_from(text.len()).is_ok_and(|len| len <= MAX_FILE);
        Ok(short_enough.then_some(text))
    }

    fn parse(&self, text: &[u8]) -> Result<SavedIntent, LoadError> {
        let malformed = |reason: String| LoadError::Malformed {
            path: self.path.clone(),
            reason,
        };
        if text.is_empty() {
            return Err(malformed("it is empty".to_owned()));
        }
        // The version first: a later format may hold anything else.
        let Versioned { version } =
            serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
        if version != VERSION {
            let path = self.path.clone();
            return Err(LoadError::Version { path, version });
        }
        let record: Record =
            serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
        if record.service != self.service {
            return Err(LoadError::OtherService {
                path: self.path.clone(),
                found: record.service,
            });
        }
        record
            .intent()
            .ok_or_else(|| malformed("a boot id or a time is out of range".to_owned()))
    }

    /// Keeps this intent instead of what was saved before. The folder is created (mode 0750)
    /// if it is missing.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self, intent: &SavedIntent) -> Result<(), SaveError> {
        self.create_folder()?;
        let temporary = with_suffix(&self.path, ".tmp");
        let written = self.write(&temporary, intent);
        let renamed = written.and_then(|()| {
            std::fs::rename(&temporary, &self.path).map_err(self.failed("renaming into place"))
        });
        if renamed.is_err() {
            // Room on a full disk; nothing can be done if this fails as well.
            let _ = std::fs::remove_file(&temporary);
        }
        renamed?;
        self.sync_folder(&self.folder)
    }

    /// Forgets what was saved. Nothing saved is no error.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn remove(&self) -> Result<(), SaveError> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => self.sync_folder(&self.folder),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(self.failed("removing it")(error)),
        }
    }

    /// Keeps a second name, [`bad_path`](Self::bad_path), for what is in the file now. The
    /// file stays where it is until an intent is saved over it, so that there is no moment at
    /// which a crash would forget that an operator had spoken.
    ///
    /// # Errors
    /// [`SaveError`]; the file is then to be left as it is.
    pub fn set_aside(&self) -> Result<(), SaveError> {
        let bad = self.bad_path();
        match std::fs::remove_file(&bad) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("removing an older .bad file")(error));
            }
            Ok(()) | Err(_) => {}
        }
        std::fs::hard_link(&self.path, bad).map_err(self.failed("keeping it as .bad"))
    }

    fn create_folder(&self) -> Result<(), SaveError> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE);
        builder
            .create(&self.folder)
            .map_err(self.failed("creating its folder"))?;
        match self.folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_folder(parent),
            Some(_) | None => Ok(()),
        }
    }

    fn write(&self, temporary: &Path, intent: &SavedIntent) -> Result<(), SaveError> {
        // One left by a crash is not written into: it may be a link by now.
        match std::fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("removing an old temporary file")(error));
            }
            Ok(()) | Err(_) => {}
        }
        let failed = self.failed("writing a temporary file");
        let mut text = serde_json::to_vec_pretty(&Record::new(&self.service, intent))
            .map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(FILE_MODE)
                .open(temporary)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(failed)
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), SaveError> {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(self.failed("syncing its folder"))
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> SaveError + use<> {
        let path = self.path.clone();
        move |source| SaveError {
            path: path.clone(),
            what,
            source,
        }
    }
}

/// Neither the file is there nor, perhaps, its folder.
fn is_absent(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::NotFound || kind == io::ErrorKind::NotADirectory
}

/// A link, which is not followed.
fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u64,
    service: ServiceName,
    order: OrderKind,
    reason: String,
    by: String,
    given: ReadingRecord,
    expiry: Option<ExpiryRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadingRecord {
    boot: Option<String>,
    boottime: Duration,
    wall: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiryRecord {
    boot: Option<String>,
    boot_deadline: Duration,
    wall_deadline: Duration,
    at_most: Duration,
}

impl Record {
    fn new(service: &ServiceName, intent: &SavedIntent) -> Self {
        let boot = |boot: &Option<BootId>| boot.as_ref().map(|id| id.as_str().to_owned());
        Self {
            version: VERSION,
            service: service.clone(),
            order: intent.order,
            reason: intent.reason.as_str().to_owned(),
            by: intent.by.as_str().to_owned(),
            given: ReadingRecord {
                boot: boot(&intent.given.boot),
                boottime: intent.given.boottime,
                wall: intent.given.wall,
            },
            expiry: intent.expiry.as_ref().map(|expiry| ExpiryRecord {
                boot: boot(&expiry.boot),
                boot_deadline: expiry.boot_deadline,
                wall_deadline: expiry.wall_deadline,
                at_most: expiry.at_most,
            }),
        }
    }

    /// `None` when a value is out of range.
    fn intent(self) -> Option<SavedIntent> {
        let given = ClockReading {
            boot: known_boot(self.given.boot)?,
            boottime: self.given.boottime,
            wall: self.given.wall,
        };
        let expiry = match self.expiry {
            None => None,
            Some(expiry) if expiry.at_most > MAX_LASTS => return None,
            Some(expiry) => Some(Expiry {
                boot: known_boot(expiry.boot)?,
                boot_deadline: expiry.boot_deadline,
                wall_deadline: expiry.wall_deadline,
                at_most: expiry.at_most,
            }),
        };
        Some(SavedIntent {
            order: self.order,
            reason: self.reason.into(),
            by: self.by.into(),
            given,
            expiry,
        })
    }
}

/// No id is an id that is not known; an id that cannot be one is an error.
#[allow(
    clippy::option_option,
    reason = "the outer one is the error, for the question mark"
)]
fn known_boot(id: Option<String>) -> Option<Option<BootId>> {
    match id {
        None => Some(None),
        Some(id) => BootId::new(&id).map(Some),
    }
}
