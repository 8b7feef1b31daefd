//! External routes as a router hears them by OSPF (RFC 2328, RFC 5340), read from the wire.
//!
//! OSPF has no withdrawal message. A route goes when its originator *flushes* the LSA: floods it
//! once more with the greatest age. Databases forget a flushed LSA at once, so that looking at
//! them again and again can miss one; what arrives at the router's raw socket cannot.
//!
//! [`parse`] is pure; [`Listener`] is the socket.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::{Netns, NetnsError};

/// The IP protocol of OSPF.
const OSPF: i32 = 89;
const LINK_STATE_UPDATE: u8 = 4;
const MAX_AGE: u16 = 3600;
/// The age may have its top bit set: `DoNotAge`.
const AGE: u16 = 0x7fff;
/// How soon a [`Listener`] notices that it is dropped.
const TICK: Duration = Duration::from_millis(200);

/// One version of an external route, as its originator floods it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct External {
    /// Who originated it.
    pub origin: Ipv4Addr,
    /// Which of its LSAs.
    pub id: u32,
    /// Its version; greater is newer, as a signed number.
    pub sequence: i32,
    /// Whether it is flushed with this: OSPF's withdrawal.
    pub flushed: bool,
    /// Its metric.
    pub metric: u32,
    /// Whether the originator itself sent the packet; else another floods it on.
    pub direct: bool,
}

impl External {
    fn is_same(&self, other: &Self) -> bool {
        let what = |one: &Self| (one.id, one.sequence, one.flushed, one.metric);
        what(self) == what(other)
    }
}

/// The external routes in an OSPF packet, without an IP header. Empty for all other packets and
/// for what is malformed: the router's daemon ignores that too.
#[must_use]
pub fn parse(packet: &[u8]) -> Vec<External> {
    let (header, external) = match packet.first() {
        Some(2) => (24, 5_u16),
        Some(3) => (16, 0x4005),
        _ => return Vec::new(),
    };
    let version2 = header == 24;
    if packet.get(1) != Some(&LINK_STATE_UPDATE) {
        return Vec::new();
    }
    let Some(sender) = packet.get(4..8).map(|id| [id[0], id[1], id[2], id[3]]) else {
        return Vec::new();
    };
    let mut found: Vec<External> = Vec::new();
    // Behind the packet's header the number of LSAs.
    let mut rest = packet.get(header + 4..).unwrap_or_default();
    while let Some(lsa) = rest.get(18..20).and_then(|length| {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        rest.get(..length).filter(|_| length >= 20)
    }) {
        rest = &rest[lsa.len()..];
        let kind = u16::from_be_bytes([if version2 { 0 } else { lsa[2] }, lsa[3]]);
        if kind == external {
            // IPv4: the mask, then a bit for the type above the metric. IPv6: flags above it.
            found.extend(read(lsa, if version2 { 24 } else { 20 }));
        }
    }
    for external in &mut found {
        external.direct = external.origin == Ipv4Addr::from(sender);
    }
    found
}

fn read(lsa: &[u8], metric: usize) -> Option<External> {
    let word = |at: usize| {
        let bytes: [u8; 4] = lsa.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let age = u16::from_be_bytes([lsa[0], lsa[1]]) & AGE;
    Some(External {
        origin: Ipv4Addr::from(word(8)?),
        id: word(4)?,
        sequence: word(12)?.cast_signed(),
        flushed: age >= MAX_AGE,
        metric: word(metric)? & 0x00ff_ffff,
        direct: false,
    })
}

/// Hears every external route that reaches a namespace, from its start on, until dropped.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Mutex<Vec<(bool, External)>>>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Start to listen, to both versions.
    ///
    /// # Errors
    /// [`NetnsError::Run`] when a socket cannot be made.
    pub fn start(namespace: &Netns) -> Result<Self, NetnsError> {
        let mut listener = Self {
            heard: Arc::default(),
            over: Arc::default(),
            threads: Vec::new(),
        };
        for domain in [Domain::IPV4, Domain::IPV6] {
            let open = || {
                let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(OSPF)))?;
                socket.set_recv_buffer_size(1 << 20)?;
                socket.set_read_timeout(Some(TICK))?;
                Ok(socket)
            };
            let socket = namespace.enter(open)?.map_err(|source| NetnsError::Run {
                namespace: namespace.name().to_owned(),
                command: "a raw socket for OSPF".to_owned(),
                source,
            })?;
            let (heard, over) = (Arc::clone(&listener.heard), Arc::clone(&listener.over));
            let v4 = domain == Domain::IPV4;
            listener
                .threads
                .push(thread::spawn(move || listen(&socket, v4, &heard, &over)));
        }
        Ok(listener)
    }

    /// What was heard of `origin` about IPv4 or IPv6 (as `service` is), without repetitions, in
    /// order, each with its number among all ([`count`](Self::count)).
    ///
    /// What another router floods on may be late: it counts if it is newer than the last. What the
    /// originator sends always does: restarted, it begins its versions anew.
    #[must_use]
    pub fn heard(&self, origin: Ipv4Addr, service: IpAddr) -> Vec<(usize, External)> {
        let all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: BTreeMap<u32, External> = BTreeMap::new();
        let mut distinct = Vec::new();
        for (number, (v4, external)) in all.iter().enumerate() {
            let concerns = *v4 == service.is_ipv4() && external.origin == origin;
            let is_news = last.get(&external.id).is_none_or(|last| {
                let newer = external.direct || external.sequence > last.sequence;
                newer && !external.is_same(last)
            });
            if concerns && is_news {
                last.insert(external.id, *external);
                distinct.push((number, *external));
            }
        }
        distinct
    }

    /// How many have been heard so far, repetitions too.
    #[must_use]
    pub fn count(&self) -> usize {
        let all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        all.len()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot have panicked; if it did, what it heard is still right.
            let _ = thread.join();
        }
    }
}

fn listen(mut socket: &Socket, v4: bool, heard: &Mutex<Vec<(bool, External)>>, over: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !over.load(Ordering::Relaxed) {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => return,
        };
        // A raw IPv4 socket hands out the IP header too.
        let header = if v4 {
            usize::from(buffer[0] & 0x0f) * 4
        } else {
            0
        };
        let externals = parse(buffer.get(header..length).unwrap_or_default());
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend(externals.into_iter().map(|external| (v4, external)));
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.kind() == io::ErrorKind::TimedOut
        || error.kind() == io::ErrorKind::Interrupted
}

#[cfg(test)]
mod tests;
