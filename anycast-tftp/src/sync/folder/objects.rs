//! Contents that are readable by their hash: objects, and files whose content we know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::disk::{self, Stamp};
use super::lock::Locked;
use super::{Folder, hashing};
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};

/// How old a partial content that nobody continues may become, in nanoseconds: a day.
const STAGING_AGE: i64 = 86_400 * 1_000_000_000;

/// Objects whose content was verified since the start, as they were then. An object that is not in
/// here is hashed before it is used.
pub(super) type Known = BTreeMap<ContentHash, Stamp>;

/// Why a content cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// It is nowhere in this folder, or was changed since it was.
    #[error("the content {0} is not here")]
    Absent(ContentHash),
    /// The disk failed.
    #[error("the content {hash} cannot be read: {source}")]
    Io {
        /// The content.
        hash: ContentHash,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A content, open for reading. Whoever has it can go on reading when its names are gone.
#[derive(Debug)]
pub struct Held {
    file: File,
    stamp: Stamp,
    content: ContentId,
}

impl Held {
    pub(super) fn new(file: File, stamp: Stamp, content: ContentId) -> Self {
        Self {
            file,
            stamp,
            content,
        }
    }

    /// What it is.
    #[must_use]
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// What the system said; `UnexpectedEof` where the file was cut or changed in place meanwhile:
    /// the bytes must not be used.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)?;
        if self.is_intact()? {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file was changed in place",
        ))
    }

    /// Whether the file is as it was when it was opened.
    ///
    /// # Errors
    /// What the system said.
    pub fn is_intact(&self) -> io::Result<bool> {
        let now = Stamp::of(&rustix::fs::fstat(&self.file)?);
        Ok(now.is_moved(&self.stamp))
    }
}

