//! What checks leak, as far as that can be seen from outside.
//!
//! Of a process can be known how many descriptors it has open, and of a runtime how many tasks
//! live in it; not whose they are. So when they run short, every check is stopped and built
//! afresh, one after the other until enough has come back, and one that many go with is named.
//! What a check has put out of its own reach (a task that it forgot, a descriptor that it leaked
//! for good) does not come back; then that is said. Memory is not looked at: bound it from outside
//! (systemd's `MemoryMax=`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{Mutex as Turns, OwnedMutexGuard, watch};

/// Time between two rounds.
const PAUSE: Duration = Duration::from_secs(60);
/// Tasks of the probes' runtime that are nobody's leak: so many, and so many for each check.
const TASKS: usize = 1000;
const TASKS_OF_ONE: usize = 16;
/// Fewer descriptors or tasks that go with a check are no leak: others come and go meanwhile.
const LEAK: usize = 64;

/// What is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) descriptors: usize,
    /// Of the probes' runtime.
    pub(super) tasks: usize,
    pub(super) checks: usize,
}

/// Descriptors that this process has open, and may have.
pub(super) fn descriptors() -> usize {
    // The kernel tells the number as the folder's size since Linux 6.2.
    let told = std::fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    match usize::try_from(told) {
        Ok(told) if told > 0 => told,
        Ok(_) | Err(_) => std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// When a round is due.
#[derive(Debug, Default)]
struct Rounds {
    number: u64,
    began: Option<Instant>,
    /// What was still in use after the last round.
    left: Option<Usage>,
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Round,
    /// The last round has given nothing back.
    InVain,
}

/// Whether descriptors or tasks run short.
pub(super) fn are_suspected(usage: Usage) -> bool {
    short(usage, limit())
}

fn short(usage: Usage, limit: usize) -> bool {
    usage.descriptors >= limit - limit / 4
        || usage.tasks > usage.checks.saturating_mul(TASKS_OF_ONE) + TASKS
}

impl Rounds {
    fn look(&mut self, now: Instant, usage: Usage, limit: usize) -> Due {
        let recent = |began| now.saturating_duration_since(began) < PAUSE;
        if self.began.is_some_and(recent) {
            return Due::Nothing;
        }
        if !short(usage, limit) {
            (self.began, self.left) = (None, None);
            return Due::Nothing;
        }
        let grown = |now: usize, then: usize| now > then + then / 8;
        match self.left {
            Some(left)
                if !grown(usage.descriptors, left.descriptors)
                    && !grown(usage.tasks, left.tasks) =>
            {
                Due::Nothing
            }
            None if self.began.is_some() => {
                self.left = Some(usage);
                Due::InVain
            }
            Some(_) | None => {
                self.number += 1;
                (self.began, self.left) = (Some(now), None);
                Due::Round
            }
        }
    }
}

/// Watches for leaks, and gives every check its turn.
pub(super) struct Leaks {
    rounds: Mutex<Rounds>,
    round: watch::Sender<u64>,
    turns: Arc<Turns<()>>,
}

impl Leaks {
    pub(super) fn new() -> Self {
        Self {
            rounds: Mutex::default(),
            round: watch::Sender::new(0),
            turns: Arc::default(),
        }
    }

    pub(super) fn look(&self, now: Instant, usage: Usage) {
        if self.turns.try_lock().is_err() {
            return; // a round is under way, and takes its time where there are many checks
        }
        let limit = limit();
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let Usage {
            descriptors, tasks, ..
        } = usage;
        match rounds.look(now, usage, limit) {
            Due::Nothing => {}
            Due::Round => {
                tracing::warn!(
                    descriptors,
                    limit,
                    tasks,
                    "descriptors or tasks run short: one check after the other is built afresh"
                );
                self.round.send_replace(rounds.number);
            }
            Due::InVain => {
                tracing::error!(
                    descriptors,
                    limit,
                    tasks,
                    "descriptors or tasks run short, and no check gave enough back"
                );
            }
        }
    }

    /// For one check, from now on.
    pub(super) fn follow(&self) -> Follow {
        let (seen, round) = (*self.round.borrow(), self.round.subscribe());
        Follow {
            seen,
            round,
            turns: Arc::clone(&self.turns),
        }
    }
}

/// One check's view of the rounds.
pub(super) struct Follow {
    seen: u64,
    round: watch::Receiver<u64>,
    turns: Arc<Turns<()>>,
}

impl Follow {
    /// Waits for this check's turn to be stopped and built afresh; no other has its own as long
    /// as the answer is held. Cancel-safe: a turn that was not answered comes again.
    pub(super) async fn turn(&mut self) -> OwnedMutexGuard<()> {
        let seen = self.seen;
        if self.round.wait_for(|round| *round > seen).await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.turns).lock_owned().await
    }

    /// Lets the turn pass: enough has come back before.
    pub(super) fn pass(&mut self) {
        self.seen = *self.round.borrow();
    }
}

/// What went with a check, if it was a leak.
pub(super) fn leaked(before: Usage, after: Usage) -> Option<String> {
    let descriptors = before.descriptors.saturating_sub(after.descriptors);
    // Its own task went as well.
    let tasks = before.tasks.saturating_sub(after.tasks);
    if descriptors < LEAK && tasks < LEAK {
        return None;
    }
    Some(format!(
        "it leaks: {descriptors} descriptors and {tasks} tasks went with it; it is built afresh"
    ))
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "an arbitrary instant to count from"
)]
mod tests {
    use super::*;

    const fn usage(descriptors: usize, tasks: usize) -> Usage {
        Usage {
            descriptors,
            tasks,
            checks: 10,
        }
    }

    #[test]
    fn a_round_is_due_once_and_again_only_when_more_leaks() {
        let (mut rounds, start) = (Rounds::default(), Instant::now());
        let mut look = |minutes: u32, descriptors, tasks| {
            rounds.look(start + PAUSE * minutes, usage(descriptors, tasks), 1024)
        };
        assert_eq!(look(0, 767, 100), Due::Nothing);
        assert_eq!(look(1, 768, 100), Due::Round);
        // It has helped.
        assert_eq!(look(2, 100, 100), Due::Nothing);
        assert_eq!(look(3, 800, 100), Due::Round);
        assert_eq!(look(3, 800, 100), Due::Nothing, "it has just begun");
        assert_eq!(look(4, 800, 100), Due::InVain);
        for minute in 5..100 {
            assert_eq!(look(minute, 810, 100), Due::Nothing, "told already");
        }
        assert_eq!(look(100, 1000, 100), Due::Round);
        assert_eq!(look(101, 1000, 1160), Due::InVain);
        assert_eq!(look(102, 100, 1160), Due::Nothing);
        assert_eq!(look(103, 100, 1161), Due::Round);
    }

    #[test]
    fn few_that_come_and_go_are_no_leak() {
        assert_eq!(leaked(usage(800, 100), usage(740, 40)), None);
        assert_eq!(leaked(usage(100, 100), usage(800, 900)), None);
        let told = leaked(usage(800, 100), usage(736, 99)).unwrap();
        assert!(told.contains("64 descriptors and 1 tasks"), "{told}");
    }
}
