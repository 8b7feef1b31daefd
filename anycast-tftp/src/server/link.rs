//! What the shards of a server and those of its peers say to each other.
//!
//! The server knows of peers, not of how messages come to them: whoever carries them takes them from
//! [`ToPeers`] and hands over what came by [`FromPeers`]; `carry` does so over the mesh (feature
//! `mesh`).
//!
//! # Listen addresses
//!
//! Each listen address has an engine of its own, which talks with that of the same address at the
//! peers. Before each message there is a name of the address that it comes from. It is for the listen
//! address here that is the same, family, address and port; the order does not matter. Where one of the
//! two is a wildcard (`0.0.0.0`, `[::]`), it is for the only listen address here of that family and
//! port; with several it is not known for which. A message that is for none is dropped and counted
//! ([`IoStats::peer_unmatched`](super::IoStats::peer_unmatched)): let all nodes listen on the same
//! addresses.
//!
//! # Queues
//!
//! | queue | holds | when it is full |
//! |---|---|---|
//! | [`ARRIVALS`], of each listen address | what peers said | the newest is dropped, and counted ([`IoStats::peer_overflow`](super::IoStats::peer_overflow)) |
//! | [`DEPARTURES`] | what peers are to be told | the newest is dropped, and counted ([`IoStats::peer_unsent`](super::IoStats::peer_unsent)) |
//! | who is up, whether this node drains | the latest | never; of a peer that went and came back both is told |

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anycast_core::NodeName;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::{mpsc, watch};

use super::{IoStats, Shared};
use crate::handoff::{Fleet, Node};

/// Messages of all peers that wait for the engine of one listen address.
pub const ARRIVALS: usize = 4096;
/// Messages of all listen addresses that wait for their carrier.
pub const DEPARTURES: usize = 8192;
/// Longest name of a listen address: with it the longest message fits into the datagrams of the
/// narrowest way that the mesh takes.
pub const MAX_PREFIX: usize = 11;
/// Messages that an engine takes in before it is asked what to send: some for each datagram of a
/// batch.
const AT_ONCE: usize = 128;

/// How often each peer has come or gone: it is up while that is odd.
type Peers = BTreeMap<NodeName, u64>;

/// Counters of what goes between peers.
#[derive(Debug, Default)]
pub(super) struct Counted {
    received: AtomicU64,
    unmatched: AtomicU64,
    overflow: AtomicU64,
    sent: AtomicU64,
    unsent: AtomicU64,
}

impl Counted {
    pub(super) fn fill(&self, stats: &mut IoStats) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.peer_received = count(&self.received);
        stats.peer_unmatched = count(&self.unmatched);
        stats.peer_overflow = count(&self.overflow);
        stats.peer_sent = count(&self.sent);
        stats.peer_unsent = count(&self.unsent);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes what comes from peers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FromPeers {
    shared: Arc<Shared>,
    shards: Arc<Shards>,
}

#[derive(Debug)]
struct Shards {
    addresses: Vec<SocketAddr>,
    queues: Vec<mpsc::Sender<(NodeName, Bytes)>>,
    peers: watch::Sender<Peers>,
}

impl FromPeers {
    /// A peer sent this, whatever is in it. Never waits.
    pub fn deliver(&self, peer: &NodeName, datagram: Bytes) {
        let counted = &self.shared.counted;
        count(&counted.received);
        let Some((index, message)) = find(&self.shards.addresses, datagram) else {
            count(&counted.unmatched);
            return;
        };
        let queue = self.shards.queues.get(index);
        let sent = queue.is_some_and(|queue| queue.try_send((peer.clone(), message)).is_ok());
        if !sent {
            count(&counted.overflow);
        }
    }

