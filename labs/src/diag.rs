//! What to print when a lab failed: the state of each namespace and the last
//! lines of each log.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::{fs, thread};

use crate::isolate::work_dir;
use crate::netns::Netns;

/// Lines of each log that are printed.
const LOG_LINES: usize = 40;

/// What is asked in each namespace.
const QUESTIONS: [&str; 5] = [
    "ip addr",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -s link",
    "nft list ruleset",
];

/// The state of `namespace` as `ip` and `nft` show it.
#[must_use]
pub fn describe(namespace: &Netns) -> String {
    let mut text = String::new();
    for line in QUESTIONS {
        let answer = namespace
            .run(line)
            .unwrap_or_else(|error| error.to_string());
        section(&mut text, namespace.name(), line, &answer);
    }
    text
}

/// Append what was answered where to which question.
pub fn section(text: &mut String, place: &str, question: &str, answer: &str) {
    let _ = writeln!(text, "--- {place}: {question}\n{}", answer.trim_end());
}

/// The last lines of every `*.log` file in the lab's folder.
#[must_use]
pub fn logs() -> String {
    let mut text = String::new();
    let entries = fs::read_dir(work_dir()).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
    {
        let _ = writeln!(
            text,
            "--- last lines of {}\n{}",
            path.display(),
            last_lines(path)
        );
    }
    text
}

fn last_lines(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Print `report()` to standard error when dropped by a panic: keep it as the
/// *last* field or local made, so that what it describes still lives.
#[derive(Debug)]
pub struct OnPanic<F: Fn() -> String>(pub F);

impl<F: Fn() -> String> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = writeln!(io::stderr(), "{}\n{}", (self.0)(), logs());
        }
    }
}
