//! One table `[[service]]`: the keys that every binary's service has, and this one's own.
//!
//! Serde cannot both flatten a table and refuse unknown keys, so the own keys are taken out
//! while the shared ones are read: each fault keeps its line and column.

use std::fmt;

use anycast_core::config::ServiceTable;
use anycast_core::config::check::CheckTable;
use anycast_daemon::announce::AnnounceTable;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

/// `state` in `[[service]]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StateKey {
    /// Guarded. The default.
    #[default]
    Active,
    /// Drained, and allowed to be absent from the next file.
    Removed,
}

/// A table `[[service]]`.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) shared: ServiceTable,
    pub(super) state: StateKey,
    pub(super) announce: Option<AnnounceTable>,
    pub(super) checks: Vec<CheckTable>,
}

#[derive(Debug, Default)]
struct Own {
    state: StateKey,
    announce: Option<AnnounceTable>,
    checks: Vec<CheckTable>,
}

#[derive(Debug, Clone, Copy)]
enum OwnKey {
    State,
    Announce,
    Check,
}

impl OwnKey {
    fn new(key: &str) -> Option<Self> {
        match key {
            "state" => Some(Self::State),
            "announce" => Some(Self::Announce),
            "check" => Some(Self::Check),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table [[service]]")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table, A::Error> {
        let mut own = Own::default();
        let rest = Rest { map, own: &mut own };
        let shared = ServiceTable::deserialize(MapAccessDeserializer::new(rest))?;
        Ok(Table {
            shared,
            state: own.state,
            announce: own.announce,
            checks: own.checks,
        })
    }
}

/// A table without the keys in [`Own`], which are put aside as they are met.
struct Rest<'a, A> {
    map: A,
    own: &'a mut Own,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        while let Some(key) = self.map.next_key_seed(KeySeed(&mut seed))? {
            match key {
                Key::Shared(key) => return Ok(Some(key)),
                Key::Own(OwnKey::State) => self.own.state = self.map.next_value()?,
                Key::Own(OwnKey::Announce) => self.own.announce = Some(self.map.next_value()?),
                Key::Own(OwnKey::Check) => self.own.checks = self.map.next_value()?,
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

enum Key<T> {
    Own(OwnKey),
    Shared(T),
}

/// Reads a key within the file's own deserializer, so that an unknown one is told with its
/// place. The seed is used for the first shared key, with which the search ends.
struct KeySeed<'a, K>(&'a mut Option<K>);

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<'_, K> {
    type Value = Key<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let key = String::deserialize(deserializer)?;
        if let Some(own) = OwnKey::new(&key) {
            return Ok(Key::Own(own));
        }
        let Some(seed) = self.0.take() else {
            return Err(D::Error::custom("a key was read twice"));
        };
        let shared: Result<_, serde::de::value::Error> =
            seed.deserialize(key.as_str().into_deserializer());
        match shared {
            Ok(shared) => Ok(Key::Shared(shared)),
            Err(error) => Err(D::Error::custom(format!(
                "{error}, `state`, `announce`, `check`"
            ))),
        }
    }
}
