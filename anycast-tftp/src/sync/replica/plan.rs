//! What is to be done to the folder next.

use std::time::Instant;

use super::work::{Job, Retry, backoff};
use super::{DiskError, FetchError, Item, JobId, Output, Replica, Source};
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{Generation, GroupName};

impl Replica {
    /// Something about the path may have changed.
    pub(super) fn wake(&mut self, path: &FileName) {
        if self.manifest.wanted(path).is_none() {
            self.work.ready.insert(path.clone());
        } else if self.scan.has_ended {
            // Otherwise the end of the scan finds it.
            self.work.queue.insert(path.clone());
        }
        // It may be what was in the way of these; there are few.
        let blocked = std::mem::take(&mut self.work.blocked);
        self.work.ready.extend(blocked);
    }

    /// A group is looked at by any of its files.
    pub(super) fn wake_group(&mut self, group: &GroupName) {
        match self.manifest.generation(group) {
            Some(generation) => {
                let first = generation.members().first();
                self.work.queue.extend(first.map(|(path, _)| path.clone()));
            }
            None => self.unserve(group),
        }
    }

    pub(super) fn plan(&mut self, now: Instant) {
        self.clock = now;
        // Where all has vanished there may be another disk tomorrow.
        if !self.scan.has_ended || self.is_held {
            return;
        }
        while self.work.jobs.len() < self.config.installs {
            let ready = self.work.ready.pop_first();
            let has_room = self.work.asked.len() < self.config.fetches;
            let queue = &mut self.work.queue;
            let next = ready.or_else(|| if has_room { queue.pop_first() } else { None });
            let Some(path) = next else {
                return;
            };
            self.consider(now, &path);
        }
    }

    fn consider(&mut self, now: Instant, path: &FileName) {
        let is_edited = self.group_of(path).is_some_and(|group| {
            let state = self.groups.get(&group);
            state.is_some_and(super::Group::is_edited)
        });
        if is_edited || !self.is_free(now, path) {
            return;
        }
        if let Some(group) = self.manifest.group_at(path).cloned() {
            self.consider_group(now, &group);
            return;
        }
        let have = self.disk.get(&self.manifest, path);
        let wanted = self.manifest.wanted(path);
        if have == wanted || have.is_some_and(|have| self.keep_first(path, have)) {
            return;
        }
        let Some(content) = wanted else {
            if let Some(expecting) = have {
                let id = self.job(&[(path.clone(), None)], None);
                let path = path.clone();
                self.put(Output::Remove {
                    id,
                    path,
                    expecting,
                });
            }
            return;
        };
        if self.disk.is_blocked(path) {
            self.work.blocked.insert(path.clone());
            return;
        }
        let Some(source) = self.source(&content) else {
            self.fetch(now, path, content, have);
            return;
        };
        let id = self.job(&[(path.clone(), Some(content))], None);
        let item = Item {
            path: path.clone(),
            content,
            expecting: have,
            source,
        };
        let (items, group) = (vec![item], None);
        self.put(Output::Install { id, items, group });
    }

    fn is_free(&self, now: Instant, path: &FileName) -> bool {
        let is_gone = self.vanished.contains(path);
        !is_gone && !self.work.is_busy(path) && !self.work.rests(path, now)
    }

