//! The scenarios with rsync: nobody watches the files, so it is run at once after each change.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::super::super::subject::{cpu_of_children, failed};
use super::super::Subject;
use super::super::bed::Bed;
use super::super::files::{self, Change};
use super::super::rsync::{Pull, Server};
use super::{Batch, Cost, READERS, Rescan, SEED, Sizes};
use crate::run::Failure;

/// Also onto the disk, as the other subjects do.
const COPY: [&str; 2] = ["-a", "--fsync"];
/// Compares, and changes nothing.
const COMPARE: [&str; 1] = ["-an"];

pub(super) fn copy(folder: &Path, subject: Subject, batch: Batch) -> Result<Cost, Failure> {
    let bed = super::bed(folder, 2, batch)?;
    let server = Server::start(&bed, subject)?;
    let cost = metered(&bed, &server, &COPY)?;
    super::compare(&bed)?;
    Ok(cost)
}

pub(super) fn change(
    folder: &Path,
    subject: Subject,
    sizes: &Sizes,
) -> Result<Vec<(Change, Cost)>, Failure> {
    let bed = super::bed(folder, 2, super::large(sizes))?;
    let server = Server::start(&bed, subject)?;
    metered(&bed, &server, &COPY)?;
    let mut costs = Vec::new();
    for change in [Change::Overwrite, Change::Insert] {
        let (next, file) = super::next(&bed.nodes[0], change, sizes.change)?;
        fs::rename(next, file).map_err(|e| failed("rename", e))?;
        costs.push((change, metered(&bed, &server, &COPY)?));
        super::compare(&bed)?;
    }
    Ok(costs)
}

pub(super) fn fresh(
    folder: &Path,
    subject: Subject,
    batch: Batch,
) -> Result<Vec<Duration>, Failure> {
    let seed = Batch {
        count: 1,
        size: SEED,
    };
    let bed = super::bed(folder, 1 + READERS, seed)?;
    let server = Server::start(&bed, subject)?;
    let pull_all = || {
        let pulls = bed.nodes[1..].iter().map(|node| server.pull(node, &COPY));
        pulls.collect::<Result<Vec<_>, _>>()
    };
    let wait = |pulls: Vec<Pull>| pulls.into_iter().try_for_each(Pull::wait);
    wait(pull_all()?)?;
    let mut times = Vec::new();
    for number in 0..batch.count {
        let (since, name) = super::write(&bed.nodes[0], number, batch.size)?;
        let pulls = pull_all()?;
        times.push(super::await_there(&bed, since, &name, batch.size)?);
        wait(pulls)?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(times)
}

/// Rsync remembers nothing of the files, so there is no first look to be told.
pub(super) fn rescan(
    folder: &Path,
    subject: Subject,
    batch: Batch,
) -> Result<(Option<Cost>, Rescan), Failure> {
    let bed = super::bed(folder, 2, batch)?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(bed.nodes[0].root().join("."))
        .arg(bed.nodes[1].root())
        .status()
        .map_err(|e| failed("cp", e))?;
    if !copied.success() {
        return Err(failed("cp", copied));
    }
    files::settle(folder).map_err(|e| failed("sync", e))?;
    let server = Server::start(&bed, subject)?;
    // The first look fills the caches.
    metered(&bed, &server, &COMPARE)?;
    let cost = metered(&bed, &server, &COMPARE)?;
    let rescan = Rescan {
        seconds: cost.seconds,
        cpu: Some(cost.origin + cost.receiver),
        memory: None,
    };
    Ok((None, rescan))
}

/// One run at the second node.
fn metered(bed: &Bed, server: &Server, mode: &[&str]) -> Result<Cost, Failure> {
    let receiver = || cpu_of_children(std::process::id());
    let (origin_before, before, wire) = (server.cpu(), receiver(), bed.wire(1)?);
    let start = Instant::now();
    let done = server.pull(&bed.nodes[1], mode).and_then(Pull::wait);
    let seconds = start.elapsed().as_secs_f64();
    done.map_err(|error| failed("rsync", format!("{error}; {}", server.said())))?;
    Ok(Cost {
        seconds,
        receiver: receiver() - before,
        wire: bed.wire(1)? - wire,
        origin: server.cpu() - origin_before,
    })
}
