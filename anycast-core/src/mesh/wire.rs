//! What nodes say to each other on the control stream. Pure and total.
//!
//! A frame is a length (`u32`, big-endian, at most [`MAX_FRAME`]) and so many bytes: the kind of
//! the message (`u8`) and its fields. A field is a tag (`u8`), a length (`u16`) and a value. Numbers
//! are big-endian.
//!
//! Newer and older nodes understand each other: a kind or a tag that is not known is skipped, a
//! field that may be absent has a default, and none ever changes its meaning. Where that is not
//! enough the version changes; [`Hello`] says which ones a node speaks.

mod fields;
mod turns;

use ipnet::IpNet;

use self::fields::{Fields, Read};
pub use self::turns::{
    ServiceTurn, Turn, TurnAnswer, TurnRequest, TurnStage, TurnWant, Vote, VoteRequest, WaitsFor,
};
pub use crate::catchment::Clients;
use crate::health::Reason;
use crate::service::{CheckName, NodeName, ServiceName};

/// The version that this node prefers: 2 since turns ([`TurnRequest`]). Built
/// with `--cfg anycast_previous_wire` it is a node of the version before, for tests of an upgrade.
pub const VERSION: u16 = if cfg!(anycast_previous_wire) { 1 } else { 2 };
/// The oldest version that it still speaks.
pub const LEAST_VERSION: u16 = 1;
/// The longest frame, in bytes, without its length. A longer one ends the connection.
pub const MAX_FRAME: usize = 256 << 10;
/// Most services in one [`Status`]; a longer one ends the connection.
pub const MAX_SERVICES: usize = 1024;

/// Most data sets in one [`Status`]; a longer one ends the connection.
pub const MAX_DATA_SETS: usize = 64;
/// Most client networks in one [`Status`]; a longer one ends the connection.
pub const MAX_NETWORKS: usize = 16;

const HELLO: u8 = 1;
const STATUS: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const GRANT_REQUEST: u8 = 5;
const GRANT: u8 = 6;
const TURN_REQUEST: u8 = 7;
const TURN: u8 = 8;
const VOTE_REQUEST: u8 = 9;
const VOTE: u8 = 10;

/// A message of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The first one on each side.
    Hello(Hello),
    /// How a node is.
    Status(Status),
    /// Asks what time it is there, and shows that somebody reads.
    Ping(Ping),
    /// Its answer.
    Pong(Pong),
    /// Asks for promises not to withdraw (F5).
    GrantRequest(GrantRequest),
    /// Its answer.
    Grant(Grant),
    /// Says what wants a turn. From version 2 on.
    TurnRequest(TurnRequest),
    /// Its answer. From version 2 on.
    Turn(Turn),
    /// Asks for consent to give the turns. From version 2 on.
    VoteRequest(VoteRequest),
    /// Its answer. From version 2 on.
    Vote(Vote),
}

/// Who speaks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The node.
    pub name: NodeName,
    /// The newest version that it speaks.
    pub version: u16,
    /// The oldest one.
    pub least_version: u16,
    /// Another one for each start of the process.
    pub incarnation: u64,
}

/// How a node's services are. A service that is not named is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Each is greater than the one before, within a connection.
    pub sequence: u64,
    /// At most [`MAX_SERVICES`].
    pub services: Vec<ServiceStatus>,
    /// The version of the node's software, where it says so.
    pub software: Option<Reason>,
    /// How fit its data are to be served, where it says so: at most [`MAX_DATA_SETS`].
    pub data: Vec<DataStatus>,
    /// Whose requests it answers, at most [`MAX_NETWORKS`]; `None`: as it said last.
    pub clients: Option<Clients>,
    /// Whether it may be asked for turns: it takes part in them and sees most of its fleet. Said
    /// from version 2 on.
    pub gives_turns: bool,
}

/// How fit a set of data is to be served from: the files, the leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataStatus {
    /// Which set.
    pub name: CheckName,
    /// Whether the node may be preferred as far as this set is concerned.
    pub ready: bool,
    /// Why, or why not.
    pub reason: Option<Reason>,
    /// How many items it lacks, where it knows.
    pub behind: Option<u64>,
}

