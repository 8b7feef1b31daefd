//! What is measured, of each subject in turn. What fails is noted, and the others go on.

mod ours;
mod rsync;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::subject::{failed, until};
use super::Subject;
use super::bed::{Bed, Node};
use super::files::{self, Change, KIB, MIB};
use crate::run::Failure;

/// The nodes that wait for a new file.
const READERS: usize = 3;
/// What the nodes hold before the first new file.
const SEED: u64 = 64 * KIB;

/// So many files of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) count: u32,
    pub(super) size: u64,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) small: Batch,
    pub(super) large: Batch,
    /// The file that is changed, and by how many bytes.
    pub(super) changed: u64,
    pub(super) change: u64,
    /// New files, one after the other.
    pub(super) fresh: Batch,
    /// The unchanged ones.
    pub(super) tree: Batch,
}

impl Sizes {
    pub(super) fn new(is_quick: bool) -> Self {
        let batch = |count, size| Batch { count, size };
        if is_quick {
            return Self {
                small: batch(200, 64 * KIB),
                large: batch(2, 8 * MIB),
                changed: 8 * MIB,
                change: 64 * KIB,
                fresh: batch(5, MIB),
                tree: batch(2000, KIB),
            };
        }
        Self {
            small: batch(10_000, 64 * KIB),
            large: batch(4, 512 * MIB),
            changed: 512 * MIB,
            change: MIB,
            fresh: batch(120, MIB),
            tree: batch(100_000, KIB),
        }
    }
}

/// What something took until it was on the receiver's disk.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// CPU seconds of the first node, and of the other.
    pub(super) origin: f64,
    pub(super) receiver: f64,
    /// Bytes at the receiver's link, in both directions.
    pub(super) wire: u64,
}

/// A look at files that nobody changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rescan {
    pub(super) seconds: f64,
    /// CPU seconds of all nodes, where they can be told from other work.
    pub(super) cpu: Option<f64>,
    /// Bytes of memory that each file costs, its path not counted.
    pub(super) memory: Option<f64>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) copies: Vec<(Subject, Batch, Cost)>,
    /// The first look at files, before they can be copied.
    pub(super) scans: Vec<(Subject, Batch, Cost)>,
    pub(super) changes: Vec<(Subject, Change, Cost)>,
    /// By whom and how; sorted.
    pub(super) fresh: Vec<(&'static str, Vec<Duration>)>,
    pub(super) rescans: Vec<(Subject, Rescan)>,
    pub(super) missing: Vec<String>,
}

impl Measured {
    pub(super) fn miss(&mut self, what: &str, why: &str) {
        let first = why.lines().next().unwrap_or_default();
        self.missing.push(format!("{what}: {first}"));
    }
}

/// Measures one subject, in what is wanted.
pub(super) fn measure(
    subject: Subject,
    folder: &Path,
    sizes: &Sizes,
    wanted: &dyn Fn(&str) -> bool,
    all: &mut Measured,
) {
    if wanted("copies") {
        copies(subject, folder, sizes, all);
    }
    if wanted("changes") {
        let changed = match subject {
            Subject::Ours => ours::change(folder, sizes),
            Subject::Daemon | Subject::Ssh => rsync::change(folder, subject, sizes),
        };
        let changed = noted(all, subject, "a change", changed);
        let changed = changed.into_iter().flatten();
        let changed = changed.map(|(change, cost)| (subject, change, cost));
        all.changes.extend(changed);
    }
    if wanted("fresh") {
        fresh(subject, folder, sizes, all);
    }
    if wanted("unchanged") {
        unchanged(subject, folder, sizes, all);
    }
}

fn copies(subject: Subject, folder: &Path, sizes: &Sizes, all: &mut Measured) {
    for batch in [sizes.small, sizes.large] {
        let copied = match subject {
            Subject::Ours => ours::copy(folder, batch),
            Subject::Daemon | Subject::Ssh => {
                rsync::copy(folder, subject, batch).map(|cost| (None, cost))
            }
        };
        let what = format!("{} × {} KiB", batch.count, batch.size / KIB);
        if let Some((scan, cost)) = noted(all, subject, &what, copied) {
            all.copies.push((subject, batch, cost));
            all.scans.extend(scan.map(|scan| (subject, batch, scan)));
        }
    }
}

