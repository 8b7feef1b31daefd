//! Contents on their way in: invisible until they are whole, verified and on the disk.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;

use super::direct::{self, Direct};
use super::disk::{self, Stamp};
use super::lock::Locked;
use super::objects::{Held, to_hex};
use super::{Folder, hashing};
use crate::sync::content::{ContentHash, ContentId};

/// Threads that wait for the disk together: a file system puts what they wait for into one write.
const SYNCERS: usize = 8;

/// More contents than this are made durable by one `syncfs`, which waits for whatever else is
/// being written to that file system as well.
const SYNCFS_ABOVE: usize = 32;

/// So many bytes are handed to the disk while the next ones come, so that there is little to wait
/// for at the end.
const HAND_OVER: u64 = 8 << 20;

/// What is left of a content, in bytes, is written past the page cache where it is more than this.
const DIRECT_ABOVE: u64 = 8 << 20;

/// Why a content could not be brought in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The disk or a quota is full. What was written stays, to be continued.
    #[error("no space left for the content {0}")]
    Full(ContentHash),
    /// The file system refuses: rights, or mounted read-only.
    #[error("the content {0} may not be written: access denied")]
    Denied(ContentHash),
    /// Another stage is at it.
    #[error("the content {0} is being written already")]
    Busy(ContentHash),
    /// More bytes than the content has.
    #[error("the content {0} has more bytes than it should")]
    TooLong(ContentHash),
    /// Fewer bytes than the content has. What was written stays, to be continued.
    #[error("the content {0} is not complete")]
    Short(ContentHash),
    /// The bytes are others than the hash says. They were thrown away.
    #[error("the content {0} arrived corrupt; it is fetched again")]
    Corrupt(ContentHash),
    /// The basis was changed in place while it was copied. What was written stays.
    #[error("the basis of the content {0} was changed meanwhile")]
    Basis(ContentHash),
    /// Anything else, such as a failing disk.
    #[error("the content {hash} cannot be written: {source}")]
    Io {
        /// The content.
        hash: ContentHash,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StageError {
    fn new(content: &ContentId, errno: Errno) -> Self {
        let hash = content.hash;
        if disk::is_full(errno) {
            Self::Full(hash)
        } else if disk::is_denied(errno) {
            Self::Denied(hash)
        } else {
            Self::Io {
                hash,
                source: errno.into(),
            }
        }
    }
}

/// A content that is being written. Dropped, it is kept to be continued, but for what was gathered
/// to be written at once.
#[derive(Debug)]
pub struct Stage {
    content: ContentId,
    file: Locked,
    /// What is gathered to be written past the page cache; `None`: nothing is, or any more.
    direct: Option<Direct>,
    /// What is in the file, and hashed.
    offset: u64,
    /// The disk has been told to begin with all before this.
    handed_over: u64,
    hasher: blake3::Hasher,
    buf: Vec<u8>,
}

/// A content that is whole and verified, and not yet on the disk: for [`Folder::sync_all`].
#[derive(Debug)]
pub struct Staged {
    content: ContentId,
    file: Locked,
}

impl Staged {
    /// What it is.
    #[must_use]
    pub fn content(&self) -> ContentId {
        self.content
    }
}

impl Folder {
    /// Begins a content, or goes on with what an earlier stage left: [`Stage::offset`] says where.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn stage(&self, content: ContentId) -> Result<Stage, StageError> {
        let failed = |errno| StageError::new(&content, errno);
        let name = to_hex(&content.hash.0);
        let file = disk::create_file(&self.staging, &name).map_err(failed)?;
        let file = Locked::new(file).ok_or(StageError::Busy(content.hash))?;
        let found = rustix::fs::fstat(&file).map_err(failed)?;
        // Finished, or swept, by another between the creation and the lock.
        if !disk::is_file(&found) || found.st_nlink == 0 {
            return Err(StageError::Busy(content.hash));
        }
        let mut stage = Stage {
            content,
            file,
            direct: None,
            offset: 0,
            handed_over: 0,
            hasher: blake3::Hasher::new(),
            buf: Vec::new(),
        };
        if Stamp::of(&found).size > content.size {
            stage.restart()?;
        }
        let Stage {
            file, hasher, buf, ..
        } = &mut stage;
        let found = hashing::hash_with(file, content.size, hasher, buf)
            .map_err(|error| failed(disk::errno(&error)))?;
        stage.offset = found.size;
        stage.handed_over = found.size;
        let is_large = content.size - found.size > DIRECT_ABOVE;
        if is_large && found.size.is_multiple_of(direct::ALIGN as u64) {
            stage.direct = Direct::open(&self.staging, &name);
        }
        Ok(stage)
    }

    /// Makes contents durable, all together, and then readable by their hash, until they are
    /// [installed](Folder::prepare) or [released](Folder::release). One answer for each, in their order.
    pub fn sync_all(&self, staged: Vec<Staged>) -> Vec<Result<ContentId, StageError>> {
        let synced = self.sync_files(&staged);
        let mut answers = Vec::with_capacity(staged.len());
        for (staged, synced) in staged.iter().zip(synced) {
            answers.push(synced.and_then(|()| self.to_object(staged)));
        }
        // The contents' names.
        let named = rustix::fs::fsync(&self.objects);
        if let Err(errno) = named {
            for answer in &mut answers {
                if let Ok(content) = answer {
                    *answer = Err(StageError::new(content, errno));
                }
            }
        }
        answers
    }

    fn sync_files(&self, staged: &[Staged]) -> Vec<Result<(), StageError>> {
        if staged.len() > SYNCFS_ABOVE && rustix::fs::syncfs(&self.staging).is_ok() {
            return staged.iter().map(|_| Ok(())).collect();
        }
        let sync = |one: &Staged| {
            rustix::fs::fsync(&one.file).map_err(|errno| StageError::new(&one.content, errno))
        };
        if staged.len() < 2 {
            return staged.iter().map(sync).collect();
        }
        let size = staged.len().div_ceil(SYNCERS);
        let sync = &sync;
        let synced: Vec<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = staged
                .chunks(size)
                .map(|chunk| scope.spawn(move || chunk.iter().map(sync).collect::<Vec<_>>()))
                .collect();
            let joined = threads.into_iter().zip(staged.chunks(size));
            let joined = joined.map(|(thread, chunk)| {
                let lost = |_| chunk.iter().map(sync).collect();
                thread.join().unwrap_or_else(lost)
            });
            joined.collect()
        });
        synced.into_iter().flatten().collect()
    }

    fn to_object(&self, staged: &Staged) -> Result<ContentId, StageError> {
        let name = to_hex(&staged.content.hash.0);
        let failed = |errno| StageError::new(&staged.content, errno);
        rustix::fs::renameat(&self.staging, &name, &self.objects, &name).map_err(failed)?;
        let found = rustix::fs::fstat(&staged.file).map_err(failed)?;
        let stamp = Stamp::of(&found);
        self.known().insert(staged.content.hash, stamp);
        Ok(staged.content)
    }
}

