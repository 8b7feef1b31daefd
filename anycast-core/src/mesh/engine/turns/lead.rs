//! Consent: that nobody else gives turns meanwhile.

use std::time::{Duration, Instant};

use super::{Turns, VOTE_EVERY, VOTE_FOR, bound};
use crate::mesh::engine::millis;
use crate::mesh::wire::{Message, Vote, VoteRequest};
use crate::service::NodeName;

/// Consent, given and got.
#[derive(Debug)]
pub(super) struct Lead {
    /// Whom this node consents to, and until when it is bound.
    promised: Option<(NodeName, Instant)>,
    /// What this node promised before it started is over then.
    quarantine_until: Instant,
    /// Since when this node has had consent without a break.
    since: Option<Instant>,
    ask_at: Instant,
}

impl Lead {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            promised: None,
            quarantine_until: now + bound(VOTE_FOR),
            since: None,
            ask_at: now,
        }
    }

    pub(super) const fn ask_at(&self) -> Instant {
        self.ask_at
    }

    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn lost(&mut self) {
        self.since = None;
    }

    /// Consents, if nobody else was consented to.
    fn promise(&mut self, now: Instant, to: &NodeName, until: Instant) -> bool {
        let is_bound = |(other, until): &(NodeName, Instant)| other != to && *until > now;
        if now < self.quarantine_until || self.promised.as_ref().is_some_and(is_bound) {
            return false;
        }
        let before = self.promised.take().map(|(_, until)| until);
        self.promised = Some((to.clone(), before.map_or(until, |before| before.max(until))));
        true
    }
}

impl Turns {
    /// Whether this node takes itself for the giver.
    pub(super) fn is_candidate(&self) -> bool {
        self.giver() == Some(&self.me)
    }

    /// Whether it is one, with consent.
    pub(super) fn has_consent(&self, now: Instant) -> bool {
        let own = self.lead.promised.as_ref();
        let own = own.is_some_and(|(to, until)| *to == self.me && *until > now);
        let consents = self.peers.values().filter(|peer| {
            let is_of_before = peer.is_seen && !peer.speaks;
            is_of_before || peer.vote_until.is_some_and(|until| until > now)
        });
        let count = consents.count() + usize::from(own);
        count * 2 > self.members() && self.is_candidate()
    }

    pub(super) fn ask_for_consent(&mut self, now: Instant) {
        if !self.is_candidate() {
            self.lead.lost();
            return;
        }
        if self.lead.ask_at <= now {
            self.lead.ask_at = now + VOTE_EVERY;
            let me = self.me.clone();
            self.lead.promise(now, &me, now + VOTE_FOR);
            let peers = self.peers.iter();
            let peers = peers.filter(|(_, peer)| peer.is_up && peer.speaks);
            let peers: Vec<_> = peers.map(|(name, _)| name.clone()).collect();
            for name in peers {
                let id = self.next_id();
                if let Some(peer) = self.peers.get_mut(&name) {
                    peer.vote_asked = Some((id, now));
                }
                let duration = millis(VOTE_FOR);
                self.put(&name, Message::VoteRequest(VoteRequest { id, duration }));
            }
        }
        if self.has_consent(now) {
            self.lead.since.get_or_insert(now);
        } else {
            self.lead.lost();
        }
    }

    /// A peer asks for this node's consent.
    pub(in super::super) fn handle_vote_request(
        &mut self,
        now: Instant,
        peer: &NodeName,
        request: VoteRequest,
    ) {
        let now = self.advance(now);
        let has_lower = self.giver().is_some_and(|giver| giver < peer);
        let duration = request.duration.min(millis(VOTE_FOR));
        let until = now + bound(Duration::from_millis(duration.into()));
        let consents = !has_lower && self.lead.promise(now, peer, until);
        let vote = Vote {
            id: request.id,
            duration: if consents { duration } else { 0 },
        };
        self.put(peer, Message::Vote(vote));
        self.act(now);
    }

    /// A peer has answered.
    pub(in super::super) fn handle_vote(&mut self, now: Instant, peer: &NodeName, vote: Vote) {
        let now = self.advance(now);
        if let Some(entry) = self.peers.get_mut(peer)
            && let Some((_, at)) = entry.vote_asked.take_if(|(id, _)| *id == vote.id)
        {
            let duration = Duration::from_millis(vote.duration.into());
            entry.vote_until = (vote.duration > 0).then(|| at + duration.min(VOTE_FOR));
        }
        self.act(now);
    }
}
