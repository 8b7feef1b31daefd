//! The check `http`: status, body and header of an answer, over TCP or TLS.
//!
//! Each probe opens a connection to every address of the service at once, asks one question
//! over HTTP/1.1, reads the answer up to its end and judges it. No connection is used twice:
//! the next probe finds a listener that has gone, a full queue or a changed certificate.
//!
//! # What its proof is worth
//!
//! The probe comes from the service address, so the TCP handshake was completed by **this
//! node** and no other ([`Source`]), and a process gave the answer: one that hangs gives none.
//! But an answer may come from elsewhere all the same: a local proxy passes the question on, and
//! so does a NAT that rewrites both addresses. Where either is possible let the answer name its
//! node, in a header that the last process sets itself, and demand that header
//! ([`HttpCheck::with_header`], in a configuration `header = "X-Node: {node}"`). The name is no
//! secret: it tells nodes of one fleet apart, and authenticates nobody. Nor does a certificate
//! that all nodes share.
//!
//! | what happened | verdict |
//! |---|---|
//! | every address gave an answer with an expected status, and the header and the text in its body that were demanded | `Healthy` |
//! | refused, unreachable, no connection, no TLS, no answer or not all of it within the time-out | `Unhealthy` |
//! | the address is not on this node | `Unhealthy` |
//! | another status; another node's header, or none; a body without the text | `Unhealthy` |
//! | an answer that is no HTTP, is cut off, or is beyond a bound below | `Unhealthy` |
//! | its certificate is expired, for another name, or signed by another authority | `Unhealthy` |
//! | its certificate is not valid *yet*: as likely it is this host's clock that is behind | `Unknown` |
//! | this host's clock is not set (before the year 2024) where a certificate has to be judged | `Unknown` |
//! | the file of authorities cannot be read | `Unknown` |
//! | out of descriptors, memory, ports; this host's firewall refuses; this host ran late | `Unknown` |
//!
//! If several addresses disagree, `Unhealthy` outweighs `Unknown`, and `Unknown` `Healthy`; the
//! reason names each address and port that failed. Redirects are not followed: where they lead
//! is another service's matter; by default a redirect is not an expected status.
//!
//! A certificate that will *soon* expire is as good as any, to this check: the nodes of a fleet
//! often share one, and would all be lowered on the same day for something that no client
//! notices yet. That is to be reported, by a [`CertificateCheck`] with severity `warning`.
//!
//! # Bounds
//!
//! | bound | beyond it |
//! |---|---|
//! | [`MAX_HEAD`], [`MAX_HEADERS`] | `Unhealthy` |
//! | [`MAX_BODY`] | the rest of the body is neither read nor judged: text to be found must be before |
//! | [`MAX_WIRE`], whatever it holds | `Unhealthy` |
//! | the time-out, over all steps together | `Unhealthy` |
//!
//! # Tasks, cancellation, and what it leaves behind
//!
//! No task is started, but to read the file of authorities; dropping the probe closes its
//! connections. They end with a reset once the answer was read: a FIN would leave a socket in
//! TIME_WAIT for a minute, on one side or the other, to protect data that has arrived.

#[cfg(feature = "check-https")]
mod certificate;
mod exchange;
mod metered;
mod parts;
#[cfg(feature = "config")]
mod table;
#[cfg(feature = "check-https")]
mod tls;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

#[cfg(feature = "check-https")]
pub use self::certificate::CertificateCheck;
pub use self::exchange::{MAX_BODY, MAX_HEAD, MAX_HEADERS};
pub use self::metered::MAX_WIRE;
use self::metered::Metered;
use self::parts::Host;
pub use self::parts::{MAX_TEXT, StatusCodes, StatusCodesError};
#[cfg(all(feature = "config", feature = "check-https"))]
pub use self::table::CertificateTable;
#[cfg(feature = "config")]
pub use self::table::{HttpTable, MethodKey, TlsTable, VerifyKey};
#[cfg(feature = "check-https")]
pub use self::tls::{MAX_CA_FILE, Tls};
use super::probe::exchange::{Patience, all};
use super::probe::{self, Source};
use super::{HealthCheck, Verdict};
use crate::service::ServiceAddresses;

/// Why a question or an expectation is impossible. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpCheckError {
    /// Not a path that a request can ask for.
    #[error("path: {path:?} is not a path; begin it with a slash, as in \"/health?full=1\"")]
    Path {
        /// What was given, cut to 64 characters.
        path: String,
    },
    /// Not a name or address, with or without a port.
    #[error("host: {host:?} is not a host; write \"www.example.com\" or \"www.example.com:8443\"")]
    Host {
        /// What was given, cut to 64 characters.
        host: String,
    },
    /// Not a header that an answer can carry.
    #[error("header: {header:?} is not a header; write its name and value, as in \"X-Node: ams1\"")]
    Header {
        /// What was given, cut to 64 characters.
        header: String,
    },
    /// The text to be found is empty or longer than [`MAX_TEXT`].
    #[error("body: is {len} bytes long; give 1 to {MAX_TEXT}, or remove it")]
    Body {
        /// Its length in bytes.
        len: usize,
    },
}

/// The check `http`. See the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    targets: Arc<[SocketAddr]>,
    source: Source,
    host: Option<Host>,
    path: Uri,
    status: StatusCodes,
    header: Option<(HeaderName, HeaderValue)>,
    wanted: Wanted,
    #[cfg(feature = "check-https")]
    tls: Option<Tls>,
}

