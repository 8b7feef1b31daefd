//! Files that belong together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Config, Output, Replica};
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{Generation, GroupName, Key, Version, conflict_names};
use crate::sync::wire::GenerationId;

/// Most generations of one group that are kept readable beside the one that is served; the oldest
/// goes when there are more.
pub(super) const MAX_HELD: usize = 8;

/// One group at this node.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// As configured; else those of its generation.
    members: Vec<FileName>,
    /// What was found and is not published yet; the folder as this node knows it has the old.
    edits: BTreeMap<FileName, Option<ContentId>>,
    edited_at: Option<Instant>,
    /// Files that are being changed, or read.
    stirring: BTreeSet<FileName>,
    served: Option<Generation>,
    held: Vec<(Generation, Instant)>,
}

impl Group {
    pub(super) fn configured(members: &[FileName]) -> Self {
        Self {
            members: members.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn is_edited(&self) -> bool {
        !self.edits.is_empty() || !self.stirring.is_empty()
    }

    pub(super) fn serves(&self, generation: &Generation) -> bool {
        self.served.as_ref() == Some(generation)
    }

    pub(super) fn readable(&self) -> Vec<(GenerationId, Generation)> {
        let held = self.held.iter().rev().map(|(generation, _)| generation);
        let all = self.served.iter().chain(held);
        all.map(|generation| (GenerationId::of(generation), generation.clone()))
            .collect()
    }

    pub(super) fn holds(&self, hash: &ContentHash) -> bool {
        let held = self.held.iter().map(|(generation, _)| generation);
        let mut all = self.served.iter().chain(held);
        all.any(|generation| {
            let mut members = generation.members().iter();
            members.any(|(_, content)| content.hash == *hash)
        })
    }

    pub(super) fn due(&self, config: &Config) -> Option<(Instant, &'static str)> {
        let edited = self
            .edited_at
            .map(|at| (at + config.settle, "a group has settled"));
        let held = self
            .held
            .iter()
            .map(|(_, until)| (*until, "a generation is replaced"));
        held.chain(edited).min()
    }
}

impl Replica {
    pub(super) fn stir(&mut self, now: Instant, group: &GroupName, path: &FileName) {
        let state = self.groups.entry(group.clone()).or_default();
        state.stirring.insert(path.clone());
        state.edited_at = Some(now);
    }

    /// What the path has come to is known.
    pub(super) fn unstir(&mut self, now: Instant, path: &FileName) {
        self.stirring.remove(path);
        let Some(group) = self.group_of(path) else {
            return;
        };
        if let Some(state) = self.groups.get_mut(&group)
            && state.stirring.remove(path)
        {
            state.edited_at = Some(now);
            self.wake_group(&group);
        }
    }

    pub(super) fn edit_member(
        &mut self,
        now: Instant,
        group: &GroupName,
        path: &FileName,
        found: Option<ContentId>,
    ) {
        let have = self.disk.get(&self.manifest, path);
        let state = self.groups.entry(group.clone()).or_default();
        let is_new = if found == have {
            state.edits.remove(path).is_some()
        } else {
            state.edits.insert(path.clone(), found) != Some(found)
        };
        if is_new {
            state.edited_at = Some(now);
        }
    }

    /// Whether what is known to be under a path is there, as far as has been seen.
    pub(super) fn is_there(&self, path: &FileName) -> bool {
        let group = self.group_of(path);
        let group = group.and_then(|group| self.groups.get(&group));
        let is_edited = group.is_some_and(|group| group.edits.contains_key(path));
        !is_edited && !self.vanished.contains(path)
    }

    /// What was found there is what is known to be there, or belongs there.
    pub(super) fn unedit(&mut self, now: Instant, path: &FileName) {
        let Some(group) = self.group_of(path) else {
            return;
        };
        if let Some(state) = self.groups.get_mut(&group)
            && state.edits.remove(path).is_some()
        {
            state.edited_at = Some(now);
        }
        // A group whose files are all there and that nobody has published yet.
        let is_new = self.manifest.generation(&group).is_none();
        if let Some(state) = self.groups.get_mut(&group).filter(|_| is_new) {
            state.edited_at = Some(now);
        }
    }

    /// Publishes what has not changed for a while.
    pub(super) fn publish_groups(&mut self, now: Instant, wall: u64, is_forced: bool) {
        // Before that, what has changed while the process did not run is not known in whole.
        if !self.scan.has_ended {
            return;
        }
        let settle = self.config.settle;
        let groups = self.groups.iter();
        let due = groups.filter(|(_, group)| {
            let is_due = group.edited_at.is_some_and(|at| at + settle <= now);
            (is_due && group.stirring.is_empty()) || (is_forced && group.is_edited())
        });
        let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        for group in due {
            self.log.open();
            self.publish_group(wall, &group, is_forced);
            self.log.close();
            self.wake_group(&group);
        }
    }

    fn members(&self, group: &GroupName) -> Vec<FileName> {
        let configured = self.groups.get(group).map(|group| group.members.clone());
        let configured = configured.filter(|members| !members.is_empty());
        configured.unwrap_or_else(|| {
            let generation = self.manifest.generation(group);
            let members = generation.iter().flat_map(Generation::members);
            members.map(|(name, _)| name.clone()).collect()
        })
    }

    fn publish_group(&mut self, wall: u64, group: &GroupName, is_forced: bool) {
        let members = self.members(group);
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        state.edited_at = None;
        if self.is_mirror() {
            return;
        }
        let edits = self.groups.get(group).map(|state| state.edits.clone());
        let edits = edits.unwrap_or_default();
        let known = |path: &FileName| {
            let found = edits.get(path).copied();
            found.unwrap_or_else(|| self.disk.get(&self.manifest, path))
        };
        let found = members
            .iter()
            .map(|path| Some((path.clone(), known(path)?)));
        let found: Option<Vec<_>> = found.collect();
        let Some(generation) = found.and_then(Generation::new) else {
            self.incomplete(wall, group, &edits, is_forced);
            return;
        };
        self.clear_trouble(&format!("group {group}"));
        if self.manifest.generation(group).as_ref() == Some(&generation) {
            self.take_edits(group);
            return;
        }
        let replaced = |old: &Version, replica: &Self| match old {
            Version::Group(old) => old
                .members()
                .iter()
                .all(|(path, content)| replica.on_disk(path) == Some(*content)),
            Version::File(_) => false,
        };
        let key = Key::Group(group.clone());
        let known = self.manifest.entry(&key).unwrap_or_default();
        let gone: BTreeSet<Version> = known
            .live()
            .values()
            .filter(|old| replaced(old, self))
            .cloned()
            .collect();
        // A generation that nobody has changed here is not published over one that came from
        // elsewhere and is not installed yet.
        let is_changed = edits.values().any(Option::is_some);
        if !is_changed && gone.is_empty() && !known.live().is_empty() {
            return;
        }
        let version = Version::Group(generation);
        if let Err(refused) = self.write(wall, &key, version, |old| gone.contains(old)) {
            self.refused(&refused, None);
            return;
        }
        self.counts.edits += 1;
        self.take_files(&members);
        self.take_edits(group);
    }

    /// Some files of a group are there and others are not: somebody is not finished, or has deleted
    /// one. That waits for him; unless the group is deleted, or an operator says that it is to be
    /// mended: then what was written is put beside, as files of their own, and the generation that
    /// all have is put back.
    fn incomplete(
        &mut self,
        wall: u64,
        group: &GroupName,
        edits: &BTreeMap<FileName, Option<ContentId>>,
        is_forced: bool,
    ) {
        let is_published = self.manifest.generation(group).is_some();
        let is_written = edits.values().any(Option::is_some);
        let about = format!("group {group}");
        if edits.is_empty() || (!is_published && !is_written) || (is_published && is_forced) {
            self.clear_trouble(&about);
            for (path, found) in edits {
                let beside = found.and_then(|content| self.conflict_name(path, &content));
                if let (Some(name), Some(content)) = (beside, found) {
                    let key = Key::File(name);
                    if let Err(refused) = self.write(wall, &key, Version::File(*content), |_| false)
                    {
                        self.refused(&refused, None);
                        return;
                    }
                }
                self.vanished.remove(path);
            }
            self.take_edits(group);
            return;
        }
        let what = format!("the group {group} is not complete here; it is not published");
        self.trouble(&about, what, is_published);
    }

    fn conflict_name(&self, path: &FileName, content: &ContentId) -> Option<FileName> {
        let node = self.config.node.as_str();
        let mut names = conflict_names(path, node, content);
        names.find(|name| self.manifest.wanted(name).is_none() && self.on_disk(name).is_none())
    }

    /// Files that were files of their own before they were a group's are that no longer.
    fn take_files(&mut self, members: &[FileName]) {
        for path in members {
            let Some(have) = self.disk.get(&self.manifest, path) else {
                continue;
            };
            let key = Key::File(path.clone());
            let erased = self.manifest.erase(&key, |old| *old == Version::File(have));
            let _ = self.apply(&key, erased); // less cannot be refused
        }
    }

    fn take_edits(&mut self, group: &GroupName) {
        let edits = self.groups.get_mut(group);
        let edits = edits.map(|state| std::mem::take(&mut state.edits));
        for (path, found) in edits.unwrap_or_default() {
            self.set_disk(&path, found);
        }
    }

    /// Groups all of whose files have vanished are deleted.
    pub(super) fn delete_groups(&mut self, vanished: &BTreeSet<FileName>) {
        let groups = vanished.iter().filter_map(|path| self.group_of(path));
        let groups: BTreeSet<GroupName> = groups.collect();
        for group in groups {
            let members = self.members(&group);
            let is_gone = |path: &FileName| {
                vanished.contains(path) || self.disk.get(&self.manifest, path).is_none()
            };
            if !members.iter().all(is_gone) {
                continue;
            }
            let known = |path: &FileName| self.disk.get(&self.manifest, path);
            let key = Key::Group(group.clone());
            let entry = self.manifest.entry(&key).unwrap_or_default();
            let is_known = |version: &&Version| match version {
                Version::Group(generation) => {
                    let mut members = generation.members().iter();
                    members.all(|(path, content)| known(path) == Some(*content))
                }
                Version::File(_) => false,
            };
            let gone: BTreeSet<_> = entry.live().values().filter(is_known).cloned().collect();
            let files: Vec<_> = members
                .iter()
                .filter_map(|path| Some((Key::File(path.clone()), known(path)?)))
                .collect();
            let erased = self.manifest.erase(&key, |version| gone.contains(version));
            let _ = self.apply(&key, erased); // less cannot be refused
            for (key, content) in files {
                let erased = self
                    .manifest
                    .erase(&key, |old| *old == Version::File(content));
                let _ = self.apply(&key, erased);
            }
            self.counts.deletions += 1;
            if let Some(state) = self.groups.get_mut(&group) {
                state.edits.clear();
                state.edited_at = None;
            }
            self.clear_trouble(&format!("group {group}"));
            for path in &members {
                self.set_disk(path, None);
            }
            self.wake_group(&group);
        }
    }

    pub(super) fn lose_groups(&mut self) {
        for (name, group) in &mut self.groups {
            self.troubles.remove(&format!("group {name}"));
            group.edits.clear();
            group.edited_at = None;
            group.held.clear();
            if group.served.take().is_some() {
                self.outputs.push_back(Output::Unserve(name.clone()));
            }
        }
    }

    pub(super) fn serve(&mut self, now: Instant, group: &GroupName, generation: Generation) {
        let until = now + self.config.hold;
        let state = self.groups.entry(group.clone()).or_default();
        let old = state.served.replace(generation.clone());
        state.held.retain(|(held, _)| *held != generation);
        let mut dropped = None;
        if let Some(old) = old.filter(|old| *old != generation) {
            state.held.push((old, until));
            if state.held.len() > MAX_HELD {
                dropped = Some(state.held.remove(0).0);
            }
        }
        self.release_members(dropped.as_ref());
    }

    pub(super) fn unserve(&mut self, group: &GroupName) {
        let until = self.clock + self.config.hold;
        let Some(state) = self.groups.get_mut(group) else {
            return;
        };
        if let Some(old) = state.served.take() {
            state.held.push((old, until));
            self.put(Output::Unserve(group.clone()));
        }
    }

    pub(super) fn release_generations(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for group in self.groups.values_mut() {
            let held = std::mem::take(&mut group.held);
            let (old, held): (Vec<_>, Vec<_>) =
                held.into_iter().partition(|(_, until)| *until <= now);
            group.held = held;
            gone.extend(old);
        }
        for (generation, _) in gone {
            self.release_members(Some(&generation));
        }
    }

    fn release_members(&mut self, generation: Option<&Generation>) {
        for (_, content) in generation.into_iter().flat_map(Generation::members) {
            self.release_if_unneeded(&content.hash);
        }
    }
}
