//! The paths that a scan has found, at a bit for each file that the manifest knows.

use std::collections::BTreeSet;

use crate::store::FileName;
use crate::sync::manifest::Manifest;

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// A bit for each number of the manifest.
    files: Vec<u64>,
    /// What had no number when it was found.
    others: BTreeSet<FileName>,
}

impl Seen {
    pub(super) fn insert(&mut self, manifest: &Manifest, path: &FileName) {
        let Some((word, bit)) = place(manifest, path) else {
            self.others.insert(path.clone());
            return;
        };
        if self.files.len() <= word {
            self.files.resize(word + 1, 0);
        }
        if let Some(word) = self.files.get_mut(word) {
            *word |= bit;
        }
    }

    pub(super) fn remove(&mut self, manifest: &Manifest, path: &FileName) {
        self.others.remove(path);
        if let Some((word, bit)) = place(manifest, path)
            && let Some(word) = self.files.get_mut(word)
        {
            *word &= !bit;
        }
    }

    pub(super) fn contains(&self, manifest: &Manifest, path: &FileName) -> bool {
        let place = place(manifest, path);
        let bits = place.and_then(|(word, bit)| Some(self.files.get(word)? & bit));
        bits.is_some_and(|bits| bits != 0) || self.others.contains(path)
    }
}

fn place(manifest: &Manifest, path: &FileName) -> Option<(usize, u64)> {
    let number = manifest.number(path)?;
    Some((usize::try_from(number / 64).ok()?, 1 << (number % 64)))
}
