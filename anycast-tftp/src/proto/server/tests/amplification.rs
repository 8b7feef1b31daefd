//! What packets with a forged source cause to be sent to it, who never answers.

use super::*;

const BLOCK: usize = 1472;
const WINDOW: usize = 64;

/// Bytes in and out: a request and forged ACKs, then silence.
fn forged(strings: &[&str], acks: impl Iterator<Item = u16>) -> (usize, usize) {
    let mut bench = Bench::new(Settings::new());
    bench.store.insert(name("large"), pattern(1_000_000));
    let rrq = request(1, strings);
    let mut sent = bench.send(&rrq);
    let mut taken = rrq.len();
    for block in acks {
        bench.now += Duration::from_millis(1);
        taken += 4;
        sent.extend(bench.send(&ack(block)));
    }
    for _ in 0..1000 {
        sent.extend(bench.wait(250));
    }
    assert_eq!(bench.server.sessions(), 0);
    (taken, sent.iter().map(Vec::len).sum())
}

fn with_windows() -> [&'static str; 6] {
    ["large", "octet", "blksize", "1468", "windowsize", "64"]
}

#[test]
fn a_request_without_options_causes_two_blocks() {
    let (_, sent) = forged(&["large", "octet"], std::iter::empty());
    assert_eq!(sent, 2 * 516);
}

#[test]
fn a_request_with_options_causes_little_more_than_itself() {
    let (taken, sent) = forged(&with_windows(), std::iter::empty());
    assert!(sent <= 4 * taken, "{sent} for {taken}");
}

#[test]
fn a_forged_ack_of_the_options_causes_one_window_and_few_blocks() {
    let oack = oack(&with_windows()[2..]).len();
    for acks in [1, 2, 9] {
        // More of them add nothing while our own repeats go on.
        let (_, sent) = forged(&with_windows(), std::iter::repeat_n(0, acks));
        let repeats = 1 + usize::from(UNVALIDATED_RETRIES);
        assert!(sent <= oack + (WINDOW + repeats) * BLOCK, "{sent}");
    }
}

#[test]
fn forged_acks_within_a_window_cause_less_than_whole_windows() {
    let (_, sent) = forged(&with_windows(), 0..=10);
    // The first window, another and eight for each block; ten new ones; and what the time-outs
    // repeat: 64 + 32 + 16 + 8 + 4 + 2 + 1 + 1.
    let most = WINDOW + (WINDOW + 8 * 10) + 10 + 128;
    assert!(sent <= (most + 1) * BLOCK, "{sent}");
    // A small file cannot be had over and over.
    let (_, sent) = forged(&with_windows(), 0..=200);
    assert!(sent <= (2 * WINDOW + 9 * 200 + 128) * BLOCK, "{sent}");
}

#[test]
fn a_client_that_lost_its_first_window_again_and_again_is_served() {
    let mut bench = Bench::new(Settings::new());
    bench.send(&request(1, &["f", "octet", "windowsize", "4"]));
    assert_eq!(Bench::blocks(&bench.send(&ack(0))), [1, 2, 3, 4]);
    let mut lost = Vec::new();
    for _ in 0..20 {
        lost.extend(Bench::blocks(&bench.wait(1000)));
    }
    assert_eq!(lost, [1; UNVALIDATED_RETRIES as usize]);
    // It is alive, and asks again.
    assert_eq!(Bench::blocks(&bench.send(&ack(0))), [1]);
    assert_eq!(bench.send(&ack(0)), [] as [Vec<u8>; 0], "a double");
    bench.now += Duration::from_secs(1);
    assert_eq!(Bench::blocks(&bench.send(&ack(0))), [1]);
    assert_eq!(Bench::blocks(&bench.send(&ack(1))), [2, 3, 4, 5]);
}
