//! Turns: who may change next in an equal-cost set. Since version 2; sent only to peers that speak
//! it.

use super::fields::{Fields, Read};
use super::{MAX_SERVICES, Message, TURN, TURN_REQUEST, VERSION, VOTE, VOTE_REQUEST, WireError};
use crate::service::{NodeName, ServiceName};

/// Where a service stands with its turns, as its status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TurnStage {
    /// It wants none, or takes no part.
    #[default]
    Idle,
    /// It waits for one.
    Waits,
    /// It has one.
    Has,
}

/// Every service of this node that wants a turn, or has one and is not done with it. One that the
/// request before named and this one does not is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRequest {
    /// The answers have the same; each is greater than the one before, within a connection.
    pub id: u64,
    /// At most [`MAX_SERVICES`].
    pub wants: Vec<TurnWant>,
}

/// What one of them wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnWant {
    /// The service.
    pub service: ServiceName,
    /// Whether it is to leave the preferred ones; else it joins them.
    pub leaves: bool,
    /// For how many milliseconds nothing may have changed before.
    pub spacing: u32,
    /// Another one for each turn that is wanted: what has a turn for another wish is done with it.
    pub wish: u64,
}

/// The answer to a [`TurnRequest`], again whenever one of its services has got its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// That of the request.
    pub id: u64,
    /// At most [`MAX_SERVICES`].
    pub services: Vec<ServiceTurn>,
}

/// How it stands with one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTurn {
    /// The service.
    pub service: ServiceName,
    /// Its turn, or why it has none.
    pub state: TurnAnswer,
}

/// Whether a service has its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnAnswer {
    /// For so many milliseconds, which its holder counts from its request.
    Given(u32),
    /// Not yet.
    Waits(WaitsFor),
}

/// What a turn waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// That node has the turn, or is before.
    Node {
        /// The node.
        node: NodeName,
        /// Whether it leaves; else it joins.
        leaves: bool,
    },
    /// The last change is not long enough ago.
    Settling,
    /// The giver is a new one: the turns of one before it have to end.
    Beginning,
    /// The asked node gives no turns, or says something of a later version.
    Nothing,
}

/// Asks for consent to give the turns, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRequest {
    /// The answer has the same; never used twice.
    pub id: u64,
    /// For how many milliseconds; the asker counts from when it sent this.
    pub duration: u32,
}

/// Its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// That of the request.
    pub id: u64,
    /// For how many milliseconds this node lets nobody else give turns; 0: it does not consent.
    pub duration: u32,
}

const GIVEN: u8 = 1;
const NODE_JOINS: u8 = 2;
const NODE_LEAVES: u8 = 3;
const SETTLING: u8 = 4;
const BEGINNING: u8 = 5;
const NOTHING: u8 = 0;

impl TurnRequest {
    pub(super) fn encode(&self, body: &mut Fields) -> Result<(), WireError> {
        if self.wants.len() > MAX_SERVICES {
            return Err(WireError::Services);
        }
        body.put(1, &self.id.to_be_bytes());
        for want in &self.wants {
            let mut fields = Fields(Vec::new());
            fields.put(1, want.service.as_str().as_bytes());
            fields.put(2, &[u8::from(want.leaves)]);
            fields.put(3, &want.spacing.to_be_bytes());
            fields.put(4, &want.wish.to_be_bytes());
            body.put(2, &fields.0);
        }
        Ok(())
    }

    fn decode(fields: &Read<'_>) -> Result<Self, WireError> {
        if fields.all(2).count() > MAX_SERVICES {
            return Err(WireError::Services);
        }
        let want = |value| {
            let fields = Read::new(TURN_REQUEST, value)?;
            let [leaves] = fields.array(2)?;
            Ok(TurnWant {
                service: fields.text(1)?,
                leaves: leaves != 0,
                spacing: u32::from_be_bytes(fields.array(3)?),
                wish: u64::from_be_bytes(fields.array(4)?),
            })
        };
        Ok(Self {
            id: u64::from_be_bytes(fields.array(1)?),
            wants: fields.all(2).map(want).collect::<Result<_, WireError>>()?,
        })
    }
}

