//! A durable log of records that it does not understand.
//!
//! [`Log::append`] returns when the disk has the records, all of one call after one wait. A crash
//! while it waits may lose records of that call, from some record on: what is left of them is the *torn
//! tail*, which [`Log::open`] cuts off and tells. Damage anywhere else is refused: records that were
//! promised are missing, and going on without them could bring deleted files back.
//!
//! # Format, version 1
//!
//! A header of 32 bytes: magic and version (16), the end of what [`Log::compact`] wrote (8), the first
//! bytes of BLAKE3 of the two (8). Then frames, all numbers little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic |
//! | 4 | length of the record |
//! | 8 | offset of the first frame of the same append |
//! | 8 | the first bytes of BLAKE3 of: this frame's offset, the two fields above, the record |
//! | length | the record |
//!
//! An append begins after the one before it is on the disk. So a frame that is intact, and whose
//! append began after a damaged place, proves that the damaged place was once intact. And what
//! a compaction wrote was on the disk before it got its name.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The largest record. A larger one is refused, on either side.
pub const MAX_RECORD: usize = 1 << 20;

/// The largest log. What is larger is refused rather than read into memory: it should have been
/// [compacted](Log::compact) long before.
pub const MAX_LOG: u64 = 4 << 30;

const VERSION: &[u8; 16] = b"anycast log 001\n";
const MAGIC: [u8; 4] = [0xa7, b'L', b'o', b'g'];
const FRAME: usize = 24;
const HEAD: usize = 32;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It is damaged where it was once intact.
    #[error(
        "{path} is damaged at byte {offset} and intact after it: the disk lost what it had promised; \
         move the file away and start again, this node then takes all files from the others and \
         none is deleted", path = path.display()
    )]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// It is no log, or one of a later version.
    #[error("{path} is not a log that this version can read; move it away or use the version that wrote it",
        path = path.display())]
    Foreign {
        /// The log.
        path: PathBuf,
    },
    /// Larger than [`MAX_LOG`].
    #[error("{path} is larger than {MAX_LOG} bytes; move it away and start again", path = path.display())]
    TooLarge {
        /// The log.
        path: PathBuf,
    },
    /// A record is larger than [`MAX_RECORD`]. Nothing was written.
    #[error("a record of {size} bytes is too large for {path}", path = path.display())]
    Record {
        /// The log.
        path: PathBuf,
        /// The record's size.
        size: usize,
    },
    /// The disk or a quota is full. Nothing was recorded; it may be tried again.
    #[error("no space left to write {path}", path = path.display())]
    Full {
        /// The log.
        path: PathBuf,
    },
    /// The disk failed. Nothing more can be appended: what it has is only known after
    /// [`Log::open`] or [`Log::compact`].
    #[error("{path} cannot be written: {source}", path = path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Intact records.
    pub records: usize,
    /// Bytes of a torn tail, which were cut off: an append that was never confirmed.
    pub torn: u64,
    /// There was no log.
    pub is_new: bool,
}

/// A log, open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// All before this is on the disk.
    len: u64,
    /// A failure left the file in doubt.
    is_broken: bool,
}

