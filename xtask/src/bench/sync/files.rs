//! Folders of random files, and changes of them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use nix::unistd::syncfs;

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
/// Files of one folder.
const PER_FOLDER: u32 = 1000;
/// Bytes that are made, or copied, at once.
const PIECE: usize = 64 * 1024;

/// How a file is to differ from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// As many bytes in the middle are others.
    Overwrite,
    /// As many bytes more are in the middle.
    Insert,
}

/// Bytes that no compressor makes less of, the same for the same seed (xorshift64).
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common; zero would stay zero.
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let bytes = self.0.to_le_bytes();
            piece.copy_from_slice(bytes.get(..piece.len()).unwrap_or_default());
        }
    }

    /// Writes so many bytes.
    pub(super) fn write(&mut self, to: &mut impl Write, mut bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        while bytes > 0 {
            let length = usize::try_from(bytes).unwrap_or(PIECE).min(PIECE);
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.fill(piece);
            to.write_all(piece)?;
            bytes -= length as u64;
        }
        Ok(())
    }
}

/// Where below the root the file of this number is.
pub(super) fn name(number: u32) -> String {
    format!("d{:03}/f{number:06}", number / PER_FOLDER)
}

/// Fills a folder, and waits until it is on the disk.
pub(super) fn make(root: &Path, count: u32, size: u64) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for number in 0..count {
        let path = root.join(name(number));
        if number % PER_FOLDER == 0
            && let Some(folder) = path.parent()
        {
            fs::create_dir_all(folder)?;
        }
        Noise::new(u64::from(number)).write(&mut File::create(path)?, size)?;
    }
    settle(root)
}

/// Waits until the file system has written what it holds back, so that it does not do so while
/// something is measured.
pub(super) fn settle(folder: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(folder)?)?)
}

/// Writes to `to` what `from` is to become.
pub(super) fn changed(from: &Path, to: &Path, change: Change, bytes: u64) -> io::Result<()> {
    let mut source = File::open(from)?;
    let half = source.metadata()?.len() / 2;
    let mut target = File::create(to)?;
    io::copy(&mut Read::by_ref(&mut source).take(half), &mut target)?;
    let seed = match change {
        Change::Overwrite => u64::from(u32::MAX),
        Change::Insert => u64::from(u32::MAX) + 1,
    };
    Noise::new(seed).write(&mut target, bytes)?;
    if change == Change::Overwrite {
        source.seek(SeekFrom::Current(bytes.cast_signed()))?;
    }
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_what_was_asked_for_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for root in [&a, &b] {
            make(root, PER_FOLDER + 1, 100).unwrap();
        }
        for number in [0, 1, PER_FOLDER] {
            let read = |root: &Path| fs::read(root.join(name(number))).unwrap();
            assert_eq!(read(&a).len(), 100);
            assert_eq!(read(&a), read(&b));
        }
        let read = |number| fs::read(a.join(name(number))).unwrap();
        assert_ne!(read(0), read(1));
    }

    #[test]
    fn a_change_is_in_the_middle_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        Noise::new(7)
            .write(&mut File::create(&from).unwrap(), 4 * KIB)
            .unwrap();
        let old = fs::read(&from).unwrap();
        for (change, size) in [(Change::Overwrite, 4096), (Change::Insert, 4096 + 512)] {
            changed(&from, &to, change, 512).unwrap();
            let new = fs::read(&to).unwrap();
            assert_eq!(new.len(), size, "{change:?}");
            assert_eq!(new[..2048], old[..2048]);
            assert_ne!(new[2048..2560], old[2048..2560]);
            let rest = old.len() - (size - 2560);
            assert_eq!(new[2560..], old[rest..]);
        }
    }
}
