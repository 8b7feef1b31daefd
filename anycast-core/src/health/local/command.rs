//! A command that is run once, and of which nothing is left: no process, no zombie.
//!
//! The command leads a process group of its own. Whenever a [`Running`] is dropped (it ended,
//! its time is up, the future that held it was dropped) the whole group is killed *before* its
//! leader is reaped, while the group's number can belong to nobody else. What a killed process
//! needs to die is waited for by one thread that lives only while there is something to reap.
//!
//! What escapes: a process that leaves the group (a daemon that calls `setsid`), and all of it
//! if this daemon itself is killed by SIGKILL outside a control group that ends with it.
//!
//! Output is read as it comes, so that it never blocks the command. The first
//! [`MAX_HEAD`] bytes are kept, and after [`MAX_OUTPUT`] the pipe is closed: a command that
//! goes on writing is ended by SIGPIPE.

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::net::unix::pipe::Receiver;

use super::pidfd::Pidfd;
use super::user::User;

/// How much of each stream is kept, in bytes.
pub(crate) const MAX_HEAD: usize = 1024;
/// How much of each stream is read, in bytes; then it is closed.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;
/// How much is read at a time, in bytes.
const PIECE: usize = 4096;
/// The `PATH` of every command, unless its own environment sets one.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// All of its environment, but for `PATH` and what the account brings.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) dir: PathBuf,
    pub(crate) user: Option<User>,
}

impl CommandLine {
    /// Starts it. May block as long as the file system with the program does.
    pub(crate) fn start(&self) -> io::Result<Started> {
        let (stdout, stdout_there) = io::pipe()?;
        let (stderr, stderr_there) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(stdout_there)
            .stderr(stderr_there)
            .process_group(0);
        if let Some(user) = &self.user {
            // Without groups() the standard library drops all supplementary groups.
            command.uid(user.uid()).gid(user.gid());
            for (key, value) in [
                ("USER", user.name().map(OsString::from)),
                ("LOGNAME", user.name().map(OsString::from)),
                ("HOME", user.home().map(OsString::from)),
            ] {
                command.envs(value.map(|value| (key, value)));
            }
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        let leader = Leader(Some(command.spawn()?));
        let pidfd = pidfd_open(leader.pid()?, PidfdFlags::empty())?;
        Ok(Started {
            leader,
            pidfd,
            stdout,
            stderr,
        })
    }
}

/// A command that was started outside the runtime. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Started {
    leader: Leader,
    pidfd: std::os::fd::OwnedFd,
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Started {
    /// Takes it into the runtime.
    pub(crate) fn watch(self) -> io::Result<Running> {
        Ok(Running {
            leader: self.leader,
            pidfd: Arc::new(Pidfd::new(self.pidfd)?),
            stdout: Output::new(self.stdout)?,
            stderr: Output::new(self.stderr)?,
        })
    }
}

/// A command that runs. Dropping it kills its process group and reaps it.
#[derive(Debug)]
pub(crate) struct Running {
    leader: Leader,
    pidfd: Arc<Pidfd>,
    stdout: Output,
    stderr: Output,
}

impl Running {
    /// What tells its end even after it was dropped.
    #[cfg(feature = "check-exec")]
    pub(crate) fn pidfd(&self) -> Arc<Pidfd> {
        Arc::clone(&self.pidfd)
    }

    /// Waits until its leader has ended, and reads its output meanwhile. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.pidfd.ended() => return,
                () = self.stdout.read() => {}
                () = self.stderr.read() => {}
            }
        }
    }

    /// After [`ended`](Self::ended): ends the rest of its group, and says how it ended.
    pub(crate) fn finish(mut self) -> io::Result<Finished> {
        let status = self.leader.reap()?;
        self.stdout.drain();
        self.stderr.drain();
        Ok(Finished {
            status,
            stdout: std::mem::take(&mut self.stdout.head),
            stderr: std::mem::take(&mut self.stderr.head),
        })
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// At most the first [`MAX_HEAD`] bytes.
    pub(crate) stdout: Vec<u8>,
    /// At most the first [`MAX_HEAD`] bytes.
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    /// The first line that is not blank, of standard output before standard error.
    pub(crate) fn first_line(&self) -> Option<String> {
        [&self.stdout, &self.stderr].into_iter().find_map(|head| {
            let text = String::from_utf8_lossy(head);
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            line.map(str::to_owned)
        })
    }
}

