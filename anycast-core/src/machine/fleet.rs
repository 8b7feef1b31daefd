//! What a node knows of its peers: the panic threshold, and consent to withdrawals (F5).
//!
//! Reports and grants come from outside (the mesh, where there is one); without any, the node
//! decides alone: it falls when its checks say so, and never withdraws by itself.
//!
//! # Grants
//!
//! A node whose policy is to withdraw asks its peers. A healthy preferred peer *grants*: it
//! promises not to withdraw by itself until the grant has expired. Each side counts on its own
//! monotonic clock, the holder from its request and the granter from its answer, and a
//! granter's promise lasts a little longer than the grant ([`PROMISE_MARGIN`]), for clocks
//! that run at different speeds. Promises die with the process that made them; so a new
//! machine does not withdraw before the longest grant ([`MAX_GRANT`]) that a process before it
//! may have given has expired.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::service::NodeName;

/// Most members of a fleet, and most grants and promises kept at once. More are ignored, which
/// can only demote where a withdrawal would have been allowed, or refuse a grant.
pub const MAX_PEERS: usize = 1024;
/// Longest grant. A longer one counts as this.
pub const MAX_GRANT: Duration = Duration::from_secs(30);
/// A promise outlasts its grant by this part of it.
pub const PROMISE_MARGIN: u32 = 16;

/// When too much of the fleet falls at once to be believed.
///
/// If more than [`percent`](Self::percent) of the fleet, this node included, began to fail
/// within [`within`](Self::within), the checks themselves are the likelier culprit. A node
/// that is preferred then *holds*: it stays preferred although its checks say otherwise, for
/// as long as more than that part of the fleet fails. Conclusive evidence (its process has
/// exited) is not held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PanicPolicy {
    /// 0 to 100; 100 switches it off. Default 50.
    pub percent: u8,
    /// Default 30 s.
    pub within: Duration,
    /// A report older than this says nothing any more. Default 10 s.
    pub fresh_for: Duration,
}

impl Default for PanicPolicy {
    fn default() -> Self {
        Self {
            percent: 50,
            within: Duration::from_secs(30),
            fresh_for: Duration::from_secs(10),
        }
    }
}

/// What a peer last said of itself. Times are this node's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerReport {
    /// When the peer was heard.
    pub heard_at: Instant,
    /// Whether it is announced as preferred.
    pub preferred: bool,
    /// Whether an operator has drained or withdrawn it.
    pub draining: bool,
    /// Since when it is not healthy (held or demoted), if so.
    pub failing_since: Option<Instant>,
}

/// The fleet as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fleet {
    members: BTreeMap<NodeName, Option<PeerReport>>,
    grants: BTreeMap<NodeName, Instant>,
    promises: BTreeMap<NodeName, Instant>,
    /// Promises of a process before this one may last until then.
    quarantine_until: Option<Instant>,
}

