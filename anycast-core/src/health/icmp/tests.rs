//! Which packet is the reply; and that no bytes panic.

use proptest::prelude::*;

use super::echo::{Framing, Request};

const NONCE: [u8; 8] = *b"nonce-00";
const V4: Request = Request::new(false, NONCE, 0x1234_5678_0000_0000);
const V6: Request = Request::new(true, NONCE, 0x1234_5678_0000_0000);

/// The reply, with another identifier, as the kernel may give it.
fn reply(request: &Request) -> Vec<u8> {
    let mut packet = request.encode().to_vec();
    packet[0] = if packet[0] == 8 { 0 } else { 129 };
    packet
}

fn with_header(words: u8, packet: &[u8]) -> Vec<u8> {
    let mut whole = vec![0; usize::from(words) * 4];
    whole[0] = 0x40 | words;
    whole.extend_from_slice(packet);
    whole
}

#[test]
fn the_request_is_an_echo_whose_checksum_is_right() {
    let packet = V4.encode();
    assert_eq!(packet[..2], [8, 0]);
    assert_eq!(packet[4..8], [0x12, 0x34, 0x56, 0x78]);
    assert_eq!(packet[8..], NONCE);
    // RFC 1071: the sum over a packet with its checksum is all ones.
    let words = packet
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    assert_eq!(V6.encode()[0], 128);
}

#[test]
fn the_reply_is_known_by_sequence_and_nonce() {
    for request in [V4, V6] {
        let right = reply(&request);
        assert_eq!(request.fault(&right, Framing::Bare), None);
        let mut kernels_identifier = right.clone();
        kernels_identifier[4] ^= 1;
        assert_eq!(request.fault(&kernels_identifier, Framing::Bare), None);
        for at in [6, 7, 8, 15] {
            let mut other = right.clone();
            other[at] ^= 1;
            let fault = request.fault(&other, Framing::Bare);
            assert_eq!(fault, Some("the reply to another request"), "{at}");
        }
        let itself = request.fault(&request.encode(), Framing::Bare);
        assert_eq!(itself, Some("the request itself"));
        let mut unreachable = right.clone();
        unreachable[0] = 3;
        let fault = request.fault(&unreachable, Framing::Bare);
        assert_eq!(fault, Some("another ICMP packet"));
        for length in [0, 1, 7] {
            let fault = request.fault(&right[..length], Framing::Bare);
            assert_eq!(fault, Some("not an ICMP packet"));
        }
        assert!(request.fault(&right[..15], Framing::Bare).is_some());
    }
    assert!(V4.fault(&reply(&V6), Framing::Bare).is_some());
}

#[test]
fn a_raw_socket_gives_the_ipv4_header_first() {
    let right = reply(&V4);
    for words in [5, 6, 15] {
        let packet = with_header(words, &right);
        assert_eq!(V4.fault(&packet, Framing::Ipv4Header), None, "{words}");
    }
    let mut other = with_header(5, &right);
    other[24] ^= 1;
    let fault = V4.fault(&other, Framing::Ipv4Header);
    assert_eq!(fault, Some("the reply to another request"));
    for broken in [
        with_header(4, &right),
        vec![0x4f; 30],
        vec![0x65; 60],
        vec![],
    ] {
        let fault = V4.fault(&broken, Framing::Ipv4Header);
        assert_eq!(fault, Some("not an ICMP packet"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_bytes_panic_and_none_are_the_reply(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        raw in any::<bool>(),
    ) {
        let framing = if raw { Framing::Ipv4Header } else { Framing::Bare };
        prop_assert!(V4.fault(&bytes, framing).is_some());
        prop_assert!(V6.fault(&bytes, framing).is_some());
    }
}
