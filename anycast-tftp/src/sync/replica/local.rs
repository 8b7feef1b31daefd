//! What is found in the folder.

use std::time::Instant;

use anycast_core::health::Reason;

use super::seen::Seen;
use super::{Mode, Output, Replica, RootId, Ticket};
use crate::store::FileName;
use crate::sync::content::ContentId;
use crate::sync::manifest::{Claim, Dot, Entry, Key, Refused, Touched, Version};

/// Paths of which it is remembered when this node changed them. With more all are forgotten, and
/// observations from before then are made again.
const ACTED: usize = 65_536;

impl Replica {
    /// The marker of the folder, before each scan; `fresh` is a random one.
    ///
    /// Without the one that is known, this is not the copy that this node knows of: an empty disk,
    /// or another one. All that was there counts as lost, and nothing as deleted.
    pub fn handle_root(&mut self, found: Option<RootId>, fresh: RootId) {
        if self.root.is_some() && self.root == found {
            return;
        }
        self.log.open();
        let is_first = self.root.is_none();
        let root = found.filter(|_| is_first).unwrap_or(fresh);
        if !is_first {
            tracing::warn!("the folder is another one, or empty; its files count as lost");
            self.counts.lost += 1;
            self.lose_copy();
        }
        self.root = Some(root);
        self.log.root(root);
        self.log.close();
        if found != Some(root) {
            self.put(Output::Mark(root));
        }
    }

    fn lose_copy(&mut self) {
        let present: Vec<_> = self.disk.present(&self.manifest).cloned().collect();
        for path in present {
            self.set_disk(&path, None);
        }
        self.vanished.clear();
        self.vanished_at = None;
        self.hold(false);
        self.scan.has_ended = false;
        self.lose_groups();
        self.work.lose_kept();
    }

    /// A scan of the whole folder begins.
    pub fn handle_scan_began(&mut self) {
        self.scan.running = Some((self.ticket, Seen::default()));
    }

    /// It has told all that is there: what it has not found is gone.
    pub fn handle_scan_ended(&mut self, now: Instant, wall: u64) {
        let Some((began, seen)) = self.scan.running.take() else {
            return;
        };
        let present = self.disk.present(&self.manifest);
        let gone = present.filter(|path| !seen.contains(&self.manifest, path));
        let gone: Vec<_> = gone.cloned().collect();
        for path in gone {
            if self.is_stale(Ticket(began), &path) {
                continue; // installed meanwhile
            }
            self.handle_gone(now, wall, Ticket(began), &path);
        }
        self.clear_trouble("scan");
        if self.vanished.is_empty() {
            self.hold(false);
        }
        if !self.scan.has_ended {
            self.scan.has_ended = true;
            // What is left has changed since: whatever is there was not seen by who wrote it.
            for path in self.work.old_plans() {
                self.set_disk(&path, None);
            }
            let differing: Vec<_> = self
                .disk
                .differing()
                .map(|(path, _)| path.clone())
                .collect();
            self.work.wake_all(differing);
            let groups: Vec<_> = self.manifest.groups().cloned().collect();
            for group in groups {
                self.wake_group(&group);
            }
            self.release_all_unneeded();
        }
        self.plan(now);
    }

    /// Whether the folder that is there now has been scanned; otherwise the next scan has to tell all
    /// that is there, between [`handle_scan_began`](Self::handle_scan_began) and
    /// [`handle_scan_ended`](Self::handle_scan_ended).
    #[must_use]
    pub fn has_scanned(&self) -> bool {
        self.scan.has_ended
    }

    /// The whole folder could be read.
    pub fn handle_scan_succeeded(&mut self) {
        self.clear_trouble("scan");
    }

    /// It could not be read in whole. Nothing counts as gone.
    pub fn handle_scan_failed(&mut self, why: &Reason) {
        self.scan.running = None;
        self.trouble("scan", format!("the folder cannot be read: {why}"), true);
    }

    /// This content is under this path. The ticket was taken before it was read.
    pub fn handle_found(
        &mut self,
        now: Instant,
        wall: u64,
        ticket: Ticket,
        path: &FileName,
        content: ContentId,
    ) {
        self.find(now, wall, ticket, path, content);
        // Now that it has a number in the manifest.
        self.see(path);
    }

    /// The running scan, if any, has found something there.
    pub(super) fn see(&mut self, path: &FileName) {
        if let Some((_, seen)) = &mut self.scan.running {
            seen.insert(&self.manifest, path);
        }
    }

    fn find(
        &mut self,
        now: Instant,
        wall: u64,
        ticket: Ticket,
        path: &FileName,
        content: ContentId,
    ) {
        if self.is_stale(ticket, path) {
            self.put(Output::Look(path.clone()));
            return;
        }
        self.has_come_back(now, path, content);
        if self.work.is_busy(path) {
            self.work.look_after(path);
            return;
        }
        self.unstir(now, path);
        let before = self.on_disk(path);
        self.found(now, wall, path, content);
        self.looked_at(path, before);
        self.plan(now);
    }

