//! The check `certificate`: how long a service's certificate is still valid.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::time_provider::TimeProvider as _;

use super::metered::Metered;
use super::parts::Host;
use super::tls::{Session, Span, SystemClock, clock_is_not_set, looking_only, not_valid_yet};
use super::{HttpCheckError, cut};
use crate::health::probe::exchange::{Patience, all};
use crate::health::probe::{self, Source};
use crate::health::{HealthCheck, Verdict};
use crate::service::ServiceAddresses;

/// Looks at the certificate that a service shows, over TLS of any protocol (HTTPS, DNS over
/// TLS, LDAPS…), and at nothing else: how long it is still valid. Cheap to clone.
///
/// **Give it the severity `warning`.** The nodes of a fleet often share a certificate or renew
/// theirs together; as a critical check it would lower all of them on the same day, and with
/// them the difference between a node that works and one that does not. That a certificate
/// *has* expired is the business of [`HttpCheck`](super::HttpCheck), which refuses it.
///
/// | what happened | verdict |
/// |---|---|
/// | every address showed a certificate that is valid for at least so long | `Healthy` |
/// | one that expires sooner, or has; one that cannot be read; no connection, no TLS | `Unhealthy` |
/// | one that is not valid *yet*, or this host's clock is not set | `Unknown` |
///
/// The certificate's name and authority are not looked at, nor are those above it in the chain.
/// What the proof is worth, what it leaves behind and its bounds: as [`HttpCheck`](super).
#[derive(Debug, Clone)]
pub struct CertificateCheck {
    targets: Arc<[SocketAddr]>,
    source: Source,
    host: Option<Host>,
    left: Duration,
    ready: Option<Arc<ClientConfig>>,
}

impl CertificateCheck {
    /// The certificates at these addresses must be valid for at least `left`.
    #[must_use]
    pub fn new(addresses: &ServiceAddresses, port: NonZeroU16, left: Duration) -> Self {
        let target = |address: crate::ServiceAddress| SocketAddr::new(address.ip(), port.get());
        Self {
            targets: addresses.iter().map(target).collect(),
            source: Source::default(),
            host: None,
            left,
            ready: None,
        }
    }

    /// Where probes come from. Default: [`Source::Service`].
    #[must_use]
    pub const fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Whose certificate is asked for (SNI). Default: none in particular.
    ///
    /// # Errors
    /// [`HttpCheckError::Host`].
    pub fn with_host(mut self, host: &str) -> Result<Self, HttpCheckError> {
        self.host = Some(Host::new(host).ok_or_else(|| HttpCheckError::Host { host: cut(host) })?);
        Ok(self)
    }

    async fn probe(&self, session: &Session, target: SocketAddr, patience: Patience) -> Verdict {
        let stream = match patience.run(probe::tcp(target, self.source)).await {
            Some(Ok(stream)) => Metered::new(stream),
            Some(Err(verdict)) => return verdict,
            None => return patience.over(target, "no connection"),
        };
        let name = self.host.as_ref().map(Host::name);
        let stream = match patience
            .run(session.shake_hands(stream, target, name))
            .await
        {
            Some(Ok(stream)) => stream,
            Some(Err(verdict)) => return verdict,
            None => return patience.over(target, "no TLS handshake"),
        };
        let shown = stream.get_ref().1.peer_certificates();
        let Some(certificate) = shown.and_then(<[_]>::first) else {
            return Verdict::unhealthy(format!("{target}: it shows no certificate"));
        };
        match SystemClock.current_time() {
            Some(now) => judge(target, certificate, now.as_secs(), self.left),
            None => clock_is_not_set(target),
        }
    }
}

#[async_trait]
impl HealthCheck for CertificateCheck {
    /// Cancel-safe: dropping it closes its connections.
    async fn check(&mut self, timeout: Duration) -> Verdict {
        let patience = Patience::new(timeout);
        let config = match self.ready.clone().map_or_else(looking_only, Ok) {
            Ok(config) => self.ready.insert(config).clone(),
            Err(error) => return Verdict::unknown(error),
        };
        let session = Session::new(config);
        let probe = |target: &SocketAddr| self.probe(&session, *target, patience);
        all(self.targets.iter().map(probe)).await
    }
}

/// `now`: seconds since 1970.
pub(super) fn judge(
    target: SocketAddr,
    certificate: &CertificateDer<'_>,
    now: u64,
    left: Duration,
) -> Verdict {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let validity = match parsed {
        Ok((_, certificate)) => certificate.validity().clone(),
        Err(error) => {
            let reason = format!("{target}: its certificate cannot be read: {error}");
            return Verdict::unhealthy(reason);
        }
    };
    // Before 1970 is long ago.
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let (from, until) = (seconds(validity.not_before), seconds(validity.not_after));
    if now < from {
        return not_valid_yet(target, Span(from - now));
    }
    if now > until {
        let ago = Span(now - until);
        return Verdict::unhealthy(format!("{target}: its certificate expired {ago} ago"));
    }
    let (remains, wanted) = (until - now, left.as_secs());
    if remains >= wanted {
        return Verdict::Healthy;
    }
    let (remains, wanted) = (Span(remains), Span(wanted));
    Verdict::unhealthy(format!(
        "{target}: its certificate expires in {remains}, which is less than {wanted}; renew it"
    ))
}

#[cfg(test)]
mod tests;
