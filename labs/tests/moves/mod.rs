//! TFTP transfers while routes move: real routing daemons at the clients' router and at three sites,
//! a stateful firewall at each site, real clients beyond the router.

pub(crate) mod capture;
pub(crate) mod clients;
pub(crate) mod config;
pub(crate) mod crowd;
pub(crate) mod lab;
pub(crate) mod scenario;
pub(crate) mod site;
pub(crate) mod table;
pub(crate) mod uboot;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use anycast_labs::node::service::{build, build_ctl, build_guard};

/// The service's address.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 69);
/// Far more than any change takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `[tftp] handoff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handoff {
    Off,
    BeforeReply,
}

impl Handoff {
    /// Whoever reads for longer is ended: without handoff, where two packets of three are lost, there is
    /// a block now and then, and no end. With it only a slow machine takes so long.
    pub(crate) const fn most(self) -> Duration {
        match self {
            Self::Off => Duration::from_secs(60),
            Self::BeforeReply => Duration::from_secs(180),
        }
    }
}

/// The daemons, and the command that asks them.
pub(crate) fn prepare() -> Result<Vec<(String, OsString)>, String> {
    Ok([build()?, build_guard()?, build_ctl()?].concat())
}

pub(crate) use anycast_labs::noise;
