//! What two versions of a content have in common: content-defined chunks, and a plan of what to
//! take from the older one and what to fetch.
//!
//! Cuts depend on the bytes near them alone, so that an insertion moves the chunks behind it
//! without changing them. Nothing here is trusted: who has applied a plan compares the BLAKE3
//! hash of the whole, so that a wrong recipe costs time and never gives wrong bytes.

use std::io::{self, Read};

use fastcdc::v2020::{FastCDC, Normalization};

/// No cut is nearer to the one before: 8 KiB.
pub const MIN_CHUNK: u32 = 8 * 1024;
/// About the mean: 32 KiB. The recipe of 512 MiB has some 290 KiB then, and an edit in one place
/// costs a chunk or two more than itself. Smaller chunks would cost more in the recipe than they
/// save, unless edits are many and far apart.
pub const AVERAGE_CHUNK: u32 = 32 * 1024;
/// A chunk is cut here at the latest: 64 KiB.
pub const MAX_CHUNK: u32 = 64 * 1024;
/// Larger contents have no recipe and are fetched whole: 16 GiB. It bounds the encoded recipe
/// to 36 MiB.
pub const MAX_CONTENT: u64 = 16 << 30;

/// Bytes of a chunk in an encoded recipe.
const RECORD: usize = HASH + 2;
/// Bytes of a chunk's hash: enough that no two chunks share it by accident.
const HASH: usize = 16;
/// What is read at a time.
const BUFFER: usize = 16 * MAX_CHUNK as usize;

/// Why the recipe of a content could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The content could not be read.
    #[error("the content cannot be read in order to chunk it: {0}")]
    Read(#[from] io::Error),
    /// It is larger than [`MAX_CONTENT`]: fetch it whole.
    #[error("the content is larger than {MAX_CONTENT} bytes, for which there is no recipe")]
    TooLarge,
}

/// Why an encoded recipe was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The content is larger than [`MAX_CONTENT`].
    #[error("a recipe of {size} bytes of content is refused: it ends at {MAX_CONTENT}")]
    TooLarge {
        /// The size it is for.
        size: u64,
    },
    /// It is not a list of whole chunks.
    #[error("a recipe of {len} bytes ends within a chunk")]
    Cut {
        /// Its length in bytes.
        len: usize,
    },
    /// There are more chunks than the content can have.
    #[error("a recipe has {chunks} chunks, and {size} bytes of content have no more than {most}")]
    TooMany {
        /// How many it has.
        chunks: u64,
        /// The size it is for.
        size: u64,
        /// How many there may be.
        most: u64,
    },
    /// The chunks make another size.
    #[error("the chunks of a recipe make {sum} bytes, and the content has {size}")]
    OtherSize {
        /// The sum of its chunks.
        sum: u64,
        /// The size it is for.
        size: u64,
    },
}

/// The chunks of one content, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    chunks: Vec<Chunk>,
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Chunk {
    hash: [u8; HASH],
    len: u32,
}

impl Recipe {
    /// Reads a content to its end and cuts it into chunks. Holds 1 MiB of it at a time.
    ///
    /// # Errors
    /// [`ChunkError`] when reading fails or does not end within [`MAX_CONTENT`].
    pub fn of(mut reader: impl Read) -> Result<Self, ChunkError> {
        let mut recipe = Self {
            chunks: Vec::new(),
            size: 0,
        };
        let mut buffer = vec![0; BUFFER];
        let mut kept = 0;
        loop {
            let filled = kept + fill(&mut reader, &mut buffer[kept..])?;
            let ended = filled < BUFFER;
            let used = recipe.cut(&buffer[..filled], ended);
            if recipe.size > MAX_CONTENT {
                return Err(ChunkError::TooLarge);
            }
            if ended {
                return Ok(recipe);
            }
            buffer.copy_within(used..filled, 0);
            kept = filled - used;
        }
    }

    /// Adds the chunks of `bytes`, all of them when the content `ended` here, else as far as
    /// what follows cannot matter. Returns how many bytes they are.
    fn cut(&mut self, bytes: &[u8], ended: bool) -> usize {
        let cutter = FastCDC::with_level(
            bytes,
            MIN_CHUNK,
            AVERAGE_CHUNK,
            MAX_CHUNK,
            Normalization::Level2,
        );
        let mut start = 0;
        while start < bytes.len() {
            let rest = bytes.len() - start;
            if !ended && rest < MAX_CHUNK as usize {
                break;
            }
            let (_, end) = cutter.cut(start, rest);
            self.push(&bytes[start..end]);
            start = end;
        }
        start
    }

