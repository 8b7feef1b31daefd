//! BLAKE3 of files.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::io::Errno;

use super::disk::{self, Stamp};
use super::objects::split;
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};

/// Threads that hash.
const HASHERS: usize = 2;

/// How much of a file is in memory at a time.
pub(super) const PIECE: usize = 1 << 20;

/// Hashes a file from its beginning to what is its end then.
pub(super) fn hash_file(file: &File) -> io::Result<ContentId> {
    hash_with(file, u64::MAX, &mut blake3::Hasher::new(), &mut Vec::new())
}

/// Hashes the first `len` bytes, or fewer if there are fewer. `buf` is scratch, worth reusing.
pub(super) fn hash_with(
    file: &File,
    len: u64,
    hasher: &mut blake3::Hasher,
    buf: &mut Vec<u8>,
) -> io::Result<ContentId> {
    let known = file.metadata()?.len().min(len);
    let piece = usize::try_from(known.saturating_add(1)).unwrap_or(PIECE);
    buf.resize(piece.clamp(1, PIECE), 0);
    let mut size = 0;
    while size < len {
        let most = usize::try_from(len - size).unwrap_or(usize::MAX);
        let most = most.min(buf.len());
        let Some(piece) = buf.get_mut(..most) else {
            break;
        };
        let read = match file.read_at(piece, size) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(piece.get(..read).unwrap_or_default());
        size += read as u64;
    }
    Ok(ContentId {
        hash: ContentHash(*hasher.finalize().as_bytes()),
        size,
    })
}

/// A file to be hashed.
pub(super) struct Todo {
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: FileName,
    pub(super) stamp: Stamp,
}

/// What came of it.
pub(super) enum Hashed {
    Is(ContentId),
    Busy,
    Gone,
    Failed(Errno),
}

/// Hashes what is to be, in order.
pub(super) fn hash_all(todo: &[Todo]) -> Vec<Hashed> {
    let size: u64 = todo.iter().map(|todo| todo.stamp.size).sum();
    // A thread costs more than a few small files.
    if todo.len() < 8 && size < PIECE as u64 {
        return hash_some(todo.iter());
    }
    // Alternately: a folder's large files are often beside each other.
    let parts: Vec<Vec<Hashed>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..HASHERS)
            .map(|first| scope.spawn(move || hash_some(todo.iter().skip(first).step_by(HASHERS))))
            .collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(Result::unwrap_or_default).collect()
    });
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::with_capacity(todo.len());
    for index in 0..todo.len() {
        let next = parts.get_mut(index % HASHERS).and_then(Iterator::next);
        // A hasher that ended early: looked at again.
        all.push(next.unwrap_or(Hashed::Busy));
    }
    all
}

fn hash_some<'a>(todo: impl Iterator<Item = &'a Todo>) -> Vec<Hashed> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = Vec::new();
    todo.map(|todo| {
        hasher.reset();
        hash_one(todo, &mut hasher, &mut buf)
    })
    .collect()
}

fn hash_one(todo: &Todo, hasher: &mut blake3::Hasher, buf: &mut Vec<u8>) -> Hashed {
    let (_, own) = split(&todo.name);
    let (file, stamp) = match disk::open_file(&todo.folder, own) {
        Ok(opened) => opened,
        Err(errno) if disk::is_not_there(errno) || errno == Errno::INVAL => return Hashed::Gone,
        Err(errno) => return Hashed::Failed(errno),
    };
    if stamp != todo.stamp {
        return Hashed::Busy;
    }
    let content = match hash_with(&file, u64::MAX, hasher, buf) {
        Ok(content) => content,
        Err(error) => return Hashed::Failed(disk::errno(&error)),
    };
    match rustix::fs::fstat(&file) {
        Ok(found) if Stamp::of(&found) == stamp && content.size == stamp.size => {
            Hashed::Is(content)
        }
        Ok(_) => Hashed::Busy,
        Err(errno) => Hashed::Failed(errno),
    }
}
