//! Files that are gone: deleted, or lost.

use std::time::Instant;

use super::Replica;
use crate::store::FileName;
use crate::sync::content::ContentId;
use crate::sync::manifest::{Key, Version};

/// How many times as long deletions wait for paths that are being looked at.
const PATIENCE: u32 = 10;

impl Replica {
    /// When deletions count: while more paths are being looked at, which may have vanished as well,
    /// it takes longer.
    pub(super) fn quiet_at(&self, vanished_at: Instant) -> Instant {
        let times = if self.stirring.is_empty() {
            1
        } else {
            PATIENCE
        };
        vanished_at + self.config.quiet * times
    }

    pub(super) fn vanishes(&mut self, now: Instant, path: &FileName) {
        if self.vanished.is_empty() {
            self.count_before = self.settled();
        }
        if !self.vanished.insert(path.clone()) {
            return;
        }
        self.vanished_at = Some(now);
        let count = self.vanished.len();
        // Files may come and go meanwhile, by this node itself.
        let all = self.count_before.min(self.settled());
        if count >= 2 && count >= all {
            self.hold(true);
        }
        if self.is_held {
            let what = format!(
                "all {count} files have vanished; nothing is deleted elsewhere: put them back, \
                 or confirm by `anycastctl sync force`"
            );
            self.trouble("vanished", what, true);
        }
    }

    /// Recorded, for otherwise a restart would not know that the files vanished together.
    pub(super) fn hold(&mut self, is_held: bool) {
        if self.is_held != is_held {
            self.is_held = is_held;
            self.log.held(is_held);
        }
        if !is_held {
            self.clear_trouble("vanished");
        }
    }

    /// Files that are there, without those that this node is changing or has just installed: that
    /// these are there does not mean that the others were deleted one by one.
    fn settled(&self) -> usize {
        let ours = self.work.own_paths(self.clock);
        let ours = ours.into_iter().filter(|path| self.on_disk(path).is_some());
        self.disk.count() - ours.count()
    }

    pub(super) fn has_come_back(&mut self, now: Instant, path: &FileName, content: ContentId) {
        let is_vanished = self.vanished.contains(path) || !self.scan.has_ended;
        if self.is_held && is_vanished && self.on_disk(path) != Some(content) {
            // Who wrote this did not see what was there before.
            self.set_disk(path, None);
        }
        // One file that is there again does not make the others deleted: they stay held.
        if self.vanished.remove(path) {
            self.vanished_at = (!self.vanished.is_empty()).then_some(now);
            if self.vanished.is_empty() {
                self.hold(false);
            }
        }
    }

    /// Once nothing has vanished for a while, what has is deleted; unless that is everything.
    pub(super) fn commit_deletions(&mut self, now: Instant, wall: u64, is_forced: bool) {
        let Some(at) = self.vanished_at else {
            return;
        };
        if !is_forced && (self.is_held || now < self.quiet_at(at)) {
            return;
        }
        self.vanished_at = None;
        self.log.open();
        let vanished = std::mem::take(&mut self.vanished);
        self.delete_groups(&vanished);
        for path in vanished {
            self.wake(&path);
            if self.group_of(&path).is_some() {
                continue; // of a group that is not gone in whole
            }
            let Some(have) = self.disk.get(&self.manifest, &path) else {
                continue;
            };
            let key = Key::File(path.clone());
            let erased = self.manifest.erase(&key, |old| *old == Version::File(have));
            let _ = self.apply(&key, erased); // less cannot be refused
            let claims = self.claims_for(&path, have);
            self.settle_conflicts(wall, &path, &claims);
            self.counts.deletions += 1;
            self.set_disk(&path, None);
            self.wake(&path);
        }
        self.log.close();
        self.plan(now);
    }
}
