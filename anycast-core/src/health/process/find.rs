//! Finding the process: opening one by its number, by a pid file, by its program.
//!
//! All of it may block, and runs among blocking calls.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::procfs::{self, Stat, Table};
use crate::health::Verdict;
use crate::health::local::explain;
use crate::health::local::pidfd::has_ended;

/// How much of a pid file is read; the number is on its first line.
const MAX_PID_FILE: u64 = 64;

/// What the process must be, besides what selects it.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub(super) executable: Option<PathBuf>,
    pub(super) user: Option<u32>,
    pub(super) argument: Option<String>,
}

/// A process that was found, held by a pidfd.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pid: Pid,
    pub(super) start: u64,
    pub(super) name: String,
    pub(super) pidfd: OwnedFd,
    /// The state of the pid file that named it.
    pub(super) stamp: Option<Stamp>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Miss {
    /// No such process runs.
    Gone,
    /// That number is another process's.
    Other(String),
    /// It cannot be told.
    Failed(String),
}

impl Miss {
    fn failed(doing: &str, error: &io::Error) -> Self {
        Self::Failed(format!("{doing}: {}", explain(error)))
    }
}

/// Opens the process with this number, if it is the one that is meant.
///
/// It is looked at after it was opened, and found alive after that, so that what was seen was
/// seen of the process that is held.
pub(super) fn open(pid: Pid, identity: &Identity) -> Result<Found, Miss> {
    let number = pid.as_raw_nonzero();
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // The latter two: it is a thread, so the number was given anew.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Err(Miss::Gone),
        Err(errno) => {
            let doing = format!("process {number} cannot be watched");
            return Err(Miss::failed(&doing, &errno.into()));
        }
    };
    let looked = look(pid, identity);
    match has_ended(&pidfd) {
        Ok(true) => return Err(Miss::Gone),
        Ok(false) => {}
        Err(error) => return Err(Miss::failed("poll", &error)),
    }
    let stat = match looked {
        // It is there, so /proc hides it.
        Err(Miss::Gone) => return Err(hidden(pid)),
        looked => looked?,
    };
    Ok(Found {
        pid,
        start: stat.start,
        name: procfs::name(pid),
        pidfd,
        stamp: None,
    })
}

fn look(pid: Pid, identity: &Identity) -> Result<Stat, Miss> {
    let stat = procfs::stat(pid).map_err(|error| absent_or_unreadable(pid, &error))?;
    matches(pid, identity)?;
    Ok(stat)
}

fn absent_or_unreadable(pid: Pid, error: &io::Error) -> Miss {
    if procfs::is_gone(error) {
        return Miss::Gone;
    }
    unreadable(pid, error)
}

fn hidden(pid: Pid) -> Miss {
    Miss::Failed(format!(
        "/proc hides process {} (hidepid, ProtectProc=); give this daemon CAP_SYS_PTRACE or \
         take the hiding away",
        pid.as_raw_nonzero()
    ))
}

/// Why `/proc` does not show a process that is there.
pub(super) fn unreadable(pid: Pid, error: &io::Error) -> Miss {
    let number = pid.as_raw_nonzero();
    if procfs::is_gone(error) {
        return hidden(pid);
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Miss::Failed(format!(
            "process {number} cannot be looked into: {error}; give this daemon CAP_SYS_PTRACE, \
             or remove `executable`"
        ));
    }
    Miss::failed(&format!("process {number} cannot be looked at"), error)
}

fn matches(pid: Pid, identity: &Identity) -> Result<(), Miss> {
    let number = pid.as_raw_nonzero();
    let failed = |error: io::Error| absent_or_unreadable(pid, &error);
    if let Some(wanted) = &identity.executable {
        let executable = procfs::executable(pid).map_err(failed)?;
        if !is_program(&executable, wanted) {
            let executable = executable.display();
            return Err(Miss::Other(format!("process {number} is {executable}")));
        }
    }
    if let Some(wanted) = identity.user {
        let user = procfs::user(pid).map_err(failed)?;
        if user != wanted {
            return Err(Miss::Other(format!("process {number} is of user {user}")));
        }
    }
    if let Some(wanted) = &identity.argument {
        let line = procfs::command_line(pid).map_err(failed)?;
        if line.is_empty() {
            // The kernel has one only from the end of execve on.
            let why = format!("process {number} has no command line: it is just being started");
            return Err(Miss::Failed(why));
        }
        if !line.contains(wanted.as_str()) {
            return Err(Miss::Other(format!(
                "process {number} has no {wanted:?} in its command line"
            )));
        }
    }
    Ok(())
}

