//! The task that accepts: who is let in, how many at once and how often.
//!
//! The addresses of the configured peers have doors of their own, so strangers who knock without
//! end keep nobody out. Behind a door there are so many places for handshakes, and so many
//! handshakes a second; who finds it shut is refused without any state.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::link::{close, owner, serve};
use super::{
    CONNECTIONS_AT_ONCE, CONNECTIONS_EVERY, HANDSHAKE_EVERY, HANDSHAKE_TIME, HANDSHAKES,
    HANDSHAKES_OF_PEER, Shared,
};
use crate::health::Reason;
use crate::service::NodeName;

/// Failed handshakes are told in the log once in this time.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn accept(endpoint: Endpoint, addresses: Vec<IpAddr>, shared: Arc<Shared>) {
    let mut doors = Doors::new(&addresses);
    let arrivals = Arc::new(Arrivals::default());
    let mut tasks = JoinSet::new();
    let mut told = Told::default();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if !incoming.remote_address_validated() {
                    // It cannot fail for one whose address is not validated.
                    let _ = incoming.retry();
                    continue;
                }
                let remote = incoming.remote_address();
                let Some(place) = doors.enter(remote.ip(), Instant::now()) else {
                    incoming.refuse();
                    told.tell(remote, "too many handshakes");
                    continue;
                };
                let shared = Arc::clone(&shared);
                let arrivals = Arc::clone(&arrivals);
                tasks.spawn(async move {
                    let shaken = shake_hands(incoming, &shared, &arrivals).await;
                    drop(place);
                    match shaken {
                        Ok((connection, peer)) => {
                            serve(connection, peer, false, &shared).await;
                            None
                        }
                        Err(error) => Some((remote, error)),
                    }
                });
            }
            Some(ended) = tasks.join_next() => {
                if let Ok(Some((remote, error))) = ended {
                    told.tell(remote, &error);
                }
            }
        }
    }
}

async fn shake_hands(
    incoming: Incoming,
    shared: &Shared,
    arrivals: &Arrivals,
) -> Result<(Connection, NodeName), String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connected = timeout(HANDSHAKE_TIME, connecting).await;
    let connection = connected
        .map_err(|_| format!("no handshake within {HANDSHAKE_TIME:?}"))?
        .map_err(|error| error.to_string())?;
    let peer = owner(&connection, &shared.pins).ok_or("no key of a peer")?;
    if !arrivals.takes(&peer, Instant::now()) {
        close(&connection, "it connects too often");
        return Err(format!("{peer} connects too often"));
    }
    Ok((connection, peer))
}

/// So many at once, and then one in a time.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    most: u32,
    every: Duration,
    refilled_at: Instant,
}

impl Bucket {
    const fn new(most: u32, every: Duration, now: Instant) -> Self {
        Self {
            tokens: most,
            most,
            every,
            refilled_at: now,
        }
    }

    fn takes(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled_at);
        let grown = passed.as_nanos() / self.every.as_nanos().max(1);
        let grown = u32::try_from(grown).unwrap_or(u32::MAX);
        if grown > 0 {
            self.tokens = self.tokens.saturating_add(grown).min(self.most);
            self.refilled_at = now;
        }
        let has = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has
    }
}

#[derive(Debug)]
struct Door {
    places: Arc<Semaphore>,
    rate: Bucket,
}

impl Door {
    fn new(places: usize, now: Instant) -> Self {
        let most = u32::try_from(2 * places).unwrap_or(u32::MAX);
        Self {
            places: Arc::new(Semaphore::new(places)),
            rate: Bucket::new(most, HANDSHAKE_EVERY, now),
        }
    }
}

struct Doors {
    peers: BTreeMap<IpAddr, Door>,
    strangers: Door,
}

impl Doors {
    fn new(addresses: &[IpAddr]) -> Self {
        let now = Instant::now();
        let mut places: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for address in addresses {
            *places.entry(address.to_canonical()).or_default() += HANDSHAKES_OF_PEER;
        }
        let places = places.into_iter();
        Self {
            peers: places
                .map(|(address, places)| (address, Door::new(places, now)))
                .collect(),
            strangers: Door::new(HANDSHAKES, now),
        }
    }

    fn enter(&mut self, address: IpAddr, now: Instant) -> Option<OwnedSemaphorePermit> {
        let door = self.peers.get_mut(&address.to_canonical());
        let door = door.unwrap_or(&mut self.strangers);
        let place = Arc::clone(&door.places).try_acquire_owned().ok()?;
        door.rate.takes(now).then_some(place)
    }
}

/// How often each peer has come. As many as there are keys.
#[derive(Default)]
struct Arrivals(Mutex<BTreeMap<NodeName, Bucket>>);

impl Arrivals {
    fn takes(&self, peer: &NodeName, now: Instant) -> bool {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Bucket::new(CONNECTIONS_AT_ONCE, CONNECTIONS_EVERY, now);
        peers.entry(peer.clone()).or_insert_with(new).takes(now)
    }
}

/// Strangers may knock often; the log says so seldom.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    kept: u64,
}

impl Told {
    fn tell(&mut self, remote: SocketAddr, error: &str) {
        let is_early = self.last.is_some_and(|last| last.elapsed() < TELL_EVERY);
        if is_early {
            self.kept += 1;
            return;
        }
        let untold = std::mem::take(&mut self.kept);
        self.last = Some(Instant::now());
        let error = Reason::new(error);
        tracing::warn!(%remote, %error, untold, "a handshake failed");
    }
}
