//! A manifest as it is kept in a bucket: a line that says what it is, then entries.

use std::collections::{BTreeMap, BTreeSet};

use super::super::content::ContentId;
use super::super::manifest::{Digest, Entry, Key, MAX_ENTRY, Version, summand};
use super::super::wire::{WireError, decode_entry, encode_entry};

/// What it begins with. A later release that writes something else has another number.
const HEAD: &[u8] = b"anycast files 1\n";

/// Why the bytes in the bucket are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("it does not begin as one of this release does")]
    Head,
    #[error("it ends within an entry")]
    Cut,
    #[error("an entry has {0} bytes")]
    Long(usize),
    #[error("an entry is malformed: {0}")]
    Entry(#[from] WireError),
}

/// Encoded entries by key, and the sum of their hashes.
#[derive(Debug, Default)]
pub(super) struct Body {
    entries: BTreeMap<Key, Vec<u8>>,
    digest: u128,
    contents: BTreeSet<ContentId>,
}

impl Body {
    /// Adds an entry, or puts it in the place of what was there.
    pub(super) fn set(&mut self, key: Key, entry: &Entry) {
        let bytes = encode_entry(&key, entry);
        self.contents.extend(contents(entry));
        self.digest = self.digest.wrapping_add(summand(&bytes));
        if let Some(old) = self.entries.insert(key, bytes) {
            self.digest = self.digest.wrapping_sub(summand(&old));
        }
    }

    /// Adds what another knows of a key to what is there.
    pub(super) fn merge(&mut self, key: &Key, other: &Entry) {
        let known = self.entries.get(key).map(|bytes| decode_entry(bytes));
        let mut entry = match known {
            Some(Ok((_, entry))) => entry,
            Some(Err(_)) | None => Entry::default(),
        };
        if entry.merge(other) {
            self.set(key.clone(), &entry);
        }
    }

    /// Equal to that of a manifest with these entries.
    pub(super) fn digest(&self) -> Digest {
        Digest(self.digest)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All contents that live versions name.
    pub(super) fn contents(&self) -> &BTreeSet<ContentId> {
        &self.contents
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let len: usize = self.entries.values().map(|entry| 4 + entry.len()).sum();
        let mut bytes = Vec::with_capacity(HEAD.len() + len);
        bytes.extend(HEAD);
        for entry in self.entries.values() {
            // An entry is at most 128 KiB long.
            let len = u32::try_from(entry.len()).unwrap_or(u32::MAX);
            bytes.extend(len.to_be_bytes());
            bytes.extend(entry);
        }
        bytes
    }
}

/// What a bucket held, decoded.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) entries: Vec<(Key, Entry)>,
    pub(super) digest: Digest,
}

/// Allocates in proportion to `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, BodyError> {
    let mut rest = bytes.strip_prefix(HEAD).ok_or(BodyError::Head)?;
    let mut decoded = Decoded::default();
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk().ok_or(BodyError::Cut)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        if len > MAX_ENTRY {
            return Err(BodyError::Long(len));
        }
        let (entry, after) = after.split_at_checked(len).ok_or(BodyError::Cut)?;
        decoded.entries.push(decode_entry(entry)?);
        decoded.digest.0 = decoded.digest.0.wrapping_add(summand(entry));
        rest = after;
    }
    Ok(decoded)
}

fn contents(entry: &Entry) -> impl Iterator<Item = ContentId> {
    entry.live().values().flat_map(|version| match version {
        Version::File(content) => vec![*content],
        Version::Group(generation) => {
            let members = generation.members().iter();
            members.map(|(_, content)| *content).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::FileName;
    use crate::sync::content::ContentHash;
    use crate::sync::manifest::{Dot, Manifest, Writer};

    fn key(name: &str) -> Key {
        Key::File(FileName::from_wire(name.as_bytes()).unwrap())
    }

    fn version(counter: u64, byte: u8) -> (Dot, Version) {
        let node = "oslo".parse().unwrap();
        let writer = Writer {
            node,
            incarnation: 1,
        };
        let hash = ContentHash([byte; 32]);
        let version = Version::File(ContentId { hash, size: 9 });
        (Dot { counter, writer }, version)
    }

    fn entry(counter: u64, byte: u8) -> Entry {
        let mut entry = Entry::default();
        let (dot, version) = version(counter, byte);
        entry.write(dot, version);
        entry
    }

    #[test]
    fn a_body_has_the_digest_of_its_manifest() {
        let mut manifest = Manifest::new(10);
        let mut body = Body::default();
        for (name, counter) in [("a", 1), ("b", 2), ("a", 3)] {
            let entry = entry(counter, 7);
            manifest.merge(&key(name), &entry).unwrap();
            body.merge(&key(name), &entry);
        }
        assert_eq!(body.digest(), manifest.digest());
        assert_eq!(body.len(), 2);
        let decoded = decode(&body.encode()).unwrap();
        assert_eq!(decoded.digest, manifest.digest());
        assert_eq!(
            decoded.entries,
            manifest.entries_after(None).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let mut body = Body::default();
        body.set(key("a"), &entry(1, 7));
        let bytes = body.encode();
        assert_eq!(decode(b"").unwrap_err(), BodyError::Head);
        assert_eq!(decode(b"<html>").unwrap_err(), BodyError::Head);
        for end in HEAD.len() + 1..bytes.len() {
            assert_eq!(decode(&bytes[..end]).unwrap_err(), BodyError::Cut);
        }
        let long = [HEAD, &[0xff; 4]].concat();
        assert!(matches!(decode(&long), Err(BodyError::Long(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(decode(&bytes));
            drop(decode(&[HEAD, &bytes].concat()));
            let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            drop(decode(&[HEAD, &len, &bytes].concat()));
        }
    }
}
