//! `anycast-tftpd`'s configuration file.
//!
//! ```toml
//! [node]      name, domain, state_dir, admin
//! [service]   name, addresses, role, rank, fail_safe, rise, fall, hold_down, on_stop, keep_for
//! [service.turns] spacing, leave_within: see `anycast_core::machine::TurnPolicy`
//! [[check]]   kind = "tftp" with file, or a general kind; name, interval, timeout, recheck,
//!             severity
//! [announce]  kind = "loopback" | "bird" | "frr" | "none" and the keys of that kind, see
//!             `anycast_daemon::announce`
//! [mesh]      listen, identity; [[mesh.peer]] name, address, fingerprints: see
//!             `anycast_daemon::mesh`
//! [sync]      mode, origin, max_lag, settle, hold, rescan; [[sync.group]] name, files: see
//!             `sync.rs`; [sync.bucket] name, endpoint, region, prefix, access_key_file,
//!             secret_key_file, credentials, ca, interval: see `sync/bucket.rs`
//! [tftp]      root, port, writes, mtu, max_blksize, max_windowsize, block_wrap,
//!             max_sessions, max_sessions_per_prefix, max_upload, max_uploads,
//!             max_upload_total, drain_timeout, handoff, hold_wait: see `handoff.rs` for the
//!             last two
//! ```
//!
//! Reading a file touches nothing: no socket is bound and no address is set.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anycast_core::HealthCheck;
use anycast_core::config::check::{self, CheckContext, CheckTable, Kinds};
use anycast_core::config::{ConfigError, NodeTable, Period, ServiceTable, Source, invalid};
use anycast_core::drain;
use anycast_core::health::BuildCheck;
use anycast_core::machine::{Identity, Policy};
use anycast_core::node::{CheckSpec, OnStop};
use anycast_daemon::announce::{Announce, AnnounceTable};
use anycast_daemon::mesh::{MeshTable, check_turns};
use anycast_tftp::health::{Proof, TftpCheck};
use anycast_tftp::proto::settings::Settings;
use anycast_tftp::proto::transfer::Rollover;
use anycast_tftp::store::{FileName, FsStore, WritePolicy};
use serde::Deserialize;

use crate::handoff::{HandoffConfig, HandoffKey};
use crate::sync::{SyncConfig, SyncTable};

/// Default of `[tftp] drain_timeout`.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: NodeTable,
    service: ServiceTable,
    #[serde(default)]
    check: Vec<CheckTable>,
    announce: AnnounceTable,
    mesh: Option<MeshTable>,
    sync: Option<SyncTable>,
    tftp: TftpTable,
}

