//! Real clients, each beyond a link of its own, slow enough that something can happen meanwhile.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anycast_labs::{Netns, Proc, isolate, link, require};

use super::capture::{Capture, Flow};
use super::uboot::Uboot;

/// What a client's link carries, and what of it may come at once.
const RATE: &str = "rate 4mbit burst 20kb latency 500ms";
/// How often it is looked whether a client has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Whoever has got nothing for so long is ended: no client here is as patient with success behind it.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(35);
/// A program, and the arguments with which it reads the file `image` into `out`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    program: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
    blksize: usize,
}

pub(crate) const CURL: Program = Program {
    name: "curl",
    program: "curl",
    package: "curl",
    arguments: &[
        "--silent",
        "--show-error",
        "--max-time",
        "120",
        "--output",
        "out",
        "tftp://192.0.2.69/image",
    ],
    blksize: 512,
};
/// Without any option: blocks of 512 bytes, one at a time.
pub(crate) const TFTP_HPA: Program = Program {
    name: "tftp-hpa",
    program: "tftp",
    package: "tftp-hpa",
    arguments: &[
        "-4",
        "-m",
        "binary",
        "192.0.2.69",
        "-c",
        "get",
        "image",
        "out",
    ],
    blksize: 512,
};
pub(crate) const ATFTP: Program = Program {
    name: "atftp, window 16",
    program: "atftp",
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
        "192.0.2.69",
        "69",
    ],
    blksize: 1428,
};
pub(crate) const BUSYBOX: Program = Program {
    name: "busybox",
    program: "busybox",
    package: "busybox",
    arguments: &[
        "tftp",
        "-g",
        "-r",
        "image",
        "-l",
        "out",
        "-b",
        "1428",
        "192.0.2.69",
    ],
    blksize: 1428,
};
pub(crate) const PROGRAMS: [Program; 4] = [CURL, TFTP_HPA, ATFTP, BUSYBOX];

/// What became of a read.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: &'static str,
    /// Why it is not complete: what the client said.
    pub(crate) failure: Option<String>,
    /// The client has the very bytes of the file.
    pub(crate) is_identical: bool,
    /// How much of the file came before the end, in percent.
    pub(crate) percent: usize,
    pub(crate) took: Duration,
    /// The longest time without a new block.
    pub(crate) stall: Duration,
    /// Blocks that came again.
    pub(crate) data_again: usize,
    /// ACKs and requests that were sent again.
    pub(crate) acks_again: usize,
}

enum Kind {
    Program(Program),
    Uboot(Uboot),
}

pub(crate) struct Client {
    kind: Kind,
    namespace: Netns,
    folder: PathBuf,
}

impl Client {
    /// A program, as the client of this number beyond the router.
    pub(crate) fn new(hub: &Netns, number: usize, program: Program) -> Self {
        let (namespace, folder) = lay(hub, number, RATE);
        Self {
            kind: Kind::Program(program),
            namespace,
            folder,
        }
    }

    /// U-Boot in a machine of its own, behind its own router in the client's namespace.
    pub(crate) fn uboot(hub: &Netns, number: usize) -> Self {
        let (namespace, folder) = lay(hub, number, RATE);
        hub.route(
            &format!("10.41.{number}.0/24"),
            &format!("10.40.{number}.2"),
        )
        .unwrap();
        let uboot = Uboot::start(&namespace, &folder, number);
        Self {
            kind: Kind::Uboot(uboot),
            namespace,
            folder,
        }
    }

    fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Program(program) => program.name,
            Kind::Uboot(_) => "U-Boot",
        }
    }

    fn read(&self, image: &[u8], most: Duration) -> Outcome {
        let blksize = match &self.kind {
            Kind::Program(program) => program.blksize,
            Kind::Uboot(_) => super::uboot::BLKSIZE,
        };
        let capture = Capture::start(&self.namespace, blksize);
        let begun = Instant::now();
        let (failure, is_identical) = match &self.kind {
            Kind::Program(program) => self.run(*program, image, &capture, most),
            Kind::Uboot(uboot) => uboot.read(image, &capture, most),
        };
        let ended = Instant::now();
        let flows = capture.flows();
        let failure = failure.or_else(|| began_again(&flows));
        let sum = |count: fn(&Flow) -> usize| flows.iter().map(count).sum();
        let blocks = flows.first().map_or(0, Flow::blocks);
        let end = if failure.is_some() { ended } else { begun };
        Outcome {
            client: self.name(),
            failure,
            is_identical,
            percent: (blocks * blksize * 100 / image.len()).min(100),
            took: ended.duration_since(begun),
            stall: flows
                .iter()
                .map(|flow| flow.stall(end))
                .max()
                .unwrap_or_default(),
            data_again: sum(|flow| flow.data_again),
            acks_again: sum(|flow| flow.acks_again),
        }
    }

    fn run(
        &self,
        program: Program,
        image: &[u8],
        capture: &Capture,
        most: Duration,
    ) -> (Option<String>, bool) {
        let path = require(program.program, &[], program.package).unwrap();
        let mut command = Command::new(path);
        command.args(program.arguments).current_dir(&self.folder);
        let out = self.folder.join("out");
        // There is none before the first time.
        let _ = fs::remove_file(&out);
        let name = format!("{}-{}", self.namespace.name(), program.program);
        let begun = Instant::now();
        let mut process = Proc::start(&self.namespace, &name, &mut command).unwrap();
        let failure = loop {
            if let Some(status) = process.has_ended().unwrap() {
                break (!status.success()).then(|| format!("{status}: {}", process.tail(1)));
            }
            if capture.silence() > GIVE_UP || begun.elapsed() > most {
                process.kill().unwrap();
                break Some("was ended".to_owned());
            }
            thread::sleep(LOOK);
        };
        (failure, fs::read(&out).unwrap_or_default() == image)
    }
}

/// More than one transfer with blocks: the client has begun once more from the beginning.
fn began_again(flows: &[Flow]) -> Option<String> {
    let with_blocks = flows.iter().filter(|flow| flow.blocks() > 0).count();
    (with_blocks > 1).then(|| "began again".to_owned())
}

/// A namespace beyond a slow link, and a folder.
pub(crate) fn lay(hub: &Netns, number: usize, rate: &str) -> (Netns, PathBuf) {
    let name = format!("client{number}");
    let namespace = Netns::new(&name).unwrap();
    link(hub, &name, &namespace, "up").unwrap();
    hub.address(&name, &format!("10.40.{number}.1/24")).unwrap();
    let own = format!("10.40.{number}.2/24");
    namespace.address("up", &own).unwrap();
    namespace
        .route("default", &format!("10.40.{number}.1"))
        .unwrap();
    hub.run(&format!("tc qdisc add dev {name} root tbf {rate}"))
        .unwrap();
    let folder = isolate::work_dir().join(&name);
    fs::create_dir_all(&folder).unwrap();
    (namespace, folder)
}

/// All of them read at once, none for longer than `most`, while `disturb` does what it is for; it hears whether some still read.
pub(crate) fn read_all(
    clients: &[Client],
    image: &[u8],
    most: Duration,
    disturb: impl FnOnce(&dyn Fn() -> bool),
) -> Vec<Outcome> {
    let left = AtomicUsize::new(clients.len());
    thread::scope(|scope| {
        let reading: Vec<_> = clients
            .iter()
            .map(|client| {
                let left = &left;
                scope.spawn(move || {
                    let outcome = client.read(image, most);
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
