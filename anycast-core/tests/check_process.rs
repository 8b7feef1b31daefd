//! The check `process` with real processes.

#![cfg(feature = "check-process")]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits by the clock, fails by panicking and tells its state by printing"
)]

mod check_support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anycast_core::HealthCheck;
use anycast_core::health::Evidence::{Conclusive, Probe};
use anycast_core::health::process::{ProcessCheck, Selector};
use rustix::process::Signal;

use check_support::{
    Daemon, PATIENCE, TIMEOUT, assert_healthy, assert_unhealthy, assert_unknown, eventually, exists,
};

/// Longer than a process must have run to have taken over.
const TAKEOVER_AGE: Duration = Duration::from_millis(1500);

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("daemon.pid")
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        std::fs::write(self.pid_file(), text).unwrap();
    }

    fn names(&self, daemon: &Daemon) {
        self.write(format!("{}\n", daemon.pid()));
    }

    fn check(&self) -> ProcessCheck {
        ProcessCheck::new(Selector::PidFile(self.pid_file()))
    }

    /// A program that no other test runs.
    fn program(&self, of: &str) -> PathBuf {
        let path = self.folder.path().join("program");
        std::fs::copy(of, &path).unwrap();
        path
    }
}

/// Starts a program that was just written: a fork of a parallel test may still hold it open.
fn start(program: &Path, args: &[&str]) -> Daemon {
    let ready = || match std::process::Command::new(program)
        .arg("--version")
        .output()
    {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ExecutableFileBusy);
            false
        }
    };
    eventually("the program to be free", ready);
    Daemon::start(program, args)
}

async fn changed(check: &mut ProcessCheck) -> anycast_core::Verdict {
    tokio::time::timeout(PATIENCE, check.changed())
        .await
        .unwrap()
}

async fn stays_silent(check: &mut ProcessCheck) {
    let silence = tokio::time::timeout(Duration::from_millis(300), check.changed()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn a_death_is_told_at_once_and_the_successor_is_followed() {
    let site = Site::new();
    let mut first = Daemon::sleep();
    site.names(&first);
    let mut check = site.check();
    assert_healthy(&check.check(TIMEOUT).await);
    assert_eq!(check.followed(), Some(first.pid()));
    stays_silent(&mut check).await;

    first.kill();
    let verdict = changed(&mut check).await;
    assert_unhealthy(
        &verdict,
        Conclusive,
        &format!("process {} (sleep) ended", first.pid()),
    );
    assert_eq!(check.followed(), None);
    stays_silent(&mut check).await;
    // First as a zombie, then gone for good.
    for _ in 0..2 {
        let verdict = check.check(TIMEOUT).await;
        assert_unhealthy(&verdict, Conclusive, "which is not running");
        if exists(&first.pid().to_string()) {
            first.end();
        }
    }

    let second = Daemon::sleep();
    site.names(&second);
    assert_healthy(&check.check(TIMEOUT).await);
    assert_eq!(check.followed(), Some(second.pid()));
    second.kill();
    assert_unhealthy(&changed(&mut check).await, Conclusive, "ended");
}

#[tokio::test]
async fn a_death_that_nobody_waited_for_is_found_by_the_next_probe() {
    let site = Site::new();
    let mut daemon = Daemon::sleep();
    site.names(&daemon);
    let mut check = site.check();
    assert_healthy(&check.check(TIMEOUT).await);
    for _ in 0..20 {
        // Dropped at its first await.
        let dropped = tokio::time::timeout(Duration::ZERO, check.changed()).await;
        assert!(dropped.is_err());
        let _ = tokio::time::timeout(Duration::ZERO, check.check(TIMEOUT)).await;
    }
    daemon.end();
    let _ = tokio::time::timeout(Duration::ZERO, check.changed()).await;
    assert_unhealthy(&check.check(TIMEOUT).await, Conclusive, "");
}

#[tokio::test]
async fn a_stopped_process_serves_nobody() {
    let site = Site::new();
    let daemon = Daemon::sleep();
    site.names(&daemon);
    let mut check = site.check();
    assert_healthy(&check.check(TIMEOUT).await);
    daemon.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", daemon.pid());
    let is = |state: &str| std::fs::read_to_string(&stat).unwrap().contains(state);
    eventually("the process to stop", || is(") T "));
    let verdict = check.check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "is stopped (SIGSTOP)");
    stays_silent(&mut check).await;
    daemon.signal(Signal::CONT);
    eventually("the process to go on", || !is(") T "));
    assert_healthy(&check.check(TIMEOUT).await);
    assert_eq!(check.followed(), Some(daemon.pid()));
}

#[tokio::test]
async fn a_pid_file_that_names_another_program_is_stale() {
    let site = Site::new();
    let stranger = Daemon::sleep();
    site.names(&stranger);
    let mut check = site.check().with_executable("/usr/sbin/unbound");
    let verdict = check.check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "is stale: process");
    let mut check = site.check().with_user(12345);
    let verdict = check.check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "is of user");
    let mut check = site.check().with_argument("--port 53");
    let verdict = check.check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "no \"--port 53\" in its command line");

    // A path with a link in it is the same program.
    let link = site.folder.path().join("link");
    std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let check = site.check().with_executable(&link).with_user(uid);
    assert_healthy(&check.with_argument("1000").check(TIMEOUT).await);
}

