//! Every bad input that TFTP servers are known to have died of, by name, against a real
//! server on 127.0.0.1: the right ERROR where one is due, silence where none is, and others
//! are served all the while.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests drive real sockets"
)]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use anycast_tftp::server::{Settings, WritePolicy};
use common::{Client, PATIENCE, TestServer, ack, data, error, memory, pattern, request, rrq, wrq};

const ILLEGAL_OPERATION: u16 = 4;
const ACCESS_VIOLATION: u16 = 2;
const NOT_FOUND: u16 = 1;

fn server() -> TestServer {
    let files = [("f", pattern(5000)), ("fence", b"fence".to_vec())];
    TestServer::of_memory(&files, Settings::new()).0
}

/// Sends packets of which none may be answered. The answers to a request that follows them
/// on the same socket come in order, so the first thing to arrive must be its own.
fn assert_silent(server: &TestServer, packets: &[Vec<u8>]) {
    let client = Client::new(server.address());
    for packet in packets {
        client.send(packet);
    }
    assert_fenced(&client);
}

fn assert_fenced(client: &Client) {
    client.send(&rrq("fence", &[]));
    let answer = client.receive_new();
    assert_eq!(answer, data(1, b"fence"), "something else was answered");
    client.send(&ack(1));
}

fn assert_error(server: &TestServer, code: u16, packet: &[u8]) {
    let client = Client::new(server.address());
    assert_eq!(client.ask_error(packet), code, "{packet:?}");
    assert_fenced(&client);
    server.assert_serves("fence", b"fence");
}

/// The request is answered as if the bad options were not there.
fn assert_ignored(server: &TestServer, options: &[(&str, &str)]) {
    let client = Client::new(server.address());
    assert_eq!(client.fetch("f", options), pattern(5000), "{options:?}");
}

/// The options that come back.
fn negotiated(server: &TestServer, options: &[(&str, &str)]) -> Vec<u8> {
    let client = Client::new(server.address());
    let answer = client.ask(&rrq("f", options));
    assert_eq!(client.finish(answer.clone()), pattern(5000), "{options:?}");
    answer
}

#[test]
fn datagrams_of_0_to_3_bytes() {
    let server = server();
    let short: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![1],
        vec![0, 3],
        vec![0, 4],
        vec![0, 5],
        vec![0, 6],
        vec![0, 0, 0],
        vec![0, 3, 0],
        vec![0, 4, 0],
        vec![0, 5, 0],
        vec![255, 255, 255],
    ];
    assert_silent(&server, &short);
    server.wait_for("counted", |stats| stats.engine.malformed >= 11);
}

#[test]
fn unknown_opcodes() {
    let server = server();
    let unknown: Vec<Vec<u8>> = [0_u16, 7, 8, 255, 256, 0x0100, 65_535]
        .iter()
        .map(|opcode| [&opcode.to_be_bytes()[..], b"f\0octet\0"].concat())
        .collect();
    assert_silent(&server, &unknown);
}

#[test]
fn requests_without_nul_mode_or_name() {
    let server = server();
    for bad in [
        &b"\0\x01"[..],
        b"\0\x01f",
        b"\0\x01f\0",
        b"\0\x01f\0octet",
        b"\0\x01\0octet\0",
        b"\0\x01\0\0",
        b"\0\x01\0",
        b"\0\x02f",
        b"\0\x02\0octet\0",
    ] {
        assert_error(&server, ILLEGAL_OPERATION, bad);
    }
}

#[test]
fn odd_option_lists() {
    let server = server();
    for bad in [
        &b"\0\x01f\0octet\0blksize"[..],
        b"\0\x01f\0octet\0blksize\0",
        b"\0\x01f\0octet\0blksize\x00512",
        b"\0\x01f\0octet\0\x00512\0",
        b"\0\x01f\0octet\0tsize\x000\0blksize\0",
    ] {
        assert_error(&server, ILLEGAL_OPERATION, bad);
    }
}

