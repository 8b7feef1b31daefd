//! The log of the real binary: nobody who does not read it stops the server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than anything here takes; only a failure waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// Many times what a pipe and the queue of the log hold.
const TRANSFERS: u64 = 6000;

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads a file of one block; asks again for as long as the server starts.
fn fetch(server: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let end = Instant::now() + LIMIT;
    let mut answer = [0; 1024];
    loop {
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        socket.send_to(b"\0\x01health\0octet\0", server).unwrap();
        if let Ok((len, _)) = socket.recv_from(&mut answer) {
            assert_eq!(&answer[..len], b"\0\x03\0\x01ok\n");
            socket.send_to(&[0, 4, 0, 1], server).unwrap();
            return;
        }
        assert!(Instant::now() < end, "no answer");
    }
}

#[test]
fn a_log_that_is_not_read_stops_nothing_and_says_what_it_lost() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("health"), "ok\n").unwrap();
    let socket = UdpSocket::bind("127.0.0.70:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let config = folder.path().join("tftpd.toml");
    let text = format!(
        "[node]\nname = \"ams1\"\n[service]\nname = \"tftp\"\naddresses = [\"127.0.0.70/32\"]\n\
         [announce]\nkind = \"none\"\n[tftp]\nroot = \"{}\"\nport = {}\n",
        root.display(),
        address.port()
    );
    fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_anycast-tftpd"))
        .arg("--config")
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    for _ in 0..TRANSFERS {
        fetch(address);
    }
    // And now it is read, to the end.
    let stderr = daemon.0.stderr.take().unwrap();
    let (mut complete, mut lost, mut last) = (0, 0, String::new());
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains("result=complete") {
            complete += 1;
        }
        if let Some((_, count)) = line.split_once("too slow lines=") {
            lost += count.trim().parse::<u64>().unwrap();
            // All that was lost is told, so what follows is not.
            let pid = Pid::from_raw(i32::try_from(daemon.0.id()).unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
        }
        last = line;
    }
    assert!(daemon.0.wait().unwrap().success());
    assert!(lost > 0);
    assert!(complete + lost >= TRANSFERS, "{complete} and {lost}");
    assert!(last.contains("stopping"), "{last}");
}
