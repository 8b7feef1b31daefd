//! What is at each path as far as we know, so that a scan hashes only what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::disk::Stamp;
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};

/// The file may have been changed again without its times showing it: hash it once more.
const RACY: u64 = 1;
/// The running scan has seen it.
const SEEN: u64 = 2;

/// 48 bytes; a million of them are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    hash: [u8; 32],
    size: u64,
    /// [`Stamp::print`] and the two flags above.
    print: u64,
}

impl Entry {
    pub(super) fn new(content: ContentId, stamp: &Stamp, is_racy: bool) -> Self {
        Self {
            hash: content.hash.0,
            size: content.size,
            print: stamp.print() | if is_racy { RACY } else { 0 },
        }
    }

    pub(super) fn content(&self) -> ContentId {
        ContentId {
            hash: ContentHash(self.hash),
            size: self.size,
        }
    }

    pub(super) fn is_racy(&self) -> bool {
        self.print & RACY != 0
    }

    pub(super) fn is_at(&self, stamp: &Stamp) -> bool {
        self.size == stamp.size && self.print & !3 == stamp.print()
    }

    pub(super) fn parts(&self) -> ([u8; 32], u64, u64) {
        (self.hash, self.size, self.print & !SEEN)
    }

    pub(super) fn from_parts(hash: [u8; 32], size: u64, print: u64) -> Self {
        Self {
            hash,
            size,
            print: print & !SEEN,
        }
    }
}

/// Paths and what they hold.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: BTreeMap<FileName, Entry>,
    /// The first bytes of the hash, and where it is.
    places: BTreeSet<(u32, Option<FileName>)>,
    /// Folders that an install created, and that go when they are empty.
    pub(super) made: BTreeSet<Box<str>>,
    /// Something changed since the cache was saved.
    pub(super) is_dirty: bool,
}

fn prefix(hash: &[u8; 32]) -> u32 {
    u32::from_be_bytes(hash.first_chunk().copied().unwrap_or_default())
}

impl Cache {
    pub(super) fn from_sorted(
        entries: BTreeMap<FileName, Entry>,
        made: BTreeSet<Box<str>>,
    ) -> Self {
        let places = entries
            .iter()
            .map(|(name, entry)| (prefix(&entry.hash), Some(name.clone())))
            .collect();
        Self {
            entries,
            places,
            made,
            is_dirty: false,
        }
    }

    /// Maps that grew one by one are half empty; this makes them full. They stay usable.
    pub(super) fn pack(&mut self) {
        self.entries = std::mem::take(&mut self.entries).into_iter().collect();
        self.places = std::mem::take(&mut self.places).into_iter().collect();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FileName, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, name: &str) -> Option<(&FileName, &Entry)> {
        self.entries.get_key_value(name)
    }

    pub(super) fn content(&self, name: &str) -> Option<ContentId> {
        self.entries.get(name).map(Entry::content)
    }

    /// Says whether the content there is another than before.
    pub(super) fn insert(&mut self, name: FileName, mut entry: Entry) -> bool {
        self.is_dirty = true;
        entry.print |= SEEN;
        let place = (prefix(&entry.hash), Some(name.clone()));
        let old = self.entries.insert(name.clone(), entry);
        if old.is_some_and(|old| old.hash == entry.hash) {
            return false;
        }
        if let Some(old) = old {
            self.places.remove(&(prefix(&old.hash), Some(name)));
        }
        self.places.insert(place);
        true
    }

    /// The file there has been hashed once more, when its times could be trusted.
    pub(super) fn confirm(&mut self, name: &str, content: ContentId, stamp: &Stamp) {
        if let Some(entry) = self.entries.get_mut(name)
            && entry.is_racy()
            && entry.is_at(stamp)
            && entry.content() == content
        {
            entry.print &= !RACY;
            self.is_dirty = true;
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<(FileName, ContentId)> {
        let (name, entry) = self.entries.remove_entry(name)?;
        self.is_dirty = true;
        self.places
            .remove(&(prefix(&entry.hash), Some(name.clone())));
        Some((name, entry.content()))
    }

    /// Where a content is, as far as we know.
    pub(super) fn places_of(&self, content: &ContentId) -> Vec<(FileName, Entry)> {
        let first = prefix(&content.hash.0);
        self.places
            .range((first, None)..)
            .take_while(|(found, _)| *found == first)
            .filter_map(|(_, name)| name.as_ref())
            .filter_map(|name| Some((name.clone(), *self.entries.get(name)?)))
            .filter(|(_, entry)| entry.content() == *content)
            .collect()
    }

    /// The names of a path itself and of what is below it (all names for an empty path) that the running
    /// scan has not seen.
    pub(super) fn unseen_in(&self, path: &str) -> Vec<FileName> {
        let own = self.entries.get_key_value(path).into_iter();
        let (from, to) = bounds(path);
        let below = self.entries.range::<str, _>((borrow(&from), borrow(&to)));
        own.chain(below)
            .filter(|(_, entry)| entry.print & SEEN == 0)
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn see(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.print |= SEEN;
        }
    }

    pub(super) fn set_seen_in(&mut self, path: &str, is_seen: bool) {
        let set = |entry: &mut Entry| {
            entry.print = entry.print & !SEEN | if is_seen { SEEN } else { 0 };
        };
        let (from, to) = bounds(path);
        let below = self
            .entries
            .range_mut::<str, _>((borrow(&from), borrow(&to)));
        below.for_each(|(_, entry)| set(entry));
        self.entries.get_mut(path).into_iter().for_each(set);
    }
}

/// All that begins with `path/` (the byte after the slash is `0`); all there is for an empty path.
fn bounds(path: &str) -> (Bound<String>, Bound<String>) {
    if path.is_empty() {
        return (Bound::Unbounded, Bound::Unbounded);
    }
    let from = Bound::Included(format!("{path}/"));
    (from, Bound::Excluded(format!("{path}0")))
}

fn borrow(bound: &Bound<String>) -> Bound<&str> {
    bound.as_ref().map(String::as_str)
}
