//! The table of a check `ntp`.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Deserialize;

use super::{NtpCheck, PORT};
use crate::config::Period;
use crate::config::check::CheckContext;
use crate::health::BuildCheck;
use crate::health::probe::{Source, chosen};

/// The keys of a check of kind `ntp`, but for those that every check has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NtpTable {
    /// Highest stratum that is healthy, 1 to 15. Default 10.
    pub max_stratum: Option<u8>,
    /// Greatest root distance that is healthy, such as `"500ms"`. Default: any.
    pub max_distance: Option<Period>,
    /// Greatest offset from this host's clock that is healthy, such as `"100ms"`. Default: any.
    /// On the node itself it is worth little; see the [module](super).
    pub max_offset: Option<Period>,
    /// Default 123.
    pub port: Option<NonZeroU16>,
    /// The addresses to ask, of those of the service. Default: all.
    pub addresses: Option<Vec<IpAddr>>,
    /// `"service"` (the default) or `"any"`.
    #[serde(default)]
    pub source: Source,
}

impl NtpTable {
    /// The check for this service.
    ///
    /// # Errors
    /// One line: the key, what is wrong, what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let addresses = chosen(context.addresses, self.addresses.as_deref())?;
        let mut check = NtpCheck::new(addresses)
            .with_port(self.port.map_or(PORT, NonZeroU16::get))
            .with_source(self.source);
        if let Some(stratum) = self.max_stratum {
            if !(1..=15).contains(&stratum) {
                return Err(format!(
                    "max_stratum: {stratum} is no stratum of a synchronised server; write 1 to 15"
                ));
            }
            check = check.with_max_stratum(stratum);
        }
        if let Some(distance) = self.max_distance {
            check = check.with_max_distance(distance.get());
        }
        if let Some(offset) = self.max_offset {
            check = check.with_max_offset(offset.get());
        }
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{NodeName, ServiceAddresses, ServiceName};

    fn build(text: &str) -> Result<BuildCheck, String> {
        let table: NtpTable = toml::from_str(text).map_err(|error| error.to_string())?;
        let addresses = vec!["192.0.2.123/32".parse().unwrap()];
        table.build(&CheckContext {
            node: &NodeName::new("ams1").unwrap(),
            service: &ServiceName::new("ntp").unwrap(),
            addresses: &ServiceAddresses::new(addresses).unwrap(),
        })
    }

    #[test]
    fn tables_that_are_right_are_built() {
        for right in [
            "",
            "max_stratum = 3\nmax_distance = '500ms'\nmax_offset = '1s'",
            "port = 1123\naddresses = ['192.0.2.123']\nsource = 'any'",
        ] {
            assert_eq!(build(right).err(), None, "{right}");
        }
    }

    #[test]
    fn each_fault_names_its_key() {
        for (wrong, key) in [
            ("max_stratum = 0", "max_stratum: "),
            ("max_stratum = 16", "max_stratum: "),
            ("max_distance = 5", "max_distance"),
            ("addresses = []", "addresses: "),
            ("port = 0", "port"),
            ("stratum = 3", "stratum"),
        ] {
            let error = build(wrong).err().unwrap();
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }
}
