//! What the server engine asks of a store.
//!
//! The engine touches no disk: it hands out [`StoreRequest`]s, whoever drives it runs them
//! where blocking is allowed ([`StoreRequest::run`]), in any order and at any time, and hands
//! each [`StoreReply`] back. A session has one request out at a time.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use super::netascii::BlockIndex;
use super::table::SessionId;
use crate::store::{
    Content, ContentId, CreateError, FileName, OpenError, ReadError, Store, Upload, WriteError,
    WritePolicy,
};

/// Bytes read at once ahead of a transfer.
const LOAD_CHUNK: usize = 64 * 1024;

/// Which session waits for a request, and for which of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId {
    pub(super) session: SessionId,
    pub(super) serial: u32,
    pub(super) is_open: bool,
    /// Bytes of upload memory that stay in use until the reply.
    pub(super) charge: usize,
}

/// Something to be done where blocking is allowed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreRequest {
    /// Open a file for reading.
    Open {
        /// Who waits.
        id: JobId,
        /// Which file.
        name: FileName,
        /// For whom: of files that belong together a client gets one generation.
        client: IpAddr,
    },
    /// Begin a file.
    Create {
        /// Who waits.
        id: JobId,
        /// Which file.
        name: FileName,
        /// What an existing one means.
        policy: WritePolicy,
        /// Its place among the unfinished files.
        slot: UploadSlot,
    },
    /// Read a part of a file.
    Load {
        /// Who waits.
        id: JobId,
        /// The file.
        content: Arc<dyn Content>,
        /// Which part.
        part: PartRequest,
    },
    /// Translate a file to netascii up to a block that another node has sent the one before of.
    Index {
        /// Who waits.
        id: JobId,
        /// The file.
        content: Arc<dyn Content>,
        /// Where its translation stands.
        text: Box<BlockIndex>,
        /// Up to which block.
        block: u64,
        /// Gone when the session is gone: then there is nothing to do.
        wanted: Weak<()>,
    },
    /// Append to a file.
    Write {
        /// Who waits.
        id: JobId,
        /// The file.
        upload: Box<dyn Upload>,
        /// What to append.
        bytes: Vec<u8>,
        /// Whether the file is complete then, and is to be made visible.
        commit: bool,
    },
    /// Open a content by what it is, for transfers that another node began or may go on with.
    Pin {
        /// Which.
        content: ContentId,
    },
    /// Remove an unfinished file. Nobody waits.
    Discard {
        /// The file.
        upload: Box<dyn Upload>,
    },
    /// Let go of a file that was read, which may close it. Nobody waits.
    Close {
        /// The file.
        content: Arc<dyn Content>,
    },
}

/// How many files are unfinished, and how large they are. They count until they are complete
/// or removed, wherever they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads(Arc<Unfinished>);

#[derive(Debug, Default)]
struct Unfinished {
    files: AtomicUsize,
    bytes: AtomicU64,
}

impl Uploads {
    /// A place for one more; None when all are taken.
    pub(super) fn begin(&self, max_files: u32, max_bytes: u64) -> Option<UploadSlot> {
        let files = self.0.files.fetch_add(1, Ordering::Relaxed);
        // From here on dropping it gives the place back.
        let slot = UploadSlot {
            uploads: self.clone(),
            bytes: 0,
            max_bytes,
        };
        (files < max_files as usize).then_some(slot)
    }
}

/// A place among the unfinished files.
#[derive(Debug)]
pub struct UploadSlot {
    uploads: Uploads,
    bytes: u64,
    max_bytes: u64,
}

impl UploadSlot {
    /// Whether there is room for so many more bytes, which count from now on.
    fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.bytes = self.bytes.saturating_add(bytes);
        let before = self.uploads.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) <= self.max_bytes
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        self.uploads.0.files.fetch_sub(1, Ordering::Relaxed);
        self.uploads
            .0
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An upload that counts. Its place is given back when nothing is left of it, so the order of
/// these fields matters.
#[derive(Debug)]
struct Counted {
    upload: Box<dyn Upload>,
    slot: UploadSlot,
}

