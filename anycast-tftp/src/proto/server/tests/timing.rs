//! How long the engine waits, and when it gives up.

use super::*;
use crate::store::{Content, CreateError, ReadError};

impl Bench {
    /// Lets time pass in small steps; what was sent.
    fn pass(&mut self, millis: u64) -> Vec<Vec<u8>> {
        let end = self.now + Duration::from_millis(millis);
        let mut sent = Vec::new();
        while let Some(timeout) = self.server.poll_timeout().filter(|t| t.at <= end) {
            self.now = self.now.max(timeout.at);
            self.server.handle_timeout(self.now);
            sent.extend(self.drain());
        }
        self.now = end;
        sent
    }
}

#[test]
fn a_round_trip_longer_than_the_wait_is_learnt() {
    let mut bench = Bench::new(Settings::new());
    bench.store.insert(name("long"), pattern(512 * 200));
    bench.send(&request(1, &["long", "octet"]));
    for block in 1..=100 {
        bench.pass(1);
        assert_eq!(bench.send(&ack(block)).len(), 1);
    }
    // The client moves far away.
    let before = bench.stats().blocks_sent;
    for block in 101..=200 {
        bench.pass(300);
        bench.send(&ack(block));
    }
    let sent = bench.stats().blocks_sent - before;
    assert!((100..=102).contains(&sent), "{sent} blocks for 100 ACKs");
}

#[test]
fn a_negotiated_timeout_is_kept() {
    let mut bench = Bench::new(Settings::new());
    bench.send(&request(1, &["f", "octet", "timeout", "3"]));
    assert_eq!(bench.pass(2999), [] as [Vec<u8>; 0]);
    assert_eq!(bench.pass(1).len(), 1);
    bench.send(&ack(0));
    for block in 1..5 {
        bench.pass(1);
        assert_eq!(bench.send(&ack(block)).len(), 1);
    }
    assert_eq!(bench.pass(2999), [] as [Vec<u8>; 0]);
    assert_eq!(Bench::blocks(&bench.pass(1)), [5]);
}

#[test]
fn a_silent_client_is_given_up_whatever_it_negotiated() {
    for timeout in ["1", "20", "255"] {
        let mut bench = Bench::new(Settings::new().with_max_retries(255));
        bench.send(&request(1, &["f", "octet", "timeout", timeout]));
        bench.send(&ack(0));
        bench.send(&ack(1));
        assert!(!bench.pass(79_999).is_empty(), "nothing was sent again");
        assert_eq!(bench.server.sessions(), 1);
        bench.pass(1);
        assert_eq!(bench.server.sessions(), 0);
        assert_eq!(bench.events[0].outcome, Outcome::TimedOut);
    }
}

/// Content that is never in memory.
#[derive(Debug)]
struct Frozen(Arc<dyn Content>);

impl Content for Frozen {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.0.read_at(offset, buf)
    }

    fn try_read_at(&self, _: u64, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::WouldBlock)
    }
}

#[derive(Debug)]
struct FrozenStore(MemoryStore);

impl Store for FrozenStore {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        Ok(Arc::new(Frozen(self.0.open(name)?)))
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        self.0.create(name, policy)
    }
}

#[test]
fn while_the_store_hangs_the_client_is_not_blamed() {
    let mut bench = Bench::new(Settings::new().with_max_retries(1));
    let cold = FrozenStore(bench.store.clone());
    bench.take(&request(1, &["f", "octet", "blksize", "512"]));
    let open = bench.server.poll_store_request().unwrap();
    bench
        .server
        .handle_store_reply(bench.now, open.run(&cold).unwrap());
    assert_eq!(bench.drain().len(), 1);
    let mut buf = vec![0; MAX_TRANSMIT];
    let mut load = |bench: &mut Bench| {
        assert_eq!(bench.server.poll_transmit(bench.now, 64, &mut buf), None);
        bench.server.poll_store_request().unwrap()
    };
    bench.take(&ack(0));
    let first = load(&mut bench);
    // Slow, but in time: longer than the client would have been given.
    bench.pass(45_000);
    let reply = first.run(&cold).unwrap();
    bench.server.handle_store_reply(bench.now, reply);
    assert_eq!(Bench::blocks(&bench.drain()), [1]);
    bench.take(&ack(1));
    // Never.
    let _hung = load(&mut bench);
    bench.pass(59_999);
    assert_eq!(bench.server.sessions(), 1);
    assert_eq!(bench.stats().blocks_resent, 0);
    let told = bench.pass(1);
    assert_eq!(told[0][..4], [0, 5, 0, 0]);
    assert_eq!(bench.server.sessions(), 0);
    let Outcome::Failed { reason } = &bench.events[0].outcome else {
        panic!("{:?}", bench.events);
    };
    assert!(reason.contains("store"), "{reason}");
    assert_eq!((bench.stats().timed_out, bench.stats().failed), (0, 1));
}

#[test]
fn the_lost_first_block_of_a_window_is_sent_again_at_once() {
    let mut bench = Bench::new(Settings::new());
    bench.store.insert(name("long"), pattern(8 * 1000));
    let options = ["long", "octet", "blksize", "8", "windowsize", "16"];
    bench.send(&request(1, &options));
    bench.pass(10);
    bench.send(&ack(0));
    // A window takes 90 ms to travel.
    for last in [16, 32, 48] {
        bench.pass(100);
        assert_eq!(bench.send(&ack(last)).len(), 16);
    }
    // Block 49 is lost; block 50 tells the client so long before block 64 arrives.
    bench.pass(20);
    assert_eq!(Bench::blocks(&bench.send(&ack(48)))[0], 49);
}
