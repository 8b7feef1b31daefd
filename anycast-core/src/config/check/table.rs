//! One table `[[check]]`, with the place of every key, until its kind is known.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use toml::Spanned;
use toml::de::{DeTable, ValueDeserializer};

use super::compose;
use super::kinds::{KindError, Kinds};
use super::value::{Entry, Value};
use super::{CheckContext, CheckTimes};
use crate::config::Period;
use crate::health::{BuildCheck, Severity};
use crate::node::CheckSpec;
use crate::service::CheckName;

/// A table `[[check]]` as the file has it, with the place of each key. Only TOML can be read
/// into it.
///
/// Whether it makes sense is found out by [`checks`](super::checks).
#[derive(Debug, Clone)]
pub struct CheckTable {
    at: usize,
    entries: BTreeMap<String, Entry>,
}

/// What is wrong with a check, and at which byte of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    /// The check's name, else its kind, else nothing.
    check: String,
    /// The key, or nothing.
    key: String,
    reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[[check]]")?;
        for part in [&self.check, &self.key] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        write!(f, ": {}", self.reason)
    }
}

impl CheckTable {
    pub(super) fn spec(
        &self,
        context: &CheckContext<'_>,
        kinds: &Kinds<'_>,
    ) -> Result<CheckSpec, Fault> {
        const COMMON: &str = "`kind`, `name`, `interval`, `timeout`, `recheck`, `severity`";
        let mut keys = Keys::new(self, None, COMMON);
        let kind = keys.kind(kinds)?;
        let name = keys.name()?;
        let name = name.map_or_else(|| keys.default_name(&kind), Ok)?;
        let interval = keys.take::<Period>("interval")?;
        let timeout = keys.take::<Period>("timeout")?;
        let recheck = keys.take::<Period>("recheck")?;
        let times = CheckTimes::new(interval, timeout, recheck)
            .map_err(|error| keys.fault(error.key, error.reason))?;
        let severity = keys.take::<Severity>("severity")?.unwrap_or_default();
        let build = keys.build(&kind, context, kinds, 1)?;
        Ok(CheckSpec {
            name,
            interval: times.interval,
            timeout: times.timeout,
            recheck: Some(times.recheck),
            severity,
            build,
        })
    }

