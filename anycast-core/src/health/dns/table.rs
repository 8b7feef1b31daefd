//! The table of a check `dns`.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Deserialize;

use super::{Class, DnsCheck, Identity, PORT, Question, Transport};
use crate::config::check::CheckContext;
use crate::health::BuildCheck;
use crate::health::probe::{Source, chosen};

/// Which records are right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Match {
    /// All of `answers`, and perhaps others. The default.
    #[default]
    Contain,
    /// `answers` and no others.
    Equal,
}

/// How the server says which node it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum IdKey {
    /// It need not. The default.
    #[default]
    #[serde(rename = "none")]
    None,
    /// By NSID (RFC 5001).
    #[serde(rename = "nsid")]
    Nsid,
    /// By `id.server` (RFC 4892).
    #[serde(rename = "id.server")]
    IdServer,
    /// By `hostname.bind`.
    #[serde(rename = "hostname.bind")]
    HostnameBind,
}

/// The keys of a check of kind `dns`, but for those that every check has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsTable {
    /// The name to ask for, such as `"health.example.com"`.
    pub query: String,
    /// The type to ask for. Default `"A"`.
    #[serde(default = "default_type", rename = "type")]
    pub record_type: String,
    /// `"IN"` (the default) or `"CH"`.
    #[serde(default)]
    pub class: Class,
    /// Whether recursion is desired. Default `true`.
    #[serde(default = "default_recursion")]
    pub recursion: bool,
    /// The expected records as `dig` prints them, TXT without quotes. Default: any.
    pub answers: Option<Vec<String>>,
    /// `"contain"` (the default) or `"equal"`; only with `answers`.
    #[serde(rename = "match")]
    pub matching: Option<Match>,
    /// The expected response code, whatever the records; not with `answers`. Default:
    /// `NOERROR`, and at least one record of the type.
    pub rcode: Option<String>,
    /// `"udp"` (the default; TCP where an answer is cut off) or `"tcp"`.
    #[serde(default)]
    pub transport: Transport,
    /// Default 53.
    pub port: Option<NonZeroU16>,
    /// The addresses to ask, of those of the service. Default: all.
    pub addresses: Option<Vec<IpAddr>>,
    /// `"service"` (the default) or `"any"`.
    #[serde(default)]
    pub source: Source,
    /// How the server proves which node it is: `"none"` (the default), `"nsid"`,
    /// `"id.server"` or `"hostname.bind"`.
    #[serde(default)]
    pub id: IdKey,
    /// What it must say then; `{node}` stands for the node's name. Default `"{node}"`.
    pub id_text: Option<String>,
}

fn default_type() -> String {
    "A".to_owned()
}

const fn default_recursion() -> bool {
    true
}

