//! A namespace, decisions, and what the kernel says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anycast_announce::kernel::{KernelAnnouncer, KernelConfig};
use anycast_core::announce::{Announcer, Applied, Decision, InForce, Lifetime, Preference};
use anycast_core::service::{ServiceAddresses, ServiceName};
use anycast_core::testing;
use anycast_labs::Netns;
use futures_util::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::MulticastGroup;

pub(crate) const V4: &str = "192.0.2.69/32";
pub(crate) const V6: &str = "2001:db8::69/128";
pub(crate) const BOTH: [&str; 2] = [V4, V6];

/// What a wait may take on a machine that stands still for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A dead-man time that never ends within a test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Runs `work` inside a fresh network namespace with the kernel's own defaults.
pub(crate) fn lab(work: impl AsyncFnOnce(&Netns) + Send) {
    let node = Netns::new("node").unwrap();
    for which in ["all", "default"] {
        let key = format!("net.ipv6.conf.{which}.accept_dad");
        node.sysctl(&key, "1").unwrap();
    }
    node.enter(|| runtime().block_on(work(&node))).unwrap();
}

/// One thread, so that everything stays in the namespace that it entered.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

pub(crate) fn announcer(floor: bool, dead_man: Duration) -> KernelAnnouncer {
    KernelAnnouncer::new(KernelConfig::new(floor).with_dead_man(dead_man).unwrap())
}

pub(crate) fn service(addresses: &[&str]) -> ServiceAddresses {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    ServiceAddresses::new(addresses).unwrap()
}

/// A decision made now about the service with both addresses.
pub(crate) fn now(preference: Preference) -> Decision {
    about(&BOTH, preference)
}

pub(crate) fn about(addresses: &[&str], preference: Preference) -> Decision {
    decision(addresses, preference, Lifetime::DeadMan, Instant::now())
}

pub(crate) fn decision(
    addresses: &[&str],
    preference: Preference,
    lifetime: Lifetime,
    at: Instant,
) -> Decision {
    let name = ServiceName::new("tftp").unwrap();
    testing::decision(name, service(addresses), preference, lifetime, at)
}

pub(crate) async fn confirm(announcer: &mut KernelAnnouncer, decision: Decision) {
    let applied = announcer.apply(&decision).await.unwrap();
    assert_eq!(applied, Applied::Confirmed);
}

pub(crate) async fn in_force(announcer: &mut KernelAnnouncer) -> Option<InForce> {
    announcer.observe(&service(&BOTH)).await.unwrap().agreed()
}

/// A permanent copy of ours, as `ip addr` writes it.
pub(crate) fn copy_of(address: &str) -> String {
    let address: anycast_core::ServiceAddress = address.parse().unwrap();
    match address.ip() {
        IpAddr::V4(ip) => {
            let peer = Ipv4Addr::from_bits(ip.to_bits() | 0xf000_0000);
            format!("{ip} peer {peer}/32")
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.segments();
            let peer = Ipv6Addr::new(0x100, 0, 0, 0, a, b, c, d);
            format!("{ip} peer {peer}/128")
        }
    }
}

/// The kernel's lines about an address on a device; on others than `lo`, as a copy too.
pub(crate) fn lines(node: &Netns, device: &str, address: &str) -> Vec<String> {
    let shown = node.run(&format!("ip -o addr show dev {device}"));
    let mut wanted = vec![format!(" {address} ")];
    if device != "lo" && address.parse::<anycast_core::ServiceAddress>().is_ok() {
        wanted.push(format!(" {} ", copy_of(address)));
    }
    shown
        .unwrap_or_default()
        .lines()
        .filter(|line| wanted.iter().any(|form| line.contains(form)))
        .map(str::to_owned)
        .collect()
}

pub(crate) fn has(node: &Netns, device: &str, address: &str) -> bool {
    !lines(node, device, address).is_empty()
}

/// The remaining lifetime in seconds; `None` for ever.
pub(crate) fn lifetime(node: &Netns, device: &str, address: &str) -> Option<u32> {
    let lines = lines(node, device, address);
    let [line] = lines.as_slice() else {
        panic!("{address} on {device}: {lines:?}");
    };
    let (_, rest) = line.split_once("valid_lft ").unwrap();
    let word = rest.split_whitespace().next().unwrap();
    (word != "forever").then(|| word.trim_end_matches("sec").parse().unwrap())
}

