//! A run from a seed.

use super::client::Kind;
use super::promise::can_read;
use super::random::Random;
use super::setting::{Fault, Guest, MS, Path, SECOND, Setting, Wander, When};
use crate::handoff::Mode;
use crate::handoff::wire::{LEAST_VERSION, VERSION};

/// Runs in a thousand with a file whose block numbers wrap: each takes as long as a hundred others.
const WRAPS: u64 = 12;

/// A run in which this and that goes wrong.
pub(super) fn random(seed: u64) -> Setting {
    let random = &mut Random::new(seed);
    let nodes = random.pick(&[2, 2, 3, 3, 3, 4, 5, 5]);
    let mut setting = Setting::peaceful(nodes);
    if nodes > 2 && random.chance(100) {
        setting.domains[1] = 0;
    }
    if random.chance(80) {
        setting.mode = Mode::Async;
    }
    setting.mesh = mesh(random);
    setting.store = random.range(0, 5 * MS);
    setting.is_cold = random.chance(250);
    if random.chance(WRAPS) {
        wrapping(random, &mut setting);
    } else {
        ordinary(random, &mut setting);
    }
    if random.chance(850) {
        faults(random, &mut setting);
    }
    if random.chance(150) {
        let packets = random.pick(&[1, 20, 300]);
        let flood = Fault::Flood(random.below(nodes), packets, random.pick(&[1, 10, 100]));
        let when = When::At(random.range(0, 5 * SECOND));
        setting.faults.push((when, flood));
    }
    setting.speaks = versions(random, nodes);
    setting
}

/// Mostly those of one fleet; else one that is being upgraded, or taken back.
fn versions(random: &mut Random, nodes: usize) -> Vec<(u8, u8)> {
    let (old, new) = (LEAST_VERSION, VERSION);
    let all = match random.below(4) {
        0 => vec![(old, new)],
        1 => vec![(old, old), (old, new), (new, old), (new, new)],
        _ => vec![(new, new)],
    };
    (0..nodes).map(|_| random.pick(&all)).collect()
}

/// The same, but routes never move and nothing fails.
pub(super) fn still(seed: u64) -> Setting {
    let mut setting = random(seed);
    setting.faults.clear();
    for guest in &mut setting.guests {
        guest.wander = Wander::Stays;
    }
    setting
}

fn mesh(random: &mut Random) -> Path {
    let delay = random.pick(&[200, 2 * MS, 10 * MS, 40 * MS, 80 * MS]);
    let jitter = random.range(0, delay / 2);
    Path {
        delay: delay - jitter,
        jitter: jitter * 2,
        loss: random.pick(&[0, 0, 0, 10, 50, 100]),
        twice: random.pick(&[0, 0, 20, 100]),
        late: random.pick(&[0, 0, 0, 20]),
    }
}

fn wander(random: &mut Random) -> Wander {
    match random.below(8) {
        0 => Wander::Stays,
        1 | 2 => Wander::Once(random.range(1, 150)),
        3 => Wander::Each(1),
        4 => Wander::Each(10),
        5 => Wander::EachSecond,
        6 => Wander::Random(20),
        _ => Wander::Random(200),
    }
}

fn guest(random: &mut Random, setting: &Setting, kind: Kind, blksize: u16) -> Guest {
    let rough = random.chance(500);
    let rate = |random: &mut Random, of: &[u64]| if rough { random.pick(of) } else { 0 };
    let base = random.pick(&[MS / 2, 2 * MS, 10 * MS, 30 * MS]);
    let (loss, twice, late) = (
        rate(random, &[0, 10, 30]),
        rate(random, &[0, 10, 50]),
        rate(random, &[0, 10]),
    );
    let path = |random: &mut Random| Path {
        delay: base + random.range(0, base * 2),
        jitter: random.range(0, base / 2),
        loss,
        twice,
        late,
    };
    let may_keep = kind != Kind::TftpHpa && random.chance(250);
    let keeps_port = kind.habits().keeps_port || may_keep;
    Guest {
        kind,
        options: kind.options(random, blksize),
        reads: Vec::new(),
        begins: SECOND + random.range(0, 2 * SECOND),
        pause: random.pick(&[MS, 5 * MS, 100 * MS, SECOND]),
        wander: wander(random),
        at: random.below(setting.nodes),
        paths: (0..setting.nodes).map(|_| path(random)).collect(),
        port: keeps_port.then_some(49_152),
    }
}

fn size(random: &mut Random, blksize: usize) -> usize {
    let blocks = random.range(1, 150) as usize;
    match random.below(8) {
        0 => random.pick(&[0, 1, 511, 512, 513]),
        1 => blksize * blocks,
        2 => blksize,
        _ => random.below(blksize * blocks),
    }
}

