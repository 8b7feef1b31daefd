//! A record of what a machine was told and what it decided, and its replay.
//!
//! A [`Recorder`] stands beside a [`Machine`] and writes down its inputs. The record of an
//! incident, fetched from the node that had it, replays on any machine to the same decisions,
//! can be looked at step by step, and can be kept as a regression test.
//!
//! # What is kept
//!
//! Only inputs that can make a difference: a check that stays up and says so again leaves no
//! trace, of the failures of one that stays down the last is kept, and of `Unknown`s in a row
//! the first. Passing time is not recorded, because a machine does what time brings about at
//! its own moment. At most [`MAX_ENTRIES`]; what comes after is dropped and counted, and the
//! record says so: its beginning is what makes it replayable.
//!
//! # Format
//!
//! JSON, one object a line. The first line is the [`Header`]; each further one is an entry
//! `{"at": …, "input": {…}, "preference": "…", "state": "…"}`. The last line is
//! `{"until": …, "preference": "…", "state": "…"}`, what stood when the record was taken (time
//! alone may have brought it about), or `{"dropped": n}` if the record was full. Times are nanoseconds of the monotonic clock since the record began;
//! one before it (an earlier failure of a peer) is negative. A line of another
//! format is an error that names it, never a panic. At most [`MAX_RECORD`] bytes are read.

mod format;
#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "a test starts somewhere in real time"
)]
mod tests;

use std::time::{Duration, Instant};

pub use self::format::Header;
use self::format::{End, Entry, InputText, Line};
use crate::announce::{InForce, Preference};
use crate::health::{Evidence, Verdict};
use crate::machine::{ChecksError, Event, Input, Machine, Phase, State};
use crate::service::NodeName;

/// Most entries of one record.
pub const MAX_ENTRIES: usize = 16_384;
/// Largest record that is read, in bytes.
pub const MAX_RECORD: usize = 64 << 20;

/// Why a record cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The text is longer than [`MAX_RECORD`].
    #[error("the record is {length} bytes long; at most {MAX_RECORD} are read")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The text is empty.
    #[error("the record is empty; fetch it again")]
    Empty,
    /// A line is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The header's checks cannot be used.
    #[error("line 1: {0}")]
    Checks(#[from] ChecksError),
}

/// An entry and its place among all inputs.
type Numbered = (u64, Entry);

/// Writes down what one machine is told.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    header: Header,
    entries: Vec<Numbered>,
    /// Of each check that is down, its last failure while it was.
    failures: Vec<(usize, Numbered)>,
    heard: u64,
    dropped: u64,
    /// When it was told something last, and what stood then.
    latest: Option<(Instant, State)>,
}

impl Recorder {
    /// Begins a record of a new machine that has heard nothing yet.
    #[must_use]
    pub fn new(
        machine: &Machine,
        node: &NodeName,
        observed: Option<InForce>,
        start: Instant,
    ) -> Self {
        Self {
            start,
            header: Header::of(machine, node, observed),
            entries: Vec::new(),
            failures: Vec::new(),
            heard: 0,
            dropped: 0,
            latest: None,
        }
    }

    /// Gives the machine an input, and writes it down with what was decided.
    pub fn handle(&mut self, machine: &mut Machine, now: Instant, input: &Input) {
        let kind = kind(machine, input);
        machine.handle(now, input);
        self.latest = Some((now, machine.state()));
        if matches!(kind, Kind::Idle) {
            return;
        }
        let Some(input) = InputText::of(machine, input, self.start) else {
            return;
        };
        self.heard += 1;
        let entry = (self.heard, Entry::new(self.start, now, input, machine));
        match kind {
            Kind::StillDown(check) => {
                self.failures.retain(|(index, _)| *index != check);
                self.failures.push((check, entry));
            }
            Kind::Recovers(check) => {
                let last = self.failures.iter().position(|(index, _)| *index == check);
                if let Some(index) = last {
                    let (_, failure) = self.failures.swap_remove(index);
                    self.push(failure);
                }
                self.push(entry);
            }
            Kind::Replaces => {
                for (_, failure) in std::mem::take(&mut self.failures) {
                    self.push(failure);
                }
                self.push(entry);
            }
            Kind::Counts | Kind::Idle => self.push(entry),
        }
    }

