//! The client: fetches the file until it has it.
//!
//! It is as patient as firmware is: an ICMP error is as good as silence to it, and it repeats what
//! it last said until somebody answers, whoever that is. A request that fails all the same is begun
//! again, from byte 0: [`Client::get`] neither retries nor continues. What arrives is hashed and not
//! kept. The client takes no more than [`RATE`] bytes a second, so that there is time to break
//! things.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anycast_labs::Netns;
use anycast_tftp::client::{Client, Settings, TransferErrorKind};
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep, sleep_until};

use crate::error::Error;
use crate::network::SERVICE;
use crate::site::FILE;
use crate::timeline::{Event, Finished, Stamped};

/// Bytes a second that the client takes.
pub(crate) const RATE: u64 = 8_000_000;
/// Silence after which the client gives a request up.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(15);
/// Bytes in a block.
pub(crate) const BLKSIZE: u16 = 1428;
/// When a request without an answer is repeated first.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// Between a request that failed and the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// Progress is told this often.
const REPORT: Duration = Duration::from_millis(50);
/// Waits shorter than this are saved up: timers are not that exact.
const SHORTEST_WAIT: Duration = Duration::from_millis(4);
/// A delay up to this is made up for; time in which nothing came is not.
const CREDIT: Duration = Duration::from_millis(20);

/// Fetches the file in `client`, as often as it takes, until it is there or `stop`.
pub(crate) fn run(
    client: &Netns,
    stop: &AtomicBool,
    events: &Sender<Stamped>,
) -> Result<(), Error> {
    let outcome = client.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(fetch(stop, events));
        Ok(())
    })?;
    outcome.map_err(Error::system("start the client"))
}

async fn fetch(stop: &AtomicBool, events: &Sender<Stamped>) {
    // A receiver that is gone has set `stop`, too.
    let tell = |event| drop(events.send((Instant::now(), event)));
    let settings = Settings::default()
        .ask_node(true)
        .blksize(Some(BLKSIZE))
        .first_interval(FIRST_INTERVAL)
        .give_up(GIVE_UP)
        .abort_when_refused(false)
        .dally(Duration::ZERO);
    let client = Client::new(settings);
    let server = SocketAddr::new(IpAddr::V4(SERVICE), 69);
    let mut attempt = 0;
    while !stop.load(Ordering::Relaxed) {
        attempt += 1;
        let mut sink = Sink::new(stop);
        let mut told: Option<Instant> = None;
        let mut waits = Waits::default();
        let result = client
            .get(server, FILE, &mut sink, |progress| {
                let bytes = progress.bytes;
                waits.handle(bytes, Instant::now());
                if bytes > 0 && told.is_none_or(|at| at.elapsed() >= REPORT) {
                    told = Some(Instant::now());
                    tell(Event::Progress { attempt, bytes });
                }
            })
            .await;
        match result {
            Ok(transferred) => {
                return tell(Event::Finished(Finished {
                    attempt,
                    node: transferred.agreed.node,
                    bytes: transferred.bytes,
                    hash: sink.hasher.finalize(),
                    longest_wait: waits.longest,
                    repeated: transferred.retransmissions,
                }));
            }
            Err(error) => {
                let why = explain(error.kind());
                if !is_worth_repeating(error.kind()) {
                    return tell(Event::Failed(why));
                }
                tell(Event::Broken { attempt, why });
                sleep(PAUSE).await;
            }
        }
    }
}

/// In the system's own words, where it is the system that refuses.
fn explain(kind: &TransferErrorKind) -> String {
    if let TransferErrorKind::Socket(source) = kind {
        return source.to_string();
    }
    kind.to_string()
}

/// Whether the network or a dead daemon is to blame, rather than the request.
fn is_worth_repeating(kind: &TransferErrorKind) -> bool {
    matches!(
        kind,
        TransferErrorKind::NoAnswer { .. }
            | TransferErrorKind::Refused
            | TransferErrorKind::Socket(_)
    )
}

/// How long the client waited for a block that brought it on.
#[derive(Debug, Default)]
struct Waits {
    last: Option<(u64, Instant)>,
    longest: Duration,
}

impl Waits {
    fn handle(&mut self, bytes: u64, now: Instant) {
        if let Some((before, at)) = self.last {
            if bytes <= before {
                return;
            }
            self.longest = self.longest.max(now.saturating_duration_since(at));
        }
        self.last = Some((bytes, now));
    }
}

/// Hashes what it is given, at most [`RATE`] bytes a second.
struct Sink<'a> {
    hasher: blake3::Hasher,
    /// When what was taken so far would have arrived at [`RATE`].
    due: Instant,
    wait: Option<Pin<Box<Sleep>>>,
    stop: &'a AtomicBool,
}

impl<'a> Sink<'a> {
    fn new(stop: &'a AtomicBool) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            due: Instant::now(),
            wait: None,
            stop,
        }
    }
}

impl AsyncWrite for Sink<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.stop.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
        }
        let now = Instant::now();
        if self.wait.is_none() && self.due.saturating_duration_since(now) >= SHORTEST_WAIT {
            self.wait = Some(Box::pin(sleep_until(self.due.into())));
        }
        if let Some(wait) = &mut self.wait {
            if wait.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.wait = None;
        }
        self.hasher.update(data);
        let cost = Duration::from_nanos(data.len() as u64 * 1_000_000_000 / RATE);
        let behind = now.saturating_duration_since(self.due);
        self.due += behind.saturating_sub(CREDIT) + cost;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_brings_the_client_on_ends_a_wait() {
        let start = Instant::now();
        let mut waits = Waits::default();
        for (ms, bytes) in [
            (0, 0),
            (10, 512),
            (20, 512),
            (1000, 512),
            (1510, 1024),
            (1600, 1536),
        ] {
            waits.handle(bytes, start + Duration::from_millis(ms));
        }
        assert_eq!(waits.longest, Duration::from_millis(1500));
    }
}
