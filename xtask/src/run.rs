//! Running phases: one child process at a time, in a process group of its own, with a time
//! limit, so that a failure, a hang or Ctrl-C leaves nothing running.
//!
//! SIGINT, SIGTERM and SIGHUP only set a flag here. When one comes, the child's whole group
//! gets it, has [`GRACE`] to clean up, and is then killed.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// How long one command may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(25 * 60);
/// How long an interrupted command may clean up before it is killed.
const GRACE: Duration = Duration::from_secs(20);
/// How often a running command is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long output may stay open after a command has ended. Something that the command
/// started and left behind holds it open.
const DRAIN: Duration = Duration::from_secs(10);

/// The signals that end a run.
const TAKEN: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Why a command of xtask failed: one line.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line was wrong.
    Usage(String),
    /// A phase failed.
    Phase(String),
    /// A signal ended it.
    Interrupted(Signal),
}

impl Failure {
    pub(crate) fn usage(argument: &str) -> Self {
        Self::Usage(format!(
            "unknown argument {argument:?}; `cargo xtask help` lists what there is"
        ))
    }

    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Phase(text.into())
    }

    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Phase(_) => 1,
            Self::Interrupted(Signal::SIGINT) => 130,
            Self::Interrupted(_) => 143,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Phase(text) => f.write_str(text),
            Self::Interrupted(signal) => write!(f, "stopped by {signal}"),
        }
    }
}

/// Runs phases and keeps their times.
pub(crate) struct Runner {
    /// A skipped test is a failure, and missing tools are installed.
    pub(crate) ci: bool,
    root: PathBuf,
    /// The last signal, or 0.
    signal: Arc<AtomicUsize>,
    phases: Vec<(String, Duration)>,
    skips: Vec<String>,
}

impl Runner {
    pub(crate) fn new(ci: bool) -> Result<Self, Failure> {
        let signal = Arc::new(AtomicUsize::new(0));
        for which in TAKEN {
            signal_hook::flag::register_usize(which as i32, Arc::clone(&signal), which as usize)
                .map_err(|e| Failure::new(format!("cannot take {which}: {e}")))?;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .filter(|root| root.join("Cargo.lock").is_file())
            .ok_or_else(|| {
                Failure::new(
                    "the workspace was moved since xtask was built; run `cargo build -p xtask`",
                )
            })?
            .to_owned();
        Ok(Self {
            ci,
            root,
            signal,
            phases: Vec::new(),
            skips: Vec::new(),
        })
    }

    /// The workspace's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command in the workspace, with the lock file as it is committed.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = anycast_labs::cargo::cargo(cargo);
        command.current_dir(&self.root).args(arguments);
        command
    }

    /// What `cargo metadata` says of the workspace's own packages.
    pub(crate) fn metadata(&self) -> Result<Value, Failure> {
        let arguments = ["metadata", "--locked", "--format-version", "1", "--no-deps"];
        let (status, json) = self.output(self.cargo(&arguments))?;
        if !status.success() {
            return Err(Failure::new(
                "`cargo metadata --locked` failed; run it to see why",
            ));
        }
        serde_json::from_str(&json)
            .map_err(|e| Failure::new(format!("cannot read the output of `cargo metadata`: {e}")))
    }

    /// Announces a phase, does it, and records how long it took.
    pub(crate) fn phase(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        println!("==> {name}");
        let started = Instant::now();
        let outcome = work(self);
        let took = started.elapsed();
        self.phases.push((name.to_owned(), took));
        match &outcome {
            Ok(()) => println!("    {name}: {:.1} s", took.as_secs_f64()),
            Err(_) => println!("    {name}: failed after {:.1} s", took.as_secs_f64()),
        }
        outcome
    }

    /// Says that something is not tested here, and why. In CI that is a failure.
    pub(crate) fn skip(&mut self, what: &str, why: &str) -> Result<(), Failure> {
        if self.ci {
            return Err(Failure::new(format!(
                "{what} skipped, which CI does not allow: {why}"
            )));
        }
        println!("    SKIPPED {what}: {why}");
        self.skips.push(format!("{what}: {why}"));
        Ok(())
    }

    /// The times of all phases, and once more what was skipped.
    pub(crate) fn summary(&self, title: &str) {
        println!();
        for (name, took) in &self.phases {
            println!("{:>8.1} s  {name}", took.as_secs_f64());
        }
        let total: Duration = self.phases.iter().map(|(_, took)| *took).sum();
        println!("{:>8.1} s  in all", total.as_secs_f64());
        for skip in &self.skips {
            println!("SKIPPED  {skip}");
        }
        match self.skips.len() {
            0 => println!("{title}: passed"),
            n => println!("{title}: passed, but {n} skipped"),
        }
    }

    /// Runs a command to its end; its output goes to the terminal.
    pub(crate) fn run(&self, command: Command) -> Result<(), Failure> {
        self.run_watched(command, &mut |_| {})
    }

    /// Runs a command; `line` sees each line of its standard output, which is also printed.
    pub(crate) fn run_watched(
        &self,
        mut command: Command,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        let shown = show(&command);
        println!("    $ {shown}");
        let mut group = Group::spawn(&mut command, Stdio::inherit(), &shown)?;
        let status = self.wait(&mut group, &shown, &mut |text| {
            println!("{text}");
            line(text);
        })?;
        describe(status, &shown)
    }

