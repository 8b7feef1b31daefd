//! TLS of a probe: whom it trusts, its handshake, and whose fault a refusal is.
//!
//! Sessions are never resumed: a resumed one shows no certificate. The cryptography is ring's,
//! chosen here and not by the process. TLS 1.2 and 1.3.

use std::fmt;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::health::Verdict;
use crate::health::probe::exchange::Patience;
use crate::health::probe::verdict_on;

/// Largest file of certificate authorities, in bytes. A larger one counts as unreadable. The
/// bundle of all public ones is about a quarter of this.
pub const MAX_CA_FILE: u64 = 1 << 20;
/// A clock before this was never set: 2024-01-01, in seconds since 1970.
const CLOCK_IS_SET: u64 = 1_704_067_200;

/// How a check speaks TLS.
///
/// The file of authorities is read by the first probe, and again after a certificate was
/// refused: one that was replaced meanwhile is found by the next probe. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    trust: Trust,
    clock: Arc<dyn TimeProvider>,
    ready: Option<Arc<ClientConfig>>,
}

#[derive(Debug, Clone)]
enum Trust {
    Authorities(PathBuf),
    Anybody,
}

impl Tls {
    /// The service's certificate must be valid now, be for the host that is asked for, and be
    /// signed by an authority in this PEM file. A certificate that has signed itself may be in
    /// the file in place of an authority, unless it is marked as one (basicConstraints CA).
    #[must_use]
    pub fn verified(authorities: impl Into<PathBuf>) -> Self {
        Self::new(Trust::Authorities(authorities.into()))
    }

    /// Nothing about the service's certificate is looked at.
    #[must_use]
    pub fn unverified() -> Self {
        Self::new(Trust::Anybody)
    }

    fn new(trust: Trust) -> Self {
        Self {
            trust,
            clock: Arc::new(SystemClock),
            ready: None,
        }
    }

    /// Makes ready for one probe of all addresses.
    pub(super) async fn begin(
        &mut self,
        patience: Patience,
        timeout: Duration,
    ) -> Result<Session, Verdict> {
        let config = match &self.ready {
            Some(config) => config.clone(),
            None => self.prepare(patience, timeout).await?,
        };
        Ok(Session::new(config))
    }

    /// Ends it.
    pub(super) fn end(&mut self, session: &Session) {
        let reread = matches!(self.trust, Trust::Authorities(_));
        if reread && session.refused.load(Ordering::Relaxed) {
            self.ready = None;
        }
    }

    async fn prepare(
        &mut self,
        patience: Patience,
        timeout: Duration,
    ) -> Result<Arc<ClientConfig>, Verdict> {
        let (trust, clock) = (self.trust.clone(), self.clock.clone());
        let begun = tokio::time::Instant::now();
        let build = tokio::task::spawn_blocking(move || build(&trust, clock));
        let config = match patience.run(build).await {
            Some(Ok(built)) => built.map_err(Verdict::unknown)?,
            Some(Err(error)) => return Err(Verdict::unknown(format!("reading {self}: {error}"))),
            None => {
                return Err(Verdict::unknown(format!(
                    "{self}: cannot be read within {timeout:?}"
                )));
            }
        };
        self.ready = Some(config.clone());
        // The service is not to pay for a slow disk with its own time.
        let took = begun.elapsed();
        if took > timeout / 2 {
            return Err(Verdict::unknown(format!(
                "{self}: reading it took {took:?}"
            )));
        }
        Ok(config)
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trust {
            Trust::Authorities(path) => write!(f, "{}", path.display()),
            Trust::Anybody => f.write_str("TLS"),
        }
    }
}

/// One probe of all addresses.
pub(super) struct Session {
    config: Arc<ClientConfig>,
    refused: AtomicBool,
}

impl Session {
    pub(super) const fn new(config: Arc<ClientConfig>) -> Self {
        let refused = AtomicBool::new(false);
        Self { config, refused }
    }

