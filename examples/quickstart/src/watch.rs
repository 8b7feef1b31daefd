//! What the kernel says, asked again and again until told to stop.
//!
//! Two facts make the timeline: whether the boost is on `lo` of a site, and by which site
//! the router sends packets for the service address. Both are asked of the kernel, whatever
//! program brought them about.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::Netns;
use nix::ifaddrs::getifaddrs;

use crate::error::Error;
use crate::network::{SERVICE, site_of};
use crate::timeline::{Event, Stamped};

/// How exact the times in the timeline are.
const INTERVAL: Duration = Duration::from_millis(5);

/// Reports whether the boost of `site` is there, at first and at every change.
pub(crate) fn boost(
    site: usize,
    namespace: &Netns,
    stop: &AtomicBool,
    events: &Sender<Stamped>,
) -> Result<(), Error> {
    let changes = || {
        changes(stop, events, boost_is_there, |there| Event::Boost {
            site,
            there,
        })
    };
    Ok(namespace.enter(changes)?)
}

/// Reports by which site the router reaches the service, at first and at every change.
pub(crate) fn route(
    router: &Netns,
    stop: &AtomicBool,
    events: &Sender<Stamped>,
) -> Result<(), Error> {
    Ok(router.enter(|| changes(stop, events, route_now, Event::Route))?)
}

fn changes<T: PartialEq + Copy>(
    stop: &AtomicBool,
    events: &Sender<Stamped>,
    look: impl Fn() -> T,
    event: impl Fn(T) -> Event,
) {
    let mut last = None;
    while !stop.load(Ordering::Relaxed) {
        let seen = look();
        if last != Some(seen) {
            last = Some(seen);
            if events.send((Instant::now(), event(seen))).is_err() {
                return;
            }
        }
        thread::sleep(INTERVAL);
    }
}

/// Whether the service address is on `lo` of the calling thread's namespace.
pub(crate) fn boost_is_there() -> bool {
    let addresses = getifaddrs().into_iter().flatten();
    addresses
        .filter(|entry| entry.interface_name == "lo")
        .filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()))
        .any(|address| address == SERVICE)
}

/// The kernel's own choice: connecting a UDP socket sends nothing, but looks the route up
/// and binds the socket to the source address that goes with it.
fn route_now() -> Option<usize> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket
        .connect(SocketAddr::new(IpAddr::V4(SERVICE), 69))
        .ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => site_of(address),
        IpAddr::V6(_) => None,
    }
}
