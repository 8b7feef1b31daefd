//! Running a test or a program inside namespaces of its own.
//!
//! # Contract
//!
//! The caller's own executable is started again under `unshare` (util-linux)
//! with a new mount, network and PID namespace, and a user namespace where the
//! caller may not make the others otherwise. An environment variable tells the
//! second copy that it is inside. There it finds an empty network with `lo`
//! up, empty `/run` and `/var/tmp` in memory, and a `/proc` that shows only its own
//! processes.
//!
//! # What ends it
//!
//! The second copy is the first process of its PID namespace: when it ends,
//! the kernel kills every process in there, and with the last of them go the
//! namespaces, links and files. It ends when it is done; when its time is up;
//! and when the outer copy dies, by whatever signal: the kernel then kills
//! `unshare` (parent death signal) and that kills the inside, and moreover the
//! inside reads from its standard input, whose other end the outer copy holds,
//! and exits at its end. So a program inside must not read standard input.
//!
//! The parent death signal follows the *thread* that started the isolation:
//! keep it alive until the end.

mod error;
mod inside;

use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, io, thread};

pub use error::IsolateError;
pub use inside::{inside, work_dir};

/// Set inside, to the mark that the isolation was given.
const MARK: &str = "ANYCAST_LABS_ISOLATED";
/// Set inside a test, to the line that says that its body was run to the end.
const DONE: &str = "ANYCAST_LABS_DONE";
/// Overall bound of [`isolated`].
const TEST_TIMEOUT: Duration = Duration::from_secs(240);
/// How long the output of an isolation that was killed is waited for.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// Folders that are empty and in memory inside: sockets and state of daemons,
/// and FRR's crash logs.
const HIDDEN: [&str; 2] = ["/run", "/var/tmp"];
/// Where Debian keeps the daemons and tools that an ordinary user's `PATH` omits.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// Run the body of the calling test inside namespaces of its own, at most four
/// minutes.
///
/// To be called as the whole body of a `#[test]` function: the test executable
/// is started again with that one test, whose name is taken from the type of
/// `body`. The output of the inside becomes the output of this test.
///
/// # Panics
/// When the inside failed, was killed, ran out of time or could not be made.
pub fn isolated<F: FnOnce()>(body: F) {
    isolated_for(TEST_TIMEOUT, body);
}

/// [`isolated`] with a bound of one's own.
///
/// # Panics
/// As [`isolated`].
pub fn isolated_for<F: FnOnce()>(timeout: Duration, body: F) {
    isolate_test(timeout, || Ok(Vec::new()), body);
}

/// [`isolated`], after `prepare` was run outside, to build or find what the
/// inside needs. Its answer becomes the environment of the inside.
///
/// # Panics
/// As [`isolated`], and with what `prepare` says when it fails.
pub fn isolated_with<F, P>(prepare: P, body: F)
where
    F: FnOnce(),
    P: FnOnce() -> Result<Vec<(String, OsString)>, String>,
{
    isolate_test(TEST_TIMEOUT, prepare, body);
}

/// [`isolated_with`] with a bound of one's own.
///
/// # Panics
/// As [`isolated_with`].
pub fn isolated_with_for<F, P>(timeout: Duration, prepare: P, body: F)
where
    F: FnOnce(),
    P: FnOnce() -> Result<Vec<(String, OsString)>, String>,
{
    isolate_test(timeout, prepare, body);
}

#[allow(clippy::panic, reason = "it is how a test fails")]
fn isolate_test<F, P>(timeout: Duration, prepare: P, body: F)
where
    F: FnOnce(),
    P: FnOnce() -> Result<Vec<(String, OsString)>, String>,
{
    let outcome = match inside::enter() {
        Ok(Some(_)) => {
            body();
            inside::say_done();
            return;
        }
        Ok(None) => prepare()
            .map_err(IsolateError::Prerequisite)
            .and_then(|env| run_test(&test_name::<F>(), timeout, env)),
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// `crate::module::test::{{closure}}` → `module::test`, as libtest names it.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let test = path.split("::{{closure}}").next().unwrap_or(path);
    test.split_once("::")
        .map_or(test, |(_, name)| name)
        .to_owned()
}

fn run_test(
    name: &str,
    timeout: Duration,
    env: Vec<(String, OsString)>,
) -> Result<(), IsolateError> {
    // libtest succeeds when no test has the name, so its exit status alone
    // does not prove that the body ran.
    let done = format!("anycast-labs: {name} ran to its end");
    let mut output = Vec::new();
    let args = ["--exact", name, "--nocapture", "--test-threads=1"];
    let isolation = Isolation::new(args).mark(name).env(DONE, &done);
    let isolation = env
        .iter()
        .fold(isolation, |to, (key, value)| to.env(key, value));
    let status = isolation.start()?.wait(Some(timeout), |bytes| {
        output.extend_from_slice(bytes);
        relay(bytes);
    })?;
    if !status.success() {
        return Err(IsolateError::Failed {
            name: name.to_owned(),
            status,
        });
    }
    if !String::from_utf8_lossy(&output).contains(&done) {
        return Err(IsolateError::NotRun {
            name: name.to_owned(),
        });
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "so that libtest captures it")]
fn relay(bytes: &[u8]) {
    print!("{}", String::from_utf8_lossy(bytes));
}

/// Which copy of the program this is.
#[derive(Debug)]
pub enum Entered {
    /// The one inside the namespaces: go on.
    Inside,
    /// The one outside: the inside has ended so, exit likewise.
    Done(ExitStatus),
}

/// Go on inside namespaces of one's own: for the start of a program's `main`,
/// before other threads are there.
///
/// Outside, starts this executable again with `args`, inherits it standard
/// output and error, waits for its end without a bound, and answers
/// [`Entered::Done`]. Inside, answers [`Entered::Inside`].
///
/// # Errors
/// [`IsolateError`], which names what to install or to enable.
pub fn reexec<I>(args: I) -> Result<Entered, IsolateError>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    if inside::enter()?.is_some() {
        return Ok(Entered::Inside);
    }
    let status = Isolation::new(args)
        .inherit_output()
        .start()?
        .wait(None, |_| {})?;
    Ok(Entered::Done(status))
}

