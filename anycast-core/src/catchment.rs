//! Which client networks a node answers most: its catchment. Pure.
//!
//! Anycast gives no say in where a client ends up; this shows where it did. Each node counts its
//! requests by client network, a /24 of IPv4 or a /48 of IPv6, in [`NETWORKS`] places, whatever
//! clients there are (the algorithm is Space-Saving of Metwally, Agrawal and El Abbadi, 2005): a
//! network that has more than one in [`NETWORKS`] of all requests always has a place. What is told
//! of a network is never more than it asked; it is less by what others had asked in its place
//! before it came.
//!
//! Every [`HALF_LIFE`] all counts are halved, so that what is told is about the last half hour or
//! so.
//!
//! To count is to look through at most [`NETWORKS`] numbers. Whoever counts sees to it that a forged
//! source costs nobody a place: it counts what a client has answered to.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How many networks are counted at once; a further one takes the place of the least.
pub const NETWORKS: usize = 256;
/// After so long a request counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(600);

/// Whose requests a node answers, the networks that ask most first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clients {
    /// The requests of all networks.
    pub total: u64,
    /// The networks, and what each asked at least.
    pub top: Vec<(IpNet, u64)>,
}

/// The counters. See the [module documentation](self).
#[derive(Debug, Clone)]
pub struct Catchment {
    networks: Vec<Network>,
    places: Vec<Place>,
    total: u64,
    halved_at: Instant,
}

/// The bits of a network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Network(u64);

const IS_V6: u64 = 1 << 63;

impl Network {
    /// An IPv4 address that is written as an IPv6 one counts as what it is.
    fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4) >> 8)),
            IpAddr::V6(v6) => {
                let prefix = u64::try_from(u128::from(v6) >> 80).unwrap_or_default();
                Self(IS_V6 | prefix)
            }
        }
    }

    fn prefix(self) -> Option<IpNet> {
        if self.0 & IS_V6 == 0 {
            let bits = u32::try_from(self.0).ok()? << 8;
            Some(Ipv4Net::new(bits.into(), 24).ok()?.into())
        } else {
            let bits = u128::from(self.0 & !IS_V6) << 80;
            Some(Ipv6Net::new(bits.into(), 48).ok()?.into())
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    count: u64,
    /// Of those before it came.
    error: u64,
}

impl Catchment {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            networks: Vec::with_capacity(NETWORKS),
            places: Vec::with_capacity(NETWORKS),
            total: 0,
            halved_at: now,
        }
    }

    /// A client's request was answered.
    pub fn handle_request(&mut self, now: Instant, client: IpAddr) {
        self.handle_timeout(now);
        self.total = self.total.saturating_add(1);
        let network = Network::of(client);
        let found = self.networks.iter().position(|known| *known == network);
        if let Some(place) = found.and_then(|index| self.places.get_mut(index)) {
            place.count = place.count.saturating_add(1);
            return;
        }
        if self.networks.len() < NETWORKS {
            self.networks.push(network);
            self.places.push(Place { count: 1, error: 0 });
            return;
        }
        let places = self.networks.iter_mut().zip(&mut self.places);
        if let Some((least, place)) = places.min_by_key(|(_, place)| place.count) {
            *least = network;
            place.error = place.count;
            place.count = place.count.saturating_add(1);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.halved_at);
        let halvings = passed.as_nanos() / HALF_LIFE.as_nanos();
        // More than a count has bits are as good as all.
        let Some(halvings) = u32::try_from(halvings).ok().filter(|times| *times < 64) else {
            *self = Self::new(now);
            return;
        };
        if halvings == 0 {
            return;
        }
        self.halved_at += HALF_LIFE * halvings;
        self.total >>= halvings;
        for place in &mut self.places {
            place.count >>= halvings;
            // Rounded up, so that the difference is never too much.
            place.error = (place.error >> halvings) + u64::from(place.error != 0);
        }
        let kept = |place: &Place| place.count > 0;
        let mut keep = self.places.iter().map(kept).collect::<Vec<_>>().into_iter();
        self.networks.retain(|_| keep.next().unwrap_or_default());
        self.places.retain(kept);
    }

    /// The networks that ask most, at most so many.
    pub fn top(&mut self, now: Instant, most: usize) -> Clients {
        self.handle_timeout(now);
        let known = self.networks.iter().zip(&self.places);
        let mut known: Vec<_> = known
            .map(|(network, place)| (place.count.saturating_sub(place.error), *network))
            .filter(|(count, _)| *count > 0)
            .collect();
        known.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let top = known.into_iter().take(most);
        Clients {
            total: self.total,
            top: top
                .filter_map(|(count, network)| Some((network.prefix()?, count)))
                .collect(),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;
