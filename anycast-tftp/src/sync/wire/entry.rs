//! Entries of the manifest as bytes, canonically: equal entries are equal bytes.

use super::{
    ContentHash, ContentId, Dot, Entry, Fields, FileName, Generation, Key, MAX_COUNTER, NodeName,
    PAGES, Read, Version, WireError, Writer,
};

const FILE: u8 = 1;
const GROUP: u8 = 2;
const SEEN: u8 = 3;
const LIVE: u8 = 4;
/// The bytes of a content: hash and size.
const CONTENT: usize = 40;

/// The name of a file that is spelled as this server spells it, and no other way.
pub(in crate::sync) fn file_name(bytes: &[u8]) -> Option<FileName> {
    let name = FileName::from_wire(bytes).ok()?;
    (name.as_str().as_bytes() == bytes).then_some(name)
}

/// The bytes of a key and its entry. The digest of a manifest is the sum of their hashes.
#[must_use]
pub fn encode_entry(key: &Key, entry: &Entry) -> Vec<u8> {
    let mut fields = Fields(Vec::new());
    match key {
        Key::File(name) => fields.put(FILE, name.as_str().as_bytes()),
        Key::Group(name) => fields.put(GROUP, name.as_str().as_bytes()),
    }
    for (writer, counter) in entry.seen() {
        let numbers = [writer.incarnation.to_be_bytes(), counter.to_be_bytes()].concat();
        fields.put(SEEN, &[&numbers, writer.node.as_str().as_bytes()].concat());
    }
    for (dot, version) in entry.live() {
        // A live dot's writer has been seen: its place in the list names it.
        let place = entry.seen().keys().position(|writer| *writer == dot.writer);
        let place = u16::try_from(place.unwrap_or(usize::MAX)).unwrap_or(u16::MAX);
        let head = [&place.to_be_bytes()[..], &dot.counter.to_be_bytes()].concat();
        let version = match version {
            Version::File(content) => content_bytes(content).to_vec(),
            Version::Group(generation) => encode_generation(generation),
        };
        fields.put(LIVE, &[head, version].concat());
    }
    fields.0
}

/// About the length of [`encode_entry`], without encoding.
pub(in crate::sync) fn entry_size(key: &Key, entry: &Entry) -> usize {
    let name = match key {
        Key::File(name) => name.as_str().len(),
        Key::Group(name) => name.as_str().len(),
    };
    let seen = entry.seen().keys();
    let seen: usize = seen.map(|writer| 21 + writer.node.as_str().len()).sum();
    let live = entry.live().values().map(|version| match version {
        Version::File(_) => 15 + CONTENT,
        Version::Group(generation) => {
            let members = generation.members().iter();
            15 + members
                .map(|(name, _)| 2 + name.as_str().len() + CONTENT)
                .sum::<usize>()
        }
    });
    5 + name + seen + live.sum::<usize>()
}

/// A key and its entry.
///
/// # Errors
/// [`WireError`]: among others for a name that is not normal, a dot that has not been seen, a
/// version that is not of its key, a counter of 0, which would be one that was seen and yet none, or
/// above [`MAX_COUNTER`].
pub fn decode_entry(bytes: &[u8]) -> Result<(Key, Entry), WireError> {
    let fields = Read::new(PAGES, bytes)?;
    let key = match fields.get(GROUP) {
        None => {
            let name = file_name(fields.need(FILE)?);
            Key::File(name.ok_or_else(|| fields.malformed(FILE))?)
        }
        Some(_) if fields.get(FILE).is_some() => return Err(fields.malformed(GROUP)),
        Some(_) => Key::Group(fields.text(GROUP)?),
    };
    let mut entry = Entry::default();
    let mut writers = Vec::new();
    for value in fields.all(SEEN) {
        let (writer, counter) = seen(value).ok_or_else(|| fields.malformed(SEEN))?;
        writers.push(writer.clone());
        let is_good = (1..=MAX_COUNTER).contains(&counter);
        if !is_good || entry.seen.insert(writer, counter).is_some() {
            return Err(fields.malformed(SEEN));
        }
    }
    for value in fields.all(LIVE) {
        let (dot, version) = live(value, &key, &writers).ok_or_else(|| fields.malformed(LIVE))?;
        if dot.counter == 0 || !entry.has_seen(&dot) || entry.live.insert(dot, version).is_some() {
            return Err(fields.malformed(LIVE));
        }
    }
    Ok((key, entry))
}

fn seen(value: &[u8]) -> Option<(Writer, u64)> {
    let (incarnation, rest) = value.split_first_chunk()?;
    let (counter, node) = rest.split_first_chunk()?;
    let node: NodeName = std::str::from_utf8(node).ok()?.parse().ok()?;
    let incarnation = u64::from_be_bytes(*incarnation);
    Some((Writer { node, incarnation }, u64::from_be_bytes(*counter)))
}

fn live(value: &[u8], key: &Key, writers: &[Writer]) -> Option<(Dot, Version)> {
    let (place, rest) = value.split_first_chunk()?;
    let (counter, rest) = rest.split_first_chunk()?;
    let dot = Dot {
        counter: u64::from_be_bytes(*counter),
        writer: writers
            .get(usize::from(u16::from_be_bytes(*place)))?
            .clone(),
    };
    let version = match key {
        Key::File(_) => Version::File(content(rest)?),
        Key::Group(_) => Version::Group(decode_generation(rest)?),
    };
    Some((dot, version))
}

pub(in crate::sync) fn encode_generation(generation: &Generation) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in generation.members() {
        let name = name.as_str().as_bytes();
        // A name is at most 1024 bytes.
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_be_bytes());
        bytes.extend(name);
        bytes.extend(content_bytes(content));
    }
    bytes
}

fn decode_generation(mut rest: &[u8]) -> Option<Generation> {
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (name, after) = after.split_at_checked(length)?;
        let (value, after) = after.split_at_checked(CONTENT)?;
        members.push((file_name(name)?, content(value)?));
        rest = after;
    }
    Generation::new(members)
}

fn content_bytes(content: &ContentId) -> [u8; CONTENT] {
    let mut bytes = [0; CONTENT];
    bytes[..32].copy_from_slice(&content.hash.0);
    bytes[32..].copy_from_slice(&content.size.to_be_bytes());
    bytes
}

fn content(value: &[u8]) -> Option<ContentId> {
    let (hash, size) = value.split_first_chunk()?;
    Some(ContentId {
        hash: ContentHash(*hash),
        size: u64::from_be_bytes(size.try_into().ok()?),
    })
}
