//! The server over real sockets on the loopback interface.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use anycast_tftp::server::{BindError, Server, ServerConfig, Settings, WritePolicy};
use anycast_tftp::store::{
    Content, CreateError, FileName, FsStore, MemoryStore, OpenError, Store, Upload,
};
use common::{Client, TestServer, ack, data, error, memory, pattern, request, rrq};

#[test]
fn curl_fetches_files_of_a_folder() {
    let root = tempfile::tempdir().unwrap();
    for (name, len) in [("empty", 0), ("one", 1), ("full", 512), ("big", 3_000_001)] {
        std::fs::write(root.path().join(name), pattern(len)).unwrap();
    }
    let server = TestServer::of_folder(root.path(), Settings::new());
    for (name, len) in [("empty", 0), ("one", 1), ("full", 512), ("big", 3_000_001)] {
        for options in [&[][..], &["--tftp-no-options"], &["--tftp-blksize", "1428"]] {
            let url = format!("tftp://{}/{name}", server.address());
            let output = Command::new("curl")
                .args(["--silent", "--show-error", "--max-time", "60"])
                .args(options)
                .arg(&url)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{url} {options:?}: {text}");
            assert!(output.stdout == pattern(len), "{url} {options:?} differs");
        }
    }
    server.wait_for("transfers", |stats| stats.engine.completed_reads == 12);
}

#[test]
fn who_observes_hears_of_each_transfer_and_whether_its_client_is_real() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&heard);
    let config = ServerConfig::new(vec!["127.0.0.1:0".parse().unwrap()]);
    let store = memory(&[("one", pattern(1)), ("empty", Vec::new())]);
    let server = Server::bind(config, Arc::new(store)).unwrap();
    let server = TestServer::run(server.with_observer(move |record| {
        let told = (record.file.clone(), record.has_answered());
        tell.lock().unwrap().push(told);
    }));
    for file in ["one", "empty"] {
        Client::new(server.address()).fetch(file, &[]);
    }
    // It could come from anywhere.
    let forged = Client::new(server.address());
    forged.send(&rrq("missing", &[]));
    server.wait_for("three transfers", |_| heard.lock().unwrap().len() == 3);
    let mut heard = heard.lock().unwrap().clone();
    heard.sort();
    let told = |file: &str, real| (file.to_owned(), real);
    assert_eq!(
        heard,
        [
            told("empty", true),
            told("missing", false),
            told("one", true)
        ]
    );
}

#[test]
fn files_are_written_to_a_folder_whole_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let settings = Settings::new().with_writes(WritePolicy::Create);
    let server = TestServer::of_folder(root.path(), settings);
    for len in [0, 1, 511, 512, 513, 100_000] {
        let file = format!("f{len}");
        let client = Client::new(server.address());
        let last = u16::try_from(len / 512 + 1).unwrap();
        assert_eq!(client.put(&file, &pattern(len)), ack(last));
        assert_eq!(
            std::fs::read(root.path().join(&file)).unwrap(),
            pattern(len)
        );
    }
    let again = Client::new(server.address()).put("f512", b"other");
    assert_eq!(again[..4], [0, 5, 0, 6]);
    // A client that gives up.
    let client = Client::new(server.address());
    client.send(&common::wrq("half", &[]));
    assert_eq!(client.receive(), ack(0));
    client.send(&data(1, &pattern(512)));
    assert_eq!(client.receive_new(), ack(1));
    client.send(&error(3, b"changed my mind"));
    server.wait_for("aborted", |stats| stats.engine.aborted == 1);
    let end = std::time::Instant::now() + common::PATIENCE;
    while std::fs::read_dir(root.path()).unwrap().count() != 6 {
        assert!(std::time::Instant::now() < end, "something was left behind");
        std::thread::yield_now();
    }
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
    let store = memory(&[("f", pattern(2000))]);
    let listen = ["0.0.0.0:0", "[::]:0"];
    let server = TestServer::new(&listen, Settings::new(), Arc::new(store));
    let (v4, v6) = (server.addresses[0].port(), server.addresses[1].port());
    // The client checks the source of every packet.
    for target in [
        format!("127.0.0.1:{v4}"),
        format!("127.9.8.7:{v4}"),
        format!("[::1]:{v6}"),
    ] {
        let client = Client::new(target.parse().unwrap());
        assert_eq!(
            client.fetch("f", &[("blksize", "1000")]),
            pattern(2000),
            "{target}"
        );
    }
}

#[test]
fn a_socket_is_bound_before_its_address_exists() {
    for address in ["192.0.2.69:0", "[2001:db8::69]:0"] {
        let config = ServerConfig::new(vec![address.parse().unwrap()]);
        let server = Server::bind(config, Arc::new(MemoryStore::new())).unwrap();
        assert_eq!(
            server.local_addrs()[0].ip().to_string(),
            address.rsplit_once(':').unwrap().0.trim_matches(['[', ']'])
        );
    }
}

