//! Where the bytes come from and go to: the [`Store`] trait, file names, and two stores.
//!
//! **Contract.** A store hands out immutable [`Content`] (a size and positioned reads) and
//! [`Upload`]s that become visible whole or not at all. [`Store::open`], [`Store::create`]
//! and everything on an upload may block, and so may dropping an upload or the last
//! reference to a content: the server does all of it on a bounded blocking pool, so a hung
//! disk delays only the transfers that need it. [`Content::try_read_at`] is called
//! on the packet path and must not wait for a disk.
//!
//! **Names.** What a client sends is hostile until [`FileName::from_wire`] has checked it;
//! stores only ever see a [`FileName`].

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

mod content;
#[cfg(feature = "fs")]
pub mod fs;
pub mod memory;
mod name;

pub use content::{ContentHash, ContentId};
#[cfg(feature = "fs")]
pub use fs::FsStore;
pub use memory::MemoryStore;
pub use name::{FileName, MAX_NAME_LEN, NameError, RESERVED_PREFIX};

/// Whether clients may write, and what an existing file means to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WritePolicy {
    /// No writes: every write request is answered by ERROR 2. The default.
    #[default]
    Off,
    /// New files only: an existing name is answered by ERROR 6.
    Create,
    /// New files, and existing files may be replaced (atomically).
    Overwrite,
}

/// Why a file could not be opened for reading.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file (ERROR 1).
    #[error("file not found")]
    NotFound,
    /// The name leads to something that is not a regular file: a folder, a FIFO, a device
    /// (ERROR 2).
    #[error("not a regular file")]
    NotAFile,
    /// The file system refused, or the name leads out of the root (ERROR 2).
    #[error("access denied")]
    Denied,
    /// The process or the system is out of file descriptors or memory. The request is dropped
    /// in silence: an ERROR would end the client's boot, a repeated request may succeed.
    #[error("too many open files: {0}")]
    Overloaded(#[source] io::Error),
    /// Anything else, such as a failing disk (ERROR 0).
    #[error("the file cannot be opened: {0}")]
    Io(#[source] io::Error),
}

/// Why a file could not be created for writing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The policy is [`WritePolicy::Off`] or the file system refused (ERROR 2).
    #[error("access denied")]
    Denied,
    /// The file exists and the policy is [`WritePolicy::Create`] (ERROR 6).
    #[error("the file exists already")]
    Exists,
    /// The folder of the file does not exist; folders are never created (ERROR 1).
    #[error("no such folder")]
    NoFolder,
    /// The name leads to a folder or to another thing that is not a regular file (ERROR 2).
    #[error("not a regular file")]
    NotAFile,
    /// The disk or a quota is full (ERROR 3).
    #[error("no space left")]
    Full,
    /// As [`OpenError::Overloaded`].
    #[error("too many open files: {0}")]
    Overloaded(#[source] io::Error),
    /// Anything else (ERROR 0).
    #[error("the file cannot be created: {0}")]
    Io(#[source] io::Error),
}

/// Why an upload could not be continued or made visible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The disk or a quota is full (ERROR 3).
    #[error("no space left")]
    Full,
    /// The file came into being meanwhile and the policy is [`WritePolicy::Create`] (ERROR 6).
    #[error("the file exists already")]
    Exists,
    /// Anything else (ERROR 0).
    #[error("the file cannot be written: {0}")]
    Io(#[source] io::Error),
}

/// Why bytes could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file was cut or changed since it was opened. The transfer must end: a transfer
    /// never mixes two versions.
    #[error("the file changed while it was being sent")]
    Changed,
    /// The bytes are not in memory. Only from [`Content::try_read_at`].
    #[error("the bytes are not in memory")]
    WouldBlock,
    /// The disk failed.
    #[error("the file cannot be read: {0}")]
    Io(#[source] io::Error),
}

/// One version of one file, open for reading.
pub trait Content: Send + Sync + fmt::Debug {
    /// Its size in bytes, fixed when it was opened.
    fn size(&self) -> u64;

    /// Fills the whole of `buf` from `offset`. May wait for a disk.
    ///
    /// The caller asks for nothing beyond [`size`](Self::size).
    ///
    /// # Errors
    /// [`ReadError`]; the contents of `buf` are then unspecified.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError>;

    /// As [`read_at`](Self::read_at), but says [`ReadError::WouldBlock`] instead of waiting
    /// for a disk or a file server. The server then reads the bytes on its blocking pool and
    /// sends them from there. Saying it always is allowed, and right where a store cannot tell.
    ///
    /// # Errors
    /// [`ReadError`]; the contents of `buf` are then unspecified.
    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read_at(offset, buf)
    }

    /// What it is, where the store knows it for certain: whoever opens a content of this name,
    /// at whichever node, reads the same bytes ([`Store::open_content`]). Without it a transfer
    /// ends with the node that serves it. Default: not known.
    fn id(&self) -> Option<ContentId> {
        None
    }
}

/// A file on its way in. Invisible until [`commit`](Self::commit); dropping it removes every
/// trace of it.
pub trait Upload: Send + fmt::Debug {
    /// Appends bytes. May block.
    ///
    /// # Errors
    /// [`WriteError`]; the upload can then only be dropped.
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError>;

    /// Makes the file durable and visible, whole and at once. May block for as long as the
    /// disk needs to sync.
    ///
    /// # Errors
    /// [`WriteError`]. A file that is not whole never becomes visible; a whole one may have
    /// become so all the same, when all that failed was to make sure that its name survives a
    /// power cut.
    fn commit(self: Box<Self>) -> Result<(), WriteError>;
}

/// A place that files are read from and written to. Object-safe; shared between threads.
pub trait Store: Send + Sync + fmt::Debug {
    /// Opens a file for reading. May block. Repeating it is harmless.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError>;

    /// As [`open`](Self::open), for this client. A store in which several files belong together
    /// gives a client that has begun with one generation of them the same generation of the others.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open_for(&self, name: &FileName, client: IpAddr) -> Result<Arc<dyn Content>, OpenError> {
        let _ = client;
        self.open(name)
    }

    /// Opens a content by what it is, whatever name it has or had: so a transfer goes on that
    /// another node began. May block, on a disk or on a peer. Default: it is not to be had
    /// here.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::NotFound`] only where every node has been asked and none has it:
    /// its transfers are over then. What only this node lacks, or what a node that is down may
    /// have, is [`OpenError::Overloaded`].
    fn open_content(&self, content: &ContentId) -> Result<Arc<dyn Content>, OpenError> {
        let _ = content;
        let reason = "this store opens no content by what it is";
        Err(OpenError::Overloaded(io::Error::other(reason)))
    }

    /// Begins a file. May block. Nothing is visible before [`Upload::commit`].
    ///
    /// # Errors
    /// [`CreateError`].
    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError>;
}
