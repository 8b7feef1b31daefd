//! Which events count as somebody else's doing.

use super::*;

fn expected(boost: Option<bool>) -> Expectation {
    Expectation {
        interface: "svc0".to_owned(),
        addresses: vec!["192.0.2.69/32".parse().unwrap()],
        boost,
    }
}

fn address(index: u32, ip: &str, permanent: bool, proto: Option<u8>) -> Address {
    Address {
        index,
        ip: ip.parse().unwrap(),
        peer: None,
        prefix_len: 32,
        permanent,
        proto,
        dad_failed: false,
    }
}

fn link(name: &str, up: bool) -> Link {
    Link {
        index: 7,
        name: name.to_owned(),
        kind: LinkKind::Dummy,
        alias: None,
        up,
        enslaved: false,
    }
}

const OURS: &str = "192.0.2.69";

#[test]
fn our_own_writes_are_expected() {
    let boost = address(LO, OURS, false, Some(TAG));
    let copy = address(7, OURS, true, Some(TAG));
    for (event, wanted) in [
        (Event::Address(boost), true),
        (Event::AddressGone(boost), false),
    ] {
        assert!(!event.disturbs(&expected(Some(wanted))), "{event:?}");
        assert!(event.disturbs(&expected(Some(!wanted))), "{event:?}");
        assert!(event.disturbs(&expected(None)), "{event:?}");
    }
    for boost in [None, Some(true), Some(false)] {
        assert!(!Event::Address(copy).disturbs(&expected(boost)));
        assert!(!Event::Link(link("svc0", true)).disturbs(&expected(boost)));
    }
}

#[test]
fn what_others_do_to_ours_is_a_disturbance() {
    for event in [
        Event::Overrun,
        Event::Address(address(LO, OURS, true, Some(TAG))),
        Event::Address(address(LO, OURS, false, None)),
        Event::Address(address(7, OURS, false, Some(TAG))),
        Event::AddressGone(address(LO, OURS, false, Some(TAG))),
        Event::AddressGone(address(7, OURS, true, Some(TAG))),
        Event::Link(link("svc0", false)),
        Event::LinkGone(link("svc0", true)),
    ] {
        assert!(event.disturbs(&expected(Some(true))), "{event:?}");
    }
}

#[test]
fn what_others_do_to_theirs_is_not() {
    for event in [
        Event::Address(address(LO, "192.0.2.1", true, None)),
        Event::AddressGone(address(7, "192.0.2.1", true, Some(TAG))),
        Event::Link(link("eth0", false)),
        Event::LinkGone(link("eth0", true)),
    ] {
        assert!(!event.disturbs(&expected(Some(true))), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_breaks_is_retried_with_back_off_and_reported() {
    let mut monitor = Monitor::default();
    let mut waits = Vec::new();
    for _ in 0..12 {
        monitor.lost();
        let at = monitor.retry_at.unwrap();
        waits.push(at - Instant::now());
    }
    assert_eq!(waits[0], FIRST_BACK_OFF);
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(waits.last(), Some(&LAST_BACK_OFF));
    let begun = Instant::now();
    let expected = expected(Some(true));
    monitor.disturbed(&expected).await;
    assert_eq!(begun.elapsed().as_secs(), LAST_BACK_OFF.as_secs());
    // Reported once.
    let again = tokio::time::timeout(LAST_BACK_OFF, monitor.disturbed(&expected));
    assert!(again.await.is_err());
}
