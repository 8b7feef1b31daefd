//! `cargo xtask bench [machine|reaction|scale|announce|sync|handoff]`: what guarding, file sync and
//! handoff cost and how fast they act, in numbers, beside other programs of the field.
//!
//! It builds release binaries and runs them in namespaces of its own, with the CPUs divided:
//! what is measured on the first, the guarded service and the bench on the others. The table is
//! printed and written to `target/bench/`. Nothing here is part of the tests.

mod announce;
mod handoff;
mod reaction;
mod scale;
mod subject;
mod sync;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anycast_labs::isolate::{self, Entered, Isolation};

use crate::run::{Failure, Runner};

/// The mark of the copy of this program inside the namespaces.
pub(crate) const MARK: &str = "bench";
/// How long one part may take.
const LIMIT: Duration = Duration::from_secs(40 * 60);
const PARTS: [&str; 6] = ["machine", "reaction", "scale", "announce", SYNC, HANDOFF];
/// The parts that need a disk, and other programs.
const SYNC: &str = "sync";
const HANDOFF: &str = "handoff";
/// Set for the process inside that measures.
const WORKER: &str = "BENCH_WORKER";
/// Names the Python whose packages include anycast-healthchecker.
const PYTHON: &str = "BENCH_PYTHON";

/// Runs one part, or all. `is_quick` is for the parts `sync` and `handoff`: little of everything.
pub(crate) fn run(mut runner: Runner, part: Option<&str>, is_quick: bool) -> Result<(), Failure> {
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
    let guarded = |name: &&str| !["machine", SYNC, HANDOFF].contains(name) && wanted(name);
    let guarded: Vec<_> = PARTS.into_iter().filter(guarded).collect();
    if !guarded.is_empty() {
        let programs = release(&mut runner, &["anycast-guard"])?;
        let guard = [("BENCH_GUARD", programs.join("anycast-guard"))];
        for name in guarded {
            runner.phase(name, |_| {
                table += &isolated(name, &guard)?;
                Ok(())
            })?;
        }
    }
    for name in [SYNC, HANDOFF].into_iter().filter(|name| wanted(name)) {
        table += &with_files(&mut runner, name, &folder, is_quick)?;
    }
    let path = folder.join(format!("{}.md", part.unwrap_or("all")));
    fs::write(&path, &table).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    println!("\n{table}\nwritten to {}", path.display());
    Ok(())
}

/// Builds these programs; the folder that they are in.
fn release(runner: &mut Runner, programs: &[&str]) -> Result<PathBuf, Failure> {
    runner.phase("release build", |runner| {
        let mut build = runner.cargo(&["build", "--locked", "--release", "--workspace"]);
        build.arg("--all-features");
        build.args(programs.iter().flat_map(|program| ["--bin", program]));
        runner.run(build)
    })?;
    let metadata = runner.metadata()?;
    let target = metadata["target_directory"].as_str();
    let target = target.ok_or_else(|| Failure::new("`cargo metadata` names no target folder"))?;
    Ok(Path::new(target).join("release"))
}

/// A part whose files are on a disk, not in memory, and are gone at the end.
fn with_files(
    runner: &mut Runner,
    name: &str,
    folder: &Path,
    is_quick: bool,
) -> Result<String, Failure> {
    let programs = match std::env::var_os(sync::PROGRAMS) {
        Some(folder) => folder.into(),
        None if name == HANDOFF || sync::is_ours_wanted() => {
            release(runner, &["anycast-tftpd", "anycastctl"])?
        }
        None => PathBuf::new(),
    };
    let files = Scratch::new(folder.join(format!("{name}.files")))?;
    let mut environment = vec![(sync::FOLDER, files.0.clone()), (sync::PROGRAMS, programs)];
    if is_quick {
        environment.push((sync::QUICK, PathBuf::from("1")));
    }
    let mut table = String::new();
    runner.phase(name, |_| {
        table = isolated(name, &environment)?;
        Ok(())
    })?;
    Ok(table)
}

/// A folder that is empty at the start and gone at the end, also that of a failure; what a killed
/// run has left is removed by the next one.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: PathBuf) -> Result<Self, Failure> {
        let failed = |e| Failure::new(format!("{}: {e}", folder.display()));
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next run tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn isolated(name: &str, environment: &[(&str, PathBuf)]) -> Result<String, Failure> {
    let mut output = Vec::new();
    let isolation = Isolation::new([MARK, name]).mark(MARK);
    let isolation = environment
        .iter()
        .fold(isolation, |isolation, (key, value)| {
            isolation.env(key, value)
        });
    let status = isolation
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
        Some(SYNC) => sync::run(),
        Some(HANDOFF) => handoff::run(),
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
