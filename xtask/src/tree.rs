//! Rules that no compiler checks: nothing unfinished, no dead link between documents, a reason
//! for each dependency, and a report of files that have grown long.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Failure, Runner};

/// Marks of unfinished work. Split, so that this list does not find itself.
const UNFINISHED: [&str; 8] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("db", "g!("),
    concat!("#[ign", "ore"),
    concat!("<<<<", "<<< "),
];

/// Longest Rust file without its tests that needs no second look, in lines.
const LONG: usize = 500;

/// File name endings that are read as text.
const TEXT: [&str; 10] = [
    "rs", "md", "toml", "service", "conf", "sh", "yml", "yaml", "run", "txt",
];

pub(crate) fn check(runner: &mut Runner) -> Result<(), Failure> {
    let root = runner.root().to_owned();
    let files = files(runner)?;
    let mut faults = Vec::new();
    let mut long = Vec::new();
    for file in &files {
        let is_text = file
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| TEXT.contains(&e));
        if !is_text && !file.ends_with(".ci/run") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root.join(file)) else {
            faults.push(format!("{}: not readable as UTF-8 text", file.display()));
            continue;
        };
        faults.extend(unfinished(file, &text));
        match file.extension().and_then(|e| e.to_str()) {
            Some("rs") if !is_test(file) => long.extend(length(&text).map(|lines| (lines, file))),
            Some("md") => faults.extend(dead_links(&root, file, &text)),
            _ => {}
        }
    }
    faults.extend(unexplained(&root));
    long.sort();
    for (lines, file) in long.iter().rev() {
        println!(
            "    long: {} has {lines} lines besides tests (above {LONG})",
            file.display()
        );
    }
    for fault in &faults {
        println!("    {fault}");
    }
    match faults.len() {
        0 => Ok(()),
        n => Err(Failure::new(format!(
            "{n} faults in the tree, listed above"
        ))),
    }
}

/// What git tracks or would track, and exists.
fn files(runner: &Runner) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut list = Command::new("git");
    list.current_dir(runner.root());
    list.args([
        "-c",
        "core.quotePath=false",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let (status, listing) = runner.output(list)?;
    if !status.success() {
        return Err(Failure::new(
            "`git ls-files` failed; verify needs git and a clone of the repository",
        ));
    }
    let exists = |file: &PathBuf| runner.root().join(file).is_file();
    Ok(listing.lines().map(PathBuf::from).filter(exists).collect())
}

fn unfinished(file: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for mark in UNFINISHED {
            if line.contains(mark) {
                found.push(format!(
                    "{}:{number}: {mark:?} marks unfinished work",
                    file.display()
                ));
            }
        }
    }
    found
}

/// Whether a file holds nothing but tests, by its name.
fn is_test(file: &Path) -> bool {
    let in_tests = file.components().any(|part| part.as_os_str() == "tests");
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    in_tests || stem.is_some_and(|stem| ["tests", "proptests"].contains(&stem))
}

/// The lines above the tests, when there are more than [`LONG`].
fn length(text: &str) -> Option<usize> {
    let lines = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    (lines > LONG).then_some(lines)
}

/// Relative links to files that do not exist.
fn dead_links(root: &Path, file: &Path, text: &str) -> Vec<String> {
    let folder = root
        .join(file)
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default();
    let mut dead = Vec::new();
    for part in text.split("](").skip(1) {
        let Some((target, _)) = part.split_once(')') else {
            continue;
        };
        let target = target.split('#').next().unwrap_or_default();
        let foreign = target.is_empty() || target.contains(':') || target.contains(' ');
        if !foreign && !folder.join(target).exists() {
            dead.push(format!(
                "{}: the link to {target} leads nowhere",
                file.display()
            ));
        }
    }
    dead
}

/// Dependencies of the workspace that ARCHITECTURE.md does not give a reason for.
fn unexplained(root: &Path) -> Vec<String> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let (manifest, reasons) = (read("Cargo.toml"), read("ARCHITECTURE.md"));
    dependencies(&manifest)
        .filter(|name| !reasons.contains(&format!("| `{name}` |")))
        .map(|name| format!("ARCHITECTURE.md: \"Dependencies\" has no reason for {name}"))
        .collect()
}

/// The names in `[workspace.dependencies]`, ours excluded.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with("anycast-") && !name.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_is_found() {
        let text = format!("fine\n// {} later\n", UNFINISHED[0]);
        let found = unfinished(Path::new("a.rs"), &text);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:2: "), "{found:?}");
        assert!(unfinished(Path::new("a.rs"), "todos los santos").is_empty());
    }

    #[test]
    fn tests_do_not_count_as_length() {
        for file in ["a/tests/b.rs", "a/src/b/tests.rs", "a/src/b/proptests.rs"] {
            assert!(is_test(Path::new(file)), "{file}");
        }
        assert!(!is_test(Path::new("xtask/src/test.rs")));
        let code = "line\n".repeat(LONG);
        assert_eq!(length(&format!("{code}#[cfg(test)]\n{code}")), None);
        assert_eq!(length(&format!("{code}line\n")), Some(LONG + 1));
    }

    #[test]
    fn every_dependency_of_the_workspace_is_looked_for() {
        let manifest = "[workspace]\n[workspace.dependencies]\nanycast-core = 1\n# a = b\n\n\
                        hyper = { version = \"1\" }\nnix = \"0\"\n\n[profile.test]\nx = 1\n";
        assert_eq!(dependencies(manifest).collect::<Vec<_>>(), ["hyper", "nix"]);
    }

    #[test]
    fn dead_links_are_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there.md"), "").unwrap();
        let text = "[a](there.md#x) [b](https://example.net/) [c](#here) [d](gone.md)";
        let dead = dead_links(folder.path(), Path::new("README.md"), text);
        assert_eq!(dead, ["README.md: the link to gone.md leads nowhere"]);
    }
}
