//! An entry as it is kept in memory: small in the common case, one version by one writer.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use super::{Dot, Entry, Version, Writer};
use crate::sync::content::{ContentHash, ContentId};

/// Writers by number.
#[derive(Debug, Default)]
pub(super) struct Writers {
    list: Vec<Writer>,
    numbers: BTreeMap<Writer, u16>,
}

impl Writers {
    /// `None`: there are 65536 others; such an entry is kept in full.
    fn number(&mut self, writer: &Writer) -> Option<u16> {
        if let Some(number) = self.numbers.get(writer) {
            return Some(*number);
        }
        let number = u16::try_from(self.list.len()).ok()?;
        self.list.push(writer.clone());
        self.numbers.insert(writer.clone(), number);
        Some(number)
    }

    fn get(&self, number: u16) -> Option<&Writer> {
        self.list.get(usize::from(number))
    }
}

/// An entry and the number of its last change: 56 bytes, and a million of them are kept.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) seq: u64,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// One live version, and only its own writer seen, with its counter.
    One {
        counter: NonZeroU64,
        hash: ContentHash,
        size: Size,
        writer: u16,
    },
    Many(Box<Entry>),
}

/// Below 2^48, little endian.
#[derive(Debug, Clone, Copy)]
struct Size([u8; 6]);

impl Size {
    fn new(size: u64) -> Option<Self> {
        let [a, b, c, d, e, f, 0, 0] = size.to_le_bytes() else {
            return None;
        };
        Some(Self([a, b, c, d, e, f]))
    }

    fn get(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

impl Slot {
    pub(super) fn new(seq: u64, entry: Entry, writers: &mut Writers) -> Self {
        let kept = small(&entry, writers).unwrap_or_else(|| Kept::Many(Box::new(entry)));
        Self { seq, kept }
    }

    pub(super) fn entry(&self, writers: &Writers) -> Entry {
        match &self.kept {
            Kept::Many(entry) => entry.as_ref().clone(),
            Kept::One {
                writer,
                counter,
                size,
                hash,
            } => {
                let mut entry = Entry::default();
                if let Some(writer) = writers.get(*writer) {
                    let dot = Dot {
                        counter: counter.get(),
                        writer: writer.clone(),
                    };
                    let (hash, size) = (*hash, size.get());
                    entry.write(dot, Version::File(ContentId { hash, size }));
                }
                entry
            }
        }
    }

    /// The content of a file that has one.
    pub(super) fn content(&self) -> Option<ContentId> {
        match &self.kept {
            Kept::One { hash, size, .. } => {
                let (hash, size) = (*hash, size.get());
                Some(ContentId { hash, size })
            }
            Kept::Many(entry) => match entry.winner() {
                Some(Version::File(content)) => Some(*content),
                Some(Version::Group(_)) | None => None,
            },
        }
    }

    pub(super) fn has_conflicts(&self) -> bool {
        match &self.kept {
            Kept::One { .. } => false,
            Kept::Many(entry) => entry.live.len() > 1,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        match &self.kept {
            Kept::One { .. } => true,
            Kept::Many(entry) => !entry.live.is_empty(),
        }
    }

    /// The content of a group's file in the generation that has the names.
    pub(super) fn member(&self, name: &crate::store::FileName) -> Option<ContentId> {
        match &self.kept {
            Kept::One { .. } => None,
            Kept::Many(entry) => match entry.winner() {
                Some(Version::Group(generation)) => generation.content(name),
                Some(Version::File(_)) | None => None,
            },
        }
    }
}

const _: () = assert!(size_of::<Slot>() == 56, "each file has one");

fn small(entry: &Entry, writers: &mut Writers) -> Option<Kept> {
    let (dot, version) = entry.live.first_key_value()?;
    let is_one = entry.live.len() == 1 && entry.seen.len() == 1;
    let is_last = entry.seen.get(&dot.writer) == Some(&dot.counter);
    let Version::File(content) = version else {
        return None;
    };
    let (true, true) = (is_one, is_last) else {
        return None;
    };
    Some(Kept::One {
        counter: NonZeroU64::new(dot.counter)?,
        hash: content.hash,
        size: Size::new(content.size)?,
        writer: writers.number(&dot.writer)?,
    })
}
