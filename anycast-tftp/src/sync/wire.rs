//! What nodes say to each other about files. Pure and total.
//!
//! A frame is a length (`u32`, big-endian, at most [`MAX_FRAME`]) and so many bytes: the kind of the
//! message (`u8`) and its fields. A field is a tag (`u8`), a length (`u32`) and a value. Numbers are
//! big-endian. A kind or a tag that is not known is skipped, and none ever changes its meaning.
//!
//! Nothing is allocated for what a length or a count only promises: a field reaches no further than
//! its frame, and lists are as long as their fields.
//!
//! The answer to [`Message::Read`] is no message: for each item in turn a [`ReadHead`], of
//! [`READ_HEAD`] bytes, and then the bytes themselves. So is that to [`Message::Recipe`] and
//! [`Message::Subtrees`]: one head, and what they encode to.

use anycast_core::service::NodeName;

use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{
    Digest, Dot, Entry, Generation, GroupName, Key, MAX_COUNTER, Version, Writer,
};

mod entry;
mod fields;
#[cfg(test)]
mod tests;

pub(in crate::sync) use entry::file_name;
pub use entry::{decode_entry, encode_entry};
pub(in crate::sync) use entry::{encode_generation, entry_size};
pub(in crate::sync) use fields::{Fields, Read};

/// The longest frame, in bytes, without its length. A longer one ends the stream.
pub const MAX_FRAME: usize = 256 << 10;
/// Bytes of entries that a page is filled with: an entry of the largest size still fits after it.
pub const PAGE: usize = 64 << 10;
/// Most items in one [`Message::Read`]; a longer one ends the stream.
pub const MAX_ITEMS: usize = 256;
/// Most notices in one [`Message::Affinity`].
pub const MAX_NOTICES: usize = 1024;
/// The length of a [`ReadHead`].
pub const READ_HEAD: usize = 9;

const FOLLOW: u8 = 1;
const PAGES: u8 = 2;
const HEAD: u8 = 3;
const READ: u8 = 4;
const RECIPE: u8 = 5;
const SUBTREES: u8 = 6;
const AFFINITY: u8 = 7;

/// What is said about files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Asks for all changes since one, as they come.
    Follow(Follow),
    /// Some of them.
    Page(Page),
    /// Where the speaker's copy stands.
    Head(Head),
    /// Asks for parts of contents.
    Read(Vec<ReadItem>),
    /// Asks for the [recipe](crate::sync::chunks::Recipe) of a content.
    Recipe(ContentId),
    /// Asks for the [chaining values](crate::sync::tree::Subtrees) of a content's blocks.
    Subtrees(ContentId),
    /// Which generation clients have begun with.
    Affinity(Vec<Notice>),
}

/// Asks for all changes since one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// Whose numbers [`since`](Self::since) is of: that which the other node said last, or 0.
    pub epoch: u64,
    /// The last change that is known. Of another epoch it means nothing, and all is sent.
    pub since: u64,
}

/// Changed entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Whose numbers: another one at each start of the sender.
    pub epoch: u64,
    /// It follows on all changes up to this one.
    pub after: u64,
    /// And has all after that, up to this one.
    pub upto: u64,
    /// As they are now.
    pub entries: Vec<(Key, Entry)>,
}

/// Where a copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Whose numbers.
    pub epoch: u64,
    /// The last change.
    pub seq: u64,
    /// Of all entries.
    pub digest: Digest,
    /// How many entries there are.
    pub files: u64,
    /// Paths whose content is not there yet.
    pub missing: u64,
}

/// A part of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadItem {
    /// Of which.
    pub content: ContentId,
    /// From this byte.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
}

/// What precedes the bytes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadHead {
    /// Whether they come.
    pub status: ReadStatus,
    /// How many; none unless they come.
    pub length: u64,
}

/// Whether an item can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// The bytes follow; fewer than were asked for where the content ends.
    Here,
    /// That content is not here.
    Absent,
    /// It is, and could not be read; or a status of a later version.
    Failed,
}

/// A client has begun with a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which client.
    pub client: std::net::IpAddr,
    /// Of which group.
    pub group: GroupName,
    /// Which generation.
    pub generation: GenerationId,
    /// For how many milliseconds from now. A duration, since no two nodes share a clock.
    pub remaining: u32,
}

/// The name of a generation: the first half of the hash of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub [u8; 16]);

impl GenerationId {
    /// That of this one.
    #[must_use]
    pub fn of(generation: &Generation) -> Self {
        let hash = blake3::hash(&encode_generation(generation));
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        Self(id)
    }
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
    /// A list is longer than it may be.
    #[error("message {kind} has too many items")]
    Items {
        /// The kind of the message.
        kind: u8,
    },
}

