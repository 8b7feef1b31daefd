//! Supervision of checks: intervals, time-outs, jitter, panics, hangs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::leaks::{Usage, are_suspected, leaked};
use super::probes::{Place, Places, Run, all_blocked};
use super::{AbortOnDrop, MAX_CHECK_TIME, NodeError, spawn};
use crate::health::{BuildCheck, Severity, Verdict};
use crate::machine::CheckRule;
use crate::service::{CheckName, ServiceName};

/// How long after its own time-out a probe may still answer before it counts as hung.
const GRACE: Duration = Duration::from_millis(250);
/// Least time between two verdicts pushed by [`HealthCheck::changed`](crate::HealthCheck::changed); a check that pushes
/// faster is slowed to this.
const PUSH_GAP: Duration = Duration::from_millis(10);

/// Most probes in a row that follow each other at [`CheckSpec::recheck`]. A service that has
/// failed for longer is known to, and is probed at its interval again.
pub const MAX_RECHECKS: u32 = 8;

/// One check: how to build it, and when to run it.
#[derive(Clone)]
pub struct CheckSpec {
    /// Its name, unique within the service.
    pub name: CheckName,
    /// Time from the start of one probe to the start of the next. Each is jittered by up to
    /// a tenth either way, so that a fleet's probes do not fall into step.
    pub interval: Duration,
    /// How long the service may take to answer one probe.
    pub timeout: Duration,
    /// Time between probes after a failure, for at most [`MAX_RECHECKS`] of them in a row: a
    /// real failure is then known sooner than `fall` intervals. `None`, or one longer than the
    /// interval: the interval.
    pub recheck: Option<Duration>,
    /// How much its failure matters.
    pub severity: Severity,
    /// Builds the check: at the start, and again after it panicked or hung.
    pub build: BuildCheck,
}

impl CheckSpec {
    /// A critical check without faster re-checks.
    #[must_use]
    pub const fn new(
        name: CheckName,
        interval: Duration,
        timeout: Duration,
        build: BuildCheck,
    ) -> Self {
        Self {
            name,
            interval,
            timeout,
            recheck: None,
            severity: Severity::Critical,
            build,
        }
    }
}

impl std::fmt::Debug for CheckSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckSpec")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What the machine is told of the checks.
pub(super) fn rules(checks: &[CheckSpec]) -> Vec<CheckRule> {
    let rule = |check: &CheckSpec| CheckRule {
        name: check.name.clone(),
        severity: check.severity,
    };
    checks.iter().map(rule).collect()
}

pub(super) fn validate(service: &ServiceName, checks: &[CheckSpec]) -> Result<(), NodeError> {
    crate::machine::check_list(service, &rules(checks))?;
    let possible = |time: Duration| !time.is_zero() && time <= MAX_CHECK_TIME;
    match checks.iter().find(|check| {
        let rechecks = check.recheck.is_none_or(possible);
        !possible(check.interval) || !possible(check.timeout) || !rechecks
    }) {
        Some(check) => Err(NodeError::CheckTimes {
            service: service.clone(),
            check: check.name.clone(),
        }),
        None => Ok(()),
    }
}

/// A verdict on its way to the decision loop.
pub(super) struct Spoken {
    /// Which list of checks it comes from; one of an earlier list no longer counts.
    pub(super) generation: u64,
    pub(super) check: CheckName,
    pub(super) verdict: Verdict,
}

/// Where the supervisors of one list of checks report.
#[derive(Clone)]
pub(super) struct Reports {
    pub(super) service: ServiceName,
    pub(super) generation: u64,
    pub(super) verdicts: mpsc::Sender<Spoken>,
}

impl Reports {
    /// Waits for a place; false when nobody listens any more.
    async fn send(&self, check: &CheckName, verdict: Verdict) -> bool {
        let spoken = Spoken {
            generation: self.generation,
            check: check.clone(),
            verdict,
        };
        self.verdicts.send(spoken).await.is_ok()
    }
}

/// Starts a supervisor for each check. They end when the handles are dropped.
/// Probes run in their [places](super::probes), their supervisors here: a probe that blocks its
/// thread must not take its own supervisor with it.
pub(super) fn start(
    checks: &[CheckSpec],
    places: &Arc<Places>,
    reports: &Reports,
) -> Vec<AbortOnDrop> {
    checks
        .iter()
        .map(|check| {
            spawn(supervise(
                check.clone(),
                Arc::clone(places),
                reports.clone(),
            ))
        })
        .collect()
}

