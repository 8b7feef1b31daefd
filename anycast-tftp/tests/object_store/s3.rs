//! A real S3 server, which runs as a process of its own and stores in memory.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anycast_labs::process::require_python;
use anycast_tftp::sync::content::{ContentHash, ContentId};
use anycast_tftp::sync::object::{BucketSettings, ObjectStoreBackend};

/// Something between a client and the server.
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// Nothing passes.
    pub(crate) is_cut: Arc<AtomicBool>,
}

impl Proxy {
    /// Lets all pass.
    pub(crate) fn start(server: &S3) -> Self {
        Self::hiding(server, &[])
    }

    /// The server as it is when nothing that it is told of conditions arrives: as one that knows
    /// none.
    pub(crate) fn without_conditions(server: &S3) -> Self {
        Self::hiding(server, &[b"if-match", b"if-none-match"])
    }

    fn hiding(server: &S3, headers: &'static [&'static [u8]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let address = server.url.strip_prefix("http://").unwrap().to_owned();
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        thread::spawn(move || {
            for client in listener.incoming() {
                // A client that goes away, or a server that ends, ends a connection.
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&address)) else {
                    continue;
                };
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (there, back) = (Arc::clone(&cut), Arc::clone(&cut));
                thread::spawn(move || relay(from, to, &[], &back));
                thread::spawn(move || relay(client, server, headers, &there));
            }
        });
        Self { url, is_cut }
    }
}

/// Passes on what comes, with these headers under names that nobody knows.
fn relay(mut from: TcpStream, mut to: TcpStream, headers: &[&[u8]], is_cut: &AtomicBool) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        for header in headers {
            let found = buffer[..read]
                .windows(header.len())
                .position(|window| window.eq_ignore_ascii_case(header));
            if let Some(at) = found {
                buffer[at] = b'x';
            }
        }
        if is_cut.load(Ordering::Relaxed) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// A server with the bucket `boot`, ended when dropped.
pub(crate) struct S3 {
    child: Child,
    pub(crate) url: String,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let server = Self::start_with(&[]);
        server.curl(&["-X", "PUT"], "boot");
        server
    }

    /// Without the bucket.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let program = require_python("moto_server").unwrap();
        let mut child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned()))
            .expect("the server says where it listens");
        // It writes a line for each request, and would stop when nobody reads them.
        thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// What anyone with the right to write may do to the bucket.
    pub(crate) fn curl(&self, arguments: &[&str], path: &str) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "id:secret"])
            .args(arguments)
            .arg(format!("{}/{path}", self.url))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} {path}: {said}");
    }

    pub(crate) fn settings(&self) -> BucketSettings {
        settings(&self.url)
    }

    pub(crate) fn bucket(&self) -> ObjectStoreBackend {
        ObjectStoreBackend::new(&self.settings()).unwrap()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn settings(url: &str) -> BucketSettings {
    BucketSettings::new("boot")
        .endpoint(url)
        .prefix("sites/a")
        .region("us-east-1")
        .access_key("id", "secret")
}

pub(crate) fn content(len: usize) -> (ContentId, Vec<u8>) {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&len.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
    let size = len as u64;
    (ContentId { hash, size }, bytes)
}