/// How one of them is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The service.
    pub name: ServiceName,
    /// Whether it is announced as preferred.
    pub preferred: bool,
    /// Whether an operator has drained or withdrawn it.
    pub draining: bool,
    /// For how many milliseconds it has not been healthy, if so. A duration, since no two nodes
    /// share a clock.
    pub failing_for: Option<u64>,
    /// How long it is announced as preferred after its node has died, in milliseconds; `None`: until
    /// its routing daemon is gone as well, or nobody said. Said from version 2 on.
    pub outlives: Option<u64>,
    /// Its turn. Said from version 2 on.
    pub turn: TurnStage,
}

/// Asks for the time there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// The answer has the same.
    pub id: u32,
}

/// When the question came and when the answer left, in microseconds since 1970 by the wall clock
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// That of the question.
    pub id: u32,
    /// When the question came.
    pub received: i64,
    /// When this answer left.
    pub sent: i64,
}

/// Asks a peer to promise that it does not withdraw these services by itself, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRequest {
    /// The answer has the same; never used twice.
    pub id: u64,
    /// For how many milliseconds; the asker counts from when it sent this, since no two nodes
    /// share a clock.
    pub duration: u32,
    /// At most [`MAX_SERVICES`].
    pub services: Vec<ServiceName>,
}

/// The answer to a [`GrantRequest`]. A service that is in neither list may be promised or not;
/// the asker takes it for not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// That of the request.
    pub id: u64,
    /// For how many milliseconds the promises are; the granter counts from its answer.
    pub duration: u32,
    /// It will not withdraw these by itself: at most [`MAX_SERVICES`].
    pub granted: Vec<ServiceName>,
    /// It promises nothing about these: at most [`MAX_SERVICES`].
    pub refused: Vec<ServiceName>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends too early, or a field reaches beyond it.
    #[error("a message that is cut short")]
    Cut,
    /// A field is not of its kind.
    #[error("field {tag} of message {kind} is malformed")]
    Field {
        /// The kind of the message.
        kind: u8,
        /// The field.
        tag: u8,
    },
    /// A field that must be there is not.
    #[error("message {kind} lacks field {tag}")]
    Missing {
        /// The kind of the message.
        kind: u8,
        /// The field.
        tag: u8,
    },
    /// More than [`MAX_FRAME`].
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are taken")]
    Long(usize),
    /// More than [`MAX_SERVICES`].
    #[error("a message about more than {MAX_SERVICES} services")]
    Services,
    /// More than [`MAX_DATA_SETS`] or [`MAX_NETWORKS`].
    #[error("a status of more than {MAX_DATA_SETS} data sets or {MAX_NETWORKS} networks")]
    Status,
}

