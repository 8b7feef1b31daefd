//! What a scan is asked and what it answers.

use std::io;
use std::time::Duration;

use super::{FolderError, RootId};
use crate::store::{FileName, MAX_NAME_LEN};
use crate::sync::content::ContentId;

/// Troubles, and busy files, that are listed; the others are counted.
pub const MAX_TROUBLES: usize = 1000;

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Everything.
    All,
    /// These paths, files or folders, and what is below them: as [`super::Folder::take_changes`] names them.
    Paths(&'a [String]),
}

/// How to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanOptions {
    /// Tell of every file, not just of those that changed since the last scan or install. To be
    /// set once after a start.
    pub is_full: bool,
    /// A file that was modified within this time is still being written: it is
    /// [busy](ScanReport::busy). Zero where the writer is known to have closed it.
    pub quiet: Duration,
}

/// A file that a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub name: FileName,
    /// What.
    pub content: ContentId,
}

/// Something that is on the disk and cannot be synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its path, as far as it can be printed.
    pub path: String,
    /// Why not.
    pub kind: TroubleKind,
}

/// Why something on the disk cannot be synced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TroubleKind {
    /// Its name is not UTF-8, has a control character or a backslash: no client can ask for it.
    #[error("the name has characters that no client can send")]
    Name,
    /// Its path is longer than [`MAX_NAME_LEN`].
    #[error("the path is longer than {MAX_NAME_LEN} bytes")]
    TooLong,
    /// A symbolic link.
    #[error("symbolic links are not synced")]
    Link,
    /// A device, FIFO or socket.
    #[error("it is not a file")]
    NotAFile,
    /// It could not be read. What is known of it, and of what is below it, stays as it was.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// What a scan came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanReport {
    /// What the marker said, before and after alike. None: this is not the copy that it was, and
    /// what is gone is not deleted.
    pub marker: Option<RootId>,
    /// Files seen, busy ones and unchanged ones too.
    pub files: usize,
    /// Files hashed.
    pub hashed: usize,
    /// Bytes hashed.
    pub hashed_bytes: u64,
    /// Files that are no longer there, and what they were.
    pub gone: Vec<Found>,
    /// Files that are being written, to be looked at again soon; at most [`MAX_TROUBLES`] of them.
    pub busy: Vec<String>,
    /// There are more busy files than are listed: look at everything again.
    pub has_more_busy: bool,
    /// Files that were hashed so soon after they had been modified that a further change need not
    /// show: to be looked at again in [`DOUBT`](super::DOUBT); at most [`MAX_TROUBLES`] of them,
    /// the others wait for the next scan of everything.
    pub doubtful: Vec<String>,
    /// What cannot be synced; at most [`MAX_TROUBLES`] of them.
    pub troubles: Vec<Trouble>,
    /// Troubles beyond those.
    pub more_troubles: usize,
}

impl ScanReport {
    pub(super) fn trouble(&mut self, path: String, kind: TroubleKind) {
        if self.troubles.len() < MAX_TROUBLES {
            self.troubles.push(Trouble { path, kind });
        } else {
            self.more_troubles += 1;
        }
    }

    pub(super) fn doubt(&mut self, path: String) {
        if self.doubtful.len() < MAX_TROUBLES {
            self.doubtful.push(path);
        }
    }

    pub(super) fn busy(&mut self, path: String) {
        if self.busy.len() < MAX_TROUBLES {
            self.busy.push(path);
        } else {
            self.has_more_busy = true;
        }
    }
}

/// Why a scan was given up. What it told until then holds; nothing counts as gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The root's path leads to another folder than it did: something was mounted or moved there.
    #[error("{0} is another folder now than when it was opened; start again")]
    Moved(String),
    /// The root cannot be read.
    #[error("the folder {path} cannot be read: {source}")]
    Root {
        /// The root.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The marker cannot be read.
    #[error(transparent)]
    Marker(#[from] FolderError),
}
