//! Netascii (RFC 764): how text travels in mode `netascii`.
//!
//! On the wire a line ends in CR LF and a bare carriage return is CR NUL. Here a line ends
//! in LF. So a sender turns LF into CR LF and CR into CR NUL, and a receiver turns both
//! back; every file survives the way there and back. A CR that is followed by anything
//! else, which no sender of ours writes, is kept as it is.
//!
//! Both [`Encoder`] and [`Decoder`] work on pieces of any size. [`BlockIndex`] finds the
//! content of block *n* again without translating the file from its start.

use std::io;

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const NUL: u8 = 0;

/// Translates local text to netascii, in pieces.
///
/// The only state is one byte that did not fit the output: the second of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encoder {
    pending: Option<u8>,
}

/// How far one call of [`Encoder::encode`] or [`Decoder::decode`] came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes of the output that were written.
    pub produced: usize,
}

impl Encoder {
    /// Translates as much of `input` as fits `output`.
    ///
    /// At the end of the text call it with an empty input until [`is_empty`](Self::is_empty).
    pub fn encode(&mut self, input: &[u8], output: &mut [u8]) -> Progress {
        let mut done = Progress::default();
        while let Some(slot) = output.get_mut(done.produced) {
            if let Some(byte) = self.pending.take() {
                *slot = byte;
            } else if let Some(byte) = input.get(done.consumed) {
                (*slot, self.pending) = match *byte {
                    LF => (CR, Some(LF)),
                    CR => (CR, Some(NUL)),
                    byte => (byte, None),
                };
                done.consumed += 1;
            } else {
                break;
            }
            done.produced += 1;
        }
        done
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pending.is_none()
    }
}

/// How many bytes a piece of local text takes on the wire. Pieces add up.
#[must_use]
pub fn encoded_len(text: &[u8]) -> u64 {
    let doubled = text.iter().filter(|byte| matches!(**byte, CR | LF));
    text.len() as u64 + doubled.count() as u64
}

/// Translates netascii to local text, in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decoder {
    after_cr: bool,
}

impl Decoder {
    /// Translates a piece and appends the text to `output`: at most one byte more than
    /// `input` has.
    pub fn decode(&mut self, input: &[u8], output: &mut Vec<u8>) {
        output.reserve(input.len() + usize::from(self.after_cr));
        for byte in input {
            match (self.after_cr, *byte) {
                (true, LF) => output.push(LF),
                (true, NUL) => output.push(CR),
                (true, CR) => {
                    output.push(CR);
                    continue;
                }
                (true, other) => output.extend([CR, other]),
                (false, CR) => {
                    self.after_cr = true;
                    continue;
                }
                (false, other) => output.push(other),
            }
            self.after_cr = false;
        }
    }

    /// Ends the text: a last CR that nothing followed is kept.
    pub fn finish(&mut self, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_cr) {
            output.push(CR);
        }
    }
}

/// Most marks that a [`BlockIndex`] keeps. When full, every second one is dropped and the
/// distance between them doubles, so memory is bounded whatever the size of the file.
pub const MAX_MARKS: usize = 1024;
/// Blocks between two marks at first.
const FIRST_STRIDE: u64 = 16;
/// Bytes of the content that are read at once.
const CHUNK: usize = 8192;

/// Where the translation stands between two blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    /// Bytes of the content that are translated.
    offset: u64,
    /// Its state there: the pending byte.
    encoder: Encoder,
}

/// Produces any block of the translation of an immutable content.
///
/// Block *n* (from 1) is a pure function of content, block size and *n*; the index only
/// makes it cheap. It keeps the position before some of the blocks already produced, and
/// starts from the nearest one before *n*: the next block costs nothing extra, an earlier one
/// of the window (see [`acknowledged`](Self::acknowledged)) at most the translation of the
/// window, one before that of one stride, one far ahead that of everything between.
#[derive(Debug, Clone)]
pub struct BlockIndex {
    blksize: usize,
    stride: u64,
    /// Position before block 1 + i·stride.
    marks: Vec<Position>,
    /// The block that would come next after the last one produced, and its position.
    cursor: (u64, Position),
    /// The oldest block that may be asked for again.
    oldest: u64,
    /// A block at or before it, the nearest whose position is known, and its position.
    anchor: (u64, Position),
}