    fn consider_group(&mut self, now: Instant, group: &GroupName) {
        let Some(generation) = self.manifest.generation(group) else {
            return;
        };
        let own = |path: &&(FileName, ContentId)| self.manifest.group_at(&path.0) == Some(group);
        let members = generation.members().iter().filter(own).cloned();
        let members: Vec<(FileName, ContentId)> = members.collect();
        let have = |path: &FileName| self.disk.get(&self.manifest, path);
        let is_here = members
            .iter()
            .all(|(path, content)| have(path) == Some(*content));
        let state = self.groups.get(group);
        if is_here && state.is_some_and(|state| state.serves(&generation)) {
            return;
        }
        if !members.iter().all(|(path, _)| self.is_free(now, path)) {
            return; // it is looked at again when they are
        }
        let mut waits = false;
        let mut items = Vec::new();
        for (path, content) in &members {
            let expecting = self.disk.get(&self.manifest, path);
            if let Some(old) = expecting.filter(|old| old != content) {
                waits |= self.keep_first(path, old);
            }
            if self.disk.is_blocked(path) {
                self.work.blocked.insert(path.clone());
                waits = true;
            }
            match self.source(content) {
                Some(source) => items.push(Item {
                    path: path.clone(),
                    content: *content,
                    expecting,
                    source,
                }),
                None => {
                    self.fetch(now, path, *content, expecting);
                    waits = true;
                }
            }
        }
        if waits {
            return;
        }
        let planned: Vec<_> = items
            .iter()
            .map(|item| (item.path.clone(), Some(item.content)))
            .collect();
        let group = Some((group.clone(), generation));
        let id = self.job(&planned, group.clone());
        self.put(Output::Install { id, items, group });
    }

    /// Whether it belongs somewhere where it is not, or may not be; other than this path.
    fn is_needed(&self, hash: &ContentHash, except: Option<&FileName>) -> bool {
        self.disk.is_needed(hash, except) || self.is_uncertain(hash, except)
    }

    /// Whether it belongs to another path where a file is, and may not be in a moment.
    fn is_uncertain(&self, hash: &ContentHash, except: Option<&FileName>) -> bool {
        let (busy, vanished) = (&self.work.busy, &self.vanished);
        let belongs = |path: &FileName| {
            let wanted = self.manifest.wanted(path);
            Some(path) != except && wanted.is_some_and(|wanted| wanted.hash == *hash)
        };
        let is_uncertain = |path: &FileName| busy.contains(path) || vanished.contains(path);
        // Either may be many: paths with this content, of which most contents have one, or paths at
        // which something happens.
        let few = busy.len() + vanished.len();
        let mut paths = self.disk.near(&self.manifest, hash);
        let mut first = paths.by_ref().take(few);
        if first.any(|path| is_uncertain(path) && belongs(path)) {
            return true;
        }
        paths.next().is_some() && busy.iter().chain(vanished).any(belongs)
    }

    fn source(&self, content: &ContentId) -> Option<Source> {
        if self.work.is_kept(&content.hash) {
            return Some(Source::Kept);
        }
        let mut holders = self.disk.holders(&self.manifest, content);
        let there = holders.find(|path| self.is_there(path));
        there.cloned().map(Source::Path)
    }

    /// Whether what is there must be kept before it goes, because it belongs somewhere else and is
    /// nowhere else.
    fn keep_first(&mut self, path: &FileName, content: ContentId) -> bool {
        let hash = content.hash;
        if self.work.is_kept(&hash) || !self.is_needed(&hash, Some(path)) {
            return false;
        }
        let is_safe = |path: &FileName| !self.work.is_busy(path) && self.is_there(path);
        let is_other = |holder: &FileName| holder != path && is_safe(holder);
        if self.disk.holders(&self.manifest, &content).any(is_other) {
            return false;
        }
        let waiting = self.work.waiting.entry(hash).or_default();
        waiting.insert(path.clone());
        if self.work.keeping.insert(hash) {
            let path = path.clone();
            self.put(Output::Keep { content, path });
        }
        true
    }

    fn fetch(
        &mut self,
        now: Instant,
        path: &FileName,
        content: ContentId,
        basis: Option<ContentId>,
    ) {
        let hash = content.hash;
        let waiting = self.work.waiting.entry(hash).or_default();
        waiting.insert(path.clone());
        let failed = self.work.failed_contents.get(&hash);
        if self.work.asked.contains(&hash) || failed.is_some_and(|(_, until)| now < *until) {
            return;
        }
        if self.work.asked.len() >= self.config.fetches {
            self.work.queue.insert(path.clone());
            return;
        }
        self.work.asked.insert(hash);
        let from = self.sources();
        self.put(Output::Fetch {
            content,
            basis,
            from,
        });
    }