    /// A peer can be reached, or no more. All are down at first. Repeating it is harmless.
    pub fn set_up(&self, peer: &NodeName, is_up: bool) {
        self.shards.peers.send_if_modified(|peers| {
            let changes = peers.entry(peer.clone()).or_default();
            let is_new = (*changes % 2 == 1) != is_up;
            *changes += u64::from(is_new);
            is_new
        });
    }
}

/// What peers are to be told.
#[derive(Debug)]
pub struct ToPeers {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<(NodeName, Bytes)>,
}

impl ToPeers {
    /// The next message, and to whom; `None` once the server has stopped. Cancellation loses none.
    pub async fn next(&mut self) -> Option<(NodeName, Bytes)> {
        self.queue.recv().await
    }

    /// One could not be sent: it is counted as if there had been no room for it.
    pub fn count_unsent(&self) {
        count(&self.shared.counted.unsent);
    }
}

/// One end of the way for each listen address, and the other for whoever carries.
pub(super) fn link(
    shared: &Arc<Shared>,
    fleet: &Fleet,
    addresses: &[SocketAddr],
) -> (Vec<Ours>, (FromPeers, ToPeers)) {
    let (out, departures) = mpsc::channel(DEPARTURES);
    let peers = watch::Sender::new(Peers::new());
    let mut queues = Vec::new();
    let ours = addresses.iter().zip(0_u64..).map(|(address, index)| {
        let (queue, arrivals) = mpsc::channel(ARRIVALS);
        queues.push(queue);
        let mut fleet = fleet.clone();
        fleet.seed = scramble(fleet.seed, index);
        Ours {
            fleet,
            prefix: prefix(*address),
            arrivals,
            peers: peers.subscribe(),
            known: Peers::new(),
            out: out.clone(),
            shared: Arc::clone(shared),
        }
    });
    let ours = ours.collect();
    let shards = Shards {
        addresses: addresses.to_vec(),
        queues,
        peers,
    };
    let from = FromPeers {
        shared: Arc::clone(shared),
        shards: Arc::new(shards),
    };
    let to = ToPeers {
        shared: Arc::clone(shared),
        queue: departures,
    };
    (ours, (from, to))
}

/// Another seed for each listen address: no two engines make the same nonces (SplitMix64).
const fn scramble(seed: u64, index: u64) -> u64 {
    let mut mixed = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The end of one listen address.
#[derive(Debug)]
pub(super) struct Ours {
    fleet: Fleet,
    prefix: Bytes,
    arrivals: mpsc::Receiver<(NodeName, Bytes)>,
    peers: watch::Receiver<Peers>,
    /// What the engine has been told of them.
    known: Peers,
    out: mpsc::Sender<(NodeName, Bytes)>,
    shared: Arc<Shared>,
}

impl Ours {
    pub(super) const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Waits until there is something for the engine. Cancel-safe: what is handed over has been taken
    /// out.
    pub(super) async fn next(&mut self) -> Option<(NodeName, Bytes)> {
        tokio::select! {
            biased;
            changed = self.peers.changed() => match changed {
                Ok(()) => {
                    self.peers.mark_changed(); // it has not been told yet
                    None
                }
                // Nobody carries any more.
                Err(_) => std::future::pending().await,
            },
            message = self.arrivals.recv() => match message {
                Some(message) => Some(message),
                None => std::future::pending().await,
            },
        }
    }

    /// Tells the engine who is there, what was taken out, and what else has come by now.
    pub(super) fn tell(&mut self, engine: &mut Node, first: Option<(NodeName, Bytes)>) {
        let now = Instant::now();
        for (peer, is_up) in self.news() {
            engine.handle_peer(now, &peer, is_up);
        }
        let mut next = first;
        for _ in 0..AT_ONCE {
            let message = next.take().or_else(|| self.arrivals.try_recv().ok());
            let Some((peer, message)) = message else {
                return;
            };
            engine.handle_message(now, &peer, &message);
        }
    }

    /// Which peers have come and gone, in order, since it was asked last.
    fn news(&mut self) -> Vec<(NodeName, bool)> {
        let mut news = Vec::new();
        if !self.peers.has_changed().unwrap_or(false) {
            return news;
        }
        for (peer, changes) in self.peers.borrow_and_update().iter() {
            let known = self.known.insert(peer.clone(), *changes);
            let (known, is_up) = (known.unwrap_or_default(), changes % 2 == 1);
            if known == *changes {
                continue;
            }
            if (known % 2 == 1) == is_up {
                news.push((peer.clone(), !is_up));
            }
            news.push((peer.clone(), is_up));
        }
        news
    }

    /// Hands out what the engine says to peers.
    pub(super) fn hand_out(&self, engine: &mut Node) {
        let counted = &self.shared.counted;
        let now = Instant::now();
        while let Some((peer, message)) = engine.poll_message(now) {
            let mut whole = BytesMut::with_capacity(self.prefix.len() + message.len());
            whole.put_slice(&self.prefix);
            whole.put_slice(&message);
            let sent = self.out.try_send((peer, whole.freeze()));
            count(if sent.is_ok() {
                &counted.sent
            } else {
                &counted.unsent
            });
        }
    }
}

const V4: u8 = 4;
const V6: u8 = 6;
/// Of either family, with no address behind it.
const WILDCARD: u8 = 0x80;

/// The name of a listen address: family and port, and the address, or of an IPv6 address its hash.
fn prefix(address: SocketAddr) -> Bytes {
    let mut name = BytesMut::with_capacity(MAX_PREFIX);
    let family = if address.is_ipv4() { V4 } else { V6 };
    let is_wildcard = address.ip().is_unspecified();
    name.put_u8(family | if is_wildcard { WILDCARD } else { 0 });
    name.put_u16(address.port());
    match address.ip() {
        _ if is_wildcard => {}
        IpAddr::V4(ip) => name.put_slice(&ip.octets()),
        IpAddr::V6(ip) => name.put_u64(fnv(&ip.octets())),
    }
    name.freeze()
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// For which of these listen addresses a datagram is, and the message in it.
fn find(addresses: &[SocketAddr], mut datagram: Bytes) -> Option<(usize, Bytes)> {
    let family = *datagram.first()?;
    let length = match family {
        V4 => 7,
        V6 => MAX_PREFIX,
        _ if family == V4 | WILDCARD || family == V6 | WILDCARD => 3,
        _ => return None,
    };
    if datagram.len() < length {
        return None;
    }
    let name = datagram.split_to(length);
    let is_same = |address: &SocketAddr| prefix(*address) == name;
    if let Some(index) = addresses.iter().position(is_same) {
        return Some((index, datagram));
    }
    // Family and port alone, where the peer or this node listens on all addresses.
    let is_like = |address: &SocketAddr| {
        let own = prefix(*address);
        own.first().map(|own| own & !WILDCARD) == Some(family & !WILDCARD)
            && own.get(1..3) == name.get(1..3)
    };
    let mut like = addresses.iter().enumerate().filter(|(_, one)| is_like(one));
    let (index, only) = like.next()?;
    let is_either = only.ip().is_unspecified() || family & WILDCARD != 0;
    (is_either && like.next().is_none()).then_some((index, datagram))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// For which of `here` a message is that comes from `there`.
    fn meets(there: &str, here: &[&str]) -> Option<usize> {
        let here: Vec<_> = here.iter().map(|one| address(one)).collect();
        let mut datagram = prefix(address(there)).to_vec();
        datagram.extend_from_slice(b"message");
        let (index, message) = find(&here, datagram.into())?;
        assert_eq!(message, b"message"[..]);
        Some(index)
    }

    #[test]
    fn engines_of_the_same_listen_address_meet_in_any_order() {
        let here = ["192.0.2.69:69", "[2001:db8::69]:69", "192.0.2.70:69"];
        for (index, address) in here.iter().enumerate() {
            assert_eq!(meets(address, &here), Some(index));
        }
        for other in [
            "192.0.2.71:69",
            "192.0.2.69:6969",
            "[2001:db8::70]:69",
            "[2001:db8::69]:70",
        ] {
            assert_eq!(meets(other, &here), None, "{other}");
        }
    }

    #[test]
    fn a_wildcard_meets_the_only_address_of_its_family_and_port() {
        let here = ["0.0.0.0:69", "[::]:69"];
        assert_eq!(meets("0.0.0.0:69", &here), Some(0));
        assert_eq!(meets("192.0.2.69:69", &here), Some(0));
        assert_eq!(meets("[2001:db8::69]:69", &here), Some(1));
        assert_eq!(meets("192.0.2.69:70", &here), None);
        let here = ["192.0.2.69:69", "[2001:db8::69]:69"];
        assert_eq!(meets("[::]:69", &here), Some(1));
        assert_eq!(meets("[::]:70", &here), None);
        // Of two it could be either.
        let here = ["192.0.2.69:69", "192.0.2.70:69", "[2001:db8::69]:69"];
        assert_eq!(meets("0.0.0.0:69", &here), None);
    }

    #[test]
    fn what_names_no_address_is_for_none() {
        let here = [address("192.0.2.69:69"), address("[::]:69")];
        let name = prefix(here[0]);
        for length in 0..name.len() {
            assert_eq!(find(&here, name.slice(..length)), None);
        }
        for family in [0, 1, 5, 0x7f, 0xff] {
            assert_eq!(find(&here, vec![family; 40].into()), None);
        }
        // An empty message is the engine's to refuse.
        assert_eq!(find(&here, name), Some((0, Bytes::new())));
    }

    /// A server on one port of the loopback, its end and that of its carrier.
    fn ends() -> (Ours, FromPeers) {
        let names = ["own", "other"].map(|name| NodeName::new(name).unwrap());
        let [own, other] = names;
        let config = crate::server::ServerConfig::new(vec![address("127.0.0.1:0")]);
        let config = config.with_fleet(Fleet::new(own, vec![other], 1));
        let store = Arc::new(crate::store::MemoryStore::new());
        let mut server = crate::server::Server::bind(config, store).unwrap();
        let (from, _) = server.peers().unwrap();
        (server.links.pop().unwrap(), from)
    }

    #[tokio::test]
    async fn of_a_peer_that_went_and_came_back_both_is_told() {
        let (mut ours, from) = ends();
        let peer = NodeName::new("other").unwrap();
        assert_eq!(ours.news(), []);
        from.set_up(&peer, false); // as at first
        assert_eq!(ours.news(), []);
        from.set_up(&peer, true);
        assert_eq!(ours.next().await, None);
        assert_eq!(ours.news(), [(peer.clone(), true)]);
        from.set_up(&peer, true);
        assert_eq!(ours.news(), []);
        from.set_up(&peer, false);
        from.set_up(&peer, true);
        assert_eq!(ours.next().await, None);
        let both = [(peer.clone(), false), (peer.clone(), true)];
        assert_eq!(ours.news(), both);
        for is_up in [false, true, false] {
            from.set_up(&peer, is_up);
        }
        assert_eq!(ours.news(), [(peer, false)]);
    }

    #[tokio::test]
    async fn what_comes_waits_within_its_bound_and_in_order() {
        let (mut ours, from) = ends();
        let peer = NodeName::new("other").unwrap();
        let number = |number: usize| {
            let mut datagram = ours.prefix.to_vec();
            datagram.extend_from_slice(&number.to_be_bytes());
            Bytes::from(datagram)
        };
        let datagrams: Vec<_> = (0..ARRIVALS + 3).map(number).collect();
        for datagram in datagrams {
            from.deliver(&peer, datagram);
        }
        for number in 0..ARRIVALS {
            let message = Bytes::copy_from_slice(&number.to_be_bytes());
            assert_eq!(ours.next().await, Some((peer.clone(), message)));
        }
        let mut counted = IoStats::default();
        from.shared.counted.fill(&mut counted);
        assert_eq!(counted.peer_received, ARRIVALS as u64 + 3);
        assert_eq!(counted.peer_overflow, 3);
    }

    #[test]
    fn no_two_listen_addresses_have_one_seed() {
        let mut seeds: Vec<_> = (0..64).map(|index| scramble(7, index)).collect();
        seeds.extend((0..64).map(|index| scramble(8, index)));
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 128);
    }
}
