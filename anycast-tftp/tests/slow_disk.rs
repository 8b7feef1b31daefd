//! Contents that are never in memory, as below a network mount: nothing but the transfers that
//! need them waits for them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use std::sync::{Arc, Condvar, Mutex};

use anycast_tftp::server::Settings;
use anycast_tftp::store::{
    Content, CreateError, FileName, MemoryStore, OpenError, ReadError, Store, Upload, WritePolicy,
};
use common::{Client, TestServer, ack, error, memory, pattern, rrq};

/// How reads go, and closing.
#[derive(Debug, Default)]
struct Disk {
    /// How many are let through.
    allowed: Mutex<usize>,
    changed: Condvar,
    /// How many were asked for.
    asked: Mutex<usize>,
}

impl Disk {
    fn allow(&self, count: usize) {
        *self.allowed.lock().unwrap() += count;
        self.changed.notify_all();
    }

    fn wait(&self) {
        *self.asked.lock().unwrap() += 1;
        let guard = self.allowed.lock().unwrap();
        let mut allowed = self
            .changed
            .wait_while(guard, |allowed| *allowed == 0)
            .unwrap();
        *allowed -= 1;
    }

    fn wait_for_asked(&self, count: usize) {
        let end = std::time::Instant::now() + common::PATIENCE;
        while *self.asked.lock().unwrap() < count {
            assert!(std::time::Instant::now() < end, "the disk is not asked");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[derive(Debug)]
struct Slow {
    content: Arc<dyn Content>,
    disk: Arc<Disk>,
}

impl Content for Slow {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.disk.wait();
        self.content.read_at(offset, buf)
    }

    fn try_read_at(&self, _: u64, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::WouldBlock)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.disk.wait();
    }
}

/// Files whose name begins with `slow` are on the disk.
#[derive(Debug)]
struct SlowStore {
    files: MemoryStore,
    disk: Arc<Disk>,
}

impl Store for SlowStore {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        let content = self.files.open(name)?;
        if !name.as_str().starts_with("slow") {
            return Ok(content);
        }
        Ok(Arc::new(Slow {
            content,
            disk: Arc::clone(&self.disk),
        }))
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        self.files.create(name, policy)
    }
}

fn server(files: &[(&str, Vec<u8>)]) -> (TestServer, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let store = SlowStore {
        files: memory(files),
        disk: Arc::clone(&disk),
    };
    let server = TestServer::new(&["127.0.0.1:0"], Settings::new(), Arc::new(store));
    (server, disk)
}

#[test]
fn a_read_that_hangs_stops_no_other_transfer() {
    let (server, disk) = server(&[("f", pattern(50_000)), ("slow", pattern(300_000))]);
    // The first read of the disk is answered, all further ones hang.
    disk.allow(1);
    let client = Client::new(server.address());
    let first = client.ask(&rrq("slow", &[]));
    assert_eq!(first[..4], [0, 3, 0, 1]);
    let text = Client::new(server.address());
    text.send(&common::request(1, &[b"slow", b"netascii"]));
    server.wait_for("waiting", |stats| stats.engine.disk_waits >= 2);
    client.send(&ack(1));
    server.wait_for("waiting", |stats| stats.engine.disk_waits >= 3);
    server.assert_serves("f", &pattern(50_000));
    disk.allow(usize::MAX / 2);
    assert!(client.finish(first) == pattern(300_000));
}

#[test]
fn a_file_that_hangs_when_it_is_closed_stops_no_transfer() {
    let (server, disk) = server(&[("f", pattern(50_000)), ("slow", pattern(500))]);
    // One that is read whole, and one that is given up before it is open.
    disk.allow(1);
    let client = Client::new(server.address());
    assert_eq!(client.fetch("slow", &[]), pattern(500));
    disk.wait_for_asked(2);
    server.assert_serves("f", &pattern(50_000));
    let client = Client::new(server.address());
    client.send(&rrq("slow", &[]));
    client.send(&error(0, b""));
    disk.wait_for_asked(3);
    server.assert_serves("f", &pattern(50_000));
    disk.allow(usize::MAX / 2);
}

/// A store whose one content is the same however often it is opened.
#[derive(Debug)]
struct OneSlowFile(Arc<dyn Content>);

impl Store for OneSlowFile {
    fn open(&self, _: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        Ok(Arc::clone(&self.0))
    }

    fn create(&self, _: &FileName, _: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        Err(CreateError::Denied)
    }
}

#[test]
fn reads_that_nobody_waits_for_do_not_pile_up() {
    const REQUESTS: u64 = 1000;

    let disk = Arc::new(Disk::default());
    let name = FileName::from_wire(b"f").unwrap();
    let content: Arc<dyn Content> = Arc::new(Slow {
        content: memory(&[("f", pattern(600))]).open(&name).unwrap(),
        disk: Arc::clone(&disk),
    });
    let store = OneSlowFile(Arc::clone(&content));
    let server = TestServer::new(&["127.0.0.1:0"], Settings::new(), Arc::new(store));
    let client = Client::new(server.address());
    for index in 1..=REQUESTS {
        client.send(&rrq(&format!("f{index}"), &[]));
        let end = std::time::Instant::now() + common::PATIENCE;
        while server.stats().engine.disk_waits < index {
            assert!(std::time::Instant::now() < end, "no read is asked for");
            std::thread::yield_now();
        }
    }
    // Those that run, and a few that wait.
    let held = Arc::strong_count(&content);
    assert!(held < 400, "{held} references");
    disk.allow(usize::MAX / 2);
    let answer = client.receive();
    assert_eq!(answer[..4], [0, 3, 0, 1]);
}