/// The leader of the command's process group, until it is reaped.
#[derive(Debug)]
struct Leader(Option<Child>);

impl Leader {
    fn pid(&self) -> io::Result<Pid> {
        let id = self.0.as_ref().map(Child::id);
        id.and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the command has no process id"))
    }

    /// Kills the group. Only while the leader is not reaped: then its number is still its own.
    fn kill(&mut self) {
        if let Ok(pid) = self.pid() {
            // Fails only when all of it has ended.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        if let Some(leader) = &mut self.0 {
            // A leader that went to another group; else a second, harmless signal.
            let _ = leader.kill();
        }
    }

    /// Ends the group of a leader that has ended, and reaps it.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        let status = match &mut self.0 {
            Some(leader) => leader.try_wait()?,
            None => None,
        };
        let status = status.ok_or_else(|| io::Error::other("its end could not be read"))?;
        self.0 = None;
        Ok(status)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut leader) = self.0.take()
            && matches!(leader.try_wait(), Ok(None))
        {
            reap_later(leader);
        }
    }
}

/// One stream of a command.
#[derive(Debug)]
struct Output {
    pipe: Option<Receiver>,
    head: Vec<u8>,
    total: usize,
}

impl Output {
    fn new(pipe: PipeReader) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(Receiver::from_owned_fd(pipe.into())?),
            head: Vec::new(),
            total: 0,
        })
    }

    /// Waits for a piece and takes it; waits for ever once the stream is closed. Cancel-safe.
    async fn read(&mut self) {
        let Some(pipe) = &self.pipe else {
            return std::future::pending().await;
        };
        let piece = match pipe.readable().await {
            Ok(()) => take(pipe, &mut self.head, &mut self.total),
            Err(_) => Piece::End,
        };
        if piece == Piece::End {
            self.pipe = None;
        }
    }

    /// Takes what is there, without waiting: also what the runtime has not heard of yet.
    fn drain(&mut self) {
        let Some(Ok(pipe)) = self.pipe.take().map(Receiver::into_nonblocking_fd) else {
            return;
        };
        let mut buffer = [0_u8; PIECE];
        while self.head.len() < MAX_HEAD {
            match rustix::io::read(&pipe, &mut buffer) {
                Ok(length @ 1..) => keep(&mut self.head, &buffer[..length]),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

fn keep(head: &mut Vec<u8>, piece: &[u8]) {
    let room = MAX_HEAD.saturating_sub(head.len());
    head.extend_from_slice(&piece[..piece.len().min(room)]);
}

fn take(pipe: &Receiver, head: &mut Vec<u8>, total: &mut usize) -> Piece {
    use io::ErrorKind;
    let mut buffer = [0_u8; PIECE];
    match pipe.try_read(&mut buffer) {
        Ok(length @ 1..) => {
            keep(head, &buffer[..length]);
            *total += length;
            if *total < MAX_OUTPUT {
                Piece::Some
            } else {
                Piece::End
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Piece::Some
        }
        Ok(_) | Err(_) => Piece::End,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Some,
    End,
}

/// Killed commands that have not died yet, and whether a thread looks after them.
struct Orphans {
    children: Vec<Child>,
    tended: bool,
}

static ORPHANS: Mutex<Orphans> = Mutex::new(Orphans {
    children: Vec::new(),
    tended: false,
});

/// Has a killed child reaped. If no thread can be had, the next orphan's thread does it.
fn reap_later(child: Child) {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    orphans.children.push(child);
    if !orphans.tended {
        let thread = std::thread::Builder::new().name("anycast-reaper".to_owned());
        orphans.tended = thread.spawn(reap_orphans).is_ok();
    }
}

fn reap_orphans() {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_secs(1);
    let mut pause = SHORTEST;
    loop {
        {
            let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
            orphans
                .children
                .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            if orphans.children.is_empty() {
                orphans.tended = false;
                return;
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}
