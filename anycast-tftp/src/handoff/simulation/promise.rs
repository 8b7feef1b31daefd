//! What is promised of a transfer, and what is not: precisely, so that nothing else is excused.

use std::collections::BTreeSet;

use super::client::Kind;
use super::faults::Down;
use super::jobs::Job;
use super::mesh::Apart;
use super::setting::{MS, SECOND};
use super::world::{World, node_name};
use crate::handoff::limits::YOUNG;
use crate::handoff::{Fleet, Mode};

/// A record is held elsewhere so long after the first reply, whatever was lost.
const HELD_AFTER: u64 = 2 * SECOND;
/// How long packets may lead to a node that does not answer.
const CONVERGENCE: u64 = 4 * SECOND;
/// How long after a cut a node may still not know what was said meanwhile.
const CATCHES_UP: u64 = 500 * MS;

impl Job {
    /// Whether this was the case at any time of the transfer.
    fn overlaps(&self, from: u64, until: Option<u64>) -> bool {
        let end = self.ended.unwrap_or(u64::MAX);
        from <= end && until.is_none_or(|until| until >= self.started)
    }
}

/// **The known limit**: an earlier read used the same port, and between that one's beginning and
/// now the mesh was cut between a node that it or this read came to and another one. Then a record
/// of the earlier read may answer for this one, where the client comes to the other half, or an heir
/// there may send of its own accord. And where a message and its answer take longer than a reply is
/// held back, or it is not held back at all, the reply comes before the earlier record is known;
/// so it does, from whatever port, where the request itself came to two nodes. And a request that is
/// repeated after `YOUNG`, at another node, while the mesh is cut, is a transfer of which the other
/// half does not know, as if the port were used for another file.
pub(super) fn is_beyond(world: &World, number: usize) -> bool {
    let job = &world.jobs[number];
    let visitor = &world.visitors[job.client];
    let until = job.ended.unwrap_or(world.now);
    let mut asked = job.asked.values();
    if is_slow(world) && asked.clone().any(|(_, nodes)| nodes.len() > 1) {
        return true;
    }
    let young = YOUNG.as_micros();
    let asks_anew = asked.any(|(times, nodes)| {
        let is_anew = u128::from(times.end - times.start) + u128::from(SECOND) >= young;
        let is_cut = || was_cut(world, nodes, times.start, times.end + CATCHES_UP);
        nodes.len() > 1 && is_anew && is_cut()
    });
    if asks_anew {
        return true;
    }
    if !visitor.client.habits.keeps_port {
        return false;
    }
    let mut earlier = world.jobs[..number]
        .iter()
        .filter(|old| old.client == job.client);
    earlier.any(|old| {
        let from = old.started.saturating_sub(CATCHES_UP);
        let nodes: BTreeSet<usize> = old.crossed.union(&job.crossed).copied().collect();
        was_cut(world, &nodes, from, until) || (is_slow(world) && nodes.len() > 1)
    })
}

/// Whether the mesh was cut between one of these nodes and another one.
fn was_cut(world: &World, nodes: &BTreeSet<usize>, from: u64, until: u64) -> bool {
    let pairs = nodes
        .iter()
        .flat_map(|a| (0..world.hosts.len()).map(move |b| (*a, b)));
    let mut pairs = pairs.filter(|(a, b)| a != b);
    pairs.any(|(a, b)| world.mesh.were_apart(a, b, from, until))
}

/// Whether a message and its answer may take longer than a first reply waits.
fn is_slow(world: &World) -> bool {
    let hold_wait = Fleet::new(node_name(0), Vec::new(), 0).hold_wait;
    world.setting.mode != Mode::BeforeReply
        || u128::from(world.round_trip()) >= hold_wait.as_micros()
}

/// Whether a transfer has to survive, or why not.
pub(super) fn promised(world: &World, number: usize) -> Result<(), &'static str> {
    let job = &world.jobs[number];
    if world.setting.mode != Mode::BeforeReply && job.crossed.len() > 1 {
        return Err("unpromised: records are not held before the reply");
    }
    cuts(world, job)?;
    let downs: Vec<&Down> = world
        .downs
        .iter()
        .filter(|down| job.overlaps(down.from, down.until))
        .collect();
    faults(world, job, &downs)?;
    Ok(())
}

/// The mesh is whole between the nodes that the client comes to; among many nodes, whose holders
/// may be others, it is whole.
fn cuts(world: &World, job: &Job) -> Result<(), &'static str> {
    let is_moved = job.crossed.len() > 1;
    let cut = |apart: &Apart| {
        let (a, b) = apart.pair;
        let both = job.crossed.contains(&a) && job.crossed.contains(&b);
        both || (world.hosts.len() > 3 && is_moved)
    };
    let mut apart = world.mesh.apart.iter();
    if apart.any(|apart| {
        let until = apart.until.map(|until| until + CATCHES_UP);
        job.overlaps(apart.from, until) && cut(apart)
    }) {
        return Err("unpromised: the mesh was cut where the client crossed it");
    }
    Ok(())
}

/// At most one node fails while the transfer runs; its record is held by then; and packets lead to
/// the node that failed for a short time only.
fn faults(world: &World, job: &Job, downs: &[&Down]) -> Result<(), &'static str> {
    let Some(first) = downs.first() else {
        return Ok(());
    };
    if downs.iter().any(|down| down.node != first.node) || downs.len() > 1 {
        return Err("unpromised: several nodes failed");
    }
    let is_cut = world.mesh.apart.iter().any(|apart| {
        job.overlaps(apart.from, apart.until) || first.until.is_none_or(|up| apart.from < up)
    });
    if is_cut {
        return Err("unpromised: a node failed and the mesh was cut");
    }
    let end = job.ended.unwrap_or(world.now);
    let shunned = first.shunned.unwrap_or(end).min(end);
    if job.crossed.contains(&first.node)
        && shunned.saturating_sub(first.from.max(job.started)) > CONVERGENCE
    {
        return Err("unpromised: its route led to a dead node for too long");
    }
    if world.hosts.len() == 2 && world.visitors[job.client].client.kind == Kind::Grub {
        return Err("unpromised: its client never repeats itself, and its node was alone");
    }
    let never_repeats = world.visitors[job.client].client.kind == Kind::Grub;
    if never_repeats && job.answered.is_none_or(|at| at >= first.from) {
        // No node need have heard that it is there, and an heir sends to nobody else.
        return Err("unpromised: its client never repeats itself, and had no block yet");
    }
    if first.from < job.started || !job.crossed.contains(&first.node) {
        return Ok(());
    }
    let held = job.answered.map(|at| at + HELD_AFTER);
    let is_held = held.is_some_and(|held| first.from >= held);
    let is_reliable = world.setting.mesh.loss == 0
        && world.setting.mesh.late == 0
        && world.setting.lacks.is_empty();
    if is_held || (!is_slow(world) && is_reliable) {
        return Ok(());
    }
    Err("unpromised: no other node may have held the record")
}

/// Whether a client of this kind can read a file of so many blocks.
pub(super) const fn can_read(kind: Kind, blocks: u64) -> bool {
    blocks <= 65_535 || kind.habits().wraps
}