/// Keeps one check running for ever; ends when nobody listens any more.
async fn supervise(spec: CheckSpec, places: Arc<Places>, reports: Reports) {
    let mut jitter = Jitter::new(&spec.name);
    let key = (reports.service.clone(), spec.name.clone());
    let mut blocks = match places.earlier(&key) {
        Some(earlier) => bury(&spec, earlier, &reports).await == Buried::Blocked,
        None => false,
    };
    loop {
        let end = match places.find(blocks) {
            Ok(place) => watch_over(&spec, &places, place, &mut jitter, &reports).await,
            Err(error) => End::checker(format!("there is no thread to run it in: {error}")),
        };
        blocks |= end.blocked;
        if let Some(why) = end.why {
            tracing::debug!(check = %spec.name, reason = %why, "the check itself failed; it is built afresh");
            if !reports.send(&spec.name, Verdict::unknown(why)).await {
                return;
            }
        }
        if !end.at_once {
            tokio::time::sleep(jitter.apply(spec.interval)).await;
        }
    }
}

enum Progress {
    ProbeStarted,
    Spoke(Verdict),
}

/// How one instance of a check ended.
struct End {
    /// `None`: it did no wrong that is known.
    why: Option<String>,
    /// It blocked its thread.
    blocked: bool,
    /// It is not to blame, and need not wait.
    at_once: bool,
}

impl End {
    const fn checker(why: String) -> Self {
        Self {
            why: Some(why),
            blocked: false,
            at_once: false,
        }
    }

    const fn stopped(leak: Option<String>) -> Self {
        Self {
            why: leak,
            blocked: false,
            at_once: true,
        }
    }

    fn after(buried: Buried, why: &str) -> Self {
        let (blocked, starved) = (buried == Buried::Blocked, buried == Buried::Starved);
        let why = match buried {
            Buried::Stopped => why,
            Buried::Blocked => "it blocked its thread; from now on it has one of its own",
            Buried::Starved => STARVED,
        };
        Self {
            why: Some(why.to_owned()),
            blocked,
            at_once: starved,
        }
    }
}

/// What a check used has gone when the use has not fallen for so long.
const SETTLED: Duration = Duration::from_millis(200);
/// It is waited for so long at most.
const SETTLING: Duration = Duration::from_secs(5);
const HUNG: &str = "no answer within its time-out and a grace: it hung";
const NOT_BEGUN: &str = "the next probe was not begun in time: it blocks, or it is starved";
const STARVED: &str = "other checks block every thread of the probes; it is built afresh elsewhere";

/// Runs one instance of the check until it panics, hangs or is starved, and says which.
async fn watch_over(
    spec: &CheckSpec,
    places: &Arc<Places>,
    place: Arc<Place>,
    jitter: &mut Jitter,
    reports: &Reports,
) -> End {
    let (progress, mut heard) = mpsc::channel(1);
    let probe = probe_for_ever(spec.clone(), jitter.fork(), progress);
    let key = (reports.service.clone(), spec.name.clone());
    let mut task = places.run(key, place, probe);
    let mut blocked = task.run().blocked();
    let mut leaks = places.leaks();
    // Building the check is bounded as a probe is.
    let mut deadline = Instant::now() + spec.timeout + GRACE;
    let mut late = HUNG;
    loop {
        tokio::select! {
            biased; // after a stall, an answer that did come in time counts
            heard = heard.recv() => match heard {
                Some(Progress::ProbeStarted) => {
                    deadline = Instant::now() + spec.timeout + GRACE;
                    late = HUNG;
                }
                Some(Progress::Spoke(verdict)) => {
                    // Nobody listens: this supervisor is about to be aborted.
                    reports.send(&spec.name, verdict).await;
                    deadline = Instant::now() + Jitter::longest(spec.interval) + spec.timeout + GRACE;
                    late = NOT_BEGUN;
                }
                None => return End::checker(ended(task.join().await)),
            },
            () = all_blocked(&mut blocked) => {
                return End::after(bury(spec, task.run().clone(), reports).await, late);
            }
            turn = leaks.turn() => {
                let before = places.usage();
                if !are_suspected(before) {
                    leaks.pass();
                    continue;
                }
                let mut run = task.run().clone();
                run.abort();
                if tokio::time::timeout(GRACE, run.ended()).await.is_ok() {
                    return End::stopped(leaked(before, settled(places).await));
                }
                drop(turn);
                return End::after(bury(spec, run, reports).await, late);
            }
            () = tokio::time::sleep_until(deadline) => {
                return End::after(bury(spec, task.run().clone(), reports).await, late);
            }
        }
    }
}