impl Message {
    /// The frame, its length included.
    ///
    /// # Errors
    /// [`WireError::Services`] and [`WireError::Status`]; [`WireError::Long`] cannot happen below
    /// their numbers.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Fields(Vec::new());
        match self {
            Self::Hello(hello) => {
                body.0.push(HELLO);
                body.put(1, hello.name.as_str().as_bytes());
                body.put(2, &hello.version.to_be_bytes());
                body.put(3, &hello.least_version.to_be_bytes());
                body.put(4, &hello.incarnation.to_be_bytes());
            }
            Self::Status(status) => {
                body.0.push(STATUS);
                status.encode(&mut body)?;
            }
            Self::Ping(ping) => {
                body.0.push(PING);
                body.put(1, &ping.id.to_be_bytes());
            }
            Self::Pong(pong) => {
                body.0.push(PONG);
                body.put(1, &pong.id.to_be_bytes());
                body.put(2, &pong.received.to_be_bytes());
                body.put(3, &pong.sent.to_be_bytes());
            }
            Self::GrantRequest(request) => {
                body.0.push(GRANT_REQUEST);
                body.put(1, &request.id.to_be_bytes());
                body.put(2, &request.duration.to_be_bytes());
                put_names(&mut body, 3, &request.services)?;
            }
            Self::Grant(grant) => {
                body.0.push(GRANT);
                body.put(1, &grant.id.to_be_bytes());
                body.put(2, &grant.duration.to_be_bytes());
                put_names(&mut body, 3, &grant.granted)?;
                put_names(&mut body, 4, &grant.refused)?;
            }
            Self::TurnRequest(request) => {
                body.0.push(TURN_REQUEST);
                request.encode(&mut body)?;
            }
            Self::Turn(turn) => {
                body.0.push(TURN);
                turn.encode(&mut body)?;
            }
            Self::VoteRequest(request) => {
                body.0.push(VOTE_REQUEST);
                turns::put_vote(&mut body, request.id, request.duration);
            }
            Self::Vote(vote) => {
                body.0.push(VOTE);
                turns::put_vote(&mut body, vote.id, vote.duration);
            }
        }
        let length = u32::try_from(body.0.len()).ok();
        let length = length.filter(|_| body.0.len() <= MAX_FRAME);
        let length = length.ok_or(WireError::Long(body.0.len()))?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.append(&mut body.0);
        Ok(frame)
    }

    /// The message in a frame without its length; `None`: a kind of a later version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(frame: &[u8]) -> Result<Option<Self>, WireError> {
        if frame.len() > MAX_FRAME {
            return Err(WireError::Long(frame.len()));
        }
        let (&kind, rest) = frame.split_first().ok_or(WireError::Cut)?;
        let message = match kind {
            HELLO => {
                let fields = Read::new(kind, rest)?;
                Self::Hello(Hello {
                    name: fields.text(1)?,
                    version: u16::from_be_bytes(fields.array(2)?),
                    least_version: u16::from_be_bytes(fields.array(3)?),
                    incarnation: u64::from_be_bytes(fields.array(4)?),
                })
            }
            STATUS => Self::Status(Status::decode(&Read::new(kind, rest)?)?),
            PING => {
                let fields = Read::new(kind, rest)?;
                Self::Ping(Ping {
                    id: u32::from_be_bytes(fields.array(1)?),
                })
            }
            PONG => {
                let fields = Read::new(kind, rest)?;
                Self::Pong(Pong {
                    id: u32::from_be_bytes(fields.array(1)?),
                    received: i64::from_be_bytes(fields.array(2)?),
                    sent: i64::from_be_bytes(fields.array(3)?),
                })
            }
            GRANT_REQUEST => {
                let fields = Read::new(kind, rest)?;
                Self::GrantRequest(GrantRequest {
                    id: u64::from_be_bytes(fields.array(1)?),
                    duration: u32::from_be_bytes(fields.array(2)?),
                    services: fields.names(3, MAX_SERVICES)?,
                })
            }
            GRANT => {
                let fields = Read::new(kind, rest)?;
                Self::Grant(Grant {
                    id: u64::from_be_bytes(fields.array(1)?),
                    duration: u32::from_be_bytes(fields.array(2)?),
                    granted: fields.names(3, MAX_SERVICES)?,
                    refused: fields.names(4, MAX_SERVICES)?,
                })
            }
            _ => return turns::decode(kind, rest),
        };
        Ok(Some(message))
    }
}

/// The length that a frame begins with.
///
/// # Errors
/// [`WireError::Long`].
pub fn frame_length(head: [u8; 4]) -> Result<usize, WireError> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(WireError::Long(length));
    }
    Ok(length)
}

fn put_names(body: &mut Fields, tag: u8, names: &[ServiceName]) -> Result<(), WireError> {
    if names.len() > MAX_SERVICES {
        return Err(WireError::Services);
    }
    names
        .iter()
        .for_each(|name| body.put(tag, name.as_str().as_bytes()));
    Ok(())
}

impl Status {
    fn encode(&self, body: &mut Fields) -> Result<(), WireError> {
        let networks = self.clients.as_ref().map_or(0, |clients| clients.top.len());
        if self.services.len() > MAX_SERVICES {
            return Err(WireError::Services);
        }
        if self.data.len() > MAX_DATA_SETS || networks > MAX_NETWORKS {
            return Err(WireError::Status);
        }
        body.put(1, &self.sequence.to_be_bytes());
        for service in &self.services {
            body.put(2, &service.encode());
        }
        if let Some(software) = &self.software {
            body.put(3, software.as_str().as_bytes());
        }
        for data in &self.data {
            body.put(4, &data.encode());
        }
        if let Some(clients) = &self.clients {
            body.put(5, &encode_clients(clients));
        }
        if self.gives_turns {
            body.put(6, &[GIVES_TURNS]);
        }
        Ok(())
    }

