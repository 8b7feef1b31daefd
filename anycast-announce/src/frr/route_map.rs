//! The level in an entry of the neighbours' outgoing route-maps, `carrier = "route-map"`.
//!
//! # Contract
//! One `set` line of each named entry is changed through vtysh, and the sessions are cleared
//! softly outwards, which sends what has changed and resets nothing. vtysh and not a socket,
//! since from FRR 10 on part of the configuration belongs to another daemon, and only vtysh
//! knows which. The entry must exist: to enter one that does not would create it, and permit
//! everything in it.
//!
//! Each argument is made of checked parts. Any line of vtysh that begins with `%` and anything
//! on its standard error is a failure, since its exit code is not one always; then the entry is
//! read back from bgpd. There is no transaction and no lock in FRR's vty: of two who configure
//! at once the last one wins, which is seen and repaired. Where a later FRR does lock its
//! configuration, that is such a line, and it is tried again.
//!
//! Nothing is persisted: there is no `write`. **An operator's own `write` persists the level
//! of that moment**, and **there is no dead man**: when this process dies, the level stays.
//!
//! # Cancellation
//! A dropped future ends vtysh, between two of its lines at worst. The next call looks, and
//! completes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anycast_core::announce::{Level, Role};
use anycast_core::health::Reason;
use serde::Deserialize;
use tokio::process::Command;

use super::advertised::AdvertisedError;
use crate::attributes::Expression;

/// Longest wait for vtysh: it takes 50 ms.
pub const TIME_OUT: Duration = Duration::from_secs(3);
/// Where packages have it.
pub const DEFAULT_VTYSH: &str = "/usr/bin/vtysh";
/// The longest name of a route-map that is taken for one.
pub const MAX_NAME: usize = 80;

/// One entry of a route-map that permits: `TO-ROUTER4 10`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    name: String,
    sequence: u16,
}

/// What cannot be an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no entry of a route-map: write its name (up to {MAX_NAME} letters, digits and \
     \"_-.\") and its sequence number from 1 to 65535, such as \"TO-ROUTER4 10\""
)]
pub struct EntryError {
    /// Its beginning.
    text: String,
}

impl Entry {
    /// Reads `NAME SEQUENCE`.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn new(text: &str) -> Result<Self, EntryError> {
        let read = || {
            let (name, sequence) = text.split_once(' ')?;
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
            let is_name = begins_well && name.len() <= MAX_NAME && name.chars().all(is_allowed);
            let is_number = sequence.bytes().all(|byte| byte.is_ascii_digit());
            let sequence = sequence.parse().ok().filter(|number| *number > 0)?;
            (is_name && is_number).then(|| Self {
                name: name.to_owned(),
                sequence,
            })
        };
        read().ok_or_else(|| EntryError {
            text: text.chars().take(MAX_NAME).collect(),
        })
    }

    /// The route-map's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route-map {} permit {}", self.name, self.sequence)
    }
}

/// The entries, and the program that changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMaps {
    entries: Vec<Entry>,
    vtysh: PathBuf,
    config_dir: Option<PathBuf>,
}

impl RouteMaps {
    /// These entries, changed by [`DEFAULT_VTYSH`].
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        Self {
            entries,
            vtysh: DEFAULT_VTYSH.into(),
            config_dir: None,
        }
    }

    /// Another vtysh.
    #[must_use]
    pub fn with_vtysh(mut self, vtysh: PathBuf) -> Self {
        self.vtysh = vtysh;
        self
    }

    /// Where vtysh has its `vtysh.conf`; default: what it was built with.
    #[must_use]
    pub fn with_config_dir(mut self, folder: PathBuf) -> Self {
        self.config_dir = Some(folder);
        self
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Runs these lines in order, each a command of vtysh. `socket` is a daemon's vty socket.
    pub(super) async fn run(&self, socket: &Path, lines: &[String]) -> Result<(), VtyshError> {
        let mut command = Command::new(&self.vtysh);
        command.env_clear().env("VTYSH_HISTFILE", "/dev/null");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.arg("--vty_socket");
        command.arg(socket.parent().unwrap_or(Path::new("/")));
        if let Some(folder) = &self.config_dir {
            command.arg("--config_dir").arg(folder);
        }
        for line in lines {
            command.arg("-c").arg(line);
        }
        let output = match tokio::time::timeout(TIME_OUT, command.output()).await {
            Err(_) => return Err(VtyshError::TimedOut),
            Ok(Err(source)) if source.kind() == io::ErrorKind::NotFound => {
                return Err(VtyshError::Missing {
                    path: self.vtysh.clone(),
                });
            }
            Ok(Err(source)) => {
                return Err(VtyshError::Start {
                    path: self.vtysh.clone(),
                    source,
                });
            }
            Ok(Ok(output)) => output,
        };
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        match complaint(output.status.success(), &out, &err) {
            None => Ok(()),
            Some(said) => Err(VtyshError::Refused { said }),
        }
    }
}

/// What vtysh complains of, whatever its exit code is.
fn complaint(is_success: bool, out: &str, err: &str) -> Option<Reason> {
    let percent = out.lines().find(|line| line.trim_start().starts_with('%'));
    let said = percent.or_else(|| err.lines().find(|line| !line.trim().is_empty()));
    match said {
        Some(said) => Some(Reason::new(said.trim())),
        None if is_success => None,
        None => Some(Reason::new(
            out.lines().last().unwrap_or("it does not say why"),
        )),
    }
}

