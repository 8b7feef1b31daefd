//! How the files of this node compare with those of its peers, and the order to reconcile them now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use anycast_core::sync::{Forced, Lag, Status, Sync, SyncError};
use async_trait::async_trait;
use tokio::time::sleep;

use super::bucket::Keeper;
use super::{FileSync, Shared, lock};
use crate::sync::content::ContentId;
use crate::sync::replica::Replica;

/// Items of each peer that [`FileSync::diff`] names; the others are counted.
const MAX_ITEMS: usize = 200;
/// Troubles and conflicts that are named; the others are counted.
const MAX_NAMED: usize = 20;
/// Between two looks at whether a forced reconciliation is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A forced reconciliation that gets no further for so long is given up.
const STUCK: Duration = Duration::from_secs(120);

/// What file sync says of itself beside its status; numbers that fall are gauges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Details {
    /// Entries of the manifest, deleted files included.
    pub entries: u64,
    /// Files in the folder.
    pub files: u64,
    /// Files that are not here yet as they should be.
    pub missing: u64,
    /// Equal at two nodes if and only if their manifests are.
    pub digest: String,
    /// How long the last look at the whole folder took, in milliseconds.
    pub rescan_ms: u64,
    /// Bytes that came from peers, and that older versions here had.
    pub fetched_bytes: u64,
    /// See [`fetched_bytes`](Self::fetched_bytes).
    pub reused_bytes: u64,
    /// What is in the way.
    pub troubles: Vec<String>,
    /// Where contents are that lost their path to another edit.
    pub conflicts: Vec<String>,
    /// Edits and deletions found here; contents fetched, failed; files installed, removed; entries
    /// merged, refused; local changes undone.
    pub counts: BTreeMap<&'static str, u64>,
}

/// How this node differs from one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerDiff {
    /// The first of the items.
    pub items: Vec<ItemDiff>,
    /// How many more there are.
    pub more: u64,
    /// Why nothing is known.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub error: Option<String>,
}

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ItemDiff {
    /// Its path.
    pub item: String,
    /// What is here.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub here: Option<String>,
    /// What is there.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub there: Option<String>,
    /// What is being done, or in the way.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub why: Option<String>,
}

impl FileSync {
    /// Whether this node may be preferred as far as files are concerned, and why. From memory.
    #[must_use]
    pub fn now(&self) -> Status {
        let mut status = self.shared.replica().status(Instant::now());
        if let Some(trouble) = self.bucket.as_ref().and_then(Keeper::trouble) {
            status.reason = format!("{}; {trouble}", status.reason).into();
        }
        status
    }

    /// What it says of itself. From memory.
    #[must_use]
    pub fn details(&self) -> Details {
        let mut details = self.shared.details();
        let trouble = self.bucket.as_ref().and_then(Keeper::trouble);
        let trouble = trouble.map(|trouble| trouble.to_string());
        details.troubles.extend(trouble);
        details
    }

    /// What differs, by peer.
    #[must_use]
    pub fn diff(&self) -> BTreeMap<NodeName, PeerDiff> {
        self.shared.diff()
    }
}

impl Shared {
    fn details(&self) -> Details {
        let (fetched_bytes, reused_bytes) = self.fetches.bytes();
        let rescan = lock(&self.rescan_time).unwrap_or_default();
        let mut details = Details {
            files: number(self.folder.files()),
            rescan_ms: u64::try_from(rescan.as_millis()).unwrap_or(u64::MAX),
            fetched_bytes,
            reused_bytes,
            ..Details::default()
        };
        {
            let replica = self.replica();
            let head = replica.head();
            details.entries = head.files;
            details.missing = head.missing;
            details.digest = format!("{:032x}", head.digest.0);
            let (troubles, more) = replica.troubles();
            details.troubles = named(troubles.iter().map(|(_, one)| one.what.to_string()), more);
            let conflicts = replica.manifest().conflicts();
            details.conflicts = named(conflicts.map(|(path, _)| path.to_string()), 0);
            let counts = replica.counts();
            details.counts = BTreeMap::from([
                ("edits", counts.edits),
                ("deletions", counts.deletions),
                ("fetched", counts.fetched),
                ("failed", counts.failed),
                ("installed", counts.installed),
                ("removed", counts.removed),
                ("merged", counts.merged),
                ("refused", counts.refused),
                ("repaired", counts.repaired),
                ("strays", counts.strays),
                ("lost", counts.lost),
            ]);
        }
        let (unsynced, links, more) = lock(&self.unsynced).clone();
        let mut unsynced = named(unsynced.into_iter(), number(more));
        details.troubles.append(&mut unsynced);
        if links > 0 {
            let links = format!("{links} symbolic links are not synced");
            details.troubles.push(links);
        }
        details
    }

