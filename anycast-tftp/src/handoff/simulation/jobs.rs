//! What clients read, and how it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::client::Ended;
use super::host::Inbound;
use super::invariants;
use super::routes::show;
use super::setting::{MS, SECOND};
use super::world::{Event, Outbound, World};

/// So much longer it takes to tell another node of a request, where messages are lost.
const LOST_PUTS: u64 = 300 * MS;

/// A client reads a file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) client: usize,
    pub(super) file: usize,
    pub(super) ports: Range<u16>,
    pub(super) started: u64,
    asks: u32,
    /// When a node that the request had reached first said an OACK, or the client took one.
    pub(super) greeted: Option<u64>,
    /// When the first packet of use came.
    pub(super) answered: Option<u64>,
    pub(super) ended: Option<u64>,
    pub(super) outcome: Option<Ended>,
    /// Nodes that its packets went to.
    pub(super) crossed: BTreeSet<usize>,
    /// Of them, those in the first second.
    pub(super) crossed_early: usize,
    /// Nodes that its request came to from which of its ports, and when it first and last did.
    pub(super) asked: BTreeMap<u16, (Range<u64>, BTreeSet<usize>)>,
    /// Versions that all that came fits.
    pub(super) candidates: Vec<usize>,
    pub(super) received: u64,
    restarts: u32,
    pub(super) is_aborted: bool,
}

impl World {
    pub(super) fn begin_job(&mut self, index: usize) {
        let visitor = &mut self.visitors[index];
        let Some(file) = visitor.guest.reads.get(visitor.begun).copied() else {
            return;
        };
        visitor.begun += 1;
        let port = visitor.guest.port.unwrap_or(visitor.next_port);
        visitor.next_port += 10;
        let name = self.files[file].name.as_str().as_bytes().to_vec();
        let visitor = &mut self.visitors[index];
        visitor.client.habits.keeps_port = visitor.guest.port.is_some();
        visitor
            .client
            .begin(self.now, &mut self.random, &name, port);
        visitor.job = Some(self.jobs.len());
        self.jobs.push(Job {
            client: index,
            file,
            ports: port..port + 10,
            started: self.now,
            asks: visitor.client.asks,
            greeted: None,
            answered: None,
            ended: None,
            outcome: None,
            crossed: BTreeSet::new(),
            crossed_early: 0,
            asked: BTreeMap::new(),
            candidates: (0..self.files[file].versions.len()).collect(),
            received: 0,
            restarts: 0,
            is_aborted: false,
        });
        self.count("reads");
        self.after_client(index);
    }

    pub(super) fn client_timer(&mut self, index: usize) {
        let now = self.now;
        let visitor = &mut self.visitors[index];
        if visitor.timer_at != Some(now) {
            return;
        }
        visitor.timer_at = None;
        if visitor.client.poll_timeout().is_some_and(|at| at <= now) {
            visitor.client.handle_timeout(now);
        }
        self.after_client(index);
    }

    /// What a client says, and whether it has ended.
    pub(super) fn after_client(&mut self, index: usize) {
        while let Some(said) = self.visitors[index].client.poll_transmit() {
            self.send_from_client(index, &said);
        }
        let Some(number) = self.visitors[index].job else {
            return;
        };
        let now = self.now;
        let visitor = &mut self.visitors[index];
        let job = &mut self.jobs[number];
        if now < job.started + SECOND {
            job.crossed_early = job.crossed.len();
        }
        if visitor.client.asks != job.asks {
            job.asks = visitor.client.asks;
            job.greeted = None;
            job.asked.clear();
        }
        if visitor.client.restarts != job.restarts {
            job.restarts = visitor.client.restarts;
            job.received = 0;
            job.candidates = (0..self.files[job.file].versions.len()).collect();
        }
        if let Some(at) = visitor.client.poll_timeout()
            && visitor.timer_at.is_none_or(|armed| armed > at)
        {
            visitor.timer_at = Some(at.max(now));
            self.after(at.saturating_sub(now), Event::Client(index));
        }
        if let Some(ended) = self.visitors[index].client.ended()
            && self.jobs[number].ended.is_none()
        {
            self.end_job(index, number, ended);
        }
    }