/// What [`Folder::sweep_staging`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Objects and partial contents.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Folder {
    /// Opens a content, wherever in this folder it is.
    ///
    /// An object that was not used since the start is hashed first. A file is taken at its times:
    /// where they are what they were when it was hashed, it is what it was.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn open_content(&self, content: &ContentId) -> Result<Held, ObjectError> {
        self.open_where(content, |_, _| true)
    }

    /// As [`open_content`](Self::open_content), but only what it is for certain: a file whose times
    /// do not tell is hashed if it is [`SMALL`](super::SMALL), and else passed over.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn open_certain(&self, content: &ContentId) -> Result<Held, ObjectError> {
        self.open_where(content, |name, file| {
            self.identify(name, file).ok().flatten() == Some(*content)
        })
    }

    fn open_where(
        &self,
        content: &ContentId,
        may_use: impl Fn(&FileName, &File) -> bool,
    ) -> Result<Held, ObjectError> {
        if let Some(held) = self.open_object(content)? {
            return Ok(held);
        }
        let places = self.cache().places_of(content);
        for (name, entry) in places {
            let (folder, file) = name.split();
            let opened = disk::open_folder(&self.root, folder.unwrap_or(""))
                .and_then(|folder| disk::open_file(folder, file));
            if let Ok((file, stamp)) = opened
                && entry.is_at(&stamp)
                && may_use(&name, &file)
            {
                return Ok(Held::new(file, stamp, *content));
            }
        }
        Err(ObjectError::Absent(content.hash))
    }

    /// Whether a content is somewhere in this folder, as far as is known without reading it.
    #[must_use]
    pub fn has_content(&self, content: &ContentId) -> bool {
        let is_object = disk::look(&self.objects, &to_hex(&content.hash.0))
            .is_ok_and(|found| Stamp::of(&found).size == content.size);
        is_object || !self.cache().places_of(content).is_empty()
    }

    /// Gives a content that has a path a name in `objects` too, so that it stays readable when the
    /// path gets another. Nothing happens where it is an object already.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn keep_content(&self, content: &ContentId) -> Result<(), ObjectError> {
        if self.open_object(content)?.is_some() {
            return Ok(());
        }
        let mut cache = self.cache();
        for (name, entry) in cache.places_of(content) {
            let (folder, file) = name.split();
            let Ok(folder) = disk::open_folder(&self.root, folder.unwrap_or("")) else {
                continue;
            };
            let is_same = |stamp: &Stamp| entry.is_at(stamp);
            let Ok(before) = disk::look(&folder, file).map(|found| Stamp::of(&found)) else {
                continue;
            };
            if !is_same(&before) {
                continue;
            }
            let object = to_hex(&content.hash.0);
            let linked =
                rustix::fs::linkat(&folder, file, &self.objects, &object, AtFlags::empty());
            match linked {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(unreadable(content, errno)),
            }
            let now =
                disk::look(&self.objects, &object).map_err(|errno| unreadable(content, errno))?;
            let now = Stamp::of(&now);
            if now.is_moved(&before) {
                // Linking changed the file's times: it is the same all the same.
                let is_racy = entry.is_racy();
                let entry = super::cache::Entry::new(*content, &now, is_racy);
                cache.insert(name, entry);
                // What is doubtful is hashed before it is used.
                if !is_racy {
                    self.known().insert(content.hash, now);
                }
                return Ok(());
            }
            let _ = rustix::fs::unlinkat(&self.objects, &object, AtFlags::empty());
        }
        Err(ObjectError::Absent(content.hash))
    }

    /// The object of that name, if there is one and it is what its name says.
    pub(super) fn open_object(&self, content: &ContentId) -> Result<Option<Held>, ObjectError> {
        let name = to_hex(&content.hash.0);
        let (file, stamp) = match disk::open_file(&self.objects, &name) {
            Ok(found) => found,
            Err(errno) if disk::is_missing(errno) => return Ok(None),
            Err(errno) => return Err(unreadable(content, errno)),
        };
        let is_known = self
            .known()
            .get(&content.hash)
            .is_some_and(|known| known.is_moved(&stamp));
        if !is_known {
            let found = hashing::hash_file(&file).map_err(|source| ObjectError::Io {
                hash: content.hash,
                source,
            })?;
            if found != *content {
                tracing::warn!(object = %content.hash, "an object is not what its name says; it was removed");
                let _ = rustix::fs::unlinkat(&self.objects, &name, AtFlags::empty());
                return Ok(None);
            }
            self.known().insert(content.hash, stamp);
        }
        Ok(Some(Held::new(file, stamp, *content)))
    }

    /// The objects that are here, as their names and sizes say. Those that are not what their names
    /// say are found out when they are opened.
    ///
    /// # Errors
    /// What the system said.
    pub fn objects(&self) -> io::Result<Vec<ContentId>> {
        let mut objects = Vec::new();
        for name in names(&self.objects)? {
            let hash = from_hex(&name).map(ContentHash);
            let found = disk::look(&self.objects, &name).ok();
            if let (Some(hash), Some(found)) = (hash, found) {
                let size = Stamp::of(&found).size;
                objects.push(ContentId { hash, size });
            }
        }
        objects.sort_unstable();
        Ok(objects)
    }

    /// Removes an object, if there is one of this content. Whoever has it open can go on reading.
    pub fn release(&self, content: &ContentId) {
        self.known().remove(&content.hash);
        // It is not there, or is found by the next sweep.
        let name = to_hex(&content.hash.0);
        let _ = rustix::fs::unlinkat(&self.objects, &name, AtFlags::empty());
    }

    /// Removes partial contents that are not in `fetching` and that nobody has continued for a day,
    /// or, the oldest first, beyond `limit` bytes.
    ///
    /// # Errors
    /// What the system said; some may have been removed.
    pub fn sweep_staging(&self, fetching: &BTreeSet<ContentHash>, limit: u64) -> io::Result<Swept> {
        let mut swept = Swept::default();
        let now = disk::clock(&self.clock)?;
        let mut left = Vec::new();
        for name in names(&self.staging)? {
            let hash = from_hex(&name).map(ContentHash);
            if hash.is_some_and(|hash| fetching.contains(&hash)) {
                continue;
            }
            let Ok(found) = disk::look(&self.staging, &name) else {
                continue;
            };
            left.push((Stamp::of(&found), name));
        }
        left.sort_by_key(|(stamp, _)| std::cmp::Reverse(stamp.modified));
        let mut kept: u64 = 0;
        for (stamp, name) in left {
            kept = kept.saturating_add(stamp.size);
            let is_old = now.saturating_sub(stamp.modified) > STAGING_AGE;
            if is_old || kept > limit || stamp.size == 0 {
                self.sweep_one(&self.staging, &name, &mut swept)?;
            }
        }
        Ok(swept)
    }

    fn sweep_one(&self, folder: impl AsFd, name: &str, swept: &mut Swept) -> io::Result<()> {
        // A content that a stage is writing to is locked.
        let Ok((file, stamp)) = disk::open_file(&folder, name) else {
            return Ok(());
        };
        let Some(_lock) = Locked::new(file) else {
            return Ok(());
        };
        rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
        swept.files += 1;
        swept.bytes = swept.bytes.saturating_add(stamp.size);
        Ok(())
    }
}

fn unreadable(content: &ContentId, errno: Errno) -> ObjectError {
    ObjectError::Io {
        hash: content.hash,
        source: errno.into(),
    }
}

/// The regular files in a folder of ours.
pub(super) fn names(folder: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let is_other = !matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
        if let (false, Ok(name)) = (is_other, entry.file_name().to_str()) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// Where a file is: its folder, which is empty for the root, and its own name.
pub(super) fn split(name: &FileName) -> (&str, &str) {
    let (folder, file) = name.split();
    (folder.unwrap_or(""), file)
}
