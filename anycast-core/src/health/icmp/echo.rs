//! The echo request, and whether a packet is its reply: pure, and total on any bytes.

/// Type of request and reply: RFC 792.
const ICMPV4: [u8; 2] = [8, 0];
/// Type of request and reply: RFC 4443 4.1, 4.2.
const ICMPV6: [u8; 2] = [128, 129];
/// Type, code, checksum, identifier, sequence number, nonce.
const LENGTH: usize = 16;

/// How packets come from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// From the ICMP header on.
    Bare,
    /// After their IPv4 header, as raw IPv4 sockets give them.
    Ipv4Header,
}

/// One request on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    types: [u8; 2],
    nonce: [u8; 8],
    identifier: [u8; 2],
    sequence: [u8; 2],
}

impl Request {
    /// Identifier and sequence number are taken from `numbers`.
    pub(super) const fn new(is_v6: bool, nonce: [u8; 8], numbers: u64) -> Self {
        let [a, b, c, d, ..] = numbers.to_be_bytes();
        Self {
            types: if is_v6 { ICMPV6 } else { ICMPV4 },
            nonce,
            identifier: [a, b],
            sequence: [c, d],
        }
    }

    /// The kernel replaces the identifier of an unprivileged socket by its own, and fills in
    /// ICMPv6's checksum, which covers addresses.
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let [request, _] = self.types;
        let mut packet = [0; LENGTH];
        packet[0] = request;
        packet[4..6].copy_from_slice(&self.identifier);
        packet[6..8].copy_from_slice(&self.sequence);
        packet[8..].copy_from_slice(&self.nonce);
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum);
        packet
    }

    /// Why a packet is not the reply. The kernel has checked its checksum.
    pub(super) fn fault(&self, packet: &[u8], framing: Framing) -> Option<&'static str> {
        let message = match framing {
            Framing::Bare => Some(packet),
            Framing::Ipv4Header => after_ipv4_header(packet),
        };
        let Some((header, payload)) = message.and_then(|m| m.split_first_chunk::<8>()) else {
            return Some("not an ICMP packet");
        };
        let [kind, code, _, _, i, j, s, t] = *header;
        let [request, reply] = self.types;
        if kind == request && payload == self.nonce {
            return Some("the request itself");
        }
        if kind != reply || code != 0 {
            return Some("another ICMP packet");
        }
        // The nonce says more than an identifier, and that may be the kernel's.
        let own = self.identifier == [i, j] || framing == Framing::Bare;
        let same = own && self.sequence == [s, t] && payload == self.nonce;
        (!same).then_some("the reply to another request")
    }
}

/// RFC 791 3.1: the header's length in words is in its first byte.
fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    let first = packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20)
        .then(|| packet.get(length..))
        .flatten()
}

/// RFC 1071: the complement of the sum of all words in ones' complement.
fn checksum(packet: &[u8; LENGTH]) -> [u8; 2] {
    let word = |pair: &[u8]| pair.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    let sum: u32 = packet.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    [high, low]
}