/// One isolation to be started: [`isolated`] and [`reexec`] in pieces.
#[derive(Debug)]
pub struct Isolation {
    args: Vec<OsString>,
    mark: OsString,
    env: Vec<(OsString, OsString)>,
    inherit_output: bool,
}

impl Isolation {
    /// This executable with these arguments.
    pub fn new<I>(args: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Self {
            args: args
                .into_iter()
                .map(|arg| arg.as_ref().to_owned())
                .collect(),
            mark: "1".into(),
            env: Vec::new(),
            inherit_output: false,
        }
    }

    /// What [`inside()`] answers within; default `1`.
    #[must_use]
    pub fn mark(mut self, mark: impl AsRef<OsStr>) -> Self {
        mark.as_ref().clone_into(&mut self.mark);
        self
    }

    /// Set an environment variable within.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Leave standard output and error as they are instead of collecting them.
    #[must_use]
    pub fn inherit_output(mut self) -> Self {
        self.inherit_output = true;
        self
    }

    /// Start it.
    ///
    /// # Errors
    /// [`IsolateError`], which names what to install or to enable. Nothing is
    /// left running then.
    pub fn start(self) -> Result<Running, IsolateError> {
        let user = error::probe()?;
        let executable = env::current_exe().map_err(IsolateError::Executable)?;
        if let Some(folder) = HIDDEN
            .into_iter()
            .find(|folder| executable.starts_with(folder))
        {
            return Err(IsolateError::Hidden { executable, folder });
        }
        let (stdin, lifeline) = io::pipe().map_err(IsolateError::Start)?;
        let mut command = unshare(user);
        command
            .arg(executable)
            .args(&self.args)
            .env(MARK, &self.mark)
            .env("PATH", search_path())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(stdin);
        let output = if self.inherit_output {
            None
        } else {
            let (output, stdout) = io::pipe().map_err(IsolateError::Start)?;
            let stderr = stdout.try_clone().map_err(IsolateError::Start)?;
            command.stdout(stdout).stderr(stderr);
            Some(output)
        };
        let child = command.spawn().map_err(IsolateError::Start)?;
        // The command holds the writing end of the output until it is dropped.
        drop(command);
        Ok(Running {
            child,
            output,
            _lifeline: lifeline,
        })
    }
}

/// The namespaces' maker, up to the program to run; it dies with this thread,
/// and its child with it.
fn unshare(user: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    command.args(["--mount", "--net", "--pid"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    if user {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").env("PATH", search_path());
    command
}

/// The caller's `PATH`, with the folders that it may lack at its end.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SYSTEM_PATH);
    path
}

/// A started isolation. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: Option<PipeReader>,
    _lifeline: PipeWriter,
}

impl Running {
    /// Process id, outside, of the namespaces' maker.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Wait for the end, at most `timeout`, and hand the output, standard
    /// output and error together, to `sink` as it comes.
    ///
    /// # Errors
    /// [`IsolateError::TimedOut`], after everything inside was killed;
    /// [`IsolateError::Wait`].
    pub fn wait(
        mut self,
        timeout: Option<Duration>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<ExitStatus, IsolateError> {
        let Some(output) = self.output.take() else {
            return self.child.wait().map_err(IsolateError::Wait);
        };
        let pieces = read_in_pieces(output);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let piece = match deadline {
                Some(at) => pieces.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => pieces.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match piece {
                Ok(bytes) => sink(&bytes),
                Err(RecvTimeoutError::Disconnected) => {
                    return self.child.wait().map_err(IsolateError::Wait);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().map_err(IsolateError::Wait)?;
                    while let Ok(bytes) = pieces.recv_timeout(AFTER_KILL) {
                        sink(&bytes);
                    }
                    return Err(IsolateError::TimedOut {
                        after: timeout.unwrap_or_default(),
                    });
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Read `output` to its end in a thread: the receiver can wait with a bound.
/// The channel is not bounded; what goes through is what a test prints.
fn read_in_pieces(mut output: PipeReader) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0_u8; 4096];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Write a line to standard output past any capture; a closed one is no error.
fn write_line(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// `/dev/null` for the three standard streams of a helper that is only probed.
fn silent(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
}
