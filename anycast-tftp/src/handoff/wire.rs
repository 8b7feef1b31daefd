//! What nodes tell each other of transfers. Total: whatever comes in, nothing panics, and nothing
//! is allocated beyond the message.
//!
//! A datagram is the [`VERSION`] and any number of messages, each a tag, its length and its body.
//! A tag that is not known is skipped, so that a later version may say more; a body may be longer
//! than this version reads. What a tag means never changes.

use std::time::Duration;

use self::fields::{Reader, Writer};
use self::standing::{put_standing, put_tenure, standing, tenure};
use super::record::{NodeId, Record, Tenure};
use crate::proto::Flow;

mod fields;
mod standing;
#[cfg(test)]
mod tests;

/// The first byte of every datagram.
pub const VERSION: u8 = 1;

/// How a transfer stands, with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The transfer.
    pub record: Record,
    /// Who owns it.
    pub tenure: Tenure,
    /// Blocks that the client is known to have.
    pub acked: u64,
    /// Blocks that every holder is known to know.
    pub floor: u64,
    /// Fastest pace that was seen, in blocks a second; 0: none.
    pub pace: u32,
    /// It has acknowledged the options, or a block.
    pub is_greeted: bool,
    /// How long the client has not been heard of.
    pub silence: Duration,
    /// Until the first reply has gone out, at the latest.
    pub hold: Duration,
    /// How long whoever asked may answer; zero where it was not asked, or is not sure.
    pub lease: Duration,
    /// The time of whoever asked, as it said it: see [`Message::Ask`].
    pub echo: u64,
    /// No: the sender did not run for a while, and asks itself.
    pub is_sure: bool,
    /// For how long the sender has known the transfer.
    pub age: Duration,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// What a node is. Said when a peer comes up, and every second.
    Hello {
        /// Its failure domain.
        domain: u64,
        /// Largest packet that reaches its clients, in bytes.
        mtu: u32,
        /// It drains.
        is_draining: bool,
    },
    /// Keep this record; from its owner, or to who asked.
    Put(Box<Standing>),
    /// It is kept.
    Kept {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
        /// The content is here.
        has_content: bool,
        /// The owner of an older transfer of the flow that was known.
        older: Option<NodeId>,
        /// How long some node may still answer for that.
        wait: Duration,
        /// The sender's time, in milliseconds, to come back in [`Message::Hint`].
        stamp: u64,
    },
    /// It is not kept: another transfer of the flow stands.
    Refused {
        /// The one that is refused.
        nonce: u64,
        /// The other one has ended, or is idle: say it again with an order above that one's.
        is_over: bool,
        /// The other one.
        standing: Box<Standing>,
    },
    /// How far a transfer is; from its owner.
    Hint {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
        /// Who owns it.
        tenure: Tenure,
        /// Blocks that the client has.
        acked: u64,
        /// Blocks that every holder is known to know.
        floor: u64,
        /// Fastest pace that was seen, in blocks a second.
        pace: u32,
        /// The options are acknowledged.
        is_greeted: bool,
        /// How long the client has not been heard of.
        silence: Duration,
        /// The latest time of the receiver that the owner has seen; 0: none.
        echo: u64,
    },
    /// It is known.
    Known {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
        /// How far.
        acked: u64,
        /// As in [`Message::Kept`].
        stamp: u64,
    },
    /// The client came here, and was answered; to the owner.
    Notice {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
        /// Blocks that the client has.
        acked: u64,
        /// The options are acknowledged.
        is_greeted: bool,
        /// How long the client has not been heard of.
        silence: Duration,
    },
    /// Who knows this flow?
    Ask {
        /// Which.
        flow: Flow,
        /// The asker's time, in milliseconds.
        stamp: u64,
    },
    /// The sender does not.
    Unknown {
        /// Which.
        flow: Flow,
    },
    /// The transfer has ended.
    End {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
        /// Its order.
        order: u32,
    },
    /// That is known.
    Ended {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
    },
    /// Part of a client's packet for a write that the receiver owns.
    Forward {
        /// Whose.
        flow: Flow,
        /// Tells packets apart.
        id: u32,
        /// Which part, from 0.
        part: u8,
        /// How many there are.
        parts: u8,
        /// It.
        bytes: Vec<u8>,
    },
}

/// Why a message was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Another version.
    #[error("version {0} is not understood")]
    Version(u8),
    /// It ends too early.
    #[error("the message is cut short")]
    Short,
    /// A value that cannot be.
    #[error("{0} is out of range")]
    Value(&'static str),
}