    fn diff(&self) -> BTreeMap<NodeName, PeerDiff> {
        let replica = self.replica();
        let here = replica.head();
        let mut missing = Vec::new();
        let mut more = 0;
        for (path, have, wanted) in replica.differing() {
            if missing.len() == MAX_ITEMS {
                more += 1;
                continue;
            }
            missing.push(ItemDiff {
                item: path.to_string(),
                here: have.map(text),
                there: wanted.map(text),
                why: None,
            });
        }
        let peers = replica.config().peers.iter();
        let diff = |peer: &NodeName| match replica.peer_head(peer) {
            None => PeerDiff {
                error: Some("it is not up, or has not said what it has".to_owned()),
                ..PeerDiff::default()
            },
            Some(head) => {
                let mut items = missing.clone();
                if head.digest != here.digest {
                    let behind = replica.changes_behind(peer);
                    let line = match behind {
                        0 => "it has not heard of all that is here yet".to_owned(),
                        changes => format!("{changes} of its changes are on their way here"),
                    };
                    items.push(ItemDiff {
                        item: "(manifest)".to_owned(),
                        here: Some(format!("{} entries", here.files)),
                        there: Some(format!("{} entries", head.files)),
                        why: Some(line),
                    });
                }
                if head.missing > 0 {
                    items.push(ItemDiff {
                        item: "(files)".to_owned(),
                        here: None,
                        there: Some(format!("{} missing", head.missing)),
                        why: Some("it is fetching them".to_owned()),
                    });
                }
                PeerDiff {
                    items,
                    more,
                    error: None,
                }
            }
        };
        peers.map(|peer| (peer.clone(), diff(peer))).collect()
    }

    /// What has come of a forced reconciliation: whether it is done, and a number that changes as
    /// long as it gets further.
    fn progress(&self, since: Instant) -> (bool, (u64, u64, u64, u64)) {
        let replica = self.replica();
        let head = replica.head();
        let peers = &replica.config().peers;
        let is_same = |peer: &NodeName| {
            if self.is_bucket(peer) {
                // It was just asked.
                replica.peer_head(peer).is_none() || agrees(&replica, peer)
            } else {
                !self.is_up(peer) || (replica.has_heard(peer, since) && agrees(&replica, peer))
            }
        };
        let done = head.missing == 0 && peers.iter().all(is_same);
        let there = peers.iter().filter_map(|peer| replica.peer_head(peer));
        let there = there.map(|head| head.missing.wrapping_add(head.seq)).sum();
        let (bytes, _) = self.fetches.bytes();
        (done, (head.seq, head.missing, bytes, there))
    }

    /// What was done up to a moment in which all agree is not what a later order does.
    pub(super) fn note_agreement(&self) {
        let replica = self.replica();
        let peers = replica.config().peers.iter();
        let mut heard = peers
            .filter(|peer| replica.peer_head(peer).is_some())
            .peekable();
        let is_alone = heard.peek().is_none();
        if !is_alone && replica.head().missing == 0 && heard.all(|peer| agrees(&replica, peer)) {
            *lock(&self.agreed) = replica.counts();
        }
    }
}

/// Whether a peer has the same as this node, whole, as far as is known.
fn agrees(replica: &Replica, peer: &NodeName) -> bool {
    let there = replica.peer_head(peer);
    there.is_some_and(|there| there.digest == replica.head().digest && there.missing == 0)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The first of them, and how many more there are.
fn named(all: impl Iterator<Item = String>, more: u64) -> Vec<String> {
    let mut named = Vec::new();
    let mut more = more;
    for one in all {
        if named.len() < MAX_NAMED {
            named.push(one);
        } else {
            more += 1;
        }
    }
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named
}

fn text(content: ContentId) -> String {
    format!("{} bytes, {:?}", content.size, content.hash)
}

#[async_trait]
impl Sync for FileSync {
    async fn status(&self) -> Result<Status, SyncError> {
        Ok(self.now())
    }

    async fn lag(&self) -> Result<Lag, SyncError> {
        Ok(self.shared.replica().lag(Instant::now()))
    }

    /// Looks at the whole folder, asks every peer from the beginning, tries again what failed, and
    /// returns when this node and every peer that is up have the same, whole. Counted is what was done
    /// since all had the same for the last time.
    async fn force(&self) -> Result<Forced, SyncError> {
        let shared = &self.shared;
        let data_set = "files".to_owned();
        let peers = shared.replica().config().peers.clone();
        let unreachable = |reason: Reason| SyncError::Unreachable {
            data_set: "files".to_owned(),
            reason,
        };
        let nodes = || peers.iter().filter(|peer| !shared.is_bucket(peer));
        let hears_a_node = nodes().any(|peer| shared.is_up(peer));
        if !hears_a_node && self.bucket.is_none() {
            let reason = format!("none of {} peers is up", peers.len());
            return Err(unreachable(reason.into()));
        }
        // What was found or heard a moment ago, and is not everywhere yet, is a part of it.
        shared.note_agreement();
        let before = *lock(&shared.agreed);
        let scanned = shared.rescan().await;
        scanned.map_err(|error| SyncError::Store {
            data_set: "files".to_owned(),
            source: error.into(),
        })?;
        let mut sent = 0;
        if let Some(bucket) = &self.bucket {
            sent = bucket.sent().await;
            // What cannot be reached is no reason to leave nodes that can.
            if let (Err(reason), false) = (bucket.look().await, hears_a_node) {
                return Err(unreachable(reason));
            }
        }
        let began = Instant::now();
        shared.with(|replica| replica.force(began, super::wall()));
        let mut last = (began, shared.progress(began).1);
        loop {
            sleep(LOOK_EVERY).await;
            let (done, progress) = shared.progress(began);
            if done {
                shared.note_agreement();
                let mut forced = shared.replica().forced(&before);
                if let Some(bucket) = &self.bucket {
                    forced.sent = bucket.sent().await.saturating_sub(sent).max(forced.sent);
                }
                return Ok(forced);
            }
            if progress != last.1 {
                last = (Instant::now(), progress);
            } else if last.0.elapsed() > STUCK {
                let why = shared.replica().status(Instant::now()).reason;
                return Err(SyncError::Store {
                    data_set,
                    source: format!("it gets no further: {why}").into(),
                });
            }
        }
    }
}
