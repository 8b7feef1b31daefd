//! One node's part in keeping the files the same: what to record, fetch, install and tell. Pure.
//!
//! # Contract
//!
//! - **Inputs** are the `handle_*` functions; after any of them, and after
//!   [`handle_timeout`](Replica::handle_timeout) when [`poll_timeout`](Replica::poll_timeout) has
//!   come, the driver takes [`poll_output`](Replica::poll_output) until it answers `None`.
//! - **What is recorded comes first.** After an [`Output::Record`] nothing comes until
//!   [`handle_recorded`](Replica::handle_recorded) says that it is on the disk, and
//!   [`page`](Replica::page) shows nothing that is not. So no peer ever knows of a change that a
//!   crash here could undo, and an install is recorded before it is done: a file that a crash left
//!   is not mistaken for an edit.
//! - **Observations.** What the folder holds comes by [`handle_found`](Replica::handle_found) and
//!   [`handle_gone`](Replica::handle_gone), with a [`Ticket`] that was taken *before* the file was
//!   opened. One that is older than an install there is thrown away, and the path looked at again
//!   ([`Output::Look`]). A found content that is not what was last known there is an edit.
//! - **Every install and removal names what it expects** to find. If something else is there, the
//!   driver does nothing and answers [`DiskError::Differs`]; it is found as an edit, and then
//!   decided again.
//! - **Nothing is lost.** A content that is replaced or removed and that is wanted under another
//!   path is kept first ([`Output::Keep`]). A deletion counts once nothing has vanished for
//!   [`Config::quiet`]; if then all files are gone, it is held until [`force`](Replica::force). If
//!   the marker is missing or another one, the copy counts as lost and nothing is deleted (F10).
//! - **Groups** are installed whole: all contents are objects first, then the store serves the new
//!   generation, then the files are renamed. A group is published once none of its files has changed
//!   for [`Config::settle`] and all are there.
//! - Nothing is installed or removed before the first scan has ended, for what changed while the
//!   process did not run must be found as what it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anycast_core::health::Reason;
use anycast_core::service::NodeName;

use crate::store::FileName;
use crate::sync::content::{ContentHash, ContentId};
use crate::sync::manifest::{Generation, GroupName, Manifest, Refused, Writer};
use crate::sync::wire::{GenerationId, Head};

mod config;
mod disk;
mod groups;
mod local;
mod log;
mod plan;
mod remote;
mod seen;
#[cfg(test)]
mod simulation;
mod status;
#[cfg(test)]
mod tests;
mod vanished;
mod work;

pub use config::{Config, ConfigError, GroupConfig, Mode};
use disk::Disk;
use groups::Group;
pub use log::{Restore, Restored};
use remote::Peer;
use seen::Seen;
pub use status::{Counts, Trouble};
use work::Work;

/// Most troubles that are told one by one; of more only the number is known.
pub const MAX_TROUBLES: usize = 64;

/// What the driver knows when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The monotonic clock.
    pub now: Instant,
    /// The wall clock, in microseconds since 1970.
    pub wall: u64,
    /// Random: names the change numbers of this process.
    pub epoch: u64,
    /// Random: names this node's writes if there is no state that names them already.
    pub incarnation: u64,
}

/// The random name of one copy of the folder, kept in it and in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootId(pub u64);

/// When a look at the folder began. See [`Replica::ticket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(in crate::sync) u64);

/// One install or removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Where the driver has a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Among the objects or the staged contents.
    Kept,
    /// In the folder under this path, unless it has been edited meanwhile: verify what is copied.
    Path(FileName),
}

/// One content to be put under one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where.
    pub path: FileName,
    /// What.
    pub content: ContentId,
    /// What must be there now; `None`: nothing. When it is the content itself, the file stays as
    /// it is.
    pub expecting: Option<ContentId>,
    /// Where it is to be had.
    pub source: Source,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Append this to the log, make it durable, then call
    /// [`handle_recorded`](Replica::handle_recorded). Nothing else comes until then.
    Record(Vec<u8>),
    /// Write the marker into the folder.
    Mark(RootId),
    /// Fetch a content into the staged ones, then call [`handle_fetched`](Replica::handle_fetched).
    Fetch {
        /// What.
        content: ContentId,
        /// An older version that is here, for what both have in common.
        basis: Option<ContentId>,
        /// Who is up, those first who told of it.
        from: Vec<NodeName>,
    },
    /// It is not wanted any more: stop fetching it; what is staged of it may go.
    Cancel(ContentHash),
    /// Link this content, which is in the folder there, to the objects, then call
    /// [`handle_kept`](Replica::handle_kept).
    Keep {
        /// What.
        content: ContentId,
        /// Where it is.
        path: FileName,
    },
    /// It need not be kept any longer; unless a transfer reads it, remove it from the objects and
    /// the staged contents.
    Release(ContentId),
    /// Put contents under paths, then call [`handle_done`](Replica::handle_done). Empty folders
    /// where a file is to be are removed.
    Install {
        /// Which.
        id: JobId,
        /// One; of a group, all of its files.
        items: Vec<Item>,
        /// Of a group: first link all to the objects, then serve this generation, then rename.
        group: Option<(GroupName, Generation)>,
    },
    /// Remove a file if it is the one that is expected, and then folders that are empty; then call
    /// [`handle_done`](Replica::handle_done).
    Remove {
        /// Which.
        id: JobId,
        /// Where.
        path: FileName,
        /// What must be there.
        expecting: ContentId,
    },
    /// Look at this path, and say what is there.
    Look(FileName),
    /// The group is deleted: serve no generation of it any longer.
    Unserve(GroupName),
    /// Ask this peer, on a new stream, for its changes from
    /// [`follow`](Replica::follow) on: something is missing.
    Follow(NodeName),
    /// There is more to tell followers: [`page`](Replica::page), then [`head`](Replica::head).
    Changed,
}

