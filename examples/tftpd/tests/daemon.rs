//! The real binary on 127.0.0.0/8: bad starts, reloads, stops. It announces nothing here, so
//! it needs no privilege; announcing is tested in the labs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anycast_core::mesh::identity::Identity;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Far longer than anything here takes; only a failure waits for it.
const LIMIT: Duration = Duration::from_secs(60);
const BINARY: &str = env!("CARGO_BIN_EXE_anycast-tftpd");

struct Site {
    folder: TempDir,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("root/health"), "ok\n").unwrap();
        let socket = UdpSocket::bind("127.0.0.69:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let site = Self { folder, port };
        site.write(&site.good());
        site
    }

    fn good(&self) -> String {
        format!(
            r#"
[node]
name = "ams1"

[service]
name = "tftp"
addresses = ["127.0.0.69/32"]

[announce]
kind = "none"

[tftp]
root = "{}"
port = {}
drain_timeout = "20s"
"#,
            self.root().display(),
            self.port
        )
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tftpd.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn address(&self) -> SocketAddr {
        format!("127.0.0.69:{}", self.port).parse().unwrap()
    }

    fn run(&self, more: &[&str]) -> Output {
        run(&self.config(), more)
    }

    /// Writes this configuration and expects one line of error that names all of these.
    fn refused(&self, text: &str, names: &[&str]) {
        self.write(text);
        for more in [&["check-config"][..], &[]] {
            let output = self.run(more);
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{more:?}: {line}");
            assert_eq!(line.lines().count(), 1, "{line}");
            for name in names {
                assert!(line.contains(name), "{name} is not in: {line}");
            }
        }
    }
}

fn run(config: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(config).args(more);
    command.output().unwrap()
}

struct Daemon {
    child: Child,
    log: Receiver<String>,
}

