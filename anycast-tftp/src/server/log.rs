//! The wording of the one line that every transfer leaves in the log, and its rate.
//!
//! Anybody can cause a transfer that comes to nothing, with one packet and a forged source. Of
//! each kind of those, [`BURST`] lines are written at once and then [`PER_SECOND`]; the rest is
//! counted and told in one line when there is room again. Counters stay exact. Transfers that
//! moved bytes always leave their line.

use std::mem::Discriminant;
use std::time::Instant;

use crate::proto::{Direction, Outcome, TransferRecord};

/// Most lines of one kind of fruitless transfer that are written at once.
pub(super) const BURST: u32 = 50;

/// How many more of them are written each second.
pub(super) const PER_SECOND: u32 = 10;

/// The log of one listen address.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// One for each kind of outcome that came: a handful.
    kinds: Vec<(Discriminant<Outcome>, Bucket)>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    since: Instant,
    suppressed: u64,
    /// How the last one of those ended.
    last: Option<Outcome>,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            tokens: f64::from(BURST),
            since: now,
            suppressed: 0,
            last: None,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        let refilled = passed.mul_add(f64::from(PER_SECOND), self.tokens);
        self.tokens = refilled.min(f64::from(BURST));
        let has_room = self.tokens >= 1.0;
        if has_room {
            self.tokens -= 1.0;
        }
        has_room
    }

    fn tell(&mut self) {
        let suppressed = std::mem::take(&mut self.suppressed);
        if let Some(last) = self.last.take() {
            tracing::info!(suppressed, result = %last, "transfers that are not in the log");
        }
    }
}

impl Log {
    /// INFO for a transfer; DEBUG for a mere question about options, which precedes every
    /// UEFI download, and for a read by this host itself, such as a health check.
    pub(super) fn transfer(&mut self, now: Instant, record: TransferRecord) {
        if record.outcome == Outcome::Probe {
            tracing::debug!(client = %record.client, local = %record.local, file = record.file, "options asked for");
            return;
        }
        if record.is_routine() {
            tracing::debug!(client = %record.client, local = %record.local, file = record.file, bytes = record.bytes, "read by this host");
            return;
        }
        let is_fruitless = record.bytes == 0 && record.outcome != Outcome::Complete;
        if is_fruitless {
            let bucket = self.bucket(now, &record.outcome);
            if !bucket.take(now) {
                bucket.suppressed += 1;
                bucket.last = Some(record.outcome);
                return;
            }
        }
        write(&record);
    }

    /// Tells what was suppressed, as far as there is room.
    pub(super) fn catch_up(&mut self, now: Instant) {
        for (_, bucket) in &mut self.kinds {
            if bucket.suppressed > 0 && bucket.take(now) {
                bucket.tell();
            }
        }
    }

    /// Tells all that was suppressed: nothing more will come.
    pub(super) fn finish(&mut self) {
        for (_, bucket) in &mut self.kinds {
            bucket.tell();
        }
    }

    fn bucket(&mut self, now: Instant, outcome: &Outcome) -> &mut Bucket {
        let kind = std::mem::discriminant(outcome);
        let found = self.kinds.iter().position(|(known, _)| *known == kind);
        let index = found.unwrap_or_else(|| {
            self.kinds.push((kind, Bucket::new(now)));
            self.kinds.len() - 1
        });
        &mut self.kinds[index].1
    }
}

fn write(record: &TransferRecord) {
    let direction = match record.direction {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    let milliseconds = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        client = %record.client,
        local = %record.local,
        file = record.file,
        direction,
        mode = record.mode.as_str(),
        bytes = record.bytes,
        blksize = record.blksize,
        windowsize = record.windowsize,
        milliseconds,
        retries = record.retries,
        result = %record.outcome,
        "transfer"
    );
}
