//! Connections: how many at once, how long, and who goes when all places are taken.
//!
//! Each listener has [`MAX_CONNECTIONS`] places of its own, so that whoever floods TCP keeps
//! nobody from the Unix socket. When all are taken and another connection comes, the oldest
//! one whose request is not complete is dropped; where there is none, the oldest whose answer
//! is not taken after [`ANSWER_GRACE`]. An order that is being carried out is carried out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::access::Peer;
use super::answer::{Sources, answer};
use super::{HEAD_TIMEOUT, MAX_CONNECTIONS, MAX_REQUEST, REQUEST_TIMEOUT};

/// How long an answer may be under way before its connection can be dropped for another.
pub(super) const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How far a connection is.
#[derive(Debug, Default)]
pub(super) struct Progress(OnceLock<Instant>);

impl Progress {
    /// The request is complete, and being answered from now on.
    pub(super) fn answering(&self) {
        self.0.get_or_init(Instant::now);
    }

    /// Since when it is being answered.
    fn since(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}

/// Accepts for ever. Dropped, it drops its connections; orders are carried out all the same.
pub(super) async fn serve(listener: Listener, sources: Arc<Sources>) {
    let mut places = Places::default();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = places.one_ended() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                places.make_room(&sources).await;
                let progress = Arc::new(Progress::default());
                let sources = Arc::clone(&sources);
                let connection = serve_one(stream, peer, sources, Arc::clone(&progress));
                places.take(connection, progress);
            }
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn accept(listener: &Listener) -> io::Result<(Box<dyn Stream>, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            Ok((Box::new(stream), Peer::Tcp(address)))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::of(&stream);
            Ok((Box::new(stream), peer))
        }
    }
}

async fn serve_one(
    stream: Box<dyn Stream>,
    peer: Peer,
    sources: Arc<Sources>,
    progress: Arc<Progress>,
) {
    let service = service_fn(move |request| {
        let (peer, sources, progress) = (peer.clone(), Arc::clone(&sources), Arc::clone(&progress));
        async move { Ok::<_, Infallible>(answer(request, &peer, &sources, &progress).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(REQUEST_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        // Too slow, cut off, or no HTTP: the client's own concern.
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_) => tracing::debug!("admin connection: out of time"),
    }
}

struct Place {
    task: AbortHandle,
    progress: Arc<Progress>,
}

/// The connections of one listener, the oldest first.
#[derive(Default)]
struct Places {
    next: u64,
    open: BTreeMap<u64, Place>,
    tasks: JoinSet<u64>,
}

impl Places {
    fn take(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        progress: Arc<Progress>,
    ) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let task = self.tasks.spawn(async move {
            connection.await;
            number
        });
        self.open.insert(number, Place { task, progress });
    }

    /// Waits until a connection ends; for ever while there is none. Cancel-safe.
    async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(number)) => {
                self.open.remove(&number);
            }
            // Dropped by us, and gone from the list already, or it panicked.
            Some(Err(error)) => self.open.retain(|_, place| place.task.id() != error.id()),
            None => std::future::pending().await,
        }
    }

    /// Returns when there is a free place, at most [`REQUEST_TIMEOUT`] from now.
    async fn make_room(&mut self, sources: &Sources) {
        while self.open.len() >= MAX_CONNECTIONS {
            let now = Instant::now();
            if let Some(number) = self.dispensable(now) {
                if let Some(place) = self.open.remove(&number) {
                    place.task.abort();
                }
                sources.counts.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // All are being answered, and none for long.
            let _ = tokio::time::timeout(ANSWER_GRACE, self.one_ended()).await;
        }
    }

    fn dispensable(&self, now: Instant) -> Option<u64> {
        let unanswered = |place: &Place| place.progress.since().is_none();
        let untaken = |place: &Place| {
            let since = place.progress.since();
            since.is_some_and(|at| now.saturating_duration_since(at) >= ANSWER_GRACE)
        };
        let first = |fits: &dyn Fn(&Place) -> bool| {
            let mut open = self.open.iter();
            open.find(|(_, place)| fits(place))
                .map(|(number, _)| *number)
        };
        first(&unanswered).or_else(|| first(&untaken))
    }
}
