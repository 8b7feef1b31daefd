//! What this node's services want, and how they come by it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{ASK_EVERY, ASK_LEAST, MAX_SPACING, Need, Part, TURN_FOR, Turns};
use crate::mesh::engine::millis;
use crate::mesh::wire::{
    MAX_SERVICES, Message, Turn, TurnAnswer, TurnRequest, TurnWant, VERSION, WaitsFor,
};
use crate::service::{NodeName, ServiceName};

/// A service of this node that takes part.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) part: Part,
    /// Another one for each turn that it wants.
    pub(super) wish: u64,
    /// It has a turn, until then.
    pub(super) turn: Option<Instant>,
    pub(super) waits_for: WaitsFor,
}

impl Own {
    const fn new(part: Part) -> Self {
        let need = Need::Nothing;
        Self {
            part: Part { need, ..part },
            wish: 0,
            turn: None,
            waits_for: WaitsFor::Nothing,
        }
    }

    /// What the giver is to know: it leaves, or joins; `None`: it wants nothing.
    pub(super) const fn leaves(&self) -> Option<bool> {
        match self.part.need {
            Need::Turn { leaves } => Some(leaves),
            Need::Uses { leaves } if self.turn.is_some() => Some(leaves),
            Need::Nothing | Need::Uses { .. } => None,
        }
    }
}

/// What the giver was told last.
#[derive(Debug)]
pub(super) struct Asking {
    giver: Option<NodeName>,
    id: Option<u64>,
    at: Instant,
    wants: Vec<TurnWant>,
}

impl Asking {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            giver: None,
            id: None,
            at: now,
            wants: Vec::new(),
        }
    }

    /// What was said over an earlier connection is not answered any more.
    pub(super) fn forget(&mut self, peer: &NodeName) {
        if self.giver.as_ref() == Some(peer) {
            self.giver = None;
        }
    }
}

impl Turns {
    /// These services of this node take part, and need this: the first [`MAX_SERVICES`].
    pub(in super::super) fn handle_parts(
        &mut self,
        now: Instant,
        parts: BTreeMap<ServiceName, Part>,
    ) {
        let now = self.advance(now);
        if VERSION < 2 {
            return; // nobody is to know that this node knows of turns
        }
        let mut before = std::mem::take(&mut self.own);
        for (service, mut part) in parts.into_iter().take(MAX_SERVICES) {
            part.spacing = part.spacing.min(MAX_SPACING);
            let mut own = before.remove(&service).unwrap_or_else(|| Own::new(part));
            let wants = matches!(part.need, Need::Turn { .. });
            if wants && part.need != own.part.need {
                own.wish = self.next_id();
                own.turn = None;
            } else if part.need == Need::Nothing {
                own.turn = None;
            }
            own.part = part;
            self.own.insert(service, own);
        }
        self.act(now);
    }

    fn wants(&self) -> Vec<TurnWant> {
        let wants = self.own.iter().filter_map(|(service, own)| {
            Some(TurnWant {
                service: service.clone(),
                leaves: own.leaves()?,
                spacing: millis(own.part.spacing),
                wish: own.wish,
            })
        });
        wants.collect()
    }

    /// When the giver is to be told something, if it is another node.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        let giver = self.giver().filter(|giver| **giver != self.me)?;
        let wants = self.wants();
        if self.asking.giver.as_ref() != Some(giver) {
            return (!wants.is_empty()).then_some(self.latest);
        }
        if wants != self.asking.wants {
            return Some(self.asking.at + ASK_LEAST);
        }
        (!wants.is_empty()).then(|| self.asking.at + ASK_EVERY)
    }

    /// Tells the giver what is wanted, when that is due.
    pub(super) fn ask_for_turns(&mut self, now: Instant) {
        let Some(giver) = self.giver().cloned() else {
            return;
        };
        if giver == self.me {
            self.asking = Asking::new(now);
            return;
        }
        if self.ask_at().is_none_or(|at| at > now) {
            return;
        }
        let (id, wants) = (self.next_id(), self.wants());
        self.asking = Asking {
            giver: Some(giver.clone()),
            id: Some(id),
            at: now,
            wants: wants.clone(),
        };
        self.put(&giver, Message::TurnRequest(TurnRequest { id, wants }));
    }

    /// The giver has answered.
    pub(in super::super) fn handle_turn(&mut self, now: Instant, peer: &NodeName, turn: &Turn) {
        let now = self.advance(now);
        let asking = &self.asking;
        if asking.giver.as_ref() != Some(peer) || asking.id != Some(turn.id) {
            return; // an earlier request's, or nobody's
        }
        let (at, sees_majority) = (asking.at, self.sees_majority());
        for one in &turn.services {
            let asked = asking.wants.iter().find(|want| want.service == one.service);
            let own = self.own.get_mut(&one.service);
            let is_asked = |own: &&mut Own| asked.is_some_and(|want| want.wish == own.wish);
            let Some(own) = own.filter(is_asked) else {
                continue; // nobody wants that, or not any more
            };
            match &one.state {
                TurnAnswer::Given(duration) => {
                    let duration = Duration::from_millis((*duration).into());
                    let until = at + duration.min(TURN_FOR);
                    let takes = matches!(own.part.need, Need::Turn { .. });
                    if takes && until > now && sees_majority {
                        own.turn.get_or_insert(until);
                    }
                }
                TurnAnswer::Waits(what) => own.waits_for = what.clone(),
            }
        }
        self.act(now);
    }

    /// This node, which gives the turns, gives one to itself.
    pub(super) fn take_own(&mut self, service: &ServiceName, until: Instant) {
        if let Some(own) = self.own.get_mut(service) {
            own.turn = Some(until);
        }
    }

    /// This node, which gives the turns, tells itself why there is none.
    pub(super) fn tell_own(&mut self, service: &ServiceName, what: WaitsFor) {
        if let Some(own) = self.own.get_mut(service) {
            own.waits_for = what;
        }
    }
}