impl Message {
    const fn tag(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Put(_) => 2,
            Self::Kept { .. } => 3,
            Self::Refused { .. } => 4,
            Self::Hint { .. } => 5,
            Self::Known { .. } => 6,
            Self::Notice { .. } => 7,
            Self::Ask { .. } => 8,
            Self::Unknown { .. } => 9,
            Self::End { .. } => 10,
            Self::Ended { .. } => 11,
            Self::Forward { .. } => 12,
        }
    }

    /// Its bytes, without the version.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::begin(self.tag());
        match self {
            Self::Hello {
                domain,
                mtu,
                is_draining,
            } => {
                w.u64(*domain);
                w.u32(*mtu);
                w.flag(*is_draining);
            }
            Self::Known {
                flow,
                nonce,
                acked,
                stamp,
            } => {
                w.flow(flow);
                w.u64(*nonce);
                w.u64(*acked);
                w.u64(*stamp);
            }
            Self::Notice {
                flow,
                nonce,
                acked,
                is_greeted,
                silence,
            } => {
                w.flow(flow);
                w.u64(*nonce);
                w.u64(*acked);
                w.flag(*is_greeted);
                w.millis(*silence);
            }
            Self::Ask { flow, stamp } => {
                w.flow(flow);
                w.u64(*stamp);
            }
            Self::Unknown { flow } => w.flow(flow),
            Self::End { flow, nonce, order } => {
                w.flow(flow);
                w.u64(*nonce);
                w.u32(*order);
            }
            Self::Ended { flow, nonce } => {
                w.flow(flow);
                w.u64(*nonce);
            }
            Self::Forward {
                flow,
                id,
                part,
                parts,
                bytes,
            } => {
                w.flow(flow);
                w.u32(*id);
                w.u8(*part);
                w.u8(*parts);
                w.rest(bytes);
            }
            Self::Put(standing) => put_standing(&mut w, standing),
            Self::Refused {
                nonce,
                is_over,
                standing,
            } => {
                w.u64(*nonce);
                w.flag(*is_over);
                put_standing(&mut w, standing);
            }
            Self::Kept { .. } => self.encode_kept(&mut w),
            Self::Hint { .. } => self.encode_hint(&mut w),
        }
        w.end()
    }

    fn encode_kept(&self, w: &mut Writer) {
        let Self::Kept {
            flow,
            nonce,
            has_content,
            older,
            wait,
            stamp,
        } = self
        else {
            return;
        };
        w.flow(flow);
        w.u64(*nonce);
        w.flag(*has_content);
        w.flag(older.is_some());
        w.u64(older.map_or(0, |owner| owner.0));
        w.millis(*wait);
        w.u64(*stamp);
    }

    fn encode_hint(&self, w: &mut Writer) {
        let Self::Hint {
            flow,
            nonce,
            tenure,
            acked,
            floor,
            pace,
            is_greeted,
            silence,
            echo,
        } = self
        else {
            return;
        };
        w.flow(flow);
        w.u64(*nonce);
        put_tenure(w, *tenure);
        w.u64(*acked);
        w.u64(*floor);
        w.u32(*pace);
        w.flag(*is_greeted);
        w.millis(*silence);
        w.u64(*echo);
    }

    fn decode(tag: u8, body: &[u8]) -> Result<Option<Self>, WireError> {
        let mut r = Reader::new(body);
        Ok(Some(match tag {
            1 => Self::Hello {
                domain: r.u64()?,
                mtu: r.u32()?,
                is_draining: r.flag()?,
            },
            2 => Self::Put(Box::new(standing(&mut r)?)),
            3 => Self::Kept {
                flow: r.flow()?,
                nonce: r.u64()?,
                has_content: r.flag()?,
                older: {
                    let is_there = r.flag()?;
                    Some(NodeId(r.u64()?)).filter(|_| is_there)
                },
                wait: r.millis()?,
                stamp: r.u64()?,
            },
            4 => Self::Refused {
                nonce: r.u64()?,
                is_over: r.flag()?,
                standing: Box::new(standing(&mut r)?),
            },
            5 => Self::Hint {
                flow: r.flow()?,
                nonce: r.u64()?,
                tenure: tenure(&mut r)?,
                acked: r.u64()?,
                floor: r.u64()?,
                pace: r.u32()?,
                is_greeted: r.flag()?,
                silence: r.millis()?,
                echo: r.u64()?,
            },
            6 => Self::Known {
                flow: r.flow()?,
                nonce: r.u64()?,
                acked: r.u64()?,
                stamp: r.u64()?,
            },
            7 => Self::Notice {
                flow: r.flow()?,
                nonce: r.u64()?,
                acked: r.u64()?,
                is_greeted: r.flag()?,
                silence: r.millis()?,
            },
            8 => Self::Ask {
                flow: r.flow()?,
                stamp: r.u64()?,
            },
            9 => Self::Unknown { flow: r.flow()? },
            10 => Self::End {
                flow: r.flow()?,
                nonce: r.u64()?,
                order: r.u32()?,
            },
            11 => Self::Ended {
                flow: r.flow()?,
                nonce: r.u64()?,
            },
            12 => Self::Forward {
                flow: r.flow()?,
                id: r.u32()?,
                part: r.u8()?,
                parts: r.u8()?,
                bytes: r.rest().to_vec(),
            },
            _ => return Ok(None),
        }))
    }
}

/// The messages of a datagram, as far as they are understood.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message, WireError>> + '_ {
    let (version, mut rest) = match datagram.split_first() {
        Some((version, rest)) => (*version, rest),
        None => (VERSION, datagram),
    };
    let mut is_refused = version != VERSION;
    std::iter::from_fn(move || {
        if std::mem::take(&mut is_refused) {
            rest = &[];
            return Some(Err(WireError::Version(version)));
        }
        while !rest.is_empty() {
            let mut r = Reader::new(rest);
            let framed = r.u8().and_then(|tag| Ok((tag, r.piece()?)));
            let Ok((tag, body)) = framed else {
                rest = &[];
                return Some(Err(WireError::Short));
            };
            rest = r.rest();
            match Message::decode(tag, body) {
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    })
}
