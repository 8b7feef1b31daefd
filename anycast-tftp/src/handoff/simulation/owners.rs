//! (c) Of a transfer one node has the timer: on each side of a cut, and after a while.

use std::collections::{BTreeMap, BTreeSet};

use super::setting::{MS, SECOND};
use super::world::{Event, World};
use crate::proto::Flow;

/// How often it is looked.
const EVERY: u64 = 250 * MS;
/// How long there may be two, once nothing is in their way.
const LONGEST: u64 = 4 * SECOND;

/// Since when each flow has had two owners that can talk to each other.
pub(super) type Doubles = BTreeMap<Flow, u64>;

impl World {
    pub(super) fn census(&mut self) {
        self.after(EVERY, Event::Census);
        let mut owners: BTreeMap<Flow, BTreeSet<usize>> = BTreeMap::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let node = host.node.as_ref().filter(|_| !host.is_paused);
            for flow in node.map(|node| node.owned_flows()).unwrap_or_default() {
                owners.entry(flow).or_default().insert(at);
            }
        }
        let mut doubles = Doubles::new();
        for (flow, nodes) in owners {
            if !self.are_two_together(&nodes) {
                continue;
            }
            let since = self.doubles.get(&flow).copied().unwrap_or(self.now);
            doubles.insert(flow, since);
            if self.now - since > LONGEST {
                self.breaks(|| format!("(c) {} is owned by {nodes:?}", flow.remote));
            }
        }
        self.doubles = doubles;
    }

    /// Whether two of them know of each other.
    fn are_two_together(&self, nodes: &BTreeSet<usize>) -> bool {
        nodes.iter().any(|a| {
            let mut others = nodes.range(a + 1..);
            others.any(|b| self.knows_peer(*a, *b) && self.knows_peer(*b, *a))
        })
    }
}
