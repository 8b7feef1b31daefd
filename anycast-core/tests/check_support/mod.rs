//! What the tests of the checks of this host share: real processes that end with their test.

#![allow(dead_code, reason = "no one test uses all of it")]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anycast_core::health::{Evidence, Verdict};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Bound of everything that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The time-out of a probe that is expected to answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// A process that leads a group of its own. Dropping it kills the group.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(program: impl AsRef<Path>, args: &[&str]) -> Self {
        let mut command = Command::new(program.as_ref());
        command.args(args).stdin(Stdio::null()).process_group(0);
        Self(command.spawn().unwrap())
    }

    /// A process that does nothing for long.
    pub(crate) fn sleep() -> Self {
        Self::start("/bin/sleep", &["1000"])
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// SIGKILL without taking notice of its end: a zombie stays.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGKILL, and its number is free.
    pub(crate) fn end(&mut self) {
        self.0.kill().unwrap();
        assert_eq!(self.0.wait().unwrap().signal(), Some(9));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_raw(self.pid()).unwrap(), Signal::KILL);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether there is such a process, a zombie included.
pub(crate) fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// The processes that have this text in their environment.
pub(crate) fn with_variable(variable: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| {
            let environment = std::fs::read(format!("/proc/{name}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|found| found == variable.as_bytes())
        })
        .collect()
}

pub(crate) fn assert_healthy(verdict: &Verdict) {
    assert_eq!(*verdict, Verdict::Healthy);
}

pub(crate) fn assert_unknown(verdict: &Verdict, part: &str) {
    match verdict {
        Verdict::Unknown(reason) => assert!(reason.as_str().contains(part), "{verdict}"),
        Verdict::Healthy | Verdict::Unhealthy(..) => panic!("not unknown: {verdict}"),
    }
}

pub(crate) fn assert_unhealthy(verdict: &Verdict, evidence: Evidence, part: &str) {
    match verdict {
        Verdict::Unhealthy(reason, found) => {
            assert!(reason.as_str().contains(part), "{verdict}");
            assert_eq!(*found, evidence, "{verdict}");
        }
        Verdict::Healthy | Verdict::Unknown(_) => panic!("not unhealthy: {verdict}"),
    }
}
