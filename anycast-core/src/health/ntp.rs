//! The check `ntp`: stratum, synchronisation, root distance, offset.
//!
//! Every probe sends each address of the service an NTPv4 client packet (RFC 5905, 48 bytes,
//! nothing in it but version, mode and a random transmit timestamp) at most three times within
//! the time-out. An answer counts when it comes from the address asked (the socket is
//! connected) and returns that timestamp as its origin; anything else is ignored, and named in
//! the reason if nothing better comes.
//!
//! | heard | verdict |
//! |---|---|
//! | mode 4, synchronised, stratum 1 to [`max_stratum`](NtpCheck::with_max_stratum), within the bounds set | healthy |
//! | leap indicator 3, stratum 0 or above the bound, a bound exceeded, another mode or version, no transmit timestamp | unhealthy, at once |
//! | the kiss codes RATE, DENY or RSTR | unknown: the server works, and will not talk to *us*; probe less often, or allow the service address |
//! | silence or noise until the time-out, connection refused, address not on this node | unhealthy |
//! | no descriptor, memory or port, this host's own firewall, a checker that was starved | unknown |
//!
//! # What the proof is worth
//!
//! With [`Source::Service`] (the default) only the local node's answer can arrive, see
//! [`probe`]; the server must answer its own service address (chrony:
//! `allow 192.0.2.123/32`). NTP has no name of a node: against a forwarder on this node that
//! asks another server under an address of its own, this check proves nothing.
//!
//! **Offset.** The server's time is compared with this host's clock. On the node itself that is
//! the very clock that the server steers, so an offset only tells that the server serves
//! another time than the one it keeps (a correction under way, a daemon that does not steer the
//! clock). It does not tell that the clock is right: for that, bound the root distance, which
//! grows while the server hears nothing from its sources, and use the check `clock`.
#![allow(
    clippy::disallowed_methods,
    reason = "the offset is against this host's wall clock, read once for each packet"
)]

mod packet;
#[cfg(feature = "config")]
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::time::Instant;

use self::packet::{Finding, Limits, Request, Timestamp, judge};
#[cfg(feature = "config")]
pub use self::table::NtpTable;

use super::probe::exchange::{Heard, NoAnswer, Patience, all, exchange, random};
use super::probe::{self, Source};
use super::{HealthCheck, Verdict};
use crate::service::{ServiceAddress, ServiceAddresses};

/// The port of NTP.
pub const PORT: u16 = 123;
/// Highest stratum that is healthy unless told otherwise: a server that fell back to its own
/// clock (chrony's `local`, stratum 10 by default) still counts.
pub const DEFAULT_MAX_STRATUM: u8 = 10;

/// The check `ntp`; see the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub struct NtpCheck {
    addresses: ServiceAddresses,
    port: u16,
    source: Source,
    limits: Limits,
}

impl NtpCheck {
    /// Asks each of these addresses, at port 123, from the service address, with
    /// [`DEFAULT_MAX_STRATUM`] and no other bound.
    #[must_use]
    pub fn new(addresses: ServiceAddresses) -> Self {
        Self {
            addresses,
            port: PORT,
            source: Source::default(),
            limits: Limits {
                stratum: DEFAULT_MAX_STRATUM,
                distance: None,
                offset: None,
            },
        }
    }

    /// Asks at another port.
    #[must_use]
    pub const fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Where requests come from.
    #[must_use]
    pub const fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// The highest stratum that is healthy. Taken into the range 1 to 15: 16 means "not
    /// synchronised" (RFC 5905 figure 11).
    #[must_use]
    pub fn with_max_stratum(mut self, stratum: u8) -> Self {
        self.limits.stratum = stratum.clamp(1, 15);
        self
    }

    /// The greatest root distance that is healthy: half the root delay and the root dispersion,
    /// the bound of the server's own error (RFC 5905 11.2.3 uses 1.5 s).
    #[must_use]
    pub const fn with_max_distance(mut self, distance: Duration) -> Self {
        self.limits.distance = Some(distance);
        self
    }

    /// The greatest offset, either way, between the server's time and this host's clock. Half
    /// the time that the exchange took is granted on top, since it cannot be told apart. See the
    /// [module](self) for what this is worth.
    #[must_use]
    pub const fn with_max_offset(mut self, offset: Duration) -> Self {
        self.limits.offset = Some(offset);
        self
    }

    async fn probe(&self, address: ServiceAddress, patience: Patience) -> Verdict {
        let target = SocketAddr::new(address.ip(), self.port);
        match self.ask(target, patience).await {
            Ok(Finding::Right) => Verdict::Healthy,
            Ok(Finding::Wrong(fault)) => Verdict::unhealthy(format!("{target}: {fault}")),
            Ok(Finding::Unwilling(why) | Finding::NotOurs(why)) => {
                Verdict::unknown(format!("{target}: {why}"))
            }
            Err(no_answer) => no_answer.verdict(target),
        }
    }

    async fn ask(&self, target: SocketAddr, patience: Patience) -> Result<Finding, NoAnswer> {
        let socket = probe::udp(target, self.source).map_err(|e| NoAnswer::Io("open", e))?;
        let request = Request::new(random());
        // The wall clock is read once: were it stepped during the exchange, the step would
        // count as an offset.
        let (sent, begun) = (now(), Instant::now());
        let hear = |answer: &[u8]| {
            let received = sent.after(begun.elapsed());
            match judge(answer, &request, [sent, received], &self.limits) {
                Finding::NotOurs(what) => Heard::Ignored(what),
                found @ (Finding::Right | Finding::Wrong(_) | Finding::Unwilling(_)) => {
                    Heard::Answer(found)
                }
            }
        };
        exchange(&socket, &request.encode(), patience, hear).await
    }
}

/// This host's wall clock.
fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::from_unix(since_1970.unwrap_or_default())
}

#[async_trait]
impl HealthCheck for NtpCheck {
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let patience = Patience::new(timeout);
        let this = &*self;
        all(self.addresses.iter().map(|to| this.probe(to, patience))).await
    }
}
