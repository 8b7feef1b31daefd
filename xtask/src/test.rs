//! `cargo xtask test`: everything that proves the tree, in order of cost.

use std::ffi::OsString;

use serde_json::Value;

use crate::handoff::{TABLE, UPGRADE};
use crate::run::{Failure, Runner};
use crate::{namespaces, packages};

/// The invariants that must have property tests, by the prefix of the tests' names.
const INVARIANTS: [&str; 11] = [
    "f1_", "f2_", "f3_", "f4_", "f5_", "f6_", "f7_", "f8_", "f9_", "f10_", "f11_",
];

/// The package of the labs.
const LABS: &str = "anycast-labs";
/// Its labs of the matrix, which wait far more than they work.
const MATRIX: &str = "matrix";
/// A thread for each of them, whatever the machine: they let each other go first by themselves.
const MATRIX_THREADS: (&str, &str) = ("RUST_TEST_THREADS", "32");

/// Least number of cases of each of these tests.
const CASES: u64 = 20_000;

pub(crate) fn run(mut runner: Runner) -> Result<(), Failure> {
    let runner = &mut runner;
    runner.phase("packages", packages::ensure)?;
    runner.phase("namespaces", |_| namespaces::check())?;
    runner.phase("build", build)?;
    runner.phase("unit tests", |runner| {
        let mut arguments = vec!["--workspace", "--all-features", "--lib", "--bins", "--"];
        arguments.extend(INVARIANTS.iter().flat_map(|name| ["--skip", name]));
        tests(runner, &arguments).map(drop)
    })?;
    runner.phase("property tests", properties)?;
    let metadata = runner.metadata()?;
    let (labs, others) = integration_tests(&metadata);
    runner.phase("integration tests", |runner| {
        tests(runner, &selecting(&others)).map(drop)
    })?;
    runner.phase("documentation tests", |runner| {
        tests(runner, &["--workspace", "--all-features", "--doc"]).map(drop)
    })?;
    runner.phase("lab tests", |runner| {
        let is_ours = |lab: &&str| ![MATRIX, TABLE, UPGRADE].contains(lab);
        let labs: Vec<_> = labs.iter().copied().filter(is_ours).collect();
        tests(runner, &selecting(&labs)).map(drop)
    })?;
    runner.phase("lab matrix", |runner| {
        tests_with(runner, &selecting(&[MATRIX]), &[MATRIX_THREADS]).map(drop)
    })?;
    runner.summary("cargo xtask test");
    Ok(())
}

/// `cargo xtask lab-matrix`: the labs of the matrix, which then write their table.
pub(crate) fn matrix(mut runner: Runner) -> Result<(), Failure> {
    let runner = &mut runner;
    runner.phase("packages", packages::ensure)?;
    runner.phase("namespaces", |_| namespaces::check())?;
    runner.phase("labs", |runner| {
        let write = [("ANYCAST_LAB_MATRIX", "write"), MATRIX_THREADS];
        // What compares the table with the labs comes after them.
        let labs = [&selecting(&[MATRIX])[..], &["--", "bgp", "ospf"]].concat();
        tests_with(runner, &labs, &write)?;
        tests(
            runner,
            &[&selecting(&[MATRIX])[..], &["--", "the_document"]].concat(),
        )
        .map(drop)
    })?;
    runner.summary("cargo xtask lab-matrix");
    Ok(())
}

/// Compiles all that the later phases run: the services first, which the labs and the quickstart
/// start by themselves, as `cargo build` makes them.
fn build(runner: &mut Runner) -> Result<(), Failure> {
    for service in ["anycast-tftpd", "anycast-guard", "anycastctl"] {
        runner.run(runner.cargo(&["build", "--locked", "--package", service]))?;
    }
    let tests = [
        "test",
        "--locked",
        "--workspace",
        "--all-features",
        "--no-run",
        "--quiet",
    ];
    runner.run(runner.cargo(&tests))
}

/// The names of the integration tests: those of the labs, and those of all other packages.
fn integration_tests(metadata: &Value) -> (Vec<&str>, Vec<&str>) {
    let names = |labs: bool| {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        packages
            .filter(|package| (package["name"] == LABS) == labs)
            .flat_map(|package| package["targets"].as_array().into_iter().flatten())
            .filter(|target| target["kind"][0] == "test")
            .filter_map(|target| target["name"].as_str())
            .collect()
    };
    (names(true), names(false))
}

