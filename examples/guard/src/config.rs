//! `anycast-guard`'s configuration file.
//!
//! ```toml
//! [node]              name, domain, state_dir, admin
//! [mesh]              listen, identity; [[mesh.peer]] name, address, fingerprints: see
//!                     `anycast_daemon::mesh`
//! [announce]          kind = "loopback" | "bird" | "frr" and the keys of that kind, see
//!                     `anycast_daemon::announce`: the default of every service
//! [[service]]         name, state = "active" | "removed", addresses, role, rank, fail_safe,
//!                     rise, fall, hold_down, on_stop, keep_for, and the other keys of a policy
//! [[service.check]]   kind, name, interval, timeout, recheck, severity, the kind's own keys
//! [service.turns]     spacing, leave_within: see `anycast_core::machine::TurnPolicy`
//! [service.announce]  what differs from [announce]
//! ```
//!
//! Reading a file touches nothing: no socket is opened and no address is set.

mod needs;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use anycast_core::ServiceName;
use anycast_core::config::check::{CheckContext, Kinds, checks};
use anycast_core::config::{ConfigError, NodeTable, Source, invalid};
use anycast_core::machine::{Identity, Policy};
use anycast_core::node::{CheckSpec, OnStop};
use anycast_core::service::{NodeName, ServiceAddress};
use anycast_daemon::announce::{Announce, AnnounceKind, AnnounceTable};
use anycast_daemon::mesh::{MeshTable, check_turns};
use anycast_daemon::privileges::CapabilitySet;
use serde::Deserialize;
use toml::Spanned;

use self::service::{StateKey, Table};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: NodeTable,
    mesh: Option<MeshTable>,
    #[serde(default)]
    announce: AnnounceTable,
    #[serde(default)]
    service: Vec<Spanned<Table>>,
}

/// One service as it is to be guarded.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
    pub(crate) on_stop: OnStop,
    pub(crate) checks: Vec<CheckSpec>,
    pub(crate) announce: Announce,
    /// Drained, whatever its checks say, because the file says so.
    pub(crate) is_removed: bool,
}

impl Service {
    /// Its name.
    pub(crate) const fn name(&self) -> &ServiceName {
        &self.identity.service
    }

    /// The first thing in which `new` differs that only a restart can change.
    pub(crate) fn needs_restart(&self, new: &Self) -> Option<&'static str> {
        let (old, new_identity) = (&self.identity, &new.identity);
        [
            (old.addresses != new_identity.addresses, "addresses"),
            (old.role != new_identity.role, "role"),
            (self.on_stop != new.on_stop, "on_stop"),
            (self.announce != new.announce, "announce"),
        ]
        .into_iter()
        .find_map(|(differs, key)| differs.then_some(key))
    }
}

/// A configuration that fits together.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) node: NodeTable,
    /// Without it the node decides alone.
    pub(crate) mesh: Option<MeshTable>,
    /// In the order of the file; at least one.
    pub(crate) services: Vec<Service>,
    /// What the checks need beyond an ordinary user's rights.
    pub(crate) needs: CapabilitySet,
}

impl Config {
    /// All that is needed beyond an ordinary user's rights.
    pub(crate) fn capabilities(&self) -> CapabilitySet {
        let mut needed = self.needs;
        let carries = |service: &Service| service.announce.kernel().is_some();
        if self.services.iter().any(carries) {
            needed |= CapabilitySet::NET_ADMIN;
        }
        needed
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], in one line.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_source(&Source::read(path)?)
    }

    fn from_source(source: &Source) -> Result<Self, ConfigError> {
        let file: File = source.tables()?;
        if file.service.is_empty() {
            return Err(invalid(
                source.path(),
                "[[service]]",
                "there is none; describe at least one service to guard",
            ));
        }
        let mut services: Vec<Service> = Vec::with_capacity(file.service.len());
        let mut owners: BTreeMap<ServiceAddress, ServiceName> = BTreeMap::new();
        for table in &file.service {
            let at = table.span().start;
            let service = service(source, table.get_ref(), &file)
                .map_err(|error| located(error, source, at, &table.get_ref().shared.name))?;
            distinct(&service, &services, &mut owners)
                .map_err(|reason| source.fault(at, &format!("[[service]] {reason}")))?;
            services.push(service);
        }
        if let Some(mesh) = &file.mesh {
            mesh.check(source.path(), &file.node.name, owners.keys())?;
        }
        Ok(Self {
            node: file.node,
            mesh: file.mesh,
            services,
            needs: source.tables::<toml::Table>().map(|t| needs::of(&t))?,
        })
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.name() == name)
    }

    /// The first thing in which `new` differs that only a restart can change.
    pub(crate) fn needs_restart(&self, new: &Self) -> Option<String> {
        let node = [
            (self.node.name != new.node.name, "[node] name"),
            (self.node.domain != new.node.domain, "[node] domain"),
            (
                self.node.state_dir != new.node.state_dir,
                "[node] state_dir",
            ),
            (self.node.admin != new.node.admin, "[node] admin"),
            (self.mesh != new.mesh, "[mesh]"),
            (
                !self.needs.contains(new.needs),
                "a [[service.check]] that needs a capability, which is dropped at the start",
            ),
        ];
        if let Some((_, key)) = node.into_iter().find(|(differs, _)| *differs) {
            return Some(key.to_owned());
        }
        new.services.iter().find_map(|service| {
            let name = service.name();
            match self.service(name) {
                Some(old) => old
                    .needs_restart(service)
                    .map(|key| format!("[[service]] {name} {key}")),
                None => Some(format!("the new [[service]] {name}")),
            }
        })
    }

    /// The services that `new` leaves out without having said first that they are removed.
    pub(crate) fn left_out<'a>(&'a self, new: &Self) -> Vec<&'a ServiceName> {
        self.services
            .iter()
            .filter(|service| !service.is_removed && new.service(service.name()).is_none())
            .map(Service::name)
            .collect()
    }
}

