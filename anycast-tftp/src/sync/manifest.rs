//! Which versions of each file there are. Pure; merges.
//!
//! # Contract
//!
//! - A [`Key`] is a file or a group of files; its [`Entry`] is an observed-remove set of versions.
//!   To write is to remove the versions that the writer replaced, knowingly, and to add one. To
//!   delete is only to remove. What the writer did not know of stays, beside it.
//! - [`Manifest::merge`] is commutative, associative and idempotent: in whatever order and however
//!   often nodes hear of each other's entries, they come to the same. Equal [`Digest`]s mean equal
//!   manifests.
//! - The **view** ([`Manifest::wanted`], [`Manifest::view`]) says which content belongs under which
//!   path. It is a function of the manifest alone:
//!   - of versions that did not know of each other the one with the greatest counter, then writer,
//!     has the path; each other content is beside it, as
//!     `<path>.conflict-<node>-<16 digits of its hash>`. A file that has that very name of its own
//!     keeps it; the conflict then has all digits, and then a number;
//!   - a member of a group goes before a file of that path, and a folder that has files before a
//!     file of its name; all contents of that file are then conflicts.
//! - Every change has the next number ([`Manifest::seq`]); [`Manifest::changes_since`] gives what has
//!   changed since one, each entry once, as it is now.
//! - It holds at most so many entries, deleted ones included, as it is made for; more are
//!   [refused](Refused), and nothing else changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::FileName;
use crate::sync::content::ContentId;
use crate::sync::wire;

mod entry;
mod files;
mod slot;
mod view;

pub use entry::{
    Dot, Entry, Generation, GroupName, GroupNameError, Key, MAX_COUNTER, MAX_GROUP_NAME,
    MAX_MEMBERS, Version, Writer,
};
use files::{Files, MAX_FILES};
use slot::{Slot, Writers};
pub use view::Claim;
use view::View;
pub(in crate::sync) use view::{conflict_names, first_below, folders, is_below};

/// The largest encoded entry, in bytes: it must go into one frame. A merge that would make one
/// larger is refused until somebody deletes some of its conflicts.
pub const MAX_ENTRY: usize = 128 << 10;

/// The sum, modulo 2^128, of a strong hash of each entry: independent of their order, and kept up
/// to date by adding and subtracting. Peers are authenticated; it guards against accident, not
/// against a peer that looks for collisions and could as well lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u128);

/// Why an entry was not taken. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The manifest is full.
    #[error("{key}: the list of files is full ({limit}); raise max_files at every node")]
    Full {
        /// What was to be added.
        key: Key,
        /// How many entries there may be.
        limit: usize,
    },
    /// More versions than fit into [`MAX_ENTRY`].
    #[error("{key}: too many conflicting versions; delete some of its conflict files")]
    Large {
        /// Of what.
        key: Key,
    },
}

/// What a change did: each path whose content may be another now, with the one that it had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// Whether the manifest changed.
    pub has_changed: bool,
    /// What [`Manifest::wanted`] said of these paths before.
    pub before: BTreeMap<FileName, Option<ContentId>>,
}

/// Entries in the order of their last change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The entries, as they are now.
    pub entries: Vec<(Key, Entry)>,
    /// All changes up to this number are in here or were before.
    pub upto: u64,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Manifest {
    limit: usize,
    writers: Writers,
    files: Files,
    groups: BTreeMap<GroupName, Slot>,
    /// By the number of their last change.
    changed_groups: BTreeMap<u64, GroupName>,
    seq: u64,
    digest: Digest,
    view: View,
}

