//! What `/proc` says of processes.
//!
//! Reads here do not wait for the process, but for [`command_line`], which waits while the
//! process holds its memory map (it may, in a dying disk); so that one runs among blocking
//! calls only.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Pid;

/// A process as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `I`, `X` (proc_pid_stat(5)).
    pub(super) state: u8,
    pub(super) parent: i32,
    /// Whether it is a thread of the kernel.
    pub(super) kernel: bool,
    /// When it started, in ticks of 10 ms since the boot.
    pub(super) start: u64,
}

/// Ticks of [`Stat::start`] in a second: USER_HZ, part of the kernel's interface.
pub(super) const TICKS_PER_SECOND: u64 = 100;

/// The present time in ticks of [`Stat::start`].
pub(super) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * TICKS_PER_SECOND + nanoseconds / (1_000_000_000 / TICKS_PER_SECOND)
}

/// Reads `/proc/PID/stat`. Three system calls, no allocation.
pub(super) fn stat(pid: Pid) -> io::Result<Stat> {
    let mut path = [0_u8; 32];
    let length = {
        use io::Write;
        let mut rest = &mut path[..];
        write!(rest, "/proc/{}/stat", pid.as_raw_nonzero())?;
        let left = rest.len();
        path.len() - left
    };
    let path = OsStr::from_bytes(path.get(..length).unwrap_or_default());
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0_u8; 1024];
    let length = rustix::io::read(&file, &mut buffer)?;
    let text = buffer.get(..length).unwrap_or_default();
    parse_stat(text).ok_or_else(|| io::Error::other("/proc/PID/stat cannot be read"))
}

/// `1234 (any name) S 1 …`: the name may hold anything, so fields count from its last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(4)?.parse().ok()?;
    let start = fields.nth(12)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        kernel: flags & PF_KTHREAD != 0,
        start,
    })
}

/// Its short name, for reasons.
pub(super) fn name(pid: Pid) -> String {
    let name = read(pid, "comm", 64).unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_owned()
}

/// The path of its program, also after the file was replaced by an upgrade.
pub(super) fn executable(pid: Pid) -> io::Result<PathBuf> {
    let path = std::fs::read_link(file(pid, "exe"))?;
    let bytes = path.as_os_str().as_bytes();
    Ok(match bytes.strip_suffix(b" (deleted)") {
        Some(kept) => PathBuf::from(OsStr::from_bytes(kept)),
        None => path,
    })
}

/// Its effective user.
pub(super) fn user(pid: Pid) -> io::Result<u32> {
    let status = read(pid, "status", 4096)?;
    parse_user(&String::from_utf8_lossy(&status))
        .ok_or_else(|| io::Error::other("/proc/PID/status has no user"))
}

/// `Uid:  real  effective  saved  file system`.
fn parse_user(status: &str) -> Option<u32> {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Its program name and arguments, joined with spaces; at most 64 KiB. May block.
pub(super) fn command_line(pid: Pid) -> io::Result<String> {
    let mut bytes = read(pid, "cmdline", 1 << 16)?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    for byte in &mut bytes {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a control group of its has this name at any level.
pub(super) fn is_in_group(pid: Pid, name: &str) -> io::Result<bool> {
    let groups = read(pid, "cgroup", 1 << 16)?;
    let groups = String::from_utf8_lossy(&groups);
    Ok(groups
        .lines()
        .any(|line| line.split('/').any(|level| level == name)))
}

fn file(pid: Pid, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()))
}

fn read(pid: Pid, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(file(pid, name))?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All processes at one moment, by program.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_executable: BTreeMap<PathBuf, Vec<Pid>>,
    /// Those whose program this daemon may not see, with their user where that can be seen.
    unseen: Vec<(Pid, Option<u32>)>,
    /// Whether `/proc` shows processes of other users at all.
    hides: bool,
}

impl Table {
    /// Reads all of `/proc`: about 3 µs for each process.
    pub(super) fn read() -> io::Result<Self> {
        let mut table = Self::default();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                table.add(pid);
            }
        }
        // Process 1 is always there.
        table.hides = !Path::new("/proc/1").exists();
        Ok(table)
    }

    fn add(&mut self, pid: Pid) {
        match executable(pid) {
            Ok(path) => self.by_executable.entry(path).or_default().push(pid),
            // It has ended meanwhile, or is a thread of the kernel.
            Err(error) if is_gone(&error) => {}
            Err(_) => {
                if !stat(pid).is_ok_and(|stat| stat.kernel) {
                    self.unseen.push((pid, user(pid).ok()));
                }
            }
        }
    }

    pub(super) fn of(&self, executable: &Path) -> &[Pid] {
        self.by_executable
            .get(executable)
            .map_or(&[], Vec::as_slice)
    }

    /// Why a process that is not in the table may be there nevertheless.
    pub(super) fn blind(&self, wanted_user: Option<u32>) -> Option<String> {
        let could_be = |user: Option<u32>| match (wanted_user, user) {
            (Some(wanted), Some(user)) => wanted == user,
            (None, _) | (_, None) => true,
        };
        let mut unseen = self.unseen.iter().filter(|(_, user)| could_be(*user));
        if let Some((pid, _)) = unseen.next() {
            return Some(format!(
                "{} processes cannot be looked into, {} among them; give this daemon \
                 CAP_SYS_PTRACE, or select by pid_file or unit",
                unseen.count() + 1,
                pid.as_raw_nonzero()
            ));
        }
        self.hides.then(|| {
            "/proc hides other users' processes (hidepid, ProtectProc=); give this daemon \
             CAP_SYS_PTRACE or take the hiding away"
                .to_owned()
        })
    }
}

/// `ENOENT`, `ESRCH`: there is no such process (any more).
pub(super) fn is_gone(error: &io::Error) -> bool {
    const ENOENT: i32 = 2;
    const ESRCH: i32 = 3;
    matches!(error.raw_os_error(), Some(ENOENT | ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let text = b"42 (a) S 7 (x)) T 7 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987 0 0\n";
        let stat = parse_stat(text).unwrap();
        let expected = Stat {
            state: b'T',
            parent: 7,
            kernel: false,
            start: 987,
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn garbage_is_no_process() {
        for text in [
            &b""[..],
            b"1 (",
            b"1 ()",
            b"1 (a) S",
            b"1 (a) S x 1",
            b"\xff) \xff",
        ] {
            assert_eq!(parse_stat(text), None);
        }
        assert_eq!(parse_user("Name: x\nUid:\t1\n"), None);
    }

    #[test]
    fn this_process_is_found_in_proc() {
        let pid = rustix::process::getpid();
        let stat = stat(pid).unwrap();
        assert!(stat.start <= now() && now() - stat.start < 86_400 * TICKS_PER_SECOND);
        assert!(!stat.kernel);
        let exe = std::env::current_exe().unwrap();
        assert_eq!(executable(pid).unwrap(), exe);
        assert_eq!(user(pid).unwrap(), rustix::process::geteuid().as_raw());
        assert!(command_line(pid).unwrap().contains("anycast_core"));
        assert!(Table::read().unwrap().of(&exe).contains(&pid));
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let pid = rustix::process::getpid();
        let table = Table {
            unseen: vec![(pid, Some(7)), (pid, None)],
            ..Table::default()
        };
        assert!(table.blind(None).unwrap().starts_with("2 processes"));
        assert!(table.blind(Some(8)).unwrap().starts_with("1 processes"));
        assert_eq!(Table::default().blind(None), None);
    }
}