/// Of the whole workspace, always: for fewer packages cargo would choose fewer features of
/// their dependencies, and build these again.
pub(crate) fn selecting<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["--workspace", "--all-features"];
    arguments.extend(names.iter().flat_map(|name| ["--test", name]));
    arguments
}

/// The invariants, with at least [`CASES`] cases each; none may be absent.
fn properties(runner: &mut Runner) -> Result<(), Failure> {
    let mut arguments = vec!["--workspace", "--all-features", "--lib", "--bins", "--"];
    arguments.extend(INVARIANTS);
    let cases = cases(std::env::var_os("PROPTEST_CASES"))?;
    let passed = tests_with(
        runner,
        &arguments,
        &[("PROPTEST_CASES", &cases.to_string())],
    )?;
    for prefix in INVARIANTS {
        let wanted = format!("proptests::{prefix}");
        if !passed.iter().any(|name| name.contains(&wanted)) {
            return Err(Failure::new(format!(
                "no property test named proptests::{prefix}… ran; each of {} must have one",
                INVARIANTS
                    .map(|name| name.trim_end_matches('_').to_uppercase())
                    .join(", ")
            )));
        }
    }
    Ok(())
}

/// At least [`CASES`]; the environment may ask for more.
fn cases(asked: Option<OsString>) -> Result<u64, Failure> {
    let Some(asked) = asked else { return Ok(CASES) };
    let number = asked.to_str().and_then(|text| text.parse::<u64>().ok());
    number.map(|number| number.max(CASES)).ok_or_else(|| {
        Failure::new(format!(
            "PROPTEST_CASES is {asked:?}; it must be a whole number"
        ))
    })
}

pub(crate) fn tests(runner: &mut Runner, arguments: &[&str]) -> Result<Vec<String>, Failure> {
    tests_with(runner, arguments, &[])
}

/// Runs `cargo test` and returns the names of the tests that passed. Tests never skip
/// themselves: where they cannot run they fail, saying why. An ignored one is a skip.
pub(crate) fn tests_with(
    runner: &mut Runner,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Vec<String>, Failure> {
    let mut command = runner.cargo(&["test", "--locked"]);
    command.args(arguments).envs(environment.iter().copied());
    let mut report = Report::default();
    runner.run_watched(command, &mut |line| report.read(line))?;
    for ignored in &report.ignored {
        runner.skip(ignored, "it is marked to be ignored")?;
    }
    if report.passed.is_empty() {
        return Err(Failure::new(format!(
            "`cargo test {}` ran no test at all",
            arguments.join(" ")
        )));
    }
    Ok(report.passed)
}

/// What the test harness printed.
#[derive(Default)]
struct Report {
    passed: Vec<String>,
    ignored: Vec<String>,
}

impl Report {
    /// Reads a line such as `test machine::f1_holds ... ok`.
    fn read(&mut self, line: &str) {
        let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        else {
            return;
        };
        if result == "ok" {
            self.passed.push(name.to_owned());
        } else if result.starts_with("ignored") {
            self.ignored.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_output_is_understood() {
        let mut report = Report::default();
        for line in [
            "running 3 tests",
            "test machine::proptests::f1_no_withdrawal ... ok",
            "test slow ... ignored, needs a day",
            "test src/lib.rs - run (line 3) - compile ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured",
        ] {
            report.read(line);
        }
        assert_eq!(report.passed.len(), 2);
        assert_eq!(report.ignored, ["slow"]);
        assert!(report.passed[0].contains("proptests::f1_"));
    }

    #[test]
    fn integration_tests_are_told_from_labs() {
        let target = |name: &str, kind: &str| serde_json::json!({"name": name, "kind": [kind]});
        let metadata = serde_json::json!({"packages": [
            {"name": LABS, "targets": [target("labs", "lib"), target("failover", "test")]},
            {"name": "x", "targets": [target("interop", "test"), target("x", "bin")]},
        ]});
        let (labs, others) = integration_tests(&metadata);
        assert_eq!(
            (&labs[..], &others[..]),
            (&["failover"][..], &["interop"][..])
        );
        assert_eq!(selecting(&labs)[2..], ["--test", "failover"]);
    }

    #[test]
    fn the_number_of_cases_can_only_be_raised() {
        assert_eq!(cases(None).unwrap(), CASES);
        assert_eq!(cases(Some("10".into())).unwrap(), CASES);
        assert_eq!(cases(Some("1000000".into())).unwrap(), 1_000_000);
        assert!(cases(Some("many".into())).is_err());
    }
}
