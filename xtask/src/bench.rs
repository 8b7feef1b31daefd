//! `cargo xtask bench [machine|reaction|scale|announce]`: what guarding costs and how fast it acts, in
//! numbers, beside other health checkers of the field.
//!
//! It builds release binaries and runs them in namespaces of its own, with the CPUs divided:
//! what is measured on the first, the guarded service and the bench on the others. The table is
//! printed and written to `target/bench/`. Nothing here is part of the tests.

mod announce;
mod reaction;
mod scale;
mod subject;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anycast_labs::isolate::{self, Entered, Isolation};

use crate::run::{Failure, Runner};

/// The mark of the copy of this program inside the namespaces.
pub(crate) const MARK: &str = "bench";
/// How long one part may take.
const LIMIT: Duration = Duration::from_secs(40 * 60);
const PARTS: [&str; 4] = ["machine", "reaction", "scale", "announce"];
/// Set for the process inside that measures.
const WORKER: &str = "BENCH_WORKER";
/// Names the Python whose packages include anycast-healthchecker.
const PYTHON: &str = "BENCH_PYTHON";

/// Runs one part, or all.
pub(crate) fn run(mut runner: Runner, part: Option<&str>) -> Result<(), Failure> {
    if let Some(part) = part
        && !PARTS.contains(&part)
    {
        return Err(Failure::usage(part));
    }
    let folder = runner.root().join("target/bench");
    fs::create_dir_all(&folder).map_err(|e| Failure::new(format!("{}: {e}", folder.display())))?;
    let wanted = |name: &str| part.is_none_or(|part| part == name);
    let mut table = machine_line();
    if wanted("machine") {
        let mut lines = Vec::new();
        runner.phase("machine", |runner| {
            let arguments = [
                "bench",
                "--locked",
                "--workspace",
                "--all-features",
                "--bench",
                "machine",
            ];
            runner.run_watched(runner.cargo(&arguments), &mut |line| {
                if line.starts_with("machine/") || line.contains("time:") || line.contains("thrpt:")
                {
                    lines.push(line.trim_end().to_owned());
                }
            })
        })?;
        table += &format!(
            "\n## One machine (criterion)\n\n```text\n{}\n```\n",
            lines.join("\n")
        );
    }
    if PARTS.into_iter().skip(1).any(wanted) {
        runner.phase("release build", |runner| {
            let mut build = runner.cargo(&["build", "--locked", "--release", "--workspace"]);
            build.args(["--all-features", "--bin", "anycast-guard"]);
            runner.run(build)
        })?;
        let guard = runner.root().join("target/release/anycast-guard");
        for name in PARTS.into_iter().skip(1).filter(|name| wanted(name)) {
            runner.phase(name, |_| {
                table += &isolated(name, &guard)?;
                Ok(())
            })?;
        }
    }
    let path = folder.join(format!("{}.md", part.unwrap_or("all")));
    fs::write(&path, &table).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    println!("\n{table}\nwritten to {}", path.display());
    Ok(())
}

fn isolated(name: &str, guard: &PathBuf) -> Result<String, Failure> {
    let mut output = Vec::new();
    let status = Isolation::new([MARK, name])
        .mark(MARK)
        .env("BENCH_GUARD", guard)
        .start()
        .and_then(|inside| inside.wait(Some(LIMIT), |bytes| output.extend_from_slice(bytes)))
        .map_err(|error| Failure::new(error.to_string()))?;
    let output = String::from_utf8_lossy(&output).into_owned();
    if status.success() {
        return Ok(output);
    }
    Err(Failure::new(format!("{name}: {}", output.trim())))
}

/// The copy of this program inside the namespaces.
pub(crate) fn inside() -> ExitCode {
    let part = std::env::args().nth(2).unwrap_or_default();
    match isolate::reexec([MARK, &part]) {
        Ok(Entered::Inside) => {}
        Ok(Entered::Done(_)) => return fail("it did not stay inside"),
        Err(error) => return fail(error),
    }
    // exabgp's health checker ends at once where its parent is the first process.
    let child = std::env::current_exe().and_then(|program| {
        let mut child = Command::new(program);
        child
            .args([MARK, &part])
            .env(WORKER, "1")
            .stdin(std::process::Stdio::null());
        child.status()
    });
    match child {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(error),
    }
}

/// Whether this is the process inside that measures.
pub(crate) fn is_worker() -> bool {
    std::env::var_os(WORKER).is_some()
}

/// Measures, and prints the table.
pub(crate) fn worker() -> ExitCode {
    let measured = match std::env::args().nth(2).as_deref() {
        Some("reaction") => reaction::run(),
        Some("announce") => announce::run(),
        _ => scale::run(),
    };
    match measured {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// What the numbers were measured on.
fn machine_line() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| "not installed".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("?");
    let cpus = cpu
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Machine: {cpus} CPUs,{}; Linux {}; {}; load average at the start {}.\n",
        model
            .trim_start_matches([' ', '\t', ':'])
            .split("  ")
            .fold(String::new(), |a, b| a + " " + b),
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        load.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}
