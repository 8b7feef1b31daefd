//! What an answer means, for right, wrong, foreign and broken ones; and that no bytes panic.

use std::time::Duration;

use proptest::prelude::*;

use super::packet::{Finding, Limits, Request, Timestamp, judge};

const NONCE: u64 = 0x0123_4567_89ab_cdef;
const LIMITS: Limits = Limits {
    stratum: 10,
    distance: None,
    offset: None,
};
/// How long these exchanges took.
const TOOK: Duration = Duration::from_millis(20);

/// When requests of these tests were sent: in 2026.
fn sent() -> Timestamp {
    Timestamp::from_unix(Duration::new(1_790_000_000, 123_456_789))
}

/// A right answer, at the middle of the exchange.
fn answer() -> [u8; 48] {
    let mut packet = [0; 48];
    packet[0] = 0b00_100_100;
    packet[1] = 2;
    packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
    at(&mut packet, sent().after(TOOK / 2));
    packet
}

/// Received and answered at this time.
fn at(packet: &mut [u8; 48], time: Timestamp) {
    packet[32..40].copy_from_slice(&time.0.to_be_bytes());
    packet[40..48].copy_from_slice(&time.0.to_be_bytes());
}

fn judged_by(limits: &Limits, bytes: &[u8]) -> Finding {
    let exchanged = [sent(), sent().after(TOOK)];
    judge(bytes, &Request::new(NONCE), exchanged, limits)
}

fn judged(change: impl FnOnce(&mut [u8; 48])) -> Finding {
    let mut packet = answer();
    change(&mut packet);
    judged_by(&LIMITS, &packet)
}

#[track_caller]
fn wrong(finding: &Finding, hint: &str) {
    let Finding::Wrong(why) = finding else {
        panic!("{finding:?}");
    };
    assert!(why.contains(hint), "{why}");
}

#[test]
fn the_request_gives_nothing_away_but_a_nonce() {
    let request = Request::new(NONCE).encode();
    assert_eq!(request[0], 0x23);
    assert!(request[1..40].iter().all(|byte| *byte == 0));
    assert_eq!(request[40..], NONCE.to_be_bytes());
    assert_ne!(Request::new(0).encode()[40..], [0; 8]);
}

#[test]
fn a_synchronised_server_is_right() {
    assert_eq!(judged(|_| ()), Finding::Right);
    // A leap second is announced.
    assert_eq!(judged(|p| p[0] |= 0b01_000_000), Finding::Right);
    assert_eq!(judged(|p| p[0] = 0b00_011_100), Finding::Right);
    assert_eq!(judged(|p| p[1] = 1), Finding::Right);
    assert_eq!(judged(|p| p[1] = 10), Finding::Right);
    let extended = [&answer()[..], &[7; 100]].concat();
    assert_eq!(judged_by(&LIMITS, &extended), Finding::Right);
}

#[test]
fn an_unsynchronised_server_is_wrong() {
    wrong(&judged(|p| p[0] |= 0b11_000_000), "leap indicator 3");
    wrong(&judged(|p| p[1] = 0), "not synchronised (stratum 0)");
    wrong(&judged(|p| p[1] = 16), "not synchronised (stratum 16)");
    wrong(&judged(|p| p[1] = 255), "not synchronised (stratum 255)");
    wrong(&judged(|p| p[1] = 11), "stratum 11, at most 10");
    wrong(&judged(|p| p[40..].fill(0)), "transmit timestamp 0");
    for first in [0b00_100_011, 0b00_100_101, 0b00_010_100, 0b00_111_100] {
        wrong(&judged(|p| p[0] = first), "not a server's");
    }
}

#[test]
fn a_kiss_of_death_blames_the_checker_only_where_it_is_to_blame() {
    let kiss = |code: &[u8; 4]| {
        judged(|p| {
            p[0] |= 0b11_000_000;
            p[1] = 0;
            p[12..16].copy_from_slice(code);
        })
    };
    for code in [b"RATE", b"DENY", b"RSTR"] {
        assert!(matches!(kiss(code), Finding::Unwilling(_)), "{code:?}");
    }
    wrong(&kiss(b"INIT"), "kiss code INIT");
    wrong(&kiss(b"ABC\0"), "kiss code ABC");
    wrong(&kiss(b"\x01\x02\x03\x04"), "leap indicator 3");
    wrong(&kiss(b"\0\0\0\0"), "leap indicator 3");
    // In an answer of another stratum these bytes are an address.
    let address = judged(|p| p[12..16].copy_from_slice(b"RATE"));
    assert_eq!(address, Finding::Right);
}

