//! Who the nodes are, and which of them hold the record of a flow.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anycast_core::NodeName;

use super::record::NodeId;
use crate::proto::Flow;

/// When a transfer's record goes to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Before the first reply, so that the transfer survives whatever happens after it. Costs
    /// one round trip between nodes for each transfer. The default.
    #[default]
    BeforeReply,
    /// Together with the first reply: a route that moves in the very same moment may still
    /// end the transfer. Only where the port was used for another one is that waited for.
    Async,
    /// Never: a transfer ends with its node, or with its route.
    Off,
}

/// The nodes of a fleet, as one of them sees it, and how it hands transfers on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// This node.
    pub name: NodeName,
    /// Its failure domain; by default its name.
    pub domain: NodeName,
    /// The other nodes, in any order.
    pub peers: Vec<NodeName>,
    /// When records go out.
    pub mode: Mode,
    /// Longest wait for a holder before the first reply; default 150 ms.
    pub hold_wait: Duration,
    /// A random number of this process: nonces are made from it.
    pub seed: u64,
}

impl Fleet {
    /// A node with these peers, and the defaults. `seed` must be another one at each start.
    #[must_use]
    pub fn new(name: NodeName, peers: Vec<NodeName>, seed: u64) -> Self {
        Self {
            domain: name.clone(),
            name,
            peers,
            mode: Mode::default(),
            hold_wait: Duration::from_millis(150),
            seed,
        }
    }
}

/// Spreads a number over all bits (SplitMix64).
pub(super) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The same at every node and in every version (FNV-1a, then mixed).
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

fn add(hash: u64, address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let hash = mix(hash ^ (ip as u64));
    let hash = mix(hash ^ ((ip >> 64) as u64));
    mix(hash ^ u64::from(address.port()))
}

/// What is known of a peer.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) name: NodeName,
    pub(super) domain: u64,
    /// It can be reached.
    pub(super) is_linked: bool,
    /// And it has said what it is since: it hands transfers on too.
    pub(super) is_up: bool,
    /// When that changed last.
    pub(super) since: Option<Instant>,
    pub(super) is_draining: bool,
    /// Largest packet that reaches its clients, in bytes.
    pub(super) mtu: u32,
    /// It took part when this node stopped for a while, and may have forgotten since what it was
    /// told meanwhile.
    pub(super) may_have_forgotten: bool,
    /// When it last said what it is.
    pub(super) said_at: Option<Instant>,
    /// The version that it speaks at most, once it has said so.
    pub(super) speaks: Option<u8>,
    /// Records that it owns.
    pub(super) records: usize,
}

/// The nodes, as this one sees them.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) me: NodeId,
    pub(super) domain: u64,
    pub(super) peers: BTreeMap<NodeId, Peer>,
}

impl Nodes {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let peers = fleet.peers.iter().map(|name| {
            let peer = Peer {
                name: name.clone(),
                domain: hash(name.as_str().as_bytes()),
                is_linked: false,
                is_up: false,
                since: None,
                is_draining: false,
                mtu: u32::MAX,
                may_have_forgotten: false,
                said_at: None,
                speaks: None,
                records: 0,
            };
            (NodeId::of(name), peer)
        });
        Self {
            me: NodeId::of(&fleet.name),
            domain: hash(fleet.domain.as_str().as_bytes()),
            peers: peers.collect(),
        }
    }

    pub(super) fn domain_of(&self, id: NodeId) -> u64 {
        self.peers.get(&id).map_or(self.domain, |peer| peer.domain)
    }

    pub(super) fn is_up(&self, id: NodeId) -> bool {
        id == self.me || self.peers.get(&id).is_some_and(|peer| peer.is_up)
    }

    /// Peers that take part.
    pub(super) fn up(&self) -> impl Iterator<Item = NodeId> + '_ {
        let up = self.peers.iter().filter(|(_, peer)| peer.is_up);
        up.map(|(id, _)| *id)
    }

    /// The directory of a flow, the first one first: all nodes where there are three at most, else
    /// the two with the highest rendezvous hashes, in two domains where there are two.
    pub(super) fn directory(&self, flow: &Flow) -> Vec<NodeId> {
        self.first_two(self.ranked(flow))
    }

    /// Who keeps a record: the directory, and, while some of it is down, who would be in its place.
    pub(super) fn keepers(&self, flow: &Flow) -> Vec<NodeId> {
        let ranked = self.ranked(flow);
        let up = ranked
            .iter()
            .copied()
            .filter(|id| self.is_up(*id))
            .collect();
        let mut keepers = self.first_two(ranked);
        let substitutes = self.first_two(up);
        for id in substitutes {
            if !keepers.contains(&id) {
                keepers.push(id);
            }
        }
        keepers
    }

    fn ranked(&self, flow: &Flow) -> Vec<NodeId> {
        let key = add(add(0, flow.remote), flow.local);
        let all = self.peers.keys().copied().chain([self.me]);
        let mut ranked: Vec<_> = all.map(|id| (mix(id.0 ^ key), id)).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        ranked.into_iter().map(|(_, id)| id).collect()
    }

    fn first_two(&self, ranked: Vec<NodeId>) -> Vec<NodeId> {
        if ranked.len() <= 3 {
            return ranked;
        }
        let Some((first, rest)) = ranked.split_first() else {
            return ranked;
        };
        let domain = self.domain_of(*first);
        let elsewhere = rest.iter().find(|id| self.domain_of(**id) != domain);
        let second = elsewhere.or_else(|| rest.first());
        [Some(first), second]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeName> {
        let name = |index| format!("node{index}").parse();
        (0..count)
            .map(|index| name(index).expect("a name"))
            .collect()
    }

    fn seen_by(names: &[NodeName], me: usize) -> Nodes {
        let mut peers = names.to_vec();
        let name = peers.remove(me);
        Nodes::new(&Fleet::new(name, peers, 1))
    }

    fn flow(number: u16) -> Flow {
        Flow {
            remote: SocketAddr::from(([10, 0, 0, 1], number)),
            local: SocketAddr::from(([192, 0, 2, 69], 69)),
        }
    }

    #[test]
    fn every_node_names_the_same_directory() {
        let names = nodes(7);
        for number in 1..200 {
            let directory = seen_by(&names, 0).directory(&flow(number));
            assert_eq!(directory.len(), 2);
            for me in 1..7 {
                assert_eq!(seen_by(&names, me).directory(&flow(number)), directory);
            }
        }
        assert_eq!(seen_by(&nodes(3), 1).directory(&flow(1)).len(), 3);
        assert_eq!(seen_by(&nodes(1), 0).directory(&flow(1)).len(), 1);
    }

    #[test]
    fn flows_are_spread_and_domains_differ_where_they_can() {
        let names = nodes(4);
        let mut seen = seen_by(&names, 0);
        // Two domains: {0, 1, 2} and {3}.
        for id in seen.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = seen.peers.get_mut(&id) {
                peer.domain = u64::from(id == NodeId::of(&names[3]));
            }
        }
        seen.domain = 0;
        let mut firsts = BTreeMap::new();
        for number in 1..1000 {
            let directory = seen.directory(&flow(number));
            assert!(directory.contains(&NodeId::of(&names[3])));
            *firsts.entry(directory[0]).or_insert(0) += 1;
        }
        assert!(
            firsts.len() == 4 && firsts.values().all(|count| *count > 150),
            "{firsts:?}"
        );
    }
}
