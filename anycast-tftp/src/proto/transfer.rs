//! Block numbers and windows of one transfer (RFC 1350 §2, RFC 7440): which block may be
//! sent, and what an ACK or a block that arrives means.
//!
//! Blocks are counted from 1 in 64 bits; [`Rollover`] says how a count is written in the 16
//! bits of the wire. Both halves are pure: no bytes, no timers.
//!
//! **No Sorcerer's Apprentice.** An ACK that acknowledges nothing new never causes a block to
//! be sent, with one exception that windows need (RFC 7440 §4): when the first block of a
//! window is lost, the receiver repeats its previous ACK. [`Sender`] takes such an ACK as
//! that signal only in a transfer with windows, once per window, and not before a round trip
//! has passed since the window was sent, so a duplicate made by the network does not pass
//! for one and the duplication cannot feed itself.
//!
//! **What ACKs can cause.** They may be forged. Until a block was acknowledged, what is sent
//! again is block 1 alone. Later an ACK within the window makes the sender go back (RFC 7440
//! §4), but at most once a round trip, and in the whole transfer ACKs cause at most
//! [`RESENT_PER_BLOCK`] blocks for each block acknowledged, and one window more, to be sent
//! again. Where they may not, the window moves on, and the time-out repairs what was lost.

use std::time::{Duration, Instant};

/// What follows block 65,535 on the wire. No RFC says; 0 is the custom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rollover {
    /// Block 0 follows. The default, which all known clients expect that go beyond 65,535
    /// blocks.
    #[default]
    Zero,
    /// Block 1 follows.
    One,
}

impl Rollover {
    const fn modulus(self) -> u64 {
        match self {
            Self::Zero => 65_536,
            Self::One => 65_535,
        }
    }

    /// A count as it is written on the wire; 0 is the acknowledgement of a request.
    #[must_use]
    pub const fn wire(self, count: u64) -> u16 {
        let number = match self {
            Self::Zero => count % 65_536,
            Self::One if count == 0 => 0,
            Self::One => (count - 1) % 65_535 + 1,
        };
        number as u16
    }

    /// How far a wire number lies ahead of a count, less than one round of the numbers.
    /// `None`: the number cannot follow that count.
    #[must_use]
    pub const fn ahead(self, count: u64, wire: u16) -> Option<u64> {
        if wire == 0 && count > 0 && matches!(self, Self::One) {
            return None;
        }
        let modulus = self.modulus();
        let here = self.wire(count) as u64;
        let ahead = (wire as u64 + modulus - here) % modulus;
        Some(match self {
            // From the acknowledgement of the request, numbers 1..=65,535 lie ahead.
            Self::One if count == 0 => wire as u64,
            Self::Zero | Self::One => ahead,
        })
    }
}

/// Most blocks that ACKs cause to be sent again for each block that was acknowledged. It lets
/// a receiver through that takes only every ninth block of its windows.
pub const RESENT_PER_BLOCK: u64 = 8;

/// Half of the block numbers: nearer than that, a number means one block.
const HALF: u64 = 32_767;

/// How many blocks other nodes may have sent of which nothing was heard yet.
#[must_use]
pub fn elsewhere(acked: u64, window: u16) -> u64 {
    let window = u64::from(window);
    window.saturating_add((acked / 2).min(window.saturating_mul(64)))
}

/// What an ACK meant to a [`Sender`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// It acknowledged blocks for the first time; `round_trip` if it measures one.
    Progress {
        /// Time since the acknowledged block was sent, if it was sent once.
        round_trip: Option<Duration>,
    },
    /// It acknowledged the last block: the transfer is complete.
    Complete {
        /// As above.
        round_trip: Option<Duration>,
    },
    /// The first block of the window was lost; the window starts again.
    Repeat,
    /// It acknowledged nothing new. Nothing follows from it.
    Duplicate,
    /// It is no block that is in flight: older, or never sent. Nothing follows from it.
    Stray,
}

/// The sending half: a window over blocks 1, 2, 3, … of content whose end may be unknown.
#[derive(Debug, Clone)]
pub struct Sender {
    rollover: Rollover,
    window: u16,
    /// How much of the window is sent at once.
    burst: u16,
    acked: u64,
    next: u64,
    high: u64,
    last: Option<u64>,
    /// The newest block that was sent only once, and when.
    timed: Option<(u64, Instant)>,
    last_sent: Option<Instant>,
    repeated: bool,
    /// When an ACK last made the window go back.
    went_back: Option<Instant>,
    /// Blocks that ACKs caused to be sent again.
    resent: u64,
    /// Other nodes send blocks of this transfer too.
    is_shared: bool,
    /// The last block that may be sent for now.
    limit: Option<u64>,
    /// The client is not as far as others say, until it is here.
    behind_until: u64,
}

