//! One question over UDP, asked until it is answered, and several targets probed at once.
//!
//! # Tasks and cancellation
//!
//! No task is started: everything runs in the check's own future and ends with it.
//!
//! # Bounds
//!
//! A request is sent at most [`SENDS`] times, at the start and at equal parts of the time-out:
//! a lost datagram is no failure of the service. At most [`MAX_IGNORED`] datagrams that answer
//! something else are read. A checker that comes back later than [`STARVED`] after its own
//! deadline says that it was starved, and nothing of the service.
#![allow(
    clippy::disallowed_methods,
    reason = "a probe over the network is where time and randomness enter"
)]

use std::fmt::{self, Display};
use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::verdict_on;
use crate::health::Verdict;

/// How often a request is sent within one time-out.
const SENDS: u32 = 3;
/// Datagrams that one exchange reads in vain before it gives up.
const MAX_IGNORED: u32 = 1024;
/// Largest datagram read; a longer one is cut to it.
const MAX_DATAGRAM: usize = 4096;
/// A probe that wakes later than this after its deadline was starved, and the service perhaps
/// with it.
const STARVED: Duration = Duration::from_millis(200);

/// How long one probe may take, from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    start: Instant,
    timeout: Duration,
}

impl Patience {
    /// From now on.
    pub(crate) fn new(timeout: Duration) -> Self {
        let start = Instant::now();
        Self { start, timeout }
    }

    /// When it ends.
    pub(crate) fn deadline(self) -> Instant {
        self.start + self.timeout
    }

    /// Runs one step of the probe. `None`: the time is over, and the step was dropped. A step
    /// that is ready by then counts, however late that is noticed.
    pub(crate) async fn run<T>(self, step: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.deadline(), step).await.ok()
    }

    /// The verdict when it ended before the service did `what` ("no TLS handshake").
    pub(crate) fn over(self, target: impl Display, what: &str) -> Verdict {
        match self.silence(Ignored::default()) {
            NoAnswer::Silent(timeout, _) => {
                Verdict::unhealthy(format!("{target}: {what} within {timeout:?}"))
            }
            other @ (NoAnswer::Io(..)
            | NoAnswer::Verdict(_)
            | NoAnswer::Flooded(_)
            | NoAnswer::Starved) => other.verdict(target),
        }
    }

    /// What to say when it ended without an answer.
    pub(crate) fn silence(self, ignored: Ignored) -> NoAnswer {
        if Instant::now() > self.deadline() + STARVED {
            return NoAnswer::Starved;
        }
        NoAnswer::Silent(self.timeout, ignored)
    }
}

/// What was heard that was no answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ignored {
    count: u32,
    last: String,
}

impl Ignored {
    /// Counts one; an error when there have been too many.
    pub(crate) fn add(&mut self, what: String) -> Result<(), NoAnswer> {
        self.count += 1;
        self.last = what;
        if self.count >= MAX_IGNORED {
            return Err(NoAnswer::Flooded(self.clone()));
        }
        Ok(())
    }
}

impl Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => Ok(()),
            1 => write!(f, "; ignored: {}", self.last),
            count => write!(f, "; {count} ignored, the last: {}", self.last),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The system said so: what was being done, and its error.
    Io(&'static str, io::Error),
    /// Something that was judged already.
    Verdict(Verdict),
    /// Nothing, or nothing that answers.
    Silent(Duration, Ignored),
    /// Very much that answers nothing.
    Flooded(Ignored),
    /// The checker itself did not run in time.
    Starved,
}

impl NoAnswer {
    /// What that says of `target`.
    pub(crate) fn verdict(&self, target: impl Display) -> Verdict {
        match self {
            Self::Io(doing, error) => verdict_on(target, doing, error),
            Self::Verdict(verdict) => verdict.clone(),
            Self::Silent(timeout, ignored) => {
                Verdict::unhealthy(format!("{target}: no answer within {timeout:?}{ignored}"))
            }
            Self::Flooded(ignored) => {
                Verdict::unhealthy(format!("{target}: no answer among what it sends{ignored}"))
            }
            Self::Starved => Verdict::unknown(format!(
                "{target}: the checker did not run in time, and cannot say whether an answer came"
            )),
        }
    }
}

/// What a datagram turned out to be.
#[derive(Debug)]
pub(crate) enum Heard<T> {
    /// The answer, right or wrong.
    Answer(T),
    /// Something else; what.
    Ignored(String),
}

/// Sends `request` over a connected socket, and again, until `hear` has heard an answer.
///
/// Errors that the socket reports, such as "connection refused", end it at once.
pub(crate) async fn exchange<T>(
    socket: &UdpSocket,
    request: &[u8],
    patience: Patience,
    mut hear: impl FnMut(&[u8]) -> Heard<T>,
) -> Result<T, NoAnswer> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut ignored = Ignored::default();
    for send in 1..=SENDS {
        let until = patience.start + patience.timeout * send / SENDS;
        match timeout_at(until, socket.send(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(NoAnswer::Io("send", error)),
            Err(_) => continue,
        }
        // At the time's end the socket is looked at once more: after a stall, an answer that
        // did come counts.
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let length = received.map_err(|error| NoAnswer::Io("receive", error))?;
            match hear(buffer.get(..length).unwrap_or_default()) {
                Heard::Answer(answer) => return Ok(answer),
                Heard::Ignored(what) => ignored.add(what)?,
            }
        }
    }
    Err(patience.silence(ignored))
}

