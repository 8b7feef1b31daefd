//! Work that is to be done, or is being done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::JobId;
use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{Generation, GroupName};

/// Work that is to be done, or is being done.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Paths to be looked at when there is room for more fetches.
    pub(super) queue: BTreeSet<FileName>,
    /// Paths that have what they waited for, or need nothing.
    pub(super) ready: BTreeSet<FileName>,
    /// Recorded as to be installed (or removed), and not yet as done.
    pub(super) planned: BTreeMap<FileName, Option<ContentId>>,
    pub(super) busy: BTreeSet<FileName>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// How many jobs are to install each content.
    used: BTreeMap<ContentHash, usize>,
    pub(super) next: u64,
    /// Being fetched.
    pub(super) asked: BTreeSet<ContentHash>,
    pub(super) waiting: BTreeMap<ContentHash, BTreeSet<FileName>>,
    pub(super) keeping: BTreeSet<ContentHash>,
    /// Among the objects and the staged contents.
    pub(super) kept: BTreeMap<ContentHash, ContentId>,
    /// How often it has failed, and until when it rests.
    pub(super) failed_paths: BTreeMap<FileName, (u32, Instant)>,
    pub(super) failed_contents: BTreeMap<ContentHash, (u32, Instant)>,
    pub(super) timers: BTreeSet<(Instant, Retry)>,
    /// Paths with something in their way.
    pub(super) blocked: BTreeSet<FileName>,
    pub(super) look_after: BTreeSet<FileName>,
    /// Paths that were installed, when.
    pub(super) fresh: BTreeMap<FileName, Instant>,
    /// When those were last sorted out that are no longer fresh.
    sorted_out: Option<Instant>,
}

/// How long an installed file does not count as a witness that the folder is still there.
const FRESH: Duration = Duration::from_secs(30);
/// Most such paths; of more at once, the others are witnesses.
const MAX_FRESH: usize = 1024;
/// When there are as many, how often it is looked which are no longer fresh.
const SORT_OUT: Duration = Duration::from_secs(1);

/// What is tried again. One that no longer rests until then is stale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Retry {
    Path(FileName),
    Content(ContentHash),
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) paths: Vec<(FileName, Option<ContentId>)>,
    pub(super) group: Option<(GroupName, Generation)>,
    /// What was among the objects when it began.
    pub(super) kept: BTreeSet<ContentHash>,
    /// The folder was lost since: what it did there is of no account.
    pub(super) is_void: bool,
}

impl Job {
    /// What it installs, each once.
    fn contents(&self) -> BTreeSet<ContentHash> {
        let paths = self.paths.iter().filter_map(|(_, content)| *content);
        let group = self.group.iter().flat_map(|(_, group)| group.members());
        let all = paths.chain(group.map(|(_, content)| *content));
        all.map(|content| content.hash).collect()
    }
}

impl Work {
    pub(super) fn is_kept(&self, hash: &ContentHash) -> bool {
        self.kept.contains_key(hash)
    }

    pub(super) fn is_busy(&self, path: &FileName) -> bool {
        self.busy.contains(path)
    }

    /// Paths that are being changed, or were installed a short time ago.
    pub(super) fn own_paths(&self, now: Instant) -> BTreeSet<&FileName> {
        let fresh = self.fresh.iter();
        let fresh = fresh.filter(|(_, at)| now < **at + FRESH);
        let fresh = fresh.map(|(path, _)| path);
        self.busy.iter().chain(fresh).collect()
    }

    pub(super) fn installed(&mut self, path: &FileName, now: Instant) {
        let is_due = self.sorted_out.is_none_or(|last| now >= last + SORT_OUT);
        if is_due && self.fresh.len() >= MAX_FRESH {
            self.fresh.retain(|_, at| now < *at + FRESH);
            self.sorted_out = Some(now);
        }
        if self.fresh.len() < MAX_FRESH {
            self.fresh.insert(path.clone(), now);
        }
    }

    pub(super) fn look_after(&mut self, path: &FileName) {
        self.look_after.insert(path.clone());
    }

    pub(super) fn plan(&mut self, path: &FileName, content: Option<ContentId>) {
        self.planned.insert(path.clone(), content);
    }

    pub(super) fn unplan(&mut self, path: &FileName) -> bool {
        self.planned.remove(path).is_some()
    }

    pub(super) fn planned_at(&self, path: &FileName) -> Option<Option<ContentId>> {
        self.planned.get(path).copied()
    }

    pub(super) fn planned(&self) -> impl Iterator<Item = (&FileName, Option<ContentId>)> {
        self.planned.iter().map(|(path, content)| (path, *content))
    }

    /// Those of an earlier life.
    pub(super) fn old_plans(&self) -> Vec<FileName> {
        let old = self.planned.keys();
        old.filter(|path| !self.busy.contains(*path))
            .cloned()
            .collect()
    }

    pub(super) fn wake_all(&mut self, paths: Vec<FileName>) {
        self.queue.extend(paths);
    }

    /// Something new is known of the path: it need not rest.
    pub(super) fn tried(&mut self, path: &FileName) {
        self.failed_paths.remove(path);
    }

    /// The folder with the objects is lost.
    pub(super) fn lose_kept(&mut self) {
        self.kept.clear();
        for job in self.jobs.values_mut() {
            job.is_void = true;
        }
    }

    /// When something that failed is to be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn retry(&mut self, now: Instant) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, retry)) = self.timers.pop_first()
        {
            match retry {
                Retry::Path(path) => {
                    self.ready.insert(path);
                }
                Retry::Content(hash) => {
                    let waiting = self.waiting.get(&hash).into_iter().flatten();
                    self.ready.extend(waiting.cloned());
                }
            }
        }
    }

    /// All contents that could not be had are asked for again.
    pub(super) fn retry_fetches(&mut self) {
        for (hash, (_, until)) in &mut self.failed_contents {
            self.timers.remove(&(*until, Retry::Content(*hash)));
            let waiting = self.waiting.get(hash).into_iter().flatten();
            self.ready.extend(waiting.cloned());
        }
        self.failed_contents.clear();
    }

    pub(super) fn retry_all(&mut self) {
        self.retry_fetches();
        let failed = std::mem::take(&mut self.failed_paths);
        self.ready.extend(failed.into_keys());
        self.timers.clear();
    }

    /// Whether something is being installed that has it.
    pub(super) fn uses(&self, hash: &ContentHash) -> bool {
        self.used.contains_key(hash)
    }

    pub(super) fn begin(&mut self, id: JobId, job: Job) {
        for hash in job.contents() {
            *self.used.entry(hash).or_default() += 1;
        }
        self.jobs.insert(id, job);
    }

    pub(super) fn end(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        for hash in job.contents() {
            if let Some(count) = self.used.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    self.used.remove(&hash);
                }
            }
        }
        Some(job)
    }

    pub(super) fn rests(&self, path: &FileName, now: Instant) -> bool {
        let failed = self.failed_paths.get(path);
        failed.is_some_and(|(_, until)| now < *until)
    }

    pub(super) fn rest(&mut self, path: &FileName, now: Instant, least: Duration, most: Duration) {
        let failed = self.failed_paths.entry(path.clone()).or_insert((0, now));
        failed.0 += 1;
        failed.1 = now + backoff(failed.0, least, most);
        self.timers.insert((failed.1, Retry::Path(path.clone())));
    }
}

pub(super) fn backoff(attempts: u32, least: Duration, most: Duration) -> Duration {
    let doubled = 1_u32
        .checked_shl(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX);
    least.saturating_mul(doubled.max(1)).min(most)
}