/// What `kind = "tftp"` has of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TftpCheckTable {
    file: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TftpTable {
    root: PathBuf,
    port: Option<NonZeroU16>,
    #[serde(default)]
    writes: WritesKey,
    mtu: Option<u32>,
    max_blksize: Option<u16>,
    max_windowsize: Option<u16>,
    block_wrap: Option<u8>,
    max_sessions: Option<u32>,
    max_sessions_per_prefix: Option<u32>,
    max_upload: Option<u64>,
    max_uploads: Option<u32>,
    max_upload_total: Option<u64>,
    drain_timeout: Option<Period>,
    handoff: Option<HandoffKey>,
    hold_wait: Option<Period>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WritesKey {
    #[default]
    Off,
    Create,
    Overwrite,
}

/// A configuration that fits together.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) node: NodeTable,
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
    pub(crate) on_stop: OnStop,
    pub(crate) checks: Vec<CheckSpec>,
    pub(crate) announce: Announce,
    /// Without it the node decides alone.
    pub(crate) mesh: Option<MeshTable>,
    /// Without it the files are the operator's to copy. Not without `mesh` or a bucket.
    pub(crate) sync: Option<SyncConfig>,
    /// Without it a transfer ends with its node. Not without `mesh` and `sync`.
    pub(crate) handoff: Option<HandoffConfig>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) tftp: Settings,
    pub(crate) root: PathBuf,
    pub(crate) store: Arc<FsStore>,
    pub(crate) drain_timeout: Duration,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], in one line.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = Source::read(path)?;
        let file: File = source.tables()?;
        let identity = file.service.identity(path)?;
        let port = file.tftp.port.map_or(69, NonZeroU16::get);
        let listen: Vec<_> = identity
            .addresses
            .iter()
            .map(|address| SocketAddr::new(address.ip(), port))
            .collect();
        let announce = file
            .announce
            .resolve(path, "[announce]", &identity.addresses)?;
        if announce == Announce::Nothing && !file.check.is_empty() {
            return Err(invalid(
                path,
                "[[check]]",
                "has no effect with [announce] kind = \"none\"; remove it",
            ));
        }
        if announce != Announce::Nothing && file.check.is_empty() {
            return Err(invalid(
                path,
                "[[check]]",
                "there is none, so the node could never become preferred; add one, such as \
                 kind = \"tftp\", file = \"health\"",
            ));
        }
        let checks = checks(&source, &file, port)?;
        let drain_timeout = file
            .tftp
            .drain_timeout
            .map_or(DEFAULT_DRAIN_TIMEOUT, Period::get);
        if drain_timeout > Duration::from_secs(3600) {
            return Err(invalid(path, "[tftp] drain_timeout", "must be at most 1h"));
        }
        if !file.node.state_dir.is_absolute() {
            let folder = file.node.state_dir.display();
            let reason = format!("{folder} is not an absolute path");
            return Err(invalid(path, "[node] state_dir", reason));
        }
        let sync = mesh_and_sync(path, &file, &identity)?;
        let keys = (file.tftp.handoff, file.tftp.hold_wait);
        let handoff = HandoffConfig::resolve(path, keys, file.mesh.as_ref(), sync.is_some())?;
        let policy = file.service.policy(path)?;
        check_turns(path, policy.turns, file.mesh.as_ref())?;
        Ok(Self {
            policy,
            on_stop: file.service.on_stop(path)?,
            tftp: settings(path, &file)?,
            store: store(path, &file.tftp.root)?,
            root: file.tftp.root,
            mesh: file.mesh,
            sync,
            handoff,
            node: file.node,
            identity,
            checks,
            announce,
            listen,
            drain_timeout,
        })
    }

    /// The drain of the service.
    pub(crate) fn drain(&self) -> drain::Settings {
        drain::Settings {
            finish: self.drain_timeout,
            ..drain::Settings::default()
        }
    }

    /// The first thing in which `new` differs that only a restart can change.
    pub(crate) fn needs_restart(&self, new: &Self) -> Option<&'static str> {
        let (old, role) = (&self.identity, self.identity.role);
        [
            (self.node.name != new.node.name, "[node] name"),
            (self.node.domain != new.node.domain, "[node] domain"),
            (
                self.node.state_dir != new.node.state_dir,
                "[node] state_dir",
            ),
            (self.node.admin != new.node.admin, "[node] admin"),
            (old.service != new.identity.service, "[service] name"),
            (
                old.addresses != new.identity.addresses,
                "[service] addresses",
            ),
            (role != new.identity.role, "[service] role"),
            (self.on_stop != new.on_stop, "[service] on_stop"),
            (self.announce != new.announce, "[announce]"),
            (self.mesh != new.mesh, "[mesh]"),
            (self.sync != new.sync, "[sync]"),
            (
                self.handoff != new.handoff,
                "[tftp] handoff or [tftp] hold_wait",
            ),
            (
                self.sync.is_some() && self.root != new.root,
                "[tftp] root of a folder with [sync]",
            ),
            (self.listen != new.listen, "[tftp] port"),
        ]
        .into_iter()
        .find_map(|(differs, key)| differs.then_some(key))
    }
}

