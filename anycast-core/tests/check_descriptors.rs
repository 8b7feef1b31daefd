//! A daemon that has run out of descriptors: its checks are `Unknown` where they need one, and
//! recover.

#![cfg(all(
    feature = "check-exec",
    feature = "check-process",
    feature = "check-file",
    feature = "check-disk",
    feature = "check-clock"
))]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits by the clock, fails by panicking and tells its state by printing"
)]

mod check_support;

use std::fs::File;
use std::process::Command;

use anycast_core::HealthCheck;
use anycast_core::health::Evidence::Probe;
use anycast_core::health::clock::ClockCheck;
use anycast_core::health::disk::DiskCheck;
use anycast_core::health::exec::ExecCheck;
use anycast_core::health::file::FileCheck;
use anycast_core::health::process::{ProcessCheck, Selector};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use check_support::{TIMEOUT, assert_healthy, assert_unhealthy, assert_unknown, eventually};

const INSIDE: &str = "ANYCAST_TEST_FEW_DESCRIPTORS";
const DONE: &str = "went through all of it";

/// In a process of its own, since the limit is a process's.
#[test]
fn without_descriptors_nobody_is_called_unhealthy() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(inside());
        println!("{DONE}");
        return;
    }
    let name = "without_descriptors_nobody_is_called_unhealthy";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(DONE), "{output:?}");
}

/// Every descriptor that is left.
fn exhaust() -> Vec<File> {
    let mut held = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(24), "{error}");
                return held;
            }
        }
    }
}

async fn inside() {
    let limit = Rlimit {
        current: Some(64),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let daemon = check_support::Daemon::sleep();
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    std::fs::write(&pid_file, daemon.pid().to_string()).unwrap();
    let by_file = ProcessCheck::new(Selector::PidFile(pid_file));
    let by_program = ProcessCheck::new(Selector::Executable("/no/such/program".into()));
    let by_unit = ProcessCheck::new(Selector::Unit("a.service".into()));
    let mut exec = ExecCheck::new("/bin/true");
    let mut following = by_file.clone();
    assert_healthy(&following.check(TIMEOUT).await);

    let held = exhaust();
    for _ in 0..3 {
        assert_unknown(&exec.check(TIMEOUT).await, "raise LimitNOFILE=");
        assert_unknown(&following.check(TIMEOUT).await, "raise LimitNOFILE=");
        for check in [&by_file, &by_program, &by_unit] {
            let verdict = check.clone().check(TIMEOUT).await;
            assert_unknown(&verdict, "raise LimitNOFILE=");
        }
        // These need no descriptor, so they know.
        assert_healthy(&FileCheck::new("/").check(TIMEOUT).await);
        let absent = FileCheck::new("/no/such/file").check(TIMEOUT).await;
        assert_unhealthy(&absent, Probe, "does not exist");
        assert_healthy(&DiskCheck::new(folder.path()).check(TIMEOUT).await);
        let clock = ClockCheck::new().check(TIMEOUT).await;
        assert!(!matches!(clock, anycast_core::Verdict::Unknown(_)));
    }
    assert_eq!(following.followed(), Some(daemon.pid()));
    one_by_one(held, &mut exec).await;
    assert_healthy(&exec.check(TIMEOUT).await);
    assert_healthy(&following.check(TIMEOUT).await);
    assert_healthy(&by_file.clone().check(TIMEOUT).await);

    // A death is known without any descriptor.
    let held = exhaust();
    daemon.kill();
    let told = tokio::time::timeout(check_support::PATIENCE, following.changed()).await;
    let conclusive = anycast_core::health::Evidence::Conclusive;
    assert_unhealthy(&told.unwrap(), conclusive, "ended");
    drop(held);
}

/// Wherever in its start a command runs out, nothing of it is left.
async fn one_by_one(mut held: Vec<File>, exec: &mut ExecCheck) {
    let mut failures = 0;
    while held.pop().is_some() {
        let verdict = exec.check(TIMEOUT).await;
        if verdict == anycast_core::Verdict::Healthy {
            break;
        }
        assert_unknown(&verdict, "raise LimitNOFILE=");
        failures += 1;
    }
    assert!(failures > 3, "{failures}");
    let children = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let children = tasks.map(|task| {
            let children = std::fs::read_to_string(task.path().join("children"));
            children
                .unwrap_or_default()
                .split_ascii_whitespace()
                .count()
        });
        children.sum::<usize>()
    };
    // The one daemon of this test.
    eventually("no other child", || children() <= 1);
}
