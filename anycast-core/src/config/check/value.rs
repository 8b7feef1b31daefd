//! A TOML value with the places of its parts, for tables that are read in two steps.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Any value but a date. Its depth is bounded by the parser's own limit.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// As TOML writes it: the parser alone can make one of its numbers.
    Number(String),
    Boolean(bool),
    List(Vec<Spanned<Self>>),
    Table(BTreeMap<String, Entry>),
}

/// What is in a table under one key.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The byte at which the key begins.
    pub(super) at: usize,
    pub(super) value: Spanned<Value>,
}

impl Entry {
    /// The value as the parser would give it.
    pub(super) fn lend(&self) -> Result<Spanned<DeValue<'_>>, toml::de::Error> {
        lend(&self.value)
    }

    /// Whether the byte is in the value, or a key or value in it.
    pub(super) fn holds(&self, at: usize) -> bool {
        holds(&self.value, at)
    }
}

fn holds(value: &Spanned<Value>, at: usize) -> bool {
    if value.span().contains(&at) {
        return true;
    }
    match value.get_ref() {
        Value::Text(_) | Value::Number(_) | Value::Boolean(_) => false,
        Value::List(items) => items.iter().any(|item| holds(item, at)),
        Value::Table(entries) => entries
            .values()
            .any(|entry| entry.at == at || entry.holds(at)),
    }
}

fn lend(value: &Spanned<Value>) -> Result<Spanned<DeValue<'_>>, toml::de::Error> {
    let lent = match value.get_ref() {
        Value::Text(text) => DeValue::String(text.as_str().into()),
        Value::Number(text) => DeValue::parse(text)?.into_inner(),
        Value::Boolean(value) => DeValue::Boolean(*value),
        Value::List(items) => {
            let items: Result<DeArray<'_>, _> = items.iter().map(lend).collect();
            DeValue::Array(items?)
        }
        Value::Table(entries) => {
            let mut table = DeTable::new();
            for (key, entry) in entries {
                let at = entry.at..entry.at + key.len();
                table.insert(Spanned::new(at, key.as_str().into()), entry.lend()?);
            }
            DeValue::Table(table)
        }
    };
    Ok(Spanned::new(value.span(), lent))
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Capture)
    }
}

struct Capture;

impl<'de> Visitor<'de> for Capture {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that a check may have")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if value.is_nan() {
            return Err(E::custom("nan is no number"));
        }
        Ok(Value::Number(format!("{value:?}"))) // 1.0, 1e300, inf
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = BTreeMap::new();
        // The parser gives a date as a table, the only one whose keys have no place.
        let no_date = |_| A::Error::custom("a date has no place in a check");
        while let Some(key) = entries.next_key::<Spanned<String>>().map_err(no_date)? {
            let at = key.span().start;
            let value = entries.next_value()?;
            table.insert(key.into_inner(), Entry { at, value });
        }
        Ok(Value::Table(table))
    }
}