#[test]
fn duplicate_options() {
    let server = server();
    assert_ignored(&server, &[("blksize", "1024"), ("blksize", "8")]);
    assert_ignored(&server, &[("blksize", "1024"), ("BlkSize", "1024")]);
}

#[test]
fn hundreds_of_options() {
    let server = server();
    let mut strings: Vec<&[u8]> = vec![b"f", b"octet"];
    strings.extend(std::iter::repeat_n([&b"a"[..], b"b"], 120).flatten());
    let client = Client::new(server.address());
    let answer = client.ask(&request(1, &strings));
    assert_eq!(client.finish(answer), pattern(5000));
}

#[test]
fn requests_over_512_bytes() {
    let server = server();
    let long = "n".repeat(600);
    assert_error(&server, ILLEGAL_OPERATION, &rrq(&long, &[]));
    let huge = "n".repeat(60_000);
    assert_error(&server, ILLEGAL_OPERATION, &rrq(&huge, &[]));
    let mut strings: Vec<&[u8]> = vec![b"f", b"octet"];
    strings.extend(std::iter::repeat_n([&b"blksize"[..], b"8"], 3000).flatten());
    assert_error(&server, ILLEGAL_OPERATION, &request(1, &strings));
}

#[test]
fn malformed_option_values() {
    let server = server();
    for value in [
        "",
        " ",
        "-1",
        "-9223372036854775808",
        "+8",
        "0x200",
        "1e3",
        "512k",
        "512 ",
        " 512",
        "5,12",
        "18446744073709551616",
        "99999999999999999999999999",
        "\u{661}\u{662}",
    ] {
        for option in ["blksize", "timeout", "tsize", "windowsize"] {
            assert_ignored(&server, &[(option, value)]);
        }
    }
}

#[test]
fn blksize_out_of_range() {
    let server = server();
    for value in 0..8 {
        let answer = negotiated(&server, &[("blksize", &value.to_string())]);
        assert_eq!(answer[1], 3, "blksize {value} was agreed to");
    }
    for value in ["65465", "65535", "65536", "4294967304"] {
        let answer = negotiated(&server, &[("blksize", value)]);
        assert_eq!(answer[1], 3, "blksize {value} was agreed to");
    }
    let answer = negotiated(&server, &[("blksize", "8")]);
    assert_eq!(answer, request(6, &[b"blksize", b"8"]));
    let answer = negotiated(&server, &[("blksize", "65464")]);
    assert_eq!(answer, request(6, &[b"blksize", b"1468"]));
}

#[test]
fn windowsize_0_and_65535_with_the_largest_blksize() {
    let files = [("f", pattern(5000)), ("fence", b"fence".to_vec())];
    let (server, _) = TestServer::of_memory(&files, Settings::new().with_mtu(65_536));
    let answer = negotiated(&server, &[("windowsize", "0")]);
    assert_eq!(answer[1], 3);
    let answer = negotiated(&server, &[("blksize", "65464"), ("windowsize", "65535")]);
    let agreed: [&[u8]; 4] = [b"blksize", b"65464", b"windowsize", b"64"];
    assert_eq!(answer, request(6, &agreed));
    // As many as sockets allow, none of which answers: no window is held in memory.
    let clients: Vec<Client> = (0..200).map(|_| Client::new(server.address())).collect();
    let greedy = [("blksize", "65464"), ("windowsize", "65535")];
    for client in &clients {
        client.send(&rrq("f", &greedy));
    }
    for client in &clients {
        assert_eq!(client.receive()[1], 6);
    }
    assert!(server.handle.in_flight() <= 200);
    server.assert_serves("fence", b"fence");
}

#[test]
fn timeout_0_and_256_and_utimeout_1() {
    let server = server();
    for (option, value) in [("timeout", "0"), ("timeout", "256"), ("utimeout", "1")] {
        let answer = negotiated(&server, &[(option, value)]);
        assert_eq!(answer[1], 3, "{option} {value} was agreed to");
    }
    // A proper one comes back as it was.
    let answer = negotiated(&server, &[("timeout", "255")]);
    assert_eq!(answer, request(6, &[b"timeout", b"255"]));
}

