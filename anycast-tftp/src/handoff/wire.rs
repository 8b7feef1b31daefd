//! What nodes tell each other of transfers. Total: whatever comes in, nothing panics, and nothing
//! is allocated beyond the message.
//!
//! A datagram is its version and any number of messages, each a tag, its length and its body. A tag
//! that is not known is skipped, and a body may be longer than is read. What a tag means never
//! changes; what is in its body may, with the version.
//!
//! # Versions
//!
//! Nodes of neighbouring versions run side by side while a fleet is upgraded, or taken back. A node
//! says in its [`Message::Hello`] which version it speaks at most. Each datagram goes out in the
//! highest one that both speak ([`common`]), and in the oldest one as long as the peer has not said;
//! so does Hello always, since a peer may come back as an older one. What comes is taken in any
//! version up to one's own.
//!
//! | version | since | what is new |
//! |---|---|---|
//! | 1 | 0.1 | |
//! | 2 | 0.2 | Hello says the version, and how long the node has run. Ask says which record the sender has, and [`Message::Stands`] answers it without the record: half the bytes, for each lease. End has no order |

use std::time::Duration;

use self::fields::{Reader, Writer};
pub use self::standing::{Hint, Progress, Standing, View};
use self::standing::{progress, put_progress, put_standing, put_view, standing, view};
use super::record::NodeId;
use crate::proto::Flow;

mod fields;
mod standing;
#[cfg(test)]
mod tests;

/// The version that this node speaks at most.
pub const VERSION: u8 = if cfg!(anycast_previous_wire) { 1 } else { 2 };
/// The oldest version that it still speaks, and the one of every [`Message::Hello`].
pub const LEAST_VERSION: u8 = 1;
/// The first version in which a node says what it speaks.
const SAYS_VERSION: u8 = 2;

/// The version to speak with a peer that speaks this one at most, as far as it has said.
#[must_use]
pub fn common(own: u8, peer: Option<u8>) -> u8 {
    peer.map_or(LEAST_VERSION, |peer| peer.min(own))
        .max(LEAST_VERSION)
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
        /// The version that it speaks at most.
        speaks: u8,
        /// How long it has known all that it was told, in milliseconds; version 1 does not say it.
        age: Option<u64>,
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
    /// How far a transfer is.
    Hint(Hint),
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
        /// The record that it has. Version 1 does not say it.
        has: Option<u64>,
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
    /// As [`Message::Put`], to one that has the record. Not in version 1.
    Stands {
        /// Whose.
        flow: Flow,
        /// Which.
        nonce: u64,
        /// How it stands.
        view: View,
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
            Self::Hint(_) => 5,
            Self::Known { .. } => 6,
            Self::Notice { .. } => 7,
            Self::Ask { .. } => 8,
            Self::Unknown { .. } => 9,
            Self::End { .. } => 10,
            Self::Ended { .. } => 11,
            Self::Forward { .. } => 12,
            Self::Stands { .. } => 13,
        }
    }

    /// Its bytes in a datagram of this version.
    #[must_use]
    pub fn encode(&self, version: u8) -> Vec<u8> {
        let mut w = Writer::begin(self.tag());
        match self {
            Self::Hello {
                domain,
                mtu,
                is_draining,
                speaks,
                age,
            } => {
                w.u64(*domain);
                w.u32(*mtu);
                w.flag(*is_draining);
                // Behind what version 1 reads.
                if *speaks >= SAYS_VERSION {
                    w.u8(*speaks);
                    if let Some(age) = age {
                        w.u64(*age);
                    }
                }
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
            Self::Notice { .. } => self.encode_notice(&mut w),
            Self::Ask { flow, stamp, has } => {
                w.flow(flow);
                w.u64(*stamp);
                if version >= 2 {
                    w.flag(has.is_some());
                    w.u64(has.unwrap_or(0));
                }
            }
            Self::Unknown { flow } => w.flow(flow),
            Self::End { flow, nonce } => {
                w.flow(flow);
                w.u64(*nonce);
                if version < 2 {
                    // The order, which nobody reads.
                    w.u32(0);
                }
            }
            Self::Ended { flow, nonce } => {
                w.flow(flow);
                w.u64(*nonce);
            }
            Self::Forward { .. } => self.encode_forward(&mut w),
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
            Self::Hint(hint) => {
                w.flow(&hint.flow);
                w.u64(hint.nonce);
                put_progress(&mut w, &hint.progress);
                w.u64(hint.echo);
            }
            Self::Stands { flow, nonce, view } => {
                w.flow(flow);
                w.u64(*nonce);
                put_view(&mut w, view);
            }
        }
        w.end()
    }

    fn encode_notice(&self, w: &mut Writer) {
        let Self::Notice {
            flow,
            nonce,
            acked,
            is_greeted,
            silence,
        } = self
        else {
            return;
        };
        w.flow(flow);
        w.u64(*nonce);
        w.u64(*acked);
        w.flag(*is_greeted);
        w.millis(*silence);
    }

    fn encode_forward(&self, w: &mut Writer) {
        let Self::Forward {
            flow,
            id,
            part,
            parts,
            bytes,
        } = self
        else {
            return;
        };
        w.flow(flow);
        w.u32(*id);
        w.u8(*part);
        w.u8(*parts);
        w.rest(bytes);
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

    fn decode_hello(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (domain, mtu, is_draining) = (r.u64()?, r.u32()?, r.flag()?);
        let speaks = if r.rest().is_empty() {
            LEAST_VERSION
        } else {
            r.u8()?.max(LEAST_VERSION)
        };
        // Nodes that were built before it was said stop here.
        let says_age = speaks >= SAYS_VERSION && !r.rest().is_empty();
        Ok(Self::Hello {
            domain,
            mtu,
            is_draining,
            speaks,
            age: if says_age { Some(r.u64()?) } else { None },
        })
    }

    fn decode(version: u8, tag: u8, body: &[u8]) -> Result<Option<Self>, WireError> {
        let mut r = Reader::new(body);
        Ok(Some(match tag {
            1 => Self::decode_hello(&mut r)?,
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
            5 => Self::Hint(Hint {
                flow: r.flow()?,
                nonce: r.u64()?,
                progress: progress(&mut r)?,
                echo: r.u64()?,
            }),
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
                has: if version >= 2 {
                    let is_there = r.flag()?;
                    Some(r.u64()?).filter(|_| is_there)
                } else {
                    None
                },
            },
            9 => Self::Unknown { flow: r.flow()? },
            10 => Self::End {
                flow: r.flow()?,
                nonce: r.u64()?,
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
            13 if version >= 2 => Self::Stands {
                flow: r.flow()?,
                nonce: r.u64()?,
                view: view(&mut r)?,
            },
            _ => return Ok(None),
        }))
    }
}

/// The messages of a datagram, as far as they are understood by who speaks this version at most.
pub fn messages(
    datagram: &[u8],
    newest: u8,
) -> impl Iterator<Item = Result<Message, WireError>> + '_ {
    let (version, mut rest) = match datagram.split_first() {
        Some((version, rest)) => (*version, rest),
        None => (newest, datagram),
    };
    let mut is_refused = !(LEAST_VERSION..=newest).contains(&version);
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
            match Message::decode(version, tag, body) {
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    })
}
