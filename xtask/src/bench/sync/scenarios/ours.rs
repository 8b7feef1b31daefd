//! The scenarios with `anycast-tftpd`, which runs at every node all the time.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::super::super::subject::failed;
use super::super::bed::Bed;
use super::super::files::{self, Change};
use super::super::ours::{self, Server};
use super::{Batch, Cost, READERS, Rescan, SEED, Sizes};
use crate::run::Failure;

/// Longer than any copy takes: there is no rescan while one is measured.
const NO_RESCAN: &str = "10m";
/// Where rescans are what is measured.
const RESCAN: Duration = Duration::from_secs(10);
/// How long what was allocated at the start may take to be given back.
const QUIET: Duration = Duration::from_secs(3);

/// What the first look at the files cost, and then the copy.
pub(super) fn copy(folder: &Path, batch: Batch) -> Result<(Option<Cost>, Cost), Failure> {
    let bed = super::bed(folder, 2, batch)?;
    ours::prepare(&bed.nodes, NO_RESCAN)?;
    let (mut servers, scan) = scanned(&bed, batch)?;
    let cost = received(&bed, &mut servers, batch)?;
    super::compare(&bed)?;
    Ok((Some(scan), cost))
}

pub(super) fn change(folder: &Path, sizes: &Sizes) -> Result<Vec<(Change, Cost)>, Failure> {
    let batch = super::large(sizes);
    let bed = super::bed(folder, 2, batch)?;
    ours::prepare(&bed.nodes, NO_RESCAN)?;
    let (mut servers, _) = scanned(&bed, batch)?;
    received(&bed, &mut servers, batch)?;
    let mut costs = Vec::new();
    let mut digest = ours::await_settled(&mut servers, u64::from(batch.count), "")?;
    for change in [Change::Overwrite, Change::Insert] {
        let (next, file) = super::next(&bed.nodes[0], change, sizes.change)?;
        let before = (servers[0].cpu(), servers[1].cpu(), bed.wire(1)?);
        let start = Instant::now();
        fs::rename(next, file).map_err(|e| failed("rename", e))?;
        digest = ours::await_settled(&mut servers, u64::from(batch.count), &digest)?;
        let cost = Cost {
            seconds: start.elapsed().as_secs_f64(),
            origin: servers[0].cpu() - before.0,
            receiver: servers[1].cpu() - before.1,
            wire: bed.wire(1)? - before.2,
        };
        costs.push((change, cost));
        super::compare(&bed)?;
    }
    Ok(costs)
}

/// Until files are there by their names, and until as many others could be read by TFTP.
pub(super) fn fresh(
    folder: &Path,
    batch: Batch,
) -> Result<Vec<(&'static str, Vec<Duration>)>, Failure> {
    let seed = Batch {
        count: 1,
        size: SEED,
    };
    let bed = super::bed(folder, 1 + READERS, seed)?;
    ours::prepare(&bed.nodes, NO_RESCAN)?;
    let servers: Result<Vec<_>, _> = bed.nodes.iter().map(Server::start).collect();
    let mut servers = servers?;
    ours::await_settled(&mut servers, 1, "")?;
    let (mut named, mut read) = (Vec::new(), Vec::new());
    for number in 0..batch.count * 2 {
        let (since, name) = super::write(&bed.nodes[0], number, batch.size)?;
        if number % 2 == 0 {
            named.push(super::await_there(&bed, since, &name, batch.size)?);
        } else {
            read.push(await_read(&bed, since, &name, batch.size)?);
        }
        // Not in step with anybody's timer.
        thread::sleep(Duration::from_millis(50 + u64::from(number) * 37 % 200));
    }
    Ok(vec![
        ("anycast-tftpd, by its name", named),
        ("anycast-tftpd, read by TFTP", read),
    ])
}

/// Waits until the file was read at all other nodes; for how long.
fn await_read(bed: &Bed, since: Instant, name: &str, size: u64) -> Result<Duration, Failure> {
    let ends: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = bed.nodes[1..]
            .iter()
            .map(|node| scope.spawn(move || ours::await_read(node, name, size)))
            .collect();
        let joined = readers.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect()
    });
    let mut last = since;
    for end in ends {
        last = last.max(end.map_err(|_| Failure::new("a reader panicked"))??);
    }
    Ok(last.saturating_duration_since(since))
}

/// What the first look cost, and then another one.
pub(super) fn rescan(folder: &Path, batch: Batch) -> Result<(Option<Cost>, Rescan), Failure> {
    let bed = Bed::build(folder, 2)?;
    ours::prepare(&bed.nodes, &format!("{}s", RESCAN.as_secs()))?;
    let empty = {
        let mut servers = [Server::start(&bed.nodes[0])?];
        ours::await_all(&mut servers, |_| true)?;
        thread::sleep(QUIET);
        servers[0].memory()
    };
    let root = bed.nodes[0].root();
    files::make(&root, batch.count, batch.size).map_err(|e| failed("the files", e))?;
    let (mut servers, scan) = scanned(&bed, batch)?;
    // Two of them, since the first one may have begun before the files were known.
    thread::sleep(RESCAN * 2 + QUIET);
    let all = ours::await_all(&mut servers, |all| {
        all.iter().all(|status| status.rescan_ms.is_some())
    })?;
    let took = all.first().and_then(|status| status.rescan_ms);
    let paths: usize = (0..batch.count).map(|n| files::name(n).len()).sum();
    let memory = servers[0].memory() - empty - paths as f64;
    let rescan = Rescan {
        seconds: took.map_or(f64::NAN, |ms| Duration::from_millis(ms).as_secs_f64()),
        cpu: None,
        memory: Some(memory / f64::from(batch.count)),
    };
    Ok((Some(scan), rescan))
}

/// Starts the first node, and waits until it knows its files.
fn scanned(bed: &Bed, batch: Batch) -> Result<(Vec<Server>, Cost), Failure> {
    let start = Instant::now();
    let mut servers = vec![Server::start(&bed.nodes[0])?];
    let files = u64::from(batch.count);
    ours::await_all(&mut servers, |all| {
        all.iter().all(|status| status.files >= files)
    })?;
    let scan = Cost {
        seconds: start.elapsed().as_secs_f64(),
        origin: servers[0].cpu(),
        ..Cost::default()
    };
    Ok((servers, scan))
}

/// Starts the second node, which has nothing, and waits until it has all.
fn received(bed: &Bed, servers: &mut Vec<Server>, batch: Batch) -> Result<Cost, Failure> {
    let (origin, wire) = (servers[0].cpu(), bed.wire(1)?);
    let start = Instant::now();
    servers.push(Server::start(&bed.nodes[1])?);
    ours::await_settled(servers, u64::from(batch.count), "")?;
    Ok(Cost {
        seconds: start.elapsed().as_secs_f64(),
        origin: servers[0].cpu() - origin,
        receiver: servers[1].cpu(),
        wire: bed.wire(1)? - wire,
    })
}