impl Turn {
    pub(super) fn encode(&self, body: &mut Fields) -> Result<(), WireError> {
        if self.services.len() > MAX_SERVICES {
            return Err(WireError::Services);
        }
        body.put(1, &self.id.to_be_bytes());
        for one in &self.services {
            let mut fields = Fields(Vec::new());
            fields.put(1, one.service.as_str().as_bytes());
            let (state, duration, node) = match &one.state {
                TurnAnswer::Given(duration) => (GIVEN, Some(duration), None),
                TurnAnswer::Waits(WaitsFor::Node { node, leaves }) => (
                    if *leaves { NODE_LEAVES } else { NODE_JOINS },
                    None,
                    Some(node),
                ),
                TurnAnswer::Waits(WaitsFor::Settling) => (SETTLING, None, None),
                TurnAnswer::Waits(WaitsFor::Beginning) => (BEGINNING, None, None),
                TurnAnswer::Waits(WaitsFor::Nothing) => (NOTHING, None, None),
            };
            fields.put(2, &[state]);
            if let Some(duration) = duration {
                fields.put(3, &duration.to_be_bytes());
            }
            if let Some(node) = node {
                fields.put(4, node.as_str().as_bytes());
            }
            body.put(2, &fields.0);
        }
        Ok(())
    }

    fn decode(fields: &Read<'_>) -> Result<Self, WireError> {
        if fields.all(2).count() > MAX_SERVICES {
            return Err(WireError::Services);
        }
        Ok(Self {
            id: u64::from_be_bytes(fields.array(1)?),
            services: fields
                .all(2)
                .map(ServiceTurn::decode)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl ServiceTurn {
    fn decode(value: &[u8]) -> Result<Self, WireError> {
        let fields = Read::new(TURN, value)?;
        let [state] = fields.array(2)?;
        let node = |leaves| {
            let node = fields.text(4)?;
            Ok(TurnAnswer::Waits(WaitsFor::Node { node, leaves }))
        };
        let state = match state {
            GIVEN => TurnAnswer::Given(u32::from_be_bytes(fields.array(3)?)),
            NODE_JOINS => node(false)?,
            NODE_LEAVES => node(true)?,
            SETTLING => TurnAnswer::Waits(WaitsFor::Settling),
            BEGINNING => TurnAnswer::Waits(WaitsFor::Beginning),
            _ => TurnAnswer::Waits(WaitsFor::Nothing),
        };
        Ok(Self {
            service: fields.text(1)?,
            state,
        })
    }
}

/// Both messages about votes look alike.
pub(super) fn put_vote(body: &mut Fields, id: u64, duration: u32) {
    body.put(1, &id.to_be_bytes());
    body.put(2, &duration.to_be_bytes());
}

/// One of this module's messages; `None`: a later version's, or one that this node does not speak.
pub(super) fn decode(kind: u8, rest: &[u8]) -> Result<Option<Message>, WireError> {
    if VERSION < 2 || !matches!(kind, TURN_REQUEST | TURN | VOTE_REQUEST | VOTE) {
        return Ok(None);
    }
    let fields = Read::new(kind, rest)?;
    if kind == TURN_REQUEST {
        return Ok(Some(Message::TurnRequest(TurnRequest::decode(&fields)?)));
    }
    if kind == TURN {
        return Ok(Some(Message::Turn(Turn::decode(&fields)?)));
    }
    let id = u64::from_be_bytes(fields.array(1)?);
    let duration = u32::from_be_bytes(fields.array(2)?);
    Ok(Some(if kind == VOTE_REQUEST {
        Message::VoteRequest(VoteRequest { id, duration })
    } else {
        Message::Vote(Vote { id, duration })
    }))
}
