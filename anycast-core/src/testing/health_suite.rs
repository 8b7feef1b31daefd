//! The suite that every [`HealthCheck`] must pass, ours and outsiders'.
//!
//! Implement [`HealthBench`] for a real service that you can make well and ill, and call
//! [`run`] from a test inside a tokio runtime with IO and time enabled, in a process whose
//! other threads open few files meanwhile. Each rule is a sentence of the trait's
//! documentation; a [`Violation`] quotes it.
//!
//! The suite runs in real time and takes some ten seconds. A machine that is too busy does not
//! fail a right check: where a verdict depends on time, an `Unknown` is asked for again, and a
//! bound has to be met in one of several tries.

#![allow(
    clippy::disallowed_methods,
    reason = "the suite probes in real time, and starves a probe on purpose"
)]

mod probe;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::probe::{apart, probe};
use crate::health::{BuildCheck, Evidence, HealthCheck, Verdict};
pub use crate::testing::Violation;
use crate::testing::violation::{cut, ensure, violated};

/// The time-out of a probe that is expected to be answered.
const PATIENT: Duration = Duration::from_secs(20);
/// The time-out of a probe that is expected to reach it.
const SHORT: Duration = Duration::from_millis(600);
/// How late an answer may be: less than the driver's grace.
const GRACE: Duration = Duration::from_millis(200);
/// How long a starved probe is not run beyond its time-out.
const STARVED: Duration = Duration::from_secs(2);
/// The time-out of a probe that is watched for blocking its thread, and the longest that one
/// of its steps may take.
const WATCHED: Duration = Duration::from_secs(2);
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// How long a check that has learnt nothing is listened to.
const QUIET: Duration = Duration::from_millis(300);
/// How often something that a busy machine may spoil is tried.
const TRIES: u32 = 20;
const ENOUGH: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);
/// A probe dropped after this many polls is tried, from 0 up.
const CUT_AFTER_AT_MOST: usize = 12;
/// Probes dropped half-way before the suite looks for what they left, how much of it is
/// somebody else's, and how long it may take to go away.
const DROPPED: usize = 48;
const NOISE: usize = 16;
const TIDY_WITHIN: Duration = Duration::from_secs(20);

/// What is the matter with the service, or with the checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// The service answers as it should.
    Well,
    /// It is there and never answers: a queue that nobody empties, a stopped process.
    Silent,
    /// It refuses: a closed port, a missing file, a process that is not there.
    Refusing,
    /// It answers wrongly.
    Wrong,
    /// It answers with garbage.
    Garbage,
    /// It dies, so that a check that [pushes](HealthBench::pushes) knows at once.
    Dead,
    /// The checker cannot work: no descriptor is left, its program is missing.
    CheckerFails,
}

impl Condition {
    const fn is_ill(self) -> bool {
        !matches!(self, Self::Well | Self::CheckerFails)
    }

    const fn timeout(self) -> Duration {
        if self.is_ill() { SHORT } else { PATIENT }
    }
}

/// A service with a check under test.
#[async_trait]
pub trait HealthBench: Send {
    /// Builds the check, always the same.
    fn build(&self) -> BuildCheck;

    /// What this bench can bring about. What is not here is not tried; say in a comment why.
    fn conditions(&self) -> Vec<Condition>;

    /// Makes it so, and returns when it is so. Where the checker fails, the service is well.
    async fn bring_about(&mut self, condition: Condition);

    /// Whether the check learns of [`Condition::Dead`] by itself.
    fn pushes(&self) -> bool {
        false
    }

    /// All that a probe might change about a service that is well, as text.
    async fn service(&mut self) -> String {
        String::new()
    }
}

/// Tries every rule.
///
/// # Errors
/// The first [`Violation`].
pub async fn run(bench: &mut dyn HealthBench) -> Result<(), Violation> {
    let mut trial = Trial {
        build: bench.build(),
        conditions: bench.conditions(),
        bench,
    };
    trial.verdicts().await?;
    trial.freshness().await?;
    trial.any_timeout().await?;
    trial.deadline().await?;
    trial.thread().await?;
    trial.starvation().await?;
    trial.cancellation().await?;
    trial.independence().await?;
    trial.leftovers().await?;
    trial.changes().await
}