    fn push(&mut self, bytes: &[u8]) {
        let mut hash = [0; HASH];
        hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..HASH]);
        // A chunk is at most 64 KiB long.
        let len = bytes.len() as u32;
        self.chunks.push(Chunk { hash, len });
        self.size += u64::from(len);
    }

    /// The size of the content, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many chunks it has.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// No encoded recipe of `size` bytes of content is longer than this, in bytes: what to
    /// refuse before it is read. 0 for contents that have no recipe.
    #[must_use]
    pub fn max_encoded_len(size: u64) -> u64 {
        if size > MAX_CONTENT {
            return 0;
        }
        most_chunks(size) * RECORD as u64
    }

    /// For the wire: 18 bytes a chunk, its hash and its length less one (big-endian).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.chunks.len() * RECORD);
        for chunk in &self.chunks {
            bytes.extend(chunk.hash);
            // The length is 1..=65,536.
            bytes.extend((chunk.len.wrapping_sub(1) as u16).to_be_bytes());
        }
        bytes
    }

    /// From the wire, for a content of `size` bytes. Allocates in proportion to `bytes`.
    ///
    /// # Errors
    /// [`RecipeError`] when it cannot be the recipe of so many bytes.
    pub fn decode(size: u64, bytes: &[u8]) -> Result<Self, RecipeError> {
        if size > MAX_CONTENT {
            return Err(RecipeError::TooLarge { size });
        }
        let (records, rest) = bytes.as_chunks::<RECORD>();
        if !rest.is_empty() {
            return Err(RecipeError::Cut { len: bytes.len() });
        }
        let (chunks, most) = (records.len() as u64, most_chunks(size));
        if chunks > most {
            return Err(RecipeError::TooMany { chunks, size, most });
        }
        let chunks: Vec<_> = records.iter().map(Chunk::decode).collect();
        let sum = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        if sum != size {
            return Err(RecipeError::OtherSize { sum, size });
        }
        Ok(Self { chunks, size })
    }
}

impl Chunk {
    fn decode(record: &[u8; RECORD]) -> Self {
        let mut hash = [0; HASH];
        hash.copy_from_slice(&record[..HASH]);
        let len = u16::from_be_bytes([record[HASH], record[HASH + 1]]);
        Self {
            hash,
            len: u32::from(len) + 1,
        }
    }
}

/// All but the last have at least [`MIN_CHUNK`] bytes.
fn most_chunks(size: u64) -> u64 {
    size / u64::from(MIN_CHUNK) + 1
}

/// Reads until `buffer` is full or the end has come, and returns how much was read.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// One step towards a wanted content. The steps of a plan are in its order and leave nothing
/// out: each begins where the one before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take bytes from the basis.
    CopyFromBasis {
        /// Where they are in the basis.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Fetch bytes of the wanted content.
    Fetch {
        /// Where they are in the wanted content.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// How to make `wanted` from `basis` and as little else as the chunks allow. Neighbouring steps
/// that make one are one.
#[must_use]
pub fn plan(wanted: &Recipe, basis: &Recipe) -> Vec<Step> {
    let index = Index::of(basis);
    let mut steps = Vec::new();
    let mut offset = 0;
    // Where the last copied chunk ended in the basis: what follows it there is tried first, so
    // that chunks which occur often do not break a long copy.
    let mut next = None;
    for chunk in &wanted.chunks {
        let len = u64::from(chunk.len);
        let follows = next.filter(|next| basis.chunks.get(*next) == Some(chunk));
        let found = follows.or_else(|| index.find(chunk));
        add(
            &mut steps,
            match found.and_then(|found| index.offsets.get(found)) {
                Some(offset) => Step::CopyFromBasis {
                    offset: *offset,
                    len,
                },
                None => Step::Fetch { offset, len },
            },
        );
        next = found.map(|found| found + 1);
        offset += len;
    }
    steps
}

/// Adds a step, or makes the last one longer.
fn add(steps: &mut Vec<Step>, step: Step) {
    let merged = match (steps.last_mut(), step) {
        (
            Some(Step::CopyFromBasis { offset, len }),
            Step::CopyFromBasis {
                offset: at,
                len: more,
            },
        )
        | (
            Some(Step::Fetch { offset, len }),
            Step::Fetch {
                offset: at,
                len: more,
            },
        ) if *offset + *len == at => {
            *len += more;
            true
        }
        _ => false,
    };
    if !merged {
        steps.push(step);
    }
}

/// Where the chunks of a recipe are.
struct Index<'a> {
    recipe: &'a Recipe,
    offsets: Vec<u64>,
    /// Chunks by their hash, then in order.
    sorted: Vec<usize>,
}

impl<'a> Index<'a> {
    fn of(recipe: &'a Recipe) -> Self {
        let mut end = 0;
        let offsets = recipe.chunks.iter().map(|chunk| {
            let start = end;
            end += u64::from(chunk.len);
            start
        });
        let offsets = offsets.collect();
        let mut sorted: Vec<_> = (0..recipe.chunks.len()).collect();
        sorted.sort_by_key(|&at| (recipe.chunks.get(at), at));
        Self {
            recipe,
            offsets,
            sorted,
        }
    }

    /// The first chunk that is equal.
    fn find(&self, chunk: &Chunk) -> Option<usize> {
        let before = |at: &usize| self.recipe.chunks.get(*at) < Some(chunk);
        let at = *self.sorted.get(self.sorted.partition_point(before))?;
        (self.recipe.chunks.get(at) == Some(chunk)).then_some(at)
    }
}

#[cfg(test)]
mod tests;
