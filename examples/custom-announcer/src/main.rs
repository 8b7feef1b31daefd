//! Steers one Redis service by nftables sets. See `README.md` beside this file.
//!
//! `anycast-custom-announcer NODE SOCKET ADDRESS...`

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program speaks to its operator"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anycast_core::health::BuildCheck;
use anycast_core::machine::{Identity, Policy};
use anycast_core::node::{CheckSpec, Node, ServiceSpec};
use anycast_core::{CheckName, NodeName, Role, ServiceAddress, ServiceAddresses, ServiceName};
use anycast_custom_announcer::redis::RedisCheck;
use anycast_custom_announcer::sets::SetsAnnouncer;

const TABLE: &str = "anycast";
const DEAD_MAN: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(500);

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("anycast-custom-announcer: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: anycast-custom-announcer NODE SOCKET ADDRESS...".into());
    };
    let mut addresses = Vec::new();
    for text in arguments {
        addresses.push(ServiceAddress::new(text.parse()?)?);
    }
    let service = ServiceName::new("redis")?;
    let identity = Identity {
        service: service.clone(),
        addresses: ServiceAddresses::new(addresses)?,
        role: Role::Primary,
    };
    let build: BuildCheck = Arc::new(move || Box::new(RedisCheck::new(&socket)));
    let check = CheckSpec::new(CheckName::new("ping")?, INTERVAL, TIMEOUT, build);
    let announcer = SetsAnnouncer::new(TABLE, DEAD_MAN)?;
    let spec = ServiceSpec::new(
        identity,
        Policy::default(),
        vec![check],
        Box::new(announcer),
    );

    let mut node = Node::new(NodeName::new(&name)?);
    node.start(spec)?;
    let handle = node.handle();
    let mut state = handle.watch(&service)?;
    let mut said = String::new();
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let line = {
            let now = state.borrow_and_update();
            format!("{} ({})", now.preference, now.reason)
        };
        if line != said {
            println!("{service}: {line}");
            said = line;
        }
        tokio::select! {
            changed = state.changed() => changed?,
            service = handle.failed() => return Err(format!("{service} has died").into()),
            _ = stop.recv() => break,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        }
    }
    // Demotes: clients are sent on before this site stops to serve them.
    node.stop().await;
    Ok(())
}
