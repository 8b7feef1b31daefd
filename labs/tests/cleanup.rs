//! Nothing is left behind, however a lab ends: no process, namespace, link,
//! mount or file.
//!
//! Each lab here runs real daemons in several namespaces. Its processes are
//! found by a token in their environment, which all of them inherit.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells its state by printing"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, process, thread};

use anycast_labs::isolate::{Isolation, inside};
use anycast_labs::node::Kind;
use anycast_labs::topo::Lab;
use anycast_labs::{eventually, isolated};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const TOKEN: &str = "ANYCAST_LABS_TOKEN";
const PATIENCE: Duration = Duration::from_secs(60);
/// Said by a lab that is up: then daemons run.
const UP: &str = "the lab is up";

/// What a lab could leave behind on the machine, but for processes.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    links: BTreeSet<String>,
    names: BTreeSet<String>,
    mounts: String,
    files: Vec<&'static str>,
}

impl Traces {
    fn now() -> Self {
        let devices = fs::read_to_string("/proc/net/dev").unwrap();
        let links = devices.lines().filter_map(|line| line.split_once(':'));
        let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let files = ["/run/lab", "/run/group", "/var/tmp/frr"];
        Self {
            links: links.map(|(name, _)| name.trim().to_owned()).collect(),
            names: names
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            files: files
                .into_iter()
                .filter(|path| fs::exists(path).unwrap())
                .collect(),
        }
    }
}

/// The processes that have `token` in their environment, by name.
fn processes(token: &str) -> Vec<String> {
    let wanted = format!("{TOKEN}={token}");
    let entries = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let ours = entries.filter(|path| {
        let environ = fs::read(path.join("environ")).unwrap_or_default();
        environ
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    });
    ours.map(|path| {
        fs::read_to_string(path.join("comm"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
    .collect()
}

fn token(name: &str) -> String {
    format!("{name}-{}", process::id())
}

fn build_lab() -> Lab {
    let lab = Lab::build(Kind::Bird, Kind::Frr, &[("file", b"content")]).unwrap();
    fs::create_dir_all("/var/tmp/frr").unwrap();
    eventually(PATIENCE, "the sessions", || {
        lab.router.established().unwrap() == 4
    })
    .unwrap();
    println!("{UP}");
    lab
}

/// This same test, isolated, with the token in its environment.
fn isolation(name: &str) -> Isolation {
    Isolation::new(["--exact", name, "--nocapture"])
        .mark(name)
        .env(TOKEN, token(name))
}

/// Starts this test again, as a process group of its own that isolates itself,
/// and answers when its lab is up and its daemons have been seen.
fn start_runner(name: &str) -> Child {
    // Whoever runs the tests in the background, as CI may, has them ignore the keyboard.
    let mut runner = Command::new("env")
        .arg("--default-signal=INT")
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(TOKEN, token(name))
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(runner.stdout.take().unwrap());
    let mut lines = output.lines().map_while(Result::ok);
    let up = lines.any(|line| line.contains(UP));
    if !up {
        let _ = runner.wait();
        panic!("the lab did not come up");
    }
    // Keep reading, so that a writer never stands still.
    thread::spawn(move || lines.for_each(drop));
    let seen = processes(&token(name));
    for daemon in ["bird", "bgpd", "zebra", "unshare"] {
        assert!(
            seen.iter().any(|comm| comm == daemon),
            "no {daemon} among {seen:?}"
        );
    }
    runner
}

fn assert_nothing_left(name: &str, before: &Traces) {
    let token = token(name);
    let gone = eventually(PATIENCE, "every process to end", || {
        processes(&token).is_empty()
    });
    assert!(gone.is_ok(), "left running: {:?}", processes(&token));
    assert_eq!(*before, Traces::now());
}

#[test]
fn a_lab_that_panics_leaves_nothing_and_shows_its_state() {
    let name = "a_lab_that_panics_leaves_nothing_and_shows_its_state";
    if inside().is_some() {
        isolated(|| {
            let _lab = build_lab();
            panic!("on purpose");
        });
        return;
    }
    let before = Traces::now();
    let mut output = Vec::new();
    let ended = isolation(name)
        .start()
        .unwrap()
        .wait(Some(PATIENCE), |bytes| output.extend_from_slice(bytes));
    let said = String::from_utf8_lossy(&output);
    assert!(!ended.unwrap().success(), "{said}");
    for expected in [
        UP,
        "on purpose",
        "--- router: show protocols all",
        "--- site-a: show bgp summary",
        "--- last lines of /run/lab/router-bird.log",
    ] {
        assert!(said.contains(expected), "not said: {expected}\n{said}");
    }
    assert_nothing_left(name, &before);
}

#[test]
fn a_lab_that_runs_out_of_time_leaves_nothing() {
    let name = "a_lab_that_runs_out_of_time_leaves_nothing";
    if inside().is_some() {
        isolated(|| {
            let _lab = build_lab();
            loop {
                thread::park();
            }
        });
        return;
    }
    let before = Traces::now();
    let running = isolation(name).start().unwrap();
    eventually(PATIENCE, "a daemon", || {
        processes(&token(name)).iter().any(|comm| comm == "bgpd")
    })
    .unwrap();
    let error = running
        .wait(Some(Duration::from_millis(1)), |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("killed"), "{error}");
    assert_nothing_left(name, &before);
}

/// The runner isolates itself and waits for ever; `end` ends the runner alone.
fn ended_from_outside(name: &str, end: impl FnOnce(Pid)) {
    if inside().is_some() || env::var_os(TOKEN).is_some() {
        isolation_of_runner(name);
        return;
    }
    let before = Traces::now();
    let mut runner = start_runner(name);
    end(Pid::from_raw(runner.id().cast_signed()));
    assert!(!runner.wait().unwrap().success());
    assert_nothing_left(name, &before);
}

fn isolation_of_runner(name: &str) {
    if inside().is_none() {
        let token = env::var(TOKEN).unwrap();
        let isolation = Isolation::new(["--exact", name, "--nocapture"])
            .mark(name)
            .env(TOKEN, token);
        isolation
            .inherit_output()
            .start()
            .unwrap()
            .wait(None, |_| {})
            .unwrap();
        return;
    }
    isolated(|| {
        let _lab = build_lab();
        loop {
            thread::park();
        }
    });
}

#[test]
fn a_lab_whose_runner_is_killed_leaves_nothing() {
    ended_from_outside("a_lab_whose_runner_is_killed_leaves_nothing", |runner| {
        kill(runner, Signal::SIGKILL).unwrap();
    });
}

#[test]
fn a_lab_that_is_interrupted_from_the_keyboard_leaves_nothing() {
    // Ctrl-C reaches the whole process group of the terminal.
    ended_from_outside(
        "a_lab_that_is_interrupted_from_the_keyboard_leaves_nothing",
        |runner| {
            killpg(runner, Signal::SIGINT).unwrap();
        },
    );
}
