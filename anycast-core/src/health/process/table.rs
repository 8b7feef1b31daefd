//! The table of a check of kind `process`.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{ProcessCheck, Selector, User};
use crate::config::check::CheckContext;
use crate::health::BuildCheck;

/// The keys of a check of kind `process`.
///
/// One of `pid_file`, `unit` and `executable` selects the process. The others, `executable`
/// beside a `pid_file` or `unit` too, say what it must be, so that no other is taken for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProcessTable {
    /// The file that holds its process id: an absolute path.
    pub pid_file: Option<PathBuf>,
    /// Its systemd unit, such as `unbound.service`; `.service` may be left out.
    pub unit: Option<String>,
    /// Its program, as `/proc/PID/exe` shows it: an absolute path. Of a script that is the
    /// interpreter.
    pub executable: Option<PathBuf>,
    /// Its effective user: a name of `/etc/passwd` or a number.
    pub user: Option<String>,
    /// Text that occurs in its command line, the arguments joined with spaces.
    pub argument: Option<String>,
}

impl ProcessTable {
    /// What builds the check.
    ///
    /// # Errors
    /// One line that names the key, what is wrong and what to do.
    pub fn build(&self, _: &CheckContext<'_>) -> Result<BuildCheck, String> {
        for (key, path) in [
            ("pid_file", &self.pid_file),
            ("executable", &self.executable),
        ] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                let path = path.display();
                return Err(format!(
                    "{key}: {path} is not an absolute path; write it in full"
                ));
            }
        }
        let selector = match (&self.pid_file, &self.unit, &self.executable) {
            (Some(_), Some(_), _) => {
                return Err("unit: cannot be beside pid_file; remove one".to_owned());
            }
            (Some(path), None, _) => Selector::PidFile(path.clone()),
            (None, Some(unit), _) => Selector::Unit(unit_name(unit)?),
            (None, None, Some(path)) => Selector::Executable(path.clone()),
            (None, None, None) => {
                return Err(
                    "pid_file: nothing selects the process; set pid_file, unit or executable"
                        .to_owned(),
                );
            }
        };
        let mut check = ProcessCheck::new(selector);
        if let Some(path) = &self.executable {
            check = check.with_executable(path);
        }
        if let Some(user) = &self.user {
            let number = user.parse().ok();
            let number = match number {
                Some(number) => number,
                None => User::look_up(user)
                    .map_err(|error| format!("user: {error}"))?
                    .uid(),
            };
            check = check.with_user(number);
        }
        if let Some(argument) = &self.argument {
            if argument.is_empty() {
                return Err("argument: is empty; remove it".to_owned());
            }
            check = check.with_argument(argument);
        }
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}

/// A name that systemd would accept (systemd.unit(5)), with its suffix.
fn unit_name(unit: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if unit.is_empty() || unit.len() > 255 || unit.starts_with('-') || !unit.chars().all(allowed) {
        return Err(format!(
            "unit: {unit:?} is not the name of a unit; write it as \"unbound.service\""
        ));
    }
    match unit.rsplit_once('.') {
        Some((_, "service")) => Ok(unit.to_owned()),
        Some((
            _,
            suffix @ ("socket" | "target" | "timer" | "mount" | "slice" | "scope" | "path"),
        )) => Err(format!(
            "unit: a .{suffix} has no main process; name a service"
        )),
        Some(_) | None => Ok(format!("{unit}.service")),
    }
}
