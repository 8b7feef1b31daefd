//! What is recorded, and what comes back from it after a restart.
//!
//! The log is a row of frames: a length (`u32`), the first 8 bytes of the BLAKE3 hash of the body,
//! the body, which is a row of records that count together or not at all: a length (`u32`), a kind,
//! fields. Entries merge, so it does no harm to read one twice; of everything else the last counts.
//! The log ends where a frame is not whole: a crash may leave half of one.

use std::time::Instant;

use super::{Config, ConfigError, Replica, RootId, Start};
use crate::store::FileName;
use crate::sync::content::ContentId;
use crate::sync::manifest::{Entry, Key};
use crate::sync::wire::{self, Fields, Read};

const WRITER: u8 = 1;
const ROOT: u8 = 2;
const ENTRY: u8 = 3;
const DISK: u8 = 4;
const PLAN: u8 = 5;
const HELD: u8 = 6;
/// Length and check.
const HEAD: usize = 12;
/// The longest body; a longer one is where the log ends.
const MAX_BODY: usize = 64 << 20;

/// Bytes on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Log {
    pending: Vec<u8>,
    /// Records of the next frame, and how many want it open.
    batch: Vec<u8>,
    open: u32,
    in_flight: Option<(Vec<u8>, u64)>,
    durable_seq: u64,
    retry_at: Option<Instant>,
}

impl Log {
    fn push(&mut self, kind: u8, mut fields: Fields) {
        fields.0.insert(0, kind);
        let record = fields.0;
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        self.batch.extend(length.to_be_bytes());
        self.batch.extend(record);
        self.flush();
    }

    /// What is recorded until [`Self::close`] counts together.
    pub(super) fn open(&mut self) {
        self.open += 1;
    }

    pub(super) fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.flush();
    }

    fn flush(&mut self) {
        if self.open > 0 || self.batch.is_empty() {
            return;
        }
        let body = std::mem::take(&mut self.batch);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.pending.extend(length.to_be_bytes());
        self.pending.extend(&blake3::hash(&body).as_bytes()[..8]);
        self.pending.extend(body);
    }

    pub(super) fn entry(&mut self, key: &Key, entry: &Entry) {
        self.push(ENTRY, Fields(wire::encode_entry(key, entry)));
    }

    pub(super) fn disk(&mut self, path: &FileName, content: Option<ContentId>) {
        self.push(DISK, path_and_content(path, content));
    }

    /// This will be there next, or nothing.
    pub(super) fn plan(&mut self, path: &FileName, content: Option<ContentId>) {
        self.push(PLAN, path_and_content(path, content));
    }

    pub(super) fn root(&mut self, root: RootId) {
        let mut fields = Fields(Vec::new());
        fields.put(1, &root.0.to_be_bytes());
        self.push(ROOT, fields);
    }

    pub(super) fn held(&mut self, is_held: bool) {
        let mut fields = Fields(Vec::new());
        fields.put(1, &[u8::from(is_held)]);
        self.push(HELD, fields);
    }

    pub(super) fn writer(&mut self, incarnation: u64, counter: u64) {
        let mut fields = Fields(Vec::new());
        fields.put(1, &incarnation.to_be_bytes());
        fields.put(2, &counter.to_be_bytes());
        self.push(WRITER, fields);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.in_flight.is_some() || self.retry_at.is_some()
    }

    pub(super) fn take(&mut self, seq: u64) -> Option<Vec<u8>> {
        if self.pending.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.pending);
        self.in_flight = Some((bytes.clone(), seq));
        Some(bytes)
    }

    /// Whether more may be told than before.
    pub(super) fn recorded(&mut self) -> bool {
        let Some((_, seq)) = self.in_flight.take() else {
            return false;
        };
        let is_more = seq > self.durable_seq;
        self.durable_seq = self.durable_seq.max(seq);
        is_more
    }

    pub(super) fn failed(&mut self, retry_at: Instant) {
        if let Some((mut bytes, _)) = self.in_flight.take() {
            bytes.append(&mut self.pending);
            self.pending = bytes;
            self.retry_at = Some(retry_at);
        }
    }

    pub(super) fn retry(&mut self, now: Instant) {
        self.retry_at.take_if(|at| *at <= now);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn durable_seq(&self) -> u64 {
        self.durable_seq
    }
}

fn path_and_content(path: &FileName, content: Option<ContentId>) -> Fields {
    let mut fields = Fields(Vec::new());
    fields.put(1, path.as_str().as_bytes());
    if let Some(content) = content {
        fields.put(2, &content.hash.0);
        fields.put(3, &content.size.to_be_bytes());
    }
    fields
}

/// Reads a log, piece by piece, and becomes a replica.
#[derive(Debug)]
pub struct Restore {
    replica: Replica,
    buffer: Vec<u8>,
    restored: Restored,
    has_writer: bool,
}

/// What a log held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Bytes that are whole frames. The driver cuts the log to that length before it appends.
    pub valid: u64,
    /// Whether there was more, which is half a frame or none: a crash, or a damaged disk.
    pub is_torn: bool,
    /// Frames that were read.
    pub frames: u64,
}

