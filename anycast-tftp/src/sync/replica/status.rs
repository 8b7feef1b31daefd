//! How this copy is, in words and numbers.

use std::time::{Duration, Instant};

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use anycast_core::sync::{Forced, Lag, PeerStatus, Status};

use super::{MAX_TROUBLES, Replica, RootId};
use crate::store::FileName;
use crate::sync::content::ContentId;
use crate::sync::wire::Head;

/// Something that an operator should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What, and what to do.
    pub what: Reason,
    /// Whether the node is not ready because of it.
    pub is_blocking: bool,
}

/// Numbers, since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Edits that were found here and published.
    pub edits: u64,
    /// Deletions that were found here and published.
    pub deletions: u64,
    /// Contents fetched.
    pub fetched: u64,
    /// Fetches that failed.
    pub failed: u64,
    /// Files installed.
    pub installed: u64,
    /// Files removed because they were deleted elsewhere.
    pub removed: u64,
    /// Entries of peers that were new here.
    pub merged: u64,
    /// Entries of peers that were refused.
    pub refused: u64,
    /// Local changes at a mirror that were undone.
    pub repaired: u64,
    /// Files at a mirror that the origin does not know, and that were left alone.
    pub strays: u64,
    /// How often the folder was found to be another one, or empty.
    pub lost: u64,
}

impl Replica {
    /// See [`Counts`].
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// In order of what they are about, with the number of those that are not kept.
    #[must_use]
    pub fn troubles(&self) -> (Vec<(&str, &Trouble)>, u64) {
        let troubles = self.troubles.iter();
        let troubles = troubles.map(|(about, trouble)| (about.as_str(), trouble));
        (troubles.collect(), self.more_troubles)
    }

    /// The marker that the folder should have.
    #[must_use]
    pub fn root(&self) -> Option<RootId> {
        self.root
    }

    /// Paths that have not what belongs there: what they have, and what they should.
    pub fn differing(
        &self,
    ) -> impl Iterator<Item = (&FileName, Option<ContentId>, Option<ContentId>)> {
        let differing = self.disk.differing();
        differing.map(|(path, have)| (path, have, self.manifest.wanted(path)))
    }

    /// Where a peer's copy stands, if it is up and has said so.
    #[must_use]
    pub fn peer_head(&self, peer: &NodeName) -> Option<&Head> {
        let peer = self.peers.get(peer).filter(|peer| peer.is_up)?;
        peer.head.as_ref()
    }

    /// How many changes of a peer are not here.
    #[must_use]
    pub fn changes_behind(&self, peer: &NodeName) -> u64 {
        let Some(peer) = self.peers.get(peer) else {
            return 0;
        };
        let head = peer.head.as_ref();
        head.map_or(0, |head| peer.behind(head, self.manifest.digest()))
    }

    /// What was done since, as an answer to an operator who forced it.
    #[must_use]
    pub fn forced(&self, before: &Counts) -> Forced {
        Forced {
            compared: u64::try_from(self.manifest.len()).unwrap_or(u64::MAX),
            fetched: self.counts.fetched.saturating_sub(before.fetched),
            sent: self.counts.edits.saturating_sub(before.edits),
            removed: self.counts.removed.saturating_sub(before.removed),
        }
    }

    /// Whether this node may be preferred as far as files are concerned.
    pub fn status(&mut self, now: Instant) -> Status {
        let verdict = self.unready(now);
        self.was_ready |= verdict.is_none();
        let mut status = match verdict {
            None => Status::new(true, self.fine()),
            Some(why) => Status::new(false, why),
        };
        status.peers = self
            .peers
            .keys()
            .map(|peer| PeerStatus {
                peer: peer.clone(),
                lag: self.lag_of(now, peer),
            })
            .collect();
        status
    }

    /// How far this copy is behind a peer.
    #[must_use]
    pub fn lag_of(&self, now: Instant, peer: &NodeName) -> Lag {
        let Some(peer) = self.peers.get(peer) else {
            return Lag::Unknown;
        };
        let Some(head) = &peer.head else {
            return Lag::Unknown;
        };
        let here = u64::try_from(self.disk.missing()).unwrap_or(u64::MAX);
        let items = here.saturating_add(peer.behind(head, self.manifest.digest()));
        if items == 0 {
            return Lag::None;
        }
        let since = self.lagging_since.unwrap_or(now);
        let age = now.saturating_duration_since(since);
        Lag::Behind { items, age }
    }

