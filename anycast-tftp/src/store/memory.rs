//! Files in memory: for tests, for embedded use, for content that is made on the fly.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{
    Content, CreateError, FileName, OpenError, ReadError, Store, Upload, WriteError, WritePolicy,
};

type Files = Arc<RwLock<BTreeMap<FileName, Arc<[u8]>>>>;

/// A store in memory. Clones share their files.
///
/// Replacing a file does not disturb a transfer of the old version.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    files: Files,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    pub fn insert(&self, name: FileName, bytes: impl Into<Arc<[u8]>>) {
        write_lock(&self.files).insert(name, bytes.into());
    }

    /// Removes a file, and returns what it held.
    pub fn remove(&self, name: &FileName) -> Option<Arc<[u8]>> {
        write_lock(&self.files).remove(name)
    }

    /// What a file holds.
    #[must_use]
    pub fn get(&self, name: &FileName) -> Option<Arc<[u8]>> {
        read_lock(&self.files).get(name).cloned()
    }

    /// The names of all files, in order.
    #[must_use]
    pub fn names(&self) -> Vec<FileName> {
        read_lock(&self.files).keys().cloned().collect()
    }
}

type Guarded = BTreeMap<FileName, Arc<[u8]>>;

// Every change is one map operation, so a thread that panicked left nothing half done.
fn read_lock(files: &RwLock<Guarded>) -> std::sync::RwLockReadGuard<'_, Guarded> {
    files.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_lock(files: &RwLock<Guarded>) -> std::sync::RwLockWriteGuard<'_, Guarded> {
    files.write().unwrap_or_else(PoisonError::into_inner)
}

impl Store for MemoryStore {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        let bytes = self.get(name).ok_or(OpenError::NotFound)?;
        Ok(Arc::new(MemoryContent { bytes }))
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        match policy {
            WritePolicy::Off => return Err(CreateError::Denied),
            WritePolicy::Create if read_lock(&self.files).contains_key(name) => {
                return Err(CreateError::Exists);
            }
            WritePolicy::Create | WritePolicy::Overwrite => {}
        }
        Ok(Box::new(MemoryUpload {
            files: Arc::clone(&self.files),
            name: name.clone(),
            policy,
            bytes: Vec::new(),
        }))
    }
}

#[derive(Debug)]
struct MemoryContent {
    bytes: Arc<[u8]>,
}

impl Content for MemoryContent {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let start = usize::try_from(offset).map_err(|_| ReadError::Changed)?;
        let end = start.checked_add(buf.len()).ok_or(ReadError::Changed)?;
        let bytes = self.bytes.get(start..end).ok_or(ReadError::Changed)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryUpload {
    files: Files,
    name: FileName,
    policy: WritePolicy,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), WriteError> {
        let mut files = write_lock(&self.files);
        if self.policy != WritePolicy::Overwrite && files.contains_key(&self.name) {
            return Err(WriteError::Exists);
        }
        files.insert(self.name, self.bytes.into());
        Ok(())
    }
}