/// What is asked for.
#[derive(Debug, Clone)]
enum Wanted {
    /// GET, and this text in the body.
    Body(Option<Arc<[u8]>>),
    /// HEAD.
    Head,
}

impl HttpCheck {
    /// `GET /` at each of these addresses, which may be some of the service's only; any status
    /// from 200 to 299 will do.
    #[must_use]
    pub fn new(addresses: &ServiceAddresses, port: NonZeroU16) -> Self {
        let target = |address: crate::ServiceAddress| SocketAddr::new(address.ip(), port.get());
        Self {
            targets: addresses.iter().map(target).collect(),
            source: Source::default(),
            host: None,
            path: Uri::from_static("/"),
            status: StatusCodes::default(),
            header: None,
            wanted: Wanted::Body(None),
            #[cfg(feature = "check-https")]
            tls: None,
        }
    }

    /// Where probes come from. Default: [`Source::Service`].
    #[must_use]
    pub const fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// The `Host` of the question, a name or an address, with a port where it is to be told:
    /// `www.example.com`. Over TLS the name is also asked for (SNI), and the certificate has to
    /// be for it. Default: the address that is probed, with its port if that is not the usual
    /// one.
    ///
    /// # Errors
    /// [`HttpCheckError::Host`].
    pub fn with_host(mut self, host: &str) -> Result<Self, HttpCheckError> {
        self.host = Some(Host::new(host).ok_or_else(|| HttpCheckError::Host { host: cut(host) })?);
        Ok(self)
    }

    /// The path, with a query if need be. Default: `/`.
    ///
    /// # Errors
    /// [`HttpCheckError::Path`].
    pub fn with_path(mut self, path: &str) -> Result<Self, HttpCheckError> {
        let uri = path.parse().ok().filter(|_| path.starts_with('/'));
        self.path = uri.ok_or_else(|| HttpCheckError::Path { path: cut(path) })?;
        Ok(self)
    }

    /// The statuses that will do. Default: 200 to 299.
    #[must_use]
    pub fn with_status(mut self, status: StatusCodes) -> Self {
        self.status = status;
        self
    }

    /// A header that the answer must carry with exactly this value, so that it tells which node
    /// gave it; of several of that name one is enough.
    ///
    /// # Errors
    /// [`HttpCheckError::Header`].
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, HttpCheckError> {
        let header = name.parse().ok().zip(value.parse().ok());
        self.header = Some(header.ok_or_else(|| HttpCheckError::Header {
            header: cut(&format!("{name}: {value}")),
        })?);
        Ok(self)
    }

    /// A text that must be in the first [`MAX_BODY`] bytes of the body. Asks with GET.
    ///
    /// # Errors
    /// [`HttpCheckError::Body`].
    pub fn with_body(mut self, text: impl AsRef<[u8]>) -> Result<Self, HttpCheckError> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(HttpCheckError::Body { len: text.len() });
        }
        self.wanted = Wanted::Body(Some(text.into()));
        Ok(self)
    }

    /// Asks with HEAD instead of GET, and so for no body.
    #[must_use]
    pub fn with_head_only(mut self) -> Self {
        self.wanted = Wanted::Head;
        self
    }

    /// Asks over TLS. Default: in plain.
    #[cfg(feature = "check-https")]
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    async fn connect(
        &self,
        target: SocketAddr,
        patience: Patience,
    ) -> Result<Metered<tokio::net::TcpStream>, Verdict> {
        match patience.run(probe::tcp(target, self.source)).await {
            Some(stream) => stream.map(Metered::new),
            None => Err(patience.over(target, "no connection")),
        }
    }

    async fn in_plain(&self, target: SocketAddr, patience: Patience) -> Verdict {
        match self.connect(target, patience).await {
            Ok(stream) => self.ask(stream, target, 80, patience).await,
            Err(verdict) => verdict,
        }
    }

    #[cfg(feature = "check-https")]
    async fn over_tls(
        &self,
        session: &tls::Session,
        target: SocketAddr,
        patience: Patience,
    ) -> Verdict {
        let stream = match self.connect(target, patience).await {
            Ok(stream) => stream,
            Err(verdict) => return verdict,
        };
        let name = self.host.as_ref().map(Host::name);
        let handshake = session.shake_hands(stream, target, name);
        match patience.run(handshake).await {
            Some(Ok(stream)) => self.ask(stream, target, 443, patience).await,
            Some(Err(verdict)) => verdict,
            None => patience.over(target, "no TLS handshake"),
        }
    }
}

#[async_trait]
impl HealthCheck for HttpCheck {
    /// Cancel-safe: dropping it closes its connections.
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let patience = Patience::new(timeout);
        #[cfg(feature = "check-https")]
        if let Some(tls) = &mut self.tls {
            let session = match tls.begin(patience, timeout).await {
                Ok(session) => session,
                Err(verdict) => return verdict,
            };
            let probe = |target: &SocketAddr| self.over_tls(&session, *target, patience);
            let verdict = all(self.targets.iter().map(probe)).await;
            if let Some(tls) = &mut self.tls {
                tls.end(&session);
            }
            return verdict;
        }
        let probe = |target: &SocketAddr| self.in_plain(*target, patience);
        all(self.targets.iter().map(probe)).await
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
