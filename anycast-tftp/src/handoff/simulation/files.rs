//! Files in several versions, and the store of one node: which version has the name there, and
//! which contents it has.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::random::mix;
use crate::store::{
    Content, ContentHash, ContentId, CreateError, FileName, OpenError, ReadError, Store, Upload,
    WritePolicy,
};

/// One version of a file.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) bytes: Arc<[u8]>,
    pub(super) id: ContentId,
}

impl Version {
    /// No eight bytes of it occur in another version, or elsewhere in this one.
    pub(super) fn new(salt: u64, size: usize) -> Self {
        let mut bytes = Vec::with_capacity(size + 8);
        let mut at = 0;
        while bytes.len() < size {
            bytes.extend_from_slice(&mix(salt << 32 | at).to_be_bytes());
            at += 1;
        }
        bytes.truncate(size);
        let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
        let size = size as u64;
        Self {
            bytes: bytes.into(),
            id: ContentId { hash, size },
        }
    }
}

/// A name, and all that it ever stands for, in order.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: FileName,
    pub(super) versions: Vec<Version>,
}

pub(super) fn name(text: &str) -> FileName {
    FileName::from_wire(text.as_bytes()).unwrap()
}

/// The store of one node.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    names: BTreeMap<FileName, ContentId>,
    contents: BTreeMap<ContentId, Arc<[u8]>>,
    is_cold: bool,
}

impl Shelf {
    fn change<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes are not in memory when they are asked for.
    pub(super) fn make_cold(&self) {
        self.change(|inside| inside.is_cold = true);
    }

    /// From now on it can be opened by what it is.
    pub(super) fn hold(&self, version: &Version) {
        let bytes = Arc::clone(&version.bytes);
        self.change(|inside| inside.contents.insert(version.id, bytes));
    }

    /// From now on it has this name. What had it before stays as a content.
    pub(super) fn publish(&self, name: &FileName, version: &Version) {
        self.hold(version);
        self.change(|inside| inside.names.insert(name.clone(), version.id));
    }

    pub(super) fn published(&self, name: &FileName) -> Option<ContentId> {
        self.change(|inside| inside.names.get(name).copied())
    }
}

impl Store for Shelf {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        let id = self.published(name).ok_or(OpenError::NotFound)?;
        self.open_content(&id)
    }

    fn open_content(&self, content: &ContentId) -> Result<Arc<dyn Content>, OpenError> {
        self.change(|inside| {
            // Some other node has it.
            let missing = || OpenError::Overloaded(io::Error::other("not here"));
            let bytes = inside.contents.get(content).ok_or_else(missing)?;
            Ok(Arc::new(Sheet {
                bytes: Arc::clone(bytes),
                id: *content,
                is_cold: inside.is_cold,
                was_read: AtomicBool::new(false),
            }) as _)
        })
    }

    fn create(&self, _: &FileName, _: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        Err(CreateError::Denied)
    }
}

#[derive(Debug)]
struct Sheet {
    bytes: Arc<[u8]>,
    id: ContentId,
    is_cold: bool,
    was_read: AtomicBool,
}

impl Content for Sheet {
    fn size(&self) -> u64 {
        self.id.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.was_read.store(true, Ordering::Relaxed);
        let start = usize::try_from(offset).map_err(|_| ReadError::Changed)?;
        let bytes = self.bytes.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(ReadError::Changed)?);
        Ok(())
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        // Warm once, then cold again: the worst cache there is.
        if self.is_cold && !self.was_read.swap(false, Ordering::Relaxed) {
            return Err(ReadError::WouldBlock);
        }
        self.read_at(offset, buf)
    }

    fn id(&self) -> Option<ContentId> {
        Some(self.id)
    }
}
