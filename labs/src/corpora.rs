//! The corpora of the fuzz targets (`fuzz/corpus`), replayed by ordinary tests through the very
//! functions that the fuzzer calls; and each of their files cut short and with single bytes changed.

use std::fs;
use std::io;
use std::path::Path;

/// Positions tried in a file; files are small.
const POSITIONS: usize = 400;

/// Calls `entry` with each file of the target's corpus, with its beginnings, and with each of `telling`,
/// bytes that mean something to what is fuzzed, at its positions. Says how many files there are.
///
/// # Errors
/// The corpus cannot be read.
pub fn replay(target: &str, telling: &[u8], entry: fn(&[u8])) -> io::Result<usize> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut count = 0;
    for file in fs::read_dir(&folder)? {
        let bytes = fs::read(file?.path())?;
        entry(&bytes);
        let step = bytes.len().div_ceil(POSITIONS).max(1);
        for at in (0..bytes.len()).step_by(step) {
            entry(&bytes[..at]);
            let mut changed = bytes.clone();
            for byte in telling {
                changed[at] = *byte;
                entry(&changed);
            }
        }
        count += 1;
    }
    Ok(count)
}
