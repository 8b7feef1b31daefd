//! A small stand-in for a routing daemon, for machines without BIRD.
//!
//! At each site a *speaker* looks whether the boost is on `lo`, by the same rule as BIRD
//! (boost → 200, else floor → 50), and tells the router so in a UDP hello five times a
//! second. At the router a *listener* keeps the kernel's route on the best site that it has
//! heard of within the last second; of two equals the first, which is nearer. With none it
//! removes the route.
//!
//! A demonstration, not a routing protocol: hellos are neither authenticated nor secured
//! against loss beyond their repetition. In the network that it is made for there is nobody
//! else.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::Netns;

use crate::error::Error;
use crate::network::{self, SERVICE, SITES};
use crate::watch::boost_is_there;

/// Preference of a site that has the boost, as in the BIRD configuration.
pub(crate) const BOOST: u32 = 200;
/// Preference of a site that has not.
pub(crate) const FLOOR: u32 = 50;
/// Time between two hellos.
const INTERVAL: Duration = Duration::from_millis(200);
/// After this long without a hello a site counts as gone.
const HOLD_TIME: Duration = Duration::from_secs(1);
/// How long the listener waits for a hello before it looks at the clock.
const PATIENCE: Duration = Duration::from_millis(50);
/// Longer datagrams than any hello are cut, and then do not parse.
const LONGEST: usize = 32;
const PORT: u16 = 5169;

/// What the router has heard of each site.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    heard: [Option<(u32, Instant)>; SITES.len()],
}

impl Table {
    /// `site` says that it has this preference.
    pub(crate) fn handle_hello(&mut self, site: usize, preference: u32, now: Instant) {
        self.heard[site] = Some((preference, now));
    }

    /// The preference of `site`, if it was heard of within the hold time.
    pub(crate) fn preference(&self, site: usize, now: Instant) -> Option<u32> {
        let (preference, at) = self.heard[site]?;
        (now.saturating_duration_since(at) < HOLD_TIME).then_some(preference)
    }

    /// Where packets should go: the highest preference; of equals the first.
    pub(crate) fn best(&self, now: Instant) -> Option<usize> {
        let mut best = None;
        for site in 0..self.heard.len() {
            let preference = self.preference(site, now);
            if preference > best.and_then(|best: usize| self.preference(best, now)) {
                best = Some(site);
            }
        }
        best
    }
}

/// A hello on the wire: `follower 1 200`.
fn hello(preference: u32) -> String {
    format!("follower 1 {preference}")
}

fn parse_hello(datagram: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(datagram).ok()?;
    let digits = text.strip_prefix("follower 1 ")?;
    digits.parse().ok()
}

/// The speaker of one site, until told to stop.
pub(crate) fn speak(site: usize, namespace: &Netns, stop: &AtomicBool) -> Result<(), Error> {
    let to = SocketAddr::from((network::router_address(site), PORT));
    let speak = || -> io::Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        while !stop.load(Ordering::Relaxed) {
            let preference = if boost_is_there() { BOOST } else { FLOOR };
            // A link that is down loses hellos: that is what the hold time is for.
            let _ = socket.send_to(hello(preference).as_bytes(), to);
            thread::sleep(INTERVAL);
        }
        Ok(())
    };
    namespace
        .enter(speak)?
        .map_err(Error::system("send hellos to the router"))
}

/// The router's half, until told to stop.
pub(crate) fn listen(router: &Netns, table: &Mutex<Table>, stop: &AtomicBool) -> Result<(), Error> {
    let socket = router
        .enter(|| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })?
        .map_err(Error::system("listen for hellos"))?;
    let mut installed = None;
    let mut buffer = [0; LONGEST];
    while !stop.load(Ordering::Relaxed) {
        let hello = match socket.recv_from(&mut buffer) {
            Ok((length, from)) => site_and_preference(&buffer[..length], from),
            Err(error) if is_timeout(&error) => None,
            Err(error) => return Err(Error::system("receive hellos")(error)),
        };
        let now = Instant::now();
        let best = {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((site, preference)) = hello {
                table.handle_hello(site, preference, now);
            }
            table.best(now)
        };
        if best != installed {
            install(router, best)?;
            installed = best;
        }
    }
    Ok(())
}

fn site_and_preference(datagram: &[u8], from: SocketAddr) -> Option<(usize, u32)> {
    let SocketAddr::V4(from) = from else {
        return None;
    };
    let site = network::site_of(*from.ip())?;
    Some((site, parse_hello(datagram)?))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn install(router: &Netns, best: Option<usize>) -> Result<(), Error> {
    match best {
        Some(site) => {
            let via = network::site_address(site);
            router.run(&format!("ip route replace {SERVICE}/32 via {via}"))?;
        }
        // It may be gone already, with its link.
        None => drop(router.run(&format!("ip route del {SERVICE}/32"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table, and a function that answers the instant so many milliseconds later.
    fn table() -> (Table, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Table::default(), move |ms| {
            start + Duration::from_millis(ms)
        })
    }

    #[test]
    fn with_nobody_heard_there_is_no_best() {
        let (table, at) = table();
        assert_eq!(table.best(at(0)), None);
    }

    #[test]
    fn of_equals_the_first_is_best_in_whatever_order_they_speak() {
        let (mut table, at) = table();
        table.handle_hello(1, BOOST, at(0));
        assert_eq!(table.best(at(0)), Some(1));
        table.handle_hello(0, BOOST, at(1));
        assert_eq!(table.best(at(1)), Some(0));
        table.handle_hello(1, BOOST, at(2));
        assert_eq!(table.best(at(2)), Some(0));
    }

    #[test]
    fn a_demoted_site_loses_and_wins_again_when_it_rises() {
        let (mut table, at) = table();
        table.handle_hello(0, FLOOR, at(0));
        table.handle_hello(1, BOOST, at(0));
        assert_eq!(table.best(at(1)), Some(1));
        table.handle_hello(0, BOOST, at(2));
        assert_eq!(table.best(at(2)), Some(0));
    }

    #[test]
    fn both_demoted_are_served_as_if_both_were_well() {
        let (mut table, at) = table();
        for site in [0, 1] {
            table.handle_hello(site, FLOOR, at(0));
        }
        assert_eq!(table.best(at(0)), Some(0));
    }

    #[test]
    fn a_silent_site_counts_until_the_hold_time_is_over() {
        let (mut table, at) = table();
        table.handle_hello(0, BOOST, at(0));
        table.handle_hello(1, FLOOR, at(900));
        assert_eq!(table.best(at(999)), Some(0));
        assert_eq!(table.best(at(1000)), Some(1));
        assert_eq!(table.preference(0, at(1000)), None);
        assert_eq!(table.best(at(1900)), None);
    }

    #[test]
    fn only_a_hello_of_this_version_is_understood() {
        assert_eq!(parse_hello(hello(BOOST).as_bytes()), Some(BOOST));
        for rubbish in [
            &b""[..],
            b"follower 2 200",
            b"follower 1 x",
            b"follower 1 -1",
            b"\xff",
        ] {
            assert_eq!(parse_hello(rubbish), None);
        }
    }

    #[test]
    fn a_hello_from_elsewhere_is_nobodys() {
        let from = |address: &str| address.parse().unwrap();
        let bytes = hello(BOOST);
        let read = |from| site_and_preference(bytes.as_bytes(), from);
        assert_eq!(read(from("10.10.2.2:9")), Some((1, BOOST)));
        assert_eq!(read(from("10.1.0.2:9")), None);
        assert_eq!(read(from("[fd00::2]:9")), None);
    }
}
