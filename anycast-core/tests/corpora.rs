//! The corpora of the fuzz targets (`fuzz/`), replayed through the very functions that the
//! fuzzer calls; and each of their files cut short and with single bytes changed.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them, and they start somewhere in real time"
)]

use std::path::Path;

#[path = "../../fuzz/mesh_entries.rs"]
mod entries;

/// Bytes that mean something on the wire.
const TELLING: [u8; 8] = [0, 1, 2, 3, 5, 0x7f, 0x80, 0xff];
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
fn mesh_message() {
    replay("mesh_message", entries::mesh_message);
}

#[test]
fn mesh_stream() {
    replay("mesh_stream", entries::mesh_stream);
}

#[test]
fn mesh_engine() {
    replay("mesh_engine", entries::mesh_engine);
}
