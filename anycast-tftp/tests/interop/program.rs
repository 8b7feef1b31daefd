//! Runs a program within bounds.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No run takes longer, however busy the machine; then it is killed and has failed.
const SECONDS: &str = "300";

/// Where a program is, or the one line that says how to get it.
pub fn find(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{program} is missing: apt-get install {package}"))
}

/// What a finished program left.
pub struct Run {
    pub success: bool,
    /// The command and everything that it printed.
    pub text: String,
}

/// Runs a program in a folder.
pub fn run(program: &Path, folder: &Path, args: &[impl AsRef<OsStr>]) -> Run {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", SECONDS])
        .arg(program)
        .args(args)
        .current_dir(folder);
    let output = command
        .output()
        .expect("timeout is missing: apt-get install coreutils");
    let text = format!(
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Run {
        success: output.status.success(),
        text,
    }
}
