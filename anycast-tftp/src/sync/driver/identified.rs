//! An open file of which it is known what it is.

use std::sync::Arc;

use crate::store::fs::FsContent;
use crate::store::{Content, ReadError};
use crate::sync::content::ContentId;

/// Its bytes are those of its content or none: after each read it is compared with what it was when
/// it was opened, not at its end alone, since whoever reads the end may be another node.
#[derive(Debug)]
pub(super) struct Identified {
    file: Arc<FsContent>,
    content: ContentId,
}

impl Identified {
    /// `None`: the file is another one by now.
    pub(super) fn new(file: Arc<FsContent>, content: ContentId) -> Option<Self> {
        let is_it = file.size() == content.size && file.check().is_ok();
        is_it.then_some(Self { file, content })
    }
}

impl Content for Identified {
    fn size(&self) -> u64 {
        self.content.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.file.read_at(offset, buf)?;
        self.file.check()
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.file.try_read_at(offset, buf)?;
        self.file.check_cached()
    }

    fn id(&self) -> Option<ContentId> {
        Some(self.content)
    }
}