fn fresh(subject: Subject, folder: &Path, sizes: &Sizes, all: &mut Measured) {
    let fresh = match subject {
        Subject::Ours => ours::fresh(folder, sizes.fresh),
        Subject::Daemon | Subject::Ssh => {
            rsync::fresh(folder, subject, sizes.fresh).map(|times| vec![(subject.name(), times)])
        }
    };
    let fresh = noted(all, subject, "new files", fresh);
    for (by, mut times) in fresh.into_iter().flatten() {
        times.sort();
        all.fresh.push((by, times));
    }
}

fn unchanged(subject: Subject, folder: &Path, sizes: &Sizes, all: &mut Measured) {
    let rescanned = match subject {
        Subject::Ours => ours::rescan(folder, sizes.tree).map(Some),
        Subject::Daemon => rsync::rescan(folder, subject, sizes.tree).map(Some),
        // Over ssh the comparison is the same one.
        Subject::Ssh => Ok(None),
    };
    if let Some(Some((scan, rescan))) = noted(all, subject, "unchanged files", rescanned) {
        all.rescans.push((subject, rescan));
        let scan = scan.map(|scan| (subject, sizes.tree, scan));
        all.scans.extend(scan);
    }
}

fn noted<T>(
    all: &mut Measured,
    subject: Subject,
    what: &str,
    outcome: Result<T, Failure>,
) -> Option<T> {
    outcome
        .inspect_err(|error| {
            all.miss(&format!("{}, {what}", subject.name()), &error.to_string());
        })
        .ok()
}

/// A network of so many nodes; the first one holds these files.
fn bed(folder: &Path, nodes: usize, batch: Batch) -> Result<Bed, Failure> {
    let bed = Bed::build(folder, nodes)?;
    files::make(&bed.nodes[0].root(), batch.count, batch.size)
        .map_err(|e| failed("the files", e))?;
    Ok(bed)
}

/// What a copy of the changed file is to be made with.
fn large(sizes: &Sizes) -> Batch {
    Batch {
        count: 1,
        size: sizes.changed,
    }
}

/// Makes the next version of the first node's file, beside its root and on the disk.
fn next(origin: &Node, change: Change, bytes: u64) -> Result<(PathBuf, PathBuf), Failure> {
    let (to, file) = (
        origin.folder.join("next"),
        origin.root().join(files::name(0)),
    );
    files::changed(&file, &to, change, bytes).map_err(|e| failed("a change", e))?;
    Ok((to, file))
}

/// Writes a new file at the first node; when it was closed, and its name.
fn write(origin: &Node, number: u32, size: u64) -> Result<(Instant, String), Failure> {
    let name = format!("new-{number}");
    let written = File::create(origin.root().join(&name)).and_then(|mut file| {
        files::Noise::new(u64::from(u32::MAX - number)).write(&mut file, size)
    });
    written.map_err(|e| failed(&name, e))?;
    Ok((Instant::now(), name))
}

/// Waits until all other nodes have a whole file by its name; for how long.
fn await_there(bed: &Bed, since: Instant, name: &str, size: u64) -> Result<Duration, Failure> {
    let mut lacking: Vec<_> = bed.nodes[1..].iter().map(|n| n.root().join(name)).collect();
    let there = until(name, || {
        let has = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() == size);
        lacking.retain(|path| !has(path));
        lacking.is_empty()
    })?;
    Ok(there.saturating_duration_since(since))
}

/// Fails where two nodes do not hold the same bytes under the same names.
fn compare(bed: &Bed) -> Result<(), Failure> {
    let [a, b, ..] = &bed.nodes[..] else {
        return Err(Failure::new("there are no two nodes"));
    };
    let output = Command::new("diff")
        .args(["-rq", "-x", ".anycast-tftp-sync*"])
        .args([a.root(), b.root()])
        .output()
        .map_err(|e| failed("diff (diffutils)", e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(
        "the copy differs",
        String::from_utf8_lossy(&output.stdout),
    ))
}
