//! `anycastctl`: asks a node of an anycast service how it is, and gives it orders.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | the node answered; an order is in force |
//! | 1 | refused or failed: the order was refused, is not in force yet, or the answer could not be read; a record that cannot be read, or that replays to something else |
//! | 2 | the command line is wrong |
//! | 3 | no connection: nobody listens there, or the socket's mode forbids it |
//!
//! `doctor` has its own: 0 nothing found, 1 warnings, 2 traps, 3 not everything could be looked at
//! (and no trap in the rest).
//!
//! Errors are one line on standard error. A demoted service is no error here: for an alarm,
//! watch `/healthz` and `/metrics` of the same address.
#![allow(
    clippy::print_stderr,
    reason = "a command for people: the terminal is its output"
)]

mod address;
mod ask;
mod doctor;
mod identity;
mod model;
mod replay;
mod screen;
mod sync;
mod text;
mod view;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anycast_core::ServiceName;
use anycast_core::admin::{AdminAddress, Token, TokenError};
use anycast_core::mesh::identity::IdentityError;
use anycast_core::record::MAX_RECORD;
use clap::{Args, Parser, Subcommand};
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{Given, Url, VARIABLE};
use crate::ask::{AskError, Question};
use crate::model::{Done, Node, Service};
use crate::replay::ReplayError;
use crate::screen::{Colour, Screen};
use crate::text::{Span, Style, Text};

/// Names the token's file when the command line does not.
const TOKEN_VARIABLE: &str = "ANYCASTCTL_TOKEN_FILE";
/// Shortest and longest time between two looks of `--watch`.
const WATCH: std::ops::RangeInclusive<f64> = 0.2..=3600.0;

/// Asks a node of an anycast service how it is, and gives it orders.
///
/// Exit status: 0 done, 1 refused or failed, 2 wrong command line, 3 no connection.
#[derive(Debug, Parser)]
#[command(name = "anycastctl", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    node: Which,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

/// Which node, and by what right.
#[derive(Debug, Args)]
struct Which {
    /// The node's [node] admin: a loopback address, or unix:/PATH [env: ANYCASTCTL_ADMIN]
    /// [default: /run/anycast/admin.sock if it is there, else 127.0.0.1:9180]
    #[arg(long, global = true, value_name = "ADDR", conflicts_with_all = ["socket", "url"])]
    admin: Option<AdminAddress>,
    /// The node's Unix socket
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "url")]
    socket: Option<PathBuf>,
    /// The node's loopback address as a URL, such as http://127.0.0.1:9180
    #[arg(long, global = true, value_name = "URL")]
    url: Option<Url>,
    /// The file with the token that orders over TCP need [env: ANYCASTCTL_TOKEN_FILE]
    #[arg(long, global = true, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the node announces, since when and why, and what its checks say
    Status {
        /// Print the node's answer as it is, in JSON
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Look again every so many seconds (default 2), until Ctrl-C
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
        watch: Option<Seconds>,
        /// With --watch: look so many times, then stop
        #[arg(long, value_name = "N", requires = "watch")]
        count: Option<u64>,
    },
    /// What every check says, and how it counts
    Checks {
        /// Of this service alone
        service: Option<ServiceName>,
    },
    /// Which node answers which client networks, as each node of the mesh counts them
    Catchment,
    /// The chain from check to route: why a service is announced as it is
    Explain {
        /// Which service
        service: ServiceName,
    },
    /// Demote a service on this node, so that other nodes take its traffic
    Drain(Wish),
    /// Withdraw a service's routes from this node
    Withdraw(Wish),
    /// Fetch what a service's decisions were made of, since the node started, as text for replay
    Record {
        /// Which service; may be left out where the node has one
        #[arg(long, value_name = "SERVICE")]
        service: Option<ServiceName>,
    },
    /// Run a record through the machine again: every decision, when and why. Asks no node
    Replay {
        /// What `record` wrote; - for standard input
        file: PathBuf,
        /// Every input, also those that changed no decision
        #[arg(long)]
        all: bool,
    },
    /// Name what of this host's routing will fail in silence: in BIRD, FRR and the kernel. Asks
    /// no node and changes nothing. Exit status: 0 nothing found, 1 warnings, 2 traps, 3 not
    /// everything could be looked at
    Doctor(Box<doctor::Look>),
    /// What this node holds of the data that is the same at every site, and how peers compare
    #[command(subcommand)]
    Sync(sync::Sync),
    /// A node's key for the mesh, and the fingerprint by which its peers know it. Asks no node
    #[command(subcommand)]
    Identity(identity::Key),
    /// Lift a drain or a withdrawal: health decides again
    Undrain {
        /// Which service
        service: ServiceName,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// An order that can lapse and be forced.
#[derive(Debug, Args)]
struct Wish {
    /// Which service
    service: ServiceName,
    /// For so long, such as 30m or 2h; without it, until it is lifted
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    /// Why, for the log and for those who wonder
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also if no other node of the fleet is preferred
    #[arg(long)]
    force: bool,
}

/// The time of `--watch`.
#[derive(Debug, Clone, Copy)]
struct Seconds(Duration);

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
        seconds
            .filter(|seconds| WATCH.contains(seconds))
            .map(|seconds| Self(Duration::from_secs_f64(seconds)))
            .ok_or_else(|| "must be between 0.2 and 3600 seconds".to_owned())
    }
}

