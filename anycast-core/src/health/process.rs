//! The check `process`: a process by pid file, systemd unit or executable, followed over
//! restarts.
//!
//! The process is held by a pidfd. Its death is thus an event of the kernel: it is known at
//! once, not at the next probe, and as [`Evidence::Conclusive`] it does not wait for `fall`.
//! No other process can be taken for it, even if it gets its number. After a death each probe
//! looks for the successor, and follows it.
//!
//! **Proof.** That the process exists and is not stopped. Not that it answers: use this check
//! for its speed, beside one that asks the service something.
//!
//! | what was found | verdict |
//! |---|---|
//! | the process runs | `Healthy` |
//! | it ended (a zombie has ended); the unit is inactive or failed; no process of the program | `Unhealthy`, conclusive |
//! | the pid file names a process that does not run | `Unhealthy`, conclusive |
//! | the pid file does not exist, or names a process that is another program, user or command line; the unit is activating or deactivating | `Unhealthy` |
//! | it is stopped (SIGSTOP, SIGTSTP): it serves nobody | `Unhealthy` |
//! | a debugger or tracer holds it | `Unknown` |
//! | the pid file holds something else than a process id (empty: it is being written) | `Unknown` |
//! | no descriptors, no permission, `/proc` hides it; systemd does not answer or has no such unit | `Unknown` |
//!
//! A process in uninterruptible sleep (`D`) is healthy: every disk access is one.
//!
//! # What selects it
//!
//! - **Pid file** ([`Selector::PidFile`]): the number on its first line. The file is looked at
//!   in each probe, so that a successor is followed also while the old process still drains
//!   (haproxy, nginx). With [`with_executable`](ProcessCheck::with_executable) a stale file
//!   whose number now is another program's is found out; without, only if that happened while
//!   the check ran.
//! - **Unit** ([`Selector::Unit`]): the main process, asked from `systemctl show` whenever none
//!   is followed. This costs a process; a unit whose main process hands over to another while
//!   it lives is better selected by its pid file.
//! - **Executable** ([`Selector::Executable`]): any process of that program, user and command
//!   line. Of several the one that started the others is followed. Needs CAP_SYS_PTRACE to see
//!   other users' programs; without, a process that is not found is `Unknown`.
//!
//! # Hand-over
//!
//! When the process dies and, by then, the pid file or the executable already selects another
//! one that has been running for a second, this one is followed and nothing is reported: the
//! service changed hands (nginx and haproxy replace their binary so). A younger one is a
//! restart: the death is reported. So with [`Selector::Executable`] the workers that a killed
//! master leaves behind keep the check healthy; select such a service by pid file or unit.
//!
//! # Cost
//!
//! While the process is held, a probe is three short reads of `/proc/PID/stat` and a poll, with
//! a pid file one look at that file, and no search. It holds one descriptor. Searches by
//! executable read all of `/proc`, for all checks together at most ten times a second.

mod find;
mod procfs;
mod scan;
#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;
mod unit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Pid;
use tokio::time::Instant;

#[cfg(doc)]
use super::Evidence;
pub use super::local::user::{User, UserError};
#[cfg(feature = "config")]
pub use table::ProcessTable;

use super::local::blocking::Blocking;
use super::local::explain;
use super::local::pidfd::Pidfd;
use super::{HealthCheck, Verdict};
use find::{Dead, Found, Identity, Miss, Stamp};

/// A process that has run for so long when the other died took over from it; a younger one
/// was started because it died.
const TAKEOVER_AGE_TICKS: u64 = procfs::TICKS_PER_SECOND;
/// How long is looked for a process that took over, before a death is reported.
const TAKEOVER_SEARCH: Duration = Duration::from_millis(250);

/// What selects the process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selector {
    /// A file with its process id on the first line.
    PidFile(PathBuf),
    /// The main process of a systemd service: its full name, with `.service`.
    Unit(String),
    /// Its program, as `/proc/PID/exe` shows it, or a path with links that leads there.
    Executable(PathBuf),
}

/// The check `process`. See the [module](self). A clone follows nothing yet.
#[derive(Debug)]
pub struct ProcessCheck {
    selector: Arc<Selector>,
    identity: Arc<Identity>,
    followed: Option<Followed>,
    dead: Option<Dead>,
    searching: Blocking,
}

/// The process that is followed.
#[derive(Debug)]
struct Followed {
    pid: Pid,
    start: u64,
    name: String,
    pidfd: Pidfd,
    stamp: Option<Stamp>,
}

impl Followed {
    fn describe(&self) -> String {
        format!("process {} ({})", self.pid.as_raw_nonzero(), self.name)
    }
}

impl Clone for ProcessCheck {
    fn clone(&self) -> Self {
        Self {
            selector: Arc::clone(&self.selector),
            identity: Arc::clone(&self.identity),
            followed: None,
            dead: None,
            searching: Blocking::new(),
        }
    }
}

