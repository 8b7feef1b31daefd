//! What it costs that any node can go on with a transfer: with handoff and without, in turns, on the
//! same nodes with the same files.
//!
//! Three nodes around a router, and a client beside them. All requests come to the first node, which
//! has half of the CPUs; the others and the client share the other half. Both settings are measured
//! in rounds, one after the other, and of each the median is told: a machine that grows slower
//! meanwhile is as slow for both.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::subject::{failed, percentile};
use super::sync::bed::{Bed, Node};
use super::sync::{FOLDER, QUICK};
use super::sync::{ours, tftp};
use crate::run::Failure;

const NODES: usize = 3;
const RESCAN: &str = "10m";
/// The settings of `[tftp]`, and what the table calls them.
const SETTINGS: [(&str, &str); 2] = [
    ("handoff = \"off\"", "off"),
    ("handoff = \"before-reply\"", "before-reply"),
];
/// Longer than a change of a large file is racy: its content is certain afterwards.
const SETTLED: Duration = Duration::from_secs(5);
/// Nodes that have just met say so to each other.
const MET: Duration = Duration::from_secs(2);
const LARGE: &str = "large.img";
const SMALL: &str = "small.cfg";
const SMALL_SIZE: usize = 4096;
/// What clients ask for beside blocks of 1428 bytes.
const WINDOWS: [u64; 3] = [32, 4, 1];

#[derive(Debug, Clone, Copy)]
struct Sizes {
    large: usize,
    /// Clients at once.
    clients: usize,
    /// How long each measurement takes.
    span: Duration,
    rounds: usize,
    /// Requests whose first reply is waited for.
    requests: usize,
}

/// What one measurement said.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Bytes a second.
    rate: f64,
    /// CPU seconds of the serving node for each gigabyte, and of the two others.
    cpu: f64,
    others: f64,
    /// Bytes at the links of the two others, of each byte of a file.
    told: f64,
}

pub(super) fn run() -> Result<String, Failure> {
    let folder = std::env::var(FOLDER).map_err(|e| failed(FOLDER, e))?;
    let sizes = if std::env::var_os(QUICK).is_some() {
        Sizes::new(8 << 20, 1, 1)
    } else {
        Sizes::new(128 << 20, 10, 5)
    };
    let lab = Lab::build(&PathBuf::from(folder), sizes)?;
    let mut all = vec![vec![Vec::new(); WINDOWS.len() + 1]; SETTINGS.len()];
    let mut waits = vec![Vec::new(); SETTINGS.len()];
    for round in 0..sizes.rounds {
        for turn in 0..SETTINGS.len() {
            // Each is the first one every other time.
            let setting = (turn + round) % SETTINGS.len();
            let (costs, waited) = lab.measure(SETTINGS[setting].0)?;
            waits[setting].extend(waited);
            for (all, cost) in all[setting].iter_mut().zip(costs) {
                all.push(cost);
            }
        }
    }
    let trip = lab.round_trip()?;
    waits.iter_mut().for_each(|waits| waits.sort());
    Ok(table(sizes, &all, &waits, trip))
}

impl Sizes {
    const fn new(large: usize, seconds: u64, rounds: usize) -> Self {
        Self {
            large,
            clients: 4,
            span: Duration::from_secs(seconds),
            rounds,
            requests: 200,
        }
    }
}

struct Lab {
    bed: Bed,
    client: Node,
    keys: Vec<String>,
    sizes: Sizes,
}

impl Lab {
    fn build(folder: &Path, sizes: Sizes) -> Result<Self, Failure> {
        let bed = Bed::build(folder, NODES)?;
        let client = Node::build(&bed.hub, folder, NODES)?;
        let route = format!(
            "ip route add {}/32 via {}",
            ours::SERVICE,
            bed.nodes[0].address()
        );
        bed.hub.run(&route).map_err(|e| failed("the route", e))?;
        let bytes: Vec<u8> = (0..sizes.large / 4)
            .flat_map(|number| (number as u32).wrapping_mul(2_654_435_761).to_be_bytes())
            .collect();
        let root = bed.nodes[0].root();
        for (name, bytes) in [(LARGE, &bytes[..]), (SMALL, &bytes[..SMALL_SIZE])] {
            fs::write(root.join(name), bytes).map_err(|e| failed(name, e))?;
        }
        thread::sleep(SETTLED);
        let keys = ours::prepare(&bed.nodes, RESCAN)?;
        Ok(Self {
            bed,
            client,
            keys,
            sizes,
        })
    }

    /// The costs with each window and of small files, and how long first replies took.
    fn measure(&self, setting: &str) -> Result<(Vec<Cost>, Vec<Duration>), Failure> {
        ours::configure(&self.bed.nodes, &self.keys, RESCAN, setting)?;
        let started = self.bed.nodes.iter().map(ours::Server::start);
        let mut servers: Vec<_> = started.collect::<Result<_, _>>()?;
        ours::await_settled(&mut servers, 2, "")?;
        thread::sleep(SETTLED + MET);
        let waits = self.first_replies()?;
        let mut costs = Vec::new();
        for window in WINDOWS {
            costs.push(self.read(&servers, LARGE, window)?);
        }
        costs.push(self.read(&servers, SMALL, 1)?);
        Ok((costs, waits))
    }

