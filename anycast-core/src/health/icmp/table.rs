//! The table of a check `icmp`.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::IcmpCheck;
use crate::config::check::CheckContext;
use crate::health::BuildCheck;
use crate::health::probe::{Source, chosen};

/// The keys of a check of kind `icmp`, but for those that every check has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IcmpTable {
    /// The addresses to ask, of those of the service. Default: all.
    pub addresses: Option<Vec<IpAddr>>,
    /// `"service"` (the default) or `"any"`.
    #[serde(default)]
    pub source: Source,
}

impl IcmpTable {
    /// The check for this service.
    ///
    /// # Errors
    /// One line: the key, what is wrong, what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let addresses = chosen(context.addresses, self.addresses.as_deref())?;
        let check = IcmpCheck::new(addresses).with_source(self.source);
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{NodeName, ServiceAddresses, ServiceName};

    fn build(text: &str) -> Result<BuildCheck, String> {
        let table: IcmpTable = toml::from_str(text).map_err(|error| error.to_string())?;
        let addresses = vec!["192.0.2.1/32".parse().unwrap()];
        table.build(&CheckContext {
            node: &NodeName::new("ams1").unwrap(),
            service: &ServiceName::new("any").unwrap(),
            addresses: &ServiceAddresses::new(addresses).unwrap(),
        })
    }

    #[test]
    fn tables_are_built_or_name_the_fault() {
        for right in ["", "source = 'any'\naddresses = ['192.0.2.1']"] {
            assert_eq!(build(right).err(), None, "{right}");
        }
        for (wrong, key) in [
            ("addresses = ['192.0.2.2']", "addresses: "),
            ("source = 'else'", "source"),
            ("port = 1", "port"),
        ] {
            let error = build(wrong).err().unwrap();
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }
}
