//! What a node knows of one flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::limits::{AHEAD, HINT_EVERY, HINT_LIFE, HINT_MARGIN, YOUNG};
use super::record::{NodeId, Record, Tenure};
use super::wire::{Progress, Standing, View};
use crate::proto::rtt::INITIAL_RTO;
use crate::proto::server::{DOUBLED, REPEAT_GRACE};
use crate::proto::transfer::elsewhere;

/// Shortest and longest time for which the pace that was seen bounds where a client can be.
const PACE_TRUST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Shortest time over which a pace is measured.
const PACE_OVER: Duration = Duration::from_millis(200);

/// The fastest that a transfer was seen to move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    fastest: u32,
    from: (Instant, u64),
}

impl Pace {
    pub(super) const fn new(now: Instant, acked: u64, fastest: u32) -> Self {
        Self {
            fastest,
            from: (now, acked),
        }
    }

    pub(super) fn measure(&mut self, now: Instant, acked: u64) {
        let (at, before) = self.from;
        let time = now.saturating_duration_since(at);
        if time >= PACE_OVER {
            let blocks = u128::from(acked.saturating_sub(before)) * 1000;
            let pace = blocks / time.as_millis().max(1);
            let pace = u32::try_from(pace).unwrap_or(u32::MAX);
            self.fastest = self.fastest.max(pace);
            self.from = (now, acked);
        }
    }

    pub(super) fn learn(&mut self, pace: u32) {
        self.fastest = self.fastest.max(pace);
    }

    pub(super) const fn fastest(&self) -> u32 {
        self.fastest
    }

    /// For how long a client that moves as fast as was ever seen cannot get out of sight.
    fn bound(&self) -> Option<Duration> {
        let pace = u64::from(self.fastest);
        let millis = (AHEAD / 2 * 1000).checked_div(pace)?;
        Some(Duration::from_millis(millis).clamp(PACE_TRUST.0, PACE_TRUST.1))
    }
}

/// A node that keeps a record, as its owner sees it.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) is_kept: bool,
    pub(super) has_content: bool,
    /// What it is known to know.
    pub(super) acked: u64,
    /// Its latest time that came here; 0: none.
    pub(super) echo: u64,
    /// When it was last heard of this flow, or first told.
    pub(super) since: Instant,
    pub(super) next_put: Instant,
    pub(super) tries: u32,
}

impl Holder {
    pub(super) const fn new(now: Instant, acked: u64) -> Self {
        Self {
            is_kept: false,
            has_content: false,
            acked,
            echo: 0,
            since: now,
            next_put: now,
            tries: 0,
        }
    }

    /// Whether it may still trust what it heard. One that has never said that it keeps the record
    /// was never told how far it is.
    pub(super) fn counts(&self, now: Instant) -> bool {
        self.echo > 0 && now.saturating_duration_since(self.since) < HINT_LIFE + HINT_MARGIN
    }
}

/// The first reply has not gone out.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Longest wait for a holder.
    pub(super) until: Instant,
    /// Who may still answer for an older transfer, and the longest wait for them.
    pub(super) revoking: BTreeSet<NodeId>,
    pub(super) revoke_until: Instant,
    /// A lease of the older transfer lasts until then.
    pub(super) lease_until: Option<Instant>,
}

/// What only the owner knows.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) held: Option<Held>,
    pub(super) holders: BTreeMap<NodeId, Holder>,
    /// Nodes that answer under a lease: what they know, and until when it lasts.
    pub(super) guests: BTreeMap<NodeId, (u64, Instant)>,
    pub(super) told_at: Instant,
    pub(super) told: u64,
    pub(super) was_greeted: bool,
    /// How often its order was raised.
    pub(super) raises: u8,
}

/// An answering node's view of the owner.
#[derive(Debug, Default)]
pub(super) struct Answering {
    /// ACKs that advanced here since the owner last said something.
    pub(super) advances: u8,
    /// The first notice that the owner has not answered.
    pub(super) noticed: Option<Instant>,
    /// When a request was last answered here with the first bytes.
    pub(super) repeated: Option<Instant>,
    /// What the owner is known to know.
    pub(super) owner_knows: (u64, bool),
    /// When it is told again.
    pub(super) next_notice: Option<Instant>,
    pub(super) notices: u32,
}