    fn read(&self, servers: &[ours::Server], name: &str, window: u64) -> Result<Cost, Failure> {
        let others =
            |servers: &[ours::Server]| servers[1..].iter().map(ours::Server::cpu).sum::<f64>();
        let told = || Ok::<_, Failure>(self.bed.wire(1)? + self.bed.wire(2)?);
        let before = (servers[0].cpu(), others(servers), told()?);
        let begun = Instant::now();
        let until = begun + self.sizes.span;
        let read = || {
            let mut bytes = 0;
            while Instant::now() < until {
                bytes += tftp::read_by(server(), name, window)?;
            }
            Ok::<u64, std::io::Error>(bytes)
        };
        let reading = || {
            thread::scope(|scope| {
                let started: Vec<_> = (0..self.sizes.clients)
                    .map(|_| scope.spawn(|| self.client.namespace.enter(read)))
                    .collect();
                let joined = started.into_iter().map(|reading| reading.join());
                joined.collect::<Vec<_>>()
            })
        };
        let mut bytes = 0;
        for read in reading() {
            let read = read.map_err(|_| failed(name, "a client panicked"))?;
            let read = read.map_err(|e| failed(name, e))?;
            bytes += read.map_err(|e| failed(name, e))?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let size = bytes as f64;
        Ok(Cost {
            rate: size / seconds,
            cpu: (servers[0].cpu() - before.0) / size * 1e9,
            others: (others(servers) - before.1) / size * 1e9,
            told: (told()? - before.2) as f64 / size,
        })
    }

    fn first_replies(&self) -> Result<Vec<Duration>, Failure> {
        let ask = || {
            let asked = (0..self.sizes.requests).map(|_| tftp::first_reply(server(), SMALL));
            asked.collect::<Result<Vec<_>, _>>()
        };
        let waits = self.client.namespace.enter(ask);
        waits
            .map_err(|e| failed("the client", e))?
            .map_err(|e| failed("a first reply", e))
    }

    /// Between the serving node and another, as `ping` finds it: its average.
    fn round_trip(&self) -> Result<String, Failure> {
        let mut ping = Command::new("ping");
        ping.args([
            "-q",
            "-c",
            "200",
            "-i",
            "0.01",
            &self.bed.nodes[1].address(),
        ]);
        let output = self.bed.nodes[0].namespace.output(&mut ping);
        let output = output.map_err(|e| failed("ping (iputils-ping)", e))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let average = said
            .lines()
            .find_map(|line| line.split_once("= ")?.1.split('/').nth(1));
        let average = average.ok_or_else(|| failed("ping", &said))?;
        Ok(average.to_owned())
    }
}

fn server() -> SocketAddr {
    (ours::SERVICE, ours::TFTP_PORT).into()
}

fn table(sizes: Sizes, all: &[Vec<Vec<Cost>>], waits: &[Vec<Duration>], trip: String) -> String {
    let mut text = format!(
        "\n## Handoff\n\n{} clients read from one of {NODES} nodes, {} rounds of {} s for each \
         setting, the median.\n\n\
         | file | window | handoff | MB/s | × off | CPU s a GB | × off | the two others, CPU s a GB | bytes \
         to and from them, % |\n|---|--:|---|--:|--:|--:|--:|--:|--:|\n",
        sizes.clients,
        sizes.rounds,
        sizes.span.as_secs(),
    );
    let large = format!("{} MiB", sizes.large >> 20);
    let small = format!("{SMALL_SIZE} bytes");
    let kinds = WINDOWS.map(|window| (&large, window));
    for (kind, (file, window)) in kinds.into_iter().chain([(&small, 1)]).enumerate() {
        let off = median(&all[0][kind]);
        for (setting, (_, name)) in SETTINGS.iter().enumerate() {
            let cost = median(&all[setting][kind]);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {file} | {window} | {name} | {:.1} | {:.3} | {:.2} | {:.3} | {:.2} | {:.2} |",
                cost.rate / 1e6,
                cost.rate / off.rate,
                cost.cpu,
                cost.cpu / off.cpu,
                cost.others,
                cost.told * 100.0,
            );
        }
    }
    text += "\n### From a request to its first reply\n\n\
             | handoff | requests | p50 ms | p90 ms | p99 ms |\n|---|--:|--:|--:|--:|\n";
    for ((_, name), waits) in SETTINGS.iter().zip(waits) {
        let [half, most, nearly] = [50, 90, 99].map(|percent| percentile(waits, percent));
        let _ = writeln!(
            text,
            "| {name} | {} | {half:.3} | {most:.3} | {nearly:.3} |",
            waits.len()
        );
    }
    let _ = writeln!(
        text,
        "\nA round trip between two nodes (`ping`): {trip} ms on average."
    );
    text
}

/// Of each figure.
fn median(costs: &[Cost]) -> Cost {
    let of = |figure: fn(&Cost) -> f64| {
        let mut figures: Vec<_> = costs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    };
    Cost {
        rate: of(|cost| cost.rate),
        cpu: of(|cost| cost.cpu),
        others: of(|cost| cost.others),
        told: of(|cost| cost.told),
    }
}
