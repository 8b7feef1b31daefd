//! Our client against our server, and against atftpd, which answers from a new port.

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anycast_core::service::ServiceAddresses;
use anycast_core::{HealthCheck, NodeName, Verdict};
use anycast_tftp::client::{Client, ErrorCode, Mode, Rollover, Settings, TransferErrorKind};
use anycast_tftp::health::{Proof, TftpCheck};
use anycast_tftp::proto::transfer;

use super::common::pattern;
use super::program::{Run, find};
use super::site::{Site, WRAPPING, contents, text};

/// No transfer takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(PATIENCE, future).await })
        .expect("a transfer did not end")
}

/// Fetches `file` and compares.
fn assert_gets(settings: &Settings, server: SocketAddr, expected: &[u8]) {
    let client = Client::new(settings.clone());
    let mut content = Vec::new();
    let mut seen = 0;
    let get = client.get(server, "file", &mut content, |progress| {
        seen = progress.bytes
    });
    let done = block_on(get).unwrap_or_else(|error| panic!("{error} {settings:?}"));
    assert!(content == expected, "the content differs: {settings:?}");
    let len = expected.len() as u64;
    assert_eq!((done.bytes, seen), (len, len));
}

/// Writes `sent`.
fn put(settings: &Settings, server: SocketAddr, content: &[u8]) {
    let client = Client::new(settings.clone());
    let mut source = content;
    let size = Some(content.len() as u64);
    let done = block_on(client.put(server, "sent", &mut source, size, |_| {}))
        .unwrap_or_else(|error| panic!("{error} {settings:?}"));
    assert_eq!(done.bytes, content.len() as u64);
}

fn no_run() -> Run {
    Run {
        success: true,
        text: "our own client".into(),
    }
}

fn windows(blksize: u16) -> impl Iterator<Item = Settings> {
    [None, Some(1), Some(4), Some(64)]
        .into_iter()
        .map(move |windowsize| {
            Settings::default()
                .blksize(Some(blksize))
                .windowsize(windowsize)
                .dally(Duration::ZERO)
        })
}

#[test]
fn own_client_gets_and_puts() {
    let site = Site::new();
    for blksize in [8, 512, 1428, 65_464] {
        for settings in windows(blksize) {
            for content in contents(blksize.into()) {
                site.serve("file", &content);
                for address in site.addresses() {
                    assert_gets(&settings, address, &content);
                    put(&settings, address, &content);
                    site.assert_sent("sent", &content, &no_run());
                }
            }
        }
    }
}

#[test]
fn own_client_translates_text() {
    let site = Site::new();
    site.serve("file", &text());
    for blksize in [8, 9, 512] {
        for settings in windows(blksize) {
            let settings = settings.mode(Mode::Netascii);
            for address in site.addresses() {
                assert_gets(&settings, address, &text());
                put(&settings, address, &text());
                site.assert_sent("sent", &text(), &no_run());
            }
        }
    }
}

#[test]
fn own_client_wraps_to_zero_and_to_one() {
    let content = pattern(8 * WRAPPING + 5);
    for (theirs, ours) in [
        (transfer::Rollover::Zero, Rollover::Zero),
        (transfer::Rollover::One, Rollover::One),
    ] {
        let site = Site::with(|settings| settings.with_rollover(theirs));
        site.serve("file", &content);
        let address = site.addresses()[0];
        for windowsize in [1, 64] {
            let settings = Settings::default()
                .blksize(Some(8))
                .windowsize(Some(windowsize))
                .rollover(ours);
            assert_gets(&settings, address, &content);
            put(&settings, address, &content);
            site.assert_sent("sent", &content, &no_run());
        }
        let detecting = Settings::default()
            .blksize(Some(8))
            .windowsize(None)
            .rollover(Rollover::Detect);
        assert_gets(&detecting, address, &content);
    }
}

#[test]
fn own_client_learns_what_was_agreed_on() {
    let node = NodeName::new("ams1").unwrap();
    let site = Site::with(|settings| settings.with_node(Some(node)).with_mtu(1500));
    site.serve("file", b"content");
    for (address, blksize) in site.addresses().into_iter().zip([1468, 1448]) {
        let settings = Settings::default()
            .blksize(Some(65_464))
            .windowsize(Some(1000))
            .timeout(Some(2))
            .ask_node(true);
        let client = Client::new(settings);
        let mut sink = Vec::new();
        let done = block_on(client.get(address, "file", &mut sink, |_| {})).unwrap();
        assert_eq!((done.agreed.blksize, done.agreed.size), (blksize, Some(7)));
        assert!(done.agreed.windowsize <= 64);
        assert_eq!(done.agreed.node.as_deref(), Some("ams1"));
        assert_eq!(done.peer, address);
    }
}

