//! The table of a check of kind `exec`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::{ExecCheck, ExitCodes, OnTimeout, Outcome, User};
use crate::config::check::CheckContext;
use crate::health::BuildCheck;

/// The keys of a check of kind `exec`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExecTable {
    /// The program's absolute path, and its arguments. No shell is involved.
    pub command: Vec<String>,
    /// Whom to run it as: a name or number of `/etc/passwd`, or `uid:gid`. Default: this
    /// daemon's own user.
    pub user: Option<String>,
    /// Its folder, an absolute path. Default `/`.
    pub dir: Option<PathBuf>,
    /// Its environment, besides `PATH` (unless set here) and the three `ANYCAST_` variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What its exit codes mean, where that differs from the default.
    #[serde(default)]
    pub exit: ExitTable,
    /// What it means that it has not ended at the time-out: `unknown` (default) or `unhealthy`.
    #[serde(default)]
    pub on_timeout: OnTimeout,
}

/// What exit codes mean: each list gives its codes that meaning, all others keep the default.
///
/// A code is a number from 0 to 255, a range is text: `"4-125"`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExitTable {
    /// Codes that mean that the service works. Default 0.
    #[serde(default)]
    pub healthy: Vec<Codes>,
    /// Codes that mean that the service failed. Default 1, 2 and 4 to 125.
    #[serde(default)]
    pub unhealthy: Vec<Codes>,
    /// Codes that mean that the command could not tell. Default 3 and 126 to 255.
    #[serde(default)]
    pub unknown: Vec<Codes>,
    /// What death by a signal means: `unknown` (default) or `unhealthy`.
    #[serde(default)]
    pub signals: OnTimeout,
}

/// One exit code, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes(RangeInclusive<u8>);

impl<'de> Deserialize<'de> for Codes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Codes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an exit code from 0 to 255, or a range such as \"4-125\"")
            }

            fn visit_i64<E: serde::de::Error>(self, code: i64) -> Result<Codes, E> {
                match u8::try_from(code) {
                    Ok(code) => Ok(Codes(code..=code)),
                    Err(_) => Err(E::custom(format!(
                        "{code} is not an exit code; they go from 0 to 255"
                    ))),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Codes, E> {
                parse_codes(text).ok_or_else(|| {
                    E::custom(format!(
                        "{text:?} is not a range of exit codes; write it as \"4-125\""
                    ))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn parse_codes(text: &str) -> Option<Codes> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(Codes(first..=last))
}

impl ExitTable {
    fn codes(&self) -> Result<ExitCodes, String> {
        let mut codes = ExitCodes::default();
        let mut named: [Option<&str>; 256] = [None; 256];
        for (key, list, outcome) in [
            ("healthy", &self.healthy, Outcome::Healthy),
            ("unhealthy", &self.unhealthy, Outcome::Unhealthy),
            ("unknown", &self.unknown, Outcome::Unknown),
        ] {
            for Codes(range) in list {
                for code in range.clone() {
                    let before = named[usize::from(code)].replace(key);
                    if let Some(before) = before.filter(|before| *before != key) {
                        return Err(format!(
                            "exit: code {code} is both in {before} and in {key}; \
                             remove it from one"
                        ));
                    }
                }
                codes = codes.with(range.clone(), outcome);
            }
        }
        if !codes.any(Outcome::Healthy) {
            return Err(
                "exit: no code means healthy, so the check could never succeed; \
                        name one in exit.healthy"
                    .to_owned(),
            );
        }
        Ok(codes.with_signals(match self.signals {
            OnTimeout::Unknown => Outcome::Unknown,
            OnTimeout::Unhealthy => Outcome::Unhealthy,
        }))
    }
}

impl ExecTable {
    /// What builds the check.
    ///
    /// Whether the program is there is not looked at: it may come later, and while it is
    /// missing the check is `Unknown`.
    ///
    /// # Errors
    /// One line that names the key, what is wrong and what to do.
    pub fn build(&self, context: &CheckContext<'_>) -> Result<BuildCheck, String> {
        let Some((program, args)) = self.command.split_first() else {
            return Err("command: is empty; name a program by its absolute path".to_owned());
        };
        if !Path::new(program).is_absolute() {
            return Err(format!(
                "command: {program:?} is not an absolute path; write it in full, such as \
                 \"/usr/lib/nagios/plugins/check_dns\""
            ));
        }
        if self.command.iter().any(|part| part.contains('\0')) {
            return Err("command: holds a NUL character; remove it".to_owned());
        }
        let mut check = ExecCheck::new(program)
            .with_args(args)
            .with_exit_codes(self.exit.codes()?)
            .with_on_timeout(self.on_timeout);
        if let Some(dir) = &self.dir {
            if !dir.is_absolute() {
                return Err(format!(
                    "dir: {} is not an absolute path; write it in full",
                    dir.display()
                ));
            }
            check = check.with_dir(dir);
        }
        if let Some(user) = &self.user {
            let user = User::look_up(user).map_err(|error| format!("user: {error}"))?;
            check = check.with_user(user);
        }
        for (name, value) in &self.env {
            check_variable(name, value)?;
            check = check.with_env(name, value);
        }
        let addresses: Vec<String> = context
            .addresses
            .iter()
            .map(|address| address.ip().to_string())
            .collect();
        let check = check
            .with_env("ANYCAST_SERVICE", context.service.as_str())
            .with_env("ANYCAST_NODE", context.node.as_str())
            .with_env("ANYCAST_ADDRESSES", addresses.join(" "));
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!(
            "env: {name:?} cannot be an environment variable; remove '=' and NUL from it"
        ));
    }
    if name.starts_with("ANYCAST_") {
        return Err(format!(
            "env: {name} is set by this daemon; choose a name that does not begin with ANYCAST_"
        ));
    }
    Ok(())
}