    /// `name`: whose certificate is wanted; default: the address's.
    pub(super) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        target: SocketAddr,
        name: Option<&str>,
    ) -> Result<TlsStream<S>, Verdict> {
        let name = match name {
            None => ServerName::from(target.ip()),
            Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| {
                Verdict::unknown(format!("{target}: {name:?} cannot be asked for: {error}"))
            })?,
        };
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(name, stream).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(error) => self.judge(target, error),
                None if error.kind() == io::ErrorKind::UnexpectedEof => Verdict::unhealthy(
                    format!("{target}: TLS handshake: the connection was closed"),
                ),
                None => verdict_on(target, "TLS handshake", &error),
            }
        })
    }

    fn judge(&self, target: SocketAddr, error: &rustls::Error) -> Verdict {
        if let rustls::Error::InvalidCertificate(fault) = error {
            self.refused.store(true, Ordering::Relaxed);
            return judge_certificate(target, fault);
        }
        if *error == rustls::Error::FailedToGetCurrentTime {
            return clock_is_not_set(target);
        }
        let what = format!("{target}: TLS handshake: {error}");
        // Faults of this side, as far as they can be told.
        if matches!(
            error,
            rustls::Error::FailedToGetRandomBytes
                | rustls::Error::EncryptError
                | rustls::Error::General(_)
        ) {
            return Verdict::unknown(what);
        }
        Verdict::unhealthy(what)
    }
}

fn judge_certificate(target: SocketAddr, fault: &CertificateError) -> Verdict {
    if let CertificateError::ExpiredContext { time, not_after } = fault {
        let ago = Span(time.as_secs().saturating_sub(not_after.as_secs()));
        return Verdict::unhealthy(format!("{target}: its certificate expired {ago} ago"));
    }
    if let CertificateError::NotValidYetContext { time, not_before } = fault {
        let ahead = Span(not_before.as_secs().saturating_sub(time.as_secs()));
        return not_valid_yet(target, ahead);
    }
    Verdict::unhealthy(format!("{target}: its certificate is refused: {fault}"))
}

pub(super) fn not_valid_yet(target: SocketAddr, ahead: Span) -> Verdict {
    Verdict::unknown(format!(
        "{target}: its certificate becomes valid in {ahead}, unless this host's clock is behind"
    ))
}

pub(super) fn clock_is_not_set(target: SocketAddr) -> Verdict {
    Verdict::unknown(format!(
        "{target}: this host's clock is not set, so that no certificate can be judged"
    ))
}

/// A span of time in its largest unit, rounded down.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// The wall clock, if it was ever set.
#[derive(Debug)]
pub(super) struct SystemClock;

impl TimeProvider for SystemClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = UnixTime::now();
        (now.as_secs() >= CLOCK_IS_SET).then_some(now)
    }
}

fn build(trust: &Trust, clock: Arc<dyn TimeProvider>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), clock)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let mut config = match trust {
        Trust::Authorities(path) => builder
            .with_root_certificates(authorities(path)?)
            .with_no_client_auth(),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unlooked(provider)))
            .with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A configuration for looking at any certificate; no protocol is named.
pub(super) fn looking_only() -> Result<Arc<ClientConfig>, String> {
    let mut config = build(&Trust::Anybody, Arc::new(SystemClock))?;
    Arc::make_mut(&mut config).alpn_protocols.clear();
    Ok(config)
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let name = path.display();
    let text = read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| format!("{name}: is not PEM: {error}"))?;
    let mut store = RootCertStore::empty();
    // A public bundle holds some that are of no use to us; those are passed over.
    let (usable, _) = store.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(format!("{name}: holds no certificate of an authority"));
    }
    Ok(store)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Not a device or a pipe, which would never end; opening one could wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_CA_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CA_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Accepts any certificate.
#[derive(Debug)]
struct Unlooked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unlooked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
