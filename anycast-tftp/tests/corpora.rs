//! The corpora of the fuzz targets for file sync and handoff (`fuzz/`), replayed through the very functions
//! that the fuzzer calls; and each of their files cut short and with single bytes changed.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used, reason = "tests: what goes wrong here fails them")]

#[path = "../../fuzz/handoff_entries.rs"]
#[allow(clippy::disallowed_methods, reason = "a time to begin with")]
mod handoff;

#[path = "../../fuzz/sync_entries.rs"]
#[allow(clippy::disallowed_methods, reason = "a time to begin with")]
mod entries;

/// Bytes that mean something in lengths, tags and names.
const TELLING: [u8; 8] = [0, 1, 3, b'.', b'/', b'\\', 0x7f, 0xff];

fn replay(target: &str, entry: fn(&[u8])) {
    let count = anycast_labs::corpora::replay(target, &TELLING, entry).unwrap();
    assert!(count >= 5, "{target}: only {count} files");
}

#[test]
fn handoff_message() {
    replay("handoff_message", handoff::handoff_message);
}

#[test]
fn handoff_node() {
    replay("handoff_node", handoff::handoff_node);
}

#[test]
fn sync_message() {
    replay("sync_message", entries::sync_message);
}

#[test]
fn sync_entry() {
    replay("sync_entry", entries::sync_entry);
}

#[test]
fn sync_log() {
    replay("sync_log", entries::sync_log);
}