#[test]
fn tiny_blksize_and_many_options() {
    let server = server();
    let options = [
        ("blksize", "8"),
        ("timeout", "255"),
        ("tsize", "0"),
        ("windowsize", "64"),
        ("anycast-node", ""),
        ("multicast", ""),
        ("x-unknown", "y"),
    ];
    let client = Client::new(server.address());
    let agreed: [&[u8]; 8] = [
        b"blksize",
        b"8",
        b"timeout",
        b"255",
        b"tsize",
        b"5000",
        b"windowsize",
        b"64",
    ];
    assert_eq!(client.ask(&rrq("f", &options)), request(6, &agreed));
    client.send(&ack(0));
    assert_eq!(client.receive_new(), data(1, &pattern(5000)[..8]));
    server.assert_serves("fence", b"fence");
}

#[test]
fn mail_and_other_modes() {
    let server = server();
    for mode in ["mail", "MAIL", "", "octe", "octett", "binary", "\u{1}"] {
        let packet = request(1, &[b"f", mode.as_bytes()]);
        assert_error(&server, ILLEGAL_OPERATION, &packet);
    }
    let client = Client::new(server.address());
    let answer = client.ask(&request(1, &[b"f", b"OcTeT"]));
    assert_eq!(client.finish(answer), pattern(5000));
}

fn folder() -> (tempfile::TempDir, TestServer) {
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("secret"), "secret").unwrap();
    let root = outer.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("fence"), "fence").unwrap();
    std::fs::write(root.join("f"), pattern(5000)).unwrap();
    std::fs::write(root.join("sub/g"), "g").unwrap();
    let settings = Settings::new().with_writes(WritePolicy::Overwrite);
    let server = TestServer::of_folder(&root, settings);
    (outer, server)
}

fn assert_refused(server: &TestServer, code: u16, name: &[u8]) {
    assert_error(server, code, &request(1, &[name, b"octet"]));
    assert_error(server, code, &request(2, &[name, b"octet"]));
}