/// Runs probes side by side to their ends, and says the worst of what they found.
pub(crate) async fn all<F: Future<Output = Verdict>>(
    probes: impl IntoIterator<Item = F>,
) -> Verdict {
    let mut running: Vec<Pin<Box<F>>> = probes.into_iter().map(Box::pin).collect();
    let mut found: Vec<Option<Verdict>> = vec![None; running.len()];
    poll_fn(|context| {
        let mut ended = true;
        for (probe, verdict) in running.iter_mut().zip(&mut found) {
            if verdict.is_some() {
                continue;
            }
            match probe.as_mut().poll(context) {
                Poll::Ready(said) => *verdict = Some(said),
                Poll::Pending => ended = false,
            }
        }
        if ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    worst(found.into_iter().flatten())
}

/// Unhealthy if any is, with every reason; else Unknown if any is; else healthy.
fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let (mut unhealthy, mut unknown) = (Vec::new(), Vec::new());
    let mut conclusive = false;
    for verdict in verdicts {
        match verdict {
            Verdict::Healthy => {}
            Verdict::Unhealthy(reason, evidence) => {
                conclusive |= evidence == crate::health::Evidence::Conclusive;
                unhealthy.push(reason.to_string());
            }
            Verdict::Unknown(reason) => unknown.push(reason.to_string()),
        }
    }
    match (unhealthy.is_empty(), unknown.is_empty()) {
        (false, _) if conclusive => Verdict::gone(unhealthy.join("; ")),
        (false, _) => Verdict::unhealthy(unhealthy.join("; ")),
        (true, false) => Verdict::unknown(unknown.join("; ")),
        (true, true) => Verdict::Healthy,
    }
}

/// A number that nobody off the path can guess: a nonce or an identifier, not a secret.
///
/// The standard library keys a hasher from the system's randomness once for each thread, and
/// anew from that for each hasher; no descriptor is needed.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_worst_of_all_is_said_with_every_reason() {
        let say = |verdicts: Vec<Verdict>| all(verdicts.into_iter().map(std::future::ready));
        assert_eq!(say(vec![Verdict::Healthy]).await, Verdict::Healthy);
        assert_eq!(
            say(vec![Verdict::Healthy, Verdict::unknown("a")]).await,
            Verdict::unknown("a")
        );
        let mixed = vec![
            Verdict::unhealthy("a"),
            Verdict::unknown("b"),
            Verdict::unhealthy("c"),
        ];
        assert_eq!(say(mixed).await, Verdict::unhealthy("a; c"));
        assert_eq!(
            say(vec![Verdict::unhealthy("a"), Verdict::gone("b")]).await,
            Verdict::gone("a; b")
        );
    }

    #[tokio::test]
    async fn probes_run_side_by_side() {
        // Each waits for the other: one after the other would never end.
        let barrier = tokio::sync::Barrier::new(2);
        let probe = || async {
            barrier.wait().await;
            Verdict::Healthy
        };
        assert_eq!(all([probe(), probe()]).await, Verdict::Healthy);
    }

    #[test]
    fn random_numbers_differ() {
        let numbers: std::collections::BTreeSet<u64> = (0..1000).map(|_| random()).collect();
        assert_eq!(numbers.len(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_checker_that_was_starved_blames_nobody() {
        let patience = Patience::new(Duration::from_millis(500));
        tokio::time::advance(Duration::from_millis(600)).await;
        let late = patience.silence(Ignored::default()).verdict("x");
        assert!(matches!(late, Verdict::Unhealthy(..)), "{late}");
        tokio::time::advance(Duration::from_secs(5)).await;
        let starved = patience.silence(Ignored::default()).verdict("x");
        assert!(matches!(starved, Verdict::Unknown(_)), "{starved}");
        assert_eq!(patience.over("x", "no step"), starved);
    }

    #[tokio::test(start_paused = true)]
    async fn all_steps_of_a_probe_share_its_time() {
        let patience = Patience::new(Duration::from_millis(100));
        let nap = |millis| tokio::time::sleep(Duration::from_millis(millis));
        assert!(patience.run(nap(40)).await.is_some());
        assert!(patience.run(nap(50)).await.is_some());
        assert!(patience.run(nap(20)).await.is_none());
        let verdict = patience.over("x", "no step");
        assert_eq!(verdict, Verdict::unhealthy("x: no step within 100ms"));
        assert_eq!(patience.run(async { 1 }).await, Some(1), "it was ready");
    }

    #[tokio::test]
    async fn what_is_ignored_is_counted_and_bounded() {
        let mut ignored = Ignored::default();
        assert_eq!(ignored.to_string(), "");
        ignored.add("noise".to_owned()).unwrap();
        assert_eq!(ignored.to_string(), "; ignored: noise");
        let flooded = (0..MAX_IGNORED).find_map(|_| ignored.add("more".to_owned()).err());
        let verdict = flooded.unwrap().verdict("x");
        assert!(
            verdict.to_string().contains("1024 ignored, the last: more"),
            "{verdict}"
        );
    }
}
