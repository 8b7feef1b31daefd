//! Proves a part of a content by the hash of the whole: chaining values of BLAKE3's tree, one for
//! each block of 64 KiB.
//!
//! BLAKE3 hashes a tree. The chaining values of subtrees of equal size determine the hash of the
//! whole, so a list of them from a stranger is checked once against the hash, and a block against
//! its place in the list from then on, long before the rest of the content has come.

use std::io::{self, Read};
use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use super::content::{ContentHash, ContentId};

/// The size of a block, of which only the last is smaller: 64 KiB.
pub const BLOCK: usize = 64 * 1024;
/// Larger contents have no list and are verified when they are whole: 64 GiB. It bounds the
/// encoded list to 32 MiB.
pub const MAX_CONTENT: u64 = 64 << 30;

/// Why a list of subtrees was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The content is larger than [`MAX_CONTENT`].
    #[error("subtrees of {size} bytes of content are refused: they end at {MAX_CONTENT}")]
    TooLarge {
        /// The size they are for.
        size: u64,
    },
    /// The list has another length than the content asks for.
    #[error("subtrees of {size} bytes of content have {len} bytes and must have {expected}")]
    OtherLength {
        /// The size they are for.
        size: u64,
        /// Their length in bytes.
        len: u64,
        /// What it must be.
        expected: u64,
    },
    /// The list does not hash to the content's hash: who sent it is wrong or lies.
    #[error("the subtrees are not those of the content {hash}")]
    OtherContent {
        /// The hash of the content.
        hash: ContentHash,
    },
}

/// Why a block was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The content has no such block.
    #[error("block {index} is beyond the end of the content {hash}")]
    BeyondEnd {
        /// The content.
        hash: ContentHash,
        /// Which was asked for.
        index: u64,
    },
    /// These are not its bytes: who sent them is wrong or lies.
    #[error("block {index} of the content {hash} is not what was received")]
    OtherBytes {
        /// The content.
        hash: ContentHash,
        /// Which was asked for.
        index: u64,
    },
}

/// The subtrees of one content, proven to be its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtrees {
    id: ContentId,
    /// Empty for a content of one block, whose hash says it all.
    values: Vec<ChainingValue>,
}

impl Subtrees {
    /// Reads a content to its end. Holds two blocks of it at a time.
    ///
    /// # Errors
    /// What reading says; [`io::ErrorKind::FileTooLarge`] beyond [`MAX_CONTENT`].
    pub fn of(mut reader: impl Read) -> io::Result<Self> {
        let (first, mut next) = (read_block(&mut reader)?, read_block(&mut reader)?);
        let mut size = first.len() as u64;
        if next.is_empty() {
            let hash = ContentHash(*blake3::hash(&first).as_bytes());
            let id = ContentId { hash, size };
            return Ok(Self {
                id,
                values: Vec::new(),
            });
        }
        let mut values = vec![chaining_value(0, &first)];
        while !next.is_empty() {
            values.push(chaining_value(size, &next));
            size += next.len() as u64;
            if size > MAX_CONTENT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            next = read_block(&mut reader)?;
        }
        let hash = root(&values);
        let id = ContentId { hash, size };
        Ok(Self { id, values })
    }

    /// The content that they are of.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// How many blocks it has: at least one, which is empty when the content is.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        blocks(self.id.size)
    }

    /// The bytes of the content that block `index` is. None beyond the end.
    #[must_use]
    pub fn range(&self, index: u64) -> Option<Range<u64>> {
        let start = index.checked_mul(BLOCK as u64)?;
        let end = start.saturating_add(BLOCK as u64).min(self.id.size);
        (index < self.blocks()).then_some(start..end)
    }

    /// Whether `bytes` are block `index` of the content, whole.
    ///
    /// # Errors
    /// [`BlockError`] when they are not.
    pub fn verify_block(&self, index: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let hash = self.id.hash;
        let range = self
            .range(index)
            .ok_or(BlockError::BeyondEnd { hash, index })?;
        // The length first: a subtree must not be given more than is its own.
        let right = bytes.len() as u64 == range.end - range.start
            && if self.values.is_empty() {
                blake3::hash(bytes) == hash.0
            } else {
                let value = usize::try_from(index)
                    .ok()
                    .and_then(|at| self.values.get(at));
                value == Some(&chaining_value(range.start, bytes))
            };
        if right {
            Ok(())
        } else {
            Err(BlockError::OtherBytes { hash, index })
        }
    }

    /// The exact length of the encoded list for `size` bytes of content: what to refuse before
    /// it is read. None for contents that have none.
    #[must_use]
    pub fn encoded_len(size: u64) -> Option<u64> {
        let values = match blocks(size) {
            1 => 0,
            more => more,
        };
        (size <= MAX_CONTENT).then_some(values * blake3::OUT_LEN as u64)
    }

    /// For the wire: 32 bytes a block, nothing for a content of one block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.values.concat()
    }

    /// From the wire: the list of a content that is known by its hash, checked against it.
    /// Allocates in proportion to `bytes`.
    ///
    /// # Errors
    /// [`TreeError`] when it is not the list of that content.
    pub fn decode(id: ContentId, bytes: &[u8]) -> Result<Self, TreeError> {
        let ContentId { hash, size } = id;
        let expected = Self::encoded_len(size).ok_or(TreeError::TooLarge { size })?;
        let len = bytes.len() as u64;
        if len != expected {
            return Err(TreeError::OtherLength {
                size,
                len,
                expected,
            });
        }
        let values = bytes.as_chunks().0.to_vec();
        if !values.is_empty() && root(&values) != hash {
            return Err(TreeError::OtherContent { hash });
        }
        Ok(Self { id, values })
    }
}

fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK as u64).max(1)
}

/// The next block, shorter at the end of the content and empty after it.
fn read_block(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    reader.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// Of a block that is not the whole content, at a multiple of [`BLOCK`].
fn chaining_value(offset: u64, block: &[u8]) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(block);
    hasher.finalize_non_root()
}

/// The hash of the content whose blocks, two at least, have these values.
fn root(values: &[ChainingValue]) -> ContentHash {
    let (left, right) = halves(values);
    let hash = merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
    ContentHash(*hash.as_bytes())
}

/// Recurs as deep as the tree is: 20 levels for [`MAX_CONTENT`].
fn subtree(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [value] => *value,
        _ => {
            let (left, right) = halves(values);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The left half is the largest power of two that leaves something to the right.
fn halves(values: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    values.split_at(values.len().div_ceil(2).next_power_of_two())
}

#[cfg(test)]
mod tests;
