#![allow(clippy::disallowed_methods, reason = "a test begins at some instant")]

use std::time::Instant;

use super::*;
use crate::proto::Flow;
use crate::proto::server::{MAX_TRANSMIT, Server};
use crate::proto::settings::Settings;
use crate::store::MemoryStore;

const SIZE: u64 = 10_000_000;

/// Content that counts how much of it is read, and that is in memory up to some byte.
#[derive(Debug, Default)]
struct Counted {
    read: AtomicUsize,
    /// What was read is in memory then.
    has_memory: bool,
    in_memory: AtomicUsize,
}

impl Content for Counted {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read.fetch_add(buf.len(), Ordering::Relaxed);
        if self.has_memory {
            let end = usize::try_from(offset).unwrap() + buf.len();
            self.in_memory.fetch_max(end, Ordering::Relaxed);
        }
        Ok(())
    }

    fn try_read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = usize::try_from(offset).unwrap() + buf.len();
        if end <= self.in_memory.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(ReadError::WouldBlock)
    }
}

#[derive(Debug, Default)]
struct OneFile(Arc<Counted>);

impl OneFile {
    fn new(has_memory: bool) -> Self {
        Self(Arc::new(Counted {
            has_memory,
            ..Counted::default()
        }))
    }

    fn read(&self) -> usize {
        self.0.read.load(Ordering::Relaxed)
    }
}

impl Store for OneFile {
    fn open(&self, _: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        Ok(Arc::clone(&self.0) as _)
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        MemoryStore::new().create(name, policy)
    }
}

/// An engine whose loads wait until they are run.
struct Bench {
    server: Server,
    store: OneFile,
    now: Instant,
    loads: Vec<StoreRequest>,
}

impl Bench {
    fn new(store: OneFile) -> Self {
        Self::with_settings(store, Settings::new())
    }

    fn with_settings(store: OneFile, settings: Settings) -> Self {
        Self {
            server: Server::new(settings).unwrap(),
            store,
            now: Instant::now(),
            loads: Vec::new(),
        }
    }

    fn send(&mut self, port: u16, packet: &[u8]) -> Vec<Vec<u8>> {
        let flow = Flow {
            remote: ([198, 51, 100, 7], port).into(),
            local: ([192, 0, 2, 69], 69).into(),
        };
        self.server.handle_datagram(self.now, flow, packet);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let (mut sent, mut buf) = (Vec::new(), vec![0; MAX_TRANSMIT]);
        loop {
            self.run_others();
            while self.server.poll_event().is_some() {}
            let transmit = self.server.poll_transmit(self.now, 64, &mut buf);
            self.run_others();
            let Some(transmit) = transmit else {
                return sent;
            };
            let segment = transmit.segment_size.unwrap_or(transmit.len);
            sent.extend(buf[..transmit.len].chunks(segment).map(<[u8]>::to_vec));
        }
    }

    fn run_others(&mut self) {
        while let Some(request) = self.server.poll_store_request() {
            if matches!(request, StoreRequest::Load { .. }) {
                self.loads.push(request);
            } else if let Some(reply) = request.run(&self.store) {
                self.server.handle_store_reply(self.now, reply);
            }
        }
    }

    fn run_loads(&mut self) -> Vec<Vec<u8>> {
        for load in std::mem::take(&mut self.loads) {
            if let Some(reply) = load.run(&self.store) {
                self.server.handle_store_reply(self.now, reply);
            }
        }
        self.drain()
    }
}

fn rrq(file: &str) -> Vec<u8> {
    [b"\0\x01", file.as_bytes(), b"\0octet\0"].concat()
}

#[test]
fn what_a_client_asked_for_before_it_asked_for_something_else_is_not_read() {
    let mut bench = Bench::new(OneFile::new(true));
    for index in 0..1000 {
        bench.send(4000, &rrq(&format!("f{index}")));
    }
    assert_eq!(bench.server.sessions(), 1);
    assert_eq!(bench.loads.len(), 1000);
    let idle = bench.loads.iter().filter(|load| load.is_idle()).count();
    assert_eq!(idle, 999);
    assert_eq!(bench.run_loads().len(), 1);
    assert_eq!(bench.store.read(), 512, "more than one block was read");
}

