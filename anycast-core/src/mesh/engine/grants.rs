//! Promises not to withdraw, asked for and given (F5). Pure.
//!
//! # Contract
//!
//! - While this node [wants](Engine::handle_wants) promises it asks every peer that is up: at once,
//!   then every [`ASK_EVERY`]; at once again for a service that comes to the list, at most every
//!   [`ASK_LEAST`]. One request names all services.
//! - A promise holds for [`GRANT_FOR`]. The holder counts it from its request and the granter from
//!   its answer, which is later; so the granter is bound for longer, whatever the way between them
//!   takes.
//! - Only the answer to the last request over a connection that stands counts, and it counts once.
//!   One of an earlier request, connection or start is nobody's. An answer about what was not asked
//!   for, or for longer, counts for what was asked.
//! - A refusal ends what the same peer promised before: the holder does not lean on a peer that has
//!   come to fail, although that one stays bound.
//! - Whoever asks is answered at most once for a request; another one before the answer replaces it.
//!   How often one may ask is bounded by its [`RATE`](super::RATE).
//! - An older node skips the request, and so promises nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{ConnectionId, Engine, Output, millis};
use crate::mesh::wire::{Grant, GrantRequest, MAX_SERVICES, Message};
use crate::service::{NodeName, ServiceName};

/// How long a promise holds. A holder that is cut off is demoted, and no longer withdrawn, after it.
pub const GRANT_FOR: Duration = Duration::from_secs(9);
/// How often promises are asked for anew: two answers may be lost before one expires.
pub const ASK_EVERY: Duration = Duration::from_secs(3);
/// Between two requests for different services.
pub const ASK_LEAST: Duration = Duration::from_millis(500);

/// Which promises this node gives to whom: the answer to [`Output::Asked`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub peer: NodeName,
    /// Over which connection.
    pub connection: ConnectionId,
    /// The request's.
    pub id: u64,
    /// How long the promises hold: the shortest of them.
    pub duration: Duration,
    /// These are promised.
    pub granted: Vec<ServiceName>,
    /// These are not.
    pub refused: Vec<ServiceName>,
}

/// What is asked over one connection, both ways.
#[derive(Debug)]
pub(super) struct Asking {
    /// When this node asks next, if it wants anything.
    ask_at: Instant,
    asked: Option<Asked>,
    /// The peer's request that is not answered yet.
    owed: Option<u64>,
}

/// This node's last request.
#[derive(Debug)]
struct Asked {
    id: u64,
    at: Instant,
    services: Vec<ServiceName>,
}

impl Asking {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            ask_at: now,
            asked: None,
            owed: None,
        }
    }

    pub(super) const fn at(&self) -> Instant {
        self.ask_at
    }

    /// Asks again soon.
    fn hurry(&mut self, now: Instant) {
        let last = self.asked.as_ref().map(|asked| asked.at + ASK_LEAST);
        self.ask_at = self.ask_at.min(last.unwrap_or(now).max(now));
    }
}

impl Engine {
    /// Promises not to withdraw these services are wanted from now on, and no others: the first
    /// [`MAX_SERVICES`].
    pub fn handle_wants(&mut self, now: Instant, mut wants: BTreeSet<ServiceName>) {
        while wants.len() > MAX_SERVICES {
            wants.pop_last();
        }
        let is_new = !wants.is_subset(&self.wants);
        self.wants = wants;
        if !is_new {
            return;
        }
        let links = self.peers.values_mut();
        for link in links.filter_map(|peer| peer.link.as_mut()) {
            link.asking.hurry(now);
        }
    }

    /// This node promises this. Nothing is sent when the connection is not that one any more, or
    /// the peer has asked again meanwhile; the promises stand all the same.
    pub fn handle_answer(&mut self, answer: Answer) {
        let entry = self.peers.get_mut(&answer.peer);
        let link = entry.and_then(|entry| entry.link.as_mut());
        let Some(link) = link.filter(|link| link.id == answer.connection) else {
            return;
        };
        if link.asking.owed.take_if(|id| *id == answer.id).is_none() {
            return;
        }
        let grant = Grant {
            id: answer.id,
            duration: millis(answer.duration),
            granted: answer.granted,
            refused: answer.refused,
        };
        self.put(Output::Send(answer.connection, Message::Grant(grant)));
    }

    pub(super) fn handle_request(&mut self, peer: &NodeName, request: GrantRequest) {
        let entry = self.peers.get_mut(peer);
        let Some(link) = entry.and_then(|entry| entry.link.as_mut()) else {
            return;
        };
        link.asking.owed = Some(request.id);
        let connection = link.id;
        self.put(Output::Asked {
            peer: peer.clone(),
            connection,
            id: request.id,
            duration: Duration::from_millis(request.duration.into()),
            services: request.services,
        });
    }

    pub(super) fn handle_grant(&mut self, now: Instant, peer: &NodeName, grant: Grant) {
        let entry = self.peers.get_mut(peer);
        let Some(link) = entry.and_then(|entry| entry.link.as_mut()) else {
            return;
        };
        let Some(asked) = link
            .asking
            .asked
            .as_mut()
            .filter(|asked| asked.id == grant.id)
        else {
            return; // an earlier request's, or nobody's
        };
        // Each counts once.
        let services = std::mem::take(&mut asked.services);
        let promised = Duration::from_millis(grant.duration.into()).min(GRANT_FOR);
        let until = asked.at + promised;
        let of = |named: Vec<ServiceName>| {
            let of = named.into_iter().filter(|name| services.contains(name));
            of.collect::<Vec<_>>()
        };
        let (mut granted, refused) = (of(grant.granted), of(grant.refused));
        granted.retain(|name| until > now && !refused.contains(name));
        self.put(Output::Granted {
            peer: peer.clone(),
            until,
            granted,
            refused,
        });
    }

    /// Asks whom it is time to ask.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.wants.is_empty() {
            return;
        }
        let mut outputs = Vec::new();
        for peer in self.peers.values_mut() {
            let link = peer.link.as_mut();
            let Some(link) = link.filter(|link| link.up_since.is_some()) else {
                continue;
            };
            if link.asking.ask_at > now {
                continue;
            }
            self.request = self.request.wrapping_add(1);
            let services: Vec<_> = self.wants.iter().cloned().collect();
            let request = GrantRequest {
                id: self.request,
                duration: millis(GRANT_FOR),
                services: services.clone(),
            };
            link.asking.ask_at = now + ASK_EVERY;
            link.asking.asked = Some(Asked {
                id: self.request,
                at: now,
                services,
            });
            outputs.push(Output::Send(link.id, Message::GrantRequest(request)));
        }
        outputs.into_iter().for_each(|output| self.put(output));
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;