struct Trial<'a> {
    build: BuildCheck,
    conditions: Vec<Condition>,
    bench: &'a mut dyn HealthBench,
}

/// What the documentation says of a condition.
const fn rule_of(condition: Condition) -> &'static str {
    match condition {
        Condition::Well => "Healthy: the service answered as it should",
        Condition::CheckerFails => "a checker that cannot do its work is Unknown",
        Condition::Silent
        | Condition::Refusing
        | Condition::Wrong
        | Condition::Garbage
        | Condition::Dead => "a service that is silent, refuses or answers wrongly is Unhealthy",
    }
}

impl Trial<'_> {
    fn has(&self, condition: Condition) -> bool {
        self.conditions.contains(&condition)
    }

    /// Those in which a probe ends late, or never: well and silent, else all that there are.
    fn states(&self) -> Vec<Condition> {
        let wanted = [Condition::Well, Condition::Silent];
        let some: Vec<_> = wanted.into_iter().filter(|one| self.has(*one)).collect();
        if some.is_empty() {
            let able = |one: &Condition| *one != Condition::CheckerFails;
            return self.conditions.iter().copied().filter(able).collect();
        }
        some
    }

    /// A new check in each condition.
    async fn verdicts(&mut self) -> Result<(), Violation> {
        for condition in self.conditions.clone() {
            self.bench.bring_about(condition).await;
            says(&mut *(self.build)(), condition, rule_of(condition)).await?;
        }
        if !self.has(Condition::Well) {
            return Ok(());
        }
        self.bench.bring_about(Condition::Well).await;
        let before = self.bench.service().await;
        let mut check = (self.build)();
        for _ in 0..TRIES {
            says(&mut *check, Condition::Well, rule_of(Condition::Well)).await?;
        }
        let after = self.bench.service().await;
        let rule = "a probe must not change the service";
        ensure(before == after, rule, || {
            format!("before:\n{before}\nafter:\n{after}")
        })
    }

    /// One check through every change, there and back.
    async fn freshness(&mut self) -> Result<(), Violation> {
        let rule = "each probe looks afresh";
        let mut check = (self.build)();
        for condition in self.conditions.clone() {
            for now in [condition, Condition::Well, condition] {
                if self.has(now) {
                    self.bench.bring_about(now).await;
                    self.hear_of_deaths(&mut *check).await?;
                    says(&mut *check, now, rule).await?;
                }
            }
        }
        Ok(())
    }

    /// A check that is told of a death may say so once, though there is a successor by now.
    async fn hear_of_deaths(&self, check: &mut dyn HealthCheck) -> Result<(), Violation> {
        if self.bench.pushes() {
            probe(check, SHORT).await?;
        }
        Ok(())
    }

    /// The shortest and the longest that make sense; the verdict may be any.
    async fn any_timeout(&mut self) -> Result<(), Violation> {
        for condition in self.states() {
            self.bench.bring_about(condition).await;
            probe(&mut *(self.build)(), Duration::from_millis(1)).await?;
        }
        if self.has(Condition::Well) {
            self.bench.bring_about(Condition::Well).await;
            let day = Duration::from_secs(86_400);
            says_within(
                &mut *(self.build)(),
                Condition::Well,
                day,
                "answer within `timeout`",
            )
            .await?;
        }
        Ok(())
    }

    async fn deadline(&mut self) -> Result<(), Violation> {
        let rule = "answer within `timeout`, and call a service that has not answered by then \
                    Unhealthy";
        if !self.has(Condition::Silent) {
            return Ok(());
        }
        self.bench.bring_about(Condition::Silent).await;
        let mut check = (self.build)();
        let mut found = String::new();
        for _ in 0..TRIES {
            let probed = probe(&mut *check, SHORT).await?;
            let in_time = probed.took <= SHORT + GRACE;
            if in_time && matches!(probed.verdict, Verdict::Unhealthy(..)) {
                return Ok(());
            }
            found = format!(
                "{} after {:?}, with {SHORT:?} to answer in",
                probed.verdict, probed.took
            );
        }
        Err(violated(rule, found))
    }

    async fn thread(&mut self) -> Result<(), Violation> {
        let rule = "checks must not block the thread";
        for condition in self.states() {
            self.bench.bring_about(condition).await;
            let mut longest = Duration::MAX;
            for _ in 0..3 {
                let probed = apart(&self.build, WATCHED, None)
                    .await
                    .map_err(|found| violated(rule, found))?;
                longest = longest.min(probed.longest_step);
                if longest <= LONGEST_STEP {
                    break;
                }
            }
            ensure(longest <= LONGEST_STEP, rule, || {
                format!("one step took {longest:?} ({condition:?})")
            })?;
        }
        Ok(())
    }

    async fn starvation(&mut self) -> Result<(), Violation> {
        let rule = "a time-out that the check itself notices late says nothing about the \
                    service: Unknown";
        if !self.has(Condition::Silent) {
            return Ok(());
        }
        self.bench.bring_about(Condition::Silent).await;
        let probed = apart(&self.build, SHORT, Some(STARVED))
            .await
            .map_err(|found| violated(rule, found))?;
        let blames = probed.starved && matches!(probed.verdict, Verdict::Unhealthy(..));
        ensure(!blames, rule, || {
            format!("{}, though not run for {STARVED:?}", probed.verdict)
        })
    }

    async fn cancellation(&mut self) -> Result<(), Violation> {
        let rule = "the future may be dropped at any await; the next call must work";
        for condition in self.states() {
            let afterwards = if self.has(Condition::Well) {
                Condition::Well
            } else {
                condition
            };
            let mut check = (self.build)();
            for polls in 0..CUT_AFTER_AT_MOST {
                self.bench.bring_about(condition).await;
                drop_after(polls, &mut *check).await;
                self.bench.bring_about(afterwards).await;
                self.hear_of_deaths(&mut *check).await?;
                says(&mut *check, afterwards, rule).await?;
            }
        }
        Ok(())
    }

    /// A probe that stands still half-way, and another check meanwhile.
    async fn independence(&mut self) -> Result<(), Violation> {
        let rule = "the checks that it builds share nothing: one that hangs holds up no other";
        for condition in self.states() {
            self.bench.bring_about(condition).await;
            let (mut still, mut other) = ((self.build)(), (self.build)());
            let mut standing = still.check(PATIENT);
            let mut ended = false;
            for polls in 1..4 {
                // Until it waits for something; it is not dropped, and not run.
                if !ended {
                    let run = tokio::time::timeout(SHORT / 4, cut(polls, &mut standing));
                    ended = run.await == Ok(true);
                }
                says(&mut *other, condition, rule).await?;
            }
        }
        Ok(())
    }

    async fn leftovers(&mut self) -> Result<(), Violation> {
        let rule = "a dropped probe leaves nothing open or running";
        let runtime = tokio::runtime::Handle::current().metrics();
        for condition in self.states() {
            self.bench.bring_about(condition).await;
            let (tasks, files) = (runtime.num_alive_tasks(), open_files());
            for round in 0..DROPPED {
                drop_after(round % 4 + 1, &mut *(self.build)()).await;
            }
            let begun = Instant::now();
            let tidy =
                || runtime.num_alive_tasks() <= tasks + NOISE && open_files() <= files + NOISE;
            while !tidy() && begun.elapsed() < TIDY_WITHIN {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ensure(tidy(), rule, || {
                format!(
                    "after {DROPPED} dropped probes {} tasks instead of {tasks}, {} open files \
                     instead of {files} ({condition:?})",
                    runtime.num_alive_tasks(),
                    open_files(),
                )
            })?;
        }
        Ok(())
    }

    async fn changes(&mut self) -> Result<(), Violation> {
        if !self.has(Condition::Well) {
            return Ok(());
        }
        let rule = "`changed` waits until the check learns of a change by itself";
        self.bench.bring_about(Condition::Well).await;
        let mut check = (self.build)();
        says(&mut *check, Condition::Well, rule).await?;
        if let Ok(told) = tokio::time::timeout(QUIET, check.changed()).await {
            return Err(violated(
                rule,
                format!("nothing changed, and it said: {told}"),
            ));
        }
        if !self.bench.pushes() {
            return Ok(());
        }
        let rule = "`changed` says what it learnt";
        let (told, ()) = tokio::join!(
            tokio::time::timeout(PATIENT, check.changed()),
            self.bench.bring_about(Condition::Dead),
        );
        let unhealthy = matches!(told, Ok(Verdict::Unhealthy(..)));
        ensure(unhealthy, rule, || format!("after the death: {told:?}"))?;
        self.missed_changes().await
    }

    async fn missed_changes(&mut self) -> Result<(), Violation> {
        let rule = "a change that happened while nobody waited must be reported by the next call \
                    or be found by the next `check`";
        for polls in 0..4 {
            self.bench.bring_about(Condition::Well).await;
            let mut check = (self.build)();
            says(&mut *check, Condition::Well, rule).await?;
            let _ = tokio::time::timeout(QUIET, cut(polls, check.changed())).await;
            self.bench.bring_about(Condition::Dead).await;
            match tokio::time::timeout(QUIET, check.changed()).await {
                Ok(Verdict::Unhealthy(..)) => {}
                Ok(told) => return Err(violated(rule, format!("after the death: {told}"))),
                Err(_) => says(&mut *check, Condition::Dead, rule).await?,
            }
        }
        Ok(())
    }
}