impl Daemon {
    fn start(site: &Site) -> Self {
        let mut child = Command::new(BINARY)
            .arg("--config")
            .arg(site.config())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = follow(child.stderr.take().unwrap());
        let mut daemon = Self { child, log };
        daemon.expect("serving TFTP");
        daemon
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Reads the log until a line holds this.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("the log never said {text:?}, but {seen:#?}"),
            }
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(log: ChildStderr) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

/// Begins a read and returns the socket and the first answer.
fn begin(server: SocketAddr, file: &str) -> (UdpSocket, Vec<u8>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let request = [b"\0\x01", file.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, server).unwrap();
    let mut answer = vec![0; 1024];
    let (length, _) = socket.recv_from(&mut answer).unwrap();
    answer.truncate(length);
    (socket, answer)
}

/// Reads a file of one block.
fn fetch(server: SocketAddr, file: &str) -> Vec<u8> {
    let (socket, answer) = begin(server, file);
    assert_eq!(answer[..4], [0, 3, 0, 1], "{answer:?}");
    socket.send_to(&[0, 4, 0, 1], server).unwrap();
    answer[4..].to_vec()
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let site = Site::new();
    let output = site.run(&["check-config"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("the configuration can be used\n"), "{said}");
}

#[test]
fn the_shipped_sample_is_good() {
    let site = Site::new();
    let sample = include_str!("../anycast-tftpd.toml");
    site.write(&sample.replace("/srv/tftp", site.root().to_str().unwrap()));
    let output = site.run(&["check-config"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_bad_configuration_is_one_line_and_a_failure() {
    let site = Site::new();
    let good = site.good();
    let with = |piece: &str, by: &str| {
        assert!(good.contains(piece), "{piece}");
        good.replacen(piece, by, 1)
    };
    let root = format!("root = \"{}\"", site.root().display());
    let unknown_key = with("drain_timeout", "drain_time");
    site.refused(
        &unknown_key,
        &[
            "tftpd.toml:15:1:",
            "unknown field `drain_time`",
            "drain_timeout",
        ],
    );
    let wrong_type = with(&format!("port = {}", site.port), "port = \"tftp\"");
    site.refused(&wrong_type, &["tftpd.toml:14:8:", "invalid type: string"]);
    let twice = with("\"127.0.0.69/32\"", "\"127.0.0.69/32\", \"127.0.0.69/32\"");
    site.refused(
        &twice,
        &["tftpd.toml:7:13:", "127.0.0.69/32 is listed twice"],
    );
    let overlapping = with("127.0.0.69/32", "127.0.0.0/8");
    site.refused(
        &overlapping,
        &[
            "tftpd.toml:7:13:",
            "127.0.0.0/8 is not a single address",
            "/32",
        ],
    );
    let malformed = with("127.0.0.69/32", "127.0.0.690/32");
    site.refused(&malformed, &["tftpd.toml:7:13:", "is not a prefix"]);
    site.refused(
        &with("[\"127.0.0.69/32\"]", "[]"),
        &["tftpd.toml:7:13:", "name at least one"],
    );
    let no_root = with(&root, "root = \"/nonexistent/tftp\"");
    site.refused(
        &no_root,
        &["[tftp] root", "/nonexistent/tftp", "create the folder"],
    );
    site.refused(
        &with(&root, "root = \"tftp\""),
        &["[tftp] root", "not an absolute path"],
    );
    let announcing = "[[check]]\nkind = \"tftp\"\nfile = \"health\"\n\n[announce]\nkind = \"loopback\"\nfloor = true";
    let announcing = with("[announce]\nkind = \"none\"", announcing);
    let escape = announcing.replace("file = \"health\"", "file = \"../health\"");
    site.refused(&escape, &["[[check]] tftp file", "from the root"]);
    let twice = announcing.replace(
        "[announce]",
        "[[check]]\nkind = \"tftp\"\nfile = \"x\"\n[announce]",
    );
    site.refused(&twice, &["[[check]] name", "two checks are called tftp"]);
    let silent = announcing.replace("\"loopback\"\nfloor = true", "\"none\"");
    site.refused(&silent, &["[[check]]", "has no effect", "remove it"]);
    let unchecked = with("kind = \"none\"", "kind = \"loopback\"\nfloor = true");
    site.refused(&unchecked, &["[[check]]", "add one"]);
    let timeout = announcing.replace("file = \"health\"", "file = \"health\"\ntimeout = \"1m\"");
    site.refused(&timeout, &["[[check]] tftp timeout", "interval"]);
    let floor = with("kind = \"none\"", "kind = \"loopback\"");
    site.refused(&floor, &["[announce] floor", "is missing", "floor = true"]);
    let no_floor = with("kind = \"none\"", "kind = \"loopback\"\nfloor = false");
    site.refused(&no_floor, &["[announce] floor", "would withdraw"]);
    let useless = with("kind = \"none\"", "kind = \"none\"\ndead_man = \"5s\"");
    site.refused(&useless, &["[announce] dead_man", "remove it"]);
    let wrap = with("drain_timeout = \"20s\"", "block_wrap = 2");
    site.refused(&wrap, &["[tftp] block_wrap", "0 or by 1"]);
    let window = with("drain_timeout = \"20s\"", "max_windowsize = 0");
    site.refused(&window, &["[tftp]", "max_windowsize"]);
}

#[test]
fn handoff_without_others_is_refused() {
    let site = Site::new();
    let good = site.good();
    let with = |by: &str| good.replacen("drain_timeout = \"20s\"", by, 1);
    let alone = with("handoff = \"before-reply\"");
    site.refused(&alone, &["[tftp] handoff", "needs [mesh]", "remove this"]);
    let patient = with("hold_wait = \"1s\"");
    site.refused(&patient, &["[tftp] hold_wait", "no effect", "remove it"]);
    let never = with("handoff = \"never\"");
    site.refused(
        &never,
        &[
            "tftpd.toml:15:11:",
            "unknown variant `never`",
            "before-reply",
        ],
    );
}

#[test]
fn a_faulty_check_is_named_with_its_line() {
    let site = Site::new();
    let check = "[[check]]\nkind = \"tftp\"\nfile = \"health\"\n\n[announce]\nkind = \"loopback\"\nfloor = true";
    let announcing = site
        .good()
        .replacen("[announce]\nkind = \"none\"", check, 1);
    let typo = announcing.replace("file = \"health\"", "fil = \"health\"");
    let known = [
        "tftpd.toml:11:1: [[check]] tftp: unknown field `fil`",
        "`file`",
        "`severity`",
    ];
    site.refused(&typo, &known);
    let other = announcing.replace("kind = \"tftp\"", "kind = \"ftp\"");
    site.refused(&other, &["tftpd.toml:10:1:", "kind = \"ftp\"", "\"tftp\""]);
}

#[test]
fn a_root_that_cannot_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if nix::unistd::geteuid().is_root() {
        // Root may read anything, until it has dropped that right, which the configuration is
        // read before; a folder that is none stands in.
        let site = Site::new();
        let file = site.root().join("health");
        let text = site.good().replace(
            &format!("root = \"{}\"", site.root().display()),
            &format!("root = \"{}\"", file.display()),
        );
        site.refused(&text, &["[tftp] root", "health"]);
        return;
    }
    let site = Site::new();
    fs::set_permissions(site.root(), fs::Permissions::from_mode(0o000)).unwrap();
    site.refused(&site.good(), &["[tftp] root", "permissions"]);
}

#[test]
fn a_missing_file_and_a_missing_option_are_one_line() {
    let output = run(Path::new("/nonexistent/tftpd.toml"), &[]);
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        line.contains("/nonexistent/tftpd.toml: cannot be read"),
        "{line}"
    );
    let output = Command::new(BINARY).arg("check-config").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--config FILE is missing")
    );
}

#[test]
fn a_port_in_use_is_named() {
    let site = Site::new();
    let _taken = UdpSocket::bind(site.address()).unwrap();
    let output = site.run(&[]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = log.lines().last().unwrap();
    assert!(
        last.contains(&site.address().to_string()) && last.contains("in use"),
        "{log}"
    );
}

#[test]
fn an_admin_port_in_use_is_named() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let admin = format!("name = \"ams1\"\nadmin = \"{address}\"");
    site.write(&site.good().replacen("name = \"ams1\"", &admin, 1));
    let output = site.run(&[]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = log.lines().last().unwrap();
    assert!(
        last.contains(&format!("[node] admin = \"{address}\"")),
        "{log}"
    );
}

#[test]
fn a_reload_takes_a_good_file_and_keeps_the_old_one_when_the_new_is_bad() {
    let site = Site::new();
    let other = site.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("health"), "other\n").unwrap();
    let mut daemon = Daemon::start(&site);
    assert_eq!(fetch(site.address(), "health"), b"ok\n");

    site.write(&site.good().replace("drain_timeout", "drain_time"));
    daemon.signal(Signal::SIGHUP);
    let line = daemon.expect("reload refused");
    assert!(
        line.contains("unknown field") && line.contains("stays in force"),
        "{line}"
    );
    assert_eq!(fetch(site.address(), "health"), b"ok\n");

    site.write(&site.good().replace("ams1", "fra1"));
    daemon.signal(Signal::SIGHUP);
    let line = daemon.expect("only a restart can change this");
    assert!(line.contains("[node] name"), "{line}");

    let root = format!("root = \"{}\"", site.root().display());
    site.write(
        &site
            .good()
            .replace(&root, &format!("root = \"{}\"", other.display())),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.expect("configuration reloaded");
    assert_eq!(fetch(site.address(), "health"), b"other\n");
}

#[test]
fn a_stop_finishes_what_is_in_flight() {
    let site = Site::new();
    fs::write(site.root().join("two"), [7; 600]).unwrap();
    let mut daemon = Daemon::start(&site);
    let (socket, first) = begin(site.address(), "two");
    assert_eq!(first.len(), 516);
    daemon.signal(Signal::SIGTERM);
    daemon.expect("waiting for transfers in flight");
    socket.send_to(&[0, 4, 0, 1], site.address()).unwrap();
    let mut second = [0; 1024];
    let length = loop {
        let length = socket.recv(&mut second).unwrap();
        if second[..4] == [0, 3, 0, 2] {
            break length; // block 1 may have been sent again meanwhile
        }
    };
    assert_eq!(length, 4 + 88);
    socket.send_to(&[0, 4, 0, 2], site.address()).unwrap();
    assert!(daemon.wait().success());
}

/// A page of the admin socket, once that is there.
fn page(socket: &Path, path: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "no admin socket"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn a_node_that_announces_nothing_tells_of_its_mesh() {
    let site = Site::new();
    let identity = Identity::generate().unwrap();
    let key = site.folder.path().join("identity.pem");
    identity.save_new(&key).unwrap();
    let socket = site.folder.path().join("admin.sock");
    let admin = format!("name = \"ams1\"\nadmin = \"unix:{}\"", socket.display());
    let free = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mesh = format!(
        "\n[mesh]\nlisten = \"{free}\"\nidentity = \"{}\"\n[[mesh.peer]]\nname = \"fra1\"\n\
         address = \"127.0.0.2:4747\"\nfingerprints = [\"{}\"]\n",
        key.display(),
        Identity::generate().unwrap().fingerprint(),
    );
    site.write(&(site.good().replacen("name = \"ams1\"", &admin, 1) + &mesh));
    let _daemon = Daemon::start(&site);
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = page(&socket, "/status");
        if status.contains("\"node\": \"fra1\"") {
            let listen = format!("\"listen\": \"{free}\"");
            assert!(status.contains(&listen), "{status}");
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_admin_socket_tells_the_counters_and_is_gone_after_an_orderly_stop() {
    let site = Site::new();
    let socket = site.folder.path().join("admin.sock");
    let admin = format!("name = \"ams1\"\nadmin = \"unix:{}\"", socket.display());
    site.write(&site.good().replacen("name = \"ams1\"", &admin, 1));
    let mut daemon = Daemon::start(&site);
    assert_eq!(fetch(site.address(), "health"), b"ok\n");
    let status = page(&socket, "/status");
    assert!(status.contains("\"read_requests\": 1"), "{status}");
    // What docs/monitoring/alerts.yml asks for.
    let metrics = page(&socket, "/metrics");
    for name in [
        "anycast_configuration_last_reload_refused",
        "anycast_tftp_messages_refused_total",
        "anycast_tftp_pauses_total",
        "anycast_tftp_unprotected_total",
    ] {
        assert!(
            metrics.contains(&format!("\n{name} 0")),
            "{name}: {metrics}"
        );
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    assert!(!socket.exists(), "the socket's file was left behind");
}

#[test]
fn a_second_signal_stops_at_once() {
    let site = Site::new();
    fs::write(site.root().join("two"), [7; 600]).unwrap();
    let mut daemon = Daemon::start(&site);
    let _unfinished = begin(site.address(), "two");
    daemon.signal(Signal::SIGINT);
    daemon.expect("waiting for transfers in flight");
    daemon.signal(Signal::SIGTERM);
    daemon.expect("second signal");
    assert!(daemon.wait().success());
}

#[test]
fn privileges_that_are_not_needed_are_dropped() {
    let site = Site::new();
    let daemon = Daemon::start(&site);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let set = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    const NET_BIND_SERVICE: u64 = 1 << 10;
    for name in ["CapPrm:", "CapEff:"] {
        assert_eq!(set(name) & !NET_BIND_SERVICE, 0, "{name}");
    }
    assert_eq!(set("CapInh:") | set("CapAmb:"), 0);
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}