impl Manifest {
    /// An empty one, for so many entries.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            writers: Writers::default(),
            files: Files::default(),
            groups: BTreeMap::new(),
            changed_groups: BTreeMap::new(),
            seq: 0,
            digest: Digest::default(),
            view: View::default(),
        }
    }

    /// Another limit. What is there stays.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Entries, those of deleted files included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len() + self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the last change.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// See [`Digest`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The number of a file that there is an entry of. It stays the same.
    pub(in crate::sync) fn number(&self, path: &FileName) -> Option<u32> {
        self.files.number(path)
    }

    /// The file of that number, and the content of its entry, whether that has the path or not.
    pub(in crate::sync) fn numbered(&self, number: u32) -> Option<(&FileName, Option<ContentId>)> {
        let (name, slot) = self.files.numbered(number)?;
        Some((name, slot.content()))
    }

    /// What is known of a key.
    #[must_use]
    pub fn entry(&self, key: &Key) -> Option<Entry> {
        self.slot(key).map(|slot| slot.entry(&self.writers))
    }

    /// The entries after this key, or all, files first.
    pub fn entries_after(&self, after: Option<&Key>) -> impl Iterator<Item = (Key, Entry)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (file, group) = match after {
            None => (Some(Unbounded), Unbounded),
            Some(Key::File(name)) => (Some(Excluded(name)), Unbounded),
            Some(Key::Group(name)) => (None, Excluded(name)),
        };
        let files = file.map(|from| self.files.from(from));
        let files = files.into_iter().flatten();
        let files = files.map(|(name, slot)| (Key::File(name.clone()), slot));
        let groups = self.groups.range::<GroupName, _>((group, Unbounded));
        let groups = groups.map(|(name, slot)| (Key::Group(name.clone()), slot));
        files
            .chain(groups)
            .map(|(key, slot)| (key, slot.entry(&self.writers)))
    }

    /// Takes in what another node knows of a key.
    ///
    /// # Errors
    /// [`Refused`]; nothing was changed.
    pub fn merge(&mut self, key: &Key, other: &Entry) -> Result<Touched, Refused> {
        let mut entry = self.entry(key).unwrap_or_default();
        if !entry.merge(other) {
            return Ok(Touched::default());
        }
        self.put(key, entry)
    }

    /// Replaces, of this key, the versions that `replaced` says yes to by another one.
    ///
    /// # Errors
    /// [`Refused`]; nothing was changed.
    pub fn write(
        &mut self,
        key: &Key,
        dot: Dot,
        version: Version,
        replaced: impl Fn(&Version) -> bool,
    ) -> Result<Touched, Refused> {
        let mut entry = self.entry(key).unwrap_or_default();
        entry.erase(replaced);
        entry.write(dot, version);
        self.put(key, entry)
    }

    /// Removes, of this key, the versions that `replaced` says yes to.
    ///
    /// # Errors
    /// [`Refused`] cannot come of less; it is the type of the others.
    pub fn erase(
        &mut self,
        key: &Key,
        replaced: impl Fn(&Version) -> bool,
    ) -> Result<Touched, Refused> {
        let mut entry = self.entry(key).unwrap_or_default();
        if !entry.erase(replaced) {
            return Ok(Touched::default());
        }
        self.put(key, entry)
    }

    /// What has changed since a number, in at most so many bytes, but at least one entry if any.
    #[must_use]
    pub fn changes_since(&self, since: u64, until: u64, budget: usize) -> Changes {
        let mut changes = Changes {
            entries: Vec::new(),
            upto: since,
        };
        let mut size = 0;
        for (key, slot) in self.changed_since(since) {
            if slot.seq > until {
                break;
            }
            let entry = slot.entry(&self.writers);
            size += wire::entry_size(&key, &entry);
            if size > budget && !changes.entries.is_empty() {
                return changes;
            }
            changes.entries.push((key, entry));
            changes.upto = slot.seq;
        }
        changes.upto = changes.upto.max(until.min(self.seq));
        changes
    }

    /// Files and groups in order of their last change, those that have a greater number.
    fn changed_since(&self, since: u64) -> impl Iterator<Item = (Key, &Slot)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut files = self.files.changed_since(since).peekable();
        let groups = self.changed_groups.range((Excluded(since), Unbounded));
        let mut groups = groups.peekable();
        std::iter::from_fn(move || {
            let file = files.peek().map(|(_, slot)| slot.seq);
            if let Some((_, name)) = groups.next_if(|(seq, _)| file.is_none_or(|file| **seq < file))
            {
                return Some((Key::Group(name.clone()), self.groups.get(name)?));
            }
            let (name, slot) = files.next()?;
            Some((Key::File(name.clone()), slot))
        })
    }

    fn slot(&self, key: &Key) -> Option<&Slot> {
        match key {
            Key::File(name) => self.files.get(name),
            Key::Group(name) => self.groups.get(name),
        }
    }

    fn put(&mut self, key: &Key, entry: Entry) -> Result<Touched, Refused> {
        let limit = self.limit.min(MAX_FILES);
        let old = self.slot(key);
        if old.is_none() && self.len() >= limit {
            return Err(Refused::Full {
                key: key.clone(),
                limit,
            });
        }
        let bytes = wire::encode_entry(key, &entry);
        if bytes.len() > MAX_ENTRY {
            return Err(Refused::Large { key: key.clone() });
        }
        let old = old.map(|slot| slot.entry(&self.writers));
        if let Some(old) = &old {
            let sum = summand(&wire::encode_entry(key, old));
            self.digest.0 = self.digest.0.wrapping_sub(sum);
        }
        self.digest.0 = self.digest.0.wrapping_add(summand(&bytes));
        self.seq += 1;
        let affected = self.affected(key, old.as_ref(), &entry);
        let mut touched = Touched {
            has_changed: true,
            before: self.remember(key, old.as_ref(), &entry),
        };
        let slot = Slot::new(self.seq, entry, &mut self.writers);
        match key {
            Key::File(name) => self.files.insert(name, slot),
            Key::Group(name) => {
                self.changed_groups.insert(slot.seq, name.clone());
                if let Some(old) = self.groups.insert(name.clone(), slot) {
                    self.changed_groups.remove(&old.seq);
                }
            }
        }
        self.settle(key, affected, &mut touched);
        Ok(touched)
    }
}

pub(in crate::sync) fn summand(bytes: &[u8]) -> u128 {
    let hash = blake3::hash(bytes);
    let (half, _) = hash.as_bytes().split_at(16);
    half.iter()
        .fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

/// Keys whose place is to be found anew.
type Affected = BTreeSet<Key>;

#[cfg(test)]
mod tests;