impl BlockIndex {
    /// An index for one block size in bytes; zero counts as one.
    #[must_use]
    pub fn new(blksize: u16) -> Self {
        Self {
            blksize: usize::from(blksize.max(1)),
            stride: FIRST_STRIDE,
            marks: vec![Position::default()],
            cursor: (1, Position::default()),
            oldest: 1,
            anchor: (1, Position::default()),
        }
    }

    /// Writes block `block` (from 1) to `output`, of at least the block size, and returns
    /// its length: less than the block size for the last block, 0 for any after it.
    ///
    /// `read_at` reads content at an offset, as `pread` does: 0 is its end, fewer bytes
    /// than asked for are not.
    ///
    /// # Errors
    /// What `read_at` reports; the index stays usable. [`io::ErrorKind::InvalidInput`] for
    /// block 0 or too small an `output`.
    pub fn read_block(
        &mut self,
        block: u64,
        mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
        output: &mut [u8],
    ) -> io::Result<usize> {
        let target = output
            .get_mut(..self.blksize)
            .filter(|_| block > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let (mut next, mut position) = self.nearest(block);
        loop {
            let start = position;
            let len = fill(&mut position, &mut read_at, target).inspect_err(|_| {
                // What came before is not translated again.
                self.cursor = (next, start);
            })?;
            if next == block {
                self.cursor = (next + 1, position);
                self.note(next + 1, position);
                return Ok(len);
            }
            if len < target.len() {
                return Ok(0);
            }
            next += 1;
            self.note(next, position);
        }
    }

    /// How many bytes have to be translated before this block is.
    #[must_use]
    pub fn distance(&self, block: u64) -> u64 {
        let (nearest, _) = self.nearest(block.max(1));
        (block.saturating_sub(nearest)).saturating_mul(self.blksize as u64)
    }

    /// Translates up to this block, or to the end, so that it costs nothing extra afterwards.
    /// `read_at` is as that of [`read_block`](Self::read_block).
    ///
    /// # Errors
    /// What `read_at` reports; the index stays usable.
    pub fn advance(
        &mut self,
        block: u64,
        mut read_at: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut target = vec![0; self.blksize];
        let (mut next, mut position) = self.nearest(block.max(1));
        while next < block && fill(&mut position, &mut read_at, &mut target)? == target.len() {
            next += 1;
            self.note(next, position);
            self.cursor = (next, position);
        }
        Ok(())
    }

    /// The receiver has every block up to this one: what is asked for again comes after it.
    pub fn acknowledged(&mut self, block: u64) {
        self.oldest = block.saturating_add(1);
        if self.cursor.0 == self.oldest {
            self.anchor = self.cursor;
        }
    }

    /// The nearest known position at or before a block.
    fn nearest(&self, block: u64) -> (u64, Position) {
        if self.cursor.0 == block {
            return self.cursor;
        }
        let wanted = usize::try_from((block - 1) / self.stride).unwrap_or(usize::MAX);
        let index = wanted.min(self.marks.len() - 1);
        let marked = (1 + index as u64 * self.stride, self.marks[index]);
        [self.cursor, self.anchor]
            .into_iter()
            .filter(|known| known.0 <= block)
            .fold(
                marked,
                |best, known| if known.0 > best.0 { known } else { best },
            )
    }

    /// Notes the position before a block where it will be of use.
    fn note(&mut self, block: u64, position: Position) {
        if block == self.oldest {
            self.anchor = (block, position);
        }
        self.mark(block, position);
    }

    /// Notes the position before a block if it is the next one to be marked.
    fn mark(&mut self, block: u64, position: Position) {
        if block != 1 + self.marks.len() as u64 * self.stride {
            return;
        }
        if self.marks.len() == MAX_MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
        // After thinning an even number of marks the next one is still due here.
        self.marks.push(position);
    }
}

/// Fills `target` from a position, which moves on; less than full only at the end.
fn fill(
    position: &mut Position,
    read_at: &mut impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
    target: &mut [u8],
) -> io::Result<usize> {
    let mut chunk = [0; CHUNK];
    let mut filled = 0;
    // A byte that was pending from the block before comes first.
    filled += position.encoder.encode(&[], &mut target[filled..]).produced;
    while filled < target.len() {
        let wanted = (target.len() - filled).min(CHUNK);
        let len = read_at(position.offset, &mut chunk[..wanted])?.min(wanted);
        if len == 0 {
            break;
        }
        let done = position
            .encoder
            .encode(&chunk[..len], &mut target[filled..]);
        position.offset += done.consumed as u64;
        filled += done.produced;
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