/// Both permanent copies are on svc0, for ever.
pub(crate) fn assert_copies(node: &Netns) {
    for address in BOTH {
        assert!(has(node, "svc0", address), "{address}: {}", all(node));
        assert_eq!(lifetime(node, "svc0", address), None);
    }
}

pub(crate) fn boosts(node: &Netns) -> usize {
    BOTH.iter()
        .filter(|address| has(node, "lo", address))
        .count()
}

pub(crate) fn all(node: &Netns) -> String {
    node.run("ip -o addr show").unwrap()
}

/// A UDP service bound to one service address, and a client on this node.
pub(crate) struct Echo {
    server: UdpSocket,
    address: SocketAddr,
}

impl Echo {
    pub(crate) fn bind(address: &str) -> Self {
        let ip: IpAddr = address.split('/').next().unwrap().parse().unwrap();
        let server = UdpSocket::bind((ip, 0)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = server.local_addr().unwrap();
        Self { server, address }
    }

    pub(crate) fn assert_answers(&self) {
        let any: IpAddr = match self.address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let client = UdpSocket::bind((any, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"ping", self.address).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = self.server.recv_from(&mut buffer).unwrap();
        self.server.send_to(&buffer[..length], from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"ping"[..], self.address));
    }
}

/// One change of an address, as the kernel reported it to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Created or renewed: the kernel reports both alike.
    Written(u32, IpAddr),
    Removed(u32, IpAddr),
}

/// What `ip monitor address` would show.
pub(crate) struct Changes {
    events: futures_util::stream::BoxStream<'static, Change>,
}

impl Changes {
    pub(crate) fn watch() -> Self {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, events) = rtnetlink::new_multicast_connection(&groups).unwrap();
        tokio::spawn(connection);
        let events = events.filter_map(move |(message, _)| {
            let _ = &handle;
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                panic!("{message:?}");
            };
            let change = if let RouteNetlinkMessage::NewAddress(address) = message {
                Change::Written(address.header.index, ip(&address))
            } else if let RouteNetlinkMessage::DelAddress(address) = message {
                Change::Removed(address.header.index, ip(&address))
            } else {
                panic!("{message:?}");
            };
            std::future::ready(Some(change))
        });
        Self {
            events: events.boxed(),
        }
    }

    /// Everything up to a marker, which this makes and removes itself.
    pub(crate) async fn so_far(&mut self, node: &Netns) -> Vec<Change> {
        const MARKER: &str = "127.9.9.9";
        node.run(&format!("ip addr add {MARKER}/32 dev lo"))
            .unwrap();
        node.run(&format!("ip addr del {MARKER}/32 dev lo"))
            .unwrap();
        let marker: IpAddr = MARKER.parse().unwrap();
        let mut seen = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.events.next());
            let change = next.await.unwrap().unwrap();
            match change {
                Change::Removed(_, ip) if ip == marker => return seen,
                Change::Written(_, ip) if ip == marker => {}
                Change::Written(..) | Change::Removed(..) => seen.push(change),
            }
        }
    }
}

fn ip(message: &AddressMessage) -> IpAddr {
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            return *ip;
        }
    }
    for attribute in &message.attributes {
        if let AddressAttribute::Address(ip) = attribute {
            return *ip;
        }
    }
    panic!("{message:?}");
}

/// The IFA_PROTO of every copy of these addresses.
pub(crate) async fn tags(addresses: &[&str]) -> Vec<u8> {
    let wanted: Vec<IpAddr> = service(addresses)
        .iter()
        .map(|address| address.ip())
        .collect();
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let mut dump = std::pin::pin!(handle.address().get().execute());
    let mut tags = Vec::new();
    while let Some(message) = dump.next().await {
        let message = message.unwrap();
        for attribute in &message.attributes {
            if let AddressAttribute::Protocol(tag) = attribute
                && wanted.contains(&ip(&message))
            {
                tags.push(u8::from(*tag));
            }
        }
    }
    tags
}
