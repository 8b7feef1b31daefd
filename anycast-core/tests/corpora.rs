//! The corpora of the fuzz targets (`fuzz/`), replayed through the very functions that the
//! fuzzer calls; and each of their files cut short and with single bytes changed.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them, and they start somewhere in real time"
)]

#[path = "../../fuzz/mesh_entries.rs"]
mod entries;

/// Bytes that mean something on the wire.
const TELLING: [u8; 8] = [0, 1, 2, 3, 5, 0x7f, 0x80, 0xff];

fn replay(target: &str, entry: fn(&[u8])) {
    let count = anycast_labs::corpora::replay(target, &TELLING, entry).unwrap();
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
