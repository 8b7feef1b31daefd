//! Collects the facts from this host. Reads only: no setting, route or session is changed.
//!
//! # Cancellation
//! A dropped future closes its connections to the daemons. Each question to a daemon ends
//! within two seconds; a daemon that does not answer is given up at the first one.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime module: compares the age of a file with that of a configuration"
)]

mod host;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anycast_core::service::ServiceAddress;

use self::host::{kernel, processes};
use super::bird::{BirdFacts, Filtered, MainFile};
use super::bird_text::{self, Protocol, Status};
use super::frr::FrrFacts;
use super::frr_text::Config;
use super::kernel::services;
use super::{Facts, Sight, Wanted};
use crate::bird::client::{Client as Bird, ClientError as BirdError};
use crate::bird::command::{Channel, Command, Look, Symbol};
use crate::bird::reply::Reply;
use crate::frr::client::{Client as Frr, ClientError as FrrError, Question};

/// Shorter prefixes than these are not asked for: nobody's backup route.
const SHORTEST: (u8, u8) = (8, 16);
/// A configuration file may look this many seconds newer than the load that it caused.
const SLACK: u64 = 1;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// BIRD's control socket.
    pub bird_socket: PathBuf,
    /// BIRD's main file, where the command line of the daemon does not name another.
    pub bird_file: PathBuf,
    /// bgpd's vty socket.
    pub frr_socket: PathBuf,
    /// FRR's file.
    pub frr_file: PathBuf,
    /// The names of the service's programs.
    pub programs: Vec<String>,
    /// The service's unit files.
    pub units: Vec<PathBuf>,
}

impl Default for Places {
    /// As Debian has them.
    fn default() -> Self {
        let programs = ["anycast-tftpd", "anycast-guard"];
        let folders = ["/etc/systemd/system", "/usr/lib/systemd/system"];
        let units = programs.iter().filter_map(|name| {
            let files = folders.map(|folder| Path::new(folder).join(format!("{name}.service")));
            files.into_iter().find(|file| file.exists())
        });
        Self {
            bird_socket: crate::bird::DEFAULT_SOCKET.into(),
            bird_file: "/etc/bird/bird.conf".into(),
            frr_socket: crate::frr::DEFAULT_SOCKET.into(),
            frr_file: "/etc/frr/frr.conf".into(),
            units: units.collect(),
            programs: programs.map(str::to_owned).into(),
        }
    }
}

/// Collects everything. Service addresses that `wanted` lacks are taken from the kernel's, as
/// far as the kernel announcer holds them. Runs in the network namespace of its thread: use a
/// runtime of one thread.
pub async fn gather(places: &Places, mut wanted: Wanted) -> Facts {
    let kernel = kernel(places).await;
    if let (true, Sight::Seen(addresses)) = (wanted.services.is_empty(), &kernel.addresses) {
        wanted.services = services(addresses);
    }
    Facts {
        bird: bird(places, &wanted).await,
        frr: frr(places, &wanted).await,
        kernel,
        wanted,
    }
}

/// A socket that is not there is no daemon, unless one runs all the same.
fn unconnected<T>(program: &str, source: &io::Error, said: &dyn std::fmt::Display) -> Sight<T> {
    let is_absent = source.kind() == io::ErrorKind::NotFound;
    match processes(&[program.to_owned()]).first() {
        None if is_absent => Sight::Absent,
        None => Sight::Unseen(said.to_string()),
        Some(found) => Sight::Unseen(format!("{program} runs (pid {}): {said}", found.pid)),
    }
}

async fn bird(places: &Places, wanted: &Wanted) -> Sight<BirdFacts> {
    let mut client = Bird::new(&places.bird_socket);
    match ask_bird(&mut client, places, wanted).await {
        Ok(facts) => Sight::Seen(facts),
        Err(error) => match &error {
            BirdError::Connect { source, .. } => unconnected("bird", source, &error),
            BirdError::Broken { .. }
            | BirdError::TimedOut { .. }
            | BirdError::Reply { .. }
            | BirdError::Restricted { .. } => Sight::Unseen(error.to_string()),
        },
    }
}

async fn look(client: &mut Bird, look: Look) -> Result<Reply, BirdError> {
    client.ask(&Command::Look(look)).await
}

async fn ask_bird(
    client: &mut Bird,
    places: &Places,
    wanted: &Wanted,
) -> Result<BirdFacts, BirdError> {
    let said = client.ask(&Command::ShowStatus).await?;
    let status = bird_text::status(&said);
    let router_id = bird_text::router_id(&said).unwrap_or_default();
    let protocols = bird_text::protocols(&look(client, Look::Protocols).await?);
    let mut facts = BirdFacts {
        socket: places.bird_socket.display().to_string(),
        main_file: bird_file(places, &status),
        status,
        protocols: Vec::new(),
        routes: Vec::new(),
        filtered: Vec::new(),
        bfd: bird_text::bfd(&look(client, Look::Bfd).await?),
        zero_stubs: Vec::new(),
        export_tables: Vec::new(),
        covered: Vec::new(),
    };
    for &service in &wanted.services {
        let host = if service.ip().is_ipv4() { 32 } else { 128 };
        let reply = look(client, Look::Routes(service.ip(), host)).await?;
        facts.routes.push((service, bird_text::routes(&reply)));
        for (ip, length) in shorter(service) {
            let reply = look(client, Look::Routes(ip, length)).await?;
            if bird_text::routes(&reply).is_ok_and(|routes| !routes.is_empty()) {
                facts.covered.push(service);
                break;
            }
        }
        filters(client, &protocols, service, &mut facts).await?;
    }
    for protocol in protocols
        .iter()
        .filter(|one| one.kind == "OSPF" && one.is_up)
    {
        let Ok(name) = Symbol::new(&protocol.name) else {
            continue;
        };
        let reply = look(client, Look::OspfState(name)).await?;
        let stubs = if reply.is_error() {
            Err(format!("{:04} {}", reply.code(), reply.last_text()))
        } else {
            Ok(bird_text::stubs_at_zero(&reply, &router_id))
        };
        facts.zero_stubs.push((protocol.name.clone(), stubs));
    }
    if wanted.reads_bird {
        export_tables(client, &protocols, wanted, &mut facts).await?;
    }
    facts.protocols = protocols;
    Ok(facts)
}