impl Restore {
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: Config, start: Start) -> Result<Self, ConfigError> {
        let mut replica = Replica::new(config, start)?;
        // What was taken once stays, whatever the limit is now.
        replica.manifest.set_limit(usize::MAX);
        replica.log = Log::default();
        Ok(Self {
            replica,
            buffer: Vec::new(),
            restored: Restored::default(),
            has_writer: false,
        })
    }

    /// The next bytes of the log, in pieces of any length.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.restored.is_torn {
            return;
        }
        self.buffer.extend(bytes);
        let mut from = 0;
        loop {
            let rest = self.buffer.get(from..).unwrap_or_default();
            let Some((head, after)) = rest.split_first_chunk::<HEAD>() else {
                break;
            };
            let [a, b, c, d, check @ ..] = *head;
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if length > MAX_BODY {
                self.restored.is_torn = true;
                break;
            }
            let Some(body) = after.get(..length) else {
                break;
            };
            if blake3::hash(body).as_bytes()[..8] != check || self.replica.replay(body).is_none() {
                self.restored.is_torn = true;
                break;
            }
            self.has_writer |= body.get(4) == Some(&WRITER);
            self.restored.frames += 1;
            from += HEAD + length;
        }
        self.buffer.drain(..from);
        self.restored.valid += u64::try_from(from).unwrap_or(u64::MAX);
    }

    /// The log has ended.
    #[must_use]
    pub fn finish(mut self) -> (Replica, Restored) {
        self.restored.is_torn |= !self.buffer.is_empty();
        let replica = &mut self.replica;
        replica.manifest.set_limit(replica.config.max_files);
        replica.log = Log {
            durable_seq: replica.manifest.seq(),
            ..Log::default()
        };
        replica.outputs.clear();
        if !self.has_writer {
            replica.record_writer();
        }
        (self.replica, self.restored)
    }
}

/// How far a snapshot has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Key);

impl Replica {
    pub(super) fn record_writer(&mut self) {
        self.log.writer(self.writer.incarnation, self.counter);
    }

    /// A new log, piece by piece, to take the place of one that has grown long: each piece from
    /// where the one before ended, about so many bytes, `None` after the last. What is recorded
    /// meanwhile is appended to both logs.
    #[must_use]
    pub fn snapshot(&self, after: Option<&Cursor>, budget: usize) -> (Vec<u8>, Option<Cursor>) {
        let mut log = Log::default();
        if after.is_none() {
            log.writer(self.writer.incarnation, self.counter);
            self.root.into_iter().for_each(|root| log.root(root));
            log.held(self.is_held);
        }
        for (key, entry) in self.manifest.entries_after(after.map(|cursor| &cursor.0)) {
            log.entry(&key, &entry);
            if let Key::File(path) = &key
                && let Some(content) = self.on_disk(path)
            {
                log.disk(path, Some(content));
            }
            if log.pending.len() >= budget {
                return (log.pending, Some(Cursor(key)));
            }
        }
        // Paths that are no entry's own are few.
        for path in self.manifest.paths_of_no_entry() {
            log.disk(&path, self.on_disk(&path));
        }
        for (path, have) in self.disk.differing() {
            log.disk(path, have);
        }
        for (path, content) in self.work.planned() {
            log.plan(path, content);
        }
        (log.pending, None)
    }

    /// `None`: it cannot be a frame of ours.
    fn replay(&mut self, mut body: &[u8]) -> Option<()> {
        while !body.is_empty() {
            let (length, rest) = body.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (record, rest) = rest.split_at_checked(length)?;
            self.replay_record(record)?;
            body = rest;
        }
        Some(())
    }

    fn replay_record(&mut self, body: &[u8]) -> Option<()> {
        let (kind, rest) = body.split_first()?;
        if *kind == ENTRY {
            let (key, entry) = wire::decode_entry(rest).ok()?;
            let touched = self.manifest.merge(&key, &entry).ok()?;
            self.disk.touched(&self.manifest, &key, &touched);
            let ours = entry.seen().get(&self.writer).copied();
            self.counter = self.counter.max(ours.unwrap_or(0));
            return Some(());
        }
        let fields = Read::new(*kind, rest).ok()?;
        match *kind {
            WRITER => {
                self.writer.incarnation = fields.u64(1).ok()?;
                self.counter = self.counter.max(fields.u64(2).ok()?);
            }
            HELD => self.is_held = fields.array(1).ok()? != [0],
            ROOT => self.root = Some(RootId(fields.u64(1).ok()?)),
            DISK | PLAN => {
                let path = wire::file_name(fields.need(1).ok()?)?;
                let content = match fields.get(2) {
                    None => None,
                    Some(hash) => Some(ContentId {
                        hash: crate::sync::content::ContentHash(hash.try_into().ok()?),
                        size: fields.u64(3).ok()?,
                    }),
                };
                if *kind == PLAN {
                    self.work.plan(&path, content);
                } else {
                    self.disk.set(&self.manifest, &path, content);
                    self.work.unplan(&path);
                }
            }
            _ => {} // of a later version
        }
        Some(())
    }
}
