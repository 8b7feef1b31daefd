//! Our server on both families with a folder, and a folder for clients.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anycast_tftp::server::{Settings, WritePolicy};
use anycast_tftp::store::FsStore;

use super::common::{TestServer, pattern};
use super::program::Run;

/// More blocks than there are numbers.
pub const WRAPPING: usize = 70_000;

pub struct Site {
    pub server: TestServer,
    root: tempfile::TempDir,
    local: tempfile::TempDir,
}

impl Site {
    /// Allows writes, and blocks of any size.
    pub fn new() -> Self {
        Self::with(|settings| settings)
    }

    pub fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = FsStore::open_root(root.path()).unwrap();
        let settings = Settings::new()
            .with_mtu(65_536)
            .with_writes(WritePolicy::Create);
        let listen = ["127.0.0.1:0", "[::1]:0"];
        Self {
            server: TestServer::new(&listen, change(settings), Arc::new(store)),
            root,
            local: tempfile::tempdir().unwrap(),
        }
    }

    /// The server's two addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.server.addresses.clone()
    }

    /// The folder in which clients run.
    pub fn local(&self) -> &Path {
        self.local.path()
    }

    /// Puts a file on the server.
    pub fn serve(&self, name: &str, content: &[u8]) {
        fs::write(self.root.path().join(name), content).unwrap();
    }

    /// Puts a file into the client's folder.
    pub fn keep(&self, name: &str, content: &[u8]) {
        fs::write(self.local().join(name), content).unwrap();
    }

    /// Compares what a client fetched, and removes it.
    pub fn assert_fetched(&self, name: &str, expected: &[u8], run: &Run) {
        assert_file(self.local().join(name), expected, run);
    }

    /// Compares what a client sent, and removes it. The server makes a file visible before
    /// it acknowledges the last block, so it is there when the client has ended.
    pub fn assert_sent(&self, name: &str, expected: &[u8], run: &Run) {
        assert_file(self.root.path().join(name), expected, run);
    }
}

/// A test that went well leaves no transfer that its client thinks complete and the server
/// does not: the last acknowledgement counts too.
impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.server
            .wait_for("transfers that never completed", |stats| {
                let engine = &stats.engine;
                let ended = engine.completed_reads + engine.completed_writes;
                engine.sessions == ended + engine.refused_not_found
            });
    }
}

fn assert_file(path: PathBuf, expected: &[u8], run: &Run) {
    let content = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}\n{}", run.text));
    if content != expected {
        let same = content.iter().zip(expected).take_while(|(a, b)| a == b);
        panic!(
            "{path:?} differs from byte {} on ({} bytes, expected {})\n{}",
            same.count(),
            content.len(),
            expected.len(),
            run.text
        );
    }
    fs::remove_file(path).unwrap();
}

/// Contents around every boundary of blocks of this size, and of 512 bytes.
pub fn contents(blksize: usize) -> Vec<Vec<u8>> {
    let mut sizes = vec![0, 1, 511, 512, 513, 1024, 100_003];
    sizes.extend([blksize - 1, blksize, blksize + 1, 4 * blksize]);
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().map(pattern).collect()
}

/// Text with every pair of CR, LF, NUL and a letter at every offset of small blocks.
pub fn text() -> Vec<u8> {
    let special = b"\r\n\0a";
    let mut text = Vec::new();
    for filler in 0..64 {
        for one in special {
            for other in special {
                text.extend([*one, *other]);
            }
        }
        text.resize(text.len() + filler % 7, b'x');
        text.push(b'\n');
    }
    text
}

/// The text as it travels in netascii.
pub fn translated(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for byte in text {
        match byte {
            b'\n' => wire.extend(b"\r\n"),
            b'\r' => wire.extend(b"\r\0"),
            other => wire.push(*other),
        }
    }
    wire
}
