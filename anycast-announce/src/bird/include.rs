//! The level in a file that BIRD's configuration includes, `carrier = "include"`.
//!
//! # Contract
//! The file holds one constant: `define anycast_level = 200;`. The operator's configuration
//! includes it and uses the constant in a filter. A change of level is
//!
//! 1. refused, if the main configuration, or a file that it includes, is newer than what BIRD
//!    has loaded: `configure` would load an operator's half-edited work;
//! 2. written to a new file beside, synced, and renamed into place, as 0644;
//! 3. tried with `configure check`, and loaded with a plain `configure`: `soft` would announce
//!    nothing anew. When BIRD refuses, the file is as it was before;
//! 4. read back as the constant that BIRD has loaded, and then from the export tables.
//!
//! A file that is a symbolic link, lies in a folder that everybody may write to, or was not
//! written by this module, is never replaced. A level that is in force writes nothing.
//!
//! **There is no dead man**: when this process dies, the level stays, over a restart of BIRD
//! too. While an operator's change waits to be loaded not even a demotion is carried out.
//!
//! # Cancellation
//! A dropped future may leave the new file without it being loaded; the next call finds that
//! and loads it.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: compares a file's wall-clock time with that of BIRD's last load"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anycast_core::announce::{Level, Role};
use anycast_core::health::Reason;
use tokio::task::JoinHandle;

use super::client::{Client, ClientError};
use super::command::{Command, Symbol};
use super::loaded;
use super::reply::Reply;
use crate::attributes::Expression;

/// How long a load may be in progress before it is left to the next attempt.
pub const LOAD_FOR: Duration = Duration::from_secs(2);
/// Pause between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The constant's name when nothing else is configured.
pub const DEFAULT_CONSTANT: &str = "anycast_level";
/// Where Debian's BIRD has its configuration.
pub const DEFAULT_MAIN: &str = "/etc/bird/bird.conf";
/// How a file of ours begins.
const HEADER: &str = "# Written by anycast, and replaced at every change of preference.\n";
/// The largest file that is read, in bytes; a larger one is not looked into.
const MAX_FILE: u64 = 1 << 20;
/// How many files a configuration may include to be looked after.
const MAX_FILES: usize = 256;
/// A file may be this much newer than the load: the clocks of file systems are coarse.
const SLACK: Duration = Duration::from_millis(50);

/// The file, and what it defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncludeFile {
    path: PathBuf,
    constant: Symbol,
    main: PathBuf,
}

/// Why a file cannot hold the level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IncludeFileError {
    /// It has no folder of its own, or depends on where a program was started.
    #[error("{} is not an absolute path of a file", .0.display())]
    Path(PathBuf),
    /// It would be overwritten.
    #[error("{} is BIRD's own configuration; name a file that it includes", .0.display())]
    Main(PathBuf),
    /// BIRD could not read the name back.
    #[error("{0:?} cannot be a constant of BIRD: letters, digits and '_' alone")]
    Constant(String),
}

impl IncludeFile {
    /// A file with [`DEFAULT_CONSTANT`], included by [`DEFAULT_MAIN`].
    ///
    /// # Errors
    /// [`IncludeFileError::Path`], [`IncludeFileError::Main`].
    pub fn new(path: PathBuf) -> Result<Self, IncludeFileError> {
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(IncludeFileError::Path(path));
        }
        let constant = Symbol::new(DEFAULT_CONSTANT)
            .map_err(|_| IncludeFileError::Constant(DEFAULT_CONSTANT.to_owned()))?;
        let file = Self {
            path,
            constant,
            main: DEFAULT_MAIN.into(),
        };
        let main = file.main.clone();
        file.with_main(main)
    }

    /// The constant's name.
    ///
    /// # Errors
    /// [`IncludeFileError::Constant`].
    pub fn with_constant(mut self, name: &str) -> Result<Self, IncludeFileError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let symbol = Symbol::new(name)
            .ok()
            .filter(|_| name.chars().all(is_plain));
        self.constant =
            symbol.ok_or_else(|| IncludeFileError::Constant(name.chars().take(64).collect()))?;
        Ok(self)
    }

    /// BIRD's main configuration file, which has to be readable.
    ///
    /// # Errors
    /// [`IncludeFileError::Path`], [`IncludeFileError::Main`].
    pub fn with_main(mut self, main: PathBuf) -> Result<Self, IncludeFileError> {
        if !main.is_absolute() {
            return Err(IncludeFileError::Path(main));
        }
        if main == self.path {
            return Err(IncludeFileError::Main(main));
        }
        self.main = main;
        Ok(self)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn content(&self, value: u32) -> String {
        format!("{HEADER}define {} = {value};\n", self.constant)
    }
}