    fn decode(fields: &Read<'_>) -> Result<Self, WireError> {
        if fields.all(2).count() > MAX_SERVICES {
            return Err(WireError::Services);
        }
        if fields.all(4).count() > MAX_DATA_SETS {
            return Err(WireError::Status);
        }
        Ok(Self {
            sequence: u64::from_be_bytes(fields.array(1)?),
            services: fields
                .all(2)
                .map(ServiceStatus::decode)
                .collect::<Result<_, _>>()?,
            software: fields.reason(3),
            data: fields
                .all(4)
                .map(DataStatus::decode)
                .collect::<Result<_, _>>()?,
            clients: fields.get(5).map(decode_clients).transpose()?,
            gives_turns: fields
                .get(6)
                .and_then(<[u8]>::first)
                .is_some_and(|flags| flags & GIVES_TURNS != 0),
        })
    }
}

const READY: u8 = 1;
const GIVES_TURNS: u8 = 1;

impl DataStatus {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields(Vec::new());
        fields.put(1, self.name.as_str().as_bytes());
        fields.put(2, &[READY * u8::from(self.ready)]);
        if let Some(reason) = &self.reason {
            fields.put(3, reason.as_str().as_bytes());
        }
        if let Some(behind) = self.behind {
            fields.put(4, &behind.to_be_bytes());
        }
        fields.0
    }

    fn decode(value: &[u8]) -> Result<Self, WireError> {
        let fields = Read::new(STATUS, value)?;
        let [flags] = fields.array(2)?;
        Ok(Self {
            name: fields.text(1)?,
            ready: flags & READY != 0,
            reason: fields.reason(3),
            behind: fields.number(4)?,
        })
    }
}

fn encode_clients(clients: &Clients) -> Vec<u8> {
    let mut fields = Fields(Vec::new());
    fields.put(1, &clients.total.to_be_bytes());
    for (network, count) in &clients.top {
        let mut one = Fields(Vec::new());
        one.put(1, network.to_string().as_bytes());
        one.put(2, &count.to_be_bytes());
        fields.put(2, &one.0);
    }
    fields.0
}

fn decode_clients(value: &[u8]) -> Result<Clients, WireError> {
    let fields = Read::new(STATUS, value)?;
    if fields.all(2).count() > MAX_NETWORKS {
        return Err(WireError::Status);
    }
    let one = |value| {
        let fields = Read::new(STATUS, value)?;
        let network: IpNet = fields.text(1)?;
        Ok((network.trunc(), u64::from_be_bytes(fields.array(2)?)))
    };
    Ok(Clients {
        total: u64::from_be_bytes(fields.array(1)?),
        top: fields.all(2).map(one).collect::<Result<_, WireError>>()?,
    })
}

const PREFERRED: u8 = 1;
const DRAINING: u8 = 2;
const WAITS_FOR_TURN: u8 = 4;
const HAS_TURN: u8 = 8;

impl ServiceStatus {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields(Vec::new());
        fields.put(1, self.name.as_str().as_bytes());
        let turn = match self.turn {
            TurnStage::Idle => 0,
            TurnStage::Waits => WAITS_FOR_TURN,
            TurnStage::Has => HAS_TURN,
        };
        let flags = PREFERRED * u8::from(self.preferred) + DRAINING * u8::from(self.draining);
        fields.put(2, &[flags | turn]);
        if let Some(failing) = self.failing_for {
            fields.put(3, &failing.to_be_bytes());
        }
        if let Some(outlives) = self.outlives
            && VERSION >= 2
        {
            fields.put(4, &outlives.to_be_bytes());
        }
        fields.0
    }

    fn decode(value: &[u8]) -> Result<Self, WireError> {
        let fields = Read::new(STATUS, value)?;
        let [flags] = fields.array(2)?;
        Ok(Self {
            name: fields.text(1)?,
            preferred: flags & PREFERRED != 0,
            draining: flags & DRAINING != 0,
            failing_for: fields.number(3)?,
            outlives: fields.number(4)?,
            turn: if flags & HAS_TURN != 0 {
                TurnStage::Has
            } else if flags & WAITS_FOR_TURN != 0 {
                TurnStage::Waits
            } else {
                TurnStage::Idle
            },
        })
    }
}

#[cfg(test)]
mod tests;
