//! Who asks, and whether an order is taken from them, or a record given to them.
//!
//! | over | an order is taken from | told by |
//! |---|---|---|
//! | a Unix socket | whoever its mode lets in | the kernel (`SO_PEERCRED`) |
//! | loopback TCP | who presents the token | nothing but the token |
//!
//! A browser on this host must not be made to give orders by a page from elsewhere. So an
//! order is a POST with `Content-Type: application/json` (which a form cannot send, and a
//! script only after a preflight that is refused here), without `Origin`, and over TCP with a
//! `Host` that is this host's own loopback (a name that was rebound to it is not).
//!
//! A record tells what `/status` does not (every operator, every reason since the start), so it
//! is given to those alone from whom orders are taken. It is a GET and changes nothing, so the
//! type of its body is not asked for.
//!
//! A wrong token is answered at once: a pause would keep a place taken and guards nothing that
//! 16 characters do not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode, Uri};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::names;
use super::token::{Token, TokenError};

/// Least time between two lines about refused orders; those in between are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over a Unix socket, as the kernel tells it; `None` where it does not.
    Unix(Option<Credentials>),
    /// Over loopback TCP.
    Tcp(SocketAddr),
}

/// Of the process that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credentials {
    uid: u32,
    pid: Option<i32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> Self {
        Self::Unix(stream.peer_cred().ok().map(|credentials| Credentials {
            uid: credentials.uid(),
            pid: credentials.pid(),
        }))
    }

    /// Who it is, in words, and from where. Reads files.
    pub(super) fn by(&self) -> String {
        match self {
            Self::Tcp(address) => format!("the holder of the token, from {address}"),
            Self::Unix(None) => "an unknown user of the Unix socket".to_owned(),
            Self::Unix(Some(Credentials { uid, pid })) => {
                let name = |uid| names::user(uid).unwrap_or_else(|| format!("uid {uid}"));
                let login = pid.and_then(names::login_of).filter(|login| login != uid);
                let login = login.map_or_else(String::new, |uid| {
                    format!(", logged in as {} (uid {uid})", name(uid))
                });
                let pid = pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
                format!("{} (uid {uid}{pid}){login}, by the Unix socket", name(*uid))
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(Some(Credentials {
                uid,
                pid: Some(pid),
            })) => {
                write!(f, "uid {uid}, pid {pid}")
            }
            Self::Unix(Some(Credentials { uid, pid: None })) => write!(f, "uid {uid}"),
            Self::Unix(None) => f.write_str("a Unix socket"),
        }
    }
}

/// Why an order is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("orders and records are not for a browser (the request has the header {0})")]
    Browser(HeaderName),
    #[error(
        "orders and records over TCP need a Host header that names this host's loopback, such as \
         localhost or 127.0.0.1"
    )]
    Host,
    #[error("orders need Content-Type: application/json")]
    ContentType,
    #[error(
        "no orders are taken and no records given over TCP, since no token is configured; use the Unix socket, or \
         set token_file in [node.admin]"
    )]
    NoToken,
    #[error("orders and records over TCP need the header Authorization: Bearer TOKEN")]
    Missing,
    #[error("this is not the token")]
    Wrong,
    #[error("neither orders nor records over TCP: {0}")]
    Token(#[from] TokenError),
}

impl Refusal {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Browser(_) | Self::Host | Self::NoToken | Self::Token(_) => StatusCode::FORBIDDEN,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Missing | Self::Wrong => StatusCode::UNAUTHORIZED,
        }
    }

    /// The label of its metric.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Browser(_) | Self::Host | Self::ContentType => "cross_site",
            Self::NoToken | Self::Token(_) => "no_token",
            Self::Missing | Self::Wrong => "wrong_token",
        }
    }

    pub(super) const KINDS: [&'static str; 3] = ["cross_site", "no_token", "wrong_token"];
}

/// Whether an order is taken from this peer, by the request's head.
pub(super) async fn admit(
    peer: &Peer,
    uri: &Uri,
    headers: &HeaderMap,
    token_file: Option<&Path>,
) -> Result<(), Refusal> {
    has_rights(peer, uri, headers, token_file).await?;
    if is_json(headers) {
        Ok(())
    } else {
        Err(Refusal::ContentType)
    }
}

/// Whether this peer has the rights that an order needs; its body apart.
pub(super) async fn has_rights(
    peer: &Peer,
    uri: &Uri,
    headers: &HeaderMap,
    token_file: Option<&Path>,
) -> Result<(), Refusal> {
    // A browser sends the one with every POST, the other with every request.
    for header in [ORIGIN, HeaderName::from_static("sec-fetch-site")] {
        if headers.contains_key(&header) {
            return Err(Refusal::Browser(header));
        }
    }
    if let Peer::Tcp(_) = peer {
        if !names_loopback(uri, headers) {
            return Err(Refusal::Host);
        }
        let presented = bearer(headers);
        let path = token_file.ok_or(Refusal::NoToken)?.to_owned();
        let presented = presented.ok_or(Refusal::Missing)?;
        let read = tokio::task::spawn_blocking(move || Token::read(&path)).await;
        // It panicked, or the runtime ends: no token.
        let token = read.map_err(|_| Refusal::NoToken)??;
        if !token.is(presented) {
            return Err(Refusal::Wrong);
        }
    }
    Ok(())
}

