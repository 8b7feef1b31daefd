//! With which generation of a group each client goes on. Pure, bounded.
//!
//! A client that has begun to boot with one generation gets the rest of that generation, at
//! whichever node it asks, for as long as [`Affinity::new`] says after it last asked. What it began
//! with is learned where it opens its first file, and told to the peers; among nodes that do not hear
//! each other a client may be given another one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::manifest::GroupName;
use super::wire::{GenerationId, MAX_NOTICES, Notice};

/// Most clients times groups that are remembered; with more, the one that ends first is forgotten.
pub const MAX_CLIENTS: usize = 65_536;
/// Most notices that wait to be told; with more, the oldest are not told.
pub const MAX_WAITING: usize = 4 * MAX_NOTICES;

/// See the [module documentation](self).
#[derive(Debug)]
pub struct Affinity {
    hold: Duration,
    known: BTreeMap<(IpAddr, GroupName), (GenerationId, Instant)>,
    ends: BTreeSet<(Instant, IpAddr, GroupName)>,
    news: VecDeque<Notice>,
}

impl Affinity {
    /// Clients are remembered for `hold` after they last opened a file of the group.
    #[must_use]
    pub fn new(hold: Duration) -> Self {
        Self {
            hold,
            known: BTreeMap::new(),
            ends: BTreeSet::new(),
            news: VecDeque::new(),
        }
    }

    /// A client opens a file of a group: which generation it gets. `readable` are those that can
    /// be read here, the one that is served first; `None` if there are none.
    pub fn open(
        &mut self,
        now: Instant,
        client: IpAddr,
        group: &GroupName,
        readable: &[GenerationId],
    ) -> Option<GenerationId> {
        self.forget(now);
        let known = self.known.get(&(client, group.clone()));
        let known = known.map(|(generation, _)| *generation);
        let known = known.filter(|known| readable.contains(known));
        let generation = known.or_else(|| readable.first().copied())?;
        self.put(client, group, generation, now + self.hold);
        if self.news.len() >= MAX_WAITING {
            self.news.pop_front();
        }
        self.news.push_back(Notice {
            client,
            group: group.clone(),
            generation,
            remaining: u32::try_from(self.hold.as_millis()).unwrap_or(u32::MAX),
        });
        Some(generation)
    }

    /// What a peer has told. What is known here already stays unless it ends earlier.
    pub fn handle_notices(&mut self, now: Instant, notices: &[Notice]) {
        self.forget(now);
        for notice in notices {
            let remaining = Duration::from_millis(u64::from(notice.remaining)).min(self.hold);
            let until = now + remaining;
            let known = self.known.get(&(notice.client, notice.group.clone()));
            if known.is_none_or(|(_, known)| *known < until) {
                self.put(notice.client, &notice.group, notice.generation, until);
            }
        }
    }

    /// What is to be told to the peers, at most [`MAX_NOTICES`] at once.
    pub fn poll_notices(&mut self) -> Vec<Notice> {
        let count = self.news.len().min(MAX_NOTICES);
        self.news.drain(..count).collect()
    }

    /// How many clients times groups are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while self.ends.first().is_some_and(|(until, ..)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, client, group)) = self.ends.pop_first() {
            self.known.remove(&(client, group));
        }
    }

    fn put(&mut self, client: IpAddr, group: &GroupName, generation: GenerationId, until: Instant) {
        let old = self
            .known
            .insert((client, group.clone()), (generation, until));
        if let Some((_, old)) = old {
            self.ends.remove(&(old, client, group.clone()));
        }
        self.ends.insert((until, client, group.clone()));
        if self.known.len() > MAX_CLIENTS {
            self.forget_first();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests start at any time")]

    use super::*;

    const HOLD: Duration = Duration::from_secs(60);

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_client_goes_on_with_what_it_began_with_here_and_at_a_peer() {
        let (old, new) = (GenerationId([1; 16]), GenerationId([2; 16]));
        let group = "kernel".parse().unwrap();
        let now = Instant::now();
        let (mut here, mut there) = (Affinity::new(HOLD), Affinity::new(HOLD));
        assert_eq!(here.open(now, client(1), &group, &[old]), Some(old));
        assert_eq!(here.open(now, client(1), &group, &[new, old]), Some(old));
        there.handle_notices(now, &here.poll_notices());
        assert_eq!(there.open(now, client(1), &group, &[new, old]), Some(old));
        assert_eq!(there.open(now, client(2), &group, &[new, old]), Some(new));
        // Once it can no longer be read, and once the time is over.
        assert_eq!(here.open(now, client(1), &group, &[new]), Some(new));
        let later = now + HOLD;
        assert_eq!(there.open(later, client(1), &group, &[new, old]), Some(new));
        assert_eq!(there.open(later, client(1), &group, &[]), None);
    }

    #[test]
    fn the_table_and_the_notices_are_bounded() {
        let group = "kernel".parse().unwrap();
        let now = Instant::now();
        let mut table = Affinity::new(HOLD);
        for number in 0..u32::try_from(MAX_CLIENTS).unwrap() + 10 {
            let _ = table.open(now, client(number), &group, &[GenerationId([1; 16])]);
        }
        assert_eq!(table.len(), MAX_CLIENTS);
        assert_eq!(table.poll_notices().len(), MAX_NOTICES);
        assert!(table.news.len() < MAX_WAITING);
    }
}