/// The end of a transfer, and who has not said yet that it is known.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) at: Instant,
    pub(super) untold: BTreeSet<NodeId>,
    pub(super) next: Instant,
    pub(super) tries: u32,
}

/// What a transfer took the place of, at a node that keeps its record.
#[derive(Debug, Default)]
pub(super) struct Older {
    /// Its owner, where that may not know.
    pub(super) owner: Option<NodeId>,
    /// Until when some node may answer for it.
    pub(super) until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) tenure: Tenure,
    pub(super) directory: Vec<NodeId>,
    /// Blocks that the client is known to have.
    pub(super) acked: u64,
    pub(super) is_greeted: bool,
    /// Blocks that every holder is known to know.
    pub(super) floor: u64,
    pub(super) pace: Pace,
    pub(super) created: Instant,
    /// It took the place of another transfer of the flow here.
    pub(super) follows: bool,
    /// Of which its owner is to hear, each time.
    pub(super) older: Older,
    /// When the transfer began, as far as is known.
    pub(super) made: Instant,
    /// When the client was last heard of, here or elsewhere.
    pub(super) heard: Instant,
    /// When the owner last said something of the flow.
    pub(super) owner_said: Instant,
    /// The owner's first reply goes out by then.
    pub(super) held_until: Instant,
    /// Until when what is known of a transfer that wraps is trusted.
    pub(super) trust: Instant,
    /// Until when this node, which is no holder, may answer.
    pub(super) lease: Option<Instant>,
    /// Until when another node may.
    pub(super) granted: Option<Instant>,
    /// No: this node did not run for a while.
    pub(super) is_confirmed: bool,
    /// When it was last asked about.
    pub(super) asked: Option<Instant>,
    /// Who took part when this node stopped, and has not answered that since.
    pub(super) unanswered: BTreeSet<NodeId>,
    pub(super) has_session: bool,
    pub(super) own: Option<Own>,
    pub(super) answering: Answering,
    /// An old block that its client acknowledges, and since when.
    pub(super) behind: Option<(u16, Instant)>,
    pub(super) over: Option<Over>,
    /// Its place among the deadlines.
    pub(super) due: Option<Instant>,
    /// Whose quota it counts to.
    pub(super) filed: NodeId,
}

impl Entry {
    pub(super) fn new(
        now: Instant,
        standing: Standing,
        directory: Vec<NodeId>,
        filed: NodeId,
    ) -> Self {
        let Standing { record, view } = standing;
        let View { progress, hold, .. } = view;
        let Progress { acked, silence, .. } = progress;
        let heard = now.checked_sub(silence).unwrap_or(now);
        let acked = acked.min(record.last().unwrap_or(u64::MAX));
        Self {
            record,
            tenure: progress.tenure,
            directory,
            acked,
            is_greeted: progress.is_greeted,
            floor: progress.floor,
            pace: Pace::new(now, acked, progress.pace),
            created: now,
            follows: false,
            older: Older::default(),
            made: now.checked_sub(view.age).unwrap_or(now),
            heard,
            owner_said: now,
            held_until: now + hold,
            trust: now,
            lease: None,
            granted: None,
            is_confirmed: true,
            asked: None,
            unanswered: BTreeSet::new(),
            has_session: false,
            own: None,
            answering: Answering::default(),
            behind: None,
            over: None,
            due: None,
            filed,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        self.over.is_none()
    }

    /// Whether nothing is acknowledged and the request may be repeated.
    pub(super) fn is_young(&self, now: Instant) -> bool {
        self.has_only_begun() && now.saturating_duration_since(self.made) < YOUNG
    }

    /// For how long, where the request was answered here again a moment ago, and no block is known
    /// to have come to the client since.
    pub(super) fn has_just_repeated(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.answering.repeated?);
        (self.is_live() && self.acked == 0 && since < REPEAT_GRACE).then_some(since)
    }

    /// Whether nothing is acknowledged, as far as is known here.
    pub(super) const fn has_only_begun(&self) -> bool {
        self.acked == 0 && !self.is_greeted
    }

