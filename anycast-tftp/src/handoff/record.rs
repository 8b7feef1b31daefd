//! What a transfer is: everything that the answer to an ACK depends on, and who answers.

use anycast_core::NodeName;

use crate::proto::Flow;
use crate::proto::packet::Mode;
use crate::proto::transfer::Rollover;
use crate::store::{ContentId, FileName};

/// A node, by the hash of its name: alike at every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// That of a name.
    #[must_use]
    pub fn of(name: &NodeName) -> Self {
        Self(super::fleet::hash(name.as_str().as_bytes()))
    }
}

/// An immutable record of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose transfer it is.
    pub flow: Flow,
    /// Tells it from any other of this flow.
    pub nonce: u64,
    /// Above that of every older transfer of this flow.
    pub order: u32,
    /// Fingerprint of the request.
    pub request: u128,
    /// The file that was asked for; its content is [`content`](Self::content), whatever the name
    /// means by now.
    pub name: FileName,
    /// What is read; None: the client writes.
    pub content: Option<ContentId>,
    /// Octet or netascii.
    pub mode: Mode,
    /// The OACK as it was sent, or nothing.
    pub oack: Box<[u8]>,
    /// Block size, in bytes.
    pub blksize: u16,
    /// Window, in blocks.
    pub windowsize: u16,
    /// The `timeout` that was negotiated, in seconds.
    pub timeout: Option<u8>,
    /// What follows block 65,535.
    pub rollover: Rollover,
}

impl Record {
    /// The last block, where it is known without translating the content.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        let content = self.content.filter(|_| self.mode == Mode::Octet)?;
        Some(content.size / u64::from(self.blksize.max(1)) + 1)
    }

    /// Whether block numbers mean more than one block: certain for octet, possible for netascii,
    /// which may double every byte.
    #[must_use]
    pub fn wraps(&self) -> bool {
        let content = self.content.map_or(0, |content| content.size);
        let most = match self.mode {
            Mode::Octet => content,
            Mode::Netascii => content.saturating_mul(2),
        };
        most / u64::from(self.blksize.max(1)) + 1 > u64::from(u16::MAX)
    }

    /// Whether a client that began with either may go on with the other.
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        self.content == other.content
            && self.content.is_some()
            && self.mode == other.mode
            && self.oack == other.oack
            && self.blksize == other.blksize
            && self.windowsize == other.windowsize
            && self.rollover == other.rollover
    }
}

/// Who owns a transfer, and since which change of owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure {
    /// Changes of owners before.
    pub epoch: u32,
    /// The owner.
    pub owner: NodeId,
}
