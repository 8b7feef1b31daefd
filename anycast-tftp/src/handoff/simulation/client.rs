//! The clients: one state machine, and what each kind does in its own way in [`kinds`].
//!
//! Times are in microseconds.

use std::collections::{BTreeSet, VecDeque};

use super::random::Random;
use crate::proto::options::Options;
use crate::proto::packet::{
    DEFAULT_BLKSIZE, ErrorCode, MAX_REQUEST, Mode, Packet, Request, ack, encode_error,
};

pub(super) mod kinds;
mod receive;

pub(super) use kinds::Kind;
use kinds::{Answer, Habits};

/// How long whoever stands before it waits for something new, whatever the client itself does.
const HUMAN_PATIENCE: u64 = 300_000_000;

/// How a read ended, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Whole,
    /// It gave up: nothing of use came for so long.
    Silence,
    /// The server said ERROR.
    Refused(ErrorCode),
    /// It was sent what it cannot take.
    Nonsense(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The answer to the request is awaited; of a probe, only for the options.
    Asking {
        is_probe: bool,
    },
    /// Between a probe and the request, until then.
    Resting(u64),
    Reading,
    Ended(Ended),
}

/// A packet that a client sends, and from which of its ports.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) port: u16,
    pub(super) packet: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) kind: Kind,
    pub(super) habits: Habits,
    /// What it asks for.
    options: Options<'static>,
    name: Vec<u8>,
    phase: Phase,
    /// The ports from which it has asked.
    ports: Vec<u16>,
    /// When it asks from further ones.
    unasked: VecDeque<(u64, u16)>,
    /// The port of the transfer.
    port: u16,
    blksize: u16,
    window: u16,
    /// The block that it waits for, from 1.
    expected: u64,
    /// Blocks beyond it that it has already (iPXE).
    ahead: BTreeSet<u64>,
    last: Option<u64>,
    since_ack: u16,
    /// Where it last said that it stands, because something else came.
    complained: Option<u64>,
    attempts: u32,
    repeat_at: Option<u64>,
    gives_up_at: u64,
    /// When it last got a block that it did not have.
    last_news: u64,
    /// How often it began again from zero.
    pub(super) restarts: u32,
    /// How often it has asked for something else than before.
    pub(super) asks: u32,
    out: VecDeque<Said>,
}

impl Client {
    pub(super) fn new(kind: Kind, options: Options<'static>) -> Self {
        Self {
            kind,
            habits: kind.habits(),
            options,
            name: Vec::new(),
            phase: Phase::Ended(Ended::Whole),
            ports: Vec::new(),
            unasked: VecDeque::new(),
            port: 0,
            blksize: DEFAULT_BLKSIZE,
            window: 1,
            expected: 1,
            ahead: BTreeSet::new(),
            last: None,
            since_ack: 0,
            complained: None,
            attempts: 0,
            repeat_at: None,
            gives_up_at: 0,
            last_news: 0,
            restarts: 0,
            asks: 0,
            out: VecDeque::new(),
        }
    }

    /// Reads a file, from this port, or from this and the next ones.
    pub(super) fn begin(&mut self, now: u64, random: &mut Random, name: &[u8], port: u16) {
        name.clone_into(&mut self.name);
        self.restarts = 0;
        self.ports = vec![port];
        self.unasked.clear();
        let mut at = now;
        for other in 1..self.habits.asks_at_once {
            at += random.range(5000, 9000);
            self.unasked.push_back((at, port + other));
        }
        self.ask(now, self.habits.probes);
    }

    fn ask(&mut self, now: u64, is_probe: bool) {
        self.asks += 1;
        self.phase = Phase::Asking { is_probe };
        self.port = self.ports[0];
        (self.blksize, self.window) = (DEFAULT_BLKSIZE, 1);
        self.expected = 1;
        self.ahead.clear();
        self.last = None;
        self.since_ack = 0;
        self.complained = None;
        self.attempts = 0;
        self.last_news = now;
        self.gives_up_at = now + self.habits.patience;
        self.repeat_at = self.habits.asks_again.after(now, 0);
        for port in self.ports.clone() {
            self.send_request(port);
        }
    }

    fn send_request(&mut self, port: u16) {
        let mut options = self.options;
        if self.phase == (Phase::Asking { is_probe: true }) {
            options.windowsize = None;
        }
        let mut buffer = [0; MAX_REQUEST];
        let request = Packet::ReadRequest(Request {
            filename: &self.name,
            mode: Mode::Octet,
            options,
            omitted: 0,
        });
        let len = request.encode(&mut buffer).unwrap();
        self.say(port, buffer[..len].to_vec());
    }

    fn say(&mut self, port: u16, packet: Vec<u8>) {
        self.out.push_back(Said { port, packet });
    }

    fn say_error(&mut self, port: u16, code: ErrorCode, text: &str) {
        let mut buffer = [0; 300];
        let len = encode_error(code, text.as_bytes(), &mut buffer).unwrap();
        self.say(port, buffer[..len].to_vec());
    }

    /// Ends it as a user does.
    pub(super) fn abort(&mut self) {
        self.say_error(self.port, ErrorCode::NotDefined, "User aborted");
        self.end(Ended::Nonsense("aborted by the user"));
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Said> {
        self.out.pop_front()
    }

    pub(super) const fn ended(&self) -> Option<Ended> {
        match self.phase {
            Phase::Ended(ended) => Some(ended),
            Phase::Asking { .. } | Phase::Resting(_) | Phase::Reading => None,
        }
    }

    fn end(&mut self, ended: Ended) {
        self.phase = Phase::Ended(ended);
    }

    /// Blocks that it has, in order.
    pub(super) const fn blocks(&self) -> u64 {
        self.expected - 1
    }

    pub(super) const fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Reading)
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        let timers = self.repeat_at.into_iter().chain([self.gives_up_at]);
        match self.phase {
            Phase::Ended(_) => None,
            Phase::Resting(until) => Some(until),
            Phase::Reading => timers.min(),
            Phase::Asking { .. } => {
                let unasked = self.unasked.front().map(|(at, _)| *at);
                timers.chain(unasked).min()
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: u64) {
        match self.phase {
            Phase::Ended(_) => return,
            Phase::Resting(until) if until > now => return,
            Phase::Resting(_) => return self.ask(now, false),
            Phase::Asking { .. } | Phase::Reading => {}
        }
        if now >= self.gives_up_at {
            return self.end(Ended::Silence);
        }
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        while is_asking && self.unasked.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, port)) = self.unasked.pop_front() {
                self.ports.push(port);
                self.send_request(port);
            }
        }
        if self.repeat_at.is_none_or(|at| at > now) {
            return;
        }
        self.attempts += 1;
        if is_asking {
            for port in self.ports.clone() {
                self.send_request(port);
            }
            self.repeat_at = self.habits.asks_again.after(now, self.attempts);
        } else {
            self.say(self.port, ack(self.wire()).to_vec());
            self.repeat_at = self.habits.repeats.after(now, self.attempts);
        }
    }

    /// The number of the last block that it has.
    const fn wire(&self) -> u16 {
        self.blocks() as u16
    }

    fn send_ack(&mut self, now: u64) {
        self.since_ack = 0;
        self.say(self.port, ack(self.wire()).to_vec());
        self.attempts = 0;
        self.repeat_at = self.habits.repeats.after(now, 0);
    }
}
