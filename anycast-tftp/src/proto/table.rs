//! The table of sessions: found by client and service address, counted by client prefix.
//!
//! Sessions live in numbered slots. A hash map leads from a [`Flow`] to its slot; it is only
//! ever looked up, never walked, so nothing depends on its order. Lookup costs one hash and
//! allocates nothing.
//!
//! A session is *young* until it is [settled](Table::settle). The oldest young one, of all or
//! of a group, is found in O(log n): it makes room when the table is full.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Who talks to whom: the client's address and port, and the service address it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The client.
    pub remote: SocketAddr,
    /// Our address and port, as the client used them. Replies come from it.
    pub local: SocketAddr,
}

impl Flow {
    /// Whether the client runs on this host: it has the very address that it talks to.
    pub(crate) fn is_own_host(&self) -> bool {
        self.remote.ip() == self.local.ip()
    }
}

/// Who shares one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Group {
    /// The clients of a prefix: IPv4 /24, IPv6 /56.
    Prefix(u128),
    /// The clients on this host that use this address of it.
    Own(IpAddr),
}

impl Group {
    fn of(flow: &Flow) -> Self {
        match flow.remote.ip() {
            own if flow.is_own_host() => Self::Own(own),
            IpAddr::V4(v4) => Self::Prefix(u128::from(u32::from(v4) >> 8)),
            // The set bit keeps the two families apart.
            IpAddr::V6(v6) => Self::Prefix(u128::from(v6) >> 72 | 1 << 127),
        }
    }
}

/// A slot and its generation: the id of a session that ended never means another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    session: Option<Box<T>>,
    /// Its key among the young ones: its group and its number in the order of arrival.
    young: Option<(Group, u64)>,
}

#[derive(Debug)]
pub(super) struct Table<T> {
    by_flow: HashMap<Flow, SessionId>,
    by_group: HashMap<Group, u32>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Sessions of clients on this host.
    own: usize,
    /// Young sessions of other hosts, in the order of arrival.
    young: BTreeMap<u64, SessionId>,
    /// Young sessions by group, in the order of arrival.
    young_by_group: BTreeMap<(Group, u64), SessionId>,
    arrivals: u64,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self {
            by_flow: HashMap::new(),
            by_group: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            own: 0,
            young: BTreeMap::new(),
            young_by_group: BTreeMap::new(),
            arrivals: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_flow.len()
    }

    /// Sessions of clients on other hosts.
    pub(super) fn foreign(&self) -> usize {
        self.len() - self.own
    }

