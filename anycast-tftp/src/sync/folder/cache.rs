//! What is at each path as far as we know, so that a scan hashes only what changed.

use std::collections::BTreeSet;

use super::disk::Stamp;
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::sorted::Sorted;

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
    /// By number: what is last takes the place of one that goes.
    rows: Vec<(FileName, Entry)>,
    by_name: Sorted,
    /// By hash, then by name.
    by_content: Sorted,
    /// Folders that an install created, and that go when they are empty.
    pub(super) made: BTreeSet<Box<str>>,
    /// Something changed since the cache was saved.
    pub(super) is_dirty: bool,
}

fn row(rows: &[(FileName, Entry)], number: u32) -> Option<&(FileName, Entry)> {
    rows.get(usize::try_from(number).ok()?)
}

fn is_before_name(rows: &[(FileName, Entry)], name: &str) -> impl Fn(u32) -> bool {
    move |number| row(rows, number).is_some_and(|(known, _)| known.as_str() < name)
}

fn is_before_content(
    rows: &[(FileName, Entry)],
    hash: &[u8; 32],
    name: &str,
) -> impl Fn(u32) -> bool {
    move |number| {
        let row = row(rows, number);
        row.is_some_and(|(known, entry)| (&entry.hash, known.as_str()) < (hash, name))
    }
}

impl Cache {
    /// What grew in no order takes more than it has to; this tidies. It stays usable.
    pub(super) fn pack(&mut self) {
        self.by_name.pack();
        self.by_content.pack();
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// In order of name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&FileName, &Entry)> {
        let numbers = self.by_name.iter();
        let rows = numbers.filter_map(|number| row(&self.rows, number));
        rows.map(|(name, entry)| (name, entry))
    }

    pub(super) fn get(&self, name: &str) -> Option<(&FileName, &Entry)> {
        let (name, entry) = row(&self.rows, self.number(name)?)?;
        Some((name, entry))
    }

    pub(super) fn content(&self, name: &str) -> Option<ContentId> {
        self.get(name).map(|(_, entry)| entry.content())
    }

    /// Says whether the content there is another than before.
    pub(super) fn insert(&mut self, name: FileName, mut entry: Entry) -> bool {
        self.is_dirty = true;
        entry.print |= SEEN;
        self.put(name, entry)
    }

    /// Says whether the content there is another than before.
    pub(super) fn put(&mut self, name: FileName, entry: Entry) -> bool {
        let Some(number) = self.number(name.as_str()) else {
            let Ok(number) = u32::try_from(self.rows.len()) else {
                return true; // more than there are numbers for: hashed again by each scan
            };
            let rows = &self.rows;
            let is_before = is_before_name(rows, name.as_str());
            self.by_name.insert(number, is_before);
            let is_before = is_before_content(rows, &entry.hash, name.as_str());
            self.by_content.insert(number, is_before);
            self.rows.push((name, entry));
            return true;
        };
        let old = row(&self.rows, number).map(|(_, old)| old.hash);
        let is_other = old != Some(entry.hash);
        if let Some(old) = old.filter(|_| is_other) {
            let is_before = is_before_content(&self.rows, &old, name.as_str());
            self.by_content.remove(number, is_before);
            let is_before = is_before_content(&self.rows, &entry.hash, name.as_str());
            self.by_content.insert(number, is_before);
        }
        if let Some(known) = self.entry_mut(number) {
            *known = entry;
        }
        is_other
    }

    /// The file there has been hashed once more, when its times could be trusted.
    pub(super) fn confirm(&mut self, name: &str, content: ContentId, stamp: &Stamp) {
        let number = self.number(name);
        if let Some(entry) = number.and_then(|number| self.entry_mut(number))
            && entry.is_racy()
            && entry.is_at(stamp)
            && entry.content() == content
        {
            entry.print &= !RACY;
            self.is_dirty = true;
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<(FileName, ContentId)> {
        let number = self.number(name)?;
        let at = usize::try_from(number).ok()?;
        let (_, entry) = *row(&self.rows, number)?;
        self.is_dirty = true;
        self.by_name
            .remove(number, is_before_name(&self.rows, name));
        let is_before = is_before_content(&self.rows, &entry.hash, name);
        self.by_content.remove(number, is_before);
        if let Some((moved, entry)) = self.rows.last() {
            let last = u32::try_from(self.rows.len() - 1).ok()?;
            let is_before = is_before_name(&self.rows, moved.as_str());
            self.by_name.renumber(last, number, is_before);
            let is_before = is_before_content(&self.rows, &entry.hash, moved.as_str());
            self.by_content.renumber(last, number, is_before);
        }
        let (name, entry) = self.rows.swap_remove(at);
        Some((name, entry.content()))
    }

    /// Where a content is, as far as we know.
    pub(super) fn places_of(&self, content: &ContentId) -> Vec<(FileName, Entry)> {
        let is_before = is_before_content(&self.rows, &content.hash.0, "");
        self.by_content
            .from(&is_before)
            .filter_map(|number| row(&self.rows, number))
            .take_while(|(_, entry)| entry.hash == content.hash.0)
            .filter(|(_, entry)| entry.content() == *content)
            .cloned()
            .collect()
    }

    /// The names of a path itself and of what is below it (all names for an empty path) that the running
    /// scan has not seen.
    pub(super) fn unseen_in(&self, path: &str) -> Vec<FileName> {
        let rows = self.numbers_in(path);
        rows.filter_map(|number| row(&self.rows, number))
            .filter(|(_, entry)| entry.print & SEEN == 0)
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(super) fn see(&mut self, name: &str) {
        let number = self.number(name);
        if let Some(entry) = number.and_then(|number| self.entry_mut(number)) {
            entry.print |= SEEN;
        }
    }

    pub(super) fn set_seen_in(&mut self, path: &str, is_seen: bool) {
        let set = |entry: &mut Entry| {
            entry.print = entry.print & !SEEN | if is_seen { SEEN } else { 0 };
        };
        if path.is_empty() {
            self.rows.iter_mut().for_each(|(_, entry)| set(entry));
            return;
        }
        let numbers: Vec<_> = self.numbers_in(path).collect();
        for number in numbers {
            self.entry_mut(number).into_iter().for_each(set);
        }
    }

    fn number(&self, name: &str) -> Option<u32> {
        let number = self.by_name.first(is_before_name(&self.rows, name))?;
        let (known, _) = row(&self.rows, number)?;
        (known.as_str() == name).then_some(number)
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let row = self.rows.get_mut(usize::try_from(number).ok()?);
        row.map(|(_, entry)| entry)
    }

    /// A path itself and what is below it; all there is for an empty path.
    fn numbers_in(&self, path: &str) -> impl Iterator<Item = u32> {
        let own = self.number(path).into_iter();
        let folder = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let below = self.by_name.from(&is_before_name(&self.rows, &folder));
        let is_below = move |number: &u32| {
            let row = row(&self.rows, *number);
            row.is_some_and(|(name, _)| name.as_str().starts_with(&folder))
        };
        own.chain(below.take_while(is_below))
    }
}
