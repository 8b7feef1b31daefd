//! What nodes say to each other on the control stream. Pure and total.
//!
//! A frame is a length (`u32`, big-endian, at most [`MAX_FRAME`]) and so many bytes: the kind of
//! the message (`u8`) and its fields. A field is a tag (`u8`), a length (`u16`) and a value. Numbers
//! are big-endian.
//!
//! Newer and older nodes understand each other: a kind or a tag that is not known is skipped, a
//! field that may be absent has a default, and none ever changes its meaning. Where that is not
//! enough the version changes; [`Hello`] says which ones a node speaks.

use crate::service::{NodeName, ServiceName};

/// The version that this node prefers.
pub const VERSION: u16 = 1;
/// The oldest version that it still speaks.
pub const LEAST_VERSION: u16 = 1;
/// The longest frame, in bytes, without its length. A longer one ends the connection.
pub const MAX_FRAME: usize = 256 << 10;
/// Most services in one [`Status`]; a longer one ends the connection.
pub const MAX_SERVICES: usize = 1024;

const HELLO: u8 = 1;
const STATUS: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;

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
    #[error("a status of more than {MAX_SERVICES} services")]
    Services,
}

impl Message {
    /// The frame, its length included.
    ///
    /// # Errors
    /// [`WireError::Services`]; [`WireError::Long`] cannot happen below that number.
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
                if status.services.len() > MAX_SERVICES {
                    return Err(WireError::Services);
                }
                body.0.push(STATUS);
                body.put(1, &status.sequence.to_be_bytes());
                for service in &status.services {
                    body.put(2, &service.encode());
                }
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
            STATUS => {
                let fields = Read::new(kind, rest)?;
                let mut services = Vec::new();
                for (_, value) in fields.0.iter().filter(|(tag, _)| *tag == 2) {
                    if services.len() == MAX_SERVICES {
                        return Err(WireError::Services);
                    }
                    services.push(ServiceStatus::decode(value)?);
                }
                Self::Status(Status {
                    sequence: u64::from_be_bytes(fields.array(1)?),
                    services,
                })
            }
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
            _ => return Ok(None),
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

const PREFERRED: u8 = 1;
const DRAINING: u8 = 2;

impl ServiceStatus {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields(Vec::new());
        fields.put(1, self.name.as_str().as_bytes());
        let flags = PREFERRED * u8::from(self.preferred) + DRAINING * u8::from(self.draining);
        fields.put(2, &[flags]);
        if let Some(failing) = self.failing_for {
            fields.put(3, &failing.to_be_bytes());
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
            failing_for: fields
                .get(3)
                .map(|_| fields.array(3))
                .transpose()?
                .map(u64::from_be_bytes),
        })
    }
}

struct Fields(Vec<u8>);

impl Fields {
    /// Values are names and numbers, far below 64 KiB; a longer one would be cut.
    fn put(&mut self, tag: u8, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.push(tag);
        self.0.extend(length.to_be_bytes());
        self.0.extend(&value[..usize::from(length)]);
    }
}

/// The fields of one message, or of one of its parts.
struct Read<'a>(Vec<(u8, &'a [u8])>, u8);

impl<'a> Read<'a> {
    fn new(kind: u8, mut rest: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            let (head, after) = after.split_first_chunk().ok_or(WireError::Cut)?;
            let length = usize::from(u16::from_be_bytes(*head));
            let value = after.get(..length).ok_or(WireError::Cut)?;
            fields.push((tag, value));
            rest = &after[length..];
        }
        Ok(Self(fields, kind))
    }

    /// The first field of this tag.
    fn get(&self, tag: u8) -> Option<&'a [u8]> {
        let found = self.0.iter().find(|(found, _)| *found == tag);
        found.map(|(_, value)| *value)
    }

    fn need(&self, tag: u8) -> Result<&'a [u8], WireError> {
        let kind = self.1;
        self.get(tag).ok_or(WireError::Missing { kind, tag })
    }

    fn array<const N: usize>(&self, tag: u8) -> Result<[u8; N], WireError> {
        let kind = self.1;
        let value = self.need(tag)?.try_into();
        value.map_err(|_| WireError::Field { kind, tag })
    }

    fn text<T: std::str::FromStr>(&self, tag: u8) -> Result<T, WireError> {
        let kind = self.1;
        let text = std::str::from_utf8(self.need(tag)?).ok();
        let parsed = text.and_then(|text| text.parse().ok());
        parsed.ok_or(WireError::Field { kind, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name<T>() -> impl Strategy<Value = T>
    where
        T: std::str::FromStr + std::fmt::Debug,
        T::Err: std::fmt::Debug,
    {
        "[a-z][a-z0-9-]{0,20}".prop_map(|text| text.trim_end_matches('-').parse().unwrap())
    }

    fn service() -> impl Strategy<Value = ServiceStatus> {
        (name(), any::<bool>(), any::<bool>(), any::<Option<u64>>()).prop_map(
            |(name, preferred, draining, failing_for)| ServiceStatus {
                name,
                preferred,
                draining,
                failing_for,
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (name(), any::<u16>(), any::<u16>(), any::<u64>()).prop_map(
                |(name, version, least_version, incarnation)| Message::Hello(Hello {
                    name,
                    version,
                    least_version,
                    incarnation,
                })
            ),
            (any::<u64>(), prop::collection::vec(service(), 0..5))
                .prop_map(|(sequence, services)| Message::Status(Status { sequence, services })),
            any::<u32>().prop_map(|id| Message::Ping(Ping { id })),
            (any::<u32>(), any::<i64>(), any::<i64>())
                .prop_map(|(id, received, sent)| Message::Pong(Pong { id, received, sent })),
        ]
    }

    fn body(message: &Message) -> Vec<u8> {
        let frame = message.encode().unwrap();
        let (head, body) = frame.split_first_chunk().unwrap();
        assert_eq!(frame_length(*head), Ok(body.len()));
        body.to_vec()
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_heard(message in message()) {
            prop_assert_eq!(Message::decode(&body(&message)), Ok(Some(message)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn a_cut_message_is_an_error_or_lacks_a_field(message in message(), cut in any::<prop::sample::Index>()) {
            let whole = body(&message);
            let cut = cut.index(whole.len());
            if let Ok(Some(heard)) = Message::decode(&whole[..cut]) {
                // Only services may be fewer.
                prop_assert!(matches!(heard, Message::Status(_)));
            }
        }

        #[test]
        fn fields_of_a_later_version_are_skipped(message in message(), tag in 100u8.., value in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut newer = Fields(body(&message));
            newer.put(tag, &value);
            prop_assert_eq!(Message::decode(&newer.0), Ok(Some(message)));
        }
    }

    #[test]
    fn a_message_of_a_later_version_is_skipped() {
        assert_eq!(Message::decode(&[200, 1, 0, 1, 9]), Ok(None));
        assert_eq!(Message::decode(&[]), Err(WireError::Cut));
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        assert_eq!(frame_length([0, 4, 0, 0]), Ok(MAX_FRAME));
        assert!(frame_length([0, 4, 0, 1]).is_err());
        assert!(frame_length([0xff; 4]).is_err());
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let mut fields = Fields(vec![HELLO]);
        fields.put(1, b"../etc");
        fields.put(2, &[0, 1]);
        fields.put(3, &[0, 1]);
        fields.put(4, &[0; 8]);
        let refused = WireError::Field {
            kind: HELLO,
            tag: 1,
        };
        assert_eq!(Message::decode(&fields.0), Err(refused));
    }
}