    pub(super) fn find(&self, flow: &Flow) -> Option<SessionId> {
        self.by_flow.get(flow).copied()
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.session
            .as_deref_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// Sessions that share a limit with this flow's.
    pub(super) fn in_group(&self, flow: &Flow) -> u32 {
        let count = self.by_group.get(&Group::of(flow));
        count.copied().unwrap_or(0)
    }

    /// The young session of another host that came first.
    pub(super) fn oldest_young(&self) -> Option<SessionId> {
        self.young.first_key_value().map(|(_, id)| *id)
    }

    /// The young session that came first of those that share a limit with this flow's.
    pub(super) fn oldest_young_in_group(&self, flow: &Flow) -> Option<SessionId> {
        let group = Group::of(flow);
        let mut group = self.young_by_group.range((group, 0)..=(group, u64::MAX));
        group.next().map(|(_, id)| *id)
    }

    /// The session is young no more. Without effect on one that is not.
    pub(super) fn settle(&mut self, id: SessionId) {
        let slot = self.slots.get_mut(id.slot as usize);
        let slot = slot.filter(|slot| slot.generation == id.generation);
        if let Some((group, arrival)) = slot.and_then(|slot| slot.young.take()) {
            self.young.remove(&arrival);
            self.young_by_group.remove(&(group, arrival));
        }
    }

    /// Adds a young session of a flow that has none. `None` when there are 2³² slots.
    pub(super) fn insert(&mut self, flow: Flow, session: T) -> Option<SessionId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot {
                    generation: 0,
                    session: None,
                    young: None,
                });
                index
            }
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.session = Some(Box::new(session));
        let id = SessionId {
            slot: index,
            generation: slot.generation,
        };
        let group = Group::of(&flow);
        self.arrivals += 1;
        slot.young = Some((group, self.arrivals));
        self.young_by_group.insert((group, self.arrivals), id);
        if flow.is_own_host() {
            self.own += 1;
        } else {
            self.young.insert(self.arrivals, id);
        }
        self.by_flow.insert(flow, id);
        *self.by_group.entry(group).or_insert(0) += 1;
        Some(id)
    }

    pub(super) fn remove(&mut self, flow: &Flow) -> Option<Box<T>> {
        let id = self.by_flow.remove(flow)?;
        self.settle(id);
        let group = Group::of(flow);
        if let Some(count) = self.by_group.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.by_group.remove(&group);
            }
        }
        if flow.is_own_host() {
            self.own -= 1;
        }
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        slot.session.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(remote: &str) -> Flow {
        Flow {
            remote: remote.parse().unwrap(),
            local: "192.0.2.69:69".parse().unwrap(),
        }
    }

    #[test]
    fn an_old_id_never_means_a_new_session() {
        let mut table = Table::new();
        let first = table.insert(flow("198.51.100.1:1000"), 'a').unwrap();
        assert_eq!(
            table.remove(&flow("198.51.100.1:1000")).as_deref(),
            Some(&'a')
        );
        let second = table.insert(flow("198.51.100.1:1000"), 'b').unwrap();
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.get_mut(second), Some(&mut 'b'));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn prefixes_are_counted_apart() {
        let mut table = Table::new();
        for remote in [
            "198.51.100.1:1",
            "198.51.100.254:1",
            "198.51.101.1:1",
            "[2001:db8:0:ff::1]:1",
            "[2001:db8:0:100::1]:1",
            "[::c633:6401]:1",
        ] {
            table.insert(flow(remote), ());
        }
        let count = |text: &str| table.in_group(&flow(text));
        assert_eq!(count("198.51.100.9:1"), 2);
        assert_eq!(count("198.51.101.9:1"), 1);
        assert_eq!(count("[2001:db8:0:1::]:1"), 1);
        assert_eq!(count("[2001:db8:0:1ff::]:1"), 1);
        assert_eq!(count("[::]:1"), 1);
        assert_eq!(count("203.0.113.1:1"), 0);
        // This host is no neighbour.
        table.insert(flow("192.0.2.70:1"), ());
        table.insert(flow("192.0.2.69:1"), ());
        let count = |text: &str| table.in_group(&flow(text));
        assert_eq!((count("192.0.2.71:1"), count("192.0.2.69:2")), (1, 1));
        assert_eq!((table.len(), table.foreign()), (8, 7));
    }

    #[test]
    fn the_oldest_young_session_is_found() {
        let mut table = Table::new();
        let [a, b, c, own] = [
            "198.51.100.1:1",
            "203.0.113.1:1",
            "198.51.100.2:1",
            "192.0.2.69:1",
        ]
        .map(|remote| table.insert(flow(remote), ()).unwrap());
        let near = flow("198.51.100.9:9");
        assert_eq!(table.oldest_young(), Some(a));
        assert_eq!(table.oldest_young_in_group(&near), Some(a));
        table.settle(a);
        table.settle(a);
        assert_eq!(table.oldest_young(), Some(b));
        assert_eq!(table.oldest_young_in_group(&near), Some(c));
        table.remove(&flow("203.0.113.1:1"));
        assert_eq!(table.oldest_young(), Some(c));
        table.remove(&flow("198.51.100.2:1"));
        assert_eq!(table.oldest_young(), None);
        assert_eq!(table.oldest_young_in_group(&near), None);
        let here = flow("192.0.2.69:9");
        assert_eq!(table.oldest_young_in_group(&here), Some(own));
        // The old id of a slot that is used again settles nothing.
        let new = table.insert(flow("203.0.113.2:1"), ()).unwrap();
        table.settle(b);
        table.settle(c);
        assert_eq!(table.oldest_young(), Some(new));
    }
}