impl TftpCheckTable {
    fn build(&self, context: &CheckContext<'_>, port: u16) -> Result<BuildCheck, String> {
        if FileName::from_wire(self.file.as_bytes()).is_err() {
            return Err(
                "file: no file below the root can have this name; give its path from the root"
                    .to_owned(),
            );
        }
        let proof = Proof::Required(context.node.clone());
        let check = TftpCheck::new(context.addresses, port, &self.file, proof);
        Ok(Arc::new(move || {
            Box::new(check.clone()) as Box<dyn HealthCheck>
        }))
    }
}

/// Checks both tables, and resolves the second.
fn mesh_and_sync(
    path: &Path,
    file: &File,
    identity: &Identity,
) -> Result<Option<SyncConfig>, ConfigError> {
    let node = &file.node.name;
    if let Some(mesh) = &file.mesh {
        let addresses: Vec<_> = identity.addresses.iter().collect();
        mesh.check(path, node, addresses.iter())?;
    }
    let Some(sync) = &file.sync else {
        return Ok(None);
    };
    if file.mesh.is_none() && !sync.has_bucket() {
        return Err(invalid(
            path,
            "[sync]",
            "needs [mesh] or [sync.bucket]: files come from the other nodes or from a bucket; add \
             [mesh] and its peers, or [sync.bucket]",
        ));
    }
    let peers = file.mesh.iter().flat_map(|mesh| &mesh.peer);
    let nodes: Vec<_> = peers.map(|peer| &peer.name).chain([node]).collect();
    sync.resolve(path, &nodes, !sync.has_bucket()).map(Some)
}

fn checks(source: &Source, file: &File, port: u16) -> Result<Vec<CheckSpec>, ConfigError> {
    let context = CheckContext {
        node: &file.node.name,
        service: &file.service.name,
        addresses: &file.service.addresses,
    };
    let kinds = Kinds::built_in().with(
        "tftp",
        |table: &TftpCheckTable, context: &CheckContext<'_>| table.build(context, port),
    );
    check::checks(source, &file.check, &context, &kinds)
}

fn settings(path: &Path, file: &File) -> Result<Settings, ConfigError> {
    let table = &file.tftp;
    let mut settings = Settings::new()
        .with_node(Some(file.node.name.clone()))
        .with_writes(match table.writes {
            WritesKey::Off => WritePolicy::Off,
            WritesKey::Create => WritePolicy::Create,
            WritesKey::Overwrite => WritePolicy::Overwrite,
        });
    if let Some(mtu) = table.mtu {
        settings = settings.with_mtu(mtu);
    }
    if let Some(max_blksize) = table.max_blksize {
        settings = settings.with_max_blksize(max_blksize);
    }
    if let Some(max_windowsize) = table.max_windowsize {
        settings = settings.with_max_windowsize(max_windowsize);
    }
    if let Some(limit) = table.max_sessions {
        settings = settings.with_max_sessions(limit);
    }
    if let Some(limit) = table.max_sessions_per_prefix {
        settings = settings.with_max_sessions_per_prefix(limit);
    }
    if let Some(limit) = table.max_upload {
        settings = settings.with_max_upload(limit);
    }
    if let Some(limit) = table.max_uploads {
        settings = settings.with_max_uploads(limit);
    }
    if let Some(limit) = table.max_upload_total {
        settings = settings.with_max_upload_total(limit);
    }
    settings = match table.block_wrap {
        None | Some(0) => settings,
        Some(1) => settings.with_rollover(Rollover::One),
        Some(other) => {
            return Err(invalid(
                path,
                "[tftp] block_wrap",
                format!("is {other}; block 65535 is followed by 0 or by 1"),
            ));
        }
    };
    settings
        .validate()
        .map_err(|error| invalid(path, "[tftp]", error.to_string()))?;
    Ok(settings)
}

fn store(path: &Path, root: &Path) -> Result<Arc<FsStore>, ConfigError> {
    const KEY: &str = "[tftp] root";
    if !root.is_absolute() {
        let reason = format!("{} is not an absolute path", root.display());
        return Err(invalid(path, KEY, reason));
    }
    match FsStore::open_root(root) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(invalid(
            path,
            KEY,
            format!("{error}; create the folder or mend its permissions"),
        )),
    }
}
