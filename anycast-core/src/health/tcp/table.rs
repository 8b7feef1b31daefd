//! The keys of a `[[check]]` with `kind = "tcp"`.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Deserialize;

use super::{Source, TcpCheck};
use crate::config::check::CheckContext;
use crate::health::{BuildCheck, probe};

/// The keys of the check `tcp`, besides those that every check has.
///
/// ```toml
/// [[check]]
/// kind = "tcp"
/// port = 25
/// expect = "220 "
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TcpTable {
    /// The service's port, 1 to 65535.
    pub port: NonZeroU16,
    /// Which of the service's addresses are probed, such as `["192.0.2.25"]`. Default: all.
    pub addresses: Option<Vec<IpAddr>>,
    /// Where probes come from: `service` (default) or `any`. See [`Source`].
    #[serde(default)]
    pub source: Source,
    /// What is sent once connected, such as `"PING\r\n"`; 1 to 1024 bytes. Only with `expect`.
    /// Default: nothing.
    pub send: Option<String>,
    /// What the service must say within its first 4096 bytes, such as `"220 "`; 1 to 1024
    /// bytes. Default: that it accepts the connection is enough, which a service that hangs
    /// does as well.
    pub expect: Option<String>,
}

impl TcpTable {
    /// The check that the keys describe.
    ///
    /// # Errors
    /// One line for the operator: the key, what is wrong, what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let addresses = probe::chosen(context.addresses, self.addresses.as_deref())?;
        let check = TcpCheck::new(&addresses, self.port).with_source(self.source);
        let check = match (&self.send, &self.expect) {
            (None, None) => Ok(check),
            (None, Some(expect)) => check.with_greeting(expect),
            (Some(send), Some(expect)) => check.with_exchange(send, expect),
            (Some(_), None) => {
                return Err(
                    "send: nobody looks at the answer; set expect as well, or remove send"
                        .to_owned(),
                );
            }
        };
        let check = check.map_err(|error| error.to_string())?;
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}
