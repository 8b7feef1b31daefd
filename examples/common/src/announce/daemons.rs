//! What is announced through a routing daemon: the keys of BIRD and of FRR.

use std::path::{Path, PathBuf};

use anycast_announce::bird::command::{Channel, NameError, Symbol};
use anycast_announce::bird::include::IncludeFile;
use anycast_announce::bird::{BirdConfig, BirdConfigError, Carrier};
use anycast_announce::frr::route_map::{Entry, RouteMaps};
use anycast_announce::frr::{Carrier as FrrCarrier, FrrConfig, FrrConfigError};
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
        let floor = names(
            "floor_protocols",
            self.floor_protocols.as_deref(),
            Symbol::new,
        )?;
        config = config
            .with_floor(floor)
            .map_err(|error| bird_fault(&error))?;
        if let Some(expression) = self.expression()? {
            let shown = config.with_expression(expression);
            let key = if self.prepend.is_some() {
                "prepend"
            } else {
                "community"
            };
            config = shown.map_err(|error| Fault::new(key, &error))?;
        }
        Ok(config)
    }

    fn bird_carrier(&self) -> Result<Carrier, Fault> {
        let carrier = self.carrier.unwrap_or(CarrierKey::Kernel);
        if carrier == CarrierKey::RouteMap {
            let reason = "\"route-map\" is FRR's; choose \"kernel\", \"protocol\" or \"include\"";
            return Err(Fault::new("carrier", &reason));
        }
        self.fits(carrier)?;
        match carrier {
            CarrierKey::Kernel => self.kernel().map(Carrier::Kernel),
            CarrierKey::Protocol => {
                self.has_floor()?;
                names("boost", self.boost.as_deref(), Symbol::new).map(Carrier::Protocol)
            }
            CarrierKey::Include | CarrierKey::RouteMap => self.include_file().map(Carrier::Include),
        }
    }

    /// Refuses keys that mean something for another carrier alone.
    fn fits(&self, carrier: CarrierKey) -> Result<(), Fault> {
        let (kernel, protocol) = (CarrierKey::Kernel, CarrierKey::Protocol);
        let (include, route_map) = (CarrierKey::Include, CarrierKey::RouteMap);
        let given: [(bool, &str, &[CarrierKey]); 10] = [
            (self.route_maps.is_some(), "route_maps", &[route_map]),
            (self.vtysh.is_some(), "vtysh", &[route_map]),
            (
                self.vtysh_config_dir.is_some(),
                "vtysh_config_dir",
                &[route_map],
            ),
            (self.floor.is_some(), "floor", &[kernel, protocol]),
            (self.dead_man.is_some(), "dead_man", &[kernel]),
            (self.interface.is_some(), "interface", &[kernel]),
            (self.boost.is_some(), "boost", &[protocol]),
            (self.include.is_some(), "include", &[include]),
            (self.constant.is_some(), "constant", &[include]),
            (self.main_config.is_some(), "main_config", &[include]),
        ];
        let wrong =
            |(is_given, _, of): &(bool, _, &[CarrierKey])| *is_given && !of.contains(&carrier);
        let Some((_, key, of)) = given.into_iter().find(wrong) else {
            return Ok(());
        };
        let own = match carrier {
            CarrierKey::Kernel => "\"kernel\"",
            CarrierKey::Protocol => "\"protocol\", which has no dead man and sets no address",
            CarrierKey::Include => "\"include\", which has neither floor nor dead man",
            CarrierKey::RouteMap => "\"route-map\", which has neither floor nor dead man",
        };
        let other = match of.last() {
            Some(CarrierKey::Protocol) => ", or set carrier = \"protocol\"",
            Some(CarrierKey::Include) => ", or set carrier = \"include\"",
            Some(CarrierKey::RouteMap) => ", or set carrier = \"route-map\"",
            Some(CarrierKey::Kernel) | None => "",
        };
        let reason = format!("has no effect with carrier = {own}; remove it{other}");
        Err(Fault::new(key, &reason))
    }

    fn include_file(&self) -> Result<IncludeFile, Fault> {
        let Some(path) = &self.include else {
            let reason = "is missing; name the file that BIRD's configuration includes, such as \
                          \"/etc/bird/anycast/tftp.conf\"";
            return Err(Fault::new("include", &reason));
        };
        let file = IncludeFile::new(path.clone());
        let mut file = file.map_err(|error| Fault::new("include", &error))?;
        if let Some(constant) = &self.constant {
            let named = file.with_constant(constant);
            file = named.map_err(|error| Fault::new("constant", &error))?;
        }
        if let Some(main) = &self.main_config {
            let included = file.with_main(main.clone());
            file = included.map_err(|error| Fault::new("main_config", &error))?;
        }
        Ok(file)
    }

    pub(super) fn frr(&self) -> Result<FrrConfig, Fault> {
        let neighbours = self.neighbours.clone().unwrap_or_default();
        let carrier = self.frr_carrier()?;
        let config = FrrConfig::carried(carrier, neighbours);
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

    fn frr_carrier(&self) -> Result<FrrCarrier, Fault> {
        let carrier = self.carrier.unwrap_or(CarrierKey::Kernel);
        if matches!(carrier, CarrierKey::Protocol | CarrierKey::Include) {
            let reason = "is BIRD's; choose \"kernel\" or \"route-map\"";
            return Err(Fault::new("carrier", &reason));
        }
        self.fits(carrier)?;
        match carrier {
            CarrierKey::Kernel => self.kernel().map(FrrCarrier::Kernel),
            CarrierKey::RouteMap | CarrierKey::Protocol | CarrierKey::Include => {
                let entries = self.route_maps.iter().flatten();
                let entries = entries.map(|text| Entry::new(text));
                let entries = entries.collect::<Result<Vec<_>, _>>();
                let entries = entries.map_err(|error| Fault::new("route_maps", &error))?;
                let mut maps = RouteMaps::new(entries);
                if let Some(vtysh) = &self.vtysh {
                    maps = maps.with_vtysh(absolute("vtysh", vtysh)?);
                }
                if let Some(folder) = &self.vtysh_config_dir {
                    maps = maps.with_config_dir(absolute("vtysh_config_dir", folder)?);
                }
                Ok(FrrCarrier::RouteMap(maps))
            }
        }
    }

    fn absolute_socket(&self) -> Result<Option<PathBuf>, Fault> {
        match &self.socket {
            Some(socket) => absolute("socket", socket).map(Some),
            None => Ok(None),
        }
    }
}

fn absolute(key: &'static str, path: &Path) -> Result<PathBuf, Fault> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let reason = format!("{} is not an absolute path", path.display());
    Err(Fault::new(key, &reason))
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
    let key = if matches!(error, BirdConfigError::NoBoost) {
        "boost"
    } else if matches!(error, BirdConfigError::Both(_)) {
        "floor_protocols"
    } else {
        "channels" // the levels were looked at before
    };
    Fault::new(key, error)
}

fn frr_fault(error: &FrrConfigError) -> Fault {
    if matches!(error, FrrConfigError::Community) {
        let reason = format!("{error}; use local_pref, med or prepend");
        return Fault::new("community", &reason);
    }
    if matches!(error, FrrConfigError::NoNumber) {
        return Fault::new("prepend", error);
    }
    if matches!(error, FrrConfigError::NoEntry) {
        return Fault::new("route_maps", error);
    }
    Fault::new("neighbours", error)
}
