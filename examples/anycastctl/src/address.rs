//! Which node is asked.
//!
//! In this order: `--admin`, `--socket` or `--url`; the variable `ANYCASTCTL_ADMIN`; the socket
//! [`SOCKET`] where it is there; [`LOOPBACK`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anycast_core::admin::{AdminAddress, AdminAddressError};

/// Names the node when the command line does not.
pub(crate) const VARIABLE: &str = "ANYCASTCTL_ADMIN";
/// Where a node's socket usually is.
pub(crate) const SOCKET: &str = "/run/anycast/admin.sock";
/// Where a node usually listens otherwise.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// `--url`: plain HTTP on this host's loopback; a node is reached on no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(AdminAddress);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            "is no URL such as http://127.0.0.1:9180; nodes are asked by plain HTTP on loopback \
             (from afar: ssh -L 9180:127.0.0.1:9180 HOST)"
                .to_owned()
        })?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let address = match authority.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => authority.to_owned(),
        };
        let address: AdminAddress = address
            .parse()
            .map_err(|error: AdminAddressError| error.to_string())?;
        match address {
            AdminAddress::Tcp(_) => Ok(Self(address)),
            AdminAddress::Unix(_) => Err("is no URL; use --socket for a Unix socket".to_owned()),
        }
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(crate) admin: Option<AdminAddress>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) url: Option<Url>,
}

impl Given {
    /// The node to ask.
    ///
    /// # Errors
    /// In words: the variable, or the socket's path, cannot be used.
    pub(crate) fn resolve(self, variable: Option<&str>) -> Result<AdminAddress, String> {
        if let Some(address) = self.admin.or(self.url.map(|url| url.0)) {
            return Ok(address);
        }
        if let Some(path) = self.socket {
            let path = std::path::absolute(&path).map_err(|error| {
                format!(
                    "--socket {}: cannot be made absolute: {error}",
                    path.display()
                )
            })?;
            return Ok(AdminAddress::Unix(path));
        }
        if let Some(text) = variable.filter(|text| !text.is_empty()) {
            return text
                .parse()
                .map_err(|error| format!("the variable {VARIABLE}: {error}"));
        }
        let socket = Path::new(SOCKET);
        Ok(if socket.exists() {
            AdminAddress::Unix(socket.to_owned())
        } else {
            AdminAddress::Tcp(LOOPBACK)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_plain_http_on_loopback() {
        for (text, address) in [
            ("http://127.0.0.1:9180", "127.0.0.1:9180"),
            ("http://localhost:1/", "127.0.0.1:1"),
            ("http://[::1]:9180/", "[::1]:9180"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.0.to_string(), address);
        }
        for bad in [
            "https://127.0.0.1:9180",
            "127.0.0.1:9180",
            "http://192.0.2.1:9180",
            "http://127.0.0.1",
            "http://127.0.0.1:9180/status",
            "http://unix:/run/x",
            "http://localhost",
            "",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_comes_before_the_variable() {
        let variable = Some("unix:/run/variable");
        let resolved = |given: Given| given.resolve(variable).unwrap().to_string();
        assert_eq!(resolved(Given::default()), "unix:/run/variable");
        let socket = Given {
            socket: Some("/run/x".into()),
            ..Given::default()
        };
        assert_eq!(resolved(socket), "unix:/run/x");
        let url = Given {
            url: Some("http://[::1]:7".parse().unwrap()),
            ..Given::default()
        };
        assert_eq!(resolved(url), "[::1]:7");
        let error = Given::default().resolve(Some("0.0.0.0:1")).unwrap_err();
        assert!(error.contains("ANYCASTCTL_ADMIN"), "{error}");
    }
}
