//! The check `exec` with real commands.

#![cfg(feature = "check-exec")]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits by the clock, fails by panicking and tells its state by printing"
)]

mod check_support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anycast_core::HealthCheck;
use anycast_core::health::Evidence::Probe;
use anycast_core::health::exec::{ExecCheck, ExitCodes, OnTimeout, Outcome, User};

use check_support::{
    TIMEOUT, assert_healthy, assert_unhealthy, assert_unknown, eventually, exists, with_variable,
};

fn sh(script: &str) -> ExecCheck {
    ExecCheck::new("/bin/sh").with_args(["-c", script])
}

/// A file into which scripts write the numbers of their processes.
struct Pids(tempfile::TempDir);

impl Pids {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> String {
        self.0.path().join("pids").to_str().unwrap().to_owned()
    }

    fn all(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Not even zombies.
    fn all_end(&self, at_least: usize) {
        let pids = self.all();
        assert!(pids.len() >= at_least, "{pids:?}");
        eventually("the command's processes to be gone", || {
            pids.iter().all(|pid| !exists(pid))
        });
    }
}

#[tokio::test]
async fn the_exit_code_is_the_verdict() {
    for code in [0, 1, 2, 3, 4, 125, 126, 127, 128, 137, 255] {
        let verdict = sh(&format!("exit {code}")).check(TIMEOUT).await;
        let said = format!("/bin/sh: exit code {code}");
        match code {
            0 => assert_healthy(&verdict),
            1 | 2 | 4 | 125 => assert_unhealthy(&verdict, Probe, &said),
            _ => assert_unknown(&verdict, &said),
        }
    }
    let killed = sh("kill -SEGV $$").check(TIMEOUT).await;
    assert_unknown(&killed, "killed by signal 11");
}

#[tokio::test]
async fn exit_codes_can_be_mapped() {
    let codes = ExitCodes::default()
        .with(0..=1, Outcome::Healthy)
        .with(3..=3, Outcome::Unhealthy)
        .with_signals(Outcome::Unhealthy);
    let verdict = |script: &str| {
        let mut check = sh(script).with_exit_codes(codes.clone());
        async move { check.check(TIMEOUT).await }
    };
    assert_healthy(&verdict("exit 1").await);
    assert_unhealthy(&verdict("exit 3").await, Probe, "exit code 3");
    assert_unhealthy(&verdict("kill -9 $$").await, Probe, "signal 9");
}

#[tokio::test]
async fn the_first_line_of_output_is_the_reason() {
    let script = "echo from the shell >&2; echo; echo 'CRITICAL: 3 of 4 down'; echo more; exit 2";
    let verdict = sh(script).check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "exit code 2: CRITICAL: 3 of 4 down");
    assert!(!verdict.to_string().contains("more"));
    let verdict = sh("echo no such thing >&2; exit 1").check(TIMEOUT).await;
    assert_unhealthy(&verdict, Probe, "exit code 1: no such thing");
    let verdict = sh("printf 'a\\033[2Jb\\377\\n'; exit 1")
        .check(TIMEOUT)
        .await;
    assert_unhealthy(&verdict, Probe, "exit code 1: a [2Jb\u{fffd}");
}

