//! The task of one listen address: one socket, one engine, one end of the way to its peers.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anycast_core::NodeName;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::link::Ours;
use super::log::Log;
use super::pool::Pool;
use super::socket::{Bound, Inbox, ServerSocket};
use super::{Active, IoStats, Observer, ServerStats, Shared};
use crate::handoff::Node;
use crate::proto::server::{MAX_TRANSMIT, Transmit};

/// Most batches that are received before timers, stores and other tasks get their turn.
const MAX_BATCHES: usize = 8;

/// Most packets, or windows sent as one, that go out before datagrams, timers, stores and
/// other tasks get their turn.
const MAX_TRANSMITS: usize = 256;

/// Pause after an error of the socket, so that a lasting one does not eat a core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// How far the timer is set when the engine waits for nothing.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Shard {
    index: usize,
    socket: ServerSocket,
    engine: Node,
    /// Without a fleet there is none.
    link: Option<Ours>,
    pool: Pool,
    active: watch::Receiver<Arc<Active>>,
    stop: watch::Receiver<bool>,
    draining: watch::Receiver<bool>,
    current: Arc<Active>,
    shared: Arc<Shared>,
    observer: Observer,
    inbox: Inbox,
    outbox: Outbox,
    io: IoStats,
    log: Log,
    /// Transfers in flight, as they were last told.
    told: usize,
    /// Sending was interrupted in favour of others.
    has_more: bool,
}

/// What the socket could not take yet.
struct Outbox {
    buf: Vec<u8>,
    pending: Option<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    transmit: Transmit,
    /// Bytes that are sent already.
    sent: usize,
    /// Whether the rest goes packet by packet.
    is_split: bool,
    /// It was refused as one, and nothing but that went wrong.
    was_refused: bool,
}

impl Shard {
    pub(super) fn new(
        index: usize,
        bound: Bound,
        link: Option<Ours>,
        shared: Arc<Shared>,
        observer: Observer,
    ) -> io::Result<Self> {
        let socket = ServerSocket::new(bound)?;
        let mut active = shared.active.subscribe();
        let current = Arc::clone(&active.borrow_and_update());
        let fleet = link.as_ref().map(|link| link.fleet().clone());
        let engine = Node::new(Instant::now(), current.settings.clone(), fleet);
        let mut draining = shared.draining.subscribe();
        draining.mark_changed();
        Ok(Self {
            index,
            socket,
            engine: engine.map_err(io::Error::other)?,
            link,
            pool: Pool::new(),
            active,
            stop: shared.stop.subscribe(),
            draining,
            current,
            shared,
            observer,
            inbox: Inbox::new(),
            outbox: Outbox {
                buf: vec![0; MAX_TRANSMIT],
                pending: None,
            },
            io: IoStats::default(),
            log: Log::default(),
            told: 0,
            has_more: false,
        })
    }

    pub(super) async fn run(mut self) {
        tracing::debug!(
            address = %self.socket.address(),
            receive_buffer = super::socket::receive_buffer(&self.socket),
            max_segments = self.socket.max_segments(),
            "listening"
        );
        let mut sleep = Box::pin(tokio::time::sleep(IDLE));
        while !*self.stop.borrow_and_update() {
            self.turn(&mut sleep).await;
            self.flush();
            self.publish();
            self.log.catch_up(Instant::now());
        }
        self.log.finish();
        self.publish_stopped();
    }

    /// Waits for one thing to happen and takes it in.
    async fn turn(&mut self, sleep: &mut Pin<Box<Sleep>>) {
        let now = Instant::now();
        let deadline = self.engine.poll_timeout().map_or(now + IDLE, |t| t.at);
        if sleep.deadline().into_std() != deadline {
            sleep.as_mut().reset(deadline.into());
        }
        let wants_to_send = self.outbox.pending.is_some();
        tokio::select! {
            ready = self.socket.ready(wants_to_send) => match ready {
                Ok(()) => self.receive().await,
                Err(error) => self.receive_failed(&error).await,
            },
            reply = self.pool.next() => {
                self.engine.handle_store_reply(Instant::now(), reply);
                self.take_replies();
            }
            arrived = arrival(&mut self.link) => self.take_arrivals(arrived),
            () = sleep.as_mut() => self.engine.handle_timeout(Instant::now()),
            changed = self.active.changed() => {
                if changed.is_ok() {
                    reload(&mut self.active, &mut self.engine, &mut self.current);
                }
            }
            changed = self.draining.changed() => {
                if changed.is_ok() {
                    let is_draining = *self.draining.borrow_and_update();
                    self.engine.handle_draining(Instant::now(), is_draining);
                }
            }
            _ = self.stop.changed() => {}
            () = tokio::task::yield_now(), if self.has_more => self.receive().await,
        }
    }