impl Message {
    /// The frame, its length included.
    ///
    /// # Errors
    /// [`WireError::Long`], [`WireError::Items`]: the message is too large.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut fields = Fields(Vec::new());
        match self {
            Self::Follow(follow) => {
                fields.0.push(FOLLOW);
                fields.put(1, &follow.epoch.to_be_bytes());
                fields.put(2, &follow.since.to_be_bytes());
            }
            Self::Page(page) => {
                fields.0.push(PAGES);
                fields.put(1, &page.epoch.to_be_bytes());
                fields.put(2, &page.after.to_be_bytes());
                fields.put(3, &page.upto.to_be_bytes());
                for (key, entry) in &page.entries {
                    fields.put(4, &encode_entry(key, entry));
                }
            }
            Self::Head(head) => {
                fields.0.push(HEAD);
                fields.put(1, &head.epoch.to_be_bytes());
                fields.put(2, &head.seq.to_be_bytes());
                fields.put(3, &head.digest.0.to_be_bytes());
                fields.put(4, &head.files.to_be_bytes());
                fields.put(5, &head.missing.to_be_bytes());
            }
            Self::Read(items) => {
                bounded(READ, items, MAX_ITEMS)?;
                fields.0.push(READ);
                for item in items {
                    let numbers = [item.offset.to_be_bytes(), item.length.to_be_bytes()];
                    fields.put(
                        1,
                        &[&content(&item.content)[..], &numbers.concat()].concat(),
                    );
                }
            }
            Self::Recipe(wanted) => {
                fields.0.push(RECIPE);
                fields.put(1, &content(wanted));
            }
            Self::Subtrees(wanted) => {
                fields.0.push(SUBTREES);
                fields.put(1, &content(wanted));
            }
            Self::Affinity(notices) => {
                bounded(AFFINITY, notices, MAX_NOTICES)?;
                fields.0.push(AFFINITY);
                for notice in notices {
                    fields.put(1, &notice.encode());
                }
            }
        }
        let body = fields.0;
        let length = u32::try_from(body.len()).ok();
        let length = length.filter(|_| body.len() <= MAX_FRAME);
        let length = length.ok_or(WireError::Long(body.len()))?;
        Ok([&length.to_be_bytes()[..], &body].concat())
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
        if !(FOLLOW..=AFFINITY).contains(&kind) {
            return Ok(None);
        }
        let fields = Read::new(kind, rest)?;
        let message = match kind {
            FOLLOW => Self::Follow(Follow {
                epoch: fields.u64(1)?,
                since: fields.u64(2)?,
            }),
            PAGES => Self::Page(Page {
                epoch: fields.u64(1)?,
                after: fields.u64(2)?,
                upto: fields.u64(3)?,
                entries: fields.all(4).map(decode_entry).collect::<Result<_, _>>()?,
            }),
            HEAD => Self::Head(Head {
                epoch: fields.u64(1)?,
                seq: fields.u64(2)?,
                digest: Digest(u128::from_be_bytes(fields.array(3)?)),
                files: fields.u64(4)?,
                missing: fields.u64(5)?,
            }),
            READ => {
                fields.at_most(1, MAX_ITEMS)?;
                let items = fields.all(1).map(ReadItem::decode);
                Self::Read(items.collect::<Result<_, _>>()?)
            }
            RECIPE => Self::Recipe(content_of(&fields.array(1)?)),
            SUBTREES => Self::Subtrees(content_of(&fields.array(1)?)),
            _ => {
                fields.at_most(1, MAX_NOTICES)?;
                let notices = fields.all(1).map(Notice::decode);
                Self::Affinity(notices.collect::<Result<_, _>>()?)
            }
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

fn bounded<T>(kind: u8, items: &[T], most: usize) -> Result<(), WireError> {
    if items.len() > most {
        return Err(WireError::Items { kind });
    }
    Ok(())
}

/// Bytes of a content's name.
const CONTENT: usize = 40;

fn content(content: &ContentId) -> [u8; CONTENT] {
    let mut bytes = [0; CONTENT];
    let (hash, size) = bytes.split_at_mut(32);
    hash.copy_from_slice(&content.hash.0);
    size.copy_from_slice(&content.size.to_be_bytes());
    bytes
}

fn content_of(bytes: &[u8; CONTENT]) -> ContentId {
    let (mut hash, mut size) = ([0; 32], [0; 8]);
    let (head, tail) = bytes.split_at(32);
    hash.copy_from_slice(head);
    size.copy_from_slice(tail);
    ContentId {
        hash: ContentHash(hash),
        size: u64::from_be_bytes(size),
    }
}

impl ReadItem {
    fn decode(value: &[u8]) -> Result<Self, WireError> {
        let malformed = || WireError::Field { kind: READ, tag: 1 };
        let (content, rest) = value.split_first_chunk().ok_or_else(malformed)?;
        let (offset, length) = rest.split_first_chunk().ok_or_else(malformed)?;
        Ok(Self {
            content: content_of(content),
            offset: u64::from_be_bytes(*offset),
            length: u64::from_be_bytes(length.try_into().map_err(|_| malformed())?),
        })
    }
}

impl ReadHead {
    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; READ_HEAD] {
        let status = match self.status {
            ReadStatus::Here => 0,
            ReadStatus::Absent => 1,
            ReadStatus::Failed => 2,
        };
        let mut bytes = [status; READ_HEAD];
        bytes[1..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// From bytes. The length is what the peer says: not to be trusted beyond what was asked for.
    #[must_use]
    pub fn decode(bytes: [u8; READ_HEAD]) -> Self {
        let [status, length @ ..] = bytes;
        let status = match status {
            0 => ReadStatus::Here,
            1 => ReadStatus::Absent,
            _ => ReadStatus::Failed,
        };
        let length = u64::from_be_bytes(length);
        Self { status, length }
    }
}

impl Notice {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Fields(Vec::new());
        match self.client {
            std::net::IpAddr::V4(client) => fields.put(1, &client.octets()),
            std::net::IpAddr::V6(client) => fields.put(1, &client.octets()),
        }
        fields.put(2, self.group.as_str().as_bytes());
        fields.put(3, &self.generation.0);
        fields.put(4, &self.remaining.to_be_bytes());
        fields.0
    }

    fn decode(value: &[u8]) -> Result<Self, WireError> {
        let fields = Read::new(AFFINITY, value)?;
        let client = fields
            .array::<4>(1)
            .map(std::net::IpAddr::from)
            .or_else(|_| fields.array::<16>(1).map(std::net::IpAddr::from))?;
        Ok(Self {
            client,
            group: fields.text(2)?,
            generation: GenerationId(fields.array(3)?),
            remaining: u32::from_be_bytes(fields.array(4)?),
        })
    }
}
