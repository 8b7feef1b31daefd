//! The copy of the program outside the namespaces.
//!
//! It finds `anycast-tftpd`, or has cargo build it, starts this program again inside, and
//! waits. SIGINT, SIGTERM and SIGHUP kill the inside; when this copy is killed itself, the
//! kernel does so. Either way every process, link and file inside goes with it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicI32, Ordering};
use std::{env, io, thread};

use anycast_labs::isolate::{self, Isolation};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Error;
use crate::{Options, screen, site};

const DAEMON: &str = "anycast-tftpd";

/// Runs the inside to its end and answers its exit status.
pub(crate) fn run(options: &Options) -> Result<u8, Error> {
    let daemon = daemon()?;
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::system("listen to signals"))?;
    let inside = Isolation::new(arguments(options))
        .env(site::DAEMON_VARIABLE, daemon)
        .inherit_output()
        .start()?;
    let pid = Pid::from_raw(inside.id().cast_signed());
    let caught = AtomicI32::new(0);
    let status = thread::scope(|scope| {
        let handle = signals.handle();
        scope.spawn(|| {
            for signal in &mut signals {
                caught.store(signal, Ordering::SeqCst);
                // Fails only when it has just ended.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        // Waits in this thread, with whose end the kernel would kill the inside.
        let status = inside.wait(None, |_| {});
        handle.close();
        status
    })?;
    let signal = caught.load(Ordering::SeqCst);
    if signal != 0 {
        screen::interrupted();
        return Ok(exit_code(signal));
    }
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(1),
        (None, signal) => exit_code(signal.unwrap_or(0)),
    })
}

/// As a shell tells a death by a signal.
fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

fn arguments(options: &Options) -> Vec<&'static str> {
    let flags = [
        (options.follower, "--follower"),
        (options.verbose, "--verbose"),
    ];
    flags
        .into_iter()
        .filter_map(|(given, flag)| given.then_some(flag))
        .collect()
}

/// The executable. Under cargo, cargo decides whether it has to be built anew.
fn daemon() -> Result<PathBuf, Error> {
    let ours = env::current_exe().map_err(Error::system("find the path of this executable"))?;
    let beside = ours.with_file_name(DAEMON);
    match env::var_os("CARGO") {
        Some(cargo) => build(Path::new(&cargo), &ours),
        None if beside.is_file() => Ok(beside),
        None => Err(Error::Daemon(format!(
            "{} is missing: run `cargo run --release -p quickstart`, which builds it, or put it there",
            beside.display()
        ))),
    }
}

fn build(cargo: &Path, ours: &Path) -> Result<PathBuf, Error> {
    let failed = |why: String| Error::Daemon(format!("cargo build -p {DAEMON}: {why}"));
    let mut command = anycast_labs::cargo::cargo(cargo);
    command
        .args(["build", "--package", DAEMON])
        .args(["--message-format", "json-render-diagnostics"])
        .args(profile(ours))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command
        .output()
        .map_err(|error: io::Error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{}; its messages are above", output.status)));
    }
    executable_in(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| failed("it builds no executable of this name".to_owned()))
}

/// The profile that this executable was built with, by its folder's name.
fn profile(ours: &Path) -> Vec<String> {
    let folder = ours.parent().and_then(Path::file_name);
    match folder.and_then(|name| name.to_str()) {
        None | Some("debug") => Vec::new(),
        Some(name) => vec!["--profile".to_owned(), name.to_owned()],
    }
}

fn executable_in(messages: &str) -> Option<PathBuf> {
    let mut artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    artifacts.find_map(|message| {
        let executable = message["executable"].as_str()?;
        (message["target"]["name"] == DAEMON).then(|| executable.into())
    })
}

/// Inside: prepares the namespaces, once, before anything else.
pub(crate) fn enter() -> Result<(), Error> {
    isolate::reexec(env::args_os().skip(1))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_that_of_the_folder() {
        assert!(profile(Path::new("/t/debug/quickstart")).is_empty());
        assert_eq!(
            profile(Path::new("/t/release/quickstart")),
            ["--profile", "release"]
        );
    }

    #[test]
    fn the_executable_is_read_from_what_cargo_says() {
        let messages = "{\"target\":{\"name\":\"tokio\"},\"executable\":null}\n\
            not json\n\
            {\"target\":{\"name\":\"anycast-tftpd\"},\"executable\":null}\n\
            {\"target\":{\"name\":\"anycast-tftpd\"},\"executable\":\"/t/anycast-tftpd\"}\n";
        assert_eq!(executable_in(messages), Some("/t/anycast-tftpd".into()));
        assert_eq!(executable_in("{}"), None);
    }

    #[test]
    fn a_death_by_signal_is_told_as_shells_do() {
        assert_eq!(exit_code(SIGINT), 130);
    }
}
