//! Writes that pass the page cache by, for large contents: the kernel copies nothing, and what clients
//! read stays in the cache.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What is written at once.
const LEN: usize = 1 << 20;
/// Of buffers, offsets and lengths: no file system that can do this asks for more.
pub(super) const ALIGN: usize = 4096;

/// What is to be written next, where the kernel takes it from.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// Longer than [`LEN`], so that an aligned part of it is as long.
    buf: Vec<u8>,
    start: usize,
    len: usize,
}

impl Direct {
    /// For a file that is there; `None` where the file system does not have it.
    pub(super) fn open(folder: impl AsFd, name: &str) -> Option<Self> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
        let buf = vec![0; LEN + ALIGN];
        let start = buf.as_ptr().align_offset(ALIGN);
        (start <= ALIGN).then_some(Self {
            file: file.into(),
            buf,
            start,
            len: 0,
        })
    }

    /// Takes as many of these bytes as there is room for, and says how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let from = self.start + self.len;
        let room = self.buf.get_mut(from..self.start + LEN).unwrap_or_default();
        let taken = bytes.len().min(room.len());
        let (to, from) = (room.get_mut(..taken), bytes.get(..taken));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
        self.len += taken;
        taken
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == LEN
    }

    /// What was taken and not written: what can be written, and the rest, which is too short.
    pub(super) fn pending(&self) -> (&[u8], &[u8]) {
        let pending = self.buf.get(self.start..self.start + self.len);
        let pending = pending.unwrap_or_default();
        pending.split_at(pending.len() - pending.len() % ALIGN)
    }

    pub(super) fn pending_len(&self) -> u64 {
        self.len as u64
    }

    /// Writes what can be written, all of it, at this offset, which is a multiple of [`ALIGN`]. `false`:
    /// the file system does not do it here.
    ///
    /// # Errors
    /// What the system says; any part may have been written then.
    pub(super) fn write_at(&self, offset: u64) -> io::Result<bool> {
        match self.file.write_all_at(self.pending().0, offset) {
            Ok(()) => Ok(true),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What was taken has been dealt with.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}