impl Sender {
    /// A transfer of which nothing was sent. `last` is the number of the last block if the
    /// content's length on the wire is known.
    #[must_use]
    pub const fn new(rollover: Rollover, window: u16, last: Option<u64>) -> Self {
        Self {
            rollover,
            window,
            burst: window,
            acked: 0,
            next: 1,
            high: 0,
            last,
            timed: None,
            last_sent: None,
            repeated: false,
            went_back: None,
            resent: 0,
            is_shared: false,
            limit: None,
            behind_until: 0,
        }
    }

    /// A transfer that another node began and whose client has so many blocks. One block is sent
    /// first, then windows.
    #[must_use]
    pub const fn resume(rollover: Rollover, window: u16, last: Option<u64>, acked: u64) -> Self {
        let mut sender = Self::new(rollover, window, last);
        sender.acked = acked;
        sender.next = acked.saturating_add(1);
        sender.high = acked;
        sender.burst = 1;
        sender.is_shared = true;
        sender
    }

    /// Other nodes send blocks of this transfer too: ACKs of blocks that were not sent here count.
    pub const fn share(&mut self) {
        self.is_shared = true;
    }

    /// Whether block numbers mean more than one block.
    #[must_use]
    pub const fn wraps(&self) -> bool {
        match self.last {
            Some(last) => last > u16::MAX as u64,
            None => true,
        }
    }

    /// Nothing beyond this block is sent for now.
    pub const fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    /// Another node has answered an ACK up to here: it is not answered again. False: it was known.
    pub fn skip_to(&mut self, acked: u64) -> bool {
        if acked <= self.acked || self.acked < self.behind_until {
            return false;
        }
        self.acked = acked;
        self.repeated = false;
        self.burst = self.window;
        let end = acked.saturating_add(u64::from(self.window));
        let end = end.min(self.last.unwrap_or(u64::MAX));
        self.next = self.next.max(end.saturating_add(1));
        self.high = self.high.max(end);
        self.timed = None;
        true
    }

    /// The client has no more than these blocks, whatever others have said. One block is sent.
    pub fn fall_back(&mut self, acked: u64) {
        self.behind_until = self.behind_until.max(self.acked);
        self.acked = acked;
        self.repeated = false;
        self.restart(u8::MAX);
    }

    /// Whether the client can have the block of this number by now: others may have sent some.
    #[must_use]
    pub fn is_plausible(&self, wire: u16) -> bool {
        let ahead = self.rollover.ahead(self.acked, wire).unwrap_or(0);
        self.acked.saturating_add(ahead) <= self.high
            || ahead <= elsewhere(self.acked, self.window)
            || (self.wraps() && ahead > HALF)
    }

    /// The block that an ACK of this number means, where it may mean one that was never sent here.
    fn may_be_from_elsewhere(&self, block: u64, ahead: u64) -> bool {
        let is_there = self.last.is_none_or(|last| block <= last);
        self.is_shared && is_there && (!self.wraps() || ahead <= HALF)
    }

    /// The blocks that may be sent now, first and last.
    #[must_use]
    pub fn sendable(&self) -> Option<(u64, u64)> {
        let mut end = self.acked.saturating_add(u64::from(self.burst));
        if let Some(last) = self.last {
            end = end.min(last);
        }
        if let Some(limit) = self.limit {
            end = end.min(limit);
        }
        (self.next <= end).then_some((self.next, end))
    }

    /// Blocks `first..=last`, as [`sendable`](Self::sendable) gave them, were sent. Returns
    /// how many of them had been sent before.
    pub fn sent(&mut self, now: Instant, first: u64, last: u64) -> u64 {
        let again = self.high.min(last).saturating_sub(first.saturating_sub(1));
        if last > self.high {
            self.timed = Some((last, now));
            self.high = last;
        } else {
            self.timed = None;
        }
        self.next = last.saturating_add(1);
        self.last_sent = Some(now);
        again
    }

    /// The content ends with this block.
    pub const fn ends_with(&mut self, block: u64) {
        self.last = Some(block);
    }

    /// Takes an ACK. `round_trip` is the shortest that was measured so far.
    pub fn handle_ack(&mut self, now: Instant, wire: u16, round_trip: Option<Duration>) -> Acked {
        let Some(ahead) = self.rollover.ahead(self.acked, wire) else {
            return Acked::Stray;
        };
        if ahead == 0 {
            return self.handle_duplicate(now, round_trip);
        }
        let block = self.acked.saturating_add(ahead);
        if block > self.high {
            if !self.may_be_from_elsewhere(block, ahead) {
                return Acked::Stray;
            }
            self.high = block;
        }
        let measured = self
            .timed
            .filter(|(timed, _)| *timed == block)
            .map(|(_, sent)| now.saturating_duration_since(sent));
        self.acked = block;
        self.repeated = false;
        self.burst = self.window;
        // Go back to the block that the receiver misses, or on to the next window.
        let next = block.saturating_add(1);
        let goes_back = self.next > next && self.last != Some(block);
        if !goes_back || self.may_go_back(now, round_trip) {
            self.next = next;
        }
        let round_trip = measured;
        if self.last == Some(block) {
            Acked::Complete { round_trip }
        } else {
            Acked::Progress { round_trip }
        }
    }

