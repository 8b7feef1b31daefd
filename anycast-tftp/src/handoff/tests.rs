//! Nodes that hear each other at once, and a client that is written out packet by packet.

#![allow(clippy::disallowed_methods, reason = "tests start at any time")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anycast_core::NodeName;

use super::fleet::Nodes;
use super::record::NodeId;
use super::wire::VERSION;
use super::{Fleet, Mode, Node};
use crate::proto::Flow;
use crate::proto::settings::Settings;
use crate::store::{
    Content, ContentHash, ContentId, CreateError, FileName, OpenError, ReadError, Store, Upload,
    WritePolicy,
};

mod basics;
mod limits;
mod versions;

/// Files by name, contents by what they are.
#[derive(Debug, Default, Clone)]
pub(super) struct Files {
    names: Arc<Mutex<BTreeMap<FileName, ContentId>>>,
    contents: Arc<Mutex<BTreeMap<ContentId, Arc<[u8]>>>>,
    /// What no node has any more.
    gone: Arc<Mutex<BTreeSet<ContentId>>>,
}

#[derive(Debug)]
struct Known(ContentId, Arc<[u8]>);

impl Content for Known {
    fn size(&self) -> u64 {
        self.1.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let start = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.1[start..start + buf.len()]);
        Ok(())
    }

    fn id(&self) -> Option<ContentId> {
        Some(self.0)
    }
}

impl Files {
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> ContentId {
        let hash = ContentHash(*blake3::hash(bytes).as_bytes());
        let size = bytes.len() as u64;
        let id = ContentId { hash, size };
        let name = FileName::from_wire(name.as_bytes()).unwrap();
        self.names.lock().unwrap().insert(name, id);
        self.contents.lock().unwrap().insert(id, bytes.into());
        id
    }

    pub(super) fn forget(&self, id: &ContentId) {
        self.contents.lock().unwrap().remove(id);
    }

    /// It is found out that no node has it.
    pub(super) fn lose(&self, id: &ContentId) {
        self.forget(id);
        self.gone.lock().unwrap().insert(*id);
    }
}

impl Store for Files {
    fn open(&self, name: &FileName) -> Result<Arc<dyn Content>, OpenError> {
        let id = self.names.lock().unwrap().get(name).copied();
        self.open_content(&id.ok_or(OpenError::NotFound)?)
    }

    fn open_content(&self, id: &ContentId) -> Result<Arc<dyn Content>, OpenError> {
        let bytes = self.contents.lock().unwrap().get(id).cloned();
        let missing = || {
            if self.gone.lock().unwrap().contains(id) {
                return OpenError::NotFound;
            }
            OpenError::Overloaded(std::io::Error::other("not here"))
        };
        Ok(Arc::new(Known(*id, bytes.ok_or_else(missing)?)))
    }

    fn create(&self, name: &FileName, _: WritePolicy) -> Result<Box<dyn Upload>, CreateError> {
        Ok(Box::new(Incoming(self.clone(), name.clone(), Vec::new())))
    }
}

#[derive(Debug)]
struct Incoming(Files, FileName, Vec<u8>);

impl Upload for Incoming {
    fn write(&mut self, bytes: &[u8]) -> Result<(), crate::store::WriteError> {
        self.2.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), crate::store::WriteError> {
        self.0.put(self.1.as_str(), &self.2);
        Ok(())
    }
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    names: Vec<NodeName>,
    pub(super) files: Vec<Files>,
    pub(super) dead: BTreeSet<usize>,
    /// Whose messages are lost.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// What was sent to clients: by whom, to whom.
    pub(super) sent: Vec<(usize, Flow, Vec<u8>)>,
    pub(super) messages: usize,
    /// What was said: by whom, to whom.
    pub(super) letters: Vec<(usize, usize, Vec<u8>)>,
}

pub(super) fn client(port: u16) -> Flow {
    Flow {
        remote: ([10, 0, 0, 1], port).into(),
        local: ([192, 0, 2, 69], 69).into(),
    }
}

pub(super) fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let byte = |index: usize| (index / 7) as u8 ^ (index % 251) as u8 ^ seed;
    (0..len).map(byte).collect()
}

pub(super) fn rrq(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, 1];
    let words = [name, "octet"].into_iter();
    let options = options.iter().flat_map(|(name, value)| [*name, *value]);
    for word in words.chain(options) {
        packet.extend(word.as_bytes());
        packet.push(0);
    }
    packet
}

pub(super) fn ack(block: u16) -> Vec<u8> {
    [vec![0, 4], block.to_be_bytes().to_vec()].concat()
}

pub(super) fn data(block: u16, payload: &[u8]) -> Vec<u8> {
    [vec![0, 3], block.to_be_bytes().to_vec(), payload.to_vec()].concat()
}

impl Net {
    pub(super) fn new(count: usize, mode: Mode) -> Self {
        Self::begun(&vec![VERSION; count], mode)
    }

    /// Nodes that speak these versions of the wire.
    pub(super) fn of_versions(versions: &[u8]) -> Self {
        Self::begun(versions, Mode::BeforeReply)
    }

