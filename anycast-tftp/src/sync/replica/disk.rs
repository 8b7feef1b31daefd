//! What is in the folder, as far as is known, against what belongs there.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{Key, Manifest, Touched, first_below, is_below};
use crate::sync::sorted::Sorted;

/// Only what differs from the view is kept in full.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What is there where it is not what belongs there.
    differing: BTreeMap<FileName, Option<ContentId>>,
    /// Files that have the content of their entry, by its hash and their path: their numbers in
    /// the manifest.
    own: Sorted,
    /// Other paths that have a content, by the first bytes of its hash.
    others: BTreeSet<(u64, FileName)>,
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
        self.hold(manifest, path, before, now);
        let wanted = manifest.wanted(path);
        self.unneed(path, wanted);
        self.enter(path, now, wanted);
        true
    }

    /// An entry has changed: other contents belong to paths than before.
    pub(super) fn touched(&mut self, manifest: &Manifest, key: &Key, touched: &Touched) {
        // Its own file first: it is where its content of before was, and nothing else can be found
        // among what is in order until it is where its content is now.
        let own = match key {
            Key::File(path) => touched.before.get_key_value(path),
            Key::Group(_) => None,
        };
        let others = touched.before.iter();
        let others = others.filter(|(path, _)| own.is_none_or(|(own, _)| own != *path));
        for (path, before) in own.into_iter().chain(others) {
            let have = self.differing.get(path).copied().unwrap_or(*before);
            self.hold(manifest, path, have, have);
            self.unneed(path, *before);
            self.enter(path, have, manifest.wanted(path));
        }
    }

    /// The path has this now instead of that, or has what it had and its entry another content.
    fn hold(
        &mut self,
        manifest: &Manifest,
        path: &FileName,
        before: Option<ContentId>,
        now: Option<ContentId>,
    ) {
        let number = manifest.number(path);
        if let Some(before) = before {
            let is_own = number.is_some_and(|number| {
                let is_before = is_before(manifest, &before.hash, path);
                let is_before = |other| other != number && is_before(other);
                self.own.remove(number, is_before)
            });
            if !is_own {
                self.others.remove(&(short(&before.hash), path.clone()));
            }
        }
        let Some(now) = now else {
            return;
        };
        let own = number.filter(|number| own_content(manifest, *number) == Some(now));
        if let Some(number) = own {
            let is_before = is_before(manifest, &now.hash, path);
            self.own.insert(number, is_before);
        } else {
            self.others.insert((short(&now.hash), path.clone()));
        }
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
    pub(super) fn present<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = &'a FileName> {
        let own = self.own.iter();
        let own = own.filter_map(|number| manifest.numbered(number));
        let others = self.others.iter().map(|(_, path)| path);
        own.map(|(path, _)| path).chain(others)
    }

    pub(super) fn count(&self) -> usize {
        self.own.len() + self.others.len()
    }

    pub(super) fn holders<'a>(
        &'a self,
        manifest: &'a Manifest,
        content: &ContentId,
    ) -> impl Iterator<Item = &'a FileName> {
        let content = *content;
        let has_it = move |path: &&FileName| self.get(manifest, path) == Some(content);
        self.near(manifest, &content.hash).filter(has_it)
    }

    /// Paths that have a content of this hash, and perhaps some others.
    pub(super) fn near<'a>(
        &'a self,
        manifest: &'a Manifest,
        hash: &ContentHash,
    ) -> impl Iterator<Item = &'a FileName> + use<'a> {
        let hash = *hash;
        let is_before = |other| {
            let known = own_content(manifest, other);
            known.is_some_and(|known| known.hash < hash)
        };
        let own = self.own.from(&is_before);
        let own = own.map_while(move |number| {
            let (path, known) = manifest.numbered(number)?;
            (known?.hash == hash).then_some(path)
        });
        let short = short(&hash);
        let from = FileName::from_wire(b" ").ok().map(|least| (short, least));
        let range = from.map(|from| self.others.range(from..));
        let others = range
            .into_iter()
            .flatten()
            .take_while(move |(found, _)| *found == short);
        own.chain(others.map(|(_, path)| path))
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

/// The content of a file's entry.
fn own_content(manifest: &Manifest, number: u32) -> Option<ContentId> {
    manifest.numbered(number).and_then(|(_, content)| content)
}

/// Whether a file comes before another one with that content and path.
fn is_before(manifest: &Manifest, hash: &ContentHash, path: &FileName) -> impl Fn(u32) -> bool {
    move |other| {
        let known = manifest.numbered(other);
        known.is_some_and(|(name, content)| {
            content.is_some_and(|content| (&content.hash, name) < (hash, path))
        })
    }
}

fn short(hash: &ContentHash) -> u64 {
    let (head, _) = hash.0.split_at(8);
    head.iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
