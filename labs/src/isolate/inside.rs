//! The copy of the program that runs inside the namespaces.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::{env, fs, process, thread};

use nix::mount::{MsFlags, mount};

use super::{DONE, HIDDEN, IsolateError, MARK};

/// The mark, when this process runs inside an isolation.
#[must_use]
pub fn inside() -> Option<String> {
    let mark = env::var(MARK).ok()?;
    (process::id() == 1).then_some(mark)
}

/// The folder for this lab's files: private, in memory, empty at the start.
/// It is there only [`inside()`].
#[must_use]
pub fn work_dir() -> PathBuf {
    PathBuf::from("/run/lab")
}

/// Inside: prepare it, once, and answer the mark. Outside: `None`.
pub(super) fn enter() -> Result<Option<String>, IsolateError> {
    static PREPARED: Once = Once::new();
    let Some(mark) = inside() else {
        return if env::var_os(MARK).is_some() {
            Err(IsolateError::Stray { variable: MARK })
        } else {
            Ok(None)
        };
    };
    let mut outcome = Ok(());
    PREPARED.call_once(|| outcome = prepare());
    outcome.map(|()| Some(mark))
}

fn prepare() -> Result<(), IsolateError> {
    watch_lifeline()?;
    for folder in HIDDEN {
        hide(folder).map_err(failed("mount an empty file system"))?;
    }
    fs::create_dir(work_dir()).map_err(failed("create the lab's folder"))?;
    for folder in ["/run/lock", "/run/bird", "/run/frr"] {
        fs::create_dir(Path::new(folder)).map_err(failed("create folders in /run"))?;
    }
    let up = Command::new("ip")
        .args(["link", "set", "dev", "lo", "up"])
        .status()
        .map_err(failed("run ip (apt install iproute2)"))?;
    if up.success() {
        return Ok(());
    }
    Err(failed("set lo up")(io::Error::other(up.to_string())))
}

fn hide(folder: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("mode=0755");
    mount(Some("lab"), folder, Some("tmpfs"), flags, options).map_err(Into::into)
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> IsolateError {
    move |source| IsolateError::Prepare { step, source }
}

/// Exit, and everything in the PID namespace with us, once the outer copy is
/// gone: it holds the other end of our standard input.
fn watch_lifeline() -> Result<(), IsolateError> {
    let watch = || {
        let mut buffer = [0_u8; 64];
        while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
        process::exit(130);
    };
    let thread = thread::Builder::new().name("lifeline".to_owned());
    thread
        .spawn(watch)
        .map(drop)
        .map_err(failed("start the lifeline thread"))
}

/// Tell the outer copy that the body was run.
pub(super) fn say_done() {
    if let Ok(line) = env::var(DONE) {
        super::write_line(&line);
    }
}