    fn push(&mut self, entry: Numbered) {
        if self.entries.len() >= MAX_ENTRIES {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.entries.push(entry);
        }
    }

    /// The record so far, as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.extend(self.failures.iter().map(|(_, entry)| entry));
        entries.sort_by_key(|(number, _)| *number);
        let mut text = String::new();
        let mut line = |line: &Line| {
            // Plain data without maps of odd keys: it always becomes JSON.
            if let Ok(json) = serde_json::to_string(line) {
                text.push_str(&json);
                text.push('\n');
            }
        };
        line(&Line::Header(self.header.clone()));
        for (_, entry) in entries {
            line(&Line::Entry(entry.clone()));
        }
        if self.dropped > 0 {
            line(&Line::Dropped {
                dropped: self.dropped,
            });
        } else if let Some((at, state)) = self.latest {
            line(&Line::End(End::new(self.start, at, state)));
        }
        text
    }
}

enum Kind {
    /// It changes nothing that is decided on.
    Idle,
    /// A further failure of a check that is down: only the last of them matters.
    StillDown(usize),
    /// The first success after that.
    Recovers(usize),
    /// The checks are replaced: indices mean others from now on.
    Replaces,
    Counts,
}

fn kind(machine: &Machine, input: &Input) -> Kind {
    match input {
        Input::Timeout | Input::Restart => return Kind::Idle,
        Input::Checks(_) => return Kind::Replaces,
        Input::Verdict(..)
        | Input::Readiness(..)
        | Input::Intent(_)
        | Input::Peer(..)
        | Input::Members(_)
        | Input::Grant(..)
        | Input::GrantRequest(..)
        | Input::Turn(_)
        | Input::Policy(_)
        | Input::Expiry => {}
    }
    let Input::Verdict(check, verdict) = input else {
        return Kind::Counts;
    };
    let index = check.index();
    let Some((_, _, state)) = machine.checks().nth(index) else {
        return Kind::Idle;
    };
    let last = state.last_verdict().map(|(_, verdict)| verdict);
    match verdict {
        Verdict::Unknown(_) if matches!(last, Some(Verdict::Unknown(_))) => Kind::Idle,
        Verdict::Unknown(_) => Kind::Counts,
        Verdict::Healthy if state.phase() == Phase::Up => {
            let steady = last == Some(&Verdict::Healthy) && state.failures() == 0;
            if steady { Kind::Idle } else { Kind::Counts }
        }
        Verdict::Healthy => Kind::Recovers(index),
        Verdict::Unhealthy(_, Evidence::Probe)
            if state.phase() == Phase::Down && state.successes() == 0 =>
        {
            Kind::StillDown(index)
        }
        Verdict::Unhealthy(..) => Kind::Counts,
    }
}

/// One step of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayStep {
    /// Line of the record, from 1.
    pub line: usize,
    /// Since the record began.
    pub at: Duration,
    /// The input in words.
    pub input: String,
    /// The preference and the state that the record says, `preferred (healthy)`.
    pub recorded: String,
    /// What the replay came to.
    pub replayed: String,
    /// Why.
    pub reason: String,
}

impl ReplayStep {
    /// Whether record and replay agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.recorded == self.replayed
    }
}

/// A change of what is decided, at its own moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayDecision {
    /// Line of the entry at or before which it came, from 1.
    pub line: usize,
    /// Since the record began.
    pub at: Duration,
    /// The input that brought it about, in words; `None`: time alone did.
    pub input: Option<String>,
    /// What is decided from then on.
    pub preference: Preference,
    /// The state behind it.
    pub state: State,
    /// Why.
    pub reason: String,
}

/// A record that has been replayed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Replay {
    /// What the record says of its origin.
    pub header: Header,
    /// Every entry, in order.
    pub steps: Vec<ReplayStep>,
    /// Every change of preference or state, in order.
    pub decisions: Vec<ReplayDecision>,
    /// Inputs that were dropped at the end because the record was full.
    pub dropped: u64,
    /// The machine as the replay left it.
    pub machine: Machine,
}

