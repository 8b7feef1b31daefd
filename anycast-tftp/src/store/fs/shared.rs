//! Open files that several transfers share: one descriptor for each version of a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{FsContent, Version};

/// The files that are open now. An entry goes when the last transfer of its file ends, so
/// there are never more than sessions.
#[derive(Debug, Default)]
pub(super) struct Shared {
    open: Mutex<BTreeMap<Version, Weak<FsContent>>>,
}

impl Shared {
    // Every change is one map operation, so a thread that panicked left nothing half done.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Version, Weak<FsContent>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of a file that looks like this, if it is open.
    pub(super) fn find(&self, version: &Version) -> Option<Arc<FsContent>> {
        self.lock().get(version).and_then(Weak::upgrade)
    }

    /// Takes a file in that was just opened; another thread may have been faster.
    pub(super) fn insert(shared: &Arc<Self>, file: File, version: Version) -> Arc<FsContent> {
        let content = Arc::new(FsContent {
            file,
            version,
            has_nowait: AtomicBool::new(true),
            shared: Arc::clone(shared),
        });
        let mut open = shared.lock();
        if let Some(earlier) = open.get(&version).and_then(Weak::upgrade) {
            // Dropping ours takes the lock again.
            drop(open);
            return earlier;
        }
        open.insert(version, Arc::downgrade(&content));
        drop(open);
        content
    }

    /// Content of this version was dropped.
    pub(super) fn forget(&self, version: &Version) {
        let mut open = self.lock();
        let is_gone = |content: &Weak<FsContent>| content.strong_count() == 0;
        if open.get(version).is_some_and(is_gone) {
            open.remove(version);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
