//! `anycast-tftpd`: a TFTP server on an anycast address.
//!
//! It serves files from one folder on its service addresses, probes itself, and lets the
//! announcer raise or lower the node's preference. See `README.md` beside this file
//! for the map from trait to file.

mod config;
mod daemon;
mod handoff;
mod sync;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anycast_daemon::log::{self, LogFormat};
use anycast_daemon::privileges::{self, CapabilitySet};
use anycast_daemon::runtime;
use anycast_daemon::terminal::{self, say};
use clap::{Parser, Subcommand};

use crate::config::Config;

/// A TFTP server on an anycast address.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
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
        return fail("--config FILE is missing; examples/tftpd/anycast-tftpd.toml is a sample");
    };
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string()),
    };
    if let Some(Command::CheckConfig) = arguments.command {
        say(&format!(
            "{}: the configuration can be used",
            path.display()
        ));
        return ExitCode::SUCCESS;
    }
    // Before the log starts its thread.
    let mut needed = CapabilitySet::NET_BIND_SERVICE; // port 69; a reload may bind again
    needed.set(CapabilitySet::NET_ADMIN, config.announce.kernel().is_some());
    if let Err(error) = privileges::drop_all_but(needed) {
        return fail(&format!("privileges cannot be dropped: {error}"));
    }
    let log = match log::to_stderr(arguments.log) {
        Ok(log) => log,
        Err(error) => return fail(&format!("the log cannot be started: {error}")),
    };
    let result = serve(&path, config);
    drop(log);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(&reason),
    }
}

fn serve(path: &Path, config: Config) -> Result<(), String> {
    let started = runtime("tftpd").and_then(|main| Ok((main, runtime("probes")?)));
    let (main, probes) =
        started.map_err(|error| format!("the runtime cannot be started: {error}"))?;
    let result = main.block_on(daemon::run(path, config, probes.handle().clone()));
    // A probe or a disk that hangs must not keep the process.
    probes.shutdown_background();
    main.shutdown_background();
    result.map_err(|error| error.to_string())
}

fn fail(reason: &str) -> ExitCode {
    terminal::fail("anycast-tftpd", reason)
}
