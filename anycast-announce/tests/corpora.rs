//! The corpora of the fuzz targets (`fuzz/`), replayed through the very functions that the
//! fuzzer calls; and each of their files cut short and with single bytes changed.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests: what goes wrong here fails them"
)]

#[path = "../../fuzz/entries.rs"]
mod entries;

/// Bytes that mean something to one of the protocols.
const TELLING: [u8; 8] = [0, 1, b'\n', b' ', b'-', b'+', b'%', 0xff];

fn replay(target: &str, entry: fn(&[u8])) {
    let count = anycast_labs::corpora::replay(target, &TELLING, entry).unwrap();
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
