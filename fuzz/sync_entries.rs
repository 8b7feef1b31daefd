//! What the fuzzer calls for file sync, and what an ordinary test calls with the committed corpora.
//! Each takes what a peer may send, or what a damaged disk may hold. None may panic, and what is
//! taken is said again in the same words.

use std::time::Instant;

use anycast_tftp::sync::manifest::Manifest;
use anycast_tftp::sync::replica::{Config, Restore, Start};
use anycast_tftp::sync::wire::{Message, decode_entry, encode_entry};

/// A frame of any kind, without its length.
pub(crate) fn sync_message(bytes: &[u8]) {
    let Ok(Some(message)) = Message::decode(bytes) else {
        return;
    };
    if let Ok(frame) = message.encode() {
        assert_eq!(Message::decode(&frame[4..]), Ok(Some(message)));
    }
}

/// An entry: what is taken merges, into the same in any order.
pub(crate) fn sync_entry(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut one = Manifest::new(100);
    let mut other = Manifest::new(100);
    let taken = [bytes, first, second].map(|bytes| decode_entry(bytes).ok());
    for (key, entry) in taken.iter().flatten() {
        assert_eq!(
            decode_entry(&encode_entry(key, entry)).as_ref(),
            Ok(&(key.clone(), entry.clone()))
        );
        let _ = one.merge(key, entry);
    }
    for (key, entry) in taken.iter().rev().flatten() {
        let _ = other.merge(key, entry);
    }
    assert_eq!(one.digest(), other.digest());
    assert_eq!(one.view(), other.view());
}

#[allow(clippy::disallowed_methods, reason = "a replica starts at any time")]
fn now() -> Instant {
    Instant::now()
}

/// The log of a replica: what can be read of it is read, whatever the pieces.
pub(crate) fn sync_log(bytes: &[u8]) {
    let piece = usize::from(bytes.first().copied().unwrap_or(0) % 7) + 1;
    let now = now();
    let read = |piece: usize| {
        let node = "n1".parse().ok()?;
        let start = Start {
            now,
            wall: 1,
            epoch: 1,
            incarnation: 1,
        };
        let mut restore = Restore::new(Config::new(node, Vec::new()), start).ok()?;
        for piece in bytes.chunks(piece.max(1)) {
            restore.handle_bytes(piece);
        }
        let (replica, restored) = restore.finish();
        Some((replica.manifest().digest(), restored.valid))
    };
    assert_eq!(read(bytes.len()), read(piece));
}
