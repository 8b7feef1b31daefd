//! The check `exec`: a command and its exit code.
//!
//! The command is an absolute path and its arguments; no shell is involved. It runs with `/`
//! as its folder and a clean environment: `PATH`, what the configuration sets, and
//!
//! | variable | value |
//! |---|---|
//! | `ANYCAST_SERVICE` | the name of the service |
//! | `ANYCAST_NODE` | the name of this node |
//! | `ANYCAST_ADDRESSES` | the service addresses, without prefix length, separated by a space |
//!
//! **Proof.** As good as the command: this check believes what it says. A command that probes
//! the service address over the network must itself make sure that *this* node answered.
//!
//! # Exit codes
//!
//! The default suits both Nagios plugins and plain scripts:
//!
//! | code | verdict | because |
//! |---|---|---|
//! | 0 | `Healthy` | everybody's success |
//! | 1, 2, 4 to 125 | `Unhealthy` | failure of a plain script (`grep`, `curl`, `test`); Nagios WARNING (1) and CRITICAL (2) |
//! | 3 | `Unknown` | Nagios UNKNOWN: the plugin could not tell |
//! | 126, 127 | `Unknown` | a shell could not start the command |
//! | 128 to 255 | `Unknown` | a shell's command was killed by a signal; an interpreter died |
//! | killed by a signal | `Unknown` | it was the command that crashed, or somebody killed it |
//!
//! Mind two: a Nagios WARNING lowers the route unless 1 is mapped to healthy; and
//! `systemctl is-active` and LSB scripts say "not running" by 3, which must be mapped to
//! unhealthy for them.
//!
//! A command that cannot be started (missing, not executable, no descriptors, no memory, no
//! such user) is `Unknown`: the checker failed.
//!
//! # Time
//!
//! At the check's time-out the command is killed with its whole process group, and the verdict
//! is `Unknown` by default ([`OnTimeout`]): whether the script hung or the service behind it
//! cannot be told from outside, and a script that hangs on every node (a dead name server)
//! must not lower them all. Give the script a time-out of its own, shorter than the check's,
//! and let it exit with 2; or, where a hang can only be the service's, set
//! `on_timeout = "unhealthy"`. While a killed command has not ended (it hangs in the kernel) no
//! other is started, and the verdict is `Unknown`.
//!
//! # What is left behind
//!
//! Nothing, whether the command ends, is killed or the future is dropped: its process group is
//! killed and reaped. A process that leaves the group (a daemon) escapes; do not start daemons
//! from a check. If this daemon is killed by SIGKILL, a running command goes on unless the
//! service manager ends it (systemd does). The command inherits this daemon's ambient
//! capabilities.
//!
//! The first line of output, cut to 1 KiB, becomes part of the reason. A command that writes
//! more than 1 MiB has its pipe closed, and is ended by SIGPIPE if it goes on.

mod codes;
#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

pub use super::local::user::{User, UserError};
pub use codes::{ExitCodes, Outcome};
#[cfg(feature = "config")]
pub use table::{ExecTable, ExitTable};

use super::local::blocking::Blocking;
use super::local::command::{CommandLine, Finished, Running};
use super::local::explain;
use super::local::pidfd::Pidfd;
use super::{HealthCheck, Verdict};

/// How late the time-out may fire and still be believed. Later, this host did not run us, so
/// the command's silence says nothing.
const MAX_LATENESS: Duration = Duration::from_millis(500);

/// What a command that did not end in time says about the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum OnTimeout {
    /// Nothing: the script may have hung by itself. The default.
    #[default]
    Unknown,
    /// That it failed: for a command that can only hang because the service does.
    Unhealthy,
}

/// The check `exec`. See the [module](self). A clone shares nothing that runs.
#[derive(Debug)]
pub struct ExecCheck {
    command: Arc<CommandLine>,
    codes: Arc<ExitCodes>,
    on_timeout: OnTimeout,
    starting: Blocking,
    /// The last command, until it is known to have ended.
    last: Option<Arc<Pidfd>>,
}

impl Clone for ExecCheck {
    fn clone(&self) -> Self {
        Self {
            command: Arc::clone(&self.command),
            codes: Arc::clone(&self.codes),
            on_timeout: self.on_timeout,
            starting: Blocking::new(),
            last: None,
        }
    }
}

