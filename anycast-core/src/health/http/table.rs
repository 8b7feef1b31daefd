//! The keys of a `[[check]]` with `kind = "http"` or `kind = "certificate"`.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

#[cfg(feature = "check-https")]
use super::CertificateCheck;
use super::{HttpCheck, HttpCheckError, Source, StatusCodes, cut};
#[cfg(feature = "check-https")]
use crate::config::Period;
use crate::config::check::CheckContext;
use crate::health::{BuildCheck, probe};

const HTTP_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(79);
const HTTPS_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(442);
/// Stands for the node's name in `header`.
const NODE: &str = "{node}";

/// The keys of the check `http`, besides those that every check has.
///
/// ```toml
/// [[check]]
/// kind = "http"
/// host = "www.example.com"
/// path = "/health"
/// header = "X-Node: {node}"
/// tls = { ca = "/etc/ssl/certs/ca-certificates.crt" }
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpTable {
    /// The service's port, 1 to 65535. Default: 80, and 443 with `tls`.
    pub port: Option<NonZeroU16>,
    /// Which of the service's addresses are probed, such as `["192.0.2.80"]`. Default: all.
    pub addresses: Option<Vec<IpAddr>>,
    /// Where probes come from: `service` (default) or `any`. See [`Source`].
    #[serde(default)]
    pub source: Source,
    /// The `Host` that is asked for, such as `"www.example.com"`, and with `tls` the name in the
    /// certificate. Default: the address that is probed.
    pub host: Option<String>,
    /// The path, with a query if need be. Default: `/`.
    pub path: Option<String>,
    /// `get` (default) or `head`.
    #[serde(default)]
    pub method: MethodKey,
    /// The statuses that will do, such as `204` or `"200-299,301"`, from 200 to 599. Default:
    /// `"200-299"`. Redirects are not followed.
    pub status: Option<StatusCodes>,
    /// A text that must be in the first 64 KiB of the body, 1 to 1024 bytes. Not with
    /// `method = "head"`. Default: any body.
    pub body: Option<String>,
    /// A header that the answer must carry with exactly that value, such as `"X-Node: {node}"`,
    /// where `{node}` stands for this node's name. It proves which node answered. Default: none.
    pub header: Option<String>,
    /// Asks over TLS. Default: in plain.
    pub tls: Option<TlsTable>,
}

/// `method` of the check `http`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodKey {
    /// The whole answer. The default.
    #[default]
    Get,
    /// Its head only.
    Head,
}

/// `tls` of the check `http`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsTable {
    /// `name` (default): the service's certificate must be valid now, be for `host`, and be
    /// signed by an authority in `ca`. `none`: it is not looked at.
    #[serde(default)]
    pub verify: VerifyKey,
    /// A PEM file with certificate authorities, by its absolute path. Debian keeps the public
    /// ones in `/etc/ssl/certs/ca-certificates.crt`. Needed with `verify = "name"`; a file that
    /// cannot be read makes the check `Unknown`.
    pub ca: Option<PathBuf>,
}

/// `verify` of [`TlsTable`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyKey {
    /// As a client does. The default.
    #[default]
    Name,
    /// Not at all.
    None,
}

impl HttpTable {
    /// The check that the keys describe.
    ///
    /// # Errors
    /// One line for the operator: the key, what is wrong, what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let addresses = probe::chosen(context.addresses, self.addresses.as_deref())?;
        let usual = if self.tls.is_some() {
            HTTPS_PORT
        } else {
            HTTP_PORT
        };
        let check = HttpCheck::new(&addresses, self.port.unwrap_or(usual)).with_source(self.source);
        let check = self
            .question(check, context)
            .map_err(|error| error.to_string())?;
        let check = match (self.method, &self.body) {
            (MethodKey::Get, None) => check,
            (MethodKey::Get, Some(text)) => {
                check.with_body(text).map_err(|error| error.to_string())?
            }
            (MethodKey::Head, None) => check.with_head_only(),
            (MethodKey::Head, Some(_)) => {
                return Err(
                    "body: an answer to HEAD has none; set method = \"get\", or remove body"
                        .to_owned(),
                );
            }
        };
        let check = match &self.tls {
            Some(tls) => tls.apply(check)?,
            None => check,
        };
        Ok(Arc::new(move || Box::new(check.clone())))
    }

    fn question(
        &self,
        mut check: HttpCheck,
        context: &CheckContext<'_>,
    ) -> Result<HttpCheck, HttpCheckError> {
        if let Some(host) = &self.host {
            check = check.with_host(host)?;
        }
        if let Some(path) = &self.path {
            check = check.with_path(path)?;
        }
        if let Some(status) = &self.status {
            check = check.with_status(status.clone());
        }
        if let Some(header) = &self.header {
            let no_header = || HttpCheckError::Header {
                header: cut(header),
            };
            let (name, value) = header.split_once(':').ok_or_else(no_header)?;
            let value = value.trim().replace(NODE, context.node.as_str());
            check = check.with_header(name.trim(), &value)?;
        }
        Ok(check)
    }
}

