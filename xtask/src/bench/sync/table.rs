//! What was measured, as it is printed.

use std::fmt::Write;

use super::super::subject::percentile;
use super::files::{Change, KIB, MIB};
use super::scenarios::{Batch, Measured, Sizes};

/// Bytes of a megabyte, as links and disks are counted.
const MB: f64 = 1e6;

/// `rsync`: its version.
pub(super) fn all(sizes: &Sizes, rsync: &str, all: &Measured) -> String {
    let mut text = "\n## Files that are the same at every node\n\n".to_owned();
    line(
        &mut text,
        format_args!(
            "Nodes are namespaces on one machine with one disk; the first has half of the CPUs, \
             the others share the rest. rsync ({rsync}) runs with `--fsync`, which leaves out \
             folders.\n"
        ),
    );
    copies(&mut text, all);
    scans(&mut text, all);
    changes(&mut text, sizes, all);
    fresh(&mut text, sizes, all);
    rescans(&mut text, sizes, all);
    for missing in &all.missing {
        line(&mut text, format_args!("\nNot measured: {missing}"));
    }
    text
}

/// Writing to a string does not fail.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{arguments}");
}

fn describe(batch: &Batch) -> String {
    format!("{} × {}", batch.count, bytes(batch.size))
}

fn bytes(size: u64) -> String {
    if size >= MIB {
        format!("{} MiB", size / MIB)
    } else {
        format!("{} KiB", size / KIB)
    }
}

fn copies(text: &mut String, all: &Measured) {
    *text += "### The first copy, until it is on the disk\n\n\
              | files | by | seconds | MB/s | CPU s, sender | CPU s, receiver | MB on the wire |\n\
              |---|---|--:|--:|--:|--:|--:|\n";
    for (subject, batch, cost) in &all.copies {
        let size = (u64::from(batch.count) * batch.size) as f64;
        line(
            text,
            format_args!(
                "| {} | {} | {:.2} | {:.0} | {:.2} | {:.2} | {:.1} |",
                describe(batch),
                subject.name(),
                cost.seconds,
                size / MB / cost.seconds,
                cost.origin,
                cost.receiver,
                cost.wire as f64 / MB
            ),
        );
    }
}

fn scans(text: &mut String, all: &Measured) {
    if all.scans.is_empty() {
        return;
    }
    *text += "\nBefore it can be copied from, `anycast-tftpd` hashes each file, once:\n\n\
              | files | seconds | MB/s | CPU s |\n|---|--:|--:|--:|\n";
    for (_, batch, cost) in &all.scans {
        let size = (u64::from(batch.count) * batch.size) as f64;
        line(
            text,
            format_args!(
                "| {} | {:.2} | {:.0} | {:.2} |",
                describe(batch),
                cost.seconds,
                size / MB / cost.seconds,
                cost.origin
            ),
        );
    }
}

fn changes(text: &mut String, sizes: &Sizes, all: &Measured) {
    line(
        text,
        format_args!(
            "\n### {} changed in the middle of {}\n\n\
             | change | by | seconds | CPU s, sender | CPU s, receiver | KiB on the wire | \
             ÷ change |\n|---|---|--:|--:|--:|--:|--:|",
            bytes(sizes.change),
            bytes(sizes.changed)
        ),
    );
    for (subject, change, cost) in &all.changes {
        let change = match change {
            Change::Overwrite => "overwritten",
            Change::Insert => "inserted",
        };
        line(
            text,
            format_args!(
                "| {change} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} |",
                subject.name(),
                cost.seconds,
                cost.origin,
                cost.receiver,
                cost.wire as f64 / KIB as f64,
                cost.wire as f64 / sizes.change as f64
            ),
        );
    }
    *text += "\nThe new version is renamed into place, and the time begins there: with the run of \
              rsync, or with what `anycast-tftpd` sees by itself.\n";
}

fn fresh(text: &mut String, sizes: &Sizes, all: &Measured) {
    line(
        text,
        format_args!(
            "\n### A new file of {}, until three others have it\n\n\
             | by | files | p50 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|",
            bytes(sizes.fresh.size)
        ),
    );
    for (by, times) in &all.fresh {
        line(
            text,
            format_args!(
                "| {} | {} | {:.1} | {:.1} | {:.1} |",
                by,
                times.len(),
                percentile(times, 50),
                percentile(times, 99),
                percentile(times, 100)
            ),
        );
    }
    *text += "\nFrom the close at the first node until the file is there by its name, or until a TFTP \
              client at each of the three has read all of it. rsync watches nothing: it is run at the three \
              nodes, at once, as soon as the file is closed, so its time is that of three runs \
              over few files and not of noticing a change.\n";
}

fn rescans(text: &mut String, sizes: &Sizes, all: &Measured) {
    line(
        text,
        format_args!(
            "\n### A look at {} that nobody changed\n\n\
             | by | seconds | CPU s | bytes of memory a file, without its path |\n\
             |---|--:|--:|--:|",
            describe(&sizes.tree)
        ),
    );
    for (subject, rescan) in &all.rescans {
        let or_none = |number: Option<f64>, digits: usize| {
            number.map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
        };
        line(
            text,
            format_args!(
                "| {} | {:.2} | {} | {} |",
                subject.name(),
                rescan.seconds,
                or_none(rescan.cpu, 2),
                or_none(rescan.memory, 0)
            ),
        );
    }
    *text += "\nrsync: `rsync -an`, which compares two nodes; `anycast-tftpd`: one node looks at \
              its own folder. Memory: what it holds with the files less what it holds without.\n";
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Subject;
    use super::super::scenarios::{Cost, Rescan};
    use super::*;

    #[test]
    fn the_table_holds_what_was_measured_and_says_what_was_not() {
        let sizes = Sizes::new(false);
        let cost = Cost {
            seconds: 2.0,
            origin: 0.5,
            receiver: 1.5,
            wire: 2 * MIB,
        };
        let mut measured = Measured::default();
        measured.copies.push((Subject::Daemon, sizes.large, cost));
        measured.changes.push((Subject::Ours, Change::Insert, cost));
        let times = (1..=100_u64).map(Duration::from_millis).collect();
        measured.fresh.push((Subject::Ours.name(), times));
        let rescan = Rescan {
            seconds: 1.0,
            cpu: None,
            memory: Some(200.4),
        };
        measured.rescans.push((Subject::Ours, rescan));
        measured.miss(
            Subject::Ssh.name(),
            "sshd is not installed: apt install openssh-server\nmore",
        );
        let text = all(&sizes, "3.2.7", &measured);
        for row in [
            "rsync (3.2.7) runs",
            "| 4 × 512 MiB | rsync, daemon | 2.00 | 1074 | 0.50 | 1.50 | 2.1 |\n",
            "1 MiB changed in the middle of 512 MiB",
            "| inserted | anycast-tftpd | 2.00 | 0.50 | 1.50 | 2048 | 2.00 |\n",
            "| anycast-tftpd | 100 | 50.0 | 99.0 | 100.0 |\n",
            "| anycast-tftpd | 1.00 | – | 200 |\n",
            "Not measured: rsync over ssh: sshd is not installed: apt install openssh-server\n",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
        assert!(!text.contains("hashes each file"), "{text}");
    }
}
