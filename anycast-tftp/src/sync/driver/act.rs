//! Carrying out what the replica decides: the log before all else, then the disk, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anycast_core::health::Reason;
use tokio::time::sleep_until;

use super::{COMPACT_ABOVE, RECORD, Shared, id_of, lock, wall};
use crate::sync::content::ContentId;
use crate::sync::folder::log::{Log, LogError};
use crate::sync::folder::{InstallError, Put, Removal};
use crate::sync::replica::{DiskError, Item, JobId, Output, RootId};

/// How long the replica is left alone when it waits for nothing.
const IDLE: Duration = Duration::from_secs(3600);
/// Objects and partial contents are looked through for what nobody needs so often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Partial contents that nobody fetches any more may have so many bytes.
const STAGING: u64 = 4 << 30;

/// Acts for ever.
pub(super) async fn act(shared: Arc<Shared>, log: Log) {
    let mut log = Some(log);
    let mut compact_at = COMPACT_ABOVE;
    let mut sweep_at = Instant::now() + SWEEP_EVERY;
    loop {
        let now = Instant::now();
        let due = shared.replica().poll_timeout().map(|(at, _)| at);
        let due = due.unwrap_or(now + IDLE).min(sweep_at);
        tokio::select! {
            () = shared.wake.notified() => {}
            () = sleep_until(due.into()) => {
                shared.replica().handle_timeout(Instant::now(), wall());
            }
        }
        loop {
            let (outputs, record) = take(&shared);
            carry_out(&shared, outputs).await;
            let Some(record) = record else { break };
            log = record_it(&shared, log, record, &mut compact_at).await;
        }
        if Instant::now() >= sweep_at {
            sweep_at = Instant::now() + SWEEP_EVERY;
            sweep(&shared).await;
        }
    }
}

/// What is to be done, up to the next record.
fn take(shared: &Shared) -> (Vec<Output>, Option<Vec<u8>>) {
    let mut replica = shared.replica();
    let mut outputs = Vec::new();
    while let Some(output) = replica.poll_output() {
        if let Output::Record(bytes) = output {
            return (outputs, Some(bytes));
        }
        outputs.push(output);
    }
    (outputs, None)
}

/// Appends to the log, and writes it anew when it has grown long. The log is lost, and nothing is
/// recorded any more, only with the runtime.
async fn record_it(
    shared: &Arc<Shared>,
    log: Option<Log>,
    record: Vec<u8>,
    compact_at: &mut u64,
) -> Option<Log> {
    let Some(mut log) = log else {
        let lost = Err(Reason::new("the log is lost; start again"));
        shared.replica().handle_recorded(Instant::now(), lost);
        return None;
    };
    let owner = Arc::clone(shared);
    let compact_above = *compact_at;
    let written = tokio::task::spawn_blocking(move || {
        let pieces: Vec<_> = record.chunks(RECORD).collect();
        let mut written = log.append(&pieces);
        let is_long = log.size() > compact_above;
        let mut next_at = compact_above;
        if log.is_broken() || (written.is_ok() && is_long) {
            // What is appended is in the replica already, and so in its snapshot.
            let compacted = compact(&owner, &mut log);
            if let Err(error) = &compacted {
                tracing::error!(%error, "the state cannot be written anew");
            }
            if written.is_err() {
                written = compacted;
            }
            // Also where it failed: not again at each record.
            next_at = (log.size() * 2).max(COMPACT_ABOVE);
        }
        (log, written, next_at)
    });
    match written.await {
        Ok((log, written, next_at)) => {
            *compact_at = next_at;
            let result = written.map_err(|error| Reason::new(&error.to_string()));
            shared.replica().handle_recorded(Instant::now(), result);
            Some(log)
        }
        Err(error) => {
            tracing::error!(%error, "the log is lost");
            let lost = Err(Reason::new("the log is lost; start again"));
            shared.replica().handle_recorded(Instant::now(), lost);
            None
        }
    }
}

/// The whole state as it is now, in the place of its history. The replica goes on meanwhile; what it
/// changes comes with a later record.
fn compact(shared: &Shared, log: &mut Log) -> Result<(), LogError> {
    let mut cursor = None;
    let mut has_ended = false;
    let mut pieces = std::iter::from_fn(|| {
        if has_ended {
            return None;
        }
        let (bytes, next) = shared.replica().snapshot(cursor.as_ref(), RECORD);
        has_ended = next.is_none();
        cursor = next;
        Some(bytes)
    });
    let mut records = pieces.by_ref().flat_map(|bytes| {
        let pieces: Vec<_> = bytes.chunks(RECORD).map(<[u8]>::to_vec).collect();
        pieces
    });
    log.compact(&mut records)
}

async fn carry_out(shared: &Arc<Shared>, outputs: Vec<Output>) {
    let mut disk = Vec::new();
    for output in outputs {
        match output {
            Output::Fetch {
                content,
                basis,
                from,
            } => shared.fetches.add(content, basis, from),
            Output::Cancel(hash) => shared.fetches.cancel(&hash),
            Output::Look(path) => {
                lock(&shared.looks).insert(path.as_str().to_owned());
                shared.look.notify_one();
            }
            Output::Follow(peer) => {
                if let Some(again) = shared.follows.get(&peer) {
                    again.notify_one();
                }
            }
            Output::Changed => shared.changed.send_modify(|count| *count += 1),
            // The store asks the replica which generation it serves.
            Output::Unserve(_) => {}
            // Taken before.
            Output::Record(_) => {}
            Output::Mark(root) => disk.push(OnDisk::Mark(root)),
            Output::Keep { content, .. } => disk.push(OnDisk::Keep(content)),
            Output::Release(content) => disk.push(OnDisk::Release(content)),
            Output::Install { id, items, group } => disk.push(OnDisk::Install {
                id,
                items,
                is_group: group.is_some(),
            }),
            Output::Remove {
                id,
                path,
                expecting,
            } => disk.push(OnDisk::Remove {
                id,
                removal: Removal {
                    name: path,
                    expecting,
                    keeps_old: false,
                },
            }),
        }
    }
    if disk.is_empty() {
        return;
    }
    let owner = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || on_disk(&owner, disk)).await;
    if let Err(error) = done {
        tracing::error!(%error, "the disk's part of file sync failed");
    }
}