impl Upload for Counted {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if !self.slot.grow(bytes.len()) {
            return Err(WriteError::Full);
        }
        self.upload.write(bytes)
    }

    fn commit(self: Box<Self>) -> Result<(), WriteError> {
        let Self { upload, slot } = *self;
        let result = upload.commit();
        drop(slot);
        result
    }
}

/// Memory for parts of files, which sessions share. A share is given back when what holds it
/// is dropped, wherever that is.
#[derive(Debug, Clone, Default)]
pub(super) struct PartMemory(Arc<AtomicUsize>);

impl PartMemory {
    /// Sets `wanted` bytes aside; only `least`, whatever is taken already, when they would
    /// exceed the limit.
    pub(super) fn reserve(&self, wanted: usize, least: usize, limit: usize) -> Share {
        let taken = self.0.load(Ordering::Relaxed);
        let fits = taken.saturating_add(wanted) <= limit;
        let bytes = if fits { wanted.max(least) } else { least };
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Share {
            memory: self.clone(),
            bytes,
        }
    }
}

/// Bytes that are set aside.
#[derive(Debug)]
pub(super) struct Share {
    memory: PartMemory,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Which part of a file is to be read.
#[derive(Debug)]
pub struct PartRequest {
    pub(super) offset: u64,
    /// Its length, at most.
    pub(super) share: Share,
    /// How many bytes behind it are to be brought into memory, where files have a memory.
    pub(super) ahead: u64,
    /// Gone when the session is gone: then there is nothing to do.
    pub(super) wanted: Weak<()>,
}

/// A part of a file. Its session sends it from here, whatever has become of the file's memory.
#[derive(Debug)]
pub struct Part {
    offset: u64,
    bytes: Vec<u8>,
    _share: Share,
}

impl Part {
    /// What it has from this byte of the file on.
    pub(super) fn from(&self, offset: u64) -> &[u8] {
        offset
            .checked_sub(self.offset)
            .and_then(|skip| self.bytes.get(usize::try_from(skip).ok()?..))
            .unwrap_or_default()
    }
}

/// What came of a [`StoreRequest`].
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreReply {
    /// Of [`StoreRequest::Open`].
    Opened(JobId, Result<Arc<dyn Content>, OpenError>),
    /// Of [`StoreRequest::Create`].
    Created(JobId, Result<Box<dyn Upload>, CreateError>),
    /// Of [`StoreRequest::Load`].
    Loaded(JobId, Result<Part, ReadError>),
    /// Of [`StoreRequest::Index`].
    Indexed(JobId, Result<Box<BlockIndex>, ReadError>),
    /// Of [`StoreRequest::Write`]; the upload comes back unless it was committed.
    Written(JobId, Result<Option<Box<dyn Upload>>, WriteError>),
    /// Of [`StoreRequest::Pin`].
    Pinned(ContentId, Result<Arc<dyn Content>, OpenError>),
    /// The request was lost: the store panicked.
    Lost(JobId),
}

impl StoreRequest {
    /// Who waits for it, if anybody.
    #[must_use]
    pub const fn id(&self) -> Option<JobId> {
        match self {
            Self::Open { id, .. }
            | Self::Create { id, .. }
            | Self::Load { id, .. }
            | Self::Index { id, .. }
            | Self::Write { id, .. } => Some(*id),
            Self::Pin { .. } | Self::Discard { .. } | Self::Close { .. } => None,
        }
    }