impl DnsTable {
    /// The check for this service.
    ///
    /// # Errors
    /// One line: the key, what is wrong, what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let addresses = chosen(context.addresses, self.addresses.as_deref())?;
        let port = self.port.map_or(PORT, NonZeroU16::get);
        let mut check = DnsCheck::new(addresses, self.question()?)
            .with_port(port)
            .with_source(self.source)
            .with_transport(self.transport);
        if let Some(identity) = self.identity(context)? {
            check = check.with_identity(identity);
        }
        Ok(Arc::new(move || Box::new(check.clone())))
    }

    fn question(&self) -> Result<Question, String> {
        // The name alone first, so that an error names its key.
        Question::new(&self.query, "A").map_err(|error| format!("query: {error}"))?;
        let question = Question::new(&self.query, &self.record_type)
            .map_err(|error| format!("type: {error}"))?
            .with_class(self.class)
            .with_recursion(self.recursion);
        match (&self.answers, &self.rcode, self.matching) {
            (None, None, None) => Ok(question),
            (None, Some(rcode), None) => question
                .with_rcode(rcode)
                .map_err(|error| format!("rcode: {error}")),
            (Some(answers), None, matching) => match matching.unwrap_or_default() {
                Match::Contain => question.containing(answers),
                Match::Equal => question.equalling(answers),
            }
            .map_err(|error| format!("answers: {error}")),
            (Some(_), Some(_), _) => Err(
                "rcode: has no effect beside answers, which imply NOERROR; remove one of the two"
                    .to_owned(),
            ),
            (None, _, Some(_)) => {
                Err("match: has no effect without answers; add them or remove it".to_owned())
            }
        }
    }

    fn identity(&self, context: &CheckContext<'_>) -> Result<Option<Identity>, String> {
        let text = self.id_text.as_deref().unwrap_or("{node}");
        let text = text.replace("{node}", context.node.as_str());
        let identity = match self.id {
            IdKey::None if self.id_text.is_some() => {
                return Err(
                    "id_text: has no effect without id; set id = \"nsid\", or remove it".to_owned(),
                );
            }
            IdKey::None => return Ok(None),
            IdKey::Nsid => Identity::nsid(&text),
            IdKey::IdServer => Identity::id_server(&text),
            IdKey::HostnameBind => Identity::hostname_bind(&text),
        };
        identity
            .map(Some)
            .map_err(|error| format!("id_text: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{NodeName, ServiceAddresses, ServiceName};

    fn build(text: &str) -> Result<BuildCheck, String> {
        let table: DnsTable = toml::from_str(text).map_err(|error| error.to_string())?;
        let addresses = vec!["192.0.2.53/32".parse().unwrap()];
        table.build(&CheckContext {
            node: &NodeName::new("ams1").unwrap(),
            service: &ServiceName::new("dns").unwrap(),
            addresses: &ServiceAddresses::new(addresses).unwrap(),
        })
    }

    #[test]
    fn tables_that_are_right_are_built() {
        for right in [
            "query = 'health.example'",
            "query = '.'\ntype = 'ns'\nid = 'nsid'",
            "query = 'a.example'\nanswers = ['192.0.2.1']\nmatch = 'equal'\nport = 5353",
            "query = 'a.example'\nrcode = 'NXDOMAIN'\ntransport = 'tcp'\nsource = 'any'",
            "query = 'version.server'\ntype = 'TXT'\nclass = 'CH'\nrecursion = false",
            "query = 'a.example'\nid = 'id.server'\nid_text = 'x-{node}'",
            "query = 'a.example'\nid = 'hostname.bind'\naddresses = ['192.0.2.53']",
        ] {
            assert_eq!(build(right).err(), None, "{right}");
        }
    }

    #[test]
    fn each_fault_names_its_key() {
        for (wrong, key) in [
            ("", "query"),
            ("query = 'a..b'", "query: "),
            ("query = 'a'\ntype = 'AXFR'", "type: "),
            ("query = 'a'\nanswers = ['x']", "answers: "),
            ("query = 'a'\nanswers = []", "answers: "),
            ("query = 'a'\nrcode = 'x'", "rcode: "),
            (
                "query = 'a'\nrcode = 'NOERROR'\nanswers = ['192.0.2.1']",
                "rcode: ",
            ),
            ("query = 'a'\nmatch = 'equal'", "match: "),
            ("query = 'a'\nid_text = 'x'", "id_text: "),
            ("query = 'a'\nid = 'nsid'\nid_text = ''", "id_text: "),
            ("query = 'a'\naddresses = ['192.0.2.54']", "addresses: "),
            ("query = 'a'\nport = 0", "port"),
            ("query = 'a'\nclass = 'XX'", "class"),
            ("query = 'a'\nnme = 'x'", "nme"),
        ] {
            let error = build(wrong).err().unwrap();
            assert!(error.contains(key), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_node_is_named_in_the_identity() {
        let table: DnsTable =
            toml::from_str("query = 'a'\nid = 'nsid'\nid_text = 'x-{node}'").unwrap();
        let identity = table.identity(&CheckContext {
            node: &NodeName::new("ams1").unwrap(),
            service: &ServiceName::new("dns").unwrap(),
            addresses: &ServiceAddresses::new(vec!["192.0.2.53/32".parse().unwrap()]).unwrap(),
        });
        let identity = identity.unwrap().unwrap();
        assert_eq!(identity.nsid_bytes(), Some(&b"x-ams1"[..]));
    }
}