#[tokio::test]
async fn a_pid_file_is_missing_stale_or_garbage() {
    let site = Site::new();
    let mut check = site.check();
    let verdict = check.check(TIMEOUT).await;
    assert_unhealthy(
        &verdict,
        Probe,
        "does not exist: the service is not running",
    );

    let mut dead = Daemon::sleep();
    dead.end();
    site.names(&dead);
    let verdict = check.check(TIMEOUT).await;
    assert_unhealthy(&verdict, Conclusive, "which is not running");

    let long = "9".repeat(10_000);
    for garbage in [
        "",
        "\n",
        "none",
        "-1",
        "0",
        "1.5",
        "+7",
        "99999999999",
        &long,
        "\u{0}1",
    ] {
        site.write(garbage);
        let verdict = check.check(TIMEOUT).await;
        assert_unknown(&verdict, "does not begin with a process id");
    }
    site.write([0xff; 100]);
    assert_unknown(&check.check(TIMEOUT).await, "process id");

    let folder = ProcessCheck::new(Selector::PidFile("/usr".into()))
        .check(TIMEOUT)
        .await;
    assert_unknown(&folder, "/usr");
    let below = site.pid_file().join("x");
    let below = ProcessCheck::new(Selector::PidFile(below))
        .check(TIMEOUT)
        .await;
    assert_unhealthy(&below, Probe, "does not exist");

    let daemon = Daemon::sleep();
    site.write(format!("  {}  \nmore lines\nfollow", daemon.pid()));
    assert_healthy(&check.check(TIMEOUT).await);
}

#[tokio::test]
async fn a_pid_file_that_is_a_fifo_blocks_nobody() {
    let site = Site::new();
    let path = site.pid_file();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert_unknown(&site.check().check(TIMEOUT).await, "process id");
}

#[tokio::test]
async fn the_pid_file_moves_on_while_the_old_process_drains() {
    let site = Site::new();
    let (old, new) = (Daemon::sleep(), Daemon::sleep());
    site.names(&old);
    let mut check = site.check();
    assert_healthy(&check.check(TIMEOUT).await);
    // A file that is gone or being written does not end a process that lives.
    std::fs::remove_file(site.pid_file()).unwrap();
    assert_healthy(&check.check(TIMEOUT).await);
    site.write("");
    assert_healthy(&check.check(TIMEOUT).await);
    assert_eq!(check.followed(), Some(old.pid()));

    site.names(&new);
    assert_healthy(&check.check(TIMEOUT).await);
    assert_eq!(check.followed(), Some(new.pid()));
    old.kill();
    stays_silent(&mut check).await;
    new.kill();
    assert_unhealthy(&changed(&mut check).await, Conclusive, "ended");
}

