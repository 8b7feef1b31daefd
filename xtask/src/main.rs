//! The project's own commands, run as `cargo xtask …`.
//!
//! `test` proves that the tree works on this machine; `verify` holds it to its rules without
//! writing to it. Both stop at the first phase that fails, with one line saying what failed
//! and what to do, and print how long each phase took.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people: the terminal is its output"
)]

mod bench;
mod handoff;
mod namespaces;
mod packages;
mod run;
mod svg;
mod test;
mod tree;
mod verify;

use std::io::Read;
use std::process::ExitCode;

use run::{Failure, Runner};

const HELP: &str = "\
Usage: cargo xtask <command> [--ci]

Commands:
  test     install what is missing (as root, through apt), then run the unit, property,
           integration, documentation and lab tests
  verify   formatting, lints, documentation, dependencies and the rules of the tree;
           writes nothing outside target/
  svg      draw a terminal's output, as `script` captured it, from standard input; the
           argument after it is the title: what was typed
  bench    measure, and write a table to target/bench/; `bench machine`, `bench reaction`,
           `bench scale`, `bench announce`, `bench sync` and `bench handoff` measure one part
  lab-matrix
           run the labs of labs/tests/matrix, and write what they measure to
           docs/lab-matrix.md
  handoff  run the labs of labs/tests/handoff_table.rs, transfers whose route moves, with every
           client, and that of an upgrade (labs/tests/handoff_upgrade.rs); half an hour, and what they
           measure is written to docs/handoff.md
  help     this text

Options:
  --ci     a skipped test is a failure, and tools that are missing are installed;
           the same as CI=true in the environment
  --quick  of `bench sync` and `bench handoff`: little of everything, to try the bench itself

Environment:
  CI               `true` or `1`: as --ci
  PROPTEST_CASES   raises the number of cases of the property tests above their 20,000
  BENCH_PYTHON     a Python that has anycast-healthchecker, to be measured beside exabgp's
  BENCH_SYNC       `rsync`, `ssh` or `ours`: of `bench sync`, that alone
  BENCH_PROGRAMS   a folder with anycast-tftpd and anycastctl, which are then not built
";

fn main() -> ExitCode {
    if bench::is_worker() {
        return bench::worker();
    }
    match anycast_labs::isolate::inside().as_deref() {
        Some(bench::MARK) => return bench::inside(),
        Some(_) => return namespaces::inside(),
        None => {}
    }
    let mut command = None;
    let mut part = None;
    let mut ci = matches!(std::env::var("CI").as_deref(), Ok("true" | "1"));
    let mut title = None;
    let mut is_quick = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--ci" => ci = true,
            "--quick" => is_quick = true,
            "--help" | "-h" => command = Some("help".to_owned()),
            _ if command.is_none() => command = Some(argument),
            _ if command.as_deref() == Some("svg") && title.is_none() => title = Some(argument),
            _ if command.as_deref() == Some("bench") && part.is_none() => part = Some(argument),
            _ => return complain(&Failure::usage(&argument)),
        }
    }
    let outcome = match command.as_deref() {
        Some("test") => Runner::new(ci).and_then(test::run),
        Some("verify") => Runner::new(ci).and_then(verify::run),
        Some("svg") => draw(&title.unwrap_or_default()),
        Some("bench") => {
            Runner::new(ci).and_then(|runner| bench::run(runner, part.as_deref(), is_quick))
        }
        Some("lab-matrix") => Runner::new(ci).and_then(test::matrix),
        Some("handoff") => Runner::new(ci).and_then(handoff::run),
        Some("help") => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(Failure::usage(other)),
        None => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure),
    }
}

fn draw(title: &str) -> Result<(), Failure> {
    let mut capture = String::new();
    std::io::stdin()
        .read_to_string(&mut capture)
        .map_err(|error| Failure::new(format!("standard input cannot be read: {error}")))?;
    print!("{}", svg::draw(title, &capture)?);
    Ok(())
}

fn complain(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::from(failure.exit_code())
}