/// What is to be done to the disk.
enum OnDisk {
    Mark(RootId),
    Keep(ContentId),
    Release(ContentId),
    Install {
        id: JobId,
        items: Vec<Item>,
        is_group: bool,
    },
    Remove {
        id: JobId,
        removal: Removal,
    },
}

type Installs = Vec<(JobId, Vec<Item>)>;
type Removals = Vec<(JobId, Removal)>;

/// All of it, in order; installs of files of their own, and removals, each together.
fn on_disk(shared: &Shared, todo: Vec<OnDisk>) {
    let mut installs = Installs::new();
    let mut removals = Removals::new();
    for one in todo {
        let is_install = matches!(
            one,
            OnDisk::Install {
                is_group: false,
                ..
            }
        );
        if !is_install {
            install_all(shared, &mut installs);
        }
        if !matches!(one, OnDisk::Remove { .. }) {
            remove_all(shared, &mut removals);
        }
        match one {
            OnDisk::Mark(root) => {
                if let Err(error) = shared.folder.mark(&id_of(root)) {
                    tracing::error!(%error, "the folder cannot be marked; it counts as another one at the next start");
                }
            }
            OnDisk::Keep(content) => {
                let kept = shared.folder.keep_content(&content);
                let kept = kept.map_err(|error| DiskError::Other(Reason::new(&error.to_string())));
                shared.with(|replica| replica.handle_kept(Instant::now(), content, kept));
            }
            OnDisk::Release(content) => shared.folder.release(&content),
            OnDisk::Install {
                id,
                items,
                is_group: false,
            } => installs.push((id, items)),
            OnDisk::Install {
                id,
                items,
                is_group: true,
            } => install_group(shared, id, &items),
            OnDisk::Remove { id, removal } => removals.push((id, removal)),
        }
    }
    install_all(shared, &mut installs);
    remove_all(shared, &mut removals);
}

/// All of a group's files, or none where one cannot be.
fn install_group(shared: &Shared, id: JobId, items: &[Item]) {
    let prepared = shared.folder.prepare(&puts(items, true));
    let refused = prepared.errors().next().map(|(_, error)| disk_error(error));
    let done = match refused {
        Some(error) => Err(error),
        None => {
            let failed = prepared.commit().into_iter().find_map(Result::err);
            failed.map_or(Ok(()), |error| Err(disk_error(&error)))
        }
    };
    shared.with(|replica| replica.handle_done(Instant::now(), id, done));
}

fn puts(items: &[Item], is_group: bool) -> Vec<Put> {
    let put = |item: &Item| Put {
        name: item.path.clone(),
        content: item.content,
        expecting: item.expecting,
        keeps_old: false,
        keeps_new: is_group,
    };
    items.iter().map(put).collect()
}

fn install_all(shared: &Shared, installs: &mut Installs) {
    if installs.is_empty() {
        return;
    }
    let installs = std::mem::take(installs);
    let mut puts_of_all = Vec::new();
    for (_, items) in &installs {
        puts_of_all.extend(puts(items, false));
    }
    let mut results = shared.folder.install(&puts_of_all).into_iter();
    let now = Instant::now();
    shared.with(|replica| {
        for (id, items) in &installs {
            let own = results.by_ref().take(items.len());
            let failed = own.filter_map(Result::err).map(|error| disk_error(&error));
            let failed = failed.collect::<Vec<_>>().into_iter().next();
            replica.handle_done(now, *id, failed.map_or(Ok(()), Err));
        }
    });
}

fn remove_all(shared: &Shared, removals: &mut Removals) {
    if removals.is_empty() {
        return;
    }
    let (ids, removals): (Vec<_>, Vec<_>) = std::mem::take(removals).into_iter().unzip();
    let results = shared.folder.remove(&removals);
    let now = Instant::now();
    shared.with(|replica| {
        for (id, result) in ids.into_iter().zip(results) {
            replica.handle_done(now, id, result.map_err(|error| disk_error(&error)));
        }
    });
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the replica tells the three that it can do something about from the rest"
)]
fn disk_error(error: &InstallError) -> DiskError {
    match error {
        InstallError::Changed(path) => DiskError::Differs(path.clone()),
        InstallError::NoContent { hash, .. } => DiskError::Source(*hash),
        InstallError::Full(_) => DiskError::Full,
        _ => DiskError::Other(Reason::new(&error.to_string())),
    }
}

/// Removes objects that nobody needs, and old partial contents.
async fn sweep(shared: &Arc<Shared>) {
    let owner = Arc::clone(shared);
    let swept = tokio::task::spawn_blocking(move || {
        let objects = owner.folder.objects()?;
        // In this order: what is fetched is told to the replica before it is not under way any more.
        let fetching = owner.fetches.under_way();
        for object in objects {
            let is_needed =
                fetching.contains(&object.hash) || owner.replica().is_kept(&object.hash);
            if !is_needed {
                owner.folder.release(&object);
            }
        }
        owner.folder.sweep_staging(&fetching, STAGING)
    });
    match swept.await {
        Ok(Ok(swept)) if swept.files > 0 => {
            tracing::debug!(files = swept.files, bytes = swept.bytes, "swept");
        }
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the hidden folder cannot be swept"),
    }
}
