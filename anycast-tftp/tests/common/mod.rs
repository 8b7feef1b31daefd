//! A real server on 127.0.0.1 and a bare UDP client that says exactly what a test wants.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests drive real sockets; each uses a part of this"
)]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anycast_tftp::server::{Server, ServerConfig, ServerHandle, ServerStats, Settings};
use anycast_tftp::store::{FileName, FsStore, MemoryStore, Store};

/// Longest wait for something that must happen: generous, machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs until it is dropped.
pub struct TestServer {
    pub addresses: Vec<SocketAddr>,
    pub handle: ServerHandle,
    runtime: Option<tokio::runtime::Runtime>,
}

impl TestServer {
    pub fn new(listen: &[&str], settings: Settings, store: Arc<dyn Store>) -> Self {
        let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
        let config = ServerConfig::new(listen).with_settings(settings);
        Self::run(Server::bind(config, store).unwrap())
    }

    pub fn run(server: Server) -> Self {
        let (addresses, handle) = (server.local_addrs(), server.handle());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(server.run());
        Self {
            addresses,
            handle,
            runtime: Some(runtime),
        }
    }

    /// Files of a folder on 127.0.0.1.
    pub fn of_folder(root: &Path, settings: Settings) -> Self {
        let store = FsStore::open_root(root).unwrap();
        Self::new(&["127.0.0.1:0"], settings, Arc::new(store))
    }

    /// Files in memory on 127.0.0.1.
    pub fn of_memory(files: &[(&str, Vec<u8>)], settings: Settings) -> (Self, MemoryStore) {
        let store = memory(files);
        let server = Self::new(&["127.0.0.1:0"], settings, Arc::new(store.clone()));
        (server, store)
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn stats(&self) -> ServerStats {
        self.handle.stats()
    }

    /// Waits until the counters are as wanted.
    pub fn wait_for(&self, what: &str, is_reached: impl Fn(&ServerStats) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_reached(&self.stats()) {
            assert!(Instant::now() < end, "{what}: {:?}", self.stats());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many transfers are in flight.
    pub fn wait_for_in_flight(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.handle.in_flight() != count {
            assert!(
                Instant::now() < end,
                "{} in flight",
                self.handle.in_flight()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Proves that the server still serves others.
    pub fn assert_serves(&self, file: &str, expected: &[u8]) {
        let client = Client::new(self.address());
        assert!(client.fetch(file, &[]) == expected, "{file} differs");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn memory(files: &[(&str, Vec<u8>)]) -> MemoryStore {
    let store = MemoryStore::new();
    for (name, bytes) in files {
        store.insert(FileName::from_wire(name.as_bytes()).unwrap(), bytes.clone());
    }
    store
}

/// Bytes that differ from block to block.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// A request packet, whatever the strings hold.
pub fn request(opcode: u8, strings: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![0, opcode];
    for string in strings {
        packet.extend_from_slice(string);
        packet.push(0);
    }
    packet
}

pub fn rrq(file: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut strings: Vec<&[u8]> = vec![file.as_bytes(), b"octet"];
    for (name, value) in options {
        strings.extend([name.as_bytes(), value.as_bytes()]);
    }
    request(1, &strings)
}

pub fn wrq(file: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = rrq(file, options);
    packet[1] = 2;
    packet
}

pub fn ack(block: u16) -> Vec<u8> {
    let [high, low] = block.to_be_bytes();
    vec![0, 4, high, low]
}

pub fn data(block: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = block.to_be_bytes();
    [&[0, 3, high, low], payload].concat()
}

pub fn error(code: u16, text: &[u8]) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    [&[0, 5, high, low], text, &[0]].concat()
}

/// One UDP socket.
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    /// What arrived before: on a slow machine the server may send it again.
    seen: RefCell<BTreeSet<Vec<u8>>>,
}

impl Client {
    pub fn new(server: SocketAddr) -> Self {
        let local = if server.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        Self::bound(local, server)
    }

    pub fn bound(local: &str, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            server,
            seen: RefCell::default(),
        }
    }

    pub fn send(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.server).unwrap();
    }

    /// The next packet; its source must be where the request went.
    pub fn receive(&self) -> Vec<u8> {
        let mut buf = vec![0; 65_536];
        let (len, source) = self.socket.recv_from(&mut buf).expect("no answer");
        assert_eq!(source, self.server, "answered from another address");
        buf.truncate(len);
        self.seen.borrow_mut().insert(buf.clone());
        buf
    }

    pub fn ask(&self, packet: &[u8]) -> Vec<u8> {
        self.send(packet);
        self.receive()
    }

    /// The next packet that has not arrived before.
    pub fn receive_new(&self) -> Vec<u8> {
        loop {
            let seen = self.seen.borrow().clone();
            let packet = self.receive();
            // Errors are sent once for each request, however alike.
            if !seen.contains(&packet) || packet.starts_with(&[0, 5]) {
                return packet;
            }
        }
    }

    /// Expects an ERROR and returns its code.
    pub fn ask_error(&self, packet: &[u8]) -> u16 {
        self.send(packet);
        let answer = self.receive_new();
        assert_eq!(answer[..2], [0, 5], "not an ERROR: {answer:?}");
        assert_eq!(answer.last(), Some(&0), "unterminated text");
        assert!(answer.len() < 300);
        u16::from_be_bytes([answer[2], answer[3]])
    }

    /// Whatever has arrived by now, without waiting.
    pub fn pending(&self) -> Option<Vec<u8>> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buf = vec![0; 65_536];
        let received = self.socket.recv_from(&mut buf);
        self.socket.set_nonblocking(false).unwrap();
        match received {
            Ok((len, _)) => Some(buf[..len].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads a file with windows of one block.
    pub fn fetch(&self, file: &str, options: &[(&str, &str)]) -> Vec<u8> {
        let answer = self.ask(&rrq(file, options));
        self.finish(answer)
    }

    /// Reads on from the answer to a request.
    pub fn finish(&self, mut answer: Vec<u8>) -> Vec<u8> {
        let mut blksize = 512;
        if answer[1] == 6 {
            let strings: Vec<&[u8]> = answer[2..].split(|byte| *byte == 0).collect();
            for pair in strings.chunks_exact(2) {
                if pair[0] == b"blksize" {
                    blksize = std::str::from_utf8(pair[1]).unwrap().parse().unwrap();
                }
            }
            answer = self.ask(&ack(0));
        }
        let mut bytes = Vec::new();
        let mut next = 1_u16;
        loop {
            assert_eq!(
                answer[1],
                3,
                "not DATA: {:?}",
                &answer[..answer.len().min(40)]
            );
            let block = u16::from_be_bytes([answer[2], answer[3]]);
            if block == next {
                bytes.extend_from_slice(&answer[4..]);
                self.send(&ack(block));
                next = next.wrapping_add(1);
                if answer.len() < blksize + 4 {
                    return bytes;
                }
            }
            answer = self.receive();
        }
    }

    /// Writes a file, one block at a time, and returns the last answer.
    pub fn put(&self, file: &str, bytes: &[u8]) -> Vec<u8> {
        let mut answer = self.ask(&wrq(file, &[]));
        let mut blocks: Vec<&[u8]> = bytes.chunks(512).collect();
        if bytes.len().is_multiple_of(512) {
            blocks.push(&[]);
        }
        for (index, block) in blocks.into_iter().enumerate() {
            if answer[1] != 4 {
                break;
            }
            answer = self.ask(&data(index as u16 + 1, block));
        }
        answer
    }
}