/// Polls a probe so often, at most [`SHORT`], and drops it.
async fn drop_after(polls: usize, check: &mut dyn HealthCheck) {
    let _ = tokio::time::timeout(SHORT / 4, cut(polls, check.check(PATIENT))).await;
}

async fn says(
    check: &mut dyn HealthCheck,
    condition: Condition,
    rule: &'static str,
) -> Result<(), Violation> {
    says_within(check, condition, condition.timeout(), rule).await
}

/// What the condition demands; an `Unknown` of a busy machine is asked for again.
async fn says_within(
    check: &mut dyn HealthCheck,
    condition: Condition,
    timeout: Duration,
    rule: &'static str,
) -> Result<(), Violation> {
    let mut found = String::new();
    let start = Instant::now();
    for _ in 0..TRIES {
        if start.elapsed() > ENOUGH {
            break;
        }
        let verdict = probe(check, timeout).await?.verdict;
        readable(&verdict)?;
        match (&verdict, condition) {
            (Verdict::Healthy, Condition::Well)
            | (Verdict::Unknown(_), Condition::CheckerFails) => return Ok(()),
            (Verdict::Unhealthy(_, evidence), _) if condition.is_ill() => {
                let known_dead = matches!(condition, Condition::Dead | Condition::Refusing);
                let fits = known_dead || *evidence == Evidence::Probe;
                let rule = "silence and wrong answers are Evidence::Probe";
                return ensure(fits, rule, || format!("conclusive: {verdict}"));
            }
            (Verdict::Unknown(_), _) => {
                found = format!("{condition:?}: {verdict}");
                tokio::time::sleep(AGAIN).await;
            }
            (Verdict::Healthy | Verdict::Unhealthy(..), _) => {
                return Err(violated(rule, format!("{condition:?}: {verdict}")));
            }
        }
    }
    Err(violated(rule, format!("again and again {found}")))
}

fn readable(verdict: &Verdict) -> Result<(), Violation> {
    let rule = "a reason is never empty";
    match verdict {
        Verdict::Healthy => Ok(()),
        Verdict::Unhealthy(reason, _) | Verdict::Unknown(reason) => {
            ensure(!reason.as_str().trim().is_empty(), rule, || {
                format!("{verdict:?}")
            })
        }
    }
}

/// Of this process; 0 where that cannot be known.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[cfg(test)]
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "a fake goes wrong in one way, and right in all others"
)]
mod tests;
