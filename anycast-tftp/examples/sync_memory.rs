//! Measures the memory that file sync takes for each file: `cargo run --release --features sync
//! --example sync_memory -- DIR [FILES]` fills `DIR`, which must be empty, with small files that
//! all differ, and scans them as a node does. A second run on the same folder says what a restart
//! takes. `-- DIR FILES same` makes all files the same.

#![allow(clippy::print_stdout, reason = "it is a program that prints")]
#![allow(clippy::disallowed_methods, reason = "it is a program that takes time")]

use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anycast_core::service::NodeName;
use anycast_tftp::sync::folder::{Folder, Found, ScanOptions, Scope};
use anycast_tftp::sync::replica::{Config, Output, Replica, Restore, RootId, Start};

/// Files of one folder, and found files that are told at once.
const SOME: usize = 500;
const LOG: &str = "log";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(args.first().ok_or("which folder?")?);
    let files = args.get(1).map_or(Ok(100_000), |text| text.parse())?;
    let (root, state) = (dir.join("root"), dir.join("state"));
    let is_new = !root.exists();
    if is_new {
        fill(&root, files, args.len() > 2)?;
        std::fs::create_dir_all(&state)?;
        // So old that no file needs to be hashed twice.
        std::thread::sleep(Duration::from_secs(1));
    }
    let before = resident()?;
    let folder = Folder::open(&root, &state)?;
    let mut node = Node::start(
        File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(state.join(LOG))?,
    )?;
    node.scan(&folder, true)?;
    folder.save()?;
    node.scan(&folder, false)?;
    let began = Instant::now();
    node.scan(&folder, false)?;
    let took = began.elapsed();
    let grown = resident()?.saturating_sub(before);
    let paths: usize = (0..files).map(|number| name(number).len()).sum();
    println!(
        "{}: {} bytes a file without its path, {took:?} for another scan of {} files",
        if is_new { "first start" } else { "restart" },
        grown.saturating_sub(paths as u64) / files.max(1) as u64,
        node.replica.manifest().len(),
    );
    Ok(())
}

/// A replica, as the driver has it.
struct Node {
    replica: Replica,
    log: File,
}

impl Node {
    fn start(mut log: File) -> Result<Self, Box<dyn Error>> {
        let config = Config::new(NodeName::new("node")?, Vec::new());
        let start = Start {
            now: Instant::now(),
            wall: wall(),
            epoch: 1,
            incarnation: 1,
        };
        let mut restore = Restore::new(config, start)?;
        let mut piece = vec![0; 128 << 10];
        loop {
            let length = log.read(&mut piece)?;
            if length == 0 {
                break;
            }
            restore.handle_bytes(&piece[..length]);
        }
        let (replica, _) = restore.finish();
        Ok(Self { replica, log })
    }

    fn scan(&mut self, folder: &Folder, is_full: bool) -> Result<(), Box<dyn Error>> {
        self.replica.handle_root(Some(RootId(1)), RootId(1));
        if is_full {
            self.replica.handle_scan_began();
        }
        let ticket = self.replica.ticket();
        let options = ScanOptions {
            is_full,
            quiet: Duration::ZERO,
        };
        let mut batch = Vec::new();
        let mut failed = Ok(());
        folder.scan(Scope::All, options, &mut |found| {
            batch.push(found);
            if batch.len() >= SOME && failed.is_ok() {
                failed = self.told(ticket, &mut batch);
            }
        })?;
        failed?;
        self.told(ticket, &mut batch)?;
        if is_full {
            self.replica.handle_scan_ended(Instant::now(), wall());
        }
        self.carry_out()
    }

    fn told(
        &mut self,
        ticket: anycast_tftp::sync::replica::Ticket,
        batch: &mut Vec<Found>,
    ) -> Result<(), Box<dyn Error>> {
        for found in batch.drain(..) {
            let replica = &mut self.replica;
            replica.handle_found(Instant::now(), wall(), ticket, &found.name, found.content);
        }
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(output) = self.replica.poll_output() {
            if let Output::Record(bytes) = output {
                self.log.write_all(&bytes)?;
                self.replica.handle_recorded(Instant::now(), Ok(()));
            }
        }
        Ok(())
    }
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

fn name(number: usize) -> String {
    format!("d{:03}/f{number:06}", number / SOME)
}

fn fill(root: &Path, files: usize, is_same: bool) -> Result<(), Box<dyn Error>> {
    for number in 0..files {
        let path = root.join(name(number));
        if let Some(folder) = path.parent().filter(|_| number % SOME == 0) {
            std::fs::create_dir_all(folder)?;
        }
        let text = if is_same {
            String::new()
        } else {
            number.to_string()
        };
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// What this process holds in memory, in bytes.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
}