impl ExecCheck {
    /// A check that runs `program`, an absolute path, without arguments.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            command: Arc::new(CommandLine {
                program: program.into(),
                args: Vec::new(),
                env: Vec::new(),
                dir: PathBuf::from("/"),
                user: None,
            }),
            codes: Arc::new(ExitCodes::default()),
            on_timeout: OnTimeout::default(),
            starting: Blocking::new(),
            last: None,
        }
    }

    /// Sets its arguments.
    #[must_use]
    pub fn with_args<I, A>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        Arc::make_mut(&mut self.command).args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an environment variable; the last of one name counts.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let variable = (name.into(), value.into());
        Arc::make_mut(&mut self.command).env.push(variable);
        self
    }

    /// Sets its folder. Default `/`.
    #[must_use]
    pub fn with_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.command).dir = dir.into();
        self
    }

    /// Runs it as another user, with this user's primary group alone, and `USER`, `LOGNAME`
    /// and `HOME` set. Needs root, or CAP_SETUID and CAP_SETGID.
    #[must_use]
    pub fn with_user(mut self, user: User) -> Self {
        Arc::make_mut(&mut self.command).user = Some(user);
        self
    }

    /// Sets what its exit codes mean.
    #[must_use]
    pub fn with_exit_codes(mut self, codes: ExitCodes) -> Self {
        self.codes = Arc::new(codes);
        self
    }

    /// Sets what it means that it did not end in time.
    #[must_use]
    pub const fn with_on_timeout(mut self, on_timeout: OnTimeout) -> Self {
        self.on_timeout = on_timeout;
        self
    }

    fn name(&self) -> std::path::Display<'_> {
        self.command.program.display()
    }

    /// Makes sure that no command of an earlier probe is alive.
    async fn earlier_has_ended(&mut self, deadline: Instant) -> bool {
        let Some(earlier) = &self.last else {
            return true;
        };
        let ended = timeout_at(deadline, earlier.ended()).await.is_ok();
        if ended {
            self.last = None;
        }
        ended
    }

    async fn start(&self, deadline: Instant) -> Result<Running, Verdict> {
        let command = Arc::clone(&self.command);
        let started = self.starting.run(deadline, move || command.start()).await;
        let failed = |why: &str| Verdict::unknown(format!("{}: {why}", self.name()));
        started
            .map_err(|stuck| failed(&format!("starting it {}", stuck.describe())))?
            .and_then(super::local::command::Started::watch)
            .map_err(|error| failed(&format!("cannot be run: {}", explain(&error))))
    }

    fn ended(&self, running: Running) -> Verdict {
        match running.finish() {
            Ok(finished) => self.judge(&finished),
            Err(error) => Verdict::unknown(format!("{}: {error}", self.name())),
        }
    }

    fn judge(&self, finished: &Finished) -> Verdict {
        let status = finished.status;
        let (outcome, how) = match (status.code(), status.signal()) {
            (Some(code), _) => (self.codes.of_code(code), format!("exit code {code}")),
            (None, Some(signal)) => (self.codes.of_signal(), format!("killed by signal {signal}")),
            (None, None) => (Outcome::Unknown, "ended in an unknown way".to_owned()),
        };
        let reason = match finished.first_line() {
            Some(line) => format!("{}: {how}: {line}", self.name()),
            None => format!("{}: {how}", self.name()),
        };
        match outcome {
            Outcome::Healthy => Verdict::Healthy,
            Outcome::Unhealthy => Verdict::unhealthy(reason),
            Outcome::Unknown => Verdict::unknown(reason),
        }
    }

    fn timed_out(&self, timeout: Duration, deadline: Instant) -> Verdict {
        let late = deadline.elapsed();
        if late > MAX_LATENESS {
            return Verdict::unknown(format!(
                "{}: this host was too busy to run the check: {late:?} late",
                self.name()
            ));
        }
        let reason = format!("{}: not ended within {timeout:?}: killed", self.name());
        match self.on_timeout {
            OnTimeout::Unknown => Verdict::unknown(reason),
            OnTimeout::Unhealthy => Verdict::unhealthy(reason),
        }
    }
}

#[async_trait]
impl HealthCheck for ExecCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let deadline = Instant::now() + timeout;
        if !self.earlier_has_ended(deadline).await {
            return Verdict::unknown(format!(
                "{}: the command of an earlier probe was killed and has not ended; it hangs in \
                 the kernel",
                self.name()
            ));
        }
        let mut running = match self.start(deadline).await {
            Ok(running) => running,
            Err(verdict) => return verdict,
        };
        self.last = Some(running.pidfd());
        match timeout_at(deadline, running.ended()).await {
            Ok(()) => {
                self.last = None;
                self.ended(running)
            }
            // Dropping it kills it.
            Err(_) => self.timed_out(timeout, deadline),
        }
    }
}
