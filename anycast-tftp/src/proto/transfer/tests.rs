#![allow(clippy::disallowed_methods, reason = "a test begins at some instant")]

use super::*;

const RTT: Option<Duration> = Some(Duration::from_millis(10));

fn sent(sender: &mut Sender, now: Instant) -> (u64, u64) {
    let (first, last) = sender.sendable().unwrap();
    sender.sent(now, first, last);
    (first, last)
}

#[test]
fn numbers_roll_over_as_chosen() {
    for (count, zero, one) in [
        (0, 0, 0),
        (1, 1, 1),
        (65_535, 65_535, 65_535),
        (65_536, 0, 1),
        (65_537, 1, 2),
        (131_070, 65_534, 65_535),
        (131_071, 65_535, 1),
        (131_072, 0, 2),
    ] {
        assert_eq!(Rollover::Zero.wire(count), zero, "{count}");
        assert_eq!(Rollover::One.wire(count), one, "{count}");
    }
}

#[test]
fn every_number_ahead_is_found_again() {
    for rollover in [Rollover::Zero, Rollover::One] {
        for count in [
            0,
            1,
            65_530,
            65_534,
            65_535,
            65_536,
            131_070,
            131_072,
            1 << 40,
        ] {
            for ahead in [0, 1, 2, 63, 64, 32_767] {
                let wire = rollover.wire(count + ahead);
                assert_eq!(
                    rollover.ahead(count, wire),
                    Some(ahead),
                    "{rollover:?} {count} {ahead}"
                );
            }
        }
    }
    assert_eq!(Rollover::One.ahead(5, 0), None);
}

#[test]
fn one_block_at_a_time_by_default() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 1, Some(2));
    assert_eq!(sent(&mut sender, now), (1, 1));
    assert_eq!(sender.sendable(), None);
    let later = now + Duration::from_millis(10);
    let progress = Acked::Progress { round_trip: RTT };
    assert_eq!(sender.handle_ack(later, 1, None), progress);
    assert_eq!(sent(&mut sender, later), (2, 2));
    let complete = Acked::Complete {
        round_trip: Some(Duration::ZERO),
    };
    assert_eq!(sender.handle_ack(later, 2, RTT), complete);
}

#[test]
fn a_duplicate_ack_sends_nothing() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 1, Some(9));
    sent(&mut sender, now);
    sender.handle_ack(now, 1, None);
    sent(&mut sender, now);
    for wait in [0, 5, 50, 5000] {
        let later = now + Duration::from_millis(wait);
        assert_eq!(sender.handle_ack(later, 1, RTT), Acked::Duplicate);
        assert_eq!(sender.sendable(), None);
    }
}

#[test]
fn with_windows_a_repeated_ack_counts_once_and_only_after_a_round_trip() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 4, Some(99));
    sent(&mut sender, now);
    sender.handle_ack(now, 4, None);
    assert_eq!(sent(&mut sender, now), (5, 8));
    assert_eq!(sender.handle_ack(now, 4, RTT), Acked::Duplicate);
    let later = now + Duration::from_millis(11);
    assert_eq!(sender.handle_ack(later, 4, None), Acked::Duplicate);
    assert_eq!(sender.handle_ack(later, 4, RTT), Acked::Repeat);
    assert_eq!(sent(&mut sender, later), (5, 8));
    let latest = later + Duration::from_secs(1);
    assert_eq!(sender.handle_ack(latest, 4, RTT), Acked::Duplicate);
}

#[test]
fn an_ack_within_the_window_goes_back_to_the_gap() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 4, Some(99));
    sent(&mut sender, now);
    let partial = Acked::Progress { round_trip: None };
    assert_eq!(sender.handle_ack(now, 2, None), partial);
    assert_eq!(sender.sendable(), Some((3, 6)));
    assert_eq!(sender.sent(now, 3, 6), 2);
    // An ACK of the first sending arrives late.
    assert_eq!(sender.handle_ack(now, 4, None), partial);
    assert_eq!(sender.sendable(), Some((5, 8)));
}

#[test]
fn what_is_not_in_flight_is_stray() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 4, Some(99));
    sent(&mut sender, now);
    sender.handle_ack(now, 4, None);
    sent(&mut sender, now);
    for stray in [0, 3, 9, 100, 40_000, 65_535] {
        assert_eq!(sender.handle_ack(now, stray, RTT), Acked::Stray, "{stray}");
    }
}

#[test]
fn karn_a_block_sent_twice_measures_nothing() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 1, Some(9));
    sent(&mut sender, now);
    sender.restart(1);
    assert_eq!(sender.sent(now, 1, 1), 1);
    let unmeasured = Acked::Progress { round_trip: None };
    assert_eq!(sender.handle_ack(now, 1, None), unmeasured);
}