    fn begun(versions: &[u8], mode: Mode) -> Self {
        let count = versions.len();
        let now = Instant::now();
        let name = |index| format!("node{index}").parse().unwrap();
        let names: Vec<NodeName> = (0..count).map(name).collect();
        let mut net = Self {
            now,
            nodes: Vec::new(),
            files: Vec::new(),
            dead: BTreeSet::new(),
            cut: BTreeSet::new(),
            sent: Vec::new(),
            messages: 0,
            letters: Vec::new(),
            names,
        };
        for (index, version) in versions.iter().enumerate() {
            let mut node = net.begin(index, mode);
            node.speak_at_most(*version);
            net.nodes.push(node);
            net.files.push(Files::default());
        }
        for a in 0..count {
            for b in 0..count {
                if a != b {
                    net.link(a, b, true);
                }
            }
        }
        net.pump();
        net
    }

    pub(super) fn begin(&self, index: usize, mode: Mode) -> Node {
        let mut peers = self.names.clone();
        let name = peers.remove(index);
        let mut fleet = Fleet::new(name, peers, index as u64 + 7);
        fleet.mode = mode;
        let settings = Settings::new().with_writes(WritePolicy::Create);
        Node::new(self.now, settings, Some(fleet)).unwrap()
    }

    /// What a node is told of its link to another.
    pub(super) fn link(&mut self, at: usize, to: usize, is_up: bool) {
        let name = self.names[to].clone();
        self.nodes[at].handle_peer(self.now, &name, is_up);
    }

    /// The nodes that hold the record of a flow, and the others.
    pub(super) fn directory(&self, flow: &Flow) -> (Vec<usize>, Vec<usize>) {
        let fleet = Fleet::new(self.names[0].clone(), self.names[1..].to_vec(), 0);
        let ids = Nodes::new(&fleet).directory(flow);
        let holds = |at: &usize| ids.contains(&NodeId::of(&self.names[*at]));
        (0..self.names.len()).partition(holds)
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Vec<ContentId> {
        self.files.iter().map(|f| f.put(name, bytes)).collect()
    }

    /// A new process takes the place of a node, with nothing but its files.
    pub(super) fn replace(&mut self, index: usize, version: u8) {
        self.kill(index);
        self.wait(Duration::from_secs(1));
        self.nodes[index] = self.begin(index, Mode::BeforeReply);
        self.nodes[index].speak_at_most(version);
        self.dead.remove(&index);
        for at in (0..self.nodes.len()).filter(|at| *at != index) {
            self.link(at, index, true);
            self.link(index, at, true);
        }
        self.pump();
        self.wait(Duration::from_secs(1));
    }

    /// A node dies; the others notice.
    pub(super) fn kill(&mut self, index: usize) {
        self.dead.insert(index);
        for at in 0..self.nodes.len() {
            if at != index {
                self.link(at, index, false);
            }
        }
        self.pump();
    }

    pub(super) fn send(&mut self, at: usize, flow: Flow, packet: &[u8]) {
        if !self.dead.contains(&at) {
            self.nodes[at].handle_datagram(self.now, flow, packet);
        }
        self.pump();
    }

    /// Until nobody has anything to do now.
    pub(super) fn pump(&mut self) {
        let mut buf = vec![0; crate::proto::server::MAX_TRANSMIT];
        loop {
            let mut is_idle = true;
            for at in 0..self.nodes.len() {
                if self.dead.contains(&at) {
                    continue;
                }
                while let Some(transmit) = self.nodes[at].poll_transmit(self.now, 64, &mut buf) {
                    is_idle = false;
                    let flow = Flow {
                        remote: transmit.remote,
                        local: transmit.local,
                    };
                    let size = transmit.segment_size.unwrap_or(transmit.len).max(1);
                    for packet in buf[..transmit.len].chunks(size) {
                        self.sent.push((at, flow, packet.to_vec()));
                    }
                }
                while let Some(request) = self.nodes[at].poll_store_request() {
                    is_idle = false;
                    if let Some(reply) = request.run(&self.files[at]) {
                        self.nodes[at].handle_store_reply(self.now, reply);
                    }
                }
                while self.nodes[at].poll_event().is_some() {}
                while let Some((to, message)) = self.nodes[at].poll_message(self.now) {
                    is_idle = false;
                    self.messages += 1;
                    let to = self.names.iter().position(|name| *name == to).unwrap();
                    self.letters.push((at, to, message.clone()));
                    if !self.dead.contains(&to) && !self.cut.contains(&(at, to)) {
                        let from = self.names[at].clone();
                        self.nodes[to].handle_message(self.now, &from, &message);
                    }
                }
            }
            if is_idle {
                return;
            }
        }
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let alive = self.nodes.iter().enumerate();
            let alive = alive.filter(|(at, _)| !self.dead.contains(at));
            let next = alive
                .filter_map(|(_, node)| Some(node.poll_timeout()?.at))
                .min();
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            for index in 0..self.nodes.len() {
                if !self.dead.contains(&index) {
                    self.nodes[index].handle_timeout(self.now);
                }
            }
            self.pump();
        }
    }

    /// What was sent since the last look.
    pub(super) fn take(&mut self) -> Vec<(usize, Vec<u8>)> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter().map(|(at, _, bytes)| (at, bytes)).collect()
    }
}