#[test]
fn a_port_in_use_is_named_with_its_remedy() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = ServerConfig::new(vec![address]);
    let error = Server::bind(config, Arc::new(MemoryStore::new())).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("port is in use"),
        "{text}"
    );
    for bad in [
        vec![],
        vec![address, address],
        vec!["224.0.0.1:69".parse().unwrap()],
    ] {
        assert!(ServerConfig::new(bad).validate().is_err());
    }
}

#[test]
fn blocks_larger_than_a_packet_travel_when_allowed() {
    let store = memory(&[("f", pattern(400_000))]);
    let settings = Settings::new().with_mtu(65_536);
    let listen = ["127.0.0.1:0", "[::1]:0"];
    let server = TestServer::new(&listen, settings, Arc::new(store));
    for address in &server.addresses {
        let client = Client::new(*address);
        let options = [("blksize", "65464"), ("tsize", "0")];
        let answer = client.ask(&rrq("f", &options));
        let agreed: [&[u8]; 4] = [b"blksize", b"65464", b"tsize", b"400000"];
        assert_eq!(answer, request(6, &agreed));
        assert!(
            client.finish(answer) == pattern(400_000),
            "{address} differs"
        );
    }
    assert_eq!(server.stats().io.send_errors, 0);
}

/// Reads with windows, as RFC 7440 has it.
fn fetch_windowed(server: &TestServer, file: &str, blksize: usize, window: u16) -> Vec<u8> {
    let client = Client::new(server.address());
    let (size, count) = (blksize.to_string(), window.to_string());
    client.ask(&rrq(file, &[("blksize", &size), ("windowsize", &count)]));
    client.send(&ack(0));
    let (mut bytes, mut next, mut in_window) = (Vec::new(), 1_u16, 0);
    loop {
        let packet = client.receive();
        if packet[1] != 3 || packet[2..4] != next.to_be_bytes() {
            // Something was lost or came twice: back to where we are.
            client.send(&ack(next.wrapping_sub(1)));
            in_window = 0;
            continue;
        }
        bytes.extend_from_slice(&packet[4..]);
        let is_last = packet.len() < blksize + 4;
        in_window += 1;
        if in_window == window || is_last {
            client.send(&ack(next));
            in_window = 0;
        }
        if is_last {
            return bytes;
        }
        next = next.wrapping_add(1);
    }
}

#[test]
fn windows_are_sent_whole_and_numbers_wrap() {
    let len = 8 * 66_000 + 3;
    let (server, _) = TestServer::of_memory(&[("f", pattern(len))], Settings::new());
    assert!(fetch_windowed(&server, "f", 8, 64) == pattern(len));
    for (blksize, window) in [(1468, 64), (1468, 3), (512, 16), (1000, 44)] {
        assert!(fetch_windowed(&server, "f", blksize, window) == pattern(len));
    }
    let stats = server.stats();
    assert_eq!(
        (stats.io.send_errors, stats.io.unsegmented),
        (0, 0),
        "{stats:?}"
    );
}

#[test]
fn the_node_says_its_name_when_asked() {
    let settings = Settings::new().with_node(Some("ams1".parse().unwrap()));
    let (server, _) = TestServer::of_memory(&[("f", pattern(10))], settings);
    let client = Client::new(server.address());
    let answer = client.ask(&rrq("f", &[("anycast-node", "")]));
    assert_eq!(answer, request(6, &[b"anycast-node", b"ams1"]));
    assert_eq!(client.finish(answer), pattern(10));
}

#[test]
fn a_reload_reaches_new_transfers_and_leaves_running_ones() {
    let (server, _) = TestServer::of_memory(&[("f", pattern(5000))], Settings::new());
    let old = Client::new(server.address());
    let first = old.ask(&rrq("f", &[]));
    let bad = server
        .handle
        .reload(Settings::new().with_mtu(0), Arc::new(MemoryStore::new()));
    assert!(bad.is_err());
    let store = memory(&[("f", b"new".to_vec())]);
    server
        .handle
        .reload(Settings::new(), Arc::new(store))
        .unwrap();
    assert_eq!(Client::new(server.address()).fetch("f", &[]), b"new");
    assert_eq!(old.finish(first), pattern(5000));
}

#[test]
fn a_request_sent_after_a_reload_never_meets_the_old_store() {
    let (server, _) = TestServer::of_memory(&[], Settings::new());
    for round in 0_u32..300 {
        let content = round.to_be_bytes();
        let store = memory(&[("f", content.to_vec())]);
        let client = Client::new(server.address());
        server
            .handle
            .reload(Settings::new(), Arc::new(store))
            .unwrap();
        assert_eq!(client.fetch("f", &[]), content);
    }
}