#[test]
fn the_root_distance_is_bounded() {
    let limits = Limits {
        distance: Some(Duration::from_secs(1)),
        ..LIMITS
    };
    let mut packet = answer();
    packet[4..8].copy_from_slice(&0x0001_0000_u32.to_be_bytes()); // 1 s of delay
    packet[8..12].copy_from_slice(&0x0000_8000_u32.to_be_bytes()); // 500 ms of dispersion
    assert_eq!(judged_by(&limits, &packet), Finding::Right);
    packet[8..12].copy_from_slice(&0x0000_8100_u32.to_be_bytes());
    wrong(&judged_by(&limits, &packet), "root distance 1.00");
    packet[4..12].fill(0xff);
    wrong(&judged_by(&limits, &packet), "root distance 98303.");
    assert_eq!(judged_by(&LIMITS, &packet), Finding::Right);
}

#[test]
fn the_offset_is_bounded_and_half_the_round_trip_granted() {
    let most = Duration::from_millis(100);
    let limits = Limits {
        offset: Some(most),
        ..LIMITS
    };
    let off_by = |time: Timestamp| {
        let mut packet = answer();
        at(&mut packet, time);
        judged_by(&limits, &packet)
    };
    let middle = TOOK / 2;
    let early = |by: Duration| Timestamp(sent().after(middle).0 - Timestamp(0).after(by).0);
    let late = |by: Duration| sent().after(middle + by);
    let (within, beyond) = (Duration::from_millis(109), Duration::from_millis(111));
    assert_eq!(off_by(late(within)), Finding::Right);
    assert_eq!(off_by(early(within)), Finding::Right);
    wrong(&off_by(late(beyond)), "+11");
    wrong(&off_by(early(beyond)), "-11");
    wrong(&off_by(late(Duration::from_secs(86_400))), "+863");
    // A day in the past and in the next era alike.
    wrong(&off_by(Timestamp(u64::MAX / 3)), "off this host's clock");
    // A server that claims to have held the request for longer than the exchange took.
    let mut packet = answer();
    let held = sent().after(Duration::from_secs(1));
    packet[40..48].copy_from_slice(&held.0.to_be_bytes());
    wrong(&judged_by(&limits, &packet), "off this host's clock");
}

#[test]
fn an_exchange_over_the_turn_of_the_era_is_no_offset() {
    // 2036-02-07 06:28:15.99 UTC: the last moment of era 0.
    let sent = Timestamp(u64::MAX - (1 << 25));
    let received = sent.after(TOOK);
    assert!(received.0 < sent.0);
    let mut packet = answer();
    at(&mut packet, sent.after(TOOK / 2));
    let limits = Limits {
        offset: Some(Duration::from_millis(1)),
        ..LIMITS
    };
    let finding = judge(&packet, &Request::new(NONCE), [sent, received], &limits);
    assert_eq!(finding, Finding::Right);
}

#[test]
fn what_answers_something_else_is_ignored() {
    let foreign = |finding: &Finding| matches!(finding, Finding::NotOurs(_));
    assert!(foreign(&judged_by(&LIMITS, &[])));
    assert!(foreign(&judged_by(&LIMITS, &[0x24])));
    assert!(foreign(&judged_by(&LIMITS, &answer()[..47])));
    assert!(foreign(&judged(|p| p[24] ^= 1)));
    assert!(foreign(&judged(|p| p[24..32].fill(0))));
    // Our own request come back.
    assert!(foreign(&judged_by(&LIMITS, &Request::new(NONCE).encode())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_bytes_panic_and_none_are_right(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_ne!(judged_by(&LIMITS, &bytes), Finding::Right);
    }

    #[test]
    fn no_answer_panics(
        mut packet in prop::collection::vec(any::<u8>(), 48..80),
        exchanged in any::<[u64; 2]>(),
        bounds in any::<[Option<u32>; 2]>(),
    ) {
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        let [distance, offset] = bounds.map(|b| b.map(|ms| Duration::from_millis(ms.into())));
        let limits = Limits { stratum: 15, distance, offset };
        let exchanged = exchanged.map(Timestamp);
        let _ = judge(&packet, &Request::new(NONCE), exchanged, &limits);
    }

    /// However far the server's clock is off, no less than the truth less the margin is seen.
    #[test]
    fn an_offset_is_measured_to_within_the_margin(
        off in 0_u64..10_000_000,
        path in 0_u64..20_000,
    ) {
        let micros = Duration::from_micros;
        let served = sent().after(micros(off) + micros(path));
        let mut packet = answer();
        at(&mut packet, served);
        let within = |most| {
            let limits = Limits { offset: Some(micros(most)), ..LIMITS };
            judged_by(&limits, &packet)
        };
        prop_assert_eq!(within(off + 1), Finding::Right);
        if off > 20_010 {
            prop_assert_ne!(within(off - 20_010), Finding::Right);
        }
    }
}