#[tokio::test]
async fn who_took_over_before_the_death_is_followed_in_silence() {
    let site = Site::new();
    let (mut old, new) = (Daemon::sleep(), Daemon::sleep());
    site.names(&old);
    let mut check = site.check();
    assert_healthy(&check.check(TIMEOUT).await);
    tokio::time::sleep(TAKEOVER_AGE).await;
    site.names(&new);
    old.end();
    stays_silent(&mut check).await;
    assert_eq!(check.followed(), Some(new.pid()));
    assert_healthy(&check.check(TIMEOUT).await);
    new.kill();
    assert_unhealthy(&changed(&mut check).await, Conclusive, "ended");
}

#[tokio::test]
async fn a_program_is_found_and_followed_over_restarts_and_upgrades() {
    let site = Site::new();
    let program = site.program("/bin/sleep");
    let mut check = ProcessCheck::new(Selector::Executable(program.clone()));
    let verdict = check.check(TIMEOUT).await;
    if sees_all() {
        assert_unhealthy(&verdict, Conclusive, "no process of");
    } else {
        assert_unknown(&verdict, "CAP_SYS_PTRACE");
    }
    let mut first = start(&program, &["1000"]);
    eventually_healthy(&mut check).await;
    assert_eq!(check.followed(), Some(first.pid()));

    // The file is replaced: the old process is the service still.
    std::fs::remove_file(&program).unwrap();
    assert_healthy(&check.check(TIMEOUT).await);
    let mut fresh = ProcessCheck::new(Selector::Executable(program.clone()));
    eventually_healthy(&mut fresh).await;
    assert_eq!(fresh.followed(), Some(first.pid()));
    site.program("/bin/sleep");

    first.end();
    assert_unhealthy(&changed(&mut check).await, Conclusive, "(program) ended");
    let second = start(&program, &["1001"]);
    eventually_healthy(&mut check).await;
    assert_eq!(check.followed(), Some(second.pid()));

    let mut other = ProcessCheck::new(Selector::Executable(program)).with_argument("1002");
    let verdict = other.check(TIMEOUT).await;
    if sees_all() {
        assert_unhealthy(&verdict, Conclusive, "with \"1002\" in its command line");
    }
}

/// Whether this test may look into every process. In some containers not even root may.
fn sees_all() -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let denied = processes.filter(|process| {
        let exe = std::fs::read_link(process.path().join("exe"));
        exe.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    });
    denied.count() == 0
}

/// The table of processes may be a tenth of a second old.
async fn eventually_healthy(check: &mut ProcessCheck) {
    let found = async {
        while check.check(TIMEOUT).await != anycast_core::Verdict::Healthy {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
}

#[tokio::test]
async fn of_a_family_the_parent_is_followed_and_then_what_it_left() {
    let site = Site::new();
    let program = site.program("/bin/dash");
    let inner = "while :; do read x < /dev/null; sleep 0.05; done";
    let path = program.display();
    let script = format!("{path} -c '{inner}' & echo $! > {path}.worker; wait");
    let mut master = start(&program, &["-c", &script]);
    let worker_file = PathBuf::from(format!("{path}.worker"));
    let worker = || -> Option<i32> {
        let text = std::fs::read_to_string(&worker_file).ok()?;
        text.trim().parse().ok()
    };
    eventually("the worker to run the program", || {
        worker().is_some_and(|worker| {
            std::fs::read_link(format!("/proc/{worker}/exe")).is_ok_and(|exe| exe == program)
        })
    });
    tokio::time::sleep(TAKEOVER_AGE).await;
    let mut check = ProcessCheck::new(Selector::Executable(program));
    eventually_healthy(&mut check).await;
    assert_eq!(check.followed(), Some(master.pid()));
    master.end();
    stays_silent(&mut check).await;
    assert_healthy(&check.check(TIMEOUT).await);
    assert_eq!(check.followed(), worker());
    let worker = rustix::process::Pid::from_raw(worker().unwrap()).unwrap();
    rustix::process::kill_process(worker, Signal::KILL).unwrap();
    assert_unhealthy(&changed(&mut check).await, Conclusive, "ended");
}

#[tokio::test]
async fn a_unit_that_systemd_does_not_know_is_unknown() {
    let unit = Selector::Unit("anycast-no-such-unit.service".to_owned());
    let verdict = ProcessCheck::new(unit).check(TIMEOUT).await;
    assert_unknown(&verdict, "anycast-no-such-unit.service");
}