impl ProcessCheck {
    /// A check of the selected process.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        Self {
            selector: Arc::new(selector),
            identity: Arc::new(Identity::default()),
            followed: None,
            dead: None,
            searching: Blocking::new(),
        }
    }

    /// It must be this program.
    #[must_use]
    pub fn with_executable(mut self, path: impl Into<PathBuf>) -> Self {
        Arc::make_mut(&mut self.identity).executable = Some(path.into());
        self
    }

    /// It must have this effective user.
    #[must_use]
    pub fn with_user(mut self, uid: u32) -> Self {
        Arc::make_mut(&mut self.identity).user = Some(uid);
        self
    }

    /// Its command line, the arguments joined with spaces, must contain this.
    #[must_use]
    pub fn with_argument(mut self, text: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.identity).argument = Some(text.into());
        self
    }

    /// The number of the process that is followed.
    #[must_use]
    pub fn followed(&self) -> Option<i32> {
        let followed = self.followed.as_ref()?;
        Some(followed.pid.as_raw_nonzero().get())
    }

    async fn look(&mut self, deadline: Instant) -> Result<(), Verdict> {
        if self.followed.is_some() {
            self.follow_pid_file(deadline).await?;
        } else {
            let found = self.find(scan::FRESH, deadline).await?;
            self.follow(found)?;
        }
        loop {
            match self.state()? {
                State::Runs => return Ok(()),
                State::Ended => self.died(deadline).await?,
            }
        }
    }

    /// The state of the process that is followed. Does not wait.
    fn state(&self) -> Result<State, Verdict> {
        let Some(followed) = &self.followed else {
            return Ok(State::Ended);
        };
        let stat = procfs::stat(followed.pid);
        // Alive after it was looked at, so the number was its own then.
        match followed.pidfd.has_ended() {
            Ok(true) => return Ok(State::Ended),
            Ok(false) => {}
            Err(error) => return Err(Verdict::unknown(format!("poll: {}", explain(&error)))),
        }
        match stat.map(|stat| stat.state) {
            Ok(b'T') => Err(Verdict::unhealthy(format!(
                "{} is stopped (SIGSTOP); `kill -CONT` lets it go on",
                followed.describe()
            ))),
            Ok(b't') => Err(Verdict::unknown(format!(
                "{} is held by a debugger",
                followed.describe()
            ))),
            Ok(_) => Ok(State::Runs),
            Err(error) => Err(unknown(find::unreadable(followed.pid, &error))),
        }
    }

    /// Looks for the process. Cancel-safe.
    async fn find(&self, max_age: Duration, deadline: Instant) -> Result<Found, Verdict> {
        let identity = Arc::clone(&self.identity);
        let selector = Arc::clone(&self.selector);
        let dead = self.dead;
        match self.selector.as_ref() {
            Selector::PidFile(_) => {
                let search = move || match selector.as_ref() {
                    Selector::PidFile(path) => find::by_pid_file(path, &identity, dead),
                    Selector::Unit(_) | Selector::Executable(_) => Err(lost()),
                };
                self.search(deadline, search).await
            }
            Selector::Unit(unit) => {
                let pid = unit::main_process(unit, &self.searching, deadline).await?;
                let unit = unit.clone();
                let open = move || open_main(&unit, pid, &identity);
                self.search(deadline, open).await
            }
            Selector::Executable(path) => {
                let table = match scan::table(max_age, deadline).await {
                    Ok(Ok(table)) => table,
                    Ok(Err(error)) => {
                        let why = explain(&error);
                        return Err(Verdict::unknown(format!("/proc cannot be read: {why}")));
                    }
                    Err(stuck) => {
                        let why = stuck.describe();
                        return Err(Verdict::unknown(format!("reading /proc {why}")));
                    }
                };
                let path = path.clone();
                let search = move || find::by_executable(&path, &table, &identity);
                self.search(deadline, search).await
            }
        }
    }

    async fn search<F>(&self, deadline: Instant, search: F) -> Result<Found, Verdict>
    where
        F: FnOnce() -> Result<Found, Verdict> + Send + 'static,
    {
        match self.searching.run(deadline, search).await {
            Ok(found) => found,
            Err(stuck) => Err(Verdict::unknown(format!(
                "looking for the process {}",
                stuck.describe()
            ))),
        }
    }

    fn follow(&mut self, found: Found) -> Result<(), Verdict> {
        let pidfd = Pidfd::new(found.pidfd).map_err(|error| {
            let number = found.pid.as_raw_nonzero();
            let why = explain(&error);
            Verdict::unknown(format!("process {number} cannot be watched: {why}"))
        })?;
        let followed = Followed {
            pid: found.pid,
            start: found.start,
            name: found.name,
            pidfd,
            stamp: found.stamp,
        };
        tracing::info!(selector = ?self.selector, "follows {}", followed.describe());
        self.followed = Some(followed);
        self.dead = None;
        Ok(())
    }

    /// Follows another process if the pid file now names one, though the old one lives on.
    async fn follow_pid_file(&mut self, deadline: Instant) -> Result<(), Verdict> {
        let Selector::PidFile(path) = self.selector.as_ref() else {
            return Ok(());
        };
        let Some(followed) = &self.followed else {
            return Ok(());
        };
        let (path, known) = (path.clone(), followed.stamp);
        let identity = Arc::clone(&self.identity);
        // A file that is gone, garbage or stale does not end a process that lives.
        let reread = move || {
            let stamp = Stamp::of(&path)
                .ok()
                .filter(|stamp| Some(*stamp) != known)?;
            Some((stamp, find::by_pid_file(&path, &identity, None).ok()))
        };
        let answer = self.searching.run(deadline, reread).await;
        let answer = answer.map_err(|stuck| {
            Verdict::unknown(format!("looking at the pid file {}", stuck.describe()))
        })?;
        let Some((stamp, named)) = answer else {
            return Ok(());
        };
        if let Some(followed) = &mut self.followed {
            followed.stamp = Some(stamp);
        }
        let same = |found: &Found, followed: &Followed| {
            found.pid == followed.pid && found.start == followed.start
        };
        match (named, &self.followed) {
            (Some(found), Some(followed)) if !same(&found, followed) => self.follow(found),
            _ => Ok(()),
        }
    }

    /// The process has ended: follows the one that took over, or reports the death. Cancel-safe:
    /// until it is reported the dead process stays the one that is followed.
    async fn died(&mut self, deadline: Instant) -> Result<(), Verdict> {
        let successor = match self.selector.as_ref() {
            Selector::Unit(_) => None,
            Selector::PidFile(_) | Selector::Executable(_) => {
                let deadline = deadline.min(Instant::now() + TAKEOVER_SEARCH);
                let age = Duration::from_secs(TAKEOVER_AGE_TICKS / procfs::TICKS_PER_SECOND);
                let now = procfs::now();
                let found = self.find(age, deadline).await.ok();
                found.filter(|found| took_over(found.start, now))
            }
        };
        let Some(dead) = self.followed.take() else {
            return Err(lost());
        };
        self.dead = Some(Dead {
            pid: dead.pid,
            start: dead.start,
            stamp: dead.stamp,
        });
        match successor {
            Some(found) => self.follow(found),
            None => Err(Verdict::gone(format!("{} ended", dead.describe()))),
        }
    }
}