    /// Runs a command quietly and returns how it ended, and its standard output.
    pub(crate) fn output(&self, mut command: Command) -> Result<(ExitStatus, String), Failure> {
        let shown = show(&command);
        let mut group = Group::spawn(&mut command, Stdio::null(), &shown)?;
        let mut output = String::new();
        let status = self.wait(&mut group, &shown, &mut |text| {
            output.push_str(text);
            output.push('\n');
        })?;
        Ok((status, output))
    }

    /// Waits for a group's leader, passing on its lines, until its end, the limit or a signal.
    fn wait(
        &self,
        group: &mut Group,
        shown: &str,
        line: &mut dyn FnMut(&str),
    ) -> Result<ExitStatus, Failure> {
        let started = Instant::now();
        loop {
            while let Ok(text) = group.lines.recv_timeout(TICK) {
                line(&text);
                self.check(group, started, shown)?;
            }
            self.check(group, started, shown)?;
            let status = group.child.try_wait();
            match status.map_err(|e| Failure::new(format!("cannot wait for `{shown}`: {e}")))? {
                Some(status) => return group.drain(status, shown, line),
                // The output is closed but the process lives: do not spin.
                None => thread::sleep(TICK),
            }
        }
    }

    fn check(&self, group: &mut Group, started: Instant, shown: &str) -> Result<(), Failure> {
        let taken = self.signal.load(Ordering::Relaxed);
        if let Some(signal) = TAKEN.into_iter().find(|which| *which as usize == taken) {
            group.stop(signal);
            return Err(Failure::Interrupted(signal));
        }
        if started.elapsed() > LIMIT {
            group.stop(Signal::SIGTERM);
            return Err(Failure::new(format!(
                "`{shown}` did not end within {} minutes and was stopped",
                LIMIT.as_secs() / 60
            )));
        }
        Ok(())
    }
}

/// A child process and all that it starts: one process group, killed on drop.
struct Group {
    child: Child,
    id: Pid,
    lines: mpsc::Receiver<String>,
}

impl Group {
    fn spawn(command: &mut Command, errors: Stdio, shown: &str) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::new(format!("cannot start `{shown}`: {e}")))?;
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || read_lines(output, &sender));
        }
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        Ok(Self { child, id, lines })
    }

    /// Passes the signal on and waits for the group to clean up; the drop kills what is left.
    fn stop(&mut self, signal: Signal) {
        let deadline = Instant::now() + GRACE;
        // The group may be gone already.
        let _ = killpg(self.id, signal);
        while Instant::now() < deadline && killpg(self.id, None).is_ok() {
            // The leader counts as a member until it is reaped.
            let _ = self.child.try_wait();
            thread::sleep(TICK);
        }
    }

    /// Reads what is still in the pipe of a leader that has ended.
    fn drain(
        &self,
        status: ExitStatus,
        shown: &str,
        line: &mut dyn FnMut(&str),
    ) -> Result<ExitStatus, Failure> {
        let deadline = Instant::now() + DRAIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(text) => line(&text),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(status),
                Err(mpsc::RecvTimeoutError::Timeout) if !status.success() => return Ok(status),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Failure::new(format!(
                        "`{shown}` ended but left a process behind that holds its output open"
                    )));
                }
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whatever the command left in its group ends with it; usually nothing is there.
        let _ = killpg(self.id, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Passes on lines until the pipe closes. Output that is not UTF-8 is shown as well as can be.
fn read_lines(output: ChildStdout, sender: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        if sender.send(text.trim_end_matches('\n').to_owned()).is_err() {
            return;
        }
    }
}

fn describe(status: ExitStatus, shown: &str) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no exit status".to_owned(),
    };
    // What the command said belongs above the one line that says that it failed.
    let _ = std::io::stdout().flush();
    Err(Failure::new(format!("`{shown}` failed: {how}")))
}

/// A command as one would type it.
fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut words = vec![name.to_string_lossy().into_owned()];
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@^".contains(c);
        if argument.len() > 200 {
            words.push("…".to_owned());
        } else if !argument.is_empty() && argument.chars().all(plain) {
            words.push(argument.into_owned());
        } else {
            words.push(format!("'{argument}'"));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_and_status_come_back() {
        let runner = Runner::new(false).unwrap();
        let mut seen = Vec::new();
        let outcome = runner.run_watched(shell("echo one; printf two"), &mut |line| {
            seen.push(line.to_owned());
        });
        assert!(outcome.is_ok());
        assert_eq!(seen, ["one", "two"]);
        let failure = runner.run(shell("exit 3")).unwrap_err();
        assert!(failure.to_string().contains("exit status 3"), "{failure}");
    }

    #[test]
    fn what_a_command_leaves_behind_is_a_failure_and_is_killed() {
        let runner = Runner::new(false).unwrap();
        let mut pid = String::new();
        let outcome = runner.run_watched(shell("sleep 600 & echo $!"), &mut |line| {
            pid = line.to_owned();
        });
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains("left a process behind"), "{failure}");
        let gone = || {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !gone() && Instant::now() < deadline {
            thread::sleep(TICK);
        }
        assert!(gone(), "{pid} still runs");
    }

    #[test]
    fn a_skip_is_a_failure_in_ci_only() {
        assert!(
            Runner::new(false)
                .unwrap()
                .skip("labs", "no kernel")
                .is_ok()
        );
        assert!(
            Runner::new(true)
                .unwrap()
                .skip("labs", "no kernel")
                .is_err()
        );
    }
}