    /// How far it is behind the furthest.
    #[must_use]
    pub fn lag(&self, now: Instant) -> Lag {
        let all = self.peers.keys().map(|peer| self.lag_of(now, peer));
        all.fold(Lag::Unknown, |worst, lag| match (worst, lag) {
            (Lag::Behind { items: a, .. }, Lag::Behind { items: b, .. }) if a >= b => worst,
            (_, Lag::Behind { .. }) | (Lag::Unknown, _) => lag,
            (Lag::None | Lag::Behind { .. }, Lag::None | Lag::Unknown) => worst,
        })
    }

    fn fine(&self) -> String {
        let heard = self.peers.values().filter(|peer| peer.is_heard()).count();
        let files = self.manifest.len();
        let conflicts = self.manifest.conflicts().count();
        let mut text = format!("{files} entries; as all {heard} peers that are heard");
        if heard == 0 {
            text = format!("{files} entries; no peer is heard");
        }
        if conflicts > 0 {
            text += &format!("; {conflicts} conflict files");
        }
        text
    }

    /// Why it is not ready.
    fn unready(&mut self, now: Instant) -> Option<String> {
        if !self.scan.has_ended {
            return Some("the folder has not been scanned yet".to_owned());
        }
        let mut troubles = self.troubles.values();
        if let Some(trouble) = troubles.find(|trouble| trouble.is_blocking) {
            return Some(trouble.what.to_string());
        }
        let lag = self.behind();
        let Some(why) = lag else {
            self.lagging_since = None;
            return self.waits_for_peers(now);
        };
        let since = *self.lagging_since.get_or_insert(now);
        let is_short = now.saturating_duration_since(since) < self.config.lag_grace;
        (!self.was_ready || !is_short).then_some(why)
    }

    fn behind(&self) -> Option<String> {
        let here = u64::try_from(self.disk.missing()).unwrap_or(u64::MAX);
        if here > self.config.max_lag {
            return Some(format!("{here} files are not here yet as they should be"));
        }
        let up = self.peers.iter().filter(|(_, peer)| peer.is_up);
        for (name, peer) in up {
            let Some(head) = &peer.head else {
                continue;
            };
            let items = here.saturating_add(peer.behind(head, self.manifest.digest()));
            if items > self.config.max_lag {
                return Some(format!("{items} changes of {name} are not here yet"));
            }
        }
        None
    }

    /// Nobody is heard: no reason not to be ready, once there was time to hear somebody. That a
    /// peer is connected and has said nothing yet is one, unless it was ready before.
    fn waits_for_peers(&self, now: Instant) -> Option<String> {
        if self.was_ready || self.peers.is_empty() {
            return None;
        }
        if self
            .peers
            .values()
            .any(|peer| peer.is_up && peer.head.is_none())
        {
            return Some("a peer has not said yet what it has".to_owned());
        }
        let is_early = now.saturating_duration_since(self.started_at) < self.config.alone;
        let hears_all = self.peers.values().all(super::remote::Peer::is_heard);
        (is_early && !hears_all).then(|| "waits to hear its peers".to_owned())
    }

    pub(super) fn trouble(&mut self, about: &str, what: String, is_blocking: bool) {
        let is_known = self.troubles.contains_key(about);
        if !is_known && self.troubles.len() >= MAX_TROUBLES {
            self.more_troubles += 1;
            return;
        }
        if !is_known {
            tracing::warn!(about, "{what}");
        }
        let what = what.into();
        let trouble = Trouble { what, is_blocking };
        self.troubles.insert(about.to_owned(), trouble);
    }

    pub(super) fn clear_trouble(&mut self, about: &str) {
        self.troubles.remove(about);
    }

    /// How long something has not been here that should be.
    #[must_use]
    pub fn lagging_for(&self, now: Instant) -> Option<Duration> {
        let since = self.lagging_since?;
        Some(now.saturating_duration_since(since))
    }
}