    /// Whether an ACK may make the window go back to the first block not acknowledged, and
    /// counts what that costs.
    fn may_go_back(&mut self, now: Instant, round_trip: Option<Duration>) -> bool {
        let again = self.next.saturating_sub(self.acked.saturating_add(1));
        let allowed = self.acked.saturating_mul(RESENT_PER_BLOCK);
        let allowed = allowed.saturating_add(u64::from(self.window));
        // What was sent again cannot have been answered yet.
        let is_early = self
            .went_back
            .zip(round_trip)
            .is_some_and(|(at, wait)| now.saturating_duration_since(at) < wait);
        if is_early || self.resent.saturating_add(again) > allowed {
            return false;
        }
        self.resent += again;
        self.went_back = Some(now);
        true
    }

    fn handle_duplicate(&mut self, now: Instant, round_trip: Option<Duration>) -> Acked {
        let is_unsent = self.next == self.acked.saturating_add(1);
        let is_due = self
            .last_sent
            .zip(round_trip)
            .is_some_and(|(sent, wait)| now.saturating_duration_since(sent) >= wait);
        if self.window == 1 || self.repeated || is_unsent || !is_due {
            return Acked::Duplicate;
        }
        if self.acked > 0 && !self.may_go_back(now, round_trip) {
            return Acked::Duplicate;
        }
        self.repeated = true;
        self.restart(0);
        Acked::Repeat
    }

    /// Nobody answered: the window starts again. From the second time-out in a row on only
    /// its first half is sent, then a quarter, down to one block: what loses whole windows,
    /// a crowded path or a small socket buffer, may let less pass. Progress ends it. Until a
    /// block was acknowledged only block 1 is sent again.
    pub fn restart(&mut self, timeouts: u8) {
        let halvings = u32::from(timeouts.saturating_sub(1));
        let window = if self.acked == 0 { 1 } else { self.window };
        self.burst = window.checked_shr(halvings).unwrap_or(0).max(1);
        self.next = self.acked.saturating_add(1);
        self.timed = None;
    }

    /// Blocks acknowledged in order.
    #[must_use]
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    /// A count as this transfer writes it on the wire.
    #[must_use]
    pub const fn wire(&self, count: u64) -> u16 {
        self.rollover.wire(count)
    }
}

/// What a block meant to a [`Receiver`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The next one: its bytes are to be taken.
    Next {
        /// The window is full: an ACK is due.
        fills_window: bool,
    },
    /// One that was taken before. The peer may have missed the ACK.
    Old,
    /// One beyond the next: something was lost. True: an ACK is due, so that the peer goes
    /// back; false: it was asked to already.
    Gap(bool),
}

/// The receiving half.
#[derive(Debug, Clone)]
pub struct Receiver {
    rollover: Rollover,
    window: u16,
    received: u64,
    since_ack: u16,
    gap_reported: bool,
}

impl Receiver {
    /// A transfer of which nothing was received.
    #[must_use]
    pub const fn new(rollover: Rollover, window: u16) -> Self {
        Self {
            rollover,
            window,
            received: 0,
            since_ack: 0,
            gap_reported: false,
        }
    }

    /// Takes the number of a block.
    pub const fn handle_data(&mut self, wire: u16) -> Received {
        let next = self.received.saturating_add(1);
        if wire == self.rollover.wire(next) {
            self.received = next;
            self.gap_reported = false;
            self.since_ack = self.since_ack.saturating_add(1);
            return Received::Next {
                fills_window: self.since_ack >= self.window,
            };
        }
        match self.rollover.ahead(self.received, wire) {
            Some(ahead) if ahead > 0 && ahead <= self.window as u64 => {
                let is_news = !self.gap_reported;
                self.gap_reported = true;
                Received::Gap(is_news)
            }
            Some(_) | None => Received::Old,
        }
    }

    /// An ACK is being sent: a new window begins.
    pub const fn acknowledged(&mut self) {
        self.since_ack = 0;
    }

    /// The number that the next ACK carries.
    #[must_use]
    pub const fn ack(&self) -> u16 {
        self.rollover.wire(self.received)
    }

    /// Blocks received in order.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests;
