//! The cache between two runs: a file that is taken whole or not at all. Without it everything is
//! hashed again, and nothing else comes of it.

use std::io::{self, Write as _};

use super::Folder;
use super::cache::{Cache, Entry};
use super::disk::Stamp;
use crate::store::FileName;

/// With the version of what follows.
const MAGIC: &[u8; 16] = b"anycast files 1\n";
const NAME: &str = "cache";
const CHECK: usize = 32;

impl Folder {
    /// Saves what is at each path, if that changed since the last time, so that the next start hashes
    /// only what changed meanwhile.
    ///
    /// # Errors
    /// What the system said. The file that was saved before is still there then.
    pub fn save(&self) -> io::Result<()> {
        let mut cache = self.cache();
        if !cache.is_dirty {
            return Ok(());
        }
        let bytes = encode(&cache, &self.root_key()?);
        cache.is_dirty = false;
        drop(cache);
        let written = self.write_cache(&bytes);
        if written.is_err() {
            self.cache().is_dirty = true;
        }
        written
    }

    fn write_cache(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.state.join("cache.new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        // A name without its content would cost a hash of everything.
        file.sync_data()?;
        std::fs::rename(temporary, self.state.join(NAME))
    }

    pub(super) fn load(&self) {
        let path = self.state.join(NAME);
        let read = std::fs::read(&path);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "every file is hashed again");
                return;
            }
        };
        let key = self.root_key().unwrap_or_default();
        match decode(&bytes, &key) {
            Some(cache) => *self.cache() = cache,
            None => tracing::warn!(path = %path.display(),
                "what was known of the files is damaged or of another folder; every file is hashed again"),
        }
    }

    /// Tells this root from another that uses the same state.
    fn root_key(&self) -> io::Result<[u8; 16]> {
        let root = Stamp::of(&rustix::fs::fstat(&self.root)?);
        let mut key = [0; 16];
        let (device, inode) = key.split_at_mut(8);
        device.copy_from_slice(&root.device.to_le_bytes());
        inode.copy_from_slice(&root.inode.to_le_bytes());
        Ok(key)
    }
}

fn encode(cache: &Cache, key: &[u8; 16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + cache.len() * 96);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&(cache.len() as u64).to_le_bytes());
    for (name, entry) in cache.iter() {
        put_text(&mut bytes, name.as_str());
        let (hash, size, print) = entry.parts();
        bytes.extend_from_slice(&hash);
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&print.to_le_bytes());
    }
    bytes.extend_from_slice(&(cache.made.len() as u64).to_le_bytes());
    for folder in &cache.made {
        put_text(&mut bytes, folder);
    }
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// Names are shorter than 64 KiB.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(0);
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn decode(bytes: &[u8], key: &[u8; 16]) -> Option<Cache> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK)?)?;
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let mut rest = body;
    if take(&mut rest)? != *MAGIC || take(&mut rest)? != *key {
        return None;
    }
    let mut cache = Cache::default();
    for _ in 0..u64::from_le_bytes(take(&mut rest)?) {
        let name = FileName::from_wire(take_text(&mut rest)?).ok()?;
        let hash = take(&mut rest)?;
        let size = u64::from_le_bytes(take(&mut rest)?);
        let print = u64::from_le_bytes(take(&mut rest)?);
        cache.put(name, Entry::from_parts(hash, size, print));
    }
    for _ in 0..u64::from_le_bytes(take(&mut rest)?) {
        let folder = std::str::from_utf8(take_text(&mut rest)?).ok()?;
        cache.made.insert(folder.into());
    }
    rest.is_empty().then_some(cache)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u16::from_le_bytes(take(rest)?);
    let (text, others) = rest.split_at_checked(len.into())?;
    *rest = others;
    Some(text)
}