    fn end_job(&mut self, index: usize, number: usize, ended: Ended) {
        let blocks = self.visitors[index].client.blocks();
        let kind = self.visitors[index].client.kind;
        self.say(|| format!("c{index}: {kind:?} has ended: {ended:?} with {blocks} blocks"));
        let job = &mut self.jobs[number];
        job.ended = Some(self.now);
        job.outcome = Some(ended);
        self.count(match ended {
            Ended::Whole => "whole",
            Ended::Silence | Ended::Refused(_) | Ended::Nonsense(_) => "failed",
        });
        invariants::one_version_and_whole(self, number);
        invariants::a_promise_is_kept(self, number);
        let visitor = &self.visitors[index];
        if visitor.begun < visitor.guest.reads.len() {
            self.after(visitor.guest.pause, Event::Begin(index));
        }
    }

    /// Whether a client's packet is one of an earlier transfer of the same port that comes when the
    /// next one is under way: no server can know that it is old, and it is taken for lost here.
    pub(super) fn is_of_another_time(&self, inbound: &Inbound) -> bool {
        let Some(old) = inbound.job else {
            return false;
        };
        let visitor = &self.visitors[self.jobs[old].client];
        let is_old = visitor.client.asks > inbound.asks;
        is_old
            && visitor
                .job
                .is_some_and(|job| self.jobs[job].greeted.is_some())
    }

    /// Whether a datagram was on its way already when the client had given its port to the file
    /// that it reads now, or when its node could not yet have known of that.
    fn was_on_its_way(&self, number: usize, outbound: &Outbound) -> bool {
        let job = &self.jobs[number];
        if !self.visitors[job.client].client.habits.keeps_port {
            return false;
        }
        let Some((times, nodes)) = job.asked.get(&outbound.remote.port()) else {
            return true;
        };
        let tells = self.round_trip() + LOST_PUTS;
        let at = times.start;
        outbound.sent < at || !nodes.contains(&outbound.from) && outbound.sent < at + tells
    }

    pub(super) fn arrives_at_client(&mut self, outbound: &Outbound) {
        let Some(index) = self.visitor_of(outbound.remote) else {
            return;
        };
        let port = outbound.remote.port();
        let Some(number) = self.visitors[index].job else {
            return;
        };
        if !self.jobs[number].ports.contains(&port) || self.was_on_its_way(number, outbound) {
            return;
        }
        if self.visitors[index].client.ended().is_some() {
            return;
        }
        self.say(|| {
            format!(
                "c{index}:{port} hears n{}: {}",
                outbound.from,
                show(&outbound.bytes)
            )
        });
        let now = self.now;
        let visitor = &mut self.visitors[index];
        let delivery = visitor.client.handle_datagram(now, port, &outbound.bytes);
        if visitor.client.is_reading() {
            self.jobs[number].greeted.get_or_insert(now);
        }
        if let Some((offset, bytes)) = delivery {
            self.jobs[number].answered.get_or_insert(now);
            self.deliver(number, offset, bytes);
            self.count_blocks(index);
        }
        self.after_client(index);
    }

    fn deliver(&mut self, number: usize, offset: u64, bytes: &[u8]) {
        let job = &mut self.jobs[number];
        job.received += bytes.len() as u64;
        let start = usize::try_from(offset).unwrap();
        let versions = &self.files[job.file].versions;
        job.candidates.retain(|version| {
            let there = versions[*version].bytes.get(start..start + bytes.len());
            there == Some(bytes)
        });
        if job.candidates.is_empty() {
            invariants::wrong_bytes(self, number, offset);
        }
    }

    /// The user ends what a client does.
    pub(super) fn abort(&mut self, index: usize) {
        let Some(number) = self.visitors[index].job else {
            return;
        };
        if self.visitors[index].client.ended().is_none() {
            self.jobs[number].is_aborted = true;
            self.visitors[index].client.abort();
            self.after_client(index);
        }
    }

    /// How long a store needs at most to do what it is asked, and the message to get there.
    pub(super) fn round_trip(&self) -> u64 {
        let mesh = self.setting.mesh;
        2 * (mesh.delay + mesh.jitter) + self.setting.store + MS
    }
}
