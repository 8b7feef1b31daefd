//! What an open file is, for certain.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::Folder;
use super::disk::{self, GRANULARITY, Stamp, TICK};
use super::hashing;
use crate::store::FileName;
use crate::sync::content::ContentId;

/// A file of at most so many bytes is hashed where its times do not tell what it is: 4 MiB, some
/// milliseconds.
pub const SMALL: u64 = 4 << 20;

/// After so long the times of a file tell whether it was changed since.
pub const DOUBT: Duration = Duration::from_nanos(GRANULARITY.unsigned_abs());

impl Folder {
    /// What a file is that was opened at this path. `None`: not known for certain. Then it was
    /// changed since it was last looked at, or a moment ago, and is not [`SMALL`].
    ///
    /// It stays true of the open file for as long as its size and its time of modification stay.
    ///
    /// # Errors
    /// What the system said.
    pub fn identify(&self, name: &FileName, file: &File) -> io::Result<Option<ContentId>> {
        let stamp = Stamp::of(&rustix::fs::fstat(file)?);
        let known = self.cache().get(name.as_str()).map(|(_, entry)| *entry);
        let known = known.filter(|entry| entry.is_at(&stamp) && !entry.is_racy());
        if let Some(entry) = known {
            return Ok(Some(entry.content()));
        }
        if stamp.size > SMALL {
            return Ok(None);
        }
        let now = disk::clock(&self.clock)?;
        if is_racy(&stamp, now) {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        let content = hashing::hash_with(file, SMALL + 1, &mut hasher, &mut Vec::new())?;
        let after = Stamp::of(&rustix::fs::fstat(file)?);
        if after != stamp || content.size != stamp.size {
            return Ok(None);
        }
        self.cache().confirm(name.as_str(), content, &stamp);
        Ok(Some(content))
    }
}

/// Could the file be changed from now on without its times showing it? By the file system's clock.
fn is_racy(stamp: &Stamp, now: i64) -> bool {
    let is_coarse = stamp.modified % 1_000_000_000 == 0;
    let window = if is_coarse { GRANULARITY } else { TICK };
    stamp.modified.abs_diff(now) <= window.unsigned_abs()
}