impl Replay {
    /// Reads a record and runs it through a machine that starts at `start` (any moment; only
    /// differences count).
    ///
    /// # Errors
    /// [`RecordError`], naming the line.
    pub fn run(text: &str, start: Instant) -> Result<Self, RecordError> {
        if text.len() > MAX_RECORD {
            return Err(RecordError::TooLong { length: text.len() });
        }
        let mut lines = text.lines().enumerate();
        let (_, first) = lines.next().ok_or(RecordError::Empty)?;
        let Line::Header(header) = parse(1, first)? else {
            return Err(bad(1, "the first line is not a header"));
        };
        let machine = header.machine(start)?;
        let mut replaying = Replaying {
            machine,
            start,
            steps: Vec::new(),
            decisions: Vec::new(),
        };
        let (mut dropped, mut ended) = (0, false);
        for (index, text) in lines {
            let line = index + 1;
            if ended {
                return Err(bad(line, "it comes after the record's end"));
            }
            match parse(line, text)? {
                Line::Header(_) => return Err(bad(line, "a second header")),
                Line::Entry(entry) => replaying.entry(line, &entry)?,
                Line::Dropped { dropped: count } => (dropped, ended) = (count, true),
                Line::End(end) => {
                    replaying.end(line, &end)?;
                    ended = true;
                }
            }
        }
        Ok(Self {
            header,
            steps: replaying.steps,
            decisions: replaying.decisions,
            dropped,
            machine: replaying.machine,
        })
    }

    /// The first step at which record and replay disagree.
    #[must_use]
    pub fn first_difference(&self) -> Option<&ReplayStep> {
        self.steps.iter().find(|step| !step.agrees())
    }
}

/// A machine that is told a record, and what it comes to.
struct Replaying {
    machine: Machine,
    start: Instant,
    steps: Vec<ReplayStep>,
    decisions: Vec<ReplayDecision>,
}

impl Replaying {
    fn entry(&mut self, line: usize, entry: &Entry) -> Result<(), RecordError> {
        let at = entry.at(self.start).map_err(|reason| bad(line, reason))?;
        let input = entry
            .input
            .to_input(&self.machine, self.start)
            .map_err(|reason| bad(line, &reason))?;
        // What time brings about before the input is no doing of the input.
        self.machine.handle_timeout(at);
        self.note(line, None);
        self.machine.handle(at, &input);
        let words = entry.input.in_words();
        self.note(line, Some(&words));
        self.step(
            line,
            at,
            words,
            format!("{} ({})", entry.preference, entry.state),
        );
        Ok(())
    }

    fn end(&mut self, line: usize, end: &End) -> Result<(), RecordError> {
        let at = end.at(self.start).map_err(|reason| bad(line, reason))?;
        self.machine.handle_timeout(at);
        self.note(line, None);
        let words = "the end of the record".to_owned();
        self.step(
            line,
            at,
            words,
            format!("{} ({})", end.preference, end.state),
        );
        Ok(())
    }

    fn step(&mut self, line: usize, at: Instant, input: String, recorded: String) {
        let machine = &self.machine;
        self.steps.push(ReplayStep {
            line,
            at: at.saturating_duration_since(self.start),
            input,
            recorded,
            replayed: format!("{} ({})", machine.preference(), machine.state()),
            reason: machine.reason().to_string(),
        });
    }

    /// Takes down what was decided since the last time.
    fn note(&mut self, line: usize, input: Option<&str>) {
        while let Some(event) = self.machine.poll_event() {
            let (at, preference, state, reason) = match event {
                Event::Preference {
                    at,
                    to,
                    state,
                    reason,
                    ..
                } => (at, to, state, reason),
                Event::State { at, to, reason, .. } => (at, to.preference(), to, reason),
                Event::Check { .. } | Event::Readiness { .. } => continue,
            };
            self.decisions.push(ReplayDecision {
                line,
                at: at.saturating_duration_since(self.start),
                input: input.map(ToOwned::to_owned),
                preference,
                state,
                reason: reason.to_string(),
            });
        }
    }
}

fn parse(line: usize, text: &str) -> Result<Line, RecordError> {
    serde_json::from_str(text).map_err(|error| bad(line, &error.to_string()))
}

fn bad(line: usize, reason: &str) -> RecordError {
    RecordError::Line {
        line,
        reason: reason.to_owned(),
    }
}