    fn job(
        &mut self,
        paths: &[(FileName, Option<ContentId>)],
        group: Option<(GroupName, Generation)>,
    ) -> JobId {
        let id = JobId(self.work.next);
        self.work.next += 1;
        self.log.open();
        for (path, content) in paths {
            self.log.plan(path, *content);
            self.work.plan(path, *content);
            self.work.busy.insert(path.clone());
            self.act(path);
        }
        self.log.close();
        let paths = paths.to_vec();
        let contents = paths.iter().filter_map(|(_, content)| *content);
        let kept = contents.map(|content| content.hash);
        let kept = kept.filter(|hash| self.work.is_kept(hash)).collect();
        self.work.begin(
            id,
            Job {
                paths,
                group,
                kept,
                is_void: false,
            },
        );
        id
    }

    /// How a fetch ended.
    pub fn handle_fetched(
        &mut self,
        now: Instant,
        content: ContentId,
        result: Result<(), FetchError>,
    ) {
        let hash = content.hash;
        self.work.asked.remove(&hash);
        match result {
            Ok(()) => {
                self.counts.fetched += 1;
                self.work.failed_contents.remove(&hash);
                self.clear_trouble("disk");
                self.has_content(content);
            }
            Err(why) => {
                self.counts.failed += 1;
                if why == FetchError::Full {
                    let what = "no space left on the disk for files of other nodes; make room";
                    self.trouble("disk", what.to_owned(), true);
                }
                if self.is_needed(&hash, None) || self.work.waiting.contains_key(&hash) {
                    let (least, most) = (self.config.retry_least, self.config.retry_most);
                    let failed = self.work.failed_contents.entry(hash).or_insert((0, now));
                    failed.0 += 1;
                    failed.1 = now + backoff(failed.0, least, most);
                    self.work.timers.insert((failed.1, Retry::Content(hash)));
                }
            }
        }
        self.plan(now);
    }

    /// A content is among the objects: after [`Output::Keep`], or found there at the start.
    pub fn handle_kept(&mut self, now: Instant, content: ContentId, result: Result<(), DiskError>) {
        self.work.keeping.remove(&content.hash);
        match result {
            Ok(()) => self.has_content(content),
            Err(why) => {
                let waiting = self.work.waiting.get(&content.hash).cloned();
                for path in waiting.unwrap_or_default() {
                    self.failed(now, &path, &why);
                    self.put(Output::Look(path));
                }
            }
        }
        self.plan(now);
    }

    fn has_content(&mut self, content: ContentId) {
        self.work.kept.insert(content.hash, content);
        let waiting = self.work.waiting.remove(&content.hash);
        self.work.ready.extend(waiting.unwrap_or_default());
        self.release_if_unneeded(&content.hash);
    }

    /// How an install or a removal ended.
    pub fn handle_done(&mut self, now: Instant, id: JobId, result: Result<(), DiskError>) {
        let Some(job) = self.work.end(id) else {
            return;
        };
        for (path, _) in &job.paths {
            self.work.busy.remove(path);
            self.act(path);
        }
        self.log.open();
        match result {
            Ok(()) if job.is_void => {
                let paths = job.paths.iter().map(|(path, _)| path.clone());
                self.outputs.extend(paths.map(Output::Look));
            }
            Ok(()) => self.done(now, &job),
            Err(why) => {
                // Of a group some files may have been renamed: what is planned stays so.
                let is_undone = matches!(why, DiskError::Differs(_) | DiskError::Source(_));
                for (path, _) in &job.paths {
                    if is_undone {
                        let have = self.disk.get(&self.manifest, path);
                        self.set_disk(path, have);
                    }
                    self.failed(now, path, &why);
                    self.put(Output::Look(path.clone()));
                }
                if let DiskError::Source(hash) = &why {
                    self.lose_source(hash, job.kept.contains(hash));
                }
            }
        }
        self.log.close();
        for (path, _) in &job.paths {
            if self.work.look_after.remove(path) {
                self.put(Output::Look(path.clone()));
            }
            self.wake(path);
        }
        for content in job.paths.iter().filter_map(|(_, content)| *content) {
            self.release_if_unneeded(&content.hash);
        }
        let blocked = std::mem::take(&mut self.work.blocked);
        self.work.ready.extend(blocked);
        self.plan(now);
    }

