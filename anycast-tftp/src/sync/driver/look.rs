//! Looking at the folder: everything at the start and now and then, and in between what the kernel
//! tells of, what the replica asks for, and files that were being written when they were looked at.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use super::{Shared, lock, marker_of, random, wall};
use crate::store::FileName;
use crate::sync::folder::{DOUBT, Found, ScanOptions, ScanReport, Scope, TroubleKind};
use crate::sync::replica::{RootId, Ticket};

/// A file that was modified within this time, and of which nobody knows that it was closed, is
/// looked at later.
const QUIET: Duration = Duration::from_millis(500);
/// When.
const BUSY: Duration = Duration::from_millis(500);
/// When a file is looked at again whose times did not tell whether it was changed.
const CERTAIN: Duration = DOUBT.saturating_add(Duration::from_millis(100));
/// After a scan that failed everything is looked at again.
const FAILED: Duration = Duration::from_secs(5);
/// Files that were found are told to the replica so many at a time.
const BATCH: usize = 512;

impl Shared {
    /// A scan of everything, by order.
    pub(super) async fn rescan(self: &Arc<Self>) -> Result<(), String> {
        if scan(self, None, false, Duration::ZERO).await {
            return Ok(());
        }
        Err("the folder cannot be scanned; the log says why".to_owned())
    }
}

/// Looks for ever.
pub(super) async fn look(shared: Arc<Shared>, rescan: Duration) {
    // The folder has the watch: one that had the folder would never end.
    let waker = Arc::downgrade(&shared);
    let watching = shared.folder.watch(move || {
        if let Some(shared) = waker.upgrade() {
            shared.look.notify_one();
        }
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "changes are found by scanning alone");
    }
    while !scan(&shared, None, true, Duration::ZERO).await {
        sleep(FAILED).await;
    }
    let mut next = Instant::now() + rescan;
    let mut busy = BTreeSet::new();
    let mut busy_at = None;
    let mut doubtful_at = None;
    loop {
        let due = [busy_at, doubtful_at].into_iter().flatten();
        let due = due.fold(next, Instant::min);
        tokio::select! {
            () = shared.look.notified() => {}
            () = sleep_until(due.into()) => {}
        }
        let changes = shared.folder.take_changes();
        if let Some(trouble) = &changes.trouble {
            tracing::warn!(trouble, "changes are found by scanning alone");
        }
        let now = Instant::now();
        if changes.is_everything || now >= next {
            let is_done = scan(&shared, None, false, QUIET).await;
            // A scan that takes long is not begun again at once.
            next = Instant::now() + if is_done { rescan } else { FAILED };
        }
        let looks = shared.take_looks();
        let closed = changes.closed;
        let mut is_done = true;
        if !looks.is_empty() {
            // Whoever asks does not know what is there, though it be the same as ever.
            is_done &= scan(&shared, Some(looks), true, Duration::ZERO).await;
        }
        if !closed.is_empty() {
            is_done &= scan(&shared, Some(closed), false, Duration::ZERO).await;
        }
        let mut open = changes.paths;
        if busy_at.is_some_and(|at| now >= at) {
            open.extend(std::mem::take(&mut busy));
        }
        if !open.is_empty() {
            is_done &= scan(&shared, Some(open), false, QUIET).await;
        }
        if doubtful_at.is_some_and(|at| now >= at) {
            let doubtful = std::mem::take(&mut *lock(&shared.doubtful));
            let doubtful = doubtful.into_iter().collect();
            is_done &= scan(&shared, Some(doubtful), false, QUIET).await;
        }
        // What was to be looked at is found by looking at everything.
        if !is_done {
            next = Instant::now() + FAILED;
        }
        let found = shared.take_busy();
        busy.extend(found);
        let is_doubtful = !lock(&shared.doubtful).is_empty();
        let pending = doubtful_at.filter(|at| *at > now);
        doubtful_at = is_doubtful.then(|| pending.unwrap_or(now + CERTAIN));
        busy_at = (!busy.is_empty()).then(|| busy_at.filter(|at| *at > now).unwrap_or(now + BUSY));
    }
}

