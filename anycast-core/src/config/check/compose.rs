//! The kinds that combine other checks.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

use super::kinds::{KindError, Kinds};
use super::table::{Fault, Keys};
use super::{CheckContext, CheckTable};
use crate::config::Period;
use crate::health::BuildCheck;
use crate::health::combine::{Child, Combination};

/// How deep checks may be made of checks.
pub const MAX_DEPTH: usize = 4;

/// The kinds of this module.
pub(super) const KINDS: [&str; 5] = ["all", "any", "quorum", "weighted", "not"];

/// Where a combination stands.
pub(super) struct Scope<'a> {
    pub(super) context: &'a CheckContext<'a>,
    pub(super) kinds: &'a Kinds<'a>,
    /// What faults of its parts are labelled with.
    pub(super) whole: &'a str,
    /// 1 for a check that is part of no other.
    pub(super) depth: usize,
}

/// `all`, `any`, `not`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainTable {
    of: Vec<CheckTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuorumTable {
    at_least: u32,
    of: Vec<CheckTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightedTable {
    threshold: u64,
    of: Vec<CheckTable>,
}

pub(super) fn build(
    kind: &str,
    keys: Spanned<DeTable<'_>>,
    scope: &Scope<'_>,
) -> Result<BuildCheck, KindError> {
    if scope.depth > MAX_DEPTH {
        return Err(KindError::Unusable(format!(
            "checks are made of checks more than {MAX_DEPTH} deep"
        )));
    }
    let combination = match kind {
        "quorum" => {
            let table: QuorumTable = read(keys)?;
            let whole = Combination::quorum(table.at_least, parts(&table.of, scope, false)?);
            whole.map_err(|error| format!("at_least: {error}"))
        }
        "weighted" => {
            let table: WeightedTable = read(keys)?;
            let whole = Combination::weighted(table.threshold, parts(&table.of, scope, true)?);
            whole.map_err(|error| format!("threshold: {error}"))
        }
        "not" => {
            let table: PlainTable = read(keys)?;
            let mut parts = parts(&table.of, scope, false)?;
            match (parts.pop(), parts.is_empty()) {
                (Some(part), true) => Ok(Combination::not(part)),
                (Some(_) | None, _) => Err("of: must name exactly one check".to_owned()),
            }
        }
        any_or_all => {
            let table: PlainTable = read(keys)?;
            let parts = parts(&table.of, scope, false)?;
            let whole = if any_or_all == "any" {
                Combination::any(parts)
            } else {
                Combination::all(parts)
            };
            whole.map_err(|error| format!("of: {error}"))
        }
    };
    Ok(combination.map_err(KindError::Refused)?.build())
}

fn read<T: DeserializeOwned>(keys: Spanned<DeTable<'_>>) -> Result<T, KindError> {
    T::deserialize(Deserializer::from(keys)).map_err(KindError::Keys)
}

fn parts(
    tables: &[CheckTable],
    scope: &Scope<'_>,
    weighted: bool,
) -> Result<Vec<Child>, KindError> {
    if tables.is_empty() {
        return Err(KindError::Refused(
            "of: must name at least one check".to_owned(),
        ));
    }
    let part = |(index, table)| part(tables, index, table, scope, weighted);
    let parts: Result<Vec<_>, _> = tables.iter().enumerate().map(part).collect();
    parts.map_err(KindError::Part)
}

fn part(
    tables: &[CheckTable],
    index: usize,
    table: &CheckTable,
    scope: &Scope<'_>,
    weighted: bool,
) -> Result<Child, Fault> {
    const COMMON: &str = "`kind`, `name`, `timeout`, with \"weighted\" `weight`";
    let mut keys = Keys::new(table, Some(scope.whole), COMMON);
    for key in ["interval", "recheck", "severity"] {
        if keys.has(key) {
            return Err(keys.fault(key, "is the whole check's alone; move it out of `of`"));
        }
    }
    let kind = keys.kind(scope.kinds)?;
    let name = match keys.name()? {
        Some(name) => name,
        None => keys.default_name(&name_of(&kind, index, tables))?,
    };
    let timeout = keys.take::<Period>("timeout")?.map(Period::get);
    if timeout.is_some_and(|timeout| timeout < Duration::from_millis(10)) {
        return Err(keys.fault("timeout", "must be at least 10ms"));
    }
    let weight = keys.take::<NonZeroU32>("weight")?;
    if weight.is_some() && !weighted {
        return Err(keys.fault(
            "weight",
            "has no effect here; use kind = \"weighted\", or remove it",
        ));
    }
    let build = keys.build(&kind, scope.context, scope.kinds, scope.depth + 1)?;
    let mut child = Child::new(name, build).with_weight(weight.unwrap_or(NonZeroU32::MIN));
    if let Some(timeout) = timeout {
        child = child.with_timeout(timeout);
    }
    Ok(child)
}

/// The kind, with its place where several parts of that kind have no name.
fn name_of(kind: &str, index: usize, tables: &[CheckTable]) -> String {
    let alike = tables.iter().filter(|table| table.is_unnamed(kind)).count();
    if alike > 1 {
        format!("{kind}.{}", index + 1)
    } else {
        kind.to_owned()
    }
}
