//! Who the nodes are, and which of them hold the record of a flow.

use std::time::Duration;

use anycast_core::NodeName;

/// When a transfer's record goes to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Before the first reply, so that the transfer survives whatever happens after it. Costs
    /// one round trip between nodes for each transfer. The default.
    #[default]
    BeforeReply,
    /// Together with the first reply: a route that moves in the very same moment may still
    /// end the transfer.
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