/// One scan, of everything or of these paths. A full one tells what is there, another one only what is
/// new. False: it was given up, and counts as none.
async fn scan(
    shared: &Arc<Shared>,
    paths: Option<Vec<String>>,
    is_full: bool,
    quiet: Duration,
) -> bool {
    let shared = Arc::clone(shared);
    let scanned = tokio::task::spawn_blocking(move || {
        let scope = match &paths {
            None => Scope::All,
            Some(paths) => Scope::Paths(paths),
        };
        let is_all = paths.is_none();
        let began = Instant::now();
        let marker = match shared.folder.marker() {
            Ok(marker) => marker,
            Err(error) => return failed(&shared, &error.to_string()),
        };
        let mut asked: BTreeSet<_> = paths
            .iter()
            .flatten()
            .filter_map(|path| name(path))
            .collect();
        let (ticket, is_full) = shared.with(|replica| {
            replica.handle_root(marker.map(marker_of), RootId(random()));
            let is_new = !replica.has_scanned();
            if is_all && (is_full || is_new) {
                replica.handle_scan_began();
            }
            for name in &asked {
                replica.handle_changing(began, name);
            }
            (replica.ticket(), is_full || is_new)
        });
        // It has become another folder meanwhile: all of it is to be looked at.
        if !is_all && !shared.replica().has_scanned() {
            return false;
        }
        let mut batch: Vec<Found> = Vec::new();
        let flush = |batch: &mut Vec<Found>| {
            let (now, wall) = (Instant::now(), wall());
            shared.with(|replica| {
                for found in batch.drain(..) {
                    replica.handle_found(now, wall, ticket, &found.name, found.content);
                }
            });
        };
        // Of a path that was asked for something is told in any case.
        let options = ScanOptions {
            is_full: is_full || !is_all,
            quiet,
        };
        let scanned = shared.folder.scan(scope, options, &mut |found| {
            asked.remove(&found.name);
            batch.push(found);
            if batch.len() >= BATCH {
                flush(&mut batch);
            }
        });
        flush(&mut batch);
        match scanned {
            Ok(report) => {
                let is_told = |name: &FileName| {
                    let is_gone = report.gone.iter().any(|gone| gone.name == *name);
                    is_gone || report.busy.iter().any(|busy| busy == name.as_str())
                };
                asked.retain(|name| !is_told(name));
                told(&shared, ticket, is_full && is_all, is_all, &report, &asked);
                if is_all {
                    *lock(&shared.rescan_time) = Some(began.elapsed());
                    if let Err(error) = shared.folder.save() {
                        tracing::warn!(%error, "what is on the disk cannot be remembered; the next start hashes it again");
                    }
                }
                true
            }
            Err(error) => failed(&shared, &error.to_string()),
        }
    });
    scanned.await.unwrap_or(false)
}

fn failed(shared: &Shared, error: &str) -> bool {
    tracing::error!(%error, "the folder cannot be scanned");
    shared.with(|replica| replica.handle_scan_failed(&error.into()));
    false
}

/// A path as it is named by clients; `None`: none could name it.
fn name(path: &str) -> Option<FileName> {
    let name = FileName::from_wire(path.as_bytes()).ok()?;
    (name.as_str() == path).then_some(name)
}

/// `absent` are paths that were asked for and have no file.
fn told(
    shared: &Shared,
    ticket: Ticket,
    is_full: bool,
    is_all: bool,
    report: &ScanReport,
    absent: &BTreeSet<FileName>,
) {
    let (now, wall) = (Instant::now(), wall());
    let marker = report.marker.map(marker_of);
    shared.with(|replica| {
        // Another folder by the end than at the beginning: what is not in it is not gone.
        if marker.is_some() && replica.root() == marker {
            for gone in report.gone.iter().map(|gone| &gone.name).chain(absent) {
                replica.handle_gone(now, wall, ticket, gone);
            }
        }
        if is_full {
            replica.handle_scan_ended(now, wall);
        }
        if is_all {
            replica.handle_scan_succeeded();
        }
    });
    let mut busy = lock(&shared.busy);
    busy.extend(report.busy.iter().cloned());
    drop(busy);
    lock(&shared.doubtful).extend(report.doubtful.iter().cloned());
    if is_all {
        let mut troubles = Vec::new();
        for trouble in &report.troubles {
            // A link is there on purpose: it is no reason for an alarm.
            if trouble.kind != TroubleKind::Link {
                troubles.push(format!("{}: {}", trouble.path, trouble.kind));
            }
        }
        let links = report
            .troubles
            .iter()
            .filter(|one| one.kind == TroubleKind::Link)
            .count();
        *lock(&shared.unsynced) = (troubles, links, report.more_troubles);
    }
}
