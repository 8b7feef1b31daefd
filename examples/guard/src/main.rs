//! `anycast-guard`: guards existing services on anycast addresses by configuration alone.
//!
//! It checks each service, and lets the kernel announcer raise or lower the node's preference
//! for it. See `README.md` beside this file for the map from trait to file, and `configs/` for
//! files that are ready to use.

mod config;
mod daemon;
mod dry_run;
mod reload;
mod saved;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anycast_daemon::log::{self, LogFormat};
use anycast_daemon::privileges::{self, CapabilitySet};
use anycast_daemon::runtime;
use anycast_daemon::terminal::{self, say};
use clap::{Parser, Subcommand};

use crate::config::Config;

/// Guards existing services on anycast addresses.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print what would be announced and checked, run every check once, and change nothing.
    #[arg(long, conflicts_with = "check_config")]
    dry_run: bool,
    /// The same as the command check-config.
    #[arg(long)]
    check_config: bool,
    /// How to log; what, by the variable RUST_LOG (default: info).
    #[arg(long, value_enum, default_value_t = LogFormat::Human, global = true)]
    log: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the configuration file, say whether it can be used, and change nothing.
    CheckConfig,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(path) = arguments.config else {
        return fail("--config FILE is missing; examples/guard/configs holds samples");
    };
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string()),
    };
    if arguments.check_config || matches!(arguments.command, Some(Command::CheckConfig)) {
        say(&format!(
            "{}: the configuration can be used",
            path.display()
        ));
        return ExitCode::SUCCESS;
    }
    // Before the log starts its thread.
    if let Err(error) = privileges::drop_all_but(CapabilitySet::NET_ADMIN | config.needs) {
        return fail(&format!("privileges cannot be dropped: {error}"));
    }
    if arguments.dry_run {
        return match dry_run(&path, &config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the runtime cannot be started: {error}")),
        };
    }
    let log = match log::to_stderr(arguments.log) {
        Ok(log) => log,
        Err(error) => return fail(&format!("the log cannot be started: {error}")),
    };
    let result = guard(&path, config);
    drop(log);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(&reason),
    }
}

fn dry_run(path: &Path, config: &Config) -> std::io::Result<()> {
    let main = runtime("guard")?;
    main.block_on(dry_run::run(path, config));
    // A probe that hangs must not keep the process.
    main.shutdown_background();
    Ok(())
}

fn guard(path: &Path, config: Config) -> Result<(), String> {
    let started = runtime("guard").and_then(|main| Ok((main, runtime("probes")?)));
    let (main, probes) =
        started.map_err(|error| format!("the runtime cannot be started: {error}"))?;
    let result = main.block_on(daemon::run(path, config, probes.handle().clone()));
    // A probe that hangs must not keep the process.
    probes.shutdown_background();
    main.shutdown_background();
    result.map_err(|error| error.to_string())
}

fn fail(reason: &str) -> ExitCode {
    terminal::fail("anycast-guard", reason)
}
