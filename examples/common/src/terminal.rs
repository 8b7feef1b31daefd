//! What a program answers, and how it fails: in one line.

use std::process::ExitCode;

/// Prints a program's answer.
#[allow(clippy::print_stdout, reason = "a program's answer goes to stdout")]
pub fn say(line: &str) {
    println!("{line}");
}

/// Says on stderr why `program` cannot go on; the exit code to end with.
#[must_use]
#[allow(clippy::print_stderr, reason = "a bad start is one line on stderr")]
pub fn fail(program: &str, reason: &str) -> ExitCode {
    eprintln!("{program}: {reason}");
    ExitCode::FAILURE
}