/// Whether a process with this start had taken over from one that died now, both in ticks.
const fn took_over(start: u64, now: u64) -> bool {
    start.saturating_add(TAKEOVER_AGE_TICKS) <= now
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    Ended,
}

/// Opens what systemd calls the main process of a unit, and makes sure that it still is.
fn open_main(unit: &str, pid: Pid, identity: &Identity) -> Result<Found, Verdict> {
    let found = match find::open(pid, identity) {
        Ok(found) => found,
        Err(Miss::Gone) => {
            return Err(Verdict::gone(format!("the main process of {unit} ended")));
        }
        Err(Miss::Other(what)) => {
            return Err(Verdict::unhealthy(format!(
                "the main process of {unit} is another one: {what}"
            )));
        }
        Err(miss @ Miss::Failed(_)) => return Err(unknown(miss)),
    };
    match procfs::is_in_group(pid, unit) {
        Ok(true) => Ok(found),
        Ok(false) => Err(Verdict::unknown(format!(
            "process {} is not in the control group of {unit}; select by pid_file",
            pid.as_raw_nonzero()
        ))),
        Err(error) => Err(unknown(find::unreadable(pid, &error))),
    }
}

fn unknown(miss: Miss) -> Verdict {
    match miss {
        Miss::Gone => Verdict::unknown("it ended while it was looked at"),
        Miss::Other(why) | Miss::Failed(why) => Verdict::unknown(why),
    }
}

/// What cannot happen, rather than a panic.
fn lost() -> Verdict {
    Verdict::unknown("no process is followed")
}

#[async_trait]
impl HealthCheck for ProcessCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        match self.look(Instant::now() + timeout).await {
            Ok(()) => Verdict::Healthy,
            Err(verdict) => verdict,
        }
    }

    /// Ends when the process does. After that it waits until a probe has found a successor.
    async fn changed(&mut self) -> Verdict {
        loop {
            let Some(followed) = &self.followed else {
                return std::future::pending().await;
            };
            followed.pidfd.ended().await;
            if let Err(verdict) = self.died(Instant::now() + TAKEOVER_SEARCH).await {
                return verdict;
            }
        }
    }
}