#[test]
fn karn_the_end_of_a_file_sent_twice_measures_nothing() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 4, Some(4));
    assert_eq!(sent(&mut sender, now), (1, 4));
    sender.handle_ack(now, 2, None);
    assert_eq!(sent(&mut sender, now), (3, 4));
    let unmeasured = Acked::Complete { round_trip: None };
    assert_eq!(sender.handle_ack(now, 4, None), unmeasured);
}

#[test]
fn a_window_that_is_lost_again_and_again_shrinks_until_there_is_progress() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 8, Some(99));
    assert_eq!(sent(&mut sender, now), (1, 8));
    sender.handle_ack(now, 8, None);
    assert_eq!(sent(&mut sender, now), (9, 16));
    for (timeouts, last) in [(1, 16), (2, 12), (3, 10), (4, 9), (5, 9), (255, 9)] {
        sender.restart(timeouts);
        assert_eq!(sent(&mut sender, now), (9, last));
    }
    sender.handle_ack(now, 9, None);
    assert_eq!(sent(&mut sender, now), (10, 17));
}

#[test]
fn until_a_block_was_acknowledged_only_the_first_is_sent_again() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 8, Some(99));
    assert_eq!(sent(&mut sender, now), (1, 8));
    for timeouts in [1, 2, 255] {
        sender.restart(timeouts);
        assert_eq!(sent(&mut sender, now), (1, 1));
    }
    let later = now + Duration::from_millis(10);
    assert_eq!(sender.handle_ack(later, 0, RTT), Acked::Repeat);
    assert_eq!(sent(&mut sender, later), (1, 1));
    sender.handle_ack(later, 1, RTT);
    assert_eq!(sent(&mut sender, later), (2, 9));
}

#[test]
fn acks_within_the_window_send_blocks_again_once_a_round_trip() {
    let now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 8, Some(99));
    assert_eq!(sent(&mut sender, now), (1, 8));
    sender.handle_ack(now, 2, RTT);
    assert_eq!(sent(&mut sender, now), (3, 10));
    // This one was on its way already: the window moves on.
    sender.handle_ack(now, 3, RTT);
    assert_eq!(sent(&mut sender, now), (11, 11));
    let later = now + Duration::from_millis(10);
    sender.handle_ack(later, 4, RTT);
    assert_eq!(sent(&mut sender, later), (5, 12));
}

#[test]
fn acks_send_a_bounded_number_of_blocks_again() {
    let mut now = Instant::now();
    let mut sender = Sender::new(Rollover::Zero, 64, Some(9999));
    let mut again = 0;
    let mut block = 0;
    for _ in 0..500 {
        while let Some((first, last)) = sender.sendable() {
            again += sender.sent(now, first, last);
        }
        now += Duration::from_secs(1);
        block += 1;
        sender.handle_ack(now, block, RTT);
        sender.handle_ack(now, block, RTT);
    }
    let most = 64 + 500 * RESENT_PER_BLOCK;
    assert!((most / 2..=most).contains(&again), "{again}");
    // Nine of each window arrive: nothing stops that.
    let mut sender = Sender::new(Rollover::Zero, 64, Some(99_999));
    let mut block = 0;
    for _ in 0..500 {
        assert_eq!(sent(&mut sender, now), (block + 1, block + 64));
        now += Duration::from_secs(1);
        block += 9;
        let wire = Rollover::Zero.wire(block);
        sender.handle_ack(now, wire, RTT);
    }
}

#[test]
fn blocks_are_taken_in_order_and_once() {
    let mut receiver = Receiver::new(Rollover::Zero, 1);
    let next = Received::Next { fills_window: true };
    assert_eq!(receiver.handle_data(1), next);
    assert_eq!(receiver.handle_data(1), Received::Old);
    assert_eq!(receiver.handle_data(3), Received::Old);
    assert_eq!(receiver.handle_data(2), next);
    assert_eq!((receiver.ack(), receiver.received()), (2, 2));
}

#[test]
fn a_gap_is_reported_once() {
    let mut receiver = Receiver::new(Rollover::Zero, 4);
    let quiet = Received::Next {
        fills_window: false,
    };
    assert_eq!(receiver.handle_data(1), quiet);
    assert_eq!(receiver.handle_data(3), Received::Gap(true));
    assert_eq!(receiver.handle_data(4), Received::Gap(false));
    assert_eq!(receiver.handle_data(2), quiet);
    assert_eq!(receiver.handle_data(3), quiet);
    let full = Received::Next { fills_window: true };
    assert_eq!(receiver.handle_data(4), full);
    receiver.acknowledged();
    assert_eq!(receiver.handle_data(6), Received::Gap(true));
}

#[test]
fn a_receiver_follows_the_rollover() {
    for rollover in [Rollover::Zero, Rollover::One] {
        let mut receiver = Receiver::new(rollover, 1);
        for count in 1..=70_000 {
            let wire = rollover.wire(count);
            assert!(matches!(receiver.handle_data(wire), Received::Next { .. }));
        }
        assert_eq!(receiver.received(), 70_000);
    }
}
