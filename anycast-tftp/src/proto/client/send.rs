//! The sending half of a write: the window, and what an acknowledgement moves.

use std::collections::VecDeque;

use super::settings::{Agreed, Rollover};

/// What an ACK meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// New blocks are acknowledged.
    Forward,
    /// All blocks are.
    Finished,
    /// Nothing: an old or foreign number.
    No,
}

#[derive(Debug)]
pub(super) struct Sender {
    blksize: usize,
    windowsize: u16,
    rollover: Rollover,
    /// Blocks acknowledged.
    base: u64,
    /// The block to send next: base < next ≤ base + blocks held + 1.
    next: u64,
    /// The highest block ever sent.
    top: u64,
    /// The last block of the file, once known.
    end: Option<u64>,
    /// Blocks base + 1 and on, at most a window.
    blocks: VecDeque<Vec<u8>>,
    /// Buffers to use again, at most a window.
    spare: Vec<Vec<u8>>,
    /// The base for which a repeated ACK has already rewound the window.
    rewound: Option<u64>,
}

impl Sender {
    pub(super) fn new(agreed: &Agreed, rollover: Rollover) -> Self {
        Self {
            blksize: agreed.blksize.into(),
            windowsize: agreed.windowsize,
            rollover,
            base: 0,
            next: 1,
            top: 0,
            end: None,
            blocks: VecDeque::new(),
            spare: Vec::new(),
            rewound: None,
        }
    }

    /// Blocks acknowledged.
    pub(super) const fn acknowledged(&self) -> u64 {
        self.base
    }

    /// How many bytes the next block takes, if there is room for one.
    pub(super) fn wants(&self) -> Option<usize> {
        let room = self.blocks.len() < usize::from(self.windowsize);
        (room && self.end.is_none()).then_some(self.blksize)
    }

    /// Takes the next block; a short one is the last. False when it was not wanted.
    pub(super) fn provide(&mut self, block: &[u8]) -> bool {
        if self.wants().is_none_or(|wanted| block.len() > wanted) {
            return false;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(block);
        self.blocks.push_back(buffer);
        if block.len() < self.blksize {
            self.end = Some(self.base + self.blocks.len() as u64);
        }
        true
    }

    /// The next packet to send: its number, its bytes, whether it is sent the first time.
    pub(super) fn poll(&mut self) -> Option<(u16, &[u8], bool)> {
        let index = usize::try_from(self.next - self.base - 1).ok()?;
        let block = self.blocks.get(index)?;
        let number = self.rollover.wire(self.next);
        let first = self.next > self.top;
        self.top = self.top.max(self.next);
        self.next += 1;
        Some((number, block, first))
    }

    pub(super) fn ack(&mut self, number: u16) -> Moved {
        let distance = self.rollover.distance(self.base, number);
        let outstanding = self.top - self.base;
        if distance > outstanding || (number == 0 && self.base + distance > 0 && self.is_one()) {
            return Moved::No;
        }
        if distance == 0 {
            self.repeated_ack(outstanding);
            return Moved::No;
        }
        for _ in 0..distance {
            self.spare.extend(self.blocks.pop_front());
        }
        self.base += distance;
        // RFC 7440 §4: the next window begins after the block acknowledged.
        self.next = self.base + 1;
        if self.end == Some(self.base) {
            return Moved::Finished;
        }
        Moved::Forward
    }

    fn is_one(&self) -> bool {
        self.rollover == Rollover::One
    }

    /// In lock-step a repeated ACK is never answered (RFC 1123 §4.2.3.1). In a window it
    /// reports that its first block was lost; once per window that is believed.
    fn repeated_ack(&mut self, outstanding: u64) {
        if self.windowsize > 1 && outstanding > 0 && self.rewound != Some(self.base) {
            self.rewound = Some(self.base);
            self.rewind();
        }
    }

    /// Sends the window again.
    pub(super) const fn rewind(&mut self) {
        self.next = self.base + 1;
    }

    /// Whether the peer owes an acknowledgement.
    pub(super) const fn is_outstanding(&self) -> bool {
        self.top > self.base
    }
}
