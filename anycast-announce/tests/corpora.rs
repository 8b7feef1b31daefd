//! The corpora of the fuzz targets (`fuzz/`), replayed through the very functions that the
//! fuzzer calls; and each of their files cut short and with single bytes changed.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them"
)]

use std::path::Path;

#[path = "../../fuzz/entries.rs"]
mod entries;

/// Bytes that mean something to one of the protocols.
const TELLING: [u8; 8] = [0, 1, b'\n', b' ', b'-', b'+', b'%', 0xff];
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
fn bird_reply() {
    replay("bird_reply", entries::bird_reply);
}

#[test]
fn bird_export() {
    replay("bird_export", entries::bird_export);
}

#[test]
fn frr_vty() {
    replay("frr_vty", entries::frr_vty);
}

#[test]
fn frr_advertised() {
    replay("frr_advertised", entries::frr_advertised);
}
