//! The corpora of the fuzz targets for file sync (`fuzz/`), replayed through the very functions
//! that the fuzzer calls; and each of their files cut short and with single bytes changed.
#![cfg(feature = "sync")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them"
)]

use std::path::Path;

#[path = "../../fuzz/sync_entries.rs"]
#[allow(clippy::disallowed_methods, reason = "a time to begin with")]
mod entries;

/// Bytes that mean something in lengths, tags and names.
const TELLING: [u8; 8] = [0, 1, 3, b'.', b'/', b'\\', 0x7f, 0xff];
/// Positions tried in a file; files are small.
const POSITIONS: usize = 400;

fn replay(target: &str, entry: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        entry(&bytes);
        let step = bytes.len().div_ceil(POSITIONS).max(1);
        for at in (0..bytes.len()).step_by(step) {
            entry(&bytes[..at]);
            let mut changed = bytes.clone();
            for byte in TELLING {
                changed[at] = byte;
                entry(&changed);
            }
        }
        count += 1;
    }
    assert!(count >= 5, "{target}: only {count} files");
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