/// What is in use once that falls no more: the tasks that go with a check end one by one after
/// it, and are not to be held against the next.
async fn settled(places: &Places) -> Usage {
    let end = Instant::now() + SETTLING;
    let (mut usage, mut since) = (places.usage(), Instant::now());
    while since.elapsed() < SETTLED && Instant::now() < end {
        tokio::time::sleep(SETTLED / 10).await;
        let now = places.usage();
        if now.tasks < usage.tasks || now.descriptors < usage.descriptors {
            since = Instant::now();
        }
        usage = now;
    }
    usage
}

/// What came of stopping a check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buried {
    /// It has ended.
    Stopped,
    /// It has ended, long after it was told to: it blocked its thread.
    Blocked,
    /// It will end when others let go of a thread; it keeps none itself.
    Starved,
}

/// Aborts a check. One that blocks its thread cannot be aborted; then this waits until it
/// returns by itself, saying `Unknown` at each interval, rather than block a second thread.
async fn bury(spec: &CheckSpec, mut run: Run, reports: &Reports) -> Buried {
    run.abort();
    let mut all = run.blocked();
    let mut buried = Buried::Stopped;
    let mut wait = GRACE;
    loop {
        let innocent = buried == Buried::Stopped && !run.is_in_step();
        tokio::select! {
            biased;
            () = run.ended() => return buried,
            () = all_blocked(&mut all), if innocent => return Buried::Starved,
            () = tokio::time::sleep(wait) => {}
        }
        wait = spec.interval.max(GRACE);
        let verdict = if run.is_in_step() {
            buried = Buried::Blocked;
            "it hangs and cannot be stopped: it blocks its thread"
        } else {
            "it cannot be stopped: nothing is run where it runs"
        };
        if !reports.send(&spec.name, Verdict::unknown(verdict)).await {
            return buried;
        }
    }
}

async fn probe_for_ever(spec: CheckSpec, mut jitter: Jitter, progress: mpsc::Sender<Progress>) {
    let mut check = (spec.build)();
    let mut next = Instant::now();
    let mut failures: u32 = 0;
    loop {
        if progress.send(Progress::ProbeStarted).await.is_err() {
            return;
        }
        let verdict = check.check(spec.timeout).await;
        failures = match verdict {
            Verdict::Healthy => 0,
            Verdict::Unhealthy(..) => failures.saturating_add(1),
            Verdict::Unknown(_) => failures,
        };
        if progress.send(Progress::Spoke(verdict)).await.is_err() {
            return;
        }
        // After a stall the missed probes are not made up for: two at once would be one.
        let interval = jitter.apply(match spec.recheck {
            Some(recheck) if (1..=MAX_RECHECKS).contains(&failures) => recheck.min(spec.interval),
            Some(_) | None => spec.interval,
        });
        next += interval;
        if next < Instant::now() {
            next = Instant::now() + interval;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                verdict = check.changed() => {
                    if progress.send(Progress::Spoke(verdict)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PUSH_GAP).await;
                }
            }
        }
    }
}

fn ended(result: Result<(), JoinError>) -> String {
    match result {
        Err(error) if error.is_panic() => {
            let payload = error.into_panic();
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("without a message");
            format!("it panicked: {text}")
        }
        Ok(()) | Err(_) => "it ended by itself".to_owned(),
    }
}

/// Spreads intervals by up to a tenth either way. It need not be unpredictable, only
/// different for each check and node, so it is seeded from the name and the process.
struct Jitter(u64);

impl Jitter {
    fn new(name: &CheckName) -> Self {
        let mut seed = u64::from(std::process::id());
        for byte in name.as_str().bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(seed)
    }

    const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// SplitMix64.
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn longest(interval: Duration) -> Duration {
        interval * 11 / 10
    }

    fn apply(&mut self, interval: Duration) -> Duration {
        let per_mille = u32::try_from(self.next() % 201).unwrap_or(100);
        interval * (900 + per_mille) / 1000
    }
}