#[tokio::test]
async fn the_environment_is_clean() {
    let script = "test \"$A\" = 1 && test \"$(pwd)\" = /usr && env | cut -d= -f1 | sort | \
                  tr '\\n' ' '; exit 1";
    let mut check = sh(script).with_env("A", "1").with_dir("/usr");
    let verdict = check.check(TIMEOUT).await;
    // PWD, OLDPWD and _ are the shell's own.
    let said = verdict.to_string();
    let names = said.split("exit code 1: ").nth(1).unwrap().split(' ');
    let names: Vec<&str> = names
        .filter(|name| !["", "PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(names, ["A", "PATH"], "{said}");
}

#[tokio::test]
async fn what_cannot_be_started_is_unknown() {
    let mut missing = ExecCheck::new("/nonexistent/check");
    assert_unknown(&missing.check(TIMEOUT).await, "cannot be run: No such file");
    let mut folder = ExecCheck::new("/usr");
    assert_unknown(&folder.check(TIMEOUT).await, "Permission denied");
    let mut elsewhere = sh("exit 0").with_dir("/nonexistent");
    assert_unknown(&elsewhere.check(TIMEOUT).await, "cannot be run");
}

#[tokio::test]
async fn a_program_that_is_removed_is_unknown_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("probe");
    let install = |mode| {
        std::fs::copy("/bin/true", &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut check = ExecCheck::new(&program);
    install(0o755);
    // A fork of a parallel test may hold the file that was just written open: ETXTBSY.
    for _ in 0..1000 {
        if check.check(TIMEOUT).await == anycast_core::Verdict::Healthy {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_healthy(&check.check(TIMEOUT).await);
    std::fs::remove_file(&program).unwrap();
    assert_unknown(&check.check(TIMEOUT).await, "No such file");
    install(0o644);
    assert_unknown(&check.check(TIMEOUT).await, "Permission denied");
}

#[tokio::test]
async fn a_time_out_ends_the_whole_group() {
    let pids = Pids::new();
    let script = format!(
        "trap '' TERM INT; (trap '' TERM; sleep 1000 & echo $! >>{0}; wait) & \
         echo $! >>{0}; echo $$ >>{0}; wait",
        pids.file()
    );
    for (on_timeout, unhealthy) in [(OnTimeout::Unknown, false), (OnTimeout::Unhealthy, true)] {
        let mut check = sh(&script).with_on_timeout(on_timeout);
        let before = pids.all().len();
        // As long as it takes the script to write all three numbers.
        let mut timeout = Duration::from_millis(100);
        let verdict = loop {
            let verdict = check.check(timeout).await;
            if pids.all().len() >= before + 3 {
                break verdict;
            }
            timeout *= 2;
        };
        if unhealthy {
            assert_unhealthy(&verdict, Probe, "not ended within");
        } else {
            assert_unknown(&verdict, "not ended within");
        }
        pids.all_end(before + 3);
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_is_ended() {
    let pids = Pids::new();
    let script = format!("sleep 1000 & echo $! >>{0}; echo $$ >>{0}", pids.file());
    let mut check = sh(&script);
    for _ in 0..5 {
        assert_healthy(&check.check(TIMEOUT).await);
    }
    pids.all_end(10);
}

#[tokio::test]
async fn a_dropped_probe_leaves_no_process() {
    let pids = Pids::new();
    let variable = format!("ANYCAST_TEST_TOKEN=dropped-{}", std::process::id());
    let (name, value) = variable.split_once('=').unwrap();
    let script = format!(
        "echo $$ >>{0}; sleep 1000 & echo $! >>{0}; wait",
        pids.file()
    );
    let mut check = sh(&script).with_env(name, value);
    for milliseconds in (0..60).chain([200, 400, 800]) {
        let patience = Duration::from_millis(milliseconds);
        let dropped = tokio::time::timeout(patience, check.check(TIMEOUT)).await;
        assert!(dropped.is_err(), "{dropped:?}");
    }
    pids.all_end(1);
    eventually("no process of the check", || {
        with_variable(&variable).is_empty()
    });
    let mut check = sh("exit 0");
    assert_healthy(&check.check(TIMEOUT).await);
}

#[test]
fn the_end_of_the_runtime_ends_the_command() {
    let pids = Pids::new();
    let script = format!("echo $$ >>{}; sleep 1000", pids.file());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let task = runtime.spawn(async move { sh(&script).check(TIMEOUT).await });
    runtime.block_on(async {
        while pids.all().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    drop(runtime);
    drop(task);
    pids.all_end(1);
}

#[tokio::test]
async fn much_output_does_not_block_the_command() {
    for stream in ["1", "2"] {
        let script = format!("head -c 300000 /dev/zero >&{stream}; exit 0");
        assert_healthy(&sh(&script).check(TIMEOUT).await);
    }
}

#[tokio::test]
async fn a_flood_of_output_is_cut_off() {
    let variable = format!("ANYCAST_TEST_TOKEN=flood-{}", std::process::id());
    let (name, value) = variable.split_once('=').unwrap();
    for redirect in ["", ">&2"] {
        let mut check = sh(&format!("exec yes {redirect}")).with_env(name, value);
        let verdict = check.check(TIMEOUT).await;
        assert_unknown(&verdict, "killed by signal 13: y");
    }
    eventually("no process of the check", || {
        with_variable(&variable).is_empty()
    });
}

#[tokio::test]
async fn another_user_needs_privilege() {
    let mut check =
        sh("echo $(id -u) $(id -g) $(id -G); exit 1").with_user(User::new(65534, 65533));
    let verdict = check.check(TIMEOUT).await;
    if rustix::process::geteuid().is_root() {
        assert_unhealthy(&verdict, Probe, "exit code 1: 65534 65533 65533");
    } else {
        assert_unknown(&verdict, "cannot be run");
    }
}
