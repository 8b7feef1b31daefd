//! What must be true: one function for each property.

use std::net::SocketAddr;

use super::client::Ended;
use super::promise::{is_beyond, promised};
use super::routes::{local, show};
use super::setting::{MS, SECOND};
use super::world::World;
use crate::handoff::Node;
use crate::handoff::limits::{self, MAX_RECORDS};
use crate::proto::Flow;
use crate::proto::packet::Packet;
use crate::proto::server::Transmit;

/// How long before the end of a run nothing may be sent any more.
const QUIET: u64 = 100 * SECOND;

/// (a) Whatever is delivered belongs to one version of the file that was asked for.
pub(super) fn wrong_bytes(world: &mut World, number: usize, offset: u64) {
    if is_beyond(world, number) {
        world.count("wrong bytes, within the known limit");
        return;
    }
    let job = &world.jobs[number];
    let (client, file) = (job.client, job.file);
    let kind = world.visitors[client].client.kind;
    world.breaks(|| format!("(a) c{client} ({kind:?}): wrong bytes of f{file} at {offset}"));
}

/// How long a transfer of which nothing was acknowledged answers the same request; to another node
/// it may seem younger by as long as its record was on its way.
const YOUNG: u64 = limits::YOUNG.as_micros() as u64 + SECOND;

/// Since when what a read gets must have had the name: since it began, or a little earlier where one
/// from the same ports asked for the same, whose transfer may answer for it.
fn asked_since(world: &World, number: usize) -> u64 {
    let job = &world.jobs[number];
    let was_asked = world.jobs[..number]
        .iter()
        .any(|old| (old.client, old.file, &old.ports) == (job.client, job.file, &job.ports));
    let earlier = if was_asked { YOUNG } else { 0 };
    job.started.saturating_sub(earlier)
}

/// (a) What the client takes for the file is one version of it, whole; and one that had the name
/// at some node since the client asked.
pub(super) fn one_version_and_whole(world: &mut World, number: usize) {
    let job = &world.jobs[number];
    if job.outcome != Some(Ended::Whole) || is_beyond(world, number) {
        return;
    }
    let (client, file, received) = (job.client, job.file, job.received);
    let versions = &world.files[file].versions;
    let whole = job.candidates.iter().copied();
    let whole: Vec<usize> = whole
        .filter(|version| versions[*version].id.size == received)
        .collect();
    if whole.is_empty() {
        world.breaks(|| format!("(a) c{client}: f{file} was cut after {received} bytes"));
        return;
    }
    let since = asked_since(world, number);
    let mut offers = world.offers.iter().filter(|offer| offer.file == file);
    let is_current = offers.any(|offer| {
        whole.contains(&offer.version) && offer.until.is_none_or(|until| until >= since)
    });
    if !is_current {
        world.breaks(|| format!("(a) c{client}: f{file} was replaced everywhere before it asked"));
    }
}

/// (b) A transfer that is promised to survive is complete within the client's patience.
pub(super) fn a_promise_is_kept(world: &mut World, number: usize) {
    let job = &world.jobs[number];
    if job.outcome == Some(Ended::Whole) || job.is_aborted || is_beyond(world, number) {
        return;
    }
    let (client, outcome, crossed) = (job.client, job.outcome, job.crossed.clone());
    let kind = world.visitors[client].client.kind;
    match promised(world, number) {
        Err(why) => world.count(why),
        Ok(()) => world.breaks(|| {
            format!("(b) c{client} ({kind:?}): read {number} ended with {outcome:?}; it came to {crossed:?}")
        }),
    }
}

/// (e) An ERROR is never answered.
pub(super) fn an_error_was_answered(world: &mut World, at: usize, flow: Flow) {
    world.breaks(|| format!("(e) n{at}: an ERROR of {} was answered", flow.remote));
}

/// Replies come from the service address, and are something.
pub(super) fn transmit(world: &mut World, at: usize, transmit: &Transmit) {
    if transmit.local != local() || transmit.len == 0 {
        world.breaks(|| format!("n{at}: {transmit:?}"));
    }
    if world.watched.0 == transmit.remote {
        world.watched.1 += 1;
    }
}

/// (e) No node says ERROR: every file that is asked for is there, and what is not known is none
/// of its business. And what it says to whom is a packet that a server sends.
pub(super) fn datagram(world: &mut World, at: usize, remote: SocketAddr, bytes: &[u8]) {
    match Packet::parse(bytes) {
        Ok(Packet::OptionAck(_)) => greeted(world, at, remote),
        Ok(Packet::Data { .. }) => {}
        _ => world.breaks(|| format!("(e) n{at} -> {remote}: {}", show(bytes))),
    }
    let is_known = world.visitor_of(remote).is_some_and(|index| {
        let mut jobs = world.jobs.iter().filter(|job| job.client == index);
        jobs.any(|job| job.ports.contains(&remote.port()))
    });
    if !is_known {
        world.breaks(|| format!("(e) n{at} -> {remote}, a stranger: {}", show(bytes)));
    }
}

/// A node to which the request of the present read has come says an OACK.
fn greeted(world: &mut World, at: usize, remote: SocketAddr) {
    let index = world.visitor_of(remote);
    let Some(number) = index.and_then(|index| world.visitors[index].job) else {
        return;
    };
    let now = world.now;
    let job = &mut world.jobs[number];
    if let Some((_, nodes)) = job.asked.get(&remote.port())
        && nodes.contains(&at)
    {
        job.greeted.get_or_insert(now);
    }
}

/// (d) What a node keeps is bounded.
pub(super) fn node(world: &mut World, at: usize) {
    let known = world.hosts[at].node.as_ref().map_or(0, Node::known);
    let flows = world.jobs.iter().map(|job| job.ports.len()).sum::<usize>();
    if known > MAX_RECORDS || known > flows {
        world.breaks(|| format!("(d) n{at}: it knows {known} flows of {flows}"));
    }
}

/// Nodes understand each other, whichever versions they speak.
pub(super) fn all_was_understood(world: &mut World) {
    for at in 0..world.hosts.len() {
        let node = world.hosts[at].node.as_ref();
        let refused = node.map_or(0, |node| node.stats().messages_refused);
        if refused > 0 {
            world.breaks(|| format!("n{at}: it has refused {refused} messages"));
        }
    }
}

/// Once all clients have ended and time has passed: nothing is in flight, nobody sends anything.
pub(super) fn all_is_forgotten(world: &mut World) {
    for at in 0..world.hosts.len() {
        let Some(host) = world.hosts[at].node.as_ref() else {
            continue;
        };
        let in_flight = host.in_flight();
        if in_flight > 0 && !world.hosts[at].is_paused {
            world.breaks(|| format!("n{at}: {in_flight} transfers are still in flight at the end"));
        }
    }
    let quiet = world.now.saturating_sub(world.last_sent);
    if quiet < QUIET && world.now > 2 * QUIET {
        world.breaks(|| format!("something was sent {} ms before the end", quiet / MS));
    }
}