impl TlsTable {
    #[cfg(feature = "check-https")]
    fn apply(&self, check: HttpCheck) -> Result<HttpCheck, String> {
        let tls = match (self.verify, &self.ca) {
            (VerifyKey::Name, Some(ca)) if ca.is_absolute() => super::Tls::verified(ca),
            (VerifyKey::None, None) => super::Tls::unverified(),
            (VerifyKey::Name, Some(ca)) => {
                return Err(format!(
                    "tls.ca: {} is not an absolute path; begin it with a slash",
                    ca.display()
                ));
            }
            (VerifyKey::Name, None) => {
                return Err(
                    "tls.ca: is missing; name the PEM file of the authority that signed the service's certificate (public ones: /etc/ssl/certs/ca-certificates.crt), or set verify = \"none\""
                        .to_owned(),
                );
            }
            (VerifyKey::None, Some(_)) => {
                return Err(
                    "tls.ca: has no effect with verify = \"none\"; remove one of them".to_owned(),
                );
            }
        };
        Ok(check.with_tls(tls))
    }

    #[cfg(not(feature = "check-https"))]
    fn apply(&self, _check: HttpCheck) -> Result<HttpCheck, String> {
        Err("tls: this build speaks no TLS; build it with the feature check-https".to_owned())
    }
}

/// The keys of the check `certificate`, besides those that every check has. See
/// [`CertificateCheck`]: its severity is to be `warning`.
///
/// ```toml
/// [[check]]
/// kind = "certificate"
/// severity = "warning"
/// host = "www.example.com"
/// valid_for = "14d"
/// interval = "10m"
/// timeout = "5s"
/// ```
#[cfg(feature = "check-https")]
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CertificateTable {
    /// The service's port, 1 to 65535. Default: 443.
    pub port: Option<NonZeroU16>,
    /// Which of the service's addresses are probed, such as `["192.0.2.80"]`. Default: all.
    pub addresses: Option<Vec<IpAddr>>,
    /// Where probes come from: `service` (default) or `any`. See [`Source`].
    #[serde(default)]
    pub source: Source,
    /// Whose certificate is asked for, such as `"www.example.com"`. Default: none in particular.
    pub host: Option<String>,
    /// How long the certificate must still be valid, from 1 s. Default: `"14d"`.
    pub valid_for: Option<Period>,
}

#[cfg(feature = "check-https")]
impl CertificateTable {
    /// Default of `valid_for`: 14 days, less than the third of a certificate's time that is
    /// left when it is usually renewed.
    const VALID_FOR: Period = Period::new(std::time::Duration::from_secs(14 * 86_400));

    /// The check that the keys describe.
    ///
    /// # Errors
    /// One line for the operator: the key, what is wrong, what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let addresses = probe::chosen(context.addresses, self.addresses.as_deref())?;
        let valid_for = self.valid_for.unwrap_or(Self::VALID_FOR).get();
        if valid_for.as_secs() == 0 {
            return Err("valid_for: is below 1s; give a time such as \"14d\"".to_owned());
        }
        let port = self.port.unwrap_or(HTTPS_PORT);
        let check = CertificateCheck::new(&addresses, port, valid_for).with_source(self.source);
        let check = match &self.host {
            Some(host) => check.with_host(host).map_err(|error| error.to_string())?,
            None => check,
        };
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}