    fn found(&mut self, now: Instant, wall: u64, path: &FileName, content: ContentId) {
        let have = self.disk.get(&self.manifest, path);
        let wanted = self.manifest.wanted(path);
        let planned = self.work.planned_at(path);
        let is_ours = planned == Some(Some(content)) || wanted == Some(content);
        if have == Some(content) || is_ours {
            if planned == Some(Some(content)) {
                self.work.installed(path, now);
            }
            self.set_disk(path, Some(content));
            self.unedit(now, path);
            return;
        }
        // A crash came between an install and its record, and then an edit: which of both contents
        // it replaced is not known, so it replaces neither.
        if planned.is_some() {
            self.set_disk(path, None);
        }
        let have = have.filter(|_| planned.is_none());
        if self.is_mirror() {
            if wanted.is_some() {
                self.counts.repaired += 1;
                let what = format!("{path} was changed here; only the origin may; it is put back");
                self.trouble("mirror", what, false);
                self.set_disk(path, Some(content));
            } else {
                self.counts.strays += 1;
                let what = format!("{path} is not of the origin; it is left alone");
                self.trouble("stray", what, false);
                self.set_disk(path, None);
            }
        } else if let Some(group) = self.group_of(path) {
            self.edit_member(now, &group, path, Some(content));
        } else {
            self.log.open();
            self.edit_file(wall, path, have, content);
            self.log.close();
        }
    }

    /// Something happens to this path; what it has come to will be told once it is known. What was
    /// seen before does not count, and a group that it is in is not published until then.
    pub fn handle_changing(&mut self, now: Instant, path: &FileName) {
        self.act(path);
        self.stirring.insert(path.clone());
        if let Some(group) = self.group_of(path) {
            self.stir(now, &group, path);
        }
    }

    fn edit_file(
        &mut self,
        wall: u64,
        path: &FileName,
        have: Option<ContentId>,
        content: ContentId,
    ) {
        let version = Version::File(content);
        let written = self.write(
            wall,
            &Key::File(path.clone()),
            version,
            |old| matches!((old, have), (Version::File(old), Some(have)) if *old == have),
        );
        if let Err(refused) = written {
            self.refused(&refused, None);
            return;
        }
        // The conflict that was here is settled: somebody has edited it.
        if let Some(have) = have {
            let claims = self.claims_for(path, have);
            self.settle_conflicts(wall, path, &claims);
        }
        self.counts.edits += 1;
        self.set_disk(path, Some(content));
    }

    /// Nothing is under this path any more.
    pub fn handle_gone(&mut self, now: Instant, _wall: u64, ticket: Ticket, path: &FileName) {
        if let Some((_, seen)) = &mut self.scan.running {
            seen.remove(&self.manifest, path);
        }
        if self.is_stale(ticket, path) {
            self.put(Output::Look(path.clone()));
            return;
        }
        if self.work.is_busy(path) {
            self.work.look_after(path);
            return;
        }
        self.unstir(now, path);
        let have = self.disk.get(&self.manifest, path);
        // This node's own removal; or, after a crash, it is not known what was deleted.
        let planned = self.work.planned_at(path);
        let was_planned = planned.is_some();
        if have.is_none() || was_planned || self.is_mirror() {
            if have.is_some() && !was_planned {
                self.counts.repaired += 1;
            }
            // It is a witness, though, if others have vanished as well.
            if planned.flatten().is_some() && have.is_some() && !self.is_mirror() {
                self.vanishes(now, path);
            }
            self.set_disk(path, None);
            if let Some(group) = self.group_of(path) {
                self.edit_member(now, &group, path, None);
            }
        } else {
            self.vanishes(now, path);
            if let Some(group) = self.group_of(path) {
                self.edit_member(now, &group, path, None);
            }
        }
        self.looked_at(path, have);
        self.plan(now);
    }

    /// What failed need not rest if the path is not what it was; else it would be tried again as
    /// fast as it fails.
    fn looked_at(&mut self, path: &FileName, before: Option<ContentId>) {
        if self.on_disk(path) != before {
            self.work.tried(path);
        }
        self.wake(path);
    }

    pub(super) fn claims_for(&self, path: &FileName, content: ContentId) -> Vec<Claim> {
        let claims = self.manifest.conflicts_at(path).into_iter();
        claims.filter(|claim| claim.content == content).collect()
    }