impl Fleet {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            members: BTreeMap::new(),
            grants: BTreeMap::new(),
            promises: BTreeMap::new(),
            quarantine_until: promise_end(now, MAX_GRANT),
        }
    }

    pub(super) fn set_members(&mut self, members: &[NodeName]) {
        let mut old = std::mem::take(&mut self.members);
        for member in members.iter().take(MAX_PEERS) {
            let report = old.remove(member).flatten();
            self.members.insert(member.clone(), report);
        }
    }

    pub(super) fn hear(&mut self, peer: &NodeName, report: PeerReport) {
        if let Some(entry) = self.members.get_mut(peer) {
            *entry = Some(report);
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&NodeName, Option<&PeerReport>)> {
        self.members
            .iter()
            .map(|(name, report)| (name, report.as_ref()))
    }

    pub(super) fn advance(&mut self, now: Instant) {
        if !self.grants.is_empty() {
            self.grants.retain(|_, until| *until > now);
        }
        if !self.promises.is_empty() {
            self.promises.retain(|_, until| *until > now);
        }
        if self.quarantine_until.is_some_and(|until| until <= now) {
            self.quarantine_until = None;
        }
    }

    pub(super) fn take_grant(&mut self, now: Instant, peer: NodeName, until: Instant) {
        if until <= now {
            self.grants.remove(&peer);
            return;
        }
        let latest = now
            .checked_add(MAX_GRANT)
            .map_or(until, |end| until.min(end));
        if self.grants.len() < MAX_PEERS || self.grants.contains_key(&peer) {
            self.grants.insert(peer, latest);
        }
    }

    /// Promises not to withdraw, if there is room for the promise.
    pub(super) fn promise(
        &mut self,
        now: Instant,
        peer: NodeName,
        duration: Duration,
    ) -> Option<Duration> {
        let duration = duration.min(MAX_GRANT);
        if self.promises.len() >= MAX_PEERS && !self.promises.contains_key(&peer) {
            return None;
        }
        let until = promise_end(now, duration)?;
        let standing = self.promises.entry(peer).or_insert(until);
        *standing = (*standing).max(until);
        Some(duration)
    }

    /// The same, told in other times and without reports that have grown old, for a model check.
    #[cfg(test)]
    pub(super) fn retime(
        &mut self,
        now: Instant,
        policy: &PanicPolicy,
        to: &dyn Fn(Instant) -> Instant,
    ) {
        for entry in self.members.values_mut() {
            let fresh = |report: &PeerReport| report.heard_at + policy.fresh_for > now;
            *entry = entry.take().filter(fresh);
            if let Some(report) = entry {
                report.heard_at = to(report.heard_at);
                report.failing_since = report.failing_since.map(to);
            }
        }
        let grants = self.grants.values_mut().chain(self.promises.values_mut());
        grants
            .chain(&mut self.quarantine_until)
            .for_each(|at| *at = to(*at));
    }

    pub(super) fn grants(&self) -> usize {
        self.grants.len()
    }

    /// Whether this node has promised somebody not to withdraw, or may have.
    pub(super) fn is_bound(&self) -> bool {
        self.quarantine_until.is_some() || !self.promises.is_empty()
    }

    fn fresh<'a>(
        &'a self,
        now: Instant,
        policy: &'a PanicPolicy,
    ) -> impl Iterator<Item = &'a PeerReport> {
        self.members
            .values()
            .flatten()
            .filter(move |report| now.saturating_duration_since(report.heard_at) < policy.fresh_for)
    }

    /// Whether, with this node, more than the threshold fail; with `recent`, only those count
    /// that began to within the policy's time.
    pub(super) fn panics(&self, now: Instant, policy: &PanicPolicy, recent: bool) -> bool {
        let failing = self.fresh(now, policy).filter(|report| {
            report.failing_since.is_some_and(|since| {
                !recent || now.saturating_duration_since(since) <= policy.within
            })
        });
        let failing = failing.count();
        let size = self.members.len() + 1;
        failing > 0 && (failing + 1) * 100 > usize::from(policy.percent.min(100)) * size
    }

    /// Whether no other fresh member is preferred; `None` without a fleet.
    pub(super) fn nobody_else(&self, now: Instant, policy: &PanicPolicy) -> Option<bool> {
        if self.members.is_empty() {
            return None;
        }
        let takes = |report: &PeerReport| report.preferred && !report.draining;
        Some(!self.fresh(now, policy).any(takes))
    }

    /// When a grant or a promise (where consent matters) or (while held) a report that counts
    /// ends.
    pub(super) fn due<'a>(
        &'a self,
        policy: &'a PanicPolicy,
        held: bool,
        consent: bool,
    ) -> impl Iterator<Item = (Instant, &'static str)> + 'a {
        let grants = self
            .grants
            .values()
            .map(|at| (*at, "a peer's grant expires"));
        let promises = self
            .promises
            .values()
            .chain(&self.quarantine_until)
            .map(|at| (*at, "a promise to a peer expires"));
        let failing = move |report: &&PeerReport| held && report.failing_since.is_some();
        let reports = self.members.values().flatten().filter(failing);
        let stale = reports.filter_map(|report| report.heard_at.checked_add(policy.fresh_for));
        grants
            .chain(promises)
            .filter(move |_| consent)
            .chain(stale.map(|at| (at, "a peer's report grows old")))
    }
}

fn promise_end(now: Instant, duration: Duration) -> Option<Instant> {
    now.checked_add(duration + duration / PROMISE_MARGIN)
}
