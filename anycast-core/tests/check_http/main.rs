//! The checks `http` and `certificate` against hostile services, a TLS server and nginx.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]
#![cfg(all(feature = "check-https", feature = "check-tcp"))]

mod bad_answers;
mod certificates;
mod nginx;
mod question;
#[path = "../stream/mod.rs"]
mod stream;
mod tls;

use std::net::SocketAddr;
use std::num::NonZeroU16;

use anycast_core::health::http::HttpCheck;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

fn check(at: SocketAddr) -> HttpCheck {
    let addresses = stream::addresses(&[at.ip()]);
    HttpCheck::new(&addresses, NonZeroU16::new(at.port()).unwrap())
}

/// Reads a question up to its empty line.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).await.unwrap_or(0) > 0 {}
    head
}

/// A whole answer.
fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}