#[test]
fn a_drain_waits_for_what_runs() {
    let (server, _) = TestServer::of_memory(&[("f", pattern(1000))], Settings::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(server.handle.wait_idle());
    let client = Client::new(server.address());
    let first = client.ask(&rrq("f", &[]));
    server.wait_for_in_flight(1);
    let handle = server.handle.clone();
    let drain = runtime.spawn(async move { handle.wait_idle().await });
    assert_eq!(client.finish(first), pattern(1000));
    let finished = runtime.block_on(async { tokio::time::timeout(common::PATIENCE, drain).await });
    finished.unwrap().unwrap();
    server.handle.shutdown();
    server.handle.shutdown();
}

/// A store of which some files hang, as on a dead network file system.
#[derive(Debug)]
struct Hanging {
    files: MemoryStore,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Hanging {
    fn wait(&self) {
        let (is_open, changed) = &*self.gate;
        let guard = is_open.lock().unwrap();
        drop(changed.wait_while(guard, |is_open| !*is_open).unwrap());
    }
}

impl Store for Hanging {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        assert!(name.as_str() != "panic", "as told");
        if name.as_str() == "hang" {
            self.wait();
        }
        self.files.open(name)
    }

    fn create(&self, name: &FileName, policy: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        self.files.create(name, policy)
    }
}

#[test]
fn a_disk_that_hangs_stops_no_transfer_that_runs() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let files = memory(&[("f", pattern(200_000)), ("hang", b"late".to_vec())]);
    let store = Hanging {
        files,
        gate: Arc::clone(&gate),
    };
    let server = TestServer::new(&["127.0.0.1:0"], Settings::new(), Arc::new(store));
    let client = Client::new(server.address());
    let first = client.ask(&rrq("f", &[]));
    // Fewer than would take every thread that opens files.
    let hung: Vec<Client> = (0..10).map(|_| Client::new(server.address())).collect();
    for client in &hung {
        client.send(&rrq("hang", &[]));
    }
    server.wait_for("hung", |stats| stats.engine.sessions == 11);
    server.assert_serves("f", &pattern(200_000));
    // And now all of them: what runs goes on.
    let more: Vec<Client> = (0..20).map(|_| Client::new(server.address())).collect();
    for client in &more {
        client.send(&rrq("hang", &[]));
    }
    server.wait_for("all hung", |stats| stats.engine.sessions == 32);
    assert!(client.finish(first) == pattern(200_000));
    let (is_open, changed) = &*gate;
    *is_open.lock().unwrap() = true;
    changed.notify_all();
    server.assert_serves("hang", b"late");
}

#[test]
fn a_store_that_panics_fails_one_request() {
    let store = Hanging {
        files: memory(&[("f", pattern(10))]),
        gate: Arc::default(),
    };
    let server = TestServer::new(&["127.0.0.1:0"], Settings::new(), Arc::new(store));
    assert_eq!(
        Client::new(server.address()).ask_error(&rrq("panic", &[])),
        0
    );
    server.assert_serves("f", &pattern(10));
}

#[test]
fn files_of_a_file_system_that_cannot_say_what_is_in_memory_are_served() {
    // tmpfs, where there is one.
    let folder = std::path::Path::new("/dev/shm");
    let root = match tempfile::tempdir_in(folder) {
        Ok(root) => root,
        Err(_) => tempfile::tempdir().unwrap(),
    };
    std::fs::write(root.path().join("f"), pattern(700_000)).unwrap();
    let server = TestServer::of_folder(root.path(), Settings::new());
    for (blksize, window) in [(512, 1), (1468, 64), (8, 16)] {
        let read = fetch_windowed(&server, "f", blksize, window);
        assert!(read == pattern(700_000), "{blksize} {window}");
    }
}

#[test]
fn the_root_folder_is_read_once_and_replaced_by_reload() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(first.path().join("f"), "first").unwrap();
    std::fs::write(second.path().join("f"), "second").unwrap();
    let server = TestServer::of_folder(first.path(), Settings::new());
    server.assert_serves("f", b"first");
    let store = FsStore::open_root(second.path()).unwrap();
    server
        .handle
        .reload(Settings::new(), Arc::new(store))
        .unwrap();
    server.assert_serves("f", b"second");
}

#[test]
fn a_request_to_the_broadcast_address_of_a_subnet_is_not_answered() {
    let store = memory(&[("f", pattern(10))]);
    let server = TestServer::new(&["0.0.0.0:0"], Settings::new(), Arc::new(store));
    let port = server.addresses[0].port();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    socket
        .send_to(&rrq("f", &[]), ("127.255.255.255", port))
        .unwrap();
    server.wait_for("a request", |stats| stats.engine.read_requests == 1);
    // The kernel sends nothing from such an address.
    server.wait_for("a refusal", |stats| stats.io.send_errors >= 1);
    let client = Client::new(format!("127.0.0.1:{port}").parse().unwrap());
    assert_eq!(client.fetch("f", &[]), pattern(10));
    socket.set_nonblocking(true).unwrap();
    let answer = socket.recv_from(&mut [0; 1024]);
    assert!(answer.is_err(), "{answer:?}");
}
