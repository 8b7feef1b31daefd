//! Which kinds of check a binary knows, and how each becomes a check.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::table::Fault;
use super::{CheckContext, compose};
use crate::health::BuildCheck;

/// The general kinds and the feature that each needs.
const GENERAL: [(&str, &str); 11] = [
    ("certificate", "check-https"),
    ("clock", "check-clock"),
    ("disk", "check-disk"),
    ("dns", "check-dns"),
    ("exec", "check-exec"),
    ("file", "check-file"),
    ("http", "check-http"),
    ("icmp", "check-icmp"),
    ("ntp", "check-ntp"),
    ("process", "check-process"),
    ("tcp", "check-tcp"),
];

type BuildKind<'a> =
    Box<dyn Fn(Spanned<DeTable<'_>>, &CheckContext<'_>) -> Result<BuildCheck, KindError> + 'a>;

/// The kinds of check that a binary knows.
#[derive(Default)]
pub struct Kinds<'a> {
    kinds: BTreeMap<&'static str, BuildKind<'a>>,
}

/// Why a kind did not make a check of a table.
#[derive(Debug)]
pub(super) enum KindError {
    /// No such kind, here or at all.
    Unusable(String),
    /// The table's keys or their types.
    Keys(toml::de::Error),
    /// The kind's own reason, as `key: reason` where it is one key's fault.
    Refused(String),
    /// A fault of a check that this one combines.
    Part(Fault),
}

impl<'a> Kinds<'a> {
    /// The general kinds that this crate was built with, one for each feature `check-…`.
    #[must_use]
    pub fn built_in() -> Self {
        let kinds = Self::default();
        #[cfg(feature = "check-https")]
        let kinds = kinds.with("certificate", crate::health::http::CertificateTable::build);
        #[cfg(feature = "check-clock")]
        let kinds = kinds.with("clock", crate::health::clock::ClockTable::build);
        #[cfg(feature = "check-disk")]
        let kinds = kinds.with("disk", crate::health::disk::DiskTable::build);
        #[cfg(feature = "check-dns")]
        let kinds = kinds.with("dns", crate::health::dns::DnsTable::build);
        #[cfg(feature = "check-exec")]
        let kinds = kinds.with("exec", crate::health::exec::ExecTable::build);
        #[cfg(feature = "check-file")]
        let kinds = kinds.with("file", crate::health::file::FileTable::build);
        #[cfg(feature = "check-http")]
        let kinds = kinds.with("http", crate::health::http::HttpTable::build);
        #[cfg(feature = "check-icmp")]
        let kinds = kinds.with("icmp", crate::health::icmp::IcmpTable::build);
        #[cfg(feature = "check-ntp")]
        let kinds = kinds.with("ntp", crate::health::ntp::NtpTable::build);
        #[cfg(feature = "check-process")]
        let kinds = kinds.with("process", crate::health::process::ProcessTable::build);
        #[cfg(feature = "check-tcp")]
        let kinds = kinds.with("tcp", crate::health::tcp::TcpTable::build);
        kinds
    }

    /// And this kind, whose own keys are those of the table `T`; in place of one of that name.
    ///
    /// `T` must deny unknown fields (`#[serde(deny_unknown_fields)]`) and must not hold the
    /// common keys. The names of the combinators cannot be taken. `build` says what is wrong as `key: reason` where it is one key's fault.
    #[must_use]
    pub fn with<T: DeserializeOwned>(
        mut self,
        kind: &'static str,
        build: impl Fn(&T, &CheckContext<'_>) -> Result<BuildCheck, String> + 'a,
    ) -> Self {
        let read_and_build = move |keys: Spanned<DeTable<'_>>, context: &CheckContext<'_>| {
            let table = T::deserialize(Deserializer::from(keys)).map_err(KindError::Keys)?;
            build(&table, context).map_err(KindError::Refused)
        };
        self.kinds.insert(kind, Box::new(read_and_build));
        self
    }

    pub(super) fn build(
        &self,
        kind: &str,
        keys: Spanned<DeTable<'_>>,
        context: &CheckContext<'_>,
    ) -> Result<BuildCheck, KindError> {
        if let Some(build) = self.kinds.get(kind) {
            return build(keys, context);
        }
        let missing = GENERAL.iter().find(|(general, _)| *general == kind);
        Err(KindError::Unusable(match missing {
            Some((_, feature)) => {
                format!("this build was made without the feature {feature}")
            }
            None => format!("no such kind is known here; use one of {self}"),
        }))
    }
}

/// The names of the kinds, for an operator.
impl fmt::Display for Kinds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.kinds.keys().copied();
        for (index, kind) in own.chain(compose::KINDS).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{kind:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Kinds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

#[cfg(all(test, feature = "checks"))]
#[test]
fn a_kind_that_this_crate_has_is_one_that_a_file_can_name() {
    let kinds = Kinds::built_in();
    for (kind, _) in GENERAL {
        assert!(kinds.kinds.contains_key(kind), "{kind}");
    }
    assert_eq!(kinds.kinds.len(), GENERAL.len());
}