fn ordinary(random: &mut Random, setting: &mut Setting) {
    let blksize = random.pick(&[8, 64, 512, 1024, 1428, 1468]);
    for _ in 0..random.range(1, 4) {
        let versions = if random.chance(300) { 3 } else { 1 };
        // Even those who do not negotiate get a block or more.
        let size = size(random, usize::from(blksize));
        setting.files.push((size, versions));
    }
    let guests = random.pick(&[1, 1, 2, 3, 6]);
    for _ in 0..guests {
        let kind = random.pick(&Kind::ALL);
        let mut guest = guest(random, setting, kind, blksize);
        for _ in 0..random.range(1, 4) {
            guest.reads.push(random.below(setting.files.len()));
        }
        setting.guests.push(guest);
    }
    for (file, (_, versions)) in setting.files.clone().into_iter().enumerate() {
        for version in 1..versions {
            let at = SECOND + random.range(0, 5 * SECOND) * version as u64;
            for node in 0..setting.nodes {
                let later = random.range(0, SECOND);
                let publish = Fault::Publish {
                    node,
                    file,
                    version,
                };
                setting.faults.push((When::At(at + later), publish));
            }
        }
    }
    let has_versions = setting.files.iter().any(|(_, versions)| *versions > 1);
    if has_versions && random.chance(300) {
        setting.lacks.push(random.below(setting.nodes));
    }
}

/// One client that reads more blocks than there are numbers.
fn wrapping(random: &mut Random, setting: &mut Setting) {
    let kind = random.pick(&[
        Kind::Atftp,
        Kind::Atftp,
        Kind::UBoot,
        Kind::Edk2,
        Kind::Grub,
    ]);
    let mut guest = guest(random, setting, kind, 8);
    let window = guest.options.windowsize.unwrap_or(1);
    let blocks = if window >= 16 && random.chance(500) {
        200_000
    } else {
        random.pick(&[65_535, 65_536, 70_000])
    };
    debug_assert!(can_read(kind, blocks as u64));
    // What is near is soon read.
    for path in &mut guest.paths {
        path.delay = random.range(200, MS);
        path.jitter = 100;
        path.late = 0;
    }
    guest.reads.push(0);
    setting.files.push((blocks * 8, 1));
    setting.guests.push(guest);
}

/// One process after the other is replaced, as an operator does it.
fn upgrade(random: &mut Random, setting: &mut Setting) {
    let mut at = SECOND;
    for node in 0..setting.nodes {
        at += random.range(0, 3 * SECOND);
        let (moves, ends) = (random.range(0, SECOND), random.range(SECOND, 3 * SECOND));
        let drain = Fault::Drain(node, moves, ends);
        setting.faults.push((When::At(at), drain));
        at += moves + ends + random.range(100 * MS, SECOND);
        setting.faults.push((When::At(at), Fault::Back(node)));
        at += random.range(3 * SECOND, 5 * SECOND);
    }
}

fn faults(random: &mut Random, setting: &mut Setting) {
    if random.chance(60) {
        return upgrade(random, setting);
    }
    for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
        let fault = fault(random, setting.nodes);
        let when = if random.chance(500) {
            When::At(SECOND + random.range(0, 5 * SECOND))
        } else {
            When::Datagram(random.range(1, 300))
        };
        setting.faults.push((when, fault));
    }
}

fn fault(random: &mut Random, nodes: usize) -> Fault {
    let node = random.below(nodes);
    match random.below(5) {
        0 | 1 => {
            let back = random.range(3 * SECOND, 10 * SECOND);
            let back = random.chance(500).then_some(back);
            Fault::Die(node, random.range(0, 4 * SECOND), back)
        }
        2 => {
            let converges = random.range(0, 4 * SECOND);
            let converges = random.chance(700).then_some(converges);
            let length = random.pick(&[300 * MS, SECOND, 2 * SECOND, 5 * SECOND, 20 * SECOND]);
            Fault::Pause(node, length + random.range(0, SECOND), converges)
        }
        3 => {
            let moves = random.range(100 * MS, 3 * SECOND);
            Fault::Drain(node, moves, random.range(2 * SECOND, 6 * SECOND))
        }
        _ => {
            let sides: Vec<bool> = (0..nodes)
                .map(|at| at == node || random.chance(300))
                .collect();
            let length = random.pick(&[500 * MS, 2 * SECOND, 5 * SECOND, 20 * SECOND]);
            Fault::Cut(sides, length)
        }
    }
}