/// The token of exactly one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    is_bearer.then(|| token.trim_ascii())
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let kind = value.as_bytes().split(|byte| *byte == b';').next();
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

/// Whether `Host`, and the authority of an absolute URI, name this host's loopback.
fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let named = |authority: &Authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    };
    Authority::try_from(host.as_bytes()).is_ok_and(|host| named(&host))
        && uri.authority().is_none_or(named)
}

/// Lines about refused orders, so many and no more: a peer that is refused can ask again at
/// once.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    last: Option<Instant>,
    unwritten: u64,
}

impl RefusalLog {
    pub(super) fn write(&self, peer: &Peer, order: &str, why: &dyn fmt::Display) {
        if let Some(unwritten) = self.is_due(Instant::now()) {
            tracing::warn!(from = %peer, order, reason = %why, unwritten, "an operator's request was refused");
        }
    }

    /// How many were not written since the last, if one is to be written now.
    fn is_due(&self, now: Instant) -> Option<u64> {
        let mut written = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let recent = |last| now.saturating_duration_since(last) < LOG_EVERY;
        if written.last.is_some_and(recent) {
            written.unwritten = written.unwritten.saturating_add(1);
            return None;
        }
        written.last = Some(now);
        Some(std::mem::take(&mut written.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_loopback_is_a_host() {
        let path = Uri::from_static("/services/x/drain");
        for good in [
            "localhost",
            "LOCALHOST:9180",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:9180",
        ] {
            let host = headers(&[("host", good)]);
            assert!(names_loopback(&path, &host), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "192.0.2.1",
            "0.0.0.0",
            "127.0.0.1.evil.example",
            "[::]:1",
            "a b",
        ] {
            let host = headers(&[("host", bad)]);
            assert!(!names_loopback(&path, &host), "{bad}");
        }
        assert!(!names_loopback(&path, &headers(&[])));
        let twice = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert!(!names_loopback(&path, &twice));
        let absolute = Uri::from_static("http://evil.example/services/x/drain");
        assert!(!names_loopback(
            &absolute,
            &headers(&[("host", "localhost")])
        ));
    }

    #[test]
    fn one_bearer_token_is_found() {
        assert_eq!(
            bearer(&headers(&[("authorization", "Bearer abc")])),
            Some(&b"abc"[..])
        );
        assert_eq!(
            bearer(&headers(&[("authorization", "bearer  abc ")])),
            Some(&b"abc"[..])
        );
        for bad in [
            &[][..],
            &[("authorization", "Basic abc")],
            &[("authorization", "Bear")],
            &[("authorization", "abc")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
        ] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn json_is_known_by_its_type() {
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(is_json(&headers(&[("content-type", good)])), "{good}");
        }
        for bad in [
            "text/plain",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "",
        ] {
            assert!(!is_json(&headers(&[("content-type", bad)])), "{bad}");
        }
        assert!(!is_json(&headers(&[])));
    }

    #[tokio::test]
    async fn over_a_unix_socket_a_browsers_header_still_refuses() {
        let (peer, path) = (Peer::Unix(None), Uri::from_static("/"));
        let json = ("content-type", "application/json");
        let asked = |headers: HeaderMap| {
            let (peer, path) = (peer.clone(), path.clone());
            async move { admit(&peer, &path, &headers, None).await }
        };
        assert!(asked(headers(&[json])).await.is_ok());
        for (with, status) in [
            (headers(&[json, ("origin", "null")]), 403),
            (headers(&[json, ("sec-fetch-site", "same-origin")]), 403),
            (headers(&[]), 415),
        ] {
            let refusal = asked(with).await.unwrap_err();
            assert_eq!(refusal.status().as_u16(), status, "{refusal}");
            assert!(Refusal::KINDS.contains(&refusal.kind()));
        }
    }

    #[test]
    fn refusals_are_written_at_most_so_often() {
        let log = RefusalLog::default();
        let start = Instant::now();
        assert_eq!(log.is_due(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(log.is_due(start + LOG_EVERY / 2), None);
        }
        assert_eq!(log.is_due(start + LOG_EVERY), Some(1000));
        assert_eq!(log.is_due(start + LOG_EVERY), None);
    }

    #[test]
    fn a_peer_is_told_in_words() {
        let root = Peer::Unix(Some(Credentials {
            uid: 0,
            pid: Some(i32::MAX),
        }));
        assert_eq!(
            root.by(),
            format!("root (uid 0, pid {}), by the Unix socket", i32::MAX)
        );
        let tcp = Peer::Tcp("127.0.0.1:4711".parse().unwrap());
        assert_eq!(tcp.by(), "the holder of the token, from 127.0.0.1:4711");
    }
}
