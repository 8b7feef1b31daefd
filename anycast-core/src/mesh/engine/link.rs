//! One connection with a peer.

use std::time::{Duration, Instant};

use super::grants::Asking;
use super::{BURST, ConnectionId, HELLO_WITHIN, RATE};
use crate::mesh::clock::Samples;
use crate::mesh::wire::LEAST_VERSION;

/// A connection that stands.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) began_at: Instant,
    /// Since the peer said Hello.
    pub(super) up_since: Option<Instant>,
    pub(super) version: u16,
    pub(super) incarnation: u64,
    /// The greatest that came.
    pub(super) sequence: Option<u64>,
    tokens: u32,
    refilled_at: Instant,
    pub(super) status_at: Instant,
    pub(super) status_is_new: bool,
    pub(super) clients_at: Instant,
    pub(super) asking: Asking,
    pub(super) ping_at: Instant,
    pub(super) ping: Option<(u32, i64)>,
    pub(super) pings: u32,
    pub(super) clock: Samples,
}

impl Link {
    pub(super) fn new(id: ConnectionId, now: Instant) -> Self {
        Self {
            id,
            began_at: now,
            up_since: None,
            version: LEAST_VERSION,
            incarnation: 0,
            sequence: None,
            tokens: BURST,
            refilled_at: now,
            status_at: now,
            status_is_new: true,
            clients_at: now,
            asking: Asking::new(now),
            ping_at: now,
            ping: None,
            pings: 0,
            clock: Samples::default(),
        }
    }

    /// Whether one more message is within the peer's rate.
    pub(super) fn takes(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled_at);
        let each = Duration::from_secs(1) / RATE;
        let grown = passed.as_nanos() / each.as_nanos();
        if grown > 0 {
            let grown = u32::try_from(grown).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(grown).min(BURST);
            self.refilled_at = now;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }

    /// When something is to be said next.
    pub(super) fn due(&self, wants: bool) -> Option<(Instant, &'static str)> {
        if self.up_since.is_none() {
            return Some((self.began_at + HELLO_WITHIN, "a Hello is overdue"));
        }
        let status = (self.status_at, "a status is due");
        let ping = (self.ping_at, "a clock is to be asked for");
        let ask = wants.then(|| (self.asking.at(), "promises are to be asked for"));
        Some(status.min(ping).min(ask.unwrap_or(status)))
    }
}
