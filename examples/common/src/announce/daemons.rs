//! What is announced through a routing daemon: the keys of BIRD and of FRR.

use std::path::PathBuf;

use anycast_announce::bird::command::{Channel, NameError, Symbol};
use anycast_announce::bird::{BirdConfig, BirdConfigError, Carrier};
use anycast_announce::frr::{FrrConfig, FrrConfigError};
use anycast_core::service::ServiceAddresses;

use super::{AnnounceTable, CarrierKey, Fault};

impl AnnounceTable {
    pub(super) fn bird(&self, addresses: &ServiceAddresses) -> Result<BirdConfig, Fault> {
        let carrier = self.bird_carrier()?;
        let channels = names("channels", self.channels.as_deref(), Channel::new)?;
        let uncarried = |address| !channels.iter().any(|channel| channel.carries(address));
        let uncarried = addresses.iter().find(|address| uncarried(*address));
        if let (Some(address), false) = (uncarried, channels.is_empty()) {
            let family = if address.ip().is_ipv4() { 4 } else { 6 };
            let reason = format!(
                "none of them carries {address}, so nothing of it could be read back; add one, \
                 such as \"router{family}.ipv{family}\""
            );
            return Err(Fault::new("channels", &reason));
        }
        let mut config = BirdConfig::new(carrier, channels).map_err(|error| bird_fault(&error))?;
        if let Some(socket) = self.absolute_socket()? {
            config = config.with_socket(socket);
        }
        let floor = names("floor_protocols", self.floor_protocols.as_deref(), Symbol::new)?;
        config = config
            .with_floor(floor)
            .map_err(|error| bird_fault(&error))?;
        if let Some(expression) = self.expression()? {
            let shown = config.with_expression(expression);
            config = shown.map_err(|error| bird_fault(&error))?;
        }
        Ok(config)
    }

    fn bird_carrier(&self) -> Result<Carrier, Fault> {
        match self.carrier.unwrap_or(CarrierKey::Kernel) {
            CarrierKey::Kernel => {
                if self.boost.is_some() {
                    let reason = "has no effect with carrier = \"kernel\"; remove it, or set \
                                  carrier = \"protocol\"";
                    return Err(Fault::new("boost", &reason));
                }
                self.kernel().map(Carrier::Kernel)
            }
            CarrierKey::Protocol => {
                self.has_floor()?;
                let kernel = [
                    (self.dead_man.is_some(), "dead_man"),
                    (self.interface.is_some(), "interface"),
                ];
                if let Some((_, key)) = kernel.into_iter().find(|(given, _)| *given) {
                    let reason = "has no effect with carrier = \"protocol\", which has no dead \
                                  man and sets no address; remove it";
                    return Err(Fault::new(key, &reason));
                }
                names("boost", self.boost.as_deref(), Symbol::new).map(Carrier::Protocol)
            }
        }
    }

    pub(super) fn frr(&self) -> Result<FrrConfig, Fault> {
        let neighbours = self.neighbours.clone().unwrap_or_default();
        let config = FrrConfig::new(self.kernel()?, neighbours);
        let mut config = config.map_err(|error| frr_fault(&error))?;
        if let Some(socket) = self.absolute_socket()? {
            config = config.with_socket(socket);
        }
        if let Some(expression) = self.expression()? {
            let shown = config.with_expression(expression);
            config = shown.map_err(|error| frr_fault(&error))?;
        }
        Ok(config)
    }

    fn absolute_socket(&self) -> Result<Option<PathBuf>, Fault> {
        match &self.socket {
            Some(socket) if !socket.is_absolute() => {
                let reason = format!("{} is not an absolute path", socket.display());
                Err(Fault::new("socket", &reason))
            }
            socket => Ok(socket.clone()),
        }
    }
}

fn names<T>(
    key: &'static str,
    given: Option<&[String]>,
    new: impl Fn(&str) -> Result<T, NameError>,
) -> Result<Vec<T>, Fault> {
    let given = given.unwrap_or_default().iter();
    let named = given.map(|name| new(name).map_err(|error| Fault::new(key, &error)));
    named.collect()
}

fn bird_fault(error: &BirdConfigError) -> Fault {
    let key = match error {
        BirdConfigError::NoBoost => "boost",
        BirdConfigError::Both(_) => "floor_protocols",
        // The levels were looked at before.
        _ => "channels",
    };
    Fault::new(key, error)
}

fn frr_fault(error: &FrrConfigError) -> Fault {
    let key = match error {
        FrrConfigError::Community => "community",
        _ => "neighbours",
    };
    let reason = match error {
        FrrConfigError::Community => {
            format!("{error}; use local_pref, med or prepend")
        }
        _ => error.to_string(),
    };
    Fault::new(key, &reason)
}
