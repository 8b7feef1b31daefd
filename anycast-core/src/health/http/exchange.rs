//! One question over one connection, and the judgement of its answer.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{HttpCheck, Wanted};
use crate::health::Verdict;
use crate::health::probe::exchange::Patience;
use crate::health::probe::verdict_on;

/// Largest head of an answer, its status line and headers, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// Most headers in an answer.
pub const MAX_HEADERS: usize = 100;
/// Most bytes of a body that are read. What comes after them is not judged: an answer that is
/// longer is no fault.
pub const MAX_BODY: usize = 64 * 1024;
/// How much of a wrong body is quoted in a reason, in bytes.
const QUOTED: usize = 64;
/// How a probe calls itself, so that it can be told apart in a service's log.
const USER_AGENT: &str = concat!(
    "anycast-core/",
    env!("CARGO_PKG_VERSION"),
    " (health check)"
);

/// What is wrong with an answer, before it is known of whom it is said.
enum Fault {
    /// The service's.
    Wrong(String),
    /// The connection's: what was being done.
    Http(&'static str, hyper::Error),
}

impl Fault {
    fn verdict(self, target: SocketAddr) -> Verdict {
        match self {
            Self::Wrong(what) => Verdict::unhealthy(format!("{target}: {what}")),
            Self::Http(doing, error) => match source_of(&error) {
                Some(io_error) => verdict_on(target, doing, io_error),
                None if error.is_user() => Verdict::unknown(format!("{target}: {doing}: {error}")),
                None => Verdict::unhealthy(format!("{target}: {doing}: {}", describe(&error))),
            },
        }
    }
}

impl HttpCheck {
    /// Asks over an open connection, and judges the answer. `usual` is the port that the
    /// question need not name.
    pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        target: SocketAddr,
        usual: u16,
        patience: Patience,
    ) -> Verdict {
        let Some(question) = self.question(target, usual) else {
            return Verdict::unknown(format!("{target}: no question can be made for it"));
        };
        let mut client = http1::Builder::new();
        client.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
        let begun = patience.run(client.handshake(TokioIo::new(stream))).await;
        let (mut sender, connection) = match begun {
            Some(Ok(begun)) => begun,
            Some(Err(error)) => return Fault::Http("beginning HTTP", error).verdict(target),
            None => return patience.over(target, "no answer"),
        };
        let mut connection = Beside(pin!(connection), false);
        let answer = connection.run(sender.send_request(question));
        let answer = match patience.run(answer).await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return Fault::Http("no valid answer", error).verdict(target),
            None => return patience.over(target, "no answer"),
        };
        if let Err(what) = self.judge_head(&answer) {
            return Fault::Wrong(what).verdict(target);
        }
        let mut body = Vec::new();
        let reading = connection.run(read(answer.into_body(), &mut body));
        match patience.run(reading).await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Fault::Http("the answer broke off", error).verdict(target),
            None => {
                let length = body.len();
                let what = format!("no more than {length} bytes of the answer's body");
                return patience.over(target, &what);
            }
        }
        match self.judge_body(&body) {
            Ok(()) => Verdict::Healthy,
            Err(what) => Fault::Wrong(what).verdict(target),
        }
    }

    fn question(&self, target: SocketAddr, usual: u16) -> Option<Request<Empty<Bytes>>> {
        let host = match &self.host {
            Some(host) => host.header(),
            None => {
                let text = target.to_string();
                let usual = format!(":{usual}");
                HeaderValue::from_str(text.strip_suffix(&usual).unwrap_or(&text)).ok()?
            }
        };
        let mut question = Request::new(Empty::new());
        *question.method_mut() = match self.wanted {
            Wanted::Body(_) => Method::GET,
            Wanted::Head => Method::HEAD,
        };
        *question.uri_mut() = self.path.clone();
        let headers = question.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(question)
    }

    fn judge_head(&self, answer: &Response<Incoming>) -> Result<(), String> {
        let status = answer.status();
        if !self.status.contains(status.as_u16()) {
            return Err(format!("answered {status}, not {}", self.status));
        }
        let Some((name, value)) = &self.header else {
            return Ok(());
        };
        let mut values = answer.headers().get_all(name).iter();
        let Some(first) = values.next() else {
            return Err(format!(
                "answered without the header {name}, which was to be {value:?}"
            ));
        };
        if first == value || values.any(|other| other == value) {
            return Ok(());
        }
        Err(format!("answered with {name}: {first:?}, not {value:?}"))
    }

    fn judge_body(&self, body: &[u8]) -> Result<(), String> {
        let Wanted::Body(Some(text)) = &self.wanted else {
            return Ok(());
        };
        if body.windows(text.len()).any(|window| window == &**text) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(text);
        let quoted = body.get(..QUOTED).unwrap_or(body);
        let quoted = String::from_utf8_lossy(quoted);
        Err(format!("no {text:?} in the answer's body: {quoted:?}"))
    }
}

/// Reads up to [`MAX_BODY`] bytes, or to the end.
async fn read(mut incoming: Incoming, body: &mut Vec<u8>) -> Result<(), hyper::Error> {
    while let Some(frame) = incoming.frame().await {
        // Trailers are not data, and not judged.
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = MAX_BODY.saturating_sub(body.len());
        body.extend_from_slice(data.get(..room).unwrap_or(&data));
        if body.len() >= MAX_BODY {
            break;
        }
    }
    Ok(())
}

/// A connection that is polled beside the step that it serves, and no more once it has ended:
/// what became of it, the step is told by hyper.
struct Beside<'a, C>(Pin<&'a mut C>, bool);

impl<C: Future> Beside<'_, C> {
    async fn run<T>(&mut self, step: impl Future<Output = T>) -> T {
        let mut step = pin!(step);
        poll_fn(|context| {
            if !self.1 {
                self.1 = self.0.as_mut().poll(context).is_ready();
            }
            step.as_mut().poll(context)
        })
        .await
    }
}

/// The system's error at the bottom of hyper's.
fn source_of(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref() {
            return Some(error);
        }
        source = cause.source();
    }
    None
}

/// An error of hyper's as an operator understands it.
fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed before the end".to_owned();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