/// Why a content could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// None of the peers that were asked has it.
    #[error("no node that can be reached has it")]
    Absent,
    /// No space left.
    #[error("no space left on the disk")]
    Full,
    /// Anything else.
    #[error("{0}")]
    Other(Reason),
}

/// Why an install or a removal was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is something else than was expected. Nothing was done, of a group neither.
    #[error("{0} is not what was expected there")]
    Differs(FileName),
    /// A source does not have the content any more. Nothing was done.
    #[error("{0} is not there to be installed any more")]
    Source(ContentHash),
    /// No space left.
    #[error("no space left on the disk")]
    Full,
    /// The file system does not take the name, or something is in its way.
    #[error("{0}")]
    Other(Reason),
}

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Replica {
    config: Config,
    epoch: u64,
    started_at: Instant,
    /// The last that was told.
    clock: Instant,
    writer: Writer,
    /// The last counter of [`Self::writer`].
    counter: u64,
    root: Option<RootId>,
    manifest: Manifest,
    disk: Disk,
    groups: BTreeMap<GroupName, Group>,
    configured: BTreeMap<FileName, GroupName>,
    peers: BTreeMap<NodeName, Peer>,
    work: Work,
    scan: Scan,
    /// Files that are gone, since when the first and the last.
    vanished: BTreeSet<FileName>,
    /// Files that are being changed, or read.
    stirring: BTreeSet<FileName>,
    vanished_at: Option<Instant>,
    /// How many there were before the first of them vanished.
    count_before: usize,
    /// All files vanished; waits for [`Self::force`].
    is_held: bool,
    ticket: u64,
    /// Tickets up to this one are too old to be compared.
    ticket_floor: u64,
    /// When this node last changed a path.
    acted: BTreeMap<FileName, u64>,
    troubles: BTreeMap<String, Trouble>,
    more_troubles: u64,
    was_ready: bool,
    lagging_since: Option<Instant>,
    counts: Counts,
    log: log::Log,
    outputs: VecDeque<Output>,
    has_news: bool,
}

/// What is known of the scans of the folder.
#[derive(Debug, Default)]
struct Scan {
    has_ended: bool,
    /// During a scan: when it began, and what it has found.
    running: Option<(u64, Seen)>,
}

