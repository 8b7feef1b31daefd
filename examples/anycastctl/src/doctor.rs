//! `anycastctl doctor`: what of this host's routing will fail in silence. Asks no node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anycast_announce::doctor::gather::{Places, gather};
use anycast_announce::doctor::snippet::backup_route;
use anycast_announce::doctor::{Report, Severity, Verdict, Wanted, examine};
use anycast_core::service::ServiceAddress;
use clap::Args;
use serde::Serialize;

use crate::screen::{self, Screen};
use crate::text::{Span, Style, Text};

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// The node's configuration: of anycast-tftpd or of anycast-guard
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A service address; may be repeated [default: those of --config, else those that the
    /// kernel announcer holds]
    #[arg(long = "service", value_name = "ADDRESS")]
    services: Vec<ServiceAddress>,
    /// Print the report in JSON
    #[arg(long, conflicts_with = "backup_route")]
    json: bool,
    /// Print what the routers need for a less-specific backup route to these unicast addresses
    /// of one site, and look at nothing else
    #[arg(long, value_name = "ADDRESS", num_args = 0.., value_delimiter = ',')]
    backup_route: Option<Vec<IpAddr>>,
    /// BIRD's control socket
    #[arg(long, value_name = "PATH")]
    bird_socket: Option<PathBuf>,
    /// bgpd's vty socket
    #[arg(long, value_name = "PATH")]
    frr_socket: Option<PathBuf>,
    /// FRR's configuration file
    #[arg(long, value_name = "PATH")]
    frr_config: Option<PathBuf>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoctorError {
    #[error("{}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Config { path: PathBuf, reason: String },
    #[error("no service address is known: name one with --service, or give --config")]
    NoService,
    #[error("cannot start: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl DoctorError {
    /// 3: nothing was looked at.
    pub(crate) const fn exit_status(&self) -> u8 {
        Verdict::Blind as u8
    }
}

#[derive(Serialize)]
struct Printed<'a> {
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(look: Look, screen: Screen) -> Result<ExitCode, DoctorError> {
    let mut wanted = Wanted::default();
    if let Some(path) = &look.config {
        wanted = read(path)?;
    }
    if !look.services.is_empty() {
        wanted.services.clone_from(&look.services);
    }
    let mut places = Places::default();
    for (place, given) in [
        (&mut places.bird_socket, look.bird_socket),
        (&mut places.frr_socket, look.frr_socket),
        (&mut places.frr_file, look.frr_config),
    ] {
        if let Some(given) = given {
            *place = given;
        }
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(DoctorError::Runtime)?;
    let facts = runtime.block_on(gather(&places, wanted));
    if let Some(via) = &look.backup_route {
        if facts.wanted.services.is_empty() {
            return Err(DoctorError::NoService);
        }
        screen::write(&backup_route(&facts.wanted.services, via))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = examine(&facts);
    let verdict = report.verdict();
    if look.json {
        let printed = Printed {
            verdict,
            report: &report,
        };
        let text = serde_json::to_string_pretty(&printed).map_err(std::io::Error::other)?;
        screen::write(&(text + "\n"))?;
    } else {
        screen.write(&show(&report))?;
    }
    Ok(ExitCode::from(verdict as u8))
}

/// The service addresses of a configuration, of any of our daemons, and whether BIRD is read
/// back. The daemons themselves check the rest: `check-config`.
fn read(path: &Path) -> Result<Wanted, DoctorError> {
    let text = std::fs::read_to_string(path).map_err(|source| DoctorError::Read {
        path: path.to_owned(),
        source,
    })?;
    let bad = |reason: String| DoctorError::Config {
        path: path.to_owned(),
        reason,
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        bad(error.to_string().lines().collect::<Vec<_>>().join(" "))
    })?;
    let mut wanted = Wanted::default();
    let mut announces = vec![table.get("announce")];
    let services = match table.get("service") {
        Some(toml::Value::Array(services)) => services.iter().collect(),
        Some(service) => vec![service],
        None => return Err(bad("it has no [service]".to_owned())),
    };
    for service in services {
        announces.push(service.get("announce"));
        let addresses = service.get("addresses").and_then(toml::Value::as_array);
        let addresses = addresses.ok_or_else(|| bad("a service has no addresses".to_owned()))?;
        for address in addresses {
            let text = address.as_str().unwrap_or_default();
            let address = text.parse();
            wanted
                .services
                .push(address.map_err(|error| bad(format!("addresses: {text:?}: {error}")))?);
        }
    }
    wanted.reads_bird = announces.into_iter().flatten().any(|announce| {
        let kind = announce.get("kind").and_then(toml::Value::as_str);
        kind == Some("bird")
    });
    Ok(wanted)
}

fn show(report: &Report) -> Text {
    let mut text = Text::default();
    for found in &report.findings {
        let (style, word) = match found.severity {
            Severity::Trap => (Style::Bad, "TRAP"),
            Severity::Warning => (Style::Warn, "WARNING"),
            Severity::Note | _ => (Style::Dim, "note"),
        };
        text.line([
            Span::new(style, &format!("{word} {}", found.trap)),
            Span::plain(&format!("  {}", found.place)),
        ]);
        for (name, value) in [
            ("what", &found.what),
            ("why", &found.why),
            ("fix", &found.fix),
        ] {
            text.line([
                Span::new(Style::Dim, &format!("  {name:<5}")),
                Span::plain(value),
            ]);
        }
    }
    for unseen in &report.unseen {
        text.line([
            Span::new(Style::Warn, "NOT SEEN"),
            Span::plain(&format!(" {}: {}", unseen.what, unseen.why)),
        ]);
    }
    if !report.seen.is_empty() {
        text.line([
            Span::new(Style::Dim, "looked at  "),
            Span::plain(&report.seen.join("; ")),
        ]);
    }
    let (style, word) = match report.verdict() {
        Verdict::Clean => (Style::Good, "no trap"),
        Verdict::Warnings => (Style::Warn, "warnings"),
        Verdict::Traps => (Style::Bad, "traps"),
        Verdict::Blind | _ => (
            Style::Warn,
            "no trap in what was seen, but not everything was seen",
        ),
    };
    text.line([Span::new(style, word)]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Result<Wanted, DoctorError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn addresses_are_read_from_both_kinds_of_configuration() {
        let tftpd = wanted(include_str!("../../tftpd/anycast-tftpd.toml")).unwrap();
        assert_eq!(tftpd.services.len(), 2);
        assert!(!tftpd.reads_bird);
        let guard = wanted(include_str!("../../guard/configs/unbound.toml")).unwrap();
        assert!(!guard.services.is_empty());
        let bird =
            wanted("[[service]]\naddresses = [\"192.0.2.1/32\"]\n[announce]\nkind = \"bird\"\n");
        assert!(bird.unwrap().reads_bird);
    }

    #[test]
    fn a_configuration_that_says_nothing_is_an_error_and_one_line() {
        for text in [
            "",
            "[service",
            "[service]\n",
            "[service]\naddresses = [\"x\"]\n",
            "[service]\naddresses = [7]\n",
        ] {
            let error = wanted(text).unwrap_err();
            assert_eq!(error.exit_status(), 3);
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
