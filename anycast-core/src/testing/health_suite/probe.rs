//! One probe, watched.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::health::{BuildCheck, HealthCheck, Verdict};
use crate::testing::violation::{Violation, violated};

/// A probe that takes longer than this beyond its time-out hangs.
const HANGS: Duration = Duration::from_secs(10);

pub(super) struct Probed {
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    /// The longest that it kept its thread.
    pub(super) longest_step: Duration,
    /// It was not run for as long as was asked for: it did not answer before.
    pub(super) starved: bool,
}

/// Probes once.
pub(super) async fn probe(
    check: &mut dyn HealthCheck,
    timeout: Duration,
) -> Result<Probed, Violation> {
    let start = Instant::now();
    let hangs = timeout.saturating_add(HANGS);
    match tokio::time::timeout(hangs, watched(check.check(timeout))).await {
        Ok(Ok((verdict, longest_step))) => Ok(Probed {
            verdict,
            took: start.elapsed(),
            longest_step,
            starved: false,
        }),
        Ok(Err(panic)) => Err(violated(
            "errors are verdicts; there is no other channel",
            format!("it panicked: {panic}"),
        )),
        Err(_) => Err(violated(
            "answer within `timeout`",
            format!("no answer {hangs:?} after a probe with {timeout:?} to answer in"),
        )),
    }
}

/// Builds a check and probes once in a thread and a runtime of its own, which is held up for
/// `starve` as soon as the probe waits. In words, what went wrong.
pub(super) async fn apart(
    build: &BuildCheck,
    timeout: Duration,
    starve: Option<Duration>,
) -> Result<Probed, String> {
    let (sender, answer) = oneshot::channel();
    let build = build.clone();
    std::thread::Builder::new()
        .name("anycast-suite".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let probed = match runtime {
                Ok(runtime) => runtime.block_on(inside(&build, timeout, starve)),
                Err(error) => Err(format!("the suite cannot make a runtime: {error}")),
            };
            let _ = sender.send(probed);
        })
        .map_err(|error| format!("the suite cannot start a thread: {error}"))?;
    let bound = timeout + starve.unwrap_or_default() + HANGS;
    match tokio::time::timeout(bound, answer).await {
        Ok(Ok(probed)) => probed,
        Ok(Err(_)) => Err("its thread died".to_owned()),
        Err(_) => Err(format!("it has kept its thread for {bound:?}")),
    }
}

async fn inside(
    build: &BuildCheck,
    timeout: Duration,
    starve: Option<Duration>,
) -> Result<Probed, String> {
    let building = Instant::now();
    let mut check = build();
    let built = building.elapsed();
    let start = Instant::now();
    let mut probing = pin!(watched(check.check(timeout)));
    let early = match starve {
        // It has begun whatever it begins in tasks of its own.
        Some(_) => tokio::time::timeout(timeout / 3, &mut probing).await.ok(),
        None => None,
    };
    let starved = starve.is_some() && early.is_none();
    let ended = match (early, starve) {
        (Some(ended), _) => ended,
        (None, starve) => {
            std::thread::sleep(starve.map_or(Duration::ZERO, |time| timeout + time));
            probing.await
        }
    };
    let (verdict, longest) = ended.map_err(|panic| format!("it panicked: {panic}"))?;
    Ok(Probed {
        verdict,
        took: start.elapsed(),
        longest_step: longest.max(built),
        starved,
    })
}

/// Runs a probe; answers also how long its longest step took, or how it panicked.
async fn watched(probing: impl Future<Output = Verdict>) -> Result<(Verdict, Duration), String> {
    let mut probing = pin!(probing);
    let mut longest = Duration::ZERO;
    poll_fn(|context| {
        let start = Instant::now();
        let polled = catch_unwind(AssertUnwindSafe(|| probing.as_mut().poll(context)));
        longest = longest.max(start.elapsed());
        match polled {
            Ok(Poll::Ready(verdict)) => Poll::Ready(Ok((verdict, longest))),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(said(&*payload))),
        }
    })
    .await
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
