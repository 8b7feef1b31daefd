//! `cargo xtask verify`: the rules of the tree. Writes nothing outside `target/`.

use std::process::Command;

use serde_json::Value;

use crate::run::{Failure, Runner};
use crate::tree;

/// The published crates. Without features nothing in [`RUNTIMES`] is below them.
const LIBRARIES: [&str; 4] = [
    "anycast-core",
    "anycast-announce",
    "anycast-tftp",
    "anycast-dhcp",
];

/// What sans-IO excludes.
const RUNTIMES: [&str; 4] = ["tokio", "mio", "async-std", "smol"];

/// The version that CI installs where there is none.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run(mut runner: Runner) -> Result<(), Failure> {
    let runner = &mut runner;
    runner.phase("format", |runner| {
        component(runner, "rustfmt", &["fmt", "--version"])?;
        runner.run(runner.cargo(&["fmt", "--all", "--check"]))
    })?;
    runner.phase("tree", tree::check)?;
    runner.phase("lints", |runner| {
        component(runner, "clippy", &["clippy", "--version"])?;
        clippy(runner, &["--workspace", "--all-targets", "--all-features"])
    })?;
    runner.phase("lints of each feature alone", features)?;
    runner.phase("no runtime in the engines", sans_io)?;
    runner.phase("documentation", |runner| {
        let arguments = [
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--all-features",
            "--document-private-items",
        ];
        let mut doc = runner.cargo(&arguments);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        runner.run(doc)
    })?;
    runner.phase("dependencies", deny)?;
    runner.summary("cargo xtask verify");
    Ok(())
}

fn component(runner: &Runner, name: &str, version: &[&str]) -> Result<(), Failure> {
    let (status, _) = runner.output(runner.cargo(version))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{name} is not installed; run `rustup component add {name}`"
    )))
}

fn clippy(runner: &Runner, what: &[&str]) -> Result<(), Failure> {
    let mut arguments = vec!["clippy", "--locked", "--quiet"];
    arguments.extend(what);
    arguments.extend(["--", "-D", "warnings"]);
    runner.run(runner.cargo(&arguments))
}

/// Every library builds without features and with each one alone.
fn features(runner: &mut Runner) -> Result<(), Failure> {
    let metadata = runner.metadata()?;
    for library in LIBRARIES {
        let bare = ["-p", library, "--lib", "--no-default-features"];
        clippy(runner, &bare)?;
        for feature in features_of(&metadata, library)? {
            clippy(runner, &[&bare[..], &["--features", feature]].concat())?;
        }
    }
    Ok(())
}

fn features_of<'a>(metadata: &'a Value, library: &str) -> Result<Vec<&'a str>, Failure> {
    let packages = metadata["packages"].as_array();
    let found = packages
        .into_iter()
        .flatten()
        .find(|package| package["name"] == library)
        .and_then(|package| package["features"].as_object())
        .ok_or_else(|| Failure::new(format!("the workspace has no package {library}")))?;
    Ok(found
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "default")
        .collect())
}

fn sans_io(runner: &mut Runner) -> Result<(), Failure> {
    for library in LIBRARIES {
        let arguments = [
            "tree",
            "--locked",
            "--edges",
            "normal",
            "--no-default-features",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            library,
        ];
        let (status, listing) = runner.output(runner.cargo(&arguments))?;
        if !status.success() {
            return Err(Failure::new(format!(
                "`cargo tree -p {library}` failed; run it to see why"
            )));
        }
        let mut crates: Vec<_> = listing
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        crates.sort_unstable();
        crates.dedup();
        if let Some(runtime) = crates.iter().find(|name| RUNTIMES.contains(name)) {
            return Err(Failure::new(format!(
                "{library} without features depends on {runtime}; \
                 `cargo tree -e normal --no-default-features -p {library} -i {runtime}` says why"
            )));
        }
        println!("    {library}: {} crates, no runtime", crates.len());
    }
    Ok(())
}

fn deny(runner: &mut Runner) -> Result<(), Failure> {
    let (deny, _) = runner.output(runner.cargo(&["deny", "--version"]))?;
    if !deny.success() {
        let install = ["install", "--locked", "cargo-deny", "--version", CARGO_DENY];
        if !runner.ci {
            return Err(Failure::new(format!(
                "cargo-deny is not installed; run `cargo {}`",
                install.join(" ")
            )));
        }
        runner.run(runner.cargo(&install))?;
    }
    let mut check: Command = runner.cargo(&["deny", "--locked"]);
    check.args([
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    runner.run(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_from_the_metadata() {
        let metadata = serde_json::json!({"packages": [
            {"name": "other", "features": {}},
            {"name": "anycast-core", "features": {"default": ["node"], "node": [], "admin": []}},
        ]});
        let mut found = features_of(&metadata, "anycast-core").unwrap();
        found.sort_unstable();
        assert_eq!(found, ["admin", "node"]);
        assert!(features_of(&metadata, "absent").is_err());
    }
}
