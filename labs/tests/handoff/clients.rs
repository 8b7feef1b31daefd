//! Real clients, each beyond a link of its own, slow enough that something can happen meanwhile.
#![allow(dead_code, reason = "each test uses a part of this")]

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::{Netns, isolate, link, require};

use crate::lab::{PATIENCE, SERVICE};

/// What a client's link carries.
const RATE: &str = "4mbit";
/// How often it is looked whether something has come.
const LOOK: Duration = Duration::from_millis(10);
/// A shorter silence is none.
const STALL: Duration = Duration::from_millis(100);

/// A program, and the arguments with which it reads the file `image` into `out`.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
}

pub(crate) const CURL: Program = Program {
    name: "curl",
    package: "curl",
    arguments: &[
        "--silent",
        "--show-error",
        "--max-time",
        "40",
        "--output",
        "out",
        "tftp://192.0.2.69/image",
    ],
};
/// Without any option: blocks of 512 bytes, one at a time.
const TFTP_HPA: Program = Program {
    name: "tftp",
    package: "tftp-hpa",
    arguments: &["-4", "-m", "binary", SERVICE, "-c", "get", "image", "out"],
};
const ATFTP: Program = Program {
    name: "atftp",
    package: "atftp",
    arguments: &[
        "--option",
        "blksize 1428",
        "--option",
        "windowsize 16",
        "--get",
        "--remote-file",
        "image",
        "--local-file",
        "out",
        SERVICE,
        "69",
    ],
};
const BUSYBOX: Program = Program {
    name: "busybox",
    package: "busybox",
    arguments: &[
        "tftp", "-g", "-r", "image", "-l", "out", "-b", "1428", SERVICE,
    ],
};
pub(crate) const ALL: [Program; 4] = [CURL, TFTP_HPA, ATFTP, BUSYBOX];

/// One of them.
pub(crate) struct Client {
    program: Program,
    namespace: Netns,
    folder: PathBuf,
}

/// What became of a read.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) program: &'static str,
    /// What the client said when it failed.
    pub(crate) failure: Option<String>,
    /// What it wrote.
    pub(crate) bytes: Vec<u8>,
    pub(crate) took: Duration,
    /// When nothing came to it for longer than [`STALL`], and for how long.
    pub(crate) stalls: Vec<(Duration, Duration)>,
}

impl Outcome {
    /// The longest of them.
    pub(crate) fn stall(&self) -> Duration {
        let lengths = self.stalls.iter().map(|(_, length)| *length);
        lengths.max().unwrap_or_default()
    }
}

impl Client {
    /// The client number `number` beyond this router.
    pub(crate) fn new(hub: &Netns, number: usize, program: Program) -> Self {
        let name = format!("client{number}");
        let namespace = Netns::new(&name).unwrap();
        link(hub, &name, &namespace, "up").unwrap();
        hub.address(&name, &format!("10.40.{number}.1/24")).unwrap();
        let own = format!("10.40.{number}.2/24");
        namespace.address("up", &own).unwrap();
        let router = format!("10.40.{number}.1");
        namespace.route("default", &router).unwrap();
        hub.run(&format!(
            "tc qdisc add dev {name} root tbf rate {RATE} burst 20kb latency 500ms"
        ))
        .unwrap();
        let folder = isolate::work_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        Self {
            program,
            namespace,
            folder,
        }
    }

    /// How long the first reply to a request for the file takes, so many times, shortest first.
    pub(crate) fn first_replies(&self, count: usize) -> Vec<Duration> {
        let ask = || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((SERVICE, 69)).unwrap();
            let begun = Instant::now();
            socket.send(b"\0\x01image\0octet\0").unwrap();
            let mut reply = [0; 1024];
            assert_eq!(socket.recv(&mut reply).unwrap(), 516);
            let waited = begun.elapsed();
            // An ERROR ends it.
            socket.send(b"\0\x05\0\0enough\0").unwrap();
            waited
        };
        let all = || (0..count).map(|_| ask()).collect::<Vec<_>>();
        let mut waits = self.namespace.enter(all).unwrap();
        waits.sort();
        waits
    }

    fn read(&self) -> Outcome {
        let program = require(self.program.name, &[], self.program.package).unwrap();
        let mut command = Command::new(program);
        command
            .args(self.program.arguments)
            .current_dir(&self.folder);
        let out = self.folder.join("out");
        // There is none before the first time.
        let _ = fs::remove_file(&out);
        let is_over = AtomicBool::new(false);
        let begun = Instant::now();
        thread::scope(|scope| {
            let watching = scope.spawn(|| self.silences(&is_over));
            let output = self.namespace.output(&mut command);
            let took = begun.elapsed();
            is_over.store(true, Ordering::Relaxed);
            let failure = match output {
                Ok(output) if output.status.success() => None,
                Ok(output) => Some(format!(
                    "{} {}{}",
                    output.status,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                )),
                Err(error) => Some(error.to_string()),
            };
            Outcome {
                program: self.program.name,
                failure,
                bytes: fs::read(&out).unwrap_or_default(),
                took,
                stalls: watching.join().unwrap(),
            }
        })
    }

    fn silences(&self, is_over: &AtomicBool) -> Vec<(Duration, Duration)> {
        let watch = || {
            let begun = Instant::now();
            let (mut last, mut since, mut silences) = (received(), begun, Vec::new());
            loop {
                let is_over = is_over.load(Ordering::Relaxed);
                let now = received();
                if now != last || is_over {
                    if since.elapsed() > STALL {
                        silences.push((since.duration_since(begun), since.elapsed()));
                    }
                    (last, since) = (now, Instant::now());
                }
                if is_over {
                    return silences;
                }
                thread::sleep(LOOK);
            }
        };
        self.namespace.enter(watch).unwrap()
    }
}

/// Packets that have come by the link of the namespace that this thread is in.
fn received() -> u64 {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let up = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix("up:"));
    let packets = up.and_then(|counters| counters.split_whitespace().nth(1));
    packets.and_then(|count| count.parse().ok()).unwrap()
}

/// All of them read at once, while `disturb` does what it is for; it hears whether some still read.
pub(crate) fn read_all(
    clients: &[Client],
    disturb: impl FnOnce(&dyn Fn() -> bool),
) -> Vec<Outcome> {
    let left = AtomicUsize::new(clients.len());
    thread::scope(|scope| {
        let reading: Vec<_> = clients
            .iter()
            .map(|client| {
                let left = &left;
                scope.spawn(move || {
                    let outcome = client.read();
                    left.fetch_sub(1, Ordering::Relaxed);
                    outcome
                })
            })
            .collect();
        disturb(&|| left.load(Ordering::Relaxed) > 0);
        let joined = reading.into_iter().map(|reading| reading.join().unwrap());
        joined.collect()
    })
}
