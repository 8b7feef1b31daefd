//! Runs `nft`, one at a time.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use anycast_core::announce::AnnounceError;
use tokio::task::JoinHandle;

/// What the kernel says where a table is not there.
const ABSENT: &str = "No such file or directory";
const DENIED: &str = "Operation not permitted";

/// The program, and the run of it that was begun last.
///
/// A run whose future was dropped goes on to its end, and the next one waits for it: so no
/// change can come into force after a later one.
#[derive(Debug, Default)]
pub(crate) struct Nft {
    running: Option<JoinHandle<io::Result<Output>>>,
}

impl Nft {
    /// Carries out a script, which nft does whole or not at all.
    pub(crate) async fn script(&mut self, script: String) -> Result<(), AnnounceError> {
        let output = self.run(&["-f", "-"], script).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed("change the sets", &output))
    }

    /// A table as JSON. `None`: it is not there.
    pub(crate) async fn table(
        &mut self,
        table: &str,
    ) -> Result<Option<serde_json::Value>, AnnounceError> {
        let arguments = ["-j", "list", "table", "inet", table];
        let output = self.run(&arguments, String::new()).await?;
        if output.status.success() {
            let parsed = serde_json::from_slice(&output.stdout);
            return parsed
                .map(Some)
                .map_err(|error| backend("read what nft lists", error));
        }
        if String::from_utf8_lossy(&output.stderr).contains(ABSENT) {
            return Ok(None);
        }
        Err(failed("list the sets", &output))
    }

    async fn run(&mut self, arguments: &[&str], input: String) -> Result<Output, AnnounceError> {
        if let Some(earlier) = &mut self.running {
            let _ = earlier.await;
            self.running = None;
        }
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let run = tokio::task::spawn_blocking(move || run(arguments, &input));
        let ended = self.running.insert(run).await;
        self.running = None;
        let output = ended.map_err(io::Error::other).and_then(|output| output);
        output.map_err(|error| backend("run nft (apt install nftables)", error))
    }
}

fn run(arguments: Vec<String>, input: &str) -> io::Result<Output> {
    let mut child = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn backend(
    what: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> AnnounceError {
    AnnounceError::Backend {
        what: format!("cannot {what}"),
        source: source.into(),
    }
}

fn failed(what: &str, output: &Output) -> AnnounceError {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("without a word").to_owned();
    if said.contains(DENIED) {
        return AnnounceError::Permission {
            what: format!("cannot {what}"),
            remedy: "give this process CAP_NET_ADMIN".to_owned(),
        };
    }
    backend(what, said)
}
