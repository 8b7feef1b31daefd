//! rtnetlink messages: pure, from and to what [`plan`](super::plan) speaks of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::config::{ADDRESS_PROTOCOL as TAG, MAX_INTERFACE_LEN};
use super::plan::{Address, Link, LinkKind};

/// How many names are tried for the far end of a veth pair.
const PEER_NAMES: usize = 4;

/// Asks for the route that delivers this address on this interface.
pub(super) fn route_query(index: u32, ip: Ipv6Addr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.flags = RouteFlags::FibMatch;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(ip)),
        RouteAttribute::Oif(index),
    ];
    RouteNetlinkMessage::GetRoute(message)
}

/// Whether the answer to [`route_query`] is local delivery.
pub(super) fn is_local_route(message: &RouteNetlinkMessage) -> bool {
    matches!(message, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
}

pub(super) fn address_message(index: u32, ip: IpAddr) -> AddressMessage {
    match ip {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(ip, 32)
            .build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(ip, 128)
            .build(),
    }
}

/// The other end of a permanent copy, which makes it a point-to-point address.
///
/// The prefix that routing daemons take for "connected" is then the peer's, so that the boost is
/// the only connected route of the service prefix. With two of them FRR's zebra (8.4) removes
/// the newer one when either address goes: were the boost the older (zebra was restarted, the
/// interface came up late), the boost would stay announced after the kernel has removed it.
///
/// Nothing is ever sent to a peer: it is in 240.0.0.0/4 (reserved, RFC 1112, section 4) with
/// the low 28 bits of the address, or in 100::/64 (discard-only, RFC 6666) with the low 64, and
/// has no route. Each IPv4 address needs one of its own: the kernel makes the second address
/// with one peer depend on the first. Two addresses that differ in nothing but their first four
/// bits share one; then removing one by hand removes both, until the next renewal.
pub(super) const fn peer_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() | 0xf000_0000)),
        IpAddr::V6(ip) => {
            let low = ip.to_bits() & 0xffff_ffff_ffff_ffff;
            IpAddr::V6(Ipv6Addr::from_bits((0x0100 << 112) | low))
        }
    }
}

/// An address whose other end is `peer`.
pub(super) fn peer_message(index: u32, ip: IpAddr, peer: IpAddr) -> AddressMessage {
    let mut message = address_message(index, ip);
    for attribute in &mut message.attributes {
        if let AddressAttribute::Address(address) = attribute {
            *address = peer;
        }
    }
    if ip.is_ipv4() {
        // No route to the peer.
        let flags = AddressAttribute::Flags(AddressFlags::Noprefixroute);
        message.attributes.push(flags);
    }
    message
}

/// To be written: with our tag, and a lifetime in seconds.
///
/// Of IPv6, without NODAD the address is tentative for seconds, and without NOPREFIXROUTE the
/// kernel leaves a stale /128 route behind when the address expires.
pub(super) fn with_lifetime(mut message: AddressMessage, lifetime: u32) -> AddressMessage {
    let mut cache_info = CacheInfo::default();
    cache_info.ifa_valid = lifetime;
    cache_info.ifa_preferred = lifetime;
    message.attributes.extend([
        AddressAttribute::CacheInfo(cache_info),
        AddressAttribute::Protocol(AddressProtocol::Other(TAG)),
    ]);
    if message.header.family == AddressFamily::Inet6 {
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}

/// Both ends without ARP and neighbour discovery, as a dummy is: neither answers for, nor
/// probes for, what the other carries.
pub(super) fn veth_pair(interface: &str, peer: &str) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(peer)
        .arp(false)
        .build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(interface)
        .arp(false)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

/// `svc0p`, `svc0p2`, …: the interface's own name, cut where it would be too long.
pub(super) fn peer_names(interface: &str) -> impl Iterator<Item = String> {
    (1..=PEER_NAMES).map(move |n| {
        let suffix = if n == 1 {
            "p".to_owned()
        } else {
            format!("p{n}")
        };
        let stem: String = interface
            .chars()
            .take(MAX_INTERFACE_LEN - suffix.len())
            .collect();
        stem + &suffix
    })
}

/// An address as the kernel reports it, or `None` for another message or an incomplete one.
pub(super) fn parse_address(message: &RouteNetlinkMessage) -> Option<Address> {
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) =
        message
    else {
        return None;
    };
    let mut local = None;
    let mut remote = None;
    let mut flags = u32::from(message.header.flags.bits());
    let mut proto = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            local = Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            remote = Some(*ip);
        } else if let AddressAttribute::Flags(all) = attribute {
            flags = all.bits();
        } else if let AddressAttribute::Protocol(number) = attribute {
            proto = Some(u8::from(*number));
        }
    }
    let flags = AddressFlags::from_bits_retain(flags);
    Some(Address {
        index: message.header.index,
        // On a point-to-point interface IFA_ADDRESS is the other end.
        ip: local.or(remote)?,
        peer: remote.filter(|remote| local.is_some_and(|local| local != *remote)),
        prefix_len: message.header.prefix_len,
        permanent: flags.contains(AddressFlags::Permanent),
        proto,
        dad_failed: flags.contains(AddressFlags::Dadfailed),
    })
}

/// An interface as the kernel reports it, or `None` for another message.
pub(super) fn parse_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message
    else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        alias: None,
        up: message.header.flags.contains(LinkFlags::Up),
        enslaved: false,
    };
    let mut peer = None;
    let mut peer_is_elsewhere = false;
    let mut kind = None;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::IfAlias(alias) = attribute {
            link.alias = Some(alias.clone());
        } else if let LinkAttribute::Controller(_) = attribute {
            link.enslaved = true;
        } else if let LinkAttribute::Link(index) = attribute {
            peer = Some(*index);
        } else if let LinkAttribute::LinkNetNsId(_) = attribute {
            peer_is_elsewhere = true;
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Kind(found) = info {
                    kind = Some(found.clone());
                }
            }
        }
    }
    if message.header.flags.contains(LinkFlags::Loopback) {
        link.kind = LinkKind::Loopback;
    } else if kind == Some(InfoKind::Dummy) {
        link.kind = LinkKind::Dummy;
    } else if kind == Some(InfoKind::Veth) {
        link.kind = LinkKind::Veth(peer.filter(|_| !peer_is_elsewhere));
    }
    Some(link)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_peer_is_never_a_real_host_and_one_address_has_one() {
        let peer = |text: &str| peer_of(text.parse().unwrap()).to_string();
        assert_eq!(peer("192.0.2.69"), "240.0.2.69");
        assert_eq!(peer("10.255.255.255"), "250.255.255.255");
        assert_eq!(peer("2001:db8::69"), "100::69");
        assert_eq!(peer("2001:db8::ffff:0:0:1"), "100::ffff:0:0:1");
        assert_ne!(peer("192.0.2.68"), peer("192.0.2.69"));
    }

    #[test]
    fn peer_names_fit_and_differ() {
        for interface in ["svc0", "abcdefghijklmno", "a"] {
            let names: Vec<_> = peer_names(interface).collect();
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), PEER_NAMES);
            for name in &names {
                assert!(
                    name.len() <= MAX_INTERFACE_LEN && name != interface,
                    "{name}"
                );
            }
        }
        assert_eq!(peer_names("svc0").next().unwrap(), "svc0p");
    }
}