#[test]
fn names_that_lead_upwards() {
    let (outer, server) = folder();
    for name in [
        "..",
        "../secret",
        "/../secret",
        "sub/../../secret",
        "sub/../f",
        "..\\secret",
        "sub\\..\\..\\secret",
        "/../../../../../../../../etc/passwd",
        "./../secret",
        "//..//secret",
    ] {
        assert_refused(&server, ACCESS_VIOLATION, name.as_bytes());
    }
    assert_eq!(
        std::fs::read(outer.path().join("secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn absolute_doubled_and_backslashed_names_stay_inside_the_root() {
    let (_outer, server) = folder();
    for name in ["/sub/g", "//sub//g", "sub\\g", "\\sub\\g", "./sub/./g"] {
        server.assert_serves(name, b"g");
    }
    for name in [
        "/etc/passwd",
        "C:\\boot.ini",
        "\\\\host\\share\\f",
        "con",
        "sub/g/h",
    ] {
        let client = Client::new(server.address());
        assert_eq!(client.ask_error(&rrq(name, &[])), NOT_FOUND, "{name}");
    }
}

#[test]
fn names_with_control_characters_or_invalid_utf_8() {
    let (_outer, server) = folder();
    for name in [
        &b"f\n"[..],
        b"f\x1b[2J",
        b"\x01",
        b"f\x7f",
        b"\xff\xfe",
        b"f\xc0\xaf",
        b"\xed\xa0\x80",
    ] {
        assert_refused(&server, ACCESS_VIOLATION, name);
    }
}

#[test]
fn names_with_a_nul_end_there() {
    let (_outer, server) = folder();
    // What follows the NUL is the mode.
    let packet = request(1, &[b"f\0../secret", b"octet"]);
    assert_error(&server, ILLEGAL_OPERATION, &packet);
}

#[test]
fn names_that_are_format_strings_or_shell_text() {
    let (outer, server) = folder();
    for name in [
        "%n%n%s%s",
        "$(reboot)",
        "`reboot`",
        "f;reboot",
        "%2e%2e/secret",
    ] {
        let client = Client::new(server.address());
        assert_eq!(client.ask_error(&rrq(name, &[])), NOT_FOUND, "{name}");
        std::fs::write(outer.path().join("root/%n"), "n").unwrap();
        server.assert_serves("%n", b"n");
    }
}

#[test]
fn names_that_are_folders_or_empty() {
    let (_outer, server) = folder();
    for name in ["sub", "sub/", "/", ".", "./", "\\"] {
        assert_refused(&server, ACCESS_VIOLATION, name.as_bytes());
    }
}

#[test]
fn names_of_unfinished_uploads() {
    let (outer, server) = folder();
    let client = Client::new(server.address());
    assert_eq!(client.ask(&wrq("new", &[])), ack(0));
    let hidden: Vec<String> = std::fs::read_dir(outer.path().join("root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".anycast-tftp-"))
        .collect();
    assert_eq!(hidden.len(), 1);
    assert_refused(&server, ACCESS_VIOLATION, hidden[0].as_bytes());
    client.send(&error(0, b"never mind"));
    server.wait_for("ended", |stats| {
        stats.engine.probes + stats.engine.aborted == 1
    });
}

#[test]
fn symbolic_links_out_of_the_root() {
    let (outer, server) = folder();
    let root = outer.path().join("root");
    symlink("../secret", root.join("relative")).unwrap();
    symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("self", root.join("self")).unwrap();
    symlink("sub/g", root.join("inside")).unwrap();
    for name in ["relative", "absolute", "up/secret", "self"] {
        let client = Client::new(server.address());
        assert_eq!(
            client.ask_error(&rrq(name, &[])),
            ACCESS_VIOLATION,
            "{name}"
        );
    }
    server.assert_serves("inside", b"g");
    let client = Client::new(server.address());
    assert_eq!(client.ask_error(&wrq("up/secret", &[])), ACCESS_VIOLATION);
    assert_eq!(
        std::fs::read(outer.path().join("secret")).unwrap(),
        b"secret"
    );
}

fn make(path: &Path, kind: rustix::fs::FileType, device: u64) -> rustix::io::Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, device)
}

#[test]
fn fifos_devices_and_sockets() {
    let (outer, server) = folder();
    let root = outer.path().join("root");
    make(&root.join("fifo"), rustix::fs::FileType::Fifo, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let mut names = vec!["fifo", "socket"];
    let tty = rustix::fs::makedev(5, 0);
    match make(
        &root.join("tty"),
        rustix::fs::FileType::CharacterDevice,
        tty,
    ) {
        Ok(()) => names.push("tty"),
        Err(error) => eprintln!("skipped: a device cannot be made here: {error}"),
    }
    for name in names {
        assert_refused(&server, ACCESS_VIOLATION, name.as_bytes());
    }
}

#[test]
fn an_error_text_of_64_kib() {
    let server = server();
    let huge = error(0, &vec![b'%'; 65_000]);
    assert_silent(&server, std::slice::from_ref(&huge));
    // In the middle of a transfer it ends the transfer, and is not answered.
    let client = Client::new(server.address());
    assert_eq!(client.ask(&rrq("f", &[]))[1], 3);
    client.send(&huge);
    assert_fenced(&client);
    server.wait_for("aborted", |stats| stats.engine.aborted == 1);
    // Without its NUL.
    let client = Client::new(server.address());
    assert_eq!(client.ask(&rrq("f", &[]))[1], 3);
    client.send(&huge[..huge.len() - 1]);
    assert_fenced(&client);
}

#[test]
fn error_ack_oack_and_data_from_strangers() {
    let server = server();
    let strange = [
        error(0, b"hello"),
        error(5, b""),
        error(65_535, b"\xff\xfe"),
        vec![0, 5, 0, 0],
        ack(0),
        ack(1),
        ack(65_535),
        data(1, b"bytes"),
        data(0, b""),
        data(65_535, &[0; 60_000]),
        request(6, &[b"blksize", b"8"]),
        request(6, &[]),
        request(6, &[b"blksize"]),
    ];
    assert_silent(&server, &strange);
    // Nor do they disturb the transfer of another port of the same host.
    let client = Client::new(server.address());
    let first = client.ask(&rrq("f", &[]));
    assert_silent(&server, &strange);
    assert_eq!(client.finish(first), pattern(5000));
}

#[test]
fn source_ports_7_19_and_69() {
    let server = server();
    for port in [7, 19, 69] {
        let local = format!("127.0.0.1:{port}");
        let Ok(socket) = std::net::UdpSocket::bind(&local) else {
            eprintln!("skipped: {local} cannot be bound here; the engine's tests cover it");
            continue;
        };
        let before = server.stats().engine.refused_sources;
        for packet in [rrq("f", &[]), wrq("f", &[]), rrq("missing", &[]), ack(0)] {
            socket.send_to(&packet, server.address()).unwrap();
        }
        server.wait_for("refused", |stats| {
            stats.engine.refused_sources == before + 4
        });
        socket.set_nonblocking(true).unwrap();
        server.assert_serves("fence", b"fence");
        assert!(
            socket.recv_from(&mut [0; 600]).is_err(),
            "{local} was answered"
        );
    }
}

#[test]
fn acks_beyond_what_was_sent_old_ones_and_wrapped_ones() {
    let server = server();
    let client = Client::new(server.address());
    let answer = client.ask(&rrq("f", &[("blksize", "512"), ("windowsize", "2")]));
    assert_eq!(answer[1], 6);
    for stray in [1, 2, 3, 65_535, 32_768] {
        client.send(&ack(stray));
    }
    client.send(&ack(0));
    for block in 1..=2 {
        assert_eq!(client.receive_new(), data(block, chunk(block)));
    }
    for stray in [3, 4, 100, 40_000, 65_535] {
        client.send(&ack(stray));
    }
    client.send(&ack(2));
    for block in 3..=4 {
        assert_eq!(client.receive_new(), data(block, chunk(block)));
    }
    for stray in [0, 1, 65_534, 5, 4_000] {
        client.send(&ack(stray));
    }
    client.send(&ack(4));
    assert_eq!(client.receive_new(), data(5, chunk(5)));
    server.wait_for("ignored", |stats| stats.engine.strays == 15);
    server.assert_serves("fence", b"fence");
}

fn chunk(block: u16) -> &'static [u8] {
    let start = (usize::from(block) - 1) * 512;
    let bytes: &'static [u8] = Vec::leak(pattern(5000));
    &bytes[start..start + 512]
}

#[test]
fn acks_with_padding() {
    let server = server();
    let client = Client::new(server.address());
    let answer = client.ask(&rrq("f", &[]));
    assert_eq!(answer, data(1, chunk(1)));
    client.send(&[0, 4, 0, 1, 0, 0, 0, 0, 0xff]);
    assert_eq!(client.receive_new(), data(2, chunk(2)));
}

#[test]
fn blocks_larger_than_agreed() {
    let store = memory(&[("fence", b"fence".to_vec())]);
    let settings = Settings::new().with_writes(WritePolicy::Create);
    let server = TestServer::new(
        &["127.0.0.1:0"],
        settings,
        std::sync::Arc::new(store.clone()),
    );
    for len in [513, 1400, 65_000] {
        let client = Client::new(server.address());
        assert_eq!(client.ask(&wrq("new", &[])), ack(0));
        assert_eq!(client.ask_error(&data(1, &vec![7; len])), ILLEGAL_OPERATION);
        assert_fenced(&client);
    }
    assert_eq!(store.names().len(), 1, "something became visible");
}

#[test]
fn blocks_of_a_read_and_acks_of_a_write() {
    let files = [("f", pattern(5000)), ("fence", b"fence".to_vec())];
    let settings = Settings::new().with_writes(WritePolicy::Create);
    let (server, store) = TestServer::of_memory(&files, settings);
    let reader = Client::new(server.address());
    let first = reader.ask(&rrq("f", &[]));
    reader.send(&data(1, b"no"));
    assert_eq!(reader.finish(first), pattern(5000));
    let writer = Client::new(server.address());
    assert_eq!(writer.ask(&wrq("new", &[])), ack(0));
    writer.send(&ack(0));
    writer.send(&ack(1));
    assert_eq!(writer.ask(&data(1, b"yes")), ack(1));
    assert_eq!(store.names().len(), 3);
}

#[test]
fn a_file_cut_in_the_middle_of_its_transfer() {
    let (outer, server) = folder();
    let path = outer.path().join("root/big");
    std::fs::write(&path, pattern(200_000)).unwrap();
    let client = Client::new(server.address());
    assert_eq!(client.ask(&rrq("big", &[]))[1], 3);
    client.send(&ack(1));
    assert_eq!(client.receive_new()[1], 3);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(600).unwrap();
    // ERROR 0, not a short block that would pass for the end.
    assert_eq!(client.ask_error(&ack(2)), 0);
    server.wait_for("failed", |stats| stats.engine.failed == 1);
    server.assert_serves("fence", b"fence");
}

#[test]
fn a_file_removed_in_the_middle_of_its_transfer_is_sent_whole() {
    let (outer, server) = folder();
    let client = Client::new(server.address());
    let first = client.ask(&rrq("f", &[]));
    std::fs::remove_file(outer.path().join("root/f")).unwrap();
    assert_eq!(client.finish(first), pattern(5000));
}

#[test]
fn floods_of_requests_that_nobody_follows_up() {
    let files = [("f", pattern(5000)), ("fence", b"fence".to_vec())];
    let settings = Settings::new()
        .with_max_sessions(120)
        .with_max_sessions_per_prefix(100);
    let (server, _) = TestServer::of_memory(&files, settings);
    let flood: Vec<Client> = (0..300)
        .map(|_| Client::bound("127.0.1.1:0", server.address()))
        .collect();
    for client in &flood {
        client.send(&rrq("f", &[("windowsize", "64"), ("blksize", "1468")]));
    }
    // The new ones push the old ones out.
    server.wait_for("evicted", |stats| stats.engine.evicted == 200);
    server.wait_for_in_flight(100);
    // A client of another prefix, one of the same, and one of this host.
    for local in ["127.0.2.1:0", "127.0.1.2:0", "127.0.0.1:0"] {
        let client = Client::bound(local, server.address());
        assert_eq!(client.fetch("f", &[]), pattern(5000), "{local}");
    }
    assert_eq!(server.stats().engine.dropped_prefix, 0);
    // One small packet each, and it is never more than a few.
    let mut answered = BTreeSet::new();
    let end = Instant::now() + PATIENCE;
    while answered.len() < 100 && Instant::now() < end {
        for (index, client) in flood.iter().enumerate() {
            while let Some(answer) = client.pending() {
                assert!(answer.len() < 64 && answer[1] == 6, "more than an OACK");
                answered.insert(index);
            }
        }
    }
    assert!(answered.len() >= 100, "{} were answered", answered.len());
}

#[test]
fn requests_for_files_that_do_not_exist_leave_nothing_behind() {
    let server = server();
    let client = Client::new(server.address());
    for index in 0..500 {
        assert_eq!(
            client.ask_error(&rrq(&format!("no-{index}"), &[])),
            NOT_FOUND
        );
    }
    server.wait_for("refused", |stats| stats.engine.refused_not_found == 500);
    server.wait_for_in_flight(0);
    server.assert_serves("fence", b"fence");
}