/// Why nothing, or not all, was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VtyshError {
    /// There is no such program. Nothing was changed.
    #[error("{} is not there; install FRR's vtysh, or say where it is", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be started. Nothing was changed.
    #[error("{}: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It did not end. Earlier lines may have been carried out.
    #[error("vtysh did not end within {TIME_OUT:?}")]
    TimedOut,
    /// It complained. Earlier lines were carried out.
    #[error("vtysh: {said}")]
    Refused {
        /// Its words.
        said: Reason,
    },
}

/// The `set` clause that expresses a level.
pub(super) fn wanted(expression: Option<Expression>, role: Role, level: Level) -> String {
    let is_preferred = level == Level::Preferred;
    match expression {
        Some(Expression::Med { preferred, demoted }) => {
            format!("metric {}", if is_preferred { preferred } else { demoted })
        }
        Some(Expression::LocalPref { preferred, demoted }) => {
            let value = if is_preferred { preferred } else { demoted };
            format!("local-preference {value}")
        }
        // Configured for no route-map.
        None
        | Some(
            Expression::Prepend { .. } | Expression::Community(_) | Expression::OspfMetric { .. },
        ) => {
            format!("local-preference {}", role.local_pref(level))
        }
    }
}

/// The `set` clause of an entry that begins with this word, from `show route-map NAME json`.
/// `Some(None)`: the entry has no such clause. None: there is no such entry.
///
/// # Errors
/// [`AdvertisedError::Json`].
pub fn clause(
    text: &str,
    entry: &Entry,
    word: &str,
) -> Result<Option<Option<String>>, AdvertisedError> {
    #[derive(Deserialize)]
    struct Map {
        rules: Vec<Rule>,
    }
    #[derive(Deserialize)]
    struct Rule {
        #[serde(rename = "sequenceNumber")]
        sequence: u64,
        #[serde(rename = "type")]
        kind: String,
        #[serde(rename = "setClauses", default)]
        sets: Vec<String>,
    }
    let daemons: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text)?;
    let Some(map) = daemons.values().find_map(|maps| maps.get(&entry.name)) else {
        return Ok(None);
    };
    let map = Map::deserialize(map)?;
    let is_it = |rule: &&Rule| rule.sequence == u64::from(entry.sequence) && rule.kind == "permit";
    Ok(map.rules.iter().find(is_it).map(|rule| {
        let mut sets = rule.sets.iter();
        let has_word = |set: &&String| set.split_whitespace().next() == Some(word);
        sets.find(has_word).cloned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_that_would_be_commands_are_refused() {
        for bad in [
            "",
            "A",
            "A 0",
            "A 65536",
            "A +1",
            "A 1 0",
            "A\nwrite 10",
            "A;b 1",
            "-A 1",
            "A  1",
            "A 1\n",
            "é 1",
            "\"A\" 1",
        ] {
            assert!(Entry::new(bad).is_err(), "{bad:?}");
        }
        let entry = Entry::new("TO-ROUTER4 10").unwrap();
        assert_eq!(entry.to_string(), "route-map TO-ROUTER4 permit 10");
        assert!(Entry::new(&format!("{} 1", "a".repeat(MAX_NAME + 1))).is_err());
    }

    #[test]
    fn a_success_that_complains_is_none() {
        assert_eq!(complaint(true, "", ""), None);
        assert_eq!(complaint(true, "an ordinary line\n", "\n"), None);
        for (out, err) in [
            ("% [BGP] Argument form is unsupported or malformed.\n", ""),
            ("a\n% BGP: Unknown neighbor - \"10.0.0.9\"\n", ""),
            ("% VTY configuration is locked by other VTY\n", ""),
            ("", "Exiting: failed to connect to any daemons.\n"),
        ] {
            assert!(complaint(true, out, err).is_some(), "{out}{err}");
        }
        let said = complaint(false, "bgpd is not running\n", "").unwrap();
        assert_eq!(said.as_str(), "bgpd is not running");
        assert!(complaint(false, "", "").is_some());
    }

    /// As FRR 8.4.4 prints it.
    const SHOWN: &str = r#"{"BGP":{"TO-ROUTER4":{"invoked":0,"rules":[
        {"sequenceNumber":5,"type":"deny","matchClauses":[],"setClauses":[]},
        {"sequenceNumber":10,"type":"permit","matchClauses":["ip address prefix-list S"],
         "setClauses":["metric 7","local-preference 50"],"action":"Exit routemap"}]}}}"#;

    #[test]
    fn the_clause_of_the_entry_is_read() {
        let of = |entry: &str, word| clause(SHOWN, &Entry::new(entry).unwrap(), word).unwrap();
        let found = of("TO-ROUTER4 10", "local-preference").unwrap();
        assert_eq!(found.as_deref(), Some("local-preference 50"));
        assert_eq!(of("TO-ROUTER4 10", "metri"), Some(None));
        // One that denies is none, nor is one that is not there.
        assert_eq!(of("TO-ROUTER4 5", "metric"), None);
        assert_eq!(of("TO-ROUTER4 20", "metric"), None);
        assert_eq!(of("TO-ROUTER6 10", "metric"), None);
        let entry = Entry::new("A 1").unwrap();
        for bad in [
            "",
            "[]",
            "% x",
            "{\"BGP\":{\"A\":{}}}",
            "{\"BGP\":{\"A\":{\"rules\":7}}}",
        ] {
            assert!(clause(bad, &entry, "metric").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_one_short_line(text in "\\PC{0,90}") {
            if let Ok(entry) = Entry::new(&text) {
                let line = entry.to_string();
                prop_assert!(line.len() < 120);
                prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