impl Log {
    /// Opens a log or begins one. `replay` gets every record, in order.
    ///
    /// # Errors
    /// [`LogError`]. The file is as it was, but for a torn tail. What `replay` got until then must not
    /// be used: it may be half of the truth.
    pub fn open(path: &Path, replay: &mut dyn FnMut(&[u8])) -> Result<(Self, Recovered), LogError> {
        let failed = |source| io_error(path, source);
        // What a compaction left when it was cut off.
        let _ = std::fs::remove_file(temporary(path));
        let mut options = File::options();
        let file = match options.read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (file, len) = write_whole(path, &mut std::iter::empty())?;
                let recovered = Recovered {
                    is_new: true,
                    ..Recovered::default()
                };
                return Ok((Self::new(path, file, len), recovered));
            }
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.len() > MAX_LOG {
            let path = path.to_owned();
            return Err(LogError::TooLarge { path });
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        if bytes.first_chunk() != Some(VERSION) {
            let path = path.to_owned();
            return Err(LogError::Foreign { path });
        }
        let damaged = |offset| {
            let path = path.to_owned();
            Err(LogError::Damaged { path, offset })
        };
        let Some(compacted) = compacted_end(&bytes) else {
            return damaged(0);
        };
        let mut recovered = Recovered::default();
        let mut offset = HEAD;
        while let Some(frame) = Frame::read(&bytes, offset) {
            replay(frame.record);
            recovered.records += 1;
            offset = frame.end;
        }
        let len = offset as u64;
        if len < compacted || is_proven(&bytes, offset) {
            return damaged(len);
        }
        if offset < bytes.len() {
            recovered.torn = bytes.len() as u64 - len;
            file.set_len(len).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        Ok((Self::new(path, file, len), recovered))
    }

    fn new(path: &Path, file: File, len: u64) -> Self {
        Self {
            path: path.to_owned(),
            file,
            len,
            is_broken: false,
        }
    }

    /// Its size in bytes: what a restart has to read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Whether only [`compact`](Self::compact), or opening it again, can make it usable.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Appends records and waits until the disk has them, once for all.
    ///
    /// # Errors
    /// [`LogError`]: none of the records counts then. After [`LogError::Io`] a restart may find some
    /// of them all the same.
    pub fn append<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Result<(), LogError> {
        if self.is_broken {
            let source = io::Error::other("it failed before; it has to be opened again");
            return Err(io_error(&self.path, source));
        }
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for record in records {
            put_frame(&self.path, &mut bytes, self.len, self.len, record.as_ref())?;
        }
        let written = self.file.write_all_at(&bytes, self.len);
        if let Err(error) = written {
            return Err(self.undo(error));
        }
        // After a failed sync nobody knows what the disk has, and asking again says "all".
        if let Err(error) = self.file.sync_data() {
            self.is_broken = true;
            return Err(io_error(&self.path, error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// What could be written of a failed append goes, so that the next one can follow.
    fn undo(&mut self, error: io::Error) -> LogError {
        let undone = self
            .file
            .set_len(self.len)
            .and_then(|()| self.file.sync_all());
        self.is_broken = undone.is_err();
        let is_full = super::disk::is_full(super::disk::errno(&error));
        if is_full && !self.is_broken {
            let path = self.path.clone();
            return LogError::Full { path };
        }
        io_error(&self.path, error)
    }

    /// Puts these records in the place of all that there are. A crash leaves the old ones or the new.
    ///
    /// # Errors
    /// [`LogError`]: the old ones are there, and the log is as usable as it was, unless it
    /// [is broken](Self::is_broken) since.
    pub fn compact(&mut self, records: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), LogError> {
        match write_whole(&self.path, records) {
            Ok((file, len)) => {
                *self = Self::new(&self.path, file, len);
                Ok(())
            }
            Err(error) => {
                let _ = std::fs::remove_file(temporary(&self.path));
                // The name may lead to the new file already, while this one is written to.
                self.is_broken |= !is_same_file(&self.path, &self.file);
                Err(error)
            }
        }
    }
}

fn is_same_file(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn io_error(path: &Path, source: io::Error) -> LogError {
    let path = path.to_owned();
    if super::disk::is_full(super::disk::errno(&source)) {
        return LogError::Full { path };
    }
    LogError::Io { path, source }
}

/// Writes a log beside the old one and renames it into place.
fn write_whole(
    path: &Path,
    records: &mut dyn Iterator<Item = Vec<u8>>,
) -> Result<(File, u64), LogError> {
    let failed = |source| io_error(path, source);
    let beside = temporary(path);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = options.open(&beside).map_err(failed)?;
    let mut bytes = vec![0; HEAD];
    let mut written = 0;
    for record in records {
        put_frame(path, &mut bytes, written, HEAD as u64, &record)?;
        if bytes.len() >= MAX_RECORD {
            file.write_all(&bytes).map_err(failed)?;
            written += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_all(&bytes).map_err(failed)?;
    written += bytes.len() as u64;
    file.write_all_at(&head(written), 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    parent.sync_all().map_err(failed)?;
    Ok((file, written))
}

fn head(compacted: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (fields, check) = head.split_at_mut(HEAD - 8);
    let (version, end) = fields.split_at_mut(VERSION.len());
    version.copy_from_slice(VERSION);
    end.copy_from_slice(&compacted.to_le_bytes());
    let hash = blake3::hash(fields);
    check.copy_from_slice(hash.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
    head
}

/// The end of what a compaction wrote; None where the header is damaged.
fn compacted_end(bytes: &[u8]) -> Option<u64> {
    let found: &[u8; HEAD] = bytes.first_chunk()?;
    let end = found.get(VERSION.len()..)?.first_chunk()?;
    let end = u64::from_le_bytes(*end);
    (head(end) == *found).then_some(end)
}

/// Adds a frame to `bytes`, which will be written at `base`.
fn put_frame(
    path: &Path,
    bytes: &mut Vec<u8>,
    base: u64,
    append: u64,
    record: &[u8],
) -> Result<(), LogError> {
    let Some(len) = u32::try_from(record.len())
        .ok()
        .filter(|_| record.len() <= MAX_RECORD)
    else {
        let path = path.to_owned();
        let size = record.len();
        return Err(LogError::Record { path, size });
    };
    let offset = base + bytes.len() as u64;
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&append.to_le_bytes());
    bytes.extend_from_slice(&check_of(offset, append, record));
    bytes.extend_from_slice(record);
    Ok(())
}

fn check_of(offset: u64, append: u64, record: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&append.to_le_bytes());
    hasher.update(&(record.len() as u64).to_le_bytes());
    hasher.update(record);
    let hash = hasher.finalize();
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

struct Frame<'a> {
    append: u64,
    record: &'a [u8],
    end: usize,
}

impl<'a> Frame<'a> {
    /// The frame at an offset, if it is intact.
    fn read(bytes: &'a [u8], offset: usize) -> Option<Self> {
        let rest = bytes.get(offset..)?;
        let (magic, rest) = rest.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (append, rest) = rest.split_first_chunk()?;
        let (check, rest) = rest.split_first_chunk::<8>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let append = u64::from_le_bytes(*append);
        if *magic != MAGIC || len > MAX_RECORD || append > offset as u64 {
            return None;
        }
        let record = rest.get(..len)?;
        (check_of(offset as u64, append, record) == *check).then_some(Self {
            append,
            record,
            end: offset + FRAME + len,
        })
    }
}

/// Whether an intact frame after a damaged place proves that the place was once on the disk.
fn is_proven(bytes: &[u8], damaged: usize) -> bool {
    let after = damaged + 1;
    let rest = bytes.get(after..).unwrap_or_default();
    let starts = rest.windows(MAGIC.len()).enumerate();
    starts
        .filter(|(_, four)| *four == MAGIC)
        .filter_map(|(index, _)| Frame::read(bytes, after + index))
        .any(|frame| frame.append > damaged as u64)
}

#[cfg(test)]
mod tests;