    /// The client has these blocks, somebody says. True: it is news.
    pub(super) fn learn(&mut self, now: Instant, acked: u64, is_greeted: bool) -> bool {
        let is_there = self.record.last().is_none_or(|last| acked <= last);
        let is_news = is_there && (acked > self.acked || (is_greeted && !self.is_greeted));
        if is_there {
            self.is_greeted |= is_greeted || acked > 0;
            self.acked = self.acked.max(acked);
            self.pace.measure(now, self.acked);
        }
        is_news
    }

    /// What was known at that time is trusted for as long as the owner waits for this node, or as
    /// the client cannot have got out of sight.
    pub(super) fn trust_since(&mut self, at: Instant) {
        self.trust = self.trust.max(at + HINT_LIFE);
    }

    pub(super) fn trust_pace(&mut self, now: Instant) {
        if let Some(bound) = self.pace.bound() {
            self.trust = self.trust.max(now + bound);
        }
    }

    /// How long to wait for a client before something is sent again, as far as other nodes know.
    pub(super) fn rto(&self) -> Duration {
        let timeout = self.record.timeout.unwrap_or(0);
        INITIAL_RTO.max(Duration::from_secs(timeout.into()))
    }

    /// The owner knows less of the client than this node does.
    pub(super) fn has_news_for_owner(&self) -> bool {
        self.acked > self.answering.owner_knows.0
            || (self.is_greeted && !self.answering.owner_knows.1)
    }

    /// Whether an ACK is of a block that the client can have by now, as far as is known here.
    pub(super) fn is_plausible(&self, now: Instant, block: u64) -> bool {
        let silence = now.saturating_duration_since(self.heard);
        // As fast as it was ever seen to move, and what is known may be old.
        let time = silence.saturating_add(HINT_EVERY * 2).as_millis();
        let moved = u128::from(self.pace.fastest()).saturating_mul(time) / 1000;
        let most = elsewhere(self.acked, self.record.windowsize)
            .saturating_add(u64::try_from(moved).unwrap_or(u64::MAX));
        // No block goes out before the options are acknowledged: it is of the transfer before.
        let is_awaited =
            !self.follows || block == 0 || self.is_greeted || self.record.oack.is_empty();
        (is_awaited && block <= self.acked.saturating_add(most)) || silence >= DOUBLED
    }

    /// What a number on the wire acknowledges; None: it is old, or uncertain.
    pub(super) fn resolve(&self, wire: u16) -> Option<u64> {
        let ahead = self.record.rollover.ahead(self.acked, wire)?;
        let block = self.acked.checked_add(ahead)?;
        let is_there = self.record.last().is_none_or(|last| block <= last);
        (is_there && (!self.record.wraps() || ahead <= AHEAD)).then_some(block)
    }

    /// Whether a number on the wire acknowledges less than is known.
    pub(super) fn is_behind(&self, wire: u16) -> bool {
        let rollover = self.record.rollover;
        let here = rollover.wire(self.acked);
        let back = rollover.ahead(u64::from(wire), here).unwrap_or(0);
        back > 0 && back <= AHEAD.min(self.acked)
    }

    /// How far it is, as far as is known here.
    pub(super) fn progress(&self, now: Instant) -> Progress {
        Progress {
            tenure: self.tenure,
            acked: self.acked,
            floor: self.floor,
            pace: self.pace.fastest(),
            is_greeted: self.is_greeted,
            silence: now.saturating_duration_since(self.heard),
        }
    }

    /// How this node sees it. No lease is in that.
    pub(super) fn view(&self, now: Instant) -> View {
        let held = self.own.as_ref().and_then(|own| own.held.as_ref());
        let hold = held.map(|held| {
            let until = if held.revoking.is_empty() && held.lease_until.is_none() {
                held.until
            } else {
                held.revoke_until
            };
            until.saturating_duration_since(now)
        });
        View {
            progress: self.progress(now),
            hold: hold.unwrap_or_else(|| self.held_until.saturating_duration_since(now)),
            lease: Duration::ZERO,
            echo: 0,
            is_sure: self.is_confirmed,
            age: now.saturating_duration_since(self.made),
        }
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        Standing {
            record: self.record.clone(),
            view: self.view(now),
        }
    }
}