    fn done(&mut self, now: Instant, job: &Job) {
        if let Some((group, generation)) = &job.group {
            for (_, content) in generation.members() {
                self.work.kept.insert(content.hash, *content);
            }
            self.serve(now, group, generation.clone());
        }
        for (path, content) in &job.paths {
            self.work.tried(path);
            self.clear_trouble(&format!("file {path}"));
            match content {
                Some(_) => {
                    self.counts.installed += 1;
                    self.work.installed(path, now);
                }
                None => self.counts.removed += 1,
            }
            self.see(path);
            self.set_disk(path, *content);
        }
        self.clear_trouble("disk");
        if let Some((group, _)) = &job.group {
            self.wake_group(group);
        }
    }

    fn failed(&mut self, now: Instant, path: &FileName, why: &DiskError) {
        let (least, most) = (self.config.retry_least, self.config.retry_most);
        self.work.rest(path, now, least, most);
        match why {
            DiskError::Full => {
                let what = format!("{path} cannot be stored: no space left; make room");
                self.trouble("disk", what, true);
            }
            DiskError::Other(why) => {
                let what = format!("{path} cannot be stored: {why}");
                self.trouble(&format!("file {path}"), what, true);
            }
            DiskError::Differs(_) | DiskError::Source(_) => {}
        }
    }

    /// A content is not where it was thought to be. An object that has been kept only since the
    /// job began, while its source was a path, is there.
    fn lose_source(&mut self, hash: &ContentHash, was_kept: bool) {
        if was_kept {
            self.work.kept.remove(hash);
            return;
        }
        let needs = |content: &ContentId| content.hash == *hash;
        let present = self.disk.present(&self.manifest);
        let there = present.filter(|path| self.on_disk(path).as_ref().is_some_and(needs));
        let there: Vec<_> = there.cloned().collect();
        for path in there {
            self.put(Output::Look(path));
        }
    }

    /// It was wanted somewhere, and there no longer.
    pub(super) fn no_longer_wanted(&mut self, content: &ContentId) {
        let hash = content.hash;
        if self.is_needed(&hash, None) {
            return;
        }
        if !self.work.keeping.contains(&hash) {
            self.work.waiting.remove(&hash);
        }
        self.work.failed_contents.remove(&hash);
        if self.work.asked.remove(&hash) {
            self.put(Output::Cancel(hash));
        }
        self.release_if_unneeded(&hash);
    }

    /// Lets go of an object that nothing will be made of.
    pub(super) fn release_if_unneeded(&mut self, hash: &ContentHash) {
        if !self.scan.has_ended || !self.work.is_kept(hash) {
            return;
        }
        let is_held = self.groups.values().any(|group| group.holds(hash));
        let is_waited_for = self.work.waiting.contains_key(hash) || self.work.uses(hash);
        if is_held || is_waited_for || self.is_needed(hash, None) || self.is_of_a_group(hash) {
            return;
        }
        if let Some(content) = self.work.kept.remove(hash) {
            self.put(Output::Release(content));
        }
    }

    /// A generation that is to be served next has it.
    fn is_of_a_group(&self, hash: &ContentHash) -> bool {
        self.manifest.groups().any(|group| {
            let generation = self.manifest.generation(group);
            let mut members = generation.iter().flat_map(Generation::members);
            members.any(|(_, content)| content.hash == *hash)
        })
    }

    pub(super) fn release_all_unneeded(&mut self) {
        let kept: Vec<_> = self.work.kept.keys().copied().collect();
        for hash in kept {
            self.release_if_unneeded(&hash);
        }
    }
}