    async fn receive(&mut self) {
        for _ in 0..MAX_BATCHES {
            let now = Instant::now();
            let (engine, active, current) = (&mut self.engine, &mut self.active, &mut self.current);
            let received = self.socket.receive(&mut self.inbox, |flow, datagram| {
                // A request sent after a reload has returned goes by what was loaded, even
                // when it is read before the news.
                if active.has_changed().unwrap_or(false) {
                    reload(active, engine, current);
                }
                engine.handle_datagram(now, flow, datagram);
            });
            match received {
                Ok(()) => self.flush(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.receive_failed(&error).await,
            }
            self.take_replies();
            self.take_arrivals(None);
            if let Some(deadline) = self.pool.catch_up(Instant::now()) {
                self.catch_up(deadline).await;
            }
        }
    }

    /// Lets the threads open files, so that they do not seem to be too many.
    async fn catch_up(&mut self, deadline: Instant) {
        loop {
            let next = tokio::time::timeout_at(deadline.into(), self.pool.next()).await;
            let is_late = next.is_err() || Instant::now() >= deadline;
            if let Ok(reply) = next {
                self.engine.handle_store_reply(Instant::now(), reply);
                self.take_replies();
                self.flush();
            }
            if self.pool.has_caught_up(is_late) || is_late {
                return;
            }
        }
    }

    /// Takes in what stores have answered by now: a file that is open does not count as one
    /// that is being opened.
    fn take_replies(&mut self) {
        while let Some(reply) = self.pool.try_next() {
            self.engine.handle_store_reply(Instant::now(), reply);
        }
    }

    /// Takes in what peers have said by now: requests must not come faster than what is heard of them.
    fn take_arrivals(&mut self, first: Option<(NodeName, Bytes)>) {
        if let Some(link) = &mut self.link {
            link.tell(&mut self.engine, first);
        }
    }

    async fn receive_failed(&mut self, error: &io::Error) {
        self.io.receive_errors += 1;
        tracing::debug!(address = %self.socket.address(), %error, "cannot receive");
        tokio::time::sleep(ERROR_PAUSE).await;
    }

    /// Hands out what the engine wants done, as far as the socket takes it.
    fn flush(&mut self) {
        self.has_more = false;
        // Who has been answered is in flight, also for those who ask at once.
        self.publish_in_flight();
        self.hand_out();
        for _ in 0..MAX_TRANSMITS {
            if !self.send_pending() {
                return;
            }
            let segments = self.socket.max_segments();
            let buf = &mut self.outbox.buf;
            let transmit = self.engine.poll_transmit(Instant::now(), segments, buf);
            // It may have ended a transfer, or asked for bytes.
            self.hand_out();
            let Some(transmit) = transmit else { return };
            let client = transmit.remote.ip();
            let may_join =
                transmit.segment_size.is_none() || self.socket.may_join(client, Instant::now());
            self.outbox.pending = Some(Pending {
                transmit,
                sent: 0,
                is_split: !may_join,
                was_refused: false,
            });
        }
        self.has_more = self.send_pending();
    }

    /// What is not for the socket.
    fn hand_out(&mut self) {
        while let Some(request) = self.engine.poll_store_request() {
            self.pool.run(request, &self.current.store);
        }
        if let Some(link) = &self.link {
            link.hand_out(&mut self.engine);
        }
        while let Some(record) = self.engine.poll_event() {
            if let Observer(Some(observer)) = &self.observer {
                observer(&record);
            }
            self.log.transfer(Instant::now(), record);
        }
    }

    /// Sends what waits. False: the socket is full.
    fn send_pending(&mut self) -> bool {
        while let Some(pending) = &mut self.outbox.pending {
            let Pending {
                transmit,
                sent,
                is_split,
                was_refused,
            } = pending;
            let segment = transmit.segment_size.unwrap_or(transmit.len);
            let end = if *is_split {
                transmit.len.min(*sent + segment)
            } else {
                transmit.len
            };
            let together = transmit.segment_size.filter(|_| !*is_split);
            let contents = self.outbox.buf.get(*sent..end).unwrap_or_default();
            match self.socket.send(transmit, contents, together) {
                Ok(()) => *sent = end,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if together.is_some() => {
                    tracing::debug!(%error, "sending packet by packet");
                    (*is_split, *was_refused) = (true, true);
                    self.io.unsegmented += 1;
                    continue;
                }
                Err(error) => {
                    self.io.send_errors += 1;
                    tracing::debug!(client = %transmit.remote, len = contents.len(), %error, "cannot send");
                    *sent = end;
                    *was_refused = false;
                    self.socket.recover(&error);
                }
            }
            if let Some(pending) = &self.outbox.pending
                && pending.sent >= pending.transmit.len
            {
                if pending.was_refused {
                    let client = pending.transmit.remote.ip();
                    self.socket.was_split(client, Instant::now());
                }
                self.outbox.pending = None;
            }
        }
        true
    }

    fn publish(&mut self) {
        let stats = ServerStats {
            engine: *self.engine.stats(),
            io: IoStats {
                store_waits: self.pool.waits,
                ..self.io
            },
        };
        let mut all = self
            .shared
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = all.get_mut(self.index) {
            *slot = stats;
        }
        drop(all);
        self.publish_in_flight();
    }

    fn publish_in_flight(&mut self) {
        self.tell_in_flight(self.engine.in_flight());
    }

    fn tell_in_flight(&mut self, count: usize) {
        if std::mem::replace(&mut self.told, count) == count {
            return;
        }
        self.shared.in_flight.send_modify(|all| {
            if let Some(slot) = all.get_mut(self.index) {
                *slot = count;
            }
        });
    }

    fn publish_stopped(&mut self) {
        self.publish();
        self.tell_in_flight(0);
    }
}

/// Something of the peers. Waits for ever where there are none. Cancel-safe.
async fn arrival(link: &mut Option<Ours>) -> Option<(NodeName, Bytes)> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

fn reload(active: &mut watch::Receiver<Arc<Active>>, engine: &mut Node, current: &mut Arc<Active>) {
    let new = Arc::clone(&active.borrow_and_update());
    match engine.handle_settings(new.settings.clone()) {
        Ok(()) => *current = new,
        // They were checked before they were published.
        Err(error) => tracing::error!(%error, "settings refused"),
    }
}
