//! The main process of a systemd unit, asked from `systemctl show`.
//!
//! Its output is made for programs, stable, and needs no privilege; which process is the main
//! one only systemd knows (the control group also holds helpers, workers and `ExecStartPre`
//! commands). It costs a process and some milliseconds, so it is asked only while no process is
//! followed, and at most [`AT_ONCE`] are asked at a time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::health::Verdict;
use crate::health::local::blocking::Blocking;
use crate::health::local::command::{CommandLine, Finished, Started};
use crate::health::local::explain;

/// How many `systemctl` run at a time; further checks wait, within their time-out.
const AT_ONCE: usize = 2;
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

const PROGRAMS: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// Asks systemd for the main process of a unit that is active.
pub(super) async fn main_process(
    unit: &str,
    starting: &Blocking,
    deadline: Instant,
) -> Result<Pid, Verdict> {
    let unknown = |why: &str| Verdict::unknown(format!("{unit}: {why}"));
    let busy = "no time was left to ask systemctl, since others ask it; raise the time-out";
    let _place = match timeout_at(deadline, PLACES.acquire()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) | Err(_) => return Err(unknown(busy)),
    };
    let command = show(unit);
    let started = starting
        .run(deadline, move || command.start())
        .await
        .map_err(|stuck| unknown(&format!("starting systemctl {}", stuck.describe())))?;
    let cannot =
        |error: std::io::Error| unknown(&format!("systemctl cannot be run: {}", explain(&error)));
    let mut running = started.and_then(Started::watch).map_err(cannot)?;
    // Dropping it kills it.
    let ended = timeout_at(deadline, running.ended()).await;
    ended.map_err(|_| unknown("systemctl did not answer within the time-out"))?;
    let finished = running.finish().map_err(cannot)?;
    judge(unit, &finished)
}

fn show(unit: &str) -> CommandLine {
    let program = PROGRAMS
        .into_iter()
        .find(|program| Path::new(program).exists())
        .unwrap_or(PROGRAMS[0]);
    let properties = "--property=LoadState,ActiveState,SubState,MainPID";
    let args = ["show", "--no-pager", properties, "--", unit];
    CommandLine {
        program: PathBuf::from(program),
        args: args.map(OsString::from).to_vec(),
        env: vec![("LC_ALL".into(), "C".into())],
        dir: PathBuf::from("/"),
        user: None,
    }
}

fn judge(unit: &str, finished: &Finished) -> Result<Pid, Verdict> {
    if !finished.status.success() {
        let why = finished.first_line().unwrap_or_default();
        return Err(Verdict::unknown(format!(
            "{unit}: systemctl failed ({}): {why}",
            finished.status
        )));
    }
    parse(unit, &String::from_utf8_lossy(&finished.stdout))
}

/// `Key=value` on each line, in any order.
fn parse(unit: &str, text: &str) -> Result<Pid, Verdict> {
    let value = |key: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find_map(|(found, value)| (found == key).then_some(value))
    };
    let (Some(load), Some(active), Some(pid)) = (
        value("LoadState"),
        value("ActiveState"),
        value("MainPID").and_then(|pid| pid.parse().ok()),
    ) else {
        return Err(Verdict::unknown(format!(
            "{unit}: systemctl answered something else than was asked"
        )));
    };
    if load == "not-found" {
        return Err(Verdict::unknown(format!(
            "there is no unit {unit}; see `systemctl list-units`"
        )));
    }
    let sub = value("SubState").unwrap_or_default();
    match (active, Pid::from_raw(pid)) {
        ("inactive" | "failed", _) => Err(Verdict::gone(format!("{unit} is {active} ({sub})"))),
        ("active" | "reloading" | "refreshing", Some(pid)) => Ok(pid),
        ("active" | "reloading" | "refreshing", None) => Err(Verdict::unknown(format!(
            "{unit} is {active} but has no main process; select by pid_file or executable"
        ))),
        _ => Err(Verdict::unhealthy(format!("{unit} is {active} ({sub})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Evidence;

    fn ask(load: &str, active: &str, pid: i32) -> Result<Pid, Verdict> {
        let text = format!("MainPID={pid}\nLoadState={load}\nActiveState={active}\nSubState=x\n");
        parse("a.service", &text)
    }

    #[test]
    fn only_an_active_unit_has_a_process_to_follow() {
        assert_eq!(
            ask("loaded", "active", 7).unwrap(),
            Pid::from_raw(7).unwrap()
        );
        assert!(ask("loaded", "reloading", 7).is_ok());
        for state in ["inactive", "failed"] {
            let verdict = ask("loaded", state, 0).unwrap_err();
            assert!(matches!(
                verdict,
                Verdict::Unhealthy(_, Evidence::Conclusive)
            ));
        }
        for state in ["activating", "deactivating", "maintenance"] {
            let verdict = ask("loaded", state, 7).unwrap_err();
            assert!(matches!(verdict, Verdict::Unhealthy(_, Evidence::Probe)));
        }
    }

    #[test]
    fn what_systemd_cannot_tell_is_unknown() {
        for verdict in [
            ask("loaded", "active", 0),
            ask("not-found", "inactive", 0),
            parse("a.service", ""),
            parse(
                "a.service",
                "MainPID=x\nLoadState=loaded\nActiveState=active\n",
            ),
        ] {
            assert!(matches!(verdict, Err(Verdict::Unknown(_))), "{verdict:?}");
        }
    }
}