/// What every named export filter of a BGP channel makes of a service's routes.
async fn filters(
    client: &mut Bird,
    protocols: &[Protocol],
    service: ServiceAddress,
    facts: &mut BirdFacts,
) -> Result<(), BirdError> {
    let (family, host) = match service.ip() {
        IpAddr::V4(_) => ("ipv4", 32),
        IpAddr::V6(_) => ("ipv6", 128),
    };
    for protocol in protocols.iter().filter(|one| one.kind == "BGP") {
        for channel in protocol.channels.iter().filter(|one| one.family == family) {
            let filter = &channel.output;
            let known = matches!(filter.as_str(), "ACCEPT" | "REJECT" | "(unnamed)");
            let (false, Ok(name)) = (known, Symbol::new(filter)) else {
                continue;
            };
            let reply = look(client, Look::Filtered(service.ip(), host, name)).await?;
            facts.filtered.push(Filtered {
                channel: format!("{}.{family}", protocol.name),
                filter: filter.clone(),
                service,
                routes: bird_text::routes(&reply),
            });
        }
    }
    Ok(())
}

async fn export_tables(
    client: &mut Bird,
    protocols: &[Protocol],
    wanted: &Wanted,
    facts: &mut BirdFacts,
) -> Result<(), BirdError> {
    for protocol in protocols.iter().filter(|one| one.kind == "BGP") {
        for channel in &protocol.channels {
            let name = format!("{}.{}", protocol.name, channel.family);
            let Ok(channel) = Channel::new(&name) else {
                continue;
            };
            let service = wanted.services.iter().find(|one| channel.carries(**one));
            let Some(&service) = service else {
                continue;
            };
            let reply = client.ask(&Command::ShowExported(channel, service)).await?;
            let table = match reply.code() {
                9001 if reply.last_text().starts_with("No export table") => Ok(false),
                8001 => Ok(true),
                code if reply.is_error() => Err(format!("{code:04} {}", reply.last_text())),
                _ => Ok(true),
            };
            facts.export_tables.push((name, table));
        }
    }
    Ok(())
}

/// Every shorter prefix that may be a backup, the longest first.
fn shorter(service: ServiceAddress) -> impl Iterator<Item = (IpAddr, u8)> {
    let shortest = if service.ip().is_ipv4() {
        SHORTEST.0
    } else {
        SHORTEST.1
    };
    let first = service.prefix().supernet();
    std::iter::successors(first, |prefix| prefix.supernet())
        .map(|prefix| (prefix.network(), prefix.prefix_len()))
        .take_while(move |(_, length)| *length >= shortest)
}

/// The main file, from the command line of the BIRD that has this socket.
fn bird_file(places: &Places, status: &Status) -> Sight<MainFile> {
    let path = host::bird_config(&places.bird_socket).unwrap_or_else(|| places.bird_file.clone());
    let shown = path.display();
    let modified = std::fs::metadata(&path).and_then(|data| data.modified());
    let modified = match modified {
        Ok(time) => time,
        Err(error) => return Sight::Unseen(format!("{shown}: {error}")),
    };
    let Some(loaded_ago) = status.loaded_ago else {
        return Sight::Unseen("BIRD prints times in a form that is not known".to_owned());
    };
    // A file of the future is newer.
    let age = SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default();
    Sight::Seen(MainFile {
        path: shown.to_string(),
        is_newer: age.as_secs() + SLACK < loaded_ago,
    })
}

async fn frr(places: &Places, wanted: &Wanted) -> Sight<FrrFacts> {
    let mut client = Frr::new(&places.frr_socket);
    match ask_frr(&mut client, places, wanted).await {
        Ok(sight) => sight,
        Err(error) => match &error {
            FrrError::Connect { source, .. } => unconnected("bgpd", source, &error),
            FrrError::Broken { .. } | FrrError::TimedOut { .. } | FrrError::TooLong { .. } => {
                Sight::Unseen(error.to_string())
            }
        },
    }
}

async fn ask_frr(
    client: &mut Frr,
    places: &Places,
    wanted: &Wanted,
) -> Result<Sight<FrrFacts>, FrrError> {
    client.ask(Question::Enable).await?;
    let running = client.ask(Question::RunningConfig).await?;
    if !running.is_success() {
        return Ok(Sight::Unseen(running.text.trim().to_owned()));
    }
    let path = places.frr_file.display();
    let file = match std::fs::read(&places.frr_file) {
        Ok(bytes) => {
            let config = Config::parse(&String::from_utf8_lossy(&bytes));
            Sight::Seen((path.to_string(), config))
        }
        Err(error) => Sight::Unseen(format!("{path}: {error}")),
    };
    let mut covered = Vec::new();
    for &service in &wanted.services {
        for (ip, length) in shorter(service) {
            let reply = client.ask(Question::Routes(ip, length)).await?;
            let routes = serde_json::from_str::<serde_json::Value>(&reply.text);
            if routes.is_ok_and(|routes| routes.get("paths").is_some()) {
                covered.push(service);
                break;
            }
        }
    }
    Ok(Sight::Seen(FrrFacts {
        socket: places.frr_socket.display().to_string(),
        running: Config::parse(&running.text),
        file,
        covered,
    }))
}