#[test]
fn a_request_alone_causes_one_block_to_be_read_and_an_ack_many() {
    for (has_memory, expected) in [(true, (64 << 10) + (1 << 20)), (false, 64 << 10)] {
        let mut bench = Bench::new(OneFile::new(has_memory));
        bench.send(4000, &rrq("f"));
        assert_eq!(bench.run_loads().len(), 1);
        assert_eq!(bench.store.read(), 512);
        assert_eq!(bench.send(4000, &[0, 4, 0, 1]), [] as [Vec<u8>; 0]);
        assert_eq!(bench.run_loads().len(), 1);
        // Reading ahead is of use only where what was read stays.
        assert_eq!(bench.store.read(), 512 + expected, "{has_memory}");
        // One load serves many blocks.
        for block in 2..=100 {
            assert_eq!(bench.send(4000, &[0, 4, 0, block]).len(), 1, "{block}");
        }
        assert_eq!(bench.store.read(), 512 + expected, "{has_memory}");
    }
}

#[test]
fn transfers_that_wait_for_the_same_bytes_read_them_once() {
    let mut bench = Bench::new(OneFile::new(true));
    for port in 1000..1100 {
        bench.send(port, &rrq("f"));
    }
    assert_eq!(bench.run_loads().len(), 100);
    assert_eq!(bench.store.read(), 512);
}

#[test]
fn all_sessions_together_hold_bounded_parts() {
    let memory = PartMemory::default();
    let first = memory.reserve(600, 10, 1000);
    let second = memory.reserve(600, 10, 1000);
    assert_eq!((first.bytes, second.bytes), (600, 10));
    drop(first);
    let third = memory.reserve(600, 10, 1000);
    assert_eq!(third.bytes, 600);
    drop((second, third));
    assert_eq!(memory.0.load(Ordering::Relaxed), 0);
}

const ABORT: [u8; 5] = [0, 5, 0, 0, 0];

fn block(number: u8, len: usize) -> Vec<u8> {
    [&[0, 3, 0, number], &vec![7; len][..]].concat()
}

#[test]
fn unfinished_files_are_few() {
    let settings = Settings::new()
        .with_writes(WritePolicy::Create)
        .with_max_uploads(2);
    let mut bench = Bench::with_settings(OneFile::default(), settings);
    let wrq = b"\0\x02new\0octet\0";
    let ack = |block| vec![vec![0, 4, 0, block]];
    assert_eq!(bench.send(1000, wrq), ack(0));
    assert_eq!(bench.send(1001, wrq), ack(0));
    assert_eq!(bench.send(1002, wrq), [] as [Vec<u8>; 0]);
    assert_eq!(bench.server.stats().dropped_opens, 1);
    // Readers do not care.
    bench.send(1003, &rrq("f"));
    assert_eq!(bench.run_loads().len(), 1);
    // One that is removed makes room, and so does one that is complete.
    bench.send(1000, &ABORT);
    assert_eq!(bench.send(1002, wrq), ack(0));
    assert_eq!(bench.send(1000, wrq), [] as [Vec<u8>; 0]);
    assert_eq!(bench.send(1001, &block(1, 5)), ack(1));
    assert_eq!(bench.send(1000, wrq), ack(0));
    // One that is removed counts until it is gone.
    bench.server.handle_datagram(
        bench.now,
        Flow {
            remote: ([198, 51, 100, 7], 1002).into(),
            local: ([192, 0, 2, 69], 69).into(),
        },
        &ABORT,
    );
    let discard = bench.server.poll_store_request().unwrap();
    assert_eq!(bench.send(1004, wrq), [] as [Vec<u8>; 0]);
    assert!(discard.run(&bench.store).is_none());
    assert_eq!(bench.send(1004, wrq), ack(0));
}

#[test]
fn unfinished_files_are_small_together() {
    let settings = Settings::new()
        .with_writes(WritePolicy::Create)
        .with_max_upload_total(1200);
    let mut bench = Bench::with_settings(OneFile::default(), settings);
    let wrq = b"\0\x02new\0octet\0";
    for port in [1000, 1001] {
        bench.send(port, wrq);
        assert_eq!(bench.send(port, &block(1, 512)), [[0, 4, 0, 1]]);
    }
    let sent = bench.send(1001, &block(2, 512));
    assert_eq!(sent[0][..4], [0, 5, 0, 3]);
    // What was removed does not count.
    assert_eq!(bench.send(1000, &block(2, 512)), [[0, 4, 0, 2]]);
    assert_eq!(bench.send(1000, &block(3, 100)), [[0, 4, 0, 3]]);
    // What is complete does not count either.
    bench.send(1002, wrq);
    assert_eq!(bench.send(1002, &block(1, 512)), [[0, 4, 0, 1]]);
}
