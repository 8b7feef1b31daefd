//! The receiving half of a read: which block comes next, and when to acknowledge.

use std::time::{Duration, Instant};

use super::settings::{Agreed, Rollover};

/// Longest time between two acknowledgements that only repeat one.
const MAX_QUIET: Duration = Duration::from_millis(250);

/// What a DATA packet meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next block: deliver it.
    Next {
        /// It is the last one.
        last: bool,
    },
    /// An old block, or one after a gap.
    Other,
    /// More bytes than a block has.
    Oversized,
}

#[derive(Debug)]
pub(super) struct Receiver {
    blksize: usize,
    windowsize: u16,
    rollover: Rollover,
    /// The block that comes next, from 1.
    next: u64,
    /// Blocks since the last acknowledgement.
    in_window: u16,
    /// When an acknowledgement was last repeated, unless a block has come since.
    repeated: Option<Instant>,
    /// An acknowledgement of `next - 1` is to be sent.
    pub(super) ack_due: bool,
    /// It only repeats one, because the peer repeated a block.
    pub(super) is_repeat: bool,
}

impl Receiver {
    pub(super) fn new(agreed: &Agreed, rollover: Rollover, ack_due: bool) -> Self {
        Self {
            blksize: agreed.blksize.into(),
            windowsize: agreed.windowsize,
            rollover,
            next: 1,
            in_window: 0,
            repeated: None,
            ack_due,
            is_repeat: false,
        }
    }

    /// Blocks received in order.
    pub(super) const fn blocks(&self) -> u64 {
        self.next - 1
    }

    /// The number that acknowledges them.
    pub(super) const fn ack_number(&self) -> u16 {
        self.rollover.wire(self.blocks())
    }

    pub(super) fn data(&mut self, block: u16, len: usize) -> Arrival {
        if len > self.blksize {
            return Arrival::Oversized;
        }
        self.detect_rollover(block);
        if block != self.rollover.wire(self.next) {
            return Arrival::Other;
        }
        let last = len < self.blksize;
        self.next += 1;
        self.in_window += 1;
        self.repeated = None;
        if last || self.in_window >= self.windowsize {
            self.acknowledge();
        }
        Arrival::Next { last }
    }

    /// A server that wraps to 1 sends 1 where we await 0 for the first time.
    fn detect_rollover(&mut self, block: u16) {
        let wrapping = self.next == 65_536 && self.windowsize == 1 && block == 1;
        if self.rollover == Rollover::Detect && wrapping {
            self.rollover = Rollover::One;
        }
    }

    /// Acknowledges what was received so far and begins a new window.
    pub(super) fn acknowledge(&mut self) {
        self.is_repeat = false;
        self.ack_due = true;
        self.in_window = 0;
    }

    /// Answers a block that was not next. A gap is told to the sender at once (RFC 7440
    /// §4); an old block means that an acknowledgement was lost. The blocks that follow
    /// in the same window say nothing new: one answer per quarter of `interval`.
    pub(super) fn repeat(&mut self, now: Instant, interval: Duration) {
        let quiet = (interval / 4).min(MAX_QUIET);
        let due = self
            .repeated
            .is_none_or(|last| now.saturating_duration_since(last) >= quiet);
        if due {
            self.repeated = Some(now);
            let is_repeat = !self.ack_due || self.is_repeat;
            self.acknowledge();
            self.is_repeat = is_repeat;
        }
    }
}