#[test]
fn own_client_learns_that_a_file_is_missing() {
    let site = Site::new();
    for address in site.addresses() {
        let mut sink = Vec::new();
        let get = Client::default();
        let error = block_on(get.get(address, "missing", &mut sink, |_| {})).unwrap_err();
        let missing = ErrorCode::FileNotFound;
        assert!(
            matches!(error.kind(), TransferErrorKind::Server { code, .. } if *code == missing),
            "{error}"
        );
    }
}

#[test]
fn the_check_proves_which_node_answered() {
    let node = |name| Some(NodeName::new(name).unwrap());
    let site = Site::with(|settings| settings.with_node(node("ams1")));
    site.serve("health", b"ok\n");
    site.serve("empty", b"");
    let check = |address: SocketAddr, file, name| {
        let list = vec![anycast_core::ServiceAddress::new(address.ip()).unwrap()];
        let addresses = ServiceAddresses::new(list).unwrap();
        let proof = node(name).map_or(Proof::None, Proof::Required);
        let mut check = TftpCheck::new(&addresses, address.port(), file, proof);
        block_on(check.check(PATIENCE / 2))
    };
    for address in site.addresses() {
        assert_eq!(check(address, "health", "ams1"), Verdict::Healthy);
        assert_eq!(check(address, "empty", "ams1"), Verdict::Healthy);
        for (file, name) in [("missing", "ams1"), ("health", "fra1")] {
            let verdict = check(address, file, name);
            assert!(matches!(verdict, Verdict::Unhealthy(..)), "{verdict}");
        }
    }
    let address = site.addresses()[0];
    drop(site);
    let end = Instant::now() + PATIENCE;
    while let Err(error) = UdpSocket::bind(address) {
        assert!(
            Instant::now() < end,
            "the server's port stays open: {error}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone = check(address, "health", "ams1");
    assert!(matches!(gone, Verdict::Unhealthy(..)), "{gone}");
}

/// atftpd on 127.0.0.1, killed with the test however it ends.
struct Atftpd {
    process: Child,
    address: SocketAddr,
    root: tempfile::TempDir,
}

impl Atftpd {
    fn new() -> Self {
        let program = find("atftpd", "atftpd");
        let root = tempfile::tempdir().unwrap();
        // A port that was free a moment ago: atftpd cannot choose one itself.
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let id = |what| {
            let output = Command::new("id").arg(what).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let process = Command::new(find("setpriv", "util-linux"))
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(["--daemon", "--no-fork", "--logfile", "-"])
            .args(["--bind-address", "127.0.0.1"])
            .args(["--port", &address.port().to_string()])
            .args(["--user", &format!("{}.{}", id("-un"), id("-gn"))])
            .arg(root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            address,
            root,
        }
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        Path::new(self.root.path()).join(file)
    }
}

impl Drop for Atftpd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn own_client_against_atftpd() {
    let peer = Atftpd::new();
    // It refuses options whose acknowledgement would not fit a block.
    for blksize in [64, 512, 1428, 65_464] {
        for settings in windows(blksize).chain([Settings::plain()]) {
            // The server may not listen yet when the first request arrives.
            let settings = settings
                .abort_when_refused(false)
                .first_interval(Duration::from_millis(100));
            for content in contents(blksize.into()) {
                std::fs::write(peer.path("file"), &content).unwrap();
                assert_gets(&settings, peer.address, &content);
                put(&settings, peer.address, &content);
                await_file(&peer.path("sent"), &content);
            }
        }
    }
}

/// atftpd closes a file that it received only after its last acknowledgement.
fn await_file(path: &Path, expected: &[u8]) {
    let end = Instant::now() + PATIENCE;
    while std::fs::read(path).is_ok_and(|content| content != expected) {
        assert!(Instant::now() < end, "{path:?} differs");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn own_client_wraps_against_atftpd() {
    let peer = Atftpd::new();
    let content = pattern(64 * WRAPPING);
    std::fs::write(peer.path("file"), &content).unwrap();
    for windowsize in [1, 64] {
        let settings = Settings::default()
            .blksize(Some(64))
            .windowsize(Some(windowsize))
            .abort_when_refused(false)
            .first_interval(Duration::from_millis(100));
        assert_gets(&settings, peer.address, &content);
    }
}