/// Why the level was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IncludeError {
    /// BIRD could not be asked.
    #[error("BIRD: {0}")]
    Client(#[from] ClientError),
    /// The file, or a folder. Nothing was loaded.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not one to be replaced. Nothing was changed.
    #[error("{}: {reason}", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An operator's change waits to be loaded. Nothing was changed.
    #[error(
        "{} is newer than what BIRD has loaded, and is not loaded on anybody's behalf; finish it \
         and run `birdc configure`, or touch nothing else there",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// BIRD's times cannot be read. Nothing was changed.
    #[error(
        "BIRD does not say when it was configured in a way that can be read; set `timeformat \
         base iso long ms;` in its configuration"
    )]
    Times,
    /// BIRD refused the configuration. The file is as it was before.
    #[error("BIRD refuses the configuration: {said}; the file is as it was before")]
    Refused {
        /// BIRD's words.
        said: Reason,
    },
    /// The load goes on.
    #[error("BIRD is still loading the configuration; it is looked at again")]
    InProgress,
    /// It was loaded, and has not the constant.
    #[error(
        "BIRD has loaded its configuration, and {constant} is {found} there; include {} in it, \
         once",
        path.display()
    )]
    NotIncluded {
        /// The file.
        path: PathBuf,
        /// The constant.
        constant: String,
        /// What BIRD says that it is.
        found: String,
    },
}

/// The number that expresses a level.
pub(super) fn level_of(expression: Option<Expression>, role: Role, level: Level) -> u32 {
    match (expression, level) {
        (
            Some(
                Expression::LocalPref { preferred, .. }
                | Expression::Med { preferred, .. }
                | Expression::OspfMetric { preferred, .. },
            ),
            Level::Preferred,
        ) => preferred,
        (
            Some(
                Expression::LocalPref { demoted, .. }
                | Expression::Med { demoted, .. }
                | Expression::OspfMetric { demoted, .. },
            ),
            Level::Demoted,
        ) => demoted,
        // Configured for no include file.
        (None | Some(Expression::Prepend { .. } | Expression::Community(_)), _) => {
            role.local_pref(level)
        }
    }
}

/// Writes the file and has it loaded.
#[derive(Debug)]
pub(super) struct Include {
    file: IncludeFile,
    /// A write whose end nobody waited for.
    writing: Option<JoinHandle<Result<(), IncludeError>>>,
}

impl Include {
    pub(super) const fn new(file: IncludeFile) -> Self {
        Self {
            file,
            writing: None,
        }
    }

    /// Whether the file could be replaced and the main configuration be read.
    pub(super) fn probe(&self) -> Result<(), IncludeError> {
        read_ours(&self.file.path)?;
        read(&self.file.main).map(drop)
    }

    /// Has this value loaded, unless it is.
    pub(super) async fn load(
        &mut self,
        client: &mut Client,
        value: u32,
    ) -> Result<(), IncludeError> {
        self.finish_writing().await?;
        let old = read_ours(&self.file.path)?;
        let new = self.file.content(value);
        let eval = Command::Eval(self.file.constant.clone());
        let is_written = old.as_deref() == Some(&new);
        if is_written && loaded::value(&client.ask(&eval).await?) == Some(value) {
            return Ok(());
        }
        self.refuse_newer(client).await?;
        if !is_written {
            self.write(Some(new)).await?;
        }
        let said = match self.try_to_load(client).await? {
            None => return self.expect(client, &eval, value).await,
            Some(said) => said,
        };
        if !is_written {
            self.write(old).await?;
        }
        Err(IncludeError::Refused { said })
    }

    /// None: loaded. Else why BIRD refuses.
    async fn try_to_load(&self, client: &mut Client) -> Result<Option<Reason>, IncludeError> {
        for command in [Command::ConfigureCheck, Command::Configure] {
            let reply = client.ask(&command).await?;
            if reply.is_error() {
                let said = format!("{:04} {}", reply.code(), reply.last_text());
                return Ok(Some(Reason::new(&said)));
            }
            if is_in_progress(&reply) {
                self.wait(client).await?;
            }
        }
        Ok(None)
    }

    /// Until nothing is being loaded any more.
    async fn wait(&self, client: &mut Client) -> Result<(), IncludeError> {
        let deadline = Instant::now() + LOAD_FOR;
        while is_in_progress(&client.ask(&Command::ConfigureStatus).await?) {
            if Instant::now() >= deadline {
                return Err(IncludeError::InProgress);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn expect(
        &self,
        client: &mut Client,
        eval: &Command,
        value: u32,
    ) -> Result<(), IncludeError> {
        let reply = client.ask(eval).await?;
        if loaded::value(&reply) == Some(value) {
            return Ok(());
        }
        Err(IncludeError::NotIncluded {
            path: self.file.path.clone(),
            constant: self.file.constant.to_string(),
            found: Reason::new(reply.last_text()).to_string(),
        })
    }

    /// The policy: nobody's unfinished work is loaded.
    async fn refuse_newer(&self, client: &mut Client) -> Result<(), IncludeError> {
        let status = client.ask(&Command::ShowStatus).await?;
        let ago = loaded::loaded_ago(&status).ok_or(IncludeError::Times)?;
        let loaded_at = SystemTime::now()
            .checked_sub(ago)
            .ok_or(IncludeError::Times)?;
        match newer(&self.file, loaded_at + SLACK)? {
            None => Ok(()),
            Some(path) => Err(IncludeError::Newer { path }),
        }
    }

    /// Replaces the file, or removes it. A dropped future does not stop it half-way, and the
    /// next call waits for its end.
    async fn write(&mut self, content: Option<String>) -> Result<(), IncludeError> {
        let path = self.file.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            replace(&path, content.as_deref())
        }));
        self.finish_writing().await
    }