/// Why a command failed; each is one line.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("node {node} has no service {service}; it has: {others}")]
    NoService {
        node: String,
        service: ServiceName,
        others: String,
    },
    #[error("which service? --service is one of: {others}")]
    WhichService { others: String },
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Doctor(#[from] doctor::DoctorError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this node synchronises nothing")]
    NoDataSets,
    #[error("this node has no data {name}; it has: {others}")]
    NoDataSet { name: String, others: String },
    #[error("which data? name one of: {others}")]
    WhichDataSet { others: String },
    #[error("{name} was not reconciled: {why}")]
    Reconcile { name: String, why: String },
    #[error("the order stands, but is not in force yet; anycastctl explain {service} says more")]
    NotInForce { service: ServiceName },
}

impl Failure {
    const fn exit_status(&self) -> u8 {
        match self {
            Self::Doctor(error) => error.exit_status(),
            Self::Usage(_)
            | Self::WhichService { .. }
            | Self::WhichDataSet { .. }
            | Self::Ask(AskError::Refused {
                status: StatusCode::BAD_REQUEST,
                ..
            }) => 2,
            Self::Ask(
                AskError::NoAnswer { .. } | AskError::Permission { .. } | AskError::Connect { .. },
            ) => 3,
            Self::Ask(
                AskError::Slow { .. }
                | AskError::Status { .. }
                | AskError::Refused { .. }
                | AskError::Unreadable { .. }
                | AskError::Runtime(_),
            )
            | Self::Token(_)
            | Self::Output(_)
            | Self::NoService { .. }
            | Self::Replay(_)
            | Self::Identity(_)
            | Self::NoDataSets
            | Self::NoDataSet { .. }
            | Self::Reconcile { .. }
            | Self::NotInForce { .. } => 1,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let screen = Screen::of_stdout(arguments.color);
    match arguments.command {
        Command::Replay { file, all } => replay::run(&file, all, screen)?,
        Command::Doctor(look) => return Ok(doctor::run(*look, screen)?),
        Command::Identity(key) => {
            screen::write(&key.run()?)?;
        }
        command @ (Command::Status { .. }
        | Command::Checks { .. }
        | Command::Catchment
        | Command::Explain { .. }
        | Command::Drain(_)
        | Command::Withdraw(_)
        | Command::Record { .. }
        | Command::Sync(_)
        | Command::Undrain { .. }) => ask(arguments.node, command, screen)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that ask a node.
fn ask(node_given: Which, command: Command, screen: Screen) -> Result<(), Failure> {
    let Which {
        admin,
        socket,
        url,
        token_file,
    } = node_given;
    let variable = std::env::var(VARIABLE).ok();
    let given = Given { admin, socket, url };
    let address = given.resolve(variable.as_deref()).map_err(Failure::Usage)?;
    match command {
        Command::Replay { .. } | Command::Doctor(_) | Command::Identity(_) => {} // they need no node
        Command::Record { service } => record(&address, token_file, service)?,
        Command::Sync(sync) => sync.run(&address, token_file, screen)?,
        Command::Status { json: true, .. } => {
            let answer = Question::read(&address, "/status").ask()?;
            // Read all the same, so that what is printed is JSON.
            read::<serde_json::Value>(&address, &answer)?;
            screen::write(&answer)?;
        }
        Command::Status {
            watch: Some(every),
            count,
            ..
        } => watch(&address, screen, every.0, count)?,
        Command::Status { .. } => {
            let text = view::status::show(&node(&address)?, screen.width());
            screen.write(&text)?;
        }
        Command::Checks { service } => {
            let node = node(&address)?;
            let chosen = service.as_ref().map(|name| find(&node, name)).transpose()?;
            let chosen = chosen.map(|service| service.name.as_str());
            screen.write(&view::checks::show(&node, chosen, screen.width()))?;
        }
        Command::Catchment => {
            let text = view::catchment::show(&node(&address)?, screen.width());
            screen.write(&text)?;
        }
        Command::Explain { service } => {
            let node = node(&address)?;
            let found = find(&node, &service)?;
            screen.write(&view::explain::show(&node, found, screen.width()))?;
        }
        Command::Drain(wish) => order(&address, token_file, "drain", wish, screen)?,
        Command::Withdraw(wish) => order(&address, token_file, "withdraw", wish, screen)?,
        Command::Undrain { service, reason } => {
            let wish = Wish {
                service,
                lasts: None,
                reason,
                force: false,
            };
            order(&address, token_file, "undrain", wish, screen)?;
        }
    }
    Ok(())
}

fn read<T: DeserializeOwned>(address: &AdminAddress, answer: &str) -> Result<T, AskError> {
    serde_json::from_str(answer).map_err(|error| AskError::Unreadable {
        address: address.clone(),
        reason: error.to_string(),
    })
}

fn node(address: &AdminAddress) -> Result<Node, AskError> {
    read(address, &Question::read(address, "/status").ask()?)
}

fn find<'a>(node: &'a Node, service: &ServiceName) -> Result<&'a Service, Failure> {
    let found = node.services.iter().find(|s| s.name == service.as_str());
    found.ok_or_else(|| Failure::NoService {
        node: clean(&node.node),
        service: service.clone(),
        others: names(node),
    })
}

/// The names of a node's services, for one line.
fn names(node: &Node) -> String {
    let names: Vec<_> = node.services.iter().map(|s| s.name.as_str()).collect();
    match &names[..] {
        [] => "none".to_owned(),
        names => clean(&names.join(", ")),
    }
}

/// One line, whatever the node wrote.
fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// Looks again and again. A node that does not answer (it is being restarted) is told so and
/// asked again; only a first look that fails ends it.
fn watch(
    address: &AdminAddress,
    screen: Screen,
    every: Duration,
    count: Option<u64>,
) -> Result<(), Failure> {
    let mut text = view::status::show(&node(address)?, screen.width());
    let mut looks = 1;
    while screen.resized().redraw(text)? && count.is_none_or(|count| looks < count) {
        std::thread::sleep(every);
        looks += 1;
        // The terminal may have another size by now.
        text = match node(address) {
            Ok(node) => view::status::show(&node, screen.resized().width()),
            Err(error) => {
                let mut text = Text::default();
                text.line([Span::new(Style::Bad, &format!("error: {error}"))]);
                text
            }
        };
    }
    Ok(())
}

/// Writes a service's record to standard output.
fn record(
    address: &AdminAddress,
    token_file: Option<PathBuf>,
    service: Option<ServiceName>,
) -> Result<(), Failure> {
    let service = match service {
        Some(service) => service.to_string(),
        None => {
            let node = node(address)?;
            let [only] = &node.services[..] else {
                return Err(Failure::WhichService {
                    others: names(&node),
                });
            };
            only.name.clone()
        }
    };
    let path = format!("/services/{service}/record");
    let question = Question {
        token: token(address, token_file)?,
        limit: MAX_RECORD,
        ..Question::read(address, &path)
    };
    screen::write(&question.ask()?)?;
    Ok(())
}

/// What orders and records over TCP need.
fn token(address: &AdminAddress, file: Option<PathBuf>) -> Result<Option<Token>, TokenError> {
    let variable = || std::env::var_os(TOKEN_VARIABLE).filter(|path| !path.is_empty());
    match (address, file.or_else(|| variable().map(PathBuf::from))) {
        (AdminAddress::Tcp(_), Some(path)) => Token::read(&path).map(Some),
        (AdminAddress::Tcp(_) | AdminAddress::Unix(_), _) => Ok(None),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#for: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    force: bool,
}

fn order(
    address: &AdminAddress,
    token_file: Option<PathBuf>,
    verb: &str,
    wish: Wish,
    screen: Screen,
) -> Result<(), Failure> {
    let body = Body {
        r#for: wish.lasts.as_deref(),
        reason: wish.reason.as_deref(),
        force: wish.force,
    };
    let body = serde_json::to_string(&body).map_err(|error| AskError::Unreadable {
        address: address.clone(),
        reason: error.to_string(),
    })?;
    let question = Question {
        address,
        method: Method::POST,
        path: &format!("/services/{}/{verb}", wish.service),
        body,
        token: token(address, token_file)?,
        ..Question::read(address, "")
    };
    let done: Done = read(address, &question.ask()?)?;
    screen.write(&view::order::show(&done))?;
    for warning in &done.warnings {
        eprintln!("warning: {}", clean(warning));
    }
    if done.in_force {
        Ok(())
    } else {
        Err(Failure::NotInForce {
            service: wish.service,
        })
    }
}