fn service(source: &Source, table: &Table, file: &File) -> Result<Service, ConfigError> {
    let path = source.path();
    let identity = table.shared.identity(path)?;
    let own = table.announce.as_ref().unwrap_or(&file.announce);
    let announce = own.or(&file.announce);
    if announce.kind == Some(AnnounceKind::None) {
        let reason = "\"none\" would leave nothing to guard; set kind = \"loopback\"";
        return Err(invalid(path, "[announce] kind", reason));
    }
    let announce = announce.resolve(path, "[announce]", &identity.addresses)?;
    if table.checks.is_empty() {
        return Err(invalid(
            path,
            "[[service.check]]",
            "there is none, so the service could never become preferred; add one, such as \
             kind = \"tcp\", port = 80",
        ));
    }
    let policy = table.shared.policy(path)?;
    check_turns(path, policy.turns, file.mesh.as_ref())?;
    Ok(Service {
        policy,
        on_stop: table.shared.on_stop(path)?,
        checks: specs(source, table, &file.node.name, &identity)?,
        identity,
        announce,
        is_removed: table.state == StateKey::Removed,
    })
}

fn specs(
    source: &Source,
    table: &Table,
    node: &NodeName,
    identity: &Identity,
) -> Result<Vec<CheckSpec>, ConfigError> {
    let context = CheckContext {
        node,
        service: &identity.service,
        addresses: &identity.addresses,
    };
    let specs = checks(source, &table.checks, &context, &Kinds::built_in())?;
    let critical = |spec: &CheckSpec| spec.severity == anycast_core::health::Severity::Critical;
    if !specs.iter().any(critical) {
        return Err(invalid(
            source.path(),
            "[[service.check]] severity",
            "none is critical, so nothing could ever lower the service; make one critical",
        ));
    }
    Ok(specs)
}

/// Two services of one name, or with one address, or steering the same of a routing daemon:
/// two announcers would fight over it.
fn distinct(
    service: &Service,
    others: &[Service],
    owners: &mut BTreeMap<ServiceAddress, ServiceName>,
) -> Result<(), String> {
    let name = service.name();
    if others.iter().any(|other| other.name() == name) {
        return Err(format!(
            "name: two services are called {name}; give each a name of its own"
        ));
    }
    for address in service.identity.addresses.iter() {
        if let Some(owner) = owners.insert(address, name.clone()) {
            return Err(format!(
                "{name} addresses: {address} is an address of {owner} already; an address is \
                 announced or not for all that it serves, so put the checks of both into one \
                 service"
            ));
        }
    }
    let steered = service.announce.steered();
    let other = others.iter().find_map(|other| {
        let theirs = other.announce.steered();
        let both = steered.iter().find(|one| theirs.contains(one))?;
        Some((other.name(), both))
    });
    match other {
        None => Ok(()),
        Some((other, both)) => Err(format!(
            "{name} announce: {both} is steered for {other} already; two services would fight \
             over it, so give each its own"
        )),
    }
}

/// A fault that concerns several keys of one service, with the place of its table.
fn located(error: ConfigError, source: &Source, at: usize, service: &ServiceName) -> ConfigError {
    let ConfigError::Invalid { key, reason, .. } = error else {
        return error;
    };
    let key = match key.strip_prefix("[service] ") {
        Some(key) => format!("[[service]] {service} {key}"),
        None => format!("[[service]] {service}: {key}"),
    };
    source.fault(at, &format!("{key}: {reason}"))
}