impl Stage {
    /// What it will be.
    #[must_use]
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// How many bytes are there: the next to be written is this one.
    #[must_use]
    pub fn offset(&self) -> u64 {
        let pending = self.direct.as_ref().map_or(0, Direct::pending_len);
        self.offset + pending
    }

    /// Throws away what is there.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn restart(&mut self) -> Result<(), StageError> {
        self.hasher.reset();
        self.direct = None;
        (self.offset, self.handed_over) = (0, 0);
        rustix::fs::ftruncate(&self.file, 0).map_err(|errno| StageError::new(&self.content, errno))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`StageError`]. [`offset`](Self::offset) says how far it came: the stage can go on from there,
    /// or be dropped and continued later.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        self.check_room(bytes.len() as u64)?;
        let mut rest = bytes;
        while let Some(direct) = self.direct.as_mut().filter(|_| !rest.is_empty()) {
            let taken = direct.take(rest);
            rest = rest.get(taken..).unwrap_or_default();
            if direct.is_full() {
                self.settle()?;
            }
        }
        self.append(rest)
    }

    /// Writes what is gathered. What is too short for it goes another way, and all that follows.
    fn settle(&mut self) -> Result<(), StageError> {
        let Some(mut direct) = self.direct.take() else {
            return Ok(());
        };
        let written = direct.write_at(self.offset);
        let is_written = written.map_err(|error| self.failed(&error))?;
        let (whole, rest) = direct.pending();
        if !is_written {
            self.append(whole)?;
            return self.append(rest);
        }
        self.hasher.update(whole);
        self.offset += whole.len() as u64;
        self.handed_over = self.offset;
        if !rest.is_empty() {
            return self.append(rest);
        }
        direct.clear();
        self.direct = Some(direct);
        Ok(())
    }

    fn append(&mut self, mut rest: &[u8]) -> Result<(), StageError> {
        while !rest.is_empty() {
            match self.file.write_at(rest, self.offset) {
                Ok(written) => {
                    let (done, left) = rest.split_at(written);
                    self.hasher.update(done);
                    self.offset += written as u64;
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StageError::new(&self.content, disk::errno(&error))),
            }
        }
        self.hand_over();
        Ok(())
    }

    /// The kernel begins to write what is said not to be needed, and does not wait for it.
    fn hand_over(&mut self) {
        let len = self.offset.saturating_sub(self.handed_over);
        if len >= HAND_OVER {
            let advice = rustix::fs::Advice::DontNeed;
            // Where it does not, the end waits longer.
            let _ = rustix::fs::fadvise(&self.file, self.handed_over, NonZeroU64::new(len), advice);
            self.handed_over = self.offset;
        }
    }

    /// Appends a range of another content, which is not moved through this process where the file
    /// system can share or copy it.
    ///
    /// # Errors
    /// As [`write`](Self::write). After [`StageError::Basis`] nothing was appended.
    pub fn write_from_basis(
        &mut self,
        basis: &Held,
        offset: u64,
        len: u64,
    ) -> Result<(), StageError> {
        self.check_room(len)?;
        self.settle()?;
        self.direct = None;
        let start = self.offset;
        let copied = self.copy_from(basis, offset, start + len);
        if matches!(copied, Err(StageError::Basis(_))) {
            self.cut(start)?;
        }
        copied
    }

    fn copy_from(&mut self, basis: &Held, offset: u64, end: u64) -> Result<(), StageError> {
        let mut from = offset;
        let len = end - self.offset;
        let copied = copy_range(basis.file(), &mut from, &self.file, self.offset, len);
        // What was copied is hashed as it is on this side, whatever the basis is now.
        self.hash_up_to(self.offset + copied)?;
        let mut buf = Vec::new();
        while self.offset < end {
            let piece = (end - self.offset).min(hashing::PIECE as u64);
            buf.resize(usize::try_from(piece).unwrap_or(0), 0);
            match basis.file().read_exact_at(&mut buf, from) {
                Ok(()) => self.append(&buf)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(StageError::Basis(self.content.hash));
                }
                Err(error) => return Err(self.failed(&error)),
            }
            from += piece;
        }
        match basis.is_intact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(StageError::Basis(self.content.hash)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Whole and verified. What [`Folder::sync_all`] has to do is left.
    ///
    /// # Errors
    /// [`StageError`]: after [`StageError::Corrupt`] nothing is kept.
    pub fn finish(mut self) -> Result<Staged, StageError> {
        self.settle()?;
        if self.offset < self.content.size {
            return Err(StageError::Short(self.content.hash));
        }
        if self.hasher.finalize().as_bytes() != &self.content.hash.0 {
            self.restart()?;
            return Err(StageError::Corrupt(self.content.hash));
        }
        let failed = |errno| StageError::new(&self.content, errno);
        let found = rustix::fs::fstat(&self.file).map_err(failed)?;
        if Stamp::of(&found).size != self.content.size {
            rustix::fs::ftruncate(&self.file, self.content.size).map_err(failed)?;
        }
        Ok(Staged {
            content: self.content,
            file: self.file,
        })
    }

    fn check_room(&self, len: u64) -> Result<(), StageError> {
        match self.offset().checked_add(len) {
            Some(end) if end <= self.content.size => Ok(()),
            _ => Err(StageError::TooLong(self.content.hash)),
        }
    }

    fn hash_up_to(&mut self, end: u64) -> Result<(), StageError> {
        while self.offset < end {
            let piece = (end - self.offset).min(hashing::PIECE as u64);
            self.buf.resize(usize::try_from(piece).unwrap_or(0), 0);
            self.file
                .read_exact_at(&mut self.buf, self.offset)
                .map_err(|error| StageError::new(&self.content, disk::errno(&error)))?;
            self.hasher.update(&self.buf);
            self.offset += piece;
        }
        self.hand_over();
        Ok(())
    }

    /// Back to an earlier offset.
    fn cut(&mut self, to: u64) -> Result<(), StageError> {
        self.restart_hash(to).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> StageError {
        StageError::new(&self.content, disk::errno(error))
    }

    fn restart_hash(&mut self, to: u64) -> io::Result<()> {
        self.file.set_len(to)?;
        self.hasher.reset();
        let found = hashing::hash_with(&self.file, to, &mut self.hasher, &mut self.buf)?;
        self.offset = found.size;
        self.handed_over = self.handed_over.min(found.size);
        Ok(())
    }
}

/// Copies in the kernel as much of a range as it will, and says how much.
pub(super) fn copy_range(
    from: impl AsFd,
    from_offset: &mut u64,
    to: impl AsFd,
    to_offset: u64,
    len: u64,
) -> u64 {
    let mut to_offset = to_offset;
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        let (from_at, to_at) = (Some(&mut *from_offset), Some(&mut to_offset));
        match rustix::fs::copy_file_range(&from, from_at, &to, to_at, most) {
            Ok(0) => break,
            Ok(copied) => left = left.saturating_sub(copied as u64),
            Err(Errno::INTR) => {}
            // Whatever it is, copying by hand meets it again or works.
            Err(_) => break,
        }
    }
    len - left
}