    /// The conflicts at this path are deleted, or have become a file of their own. Where a whole
    /// generation of a group is, its other files become files of their own, under the names that
    /// they have: somebody deleted one of them, not all.
    pub(super) fn settle_conflicts(&mut self, wall: u64, path: &FileName, claims: &[Claim]) {
        for claim in claims {
            if let Key::Group(_) = &claim.key {
                let goes = |version: &Version| match version {
                    Version::Group(generation) => {
                        generation.content(&claim.of) == Some(claim.content)
                    }
                    Version::File(_) => false,
                };
                self.free_conflicts(wall, path, &claim.key, goes);
                let winner = self.manifest.entry(&claim.key);
                let winner = winner.and_then(|entry| entry.winner().cloned());
                let erased = self.manifest.erase(&claim.key, |version| {
                    Some(version) != winner.as_ref() && goes(version)
                });
                let _ = self.apply(&claim.key, erased);
            } else {
                let version = Version::File(claim.content);
                let erased = self.manifest.erase(&claim.key, |old| *old == version);
                let _ = self.apply(&claim.key, erased);
            }
        }
    }

    fn free_conflicts(
        &mut self,
        wall: u64,
        path: &FileName,
        key: &Key,
        goes: impl Fn(&Version) -> bool,
    ) {
        let entry = self.manifest.entry(key).unwrap_or_default();
        let going: Vec<_> = entry
            .live()
            .values()
            .filter(|version| goes(version))
            .collect();
        let of_these = |claim: &Claim| {
            let mut generations = going.iter();
            generations.any(|version| match version {
                Version::Group(generation) => generation.content(&claim.of) == Some(claim.content),
                Version::File(_) => false,
            })
        };
        let others = self.manifest.conflicts_of(key).into_iter();
        let others = others.filter(|(name, claim)| name != path && of_these(claim));
        for (name, claim) in others.collect::<Vec<_>>() {
            let version = Version::File(claim.content);
            let written = self.write(wall, &Key::File(name), version, |_| false);
            if let Err(refused) = written {
                self.refused(&refused, None);
            }
        }
    }

    /// A version of this node.
    pub(super) fn write(
        &mut self,
        wall: u64,
        key: &Key,
        version: Version,
        replaced: impl Fn(&Version) -> bool,
    ) -> Result<(), Refused> {
        let known = self.manifest.entry(key);
        let last = known.iter().flat_map(|entry| entry.seen().values()).max();
        let counter = self.next_counter(wall, last.copied().unwrap_or(0));
        let writer = self.writer.clone();
        let written = self
            .manifest
            .write(key, Dot { counter, writer }, version, replaced);
        self.apply(key, written).map(|_| ())
    }

    /// Whether the manifest changed: then it is recorded, and what it touched is looked at.
    pub(super) fn apply(
        &mut self,
        key: &Key,
        changed: Result<Touched, Refused>,
    ) -> Result<bool, Refused> {
        let touched = changed?;
        if !touched.has_changed {
            return Ok(false);
        }
        let entry: Entry = self.manifest.entry(key).unwrap_or_default();
        self.log.entry(key, &entry);
        self.disk.touched(&self.manifest, key, &touched);
        for path in touched.before.keys() {
            self.clear_trouble(&format!("file {path}"));
            self.wake(path);
        }
        for (path, before) in &touched.before {
            let wanted = self.manifest.wanted(path);
            if let Some(before) = before.filter(|before| Some(*before) != wanted) {
                self.no_longer_wanted(&before);
            }
        }
        if let Key::Group(group) = key {
            self.wake_group(group);
        }
        if self.disk.missing() == 0 {
            self.clear_trouble("disk");
        }
        Ok(true)
    }

    /// This is there now, as far as this node is concerned, and recorded as such.
    pub(super) fn set_disk(&mut self, path: &FileName, content: Option<ContentId>) {
        let before = self.disk.get(&self.manifest, path);
        let had_plan = self.work.unplan(path);
        if self.disk.set(&self.manifest, path, content) || had_plan {
            self.log.disk(path, content);
        }
        if let Some(before) = before.filter(|before| Some(*before) != content) {
            self.release_if_unneeded(&before.hash);
        }
        if let Some(content) = content {
            self.release_if_unneeded(&content.hash);
        }
        if !self.troubles.is_empty() {
            // That it is as it was, and not as it should be, says nothing against what is in its way.
            if before != content || content == self.manifest.wanted(path) {
                self.clear_trouble(&format!("file {path}"));
            }
            if self.disk.missing() == 0 {
                self.clear_trouble("disk");
            }
        }
    }

    /// Whether another node's files are everybody's.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        match &self.config.mode {
            Mode::Multi => false,
            Mode::Origin(origin) => *origin != self.config.node,
        }
    }

    fn is_stale(&self, ticket: Ticket, path: &FileName) -> bool {
        let acted = self.acted.get(path).copied().unwrap_or(0);
        ticket.0 < acted.max(self.ticket_floor)
    }

    /// This node changes the path, or has changed it: what was seen before does not count.
    pub(super) fn act(&mut self, path: &FileName) {
        self.ticket += 1;
        if self.acted.len() >= ACTED {
            self.acted.clear();
            self.ticket_floor = self.ticket;
        }
        self.acted.insert(path.clone(), self.ticket);
    }
}
