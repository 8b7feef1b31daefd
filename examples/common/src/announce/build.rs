//! From what was configured to announcers that work.

use std::error::Error;
use std::fmt;

use anycast_announce::attributes::Expression;
use anycast_announce::bird::client::ClientError as BirdError;
use anycast_announce::bird::{BirdAnnouncer, Carrier};
use anycast_announce::frr::client::ClientError as FrrError;
use anycast_announce::frr::{Carrier as FrrCarrier, FrrAnnouncer};
use anycast_announce::kernel::{KernelAnnouncer, KernelConfig, KernelShare};
use anycast_core::announce::{AnnounceError, Announcer, Role};

use super::Announce;

/// Why nothing can be announced here, in one line: more than waiting is needed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotAnnounce(String);

impl Announce {
    /// The kernel's part; None: this process changes no address.
    #[must_use]
    pub const fn kernel(&self) -> Option<&KernelConfig> {
        match self {
            Self::Loopback(kernel) => Some(kernel),
            Self::Bird(bird) => bird.kernel(),
            Self::Frr(frr) => frr.kernel(),
            Self::Nothing => None,
        }
    }

    /// The announcer; None: nothing is to be announced. Those of one process share what they
    /// read of the kernel.
    #[must_use]
    pub fn announcer(&self, role: Role, share: &KernelShare) -> Option<Box<dyn Announcer>> {
        match self {
            Self::Loopback(kernel) => {
                let kernel = KernelAnnouncer::new(kernel.clone());
                Some(Box::new(kernel.sharing(share)))
            }
            Self::Bird(bird) => {
                let bird = BirdAnnouncer::new(bird.clone(), role);
                Some(Box::new(bird.sharing(share)))
            }
            Self::Frr(frr) => {
                let frr = FrrAnnouncer::new(frr.clone(), role);
                Some(Box::new(frr.sharing(share)))
            }
            Self::Nothing => None,
        }
    }

    /// Whether it can announce here and now; changes nothing. What a moment's patience may
    /// cure, as a routing daemon that is not up yet, is told and no error: nobody has to be
    /// started in an order.
    ///
    /// # Errors
    /// [`CannotAnnounce`].
    pub async fn probe(&self, role: Role) -> Result<Option<String>, CannotAnnounce> {
        let probed = match self {
            Self::Loopback(kernel) => KernelAnnouncer::new(kernel.clone()).probe().await,
            Self::Bird(bird) => BirdAnnouncer::new(bird.clone(), role).probe().await,
            Self::Frr(frr) => FrrAnnouncer::new(frr.clone(), role).probe().await,
            Self::Nothing => Ok(()),
        };
        match probed {
            Ok(()) => Ok(None),
            Err(error) if may_pass(&error) => Ok(Some(full_text(&error))),
            Err(error) => Err(CannotAnnounce(full_text(&error))),
        }
    }

    /// What of a routing daemon it steers, in words: no two services may steer the same.
    #[must_use]
    pub fn steered(&self) -> Vec<String> {
        match self {
            Self::Bird(bird) => {
                let socket = bird.socket().display();
                let name = |name| format!("the protocol {name} of BIRD at {socket}");
                let protocols = bird.steered().map(name);
                let file = if let Carrier::Include(file) = bird.carrier() {
                    Some(format!("the include file {}", file.path().display()))
                } else {
                    None
                };
                protocols.chain(file).collect()
            }
            Self::Frr(frr) => {
                let socket = frr.socket().display();
                let name = |entry| format!("the {entry} of FRR at {socket}");
                if let FrrCarrier::RouteMap(maps) = frr.carrier() {
                    maps.entries().iter().map(name).collect()
                } else {
                    Vec::new()
                }
            }
            Self::Loopback(_) | Self::Nothing => Vec::new(),
        }
    }
}

impl fmt::Display for Announce {
    /// How it announces, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(_) => f.write_str("loopback"),
            Self::Nothing => f.write_str("nothing is announced"),
            Self::Frr(frr) => {
                let neighbours: Vec<_> = frr.neighbours().iter().map(ToString::to_string).collect();
                let (neighbours, socket) = (neighbours.join(", "), frr.socket().display());
                write!(
                    f,
                    "frr at {socket}, confirmed from what {neighbours} were sent"
                )?;
                if let FrrCarrier::RouteMap(maps) = frr.carrier() {
                    let entries: Vec<_> = maps.entries().iter().map(ToString::to_string).collect();
                    write!(f, "; the level in {}", entries.join(", "))?;
                }
                Ok(())
            }
            Self::Bird(bird) => {
                let channels: Vec<_> = bird.channels().iter().map(ToString::to_string).collect();
                let (channels, socket) = (channels.join(", "), bird.socket().display());
                let is_ospf = matches!(bird.expression(), Some(Expression::OspfMetric { .. }));
                let what = if is_ospf { "LSAs" } else { "exports" };
                write!(
                    f,
                    "bird at {socket}, confirmed from the {what} of {channels}"
                )?;
                if let Carrier::Protocol(boost) = bird.carrier() {
                    let boost: Vec<_> = boost.iter().map(ToString::to_string).collect();
                    write!(f, "; {} enabled while preferred", boost.join(", "))?;
                } else if let Carrier::Include(file) = bird.carrier() {
                    write!(f, "; the level in {}", file.path().display())?;
                }
                Ok(())
            }
        }
    }
}

fn causes<'a>(error: &'a AnnounceError) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

fn may_pass(error: &AnnounceError) -> bool {
    causes(error).any(|cause| {
        let bird = cause.downcast_ref::<BirdError>().map(BirdError::may_pass);
        let frr = cause.downcast_ref::<FrrError>().map(FrrError::may_pass);
        bird.or(frr) == Some(true)
    })
}

/// In one line, with its causes, each said once.
fn full_text(error: &AnnounceError) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
    }
    text
}