    async fn finish_writing(&mut self) -> Result<(), IncludeError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let written = writing.await;
        self.writing = None;
        written.unwrap_or_else(|error| {
            let source = io::Error::other(error.to_string());
            Err(self.fault(source))
        })
    }

    fn fault(&self, source: io::Error) -> IncludeError {
        file_error(&self.file.path)(source)
    }
}

/// 0004 in progress, 0005 queued: in `configure` itself and in its status.
fn is_in_progress(reply: &Reply) -> bool {
    reply.lines().iter().any(|line| matches!(line.code, 4 | 5))
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> IncludeError {
    move |source| IncludeError::File {
        path: path.to_owned(),
        source,
    }
}

/// A file of bounded size.
fn read(path: &Path) -> Result<String, IncludeError> {
    let error = file_error(path);
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(&error)?;
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(&error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the file of ours holds; None: there is none.
fn read_ours(path: &Path) -> Result<Option<String>, IncludeError> {
    let not_ours = |reason| IncludeError::NotOurs {
        path: path.to_owned(),
        reason,
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mode = fs::metadata(folder).map_err(file_error(folder))?.mode();
    if mode & 0o002 != 0 {
        let reason = "everybody may write to its folder; give it a folder of its own, 0755";
        return Err(not_ours(reason));
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path)(error)),
        Ok(file) if !file.is_file() => {
            let reason = "it is a symbolic link or no regular file, and is not written through; \
                          name the file itself";
            return Err(not_ours(reason));
        }
        Ok(_) => {}
    }
    let text = read(path)?;
    if text.is_empty() || text.starts_with(HEADER) {
        return Ok(Some(text));
    }
    let reason = "it was not written by anycast, and is not overwritten; name another file, or \
                  empty this one";
    Err(not_ours(reason))
}

/// Puts the content into place whole, or removes the file.
fn replace(path: &Path, content: Option<&str>) -> Result<(), IncludeError> {
    let (folder, name) = match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => (folder, name),
        (None, _) | (_, None) => return Ok(()), // refused when it was configured
    };
    if let Some(content) = content {
        let beside = folder.join(format!(".{}.new", name.to_string_lossy()));
        // Of an attempt that was interrupted; a link is removed and not followed.
        let _ = fs::remove_file(&beside);
        let written = write_new(&beside, content);
        let renamed = written.and_then(|()| fs::rename(&beside, path));
        if let Err(error) = renamed {
            let _ = fs::remove_file(&beside);
            return Err(file_error(path)(error));
        }
    } else {
        fs::remove_file(path).map_err(file_error(path))?;
    }
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(file_error(folder))
}

fn write_new(path: &Path, content: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    // Whatever the umask is: BIRD is another user.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// The first of a configuration's files that was changed after this.
fn newer(file: &IncludeFile, loaded_at: SystemTime) -> Result<Option<PathBuf>, IncludeError> {
    let (mut next, mut seen) = (vec![file.main.clone()], Vec::new());
    while let Some(path) = next.pop() {
        if path == file.path || seen.contains(&path) || seen.len() >= MAX_FILES {
            continue;
        }
        let text = match read(&path) {
            Err(error) if path == file.main => return Err(error),
            // Its date can be told all the same.
            other => other.unwrap_or_default(),
        };
        seen.push(path.clone());
        if text.starts_with(HEADER) {
            continue; // another service's, which has it loaded by itself
        }
        let metadata = fs::metadata(&path).map_err(file_error(&path))?;
        if changed_at(&metadata) > loaded_at {
            return Ok(Some(path));
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        for pattern in loaded::includes(&text) {
            next.extend(expand(&folder.join(pattern)));
        }
    }
    Ok(None)
}

/// When its content or its place changed: a file that is moved here keeps its old date.
fn changed_at(file: &fs::Metadata) -> SystemTime {
    let changed = u64::try_from(file.ctime()).unwrap_or(0);
    let nanoseconds = u32::try_from(file.ctime_nsec()).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(changed, nanoseconds));
    let modified = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    changed.map_or(modified, |changed| changed.max(modified))
}

/// The files that a pattern stands for; wildcards in the last part of a path are known.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    if !name.contains(['*', '?']) {
        return if pattern.is_file() {
            vec![pattern.to_owned()]
        } else {
            Vec::new()
        };
    }
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let fits = |path: &PathBuf| {
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        !own.starts_with('.') && loaded::matches(&name, &own)
    };
    paths.filter(fits).collect()
}