/// Whether a running program is the wanted one, which may be written with links in its path.
fn is_program(executable: &Path, wanted: &Path) -> bool {
    executable == wanted || std::fs::canonicalize(wanted).is_ok_and(|real| real == executable)
}

/// One state of a pid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.len(),
        }
    }
}

/// A process that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead {
    pub(super) pid: Pid,
    pub(super) start: u64,
    pub(super) stamp: Option<Stamp>,
}

/// Finds the process that a pid file names.
pub(super) fn by_pid_file(
    path: &Path,
    identity: &Identity,
    dead: Option<Dead>,
) -> Result<Found, Verdict> {
    let shown = path.display();
    let (pid, stamp) = read_pid_file(path)?;
    let number = pid.as_raw_nonzero();
    let stale = || {
        Verdict::gone(format!(
            "{shown} names process {number}, which is not running"
        ))
    };
    match open(pid, identity) {
        Ok(found) => {
            // The file is as it was when this process died: its number was given anew.
            let reused = dead.is_some_and(|dead| {
                dead.pid == pid && dead.start != found.start && dead.stamp == Some(stamp)
            });
            if reused {
                return Err(stale());
            }
            Ok(Found {
                stamp: Some(stamp),
                ..found
            })
        }
        Err(Miss::Gone) => Err(stale()),
        Err(Miss::Other(what)) => Err(Verdict::unhealthy(format!(
            "{shown} is stale: {what}, not the service"
        ))),
        Err(Miss::Failed(why)) => Err(Verdict::unknown(format!("{shown}: {why}"))),
    }
}

fn read_pid_file(path: &Path) -> Result<(Pid, Stamp), Verdict> {
    let shown = path.display();
    let read = || -> io::Result<(Vec<u8>, Stamp)> {
        let mut options = std::fs::OpenOptions::new();
        // A FIFO would block.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = options.read(true).custom_flags(flags).open(path)?;
        let stamp = Stamp::from(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(MAX_PID_FILE).read_to_end(&mut bytes)?;
        Ok((bytes, stamp))
    };
    match read() {
        Ok((bytes, stamp)) => match parse_pid(&bytes) {
            Some(pid) => Ok((pid, stamp)),
            None => Err(Verdict::unknown(format!(
                "{shown} does not begin with a process id"
            ))),
        },
        Err(error) if is_absence(&error) => Err(Verdict::unhealthy(format!(
            "{shown} does not exist: the service is not running"
        ))),
        Err(error) => Err(Verdict::unknown(format!("{shown}: {}", explain(&error)))),
    }
}

fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The number on the first line; more lines may follow, as in PostgreSQL's.
pub(super) fn parse_pid(bytes: &[u8]) -> Option<Pid> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .and_then(Pid::from_raw)
}

/// Finds the process of a program: of several the one that none of the others started, and of
/// these the oldest.
pub(super) fn by_executable(
    path: &Path,
    table: &Table,
    identity: &Identity,
) -> Result<Found, Verdict> {
    let real = std::fs::canonicalize(path).ok().filter(|real| real != path);
    let shown = path.display();
    let mut candidates = Vec::new();
    for path in [Some(path), real.as_deref()].into_iter().flatten() {
        for pid in table.of(path) {
            match look(*pid, identity) {
                Ok(stat) => candidates.push((*pid, stat)),
                Err(Miss::Failed(why)) => {
                    return Err(Verdict::unknown(format!("{shown}: {why}")));
                }
                // It has ended meanwhile, or is another one.
                Err(Miss::Gone | Miss::Other(_)) => {}
            }
        }
    }
    let numbers: BTreeSet<i32> = candidates.iter().map(|(pid, _)| number(*pid)).collect();
    candidates
        .sort_by_key(|(pid, stat)| (numbers.contains(&stat.parent), stat.start, number(*pid)));
    for (pid, _) in candidates {
        match open(pid, identity) {
            Ok(found) => return Ok(found),
            Err(Miss::Gone | Miss::Other(_)) => {}
            Err(Miss::Failed(why)) => return Err(Verdict::unknown(format!("{shown}: {why}"))),
        }
    }
    Err(match table.blind(identity.user) {
        Some(why) => Verdict::unknown(format!("no process of {shown} was found, but {why}")),
        None => Verdict::gone(format!("no process of {shown} runs{}", identity.describe())),
    })
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

impl Identity {
    fn describe(&self) -> String {
        let user = self.user.map(|user| format!(" as user {user}"));
        let argument = self.argument.as_ref();
        let argument = argument.map(|argument| format!(" with {argument:?} in its command line"));
        [user, argument].into_iter().flatten().collect()
    }
}
