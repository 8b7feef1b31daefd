//! What is in the folder, as far as is known, against what belongs there.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{Manifest, first_below, is_below};

/// Only what differs from the view is kept in full.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What is there where it is not what belongs there.
    differing: BTreeMap<FileName, Option<ContentId>>,
    /// Paths that have a content, by the first bytes of its hash.
    holders: BTreeSet<(u64, FileName)>,
    /// Contents that belong somewhere and are not there.
    needs: BTreeSet<(ContentHash, FileName)>,
}

impl Disk {
    pub(super) fn get(&self, manifest: &Manifest, path: &FileName) -> Option<ContentId> {
        let differing = self.differing.get(path).copied();
        differing.unwrap_or_else(|| manifest.wanted(path))
    }

    /// This is there now; whether that is another than was known.
    pub(super) fn set(
        &mut self,
        manifest: &Manifest,
        path: &FileName,
        now: Option<ContentId>,
    ) -> bool {
        let before = self.get(manifest, path);
        if before == now {
            return false;
        }
        if let Some(before) = before {
            self.holders.remove(&(short(&before.hash), path.clone()));
        }
        if let Some(now) = now {
            self.holders.insert((short(&now.hash), path.clone()));
        }
        let wanted = manifest.wanted(path);
        self.unneed(path, wanted);
        self.enter(path, now, wanted);
        true
    }

    /// Another content belongs there now than before.
    pub(super) fn touched(
        &mut self,
        path: &FileName,
        before: Option<ContentId>,
        wanted: Option<ContentId>,
    ) {
        let have = self.differing.get(path).copied().unwrap_or(before);
        self.unneed(path, before);
        self.enter(path, have, wanted);
    }

    fn unneed(&mut self, path: &FileName, wanted: Option<ContentId>) {
        if let Some(wanted) = wanted {
            self.needs.remove(&(wanted.hash, path.clone()));
        }
    }

    fn enter(&mut self, path: &FileName, have: Option<ContentId>, wanted: Option<ContentId>) {
        if have == wanted {
            self.differing.remove(path);
            return;
        }
        self.differing.insert(path.clone(), have);
        if let Some(wanted) = wanted {
            self.needs.insert((wanted.hash, path.clone()));
        }
    }

    /// Paths that are not as they should be.
    pub(super) fn differing(&self) -> impl Iterator<Item = (&FileName, Option<ContentId>)> {
        self.differing.iter().map(|(path, have)| (path, *have))
    }

    pub(super) fn missing(&self) -> usize {
        self.differing.len()
    }

    /// Paths at which there is something.
    pub(super) fn present(&self) -> impl Iterator<Item = &FileName> {
        self.holders.iter().map(|(_, path)| path)
    }

    pub(super) fn count(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn holders(
        &self,
        manifest: &Manifest,
        content: &ContentId,
    ) -> impl Iterator<Item = &FileName> {
        let short = short(&content.hash);
        let from = FileName::from_wire(b" ").ok().map(|least| (short, least));
        let range = from.map(|from| self.holders.range(from..));
        let of_hash = range
            .into_iter()
            .flatten()
            .take_while(move |(found, _)| *found == short);
        let has_it = |path: &&FileName| self.get(manifest, path) == Some(*content);
        of_hash.map(|(_, path)| path).filter(has_it)
    }

    pub(super) fn locate(&self, manifest: &Manifest, content: &ContentId) -> Option<FileName> {
        self.holders(manifest, content).next().cloned()
    }

    /// Whether it belongs somewhere where it is not; other than this path.
    pub(super) fn is_needed(&self, hash: &ContentHash, except: Option<&FileName>) -> bool {
        let Ok(least) = FileName::from_wire(b" ") else {
            return false;
        };
        let of_hash = self.needs.range((*hash, least)..);
        let mut of_hash = of_hash.take_while(|(found, _)| found == hash);
        of_hash.any(|(_, path)| Some(path) != except)
    }

    /// Something that has to go before a file can be at this path: a file where its folder is to
    /// be, or files below it.
    pub(super) fn is_blocked(&self, path: &FileName) -> bool {
        let is_there = |path: &FileName| self.differing.get(path).is_some_and(Option::is_some);
        if crate::sync::manifest::folders(path).any(|folder| is_there(&folder)) {
            return true;
        }
        let Some(from) = first_below(path) else {
            return false;
        };
        let below = self.differing.range(from..);
        let mut below = below.take_while(|(name, _)| is_below(name, path));
        below.any(|(_, have)| have.is_some())
    }
}

fn short(hash: &ContentHash) -> u64 {
    let (head, _) = hash.0.split_at(8);
    head.iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
