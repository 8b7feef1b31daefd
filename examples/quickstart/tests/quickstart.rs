//! The whole demonstration, with the built-in follower, and that nothing stays behind
//! however it ends: no process, link, mount or file.
//!
//! Its processes are found by a token in their environment, which all of them inherit.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, process, thread};

use anycast_labs::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const QUICKSTART: &str = env!("CARGO_BIN_EXE_quickstart");
const TOKEN: &str = "ANYCAST_QUICKSTART_TOKEN";
/// Bound of a whole run, which may have to build the daemon first on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bound of the end of everything after the end of the program.
const SOON: Duration = Duration::from_secs(60);
/// Said when both sites are up and the first transfer is about to begin.
const UNDER_WAY: &str = "1. The daemon alone dies";

/// One run at a time: each of them is a network of its own with daemons and a transfer.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What could be left behind on the machine, but for processes and files.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    links: BTreeSet<String>,
    mounts: String,
    lab: bool,
}

impl Traces {
    fn now() -> Self {
        let devices = fs::read_to_string("/proc/net/dev").unwrap();
        let links = devices.lines().filter_map(|line| line.split_once(':'));
        Self {
            links: links.map(|(name, _)| name.trim().to_owned()).collect(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            lab: fs::exists("/run/lab").unwrap(),
        }
    }
}

/// A started demonstration, in an empty folder that is its temporary folder too.
struct Run {
    child: Child,
    token: String,
    folder: TempDir,
    before: Traces,
}

impl Run {
    fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = format!("{name}-{}", process::id());
        let before = Traces::now();
        let child = Command::new(QUICKSTART)
            .arg("--follower")
            .arg("--verbose")
            .current_dir(folder.path())
            .env("TMPDIR", folder.path())
            .env(TOKEN, &token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            child,
            token,
            folder,
            before,
        }
    }

    /// Waits until the daemons run.
    fn await_under_way(&mut self) {
        let mut lines = BufReader::new(self.child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains(UNDER_WAY)),
            "it ended before"
        );
        // Keep reading, so that the writer never stands still.
        thread::spawn(move || lines.for_each(drop));
        let running = processes(&self.token);
        let daemons = running.iter().filter(|name| *name == "anycast-tftpd");
        assert_eq!(daemons.count(), 2, "{running:?}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = eventually(PATIENCE, "the demonstration to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if ended.is_err() {
            let _ = self.child.kill();
        }
        status.unwrap()
    }

    fn assert_nothing_left(&self) {
        let gone = eventually(SOON, "every process to end", || {
            processes(&self.token).is_empty()
        });
        assert!(gone.is_ok(), "left running: {:?}", processes(&self.token));
        assert_eq!(self.before, Traces::now());
        assert_eq!(files(self.folder.path()), Vec::<String>::new());
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The names of the processes that have `token` in their environment.
fn processes(token: &str) -> Vec<String> {
    let wanted = format!("{TOKEN}={token}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ours = entries.map(|entry| entry.path()).filter(|path| {
        let environ = fs::read(path.join("environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    });
    ours.map(|path| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        name.trim().to_owned()
    })
    .collect()
}

#[test]
fn both_runs_end_well_and_leave_nothing() {
    let _turn = turn();
    let mut run = Run::start("whole");
    let mut stdout = run.child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut said = String::new();
        stdout.read_to_string(&mut said).map(|_| said)
    });
    let status = run.wait();
    let said = reader.join().unwrap().unwrap();
    assert!(status.success(), "{status}\n{said}");
    let mut rest = said.as_str();
    for expected in [
        "built-in follower",
        UNDER_WAY,
        "+ 0.000 s  anycast-tftpd at site-a killed",
        "boost gone at site-a",
        "route moved to site-b",
        "the same transfer goes on",
        "BLAKE3 equal; no request failed",
        "2. The whole site is cut off",
        "+ 0.000 s  site-a cut off",
        "route moved to site-b",
        "the same transfer goes on",
        "BLAKE3 equal; no request failed",
        "Done in",
    ] {
        let Some((_, after)) = rest.split_once(expected) else {
            panic!("not said, or not in this order: {expected}\n{said}");
        };
        rest = after;
    }
    run.assert_nothing_left();
}

#[test]
fn terminated_under_way_it_leaves_nothing() {
    let _turn = turn();
    let mut run = Run::start("terminated");
    run.await_under_way();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().code(), Some(143));
    run.assert_nothing_left();
}

#[test]
fn interrupted_under_way_it_leaves_nothing() {
    let _turn = turn();
    let mut run = Run::start("interrupted");
    run.await_under_way();
    run.signal(Signal::SIGINT);
    assert_eq!(run.wait().code(), Some(130));
    run.assert_nothing_left();
}

#[test]
fn killed_under_way_it_leaves_nothing() {
    let _turn = turn();
    let mut run = Run::start("killed");
    run.await_under_way();
    run.signal(Signal::SIGKILL);
    assert!(!run.wait().success());
    run.assert_nothing_left();
}

#[test]
fn without_cargo_and_daemon_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("quickstart");
    fs::copy(QUICKSTART, &alone).unwrap();
    let output = Command::new(alone).env_remove("CARGO").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("anycast-tftpd is missing"), "{said}");
    assert!(said.contains("cargo run --release -p quickstart"), "{said}");
}

#[test]
fn help_names_the_options() {
    let output = Command::new(QUICKSTART).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for option in ["--follower", "--verbose"] {
        assert!(said.contains(option), "{said}");
    }
}
