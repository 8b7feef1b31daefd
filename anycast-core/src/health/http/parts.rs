//! Parts of a question and of what is expected, checked once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use hyper::header::HeaderValue;

/// Longest text to be found in a body, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Longest DNS name and longest label of one (RFC 1035 2.3.4), in bytes.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Why a list of status codes was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatusCodesError {
    /// Not a code or a range of codes from 200 to 599.
    #[error(
        "{text:?} is not a status code; write codes and ranges from 200 to 599, as in \"200-299,301\""
    )]
    Code {
        /// The part that is not, cut to 64 characters.
        text: String,
    },
}

/// A set of HTTP status codes, such as `200-299,301`. Never empty. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCodes(Arc<[RangeInclusive<u16>]>);

impl StatusCodes {
    /// Whether a code is among them.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }
}

impl Default for StatusCodes {
    /// 200 to 299.
    fn default() -> Self {
        Self([200..=299].into())
    }
}

impl FromStr for StatusCodes {
    type Err = StatusCodesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            code(first)
                .zip(code(last))
                .map(|(first, last)| first..=last)
                .filter(|range| !range.is_empty())
                .ok_or_else(|| StatusCodesError::Code {
                    text: super::cut(part),
                })
        };
        text.split(',')
            .map(range)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn code(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let code = digits.then(|| text.parse().ok()).flatten();
    code.filter(|code| (200..=599).contains(code))
}

impl fmt::Display for StatusCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", range.start())?;
            if range.end() != range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for StatusCodes {
    /// From a text, or a number for a single code.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = StatusCodes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("status codes such as 200 or \"200-299,301\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StatusCodes, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, code: u64) -> Result<StatusCodes, E> {
                self.visit_str(&code.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, code: i64) -> Result<StatusCodes, E> {
                self.visit_str(&code.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What a `Host` header says (RFC 9110 7.2), and the name in it.
#[derive(Debug, Clone)]
pub(super) struct Host {
    header: HeaderValue,
    #[cfg_attr(
        not(feature = "check-https"),
        allow(dead_code, reason = "only certificates are for a name")
    )]
    name: Arc<str>,
}

impl Host {
    /// Reads `www.example.com`, `www.example.com:8443`, `192.0.2.80`, `[2001:db8::80]:8443`.
    pub(super) fn new(text: &str) -> Option<Self> {
        let (name, header) = if let Ok(ip) = text.parse::<IpAddr>() {
            let header = match ip {
                IpAddr::V4(_) => ip.to_string(),
                IpAddr::V6(_) => format!("[{ip}]"),
            };
            (ip.to_string(), header)
        } else if let Ok(address) = text.parse::<SocketAddr>() {
            (address.ip().to_string(), text.to_owned())
        } else {
            let (name, port) = text.split_once(':').unwrap_or((text, "1"));
            let ported = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
            if !ported || !is_dns_name(name) {
                return None;
            }
            (name.to_owned(), text.to_owned())
        };
        let header = HeaderValue::from_str(&header).ok()?;
        let name = name.into();
        Some(Self { header, name })
    }

    /// The name or address, without a port.
    #[cfg(feature = "check-https")]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For the header.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(allowed)
    };
    name.len() <= MAX_NAME && name.split('.').all(label)
}
