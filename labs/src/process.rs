//! A daemon of the lab: started in a namespace, logged, ended with its guard.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{env, mem};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::isolate::work_dir;
use crate::netns::{Netns, NetnsError};

/// What went wrong with which daemon.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProcError {
    /// A program is not installed.
    #[error("{program} is not installed: apt install {package}")]
    Missing {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: String,
    },
    /// A program of [`python_tools`] is not there.
    #[error("{program} is not there: run `cargo xtask test`, which installs it for the tests")]
    NotSetUp {
        /// The program.
        program: String,
    },
    /// Its log file could not be made.
    #[error("{name}: cannot create the log file {}: {source}", path.display())]
    Log {
        /// The daemon.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It could not be started.
    #[error("{name}: {source}")]
    Start {
        /// The daemon.
        name: String,
        /// Why.
        source: NetnsError,
    },
    /// It could not be signalled or waited for.
    #[error("{name}: {what}: {source}")]
    Control {
        /// The daemon.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

/// Programs that `cargo xtask test` unpacks instead of installing them, since installing them
/// would remove others of the machine: `tools/` in cargo's target folder, which is found from
/// the running program. None: this program is not in a target folder.
#[must_use]
pub fn tools() -> Option<PathBuf> {
    Some(target()?.join("tools"))
}

/// Programs that `cargo xtask test` has from Python's package index, in a virtual environment
/// of their own: `tools-python/` in cargo's target folder. None as for [`tools`].
#[must_use]
pub fn python_tools() -> Option<PathBuf> {
    Some(target()?.join("tools-python"))
}

/// Cargo's target folder.
fn target() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    // Cargo leaves the tag in a folder that it made, and the other in whatever folder it uses.
    let marks = ["CACHEDIR.TAG", ".rustc_info.json"];
    let target = program
        .ancestors()
        .find(|folder| marks.iter().any(|mark| folder.join(mark).is_file()))?;
    Some(target.to_owned())
}

/// Where a program of [`python_tools`] is.
///
/// # Errors
/// [`ProcError::NotSetUp`]
pub fn require_python(program: &str) -> Result<PathBuf, ProcError> {
    python_tools()
        .map(|folder| folder.join("bin").join(program))
        .filter(|candidate| candidate.is_file())
        .ok_or_else(|| ProcError::NotSetUp {
            program: program.to_owned(),
        })
}

/// Where `program` is: on the `PATH`, in one of `folders`, or in `usr/sbin` of [`tools`].
///
/// # Errors
/// [`ProcError::Missing`], one line that names the Debian package to install.
pub fn require(program: &str, folders: &[&str], package: &str) -> Result<PathBuf, ProcError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .chain(folders.iter().map(PathBuf::from))
        .chain(tools().map(|tools| tools.join("usr/sbin")))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| ProcError::Missing {
            program: program.to_owned(),
            package: package.to_owned(),
        })
}

/// A running daemon. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Proc {
    /// Start `command`, which must stay in the foreground, inside `namespace`.
    /// Standard output and error are appended to `NAME.log` in the lab's folder.
    ///
    /// # Errors
    /// [`ProcError::Log`], [`ProcError::Start`].
    pub fn start(namespace: &Netns, name: &str, command: &mut Command) -> Result<Self, ProcError> {
        let path = work_dir().join(format!("{name}.log"));
        let open = || -> io::Result<(File, File)> {
            let file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, stderr) = open().map_err(|source| ProcError::Log {
            name: name.to_owned(),
            path: path.clone(),
            source,
        })?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = namespace
            .spawn(command)
            .map_err(|source| ProcError::Start {
                name: name.to_owned(),
                source,
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: path,
            ended: None,
        })
    }

    /// The name given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id inside the isolation.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Send a signal.
    ///
    /// # Errors
    /// [`ProcError::Control`] when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), ProcError> {
        if self.has_ended()?.is_some() {
            return Err(self.control("signal it", io::Error::other("it has ended")));
        }
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .map_err(|errno| self.control("signal it", errno.into()))
    }

    /// SIGKILL it and wait for its end.
    ///
    /// # Errors
    /// [`ProcError::Control`].
    pub fn kill(&mut self) -> Result<(), ProcError> {
        self.child
            .kill()
            .map_err(|source| self.control("kill it", source))?;
        let status = self
            .child
            .wait()
            .map_err(|source| self.control("wait for it", source))?;
        self.ended = Some(status);
        Ok(())
    }

    /// SIGSTOP: it hangs, with everything that it holds.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub fn stop(&mut self) -> Result<(), ProcError> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// As [`Self::signal`].
    pub fn resume(&mut self) -> Result<(), ProcError> {
        self.signal(Signal::SIGCONT)
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// [`ProcError::Control`].
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>, ProcError> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .map_err(|source| self.control("look after it", source))?;
        }
        Ok(self.ended)
    }

    fn control(&self, what: &'static str, source: io::Error) -> ProcError {
        ProcError::Control {
            name: self.name.clone(),
            what,
            source,
        }
    }

    /// The last `count` lines of its log.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let ended = mem::take(&mut self.ended);
        if ended.is_none() {
            // Both fail only when it has ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
