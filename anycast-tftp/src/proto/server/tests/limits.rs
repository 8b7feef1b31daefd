//! Who gets a place when there are too few.

use super::*;

const OWN: &str = "192.0.2.69:5000";

fn rrq() -> Vec<u8> {
    request(1, &["f", "octet"])
}

impl Bench {
    /// Blocks that a request of a client is answered with.
    fn asks(&mut self, remote: &str) -> usize {
        self.take_from(remote, &rrq());
        self.drain().len()
    }
}

#[test]
fn forged_requests_do_not_lock_out_their_prefix_nor_anybody() {
    let settings = Settings::new()
        .with_max_sessions(40)
        .with_max_sessions_per_prefix(20);
    let mut bench = Bench::new(settings);
    // One that runs.
    assert_eq!(bench.asks("203.0.113.9:1"), 1);
    bench.take_from("203.0.113.9:1", &ack(1));
    assert_eq!(bench.drain().len(), 1);
    for port in 1000..1200 {
        assert_eq!(bench.asks(&format!("198.51.100.66:{port}")), 1);
    }
    assert_eq!(bench.server.sessions(), 21);
    assert_eq!(bench.asks("198.51.100.7:4000"), 1, "a neighbour");
    assert_eq!(Bench::blocks(&bench.send(&ack(1))), [2]);
    for port in 1000..1200 {
        assert_eq!(bench.asks(&format!("198.51.{}.66:{port}", port % 90)), 1);
    }
    assert_eq!(bench.server.sessions(), 40);
    // Those that run were not touched.
    for remote in ["203.0.113.9:1", CLIENT] {
        bench.take_from(remote, &ack(2));
        assert_eq!(Bench::blocks(&bench.drain()), [3], "{remote}");
    }
    let stats = bench.stats();
    assert_eq!((stats.dropped_prefix, stats.dropped_sessions), (0, 0));
    assert_eq!(stats.evicted, 402 - 40);
    assert_eq!(bench.events.len() as u64, stats.evicted);
    assert!(
        bench
            .events
            .iter()
            .all(|event| event.outcome == Outcome::Evicted)
    );
}

#[test]
fn clients_of_this_host_share_no_limit_with_others() {
    let settings = Settings::new()
        .with_max_sessions(10)
        .with_max_sessions_per_prefix(10)
        .with_max_pending_opens(10);
    let mut bench = Bench::new(settings);
    for port in 1000..1010 {
        let remote = format!("192.0.2.1:{port}");
        assert_eq!(bench.asks(&remote), 1);
        bench.take_from(&remote, &ack(1));
        assert_eq!(bench.drain().len(), 1);
    }
    assert_eq!(bench.asks("192.0.2.2:1000"), 0, "all are taken");
    assert_eq!(bench.asks(OWN), 1);
    // Nor does it take a place from them.
    bench.take_from("192.0.2.1:1000", &[0, 5, 0, 0, 0]);
    assert_eq!(bench.asks("192.0.2.2:1000"), 1);
    // All opens hang but its own.
    let mut bench = Bench::new(Settings::new().with_max_pending_opens(10));
    for port in 1000..1020 {
        bench.take_from(&format!("198.51.100.1:{port}"), &rrq());
    }
    let hung: Vec<_> = std::iter::from_fn(|| bench.server.poll_store_request()).collect();
    assert_eq!(hung.len(), 10);
    assert_eq!(bench.asks(OWN), 1);
    assert_eq!(bench.asks(CLIENT), 0);
    for request in hung.into_iter().take(1) {
        let reply = request.run(&bench.store).unwrap();
        bench.server.handle_store_reply(bench.now, reply);
    }
    bench.drain();
    assert_eq!(bench.asks(CLIENT), 1);
}

#[test]
fn a_store_that_hangs_holds_few_requests_of_this_host() {
    let mut bench = Bench::new(Settings::new().with_max_pending_opens(64));
    for port in 1000..1100 {
        bench.take_from(&format!("192.0.2.69:{port}"), &rrq());
    }
    assert_eq!(bench.server.sessions(), 64);
    assert_eq!(bench.stats().dropped_opens, 36);
    assert_eq!(bench.asks(CLIENT), 1 + 64);
    assert_eq!(bench.asks("192.0.2.69:1099"), 1);
}