impl Replica {
    /// A replica without a past. With one, see [`Restore`].
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: Config, start: Start) -> Result<Self, ConfigError> {
        config.validate()?;
        let writer = Writer {
            node: config.node.clone(),
            incarnation: start.incarnation,
        };
        let peers = config.peers.iter().filter(|peer| **peer != config.node);
        let mut configured = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for group in &config.groups {
            for member in &group.members {
                configured.insert(member.clone(), group.name.clone());
            }
            groups.insert(group.name.clone(), Group::configured(&group.members));
        }
        let mut replica = Self {
            epoch: start.epoch,
            started_at: start.now,
            clock: start.now,
            counter: 0,
            root: None,
            manifest: Manifest::new(config.max_files),
            disk: Disk::default(),
            groups,
            configured,
            peers: peers.map(|peer| (peer.clone(), Peer::default())).collect(),
            work: Work::default(),
            scan: Scan::default(),
            vanished: BTreeSet::new(),
            stirring: BTreeSet::new(),
            vanished_at: None,
            count_before: 0,
            is_held: false,
            ticket: 1,
            ticket_floor: 0,
            acted: BTreeMap::new(),
            troubles: BTreeMap::new(),
            more_troubles: 0,
            was_ready: false,
            lagging_since: None,
            counts: Counts::default(),
            log: log::Log::default(),
            outputs: VecDeque::new(),
            has_news: false,
            writer,
            config,
        };
        replica.record_writer();
        Ok(replica)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The versions of everything.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What was last known to be under a path.
    #[must_use]
    pub fn on_disk(&self, path: &FileName) -> Option<ContentId> {
        self.disk.get(&self.manifest, path)
    }

    /// A path in the folder that has this content, as far as is known; verify what is read there.
    #[must_use]
    pub fn locate(&self, content: &ContentId) -> Option<FileName> {
        self.disk.locate(&self.manifest, content)
    }

    /// Whether the driver has it among objects and staged contents.
    #[must_use]
    pub fn is_kept(&self, hash: &ContentHash) -> bool {
        self.work.is_kept(hash)
    }

    /// The generation of a group that is served, and those before it that are still readable.
    #[must_use]
    pub fn generations(&self, group: &GroupName) -> Vec<(GenerationId, Generation)> {
        self.groups
            .get(group)
            .map_or_else(Vec::new, Group::readable)
    }

    /// The group that a path is served from: the store takes it from a generation, not the folder.
    #[must_use]
    pub fn group_of(&self, path: &FileName) -> Option<GroupName> {
        let configured = self.configured.get(path);
        configured.or_else(|| self.manifest.group_at(path)).cloned()
    }

    /// To be taken before a file is opened whose content will be told: an observation is of no use
    /// if this node has changed the path since.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.ticket)
    }

    /// What followers are told of where this copy stands.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            epoch: self.epoch,
            seq: self.log.durable_seq(),
            digest: self.manifest.digest(),
            files: u64::try_from(self.manifest.len()).unwrap_or(u64::MAX),
            missing: u64::try_from(self.disk.missing()).unwrap_or(u64::MAX),
        }
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.log.is_waiting() {
            return None;
        }
        if let Some(bytes) = self.log.take(self.manifest.seq()) {
            return Some(Output::Record(bytes));
        }
        if std::mem::take(&mut self.has_news) {
            return Some(Output::Changed);
        }
        self.outputs.pop_front()
    }

    /// The bytes of the last [`Output::Record`] are on the disk; or they could not be written, and
    /// come again. After an error the driver cuts the log to where it was, for half a record hides
    /// what follows it.
    pub fn handle_recorded(&mut self, now: Instant, result: Result<(), Reason>) {
        match result {
            Ok(()) => {
                self.has_news |= self.log.recorded();
                self.clear_trouble("log");
            }
            Err(why) => {
                self.log.failed(now + self.config.retry_least);
                self.trouble("log", format!("the state cannot be recorded: {why}"), true);
            }
        }
    }

    /// When something is due, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let vanished = self.vanished_at.filter(|_| !self.is_held);
        let vanished = vanished.map(|at| (self.quiet_at(at), "files have vanished"));
        let groups = self.groups.values().filter(|_| self.scan.has_ended);
        let groups = groups.filter_map(|group| group.due(&self.config));
        let peers = self.peers.values().filter_map(Peer::due);
        let retry = self
            .work
            .due()
            .map(|at| (at, "something is to be tried again"));
        let log = self
            .log
            .due()
            .map(|at| (at, "the log is to be written again"));
        let all = vanished.into_iter().chain(retry).chain(log);
        all.chain(groups).chain(peers).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, wall: u64) {
        self.clock = now;
        self.log.retry(now);
        self.commit_deletions(now, wall, false);
        self.publish_groups(now, wall, false);
        self.release_generations(now);
        self.chase_peers(now);
        self.work.retry(now);
        self.plan(now);
    }

    /// An operator's word: held deletions count, half groups are mended, everything that failed is
    /// tried again at once, and all peers are asked from the beginning.
    pub fn force(&mut self, now: Instant, wall: u64) {
        self.hold(false);
        self.commit_deletions(now, wall, true);
        self.publish_groups(now, wall, true);
        self.ask_all_again(now);
        self.work.retry_all();
        self.plan(now);
    }

    fn put(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// What was found here, or came from a peer.
    fn refused(&mut self, refused: &Refused, from: Option<&NodeName>) {
        let subject = match refused {
            Refused::Full { .. } => "max_files".to_owned(),
            Refused::Large { key } => format!("entry {key}"),
        };
        let what = match from {
            None => refused.to_string(),
            Some(peer) => format!("{refused} (from {peer})"),
        };
        self.trouble(&subject, what, true);
    }

    /// Greater than all that this writer used, and than what it follows on if that is sane.
    fn next_counter(&mut self, wall: u64, after: u64) -> u64 {
        let most = crate::sync::manifest::MAX_COUNTER;
        let next = self.counter.saturating_add(1).max(wall.min(most));
        // A clock that is ahead by more than a day is not followed.
        let day = Duration::from_secs(86_400).as_micros();
        let is_sane = u128::from(after) < u128::from(wall) + day;
        let next = if is_sane {
            next.max(after.saturating_add(1))
        } else {
            next
        };
        self.counter = next.min(most);
        self.counter
    }
}