    /// Whether nobody waits for it any more, and forgetting it touches no file.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Load { content, part, .. } => {
                part.wanted.strong_count() == 0 && Arc::strong_count(content) > 1
            }
            Self::Index {
                content, wanted, ..
            } => wanted.strong_count() == 0 && Arc::strong_count(content) > 1,
            Self::Open { .. }
            | Self::Create { .. }
            | Self::Write { .. }
            | Self::Pin { .. }
            | Self::Discard { .. }
            | Self::Close { .. } => false,
        }
    }

    /// Does it; None when nobody waits. Blocks for as long as the store does.
    #[must_use]
    pub fn run(self, store: &dyn Store) -> Option<StoreReply> {
        Some(match self {
            Self::Open { id, name, client } => {
                StoreReply::Opened(id, store.open_for(&name, client))
            }
            Self::Create {
                id,
                name,
                policy,
                slot,
            } => {
                let created = store.create(&name, policy);
                let counted = created.map(|upload| Box::new(Counted { upload, slot }) as _);
                StoreReply::Created(id, counted)
            }
            Self::Load { id, content, part } => {
                if part.wanted.strong_count() == 0 {
                    return None;
                }
                StoreReply::Loaded(id, load(&*content, part))
            }
            Self::Index {
                id,
                content,
                text,
                block,
                wanted,
            } => {
                if wanted.strong_count() == 0 {
                    return None;
                }
                StoreReply::Indexed(id, index(&*content, text, block))
            }
            Self::Write {
                id,
                upload,
                bytes,
                commit,
            } => StoreReply::Written(id, write(upload, &bytes, commit)),
            Self::Pin { content } => StoreReply::Pinned(content, store.open_content(&content)),
            Self::Discard { upload } => {
                drop(upload);
                return None;
            }
            Self::Close { content } => {
                drop(content);
                return None;
            }
        })
    }
}

fn index(
    content: &dyn Content,
    mut text: Box<BlockIndex>,
    block: u64,
) -> Result<Box<BlockIndex>, ReadError> {
    let size = content.size();
    let mut failure = None;
    let advanced = text.advance(block, |offset, piece| {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = piece.len().min(left);
        let piece = piece.get_mut(..len).unwrap_or_default();
        content
            .read_at(offset, piece)
            .map(|()| len)
            .map_err(|error| {
                failure = Some(error);
                io::ErrorKind::Other.into()
            })
    });
    match advanced {
        Ok(()) => Ok(text),
        Err(error) => Err(failure.unwrap_or(ReadError::Io(error))),
    }
}

fn load(content: &dyn Content, part: PartRequest) -> Result<Part, ReadError> {
    let PartRequest {
        offset,
        share,
        ahead,
        ..
    } = part;
    let left = content.size().saturating_sub(offset);
    let len = usize::try_from(left).map_or(share.bytes, |left| left.min(share.bytes));
    let mut bytes = vec![0; len];
    // Another transfer may have brought it into memory meanwhile.
    if content.try_read_at(offset, &mut bytes).is_err() {
        content.read_at(offset, &mut bytes)?;
        read_ahead(content, offset, len as u64, ahead);
    }
    Ok(Part {
        offset,
        bytes,
        _share: share,
    })
}

/// Brings into memory what follows a part that was just read. What fails is not needed yet.
fn read_ahead(content: &dyn Content, offset: u64, len: u64, ahead: u64) {
    // A file that is not in memory now has none: reading it twice would be of no use.
    if ahead == 0 || content.try_read_at(offset, &mut [0]).is_err() {
        return;
    }
    let mut at = offset.saturating_add(len);
    let end = at.saturating_add(ahead).min(content.size());
    let mut chunk = vec![0; LOAD_CHUNK];
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(LOAD_CHUNK);
        let wanted = wanted.min(LOAD_CHUNK);
        let chunk = &mut chunk[..wanted];
        if content.try_read_at(at, chunk).is_ok() || content.read_at(at, chunk).is_err() {
            return;
        }
        at += wanted as u64;
    }
}

fn write(
    mut upload: Box<dyn Upload>,
    bytes: &[u8],
    commit: bool,
) -> Result<Option<Box<dyn Upload>>, WriteError> {
    upload.write(bytes)?;
    if commit {
        upload.commit()?;
        return Ok(None);
    }
    Ok(Some(upload))
}

#[cfg(test)]
mod tests;
