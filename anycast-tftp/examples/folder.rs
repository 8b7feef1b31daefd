//! Measures the folder of file sync on a disk: `cargo run --release --features sync --example folder
//! -- DIR [FILES]` fills `DIR`, which must be empty, with files, and says what it took. A second run on the same folder
//! says what memory a restart takes.

#![allow(clippy::print_stdout, reason = "it is a program that prints")]
#![allow(clippy::disallowed_methods, reason = "it is a program that takes time")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anycast_tftp::store::FileName;
use anycast_tftp::sync::content::{ContentHash, ContentId};
use anycast_tftp::sync::folder::{Folder, Put, ScanOptions, ScanReport, Scope};

const INSTALLS: usize = 10_000;
const INSTALL_SIZE: usize = 64 << 10;
/// How many are brought in and installed together.
const BATCH: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which folder?")?);
    let files = match args.next() {
        Some(text) => text.to_string_lossy().parse()?,
        None => 100_000,
    };
    let (root, state) = (dir.join("root"), dir.join("state"));
    if root.exists() {
        return again(&root, &state);
    }
    fill(&root, files)?;
    let folder = Folder::open(&root, &state)?;
    timed("first scan", || scan(&folder))?;
    // The files are young: they are hashed once more.
    timed("second scan", || scan(&folder))?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    timed("third scan", || scan(&folder))?;
    timed("rescan", || scan(&folder))?;
    timed("save", || Ok(folder.save()?))?;
    drop(folder);
    let folder = timed("open", || Ok(Folder::open(&root, &state)?))?;
    timed("rescan", || scan(&folder))?;
    timed("install of 10,000 files of 64 KiB", || install(&folder))?;
    timed("rescan", || scan(&folder))?;
    Ok(folder.save()?)
}

/// A process that did nothing else, so that its memory is that of what it knows.
fn again(root: &Path, state: &Path) -> Result<(), Box<dyn Error>> {
    let before = resident()?;
    let folder = timed("open", || Ok(Folder::open(root, state)?))?;
    let grown = resident()?.saturating_sub(before);
    println!(
        "memory: {} bytes a file, paths included",
        grown / folder.files().max(1) as u64
    );
    timed("rescan", || scan(&folder))
}

fn timed<T>(
    what: &str,
    work: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let start = Instant::now();
    let done = work()?;
    println!("{what}: {:?}", start.elapsed());
    Ok(done)
}

fn fill(root: &Path, files: usize) -> Result<(), Box<dyn Error>> {
    for number in 0..files {
        let folder = root.join(format!("hosts/{:03}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&folder)?;
        }
        let text = format!("# host {number}\n").repeat(64);
        std::fs::write(folder.join(format!("host-{number:06}.cfg")), text)?;
    }
    Ok(())
}

fn scan(folder: &Folder) -> Result<(), Box<dyn Error>> {
    let mut found = 0;
    let mut count = |_| found += 1;
    let report: ScanReport = folder.scan(Scope::All, ScanOptions::default(), &mut count)?;
    let ScanReport { files, hashed, .. } = report;
    println!("{files} files, {hashed} hashed, {found} changed");
    Ok(())
}

fn install(folder: &Folder) -> Result<(), Box<dyn Error>> {
    for first in (0..INSTALLS).step_by(BATCH) {
        let mut staged = Vec::new();
        let mut puts = Vec::new();
        for number in first..(first + BATCH).min(INSTALLS) {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(INSTALL_SIZE, 7);
            let content = ContentId {
                hash: ContentHash(*blake3::hash(&bytes).as_bytes()),
                size: bytes.len() as u64,
            };
            let mut stage = folder.stage(content)?;
            stage.write(&bytes)?;
            staged.push(stage.finish()?);
            let name = format!("new/{:02}/file-{number}", number / 1000);
            puts.push(Put {
                name: FileName::from_wire(name.as_bytes())?,
                content,
                expecting: None,
                keeps_old: false,
                keeps_new: false,
            });
        }
        for answer in folder.sync_all(staged) {
            answer?;
        }
        for answer in folder.install(&puts) {
            answer?;
        }
    }
    Ok(())
}

/// Bytes of memory of this process.
fn resident() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text.split(' ').nth(1).ok_or("no statm")?;
    Ok(pages.parse::<u64>()? * 4096)
}