    /// Where this key is, or the table if it has none such.
    pub(super) fn place_of(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.at, |entry| entry.at)
    }

    /// Whether it is of this kind and has no name of its own.
    pub(super) fn is_unnamed(&self, kind: &str) -> bool {
        self.text("kind") == Some(kind) && !self.entries.contains_key("name")
    }

    /// The key whose value holds this byte.
    fn key_at(&self, at: usize) -> Option<&str> {
        let (key, _) = self.entries.iter().find(|(_, entry)| entry.holds(at))?;
        Some(key)
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.entries.get(key)?.value.get_ref() {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Boolean(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

/// The keys of a table that nobody has taken yet.
pub(super) struct Keys<'a> {
    table: &'a CheckTable,
    /// The check that this one is part of.
    whole: Option<&'a str>,
    /// The keys that its place gives it, for an operator.
    common: &'static str,
    left: BTreeMap<&'a str, &'a Entry>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(table: &'a CheckTable, whole: Option<&'a str>, common: &'static str) -> Self {
        Self {
            table,
            whole,
            common,
            left: table
                .entries
                .iter()
                .map(|(key, entry)| (key.as_str(), entry))
                .collect(),
        }
    }

    /// A fault of this key, or of the table if the key is not there.
    pub(super) fn fault(&self, key: &str, reason: impl Into<String>) -> Fault {
        Fault {
            at: self.table.place_of(key),
            check: self.label(),
            key: key.to_owned(),
            reason: reason.into(),
        }
    }

    /// The check's name, else its kind, else nothing; after that of the whole.
    pub(super) fn label(&self) -> String {
        let name = self.table.text("name");
        let own = name.or_else(|| self.table.text("kind")).unwrap_or_default();
        match self.whole {
            Some(whole) => format!("{whole}/{own}"),
            None => own.to_owned(),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Takes a key that every kind may have.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
    ) -> Result<Option<T>, Fault> {
        let Some(entry) = self.left.remove(key) else {
            return Ok(None);
        };
        let value = entry.lend().map(ValueDeserializer::from);
        let value = value.and_then(T::deserialize).map_err(|error| Fault {
            at: error.span().unwrap_or(entry.value.span()).start,
            ..self.fault(key, error.message())
        })?;
        Ok(Some(value))
    }

    pub(super) fn kind(&mut self, kinds: &Kinds<'_>) -> Result<String, Fault> {
        let kind = self.take::<String>("kind")?;
        kind.ok_or_else(|| self.fault("kind", format!("is missing; use one of {kinds}")))
    }

    pub(super) fn name(&mut self) -> Result<Option<CheckName>, Fault> {
        self.take("name")
    }

    pub(super) fn default_name(&self, name: &str) -> Result<CheckName, Fault> {
        CheckName::new(name).map_err(|error| self.fault("kind", error.to_string()))
    }

    /// Hands what is left to the kind. `depth` counts the checks that this one is part of, and
    /// itself.
    pub(super) fn build(
        &mut self,
        kind: &str,
        context: &CheckContext<'_>,
        kinds: &Kinds<'_>,
        depth: usize,
    ) -> Result<BuildCheck, Fault> {
        let left = std::mem::take(&mut self.left);
        let built = lend(&left).and_then(|keys| {
            let keys = Spanned::new(self.table.at..self.table.at, keys);
            if compose::KINDS.contains(&kind) {
                let scope = compose::Scope {
                    context,
                    kinds,
                    whole: &self.label(),
                    depth,
                };
                return compose::build(kind, keys, &scope);
            }
            kinds.build(kind, keys, context)
        });
        built.map_err(|error| match error {
            KindError::Unusable(reason) => Fault {
                key: format!("kind = {kind:?}"),
                ..self.fault("kind", reason)
            },
            KindError::Keys(error) => self.misread(&error),
            KindError::Refused(reason) => self.refused(&reason),
            KindError::Part(fault) => fault,
        })
    }

    /// What serde says, at the key it speaks of.
    fn misread(&self, error: &toml::de::Error) -> Fault {
        let at = error.span().map_or(self.table.at, |span| span.start);
        let mut reason = error.message().to_owned();
        let own = self.table.entries.values().any(|entry| entry.at == at);
        if own && reason.starts_with("unknown field") {
            let place = if self.whole.is_some() {
                "such a part"
            } else {
                "every check"
            };
            reason.push_str(&format!("; besides these {place} has {}", self.common));
        }
        Fault {
            at,
            ..self.fault(self.table.key_at(at).unwrap_or_default(), reason)
        }
    }

    /// What the kind says: `key: reason` where it is one key's fault.
    fn refused(&self, reason: &str) -> Fault {
        match reason.split_once(": ") {
            Some((key, reason)) if self.table.entries.contains_key(key) => self.fault(key, reason),
            Some(_) | None => self.fault("", reason),
        }
    }
}

/// The keys for a kind to read.
fn lend<'a>(entries: &BTreeMap<&'a str, &'a Entry>) -> Result<DeTable<'a>, KindError> {
    let mut keys = DeTable::new();
    for (key, entry) in entries {
        let at = entry.at..entry.at + key.len();
        keys.insert(
            Spanned::new(at, (*key).into()),
            entry.lend().map_err(KindError::Keys)?,
        );
    }
    Ok(keys)
}

impl<'de> Deserialize<'de> for CheckTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Spanned::<Value>::deserialize(deserializer)?;
        let at = table.span().start;
        let no_table = match table.into_inner() {
            Value::Table(entries) => return Ok(Self { at, entries }),
            Value::Text(_) => "text",
            Value::Number(_) => "number",
            Value::Boolean(_) => "boolean",
            Value::List(_) => "list",
        };
        Err(D::Error::custom(format!(
            "a check is a table, such as {{ kind = \"tcp\", port = 80 }}, and no {no_table}"
        )))
    }
}
