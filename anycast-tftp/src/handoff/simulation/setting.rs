//! What a run is like: who there is, what the network does, what befalls whom and when.

use super::client::Kind;
use super::host::{WAKES, WAKES_OF_STRANGER};
use super::random::Random;
use crate::handoff::Mode;
use crate::handoff::wire::VERSION;
use crate::proto::options::Options;

/// Microseconds.
pub(super) const MS: u64 = 1000;
pub(super) const SECOND: u64 = 1000 * MS;

/// What a path does to what is sent over it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) delay: u64,
    /// Up to so much more each time.
    pub(super) jitter: u64,
    /// In a thousand: lost, doubled, late by up to 200 ms.
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
}

impl Path {
    pub(super) const fn good(delay: u64) -> Self {
        Self {
            delay,
            jitter: 0,
            loss: 0,
            twice: 0,
            late: 0,
        }
    }

    /// When what is sent at `now` arrives, and its double. What is neither late nor doubled stays
    /// in order: it comes after what came `last`.
    pub(super) fn fate(
        &self,
        random: &mut Random,
        may_lose: bool,
        now: u64,
        last: &mut u64,
    ) -> [Option<u64>; 2] {
        if may_lose && random.chance(self.loss) {
            return [None, None];
        }
        let mut arrives = now + self.delay + random.range(0, self.jitter);
        if random.chance(self.late) {
            arrives += random.range(0, 200 * MS);
        } else {
            arrives = arrives.max(*last);
            *last = arrives;
        }
        let again = random
            .chance(self.twice)
            .then(|| arrives + random.range(0, self.delay + self.jitter));
        [Some(arrives - now), again.map(|again| again - now)]
    }
}

/// How the route of a client moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wander {
    Stays,
    /// Once, at this packet.
    Once(u64),
    /// At each packet whose number this divides.
    Each(u64),
    EachSecond,
    /// At any packet, so many times in a thousand.
    Random(u64),
}

/// A client, and what it reads, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) kind: Kind,
    pub(super) options: Options<'static>,
    /// Numbers of files.
    pub(super) reads: Vec<usize>,
    pub(super) begins: u64,
    /// Between the end of one read and the next.
    pub(super) pause: u64,
    pub(super) wander: Wander,
    /// The node that it comes to first.
    pub(super) at: usize,
    /// To each node and back.
    pub(super) paths: Vec<Path>,
    /// It has always the same port, and takes nothing but an OACK for the answer to its request.
    pub(super) port: Option<u16>,
}

/// What befalls the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The mesh falls into two halves, for so long: who is in the second one.
    Cut(Vec<bool>, u64),
    Heal,
    /// A node loses its state. Its routes move so much later; and again so much later, if ever, a
    /// new process begins.
    Die(usize, u64, Option<u64>),
    Back(usize),
    /// It does nothing for so long; its routes move so much later, or never.
    Pause(usize, u64, Option<u64>),
    Resume(usize),
    /// A node drains; its routes move so much later; and again so much later it ends.
    Drain(usize, u64, u64),
    /// Routes lead there no more.
    Shun(usize),
    /// Routes may lead there again.
    Seek(usize),
    /// At a node a file gets its next version.
    Publish {
        node: usize,
        file: usize,
        version: usize,
    },
    /// A node has a content from now on, under no name.
    Hold {
        node: usize,
        file: usize,
        version: usize,
    },
    /// The user ends what this client does.
    Abort(usize),
    /// The route of a client leads to this node.
    Move(usize, usize),
    /// The next datagrams of a client are lost, so many of them.
    Mute(usize, u32),
    /// And so many of those that it is sent.
    Deafen(usize, u32),
    /// The next datagram of a client comes a second time, to the same node, so much later.
    Echo(usize, u64),
    /// So many packets of flows that nobody knows come to a node within a second, from so many
    /// prefixes.
    Flood(usize, u64, u64),
}

/// When something befalls the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(u64),
    /// When so many datagrams of clients have been sent.
    Datagram(u64),
    /// When a client has so many blocks, before it says so.
    Blocks(usize, u64),
}

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) nodes: usize,
    /// The failure domain of each.
    pub(super) domains: Vec<usize>,
    pub(super) mode: Mode,
    /// The version of the wire that each speaks, in its first life and in later ones.
    pub(super) speaks: Vec<(u8, u8)>,
    /// Between any two nodes.
    pub(super) mesh: Path,
    /// Longest time that a store takes.
    pub(super) store: u64,
    /// Nothing is in memory.
    pub(super) is_cold: bool,
    /// Sizes of files, and how many versions each has.
    pub(super) files: Vec<(usize, usize)>,
    /// Nodes that do not have the contents of later versions from the beginning.
    pub(super) lacks: Vec<usize>,
    pub(super) guests: Vec<Guest>,
    pub(super) faults: Vec<(When, Fault)>,
}

impl Setting {
    /// Nothing goes wrong.
    pub(super) fn peaceful(nodes: usize) -> Self {
        Self {
            nodes,
            domains: (0..nodes).collect(),
            mode: Mode::BeforeReply,
            speaks: vec![(VERSION, VERSION); nodes],
            mesh: Path::good(5 * MS),
            store: MS,
            is_cold: false,
            files: Vec::new(),
            lacks: Vec::new(),
            guests: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Timers that a node may have in a second.
    pub(super) fn wakes(&self) -> u32 {
        let mut floods = 0;
        for (_, fault) in &self.faults {
            if let Fault::Flood(_, packets, _) = fault {
                floods += u32::try_from(*packets).unwrap_or(u32::MAX);
            }
        }
        WAKES + floods * WAKES_OF_STRANGER
    }

    pub(super) fn with_file(mut self, size: usize) -> Self {
        self.files.push((size, 1));
        self
    }

    /// A client that reads these files at the first node, 2 ms away from all.
    pub(super) fn with_guest(mut self, kind: Kind, blksize: u16, reads: &[usize]) -> Self {
        let options = kind.options(&mut Random::new(1), blksize);
        self.guests.push(Guest {
            kind,
            options,
            reads: reads.to_vec(),
            begins: SECOND,
            pause: 3 * MS,
            wander: Wander::Stays,
            at: 0,
            paths: vec![Path::good(2 * MS); self.nodes],
            port: kind.habits().keeps_port.then_some(49_152),
        });
        self
    }

    pub(super) fn with_fault(mut self, when: When, fault: Fault) -> Self {
        self.faults.push((when, fault));
        self
    }
}
