//! What peers say.

use std::time::{Duration, Instant};

use anycast_core::service::NodeName;

use super::{Mode, Output, Replica};
use crate::sync::manifest::{Digest, Entry, Key, Writer};
use crate::sync::wire::{Follow, Head, Page};

/// How long a peer that is ahead may send nothing before it is asked again.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// What is known of one.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) is_up: bool,
    epoch: u64,
    /// All its changes up to this one are here.
    position: u64,
    pub(super) head: Option<Head>,
    /// When [`head`](Self::head) came.
    heard_at: Option<Instant>,
    /// When it was asked, or last brought something new.
    moved_at: Option<Instant>,
}

impl Peer {
    pub(super) fn is_heard(&self) -> bool {
        self.is_up && self.head.is_some()
    }

    /// Changes of it that are not here. Equal digests say that there are none, whatever the
    /// numbers.
    pub(super) fn behind(&self, head: &Head, ours: Digest) -> u64 {
        if head.digest == ours {
            return 0;
        }
        if head.epoch != self.epoch {
            return head.seq.max(1);
        }
        head.seq.saturating_sub(self.position)
    }

    pub(super) fn due(&self) -> Option<(Instant, &'static str)> {
        let is_behind = match &self.head {
            None => true,
            Some(head) => head.epoch != self.epoch || head.seq > self.position,
        };
        let at = self.moved_at.filter(|_| self.is_up && is_behind)?;
        Some((at + STALL, "a peer has more and does not send it"))
    }
}

impl Replica {
    /// A connection with a peer stands.
    pub fn handle_peer_up(&mut self, now: Instant, peer: &NodeName) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.is_up = true;
            state.head = None;
            self.ask(now, peer);
        }
        self.work.retry_fetches();
        self.plan(now);
    }

    /// It has ended.
    pub fn handle_peer_down(&mut self, peer: &NodeName) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.is_up = false;
        }
    }

    /// From where on a peer is to be asked for changes.
    #[must_use]
    pub fn follow(&self, peer: &NodeName) -> Follow {
        let peer = self.peers.get(peer);
        Follow {
            epoch: peer.map_or(0, |peer| peer.epoch),
            since: peer.map_or(0, |peer| peer.position),
        }
    }

    /// The next changes for a follower that knows those up to `since` of `epoch`, in about so many
    /// bytes. Without entries when it has all: then [`Page::upto`] is where to go on from.
    #[must_use]
    pub fn page(&self, follow: Follow, budget: usize) -> Page {
        let durable = self.log.durable_seq();
        let is_ours = follow.epoch == self.epoch && follow.since <= durable;
        let after = if is_ours { follow.since } else { 0 };
        let changes = self.manifest.changes_since(after, durable, budget);
        Page {
            epoch: self.epoch,
            after,
            upto: changes.upto,
            entries: changes.entries,
        }
    }

    /// A page of a peer.
    pub fn handle_page(&mut self, now: Instant, peer: &NodeName, page: &Page) {
        if !self.peers.contains_key(peer) {
            return;
        }
        for (key, entry) in &page.entries {
            self.take(peer, key, entry);
        }
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        if page.epoch != state.epoch && page.after == 0 {
            state.epoch = page.epoch;
            state.position = 0;
        }
        if page.epoch != state.epoch || page.after > state.position {
            self.ask(now, peer); // a page between is missing
        } else if page.upto > state.position {
            state.position = page.upto;
            state.moved_at = Some(now);
        }
        self.plan(now);
    }

    /// Where a peer's copy stands.
    pub fn handle_head(&mut self, now: Instant, peer: &NodeName, head: Head) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        let has_gained = state.head.is_none_or(|old| old.missing > head.missing);
        state.head = Some(head);
        state.heard_at = Some(now);
        state.moved_at.get_or_insert(now);
        if has_gained {
            self.work.retry_fetches(); // it may have now what it had not
            self.plan(now);
        }
    }

    /// Whether a peer has said where it stands since then, and all that it has is here.
    #[must_use]
    pub fn has_heard(&self, peer: &NodeName, since: Instant) -> bool {
        let peer = self.peers.get(peer).filter(|peer| peer.is_up);
        peer.is_some_and(|peer| peer.heard_at.is_some_and(|at| at > since) && peer.due().is_none())
    }

    pub(super) fn chase_peers(&mut self, now: Instant) {
        let peers = self.peers.iter();
        let stalled = peers.filter(|(_, peer)| peer.due().is_some_and(|(at, _)| at <= now));
        let stalled: Vec<_> = stalled.map(|(name, _)| name.clone()).collect();
        for peer in stalled {
            self.ask(now, &peer);
        }
    }

    pub(super) fn ask_all_again(&mut self, now: Instant) {
        let names: Vec<_> = self.peers.keys().cloned().collect();
        for name in names {
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.position = 0;
            }
            self.ask(now, &name);
        }
    }

    fn ask(&mut self, now: Instant, peer: &NodeName) {
        if let Some(state) = self.peers.get_mut(peer).filter(|state| state.is_up) {
            state.moved_at = Some(now);
            let ask = Output::Follow(peer.clone());
            if !self.outputs.contains(&ask) {
                self.put(ask);
            }
        }
    }

    /// Those who are up; first those who miss least.
    #[must_use]
    pub fn sources(&self) -> Vec<NodeName> {
        let missing = |head: &Option<Head>| head.map_or(u64::MAX, |head| head.missing);
        let up = self.peers.iter().filter(|(_, peer)| peer.is_up);
        let mut up: Vec<_> = up.map(|(name, peer)| (missing(&peer.head), name)).collect();
        up.sort();
        up.into_iter().map(|(_, name)| name.clone()).collect()
    }

    fn take(&mut self, peer: &NodeName, key: &Key, entry: &Entry) {
        if let Some(node) = self.intruder(peer, key, entry) {
            let what = format!("{key} was changed at {node}, which may not change files");
            self.counts.refused += 1;
            self.trouble("origin", what, false);
            return;
        }
        // After the state was put back from a backup others know writes that this node forgot.
        let ours = entry.seen().get(&self.writer).copied();
        if let Some(ours) = ours.filter(|ours| *ours > self.counter) {
            self.counter = ours;
            self.record_writer();
        }
        let merged = self.manifest.merge(key, entry);
        match self.apply(key, merged) {
            Ok(true) => self.counts.merged += 1,
            Ok(false) => {}
            Err(refused) => {
                self.counts.refused += 1;
                self.refused(&refused, Some(peer));
            }
        }
    }

    /// Who has written that may not. What others wrote before there was an origin is taken from the
    /// origin itself.
    fn intruder(&self, peer: &NodeName, key: &Key, entry: &Entry) -> Option<NodeName> {
        let Mode::Origin(origin) = &self.config.mode else {
            return None;
        };
        if peer == origin {
            return None;
        }
        let known = self.manifest.entry(key).unwrap_or_default();
        let is_new = |writer: &Writer, counter: u64| {
            known
                .seen()
                .get(writer)
                .is_none_or(|known| *known < counter)
        };
        let mut seen = entry.seen().iter();
        let intruder =
            seen.find(|(writer, counter)| writer.node != *origin && is_new(writer, **counter));
        intruder.map(|(writer, _)| writer.node.clone())
    }
}
