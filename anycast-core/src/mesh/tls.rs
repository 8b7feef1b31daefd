//! TLS 1.3 between nodes: both prove their keys, and a key is right if its fingerprint is
//! configured. Names, dates and issuers of certificates say nothing here.

use std::collections::BTreeMap;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme, version,
};

use super::identity::{Fingerprint, Identity};
use crate::service::NodeName;

/// What the connection is for, and in which framing (RFC 7301).
const PROTOCOL: &[u8] = b"anycast-mesh/1";

/// Whose keys are known.
#[derive(Debug)]
pub(super) struct Pins {
    known: BTreeMap<Fingerprint, NodeName>,
    provider: Arc<CryptoProvider>,
}

impl Pins {
    pub(super) fn new(known: BTreeMap<Fingerprint, NodeName>) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { known, provider })
    }

    /// Whose certificate this is.
    pub(super) fn owner(&self, certificate: &CertificateDer<'_>) -> Option<&NodeName> {
        self.known.get(&Fingerprint::of_certificate(certificate)?)
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let unknown = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        self.owner(certificate).map(drop).ok_or(unknown)
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Only TLS 1.3 is offered.
fn too_old() -> Error {
    Error::General("TLS 1.2 between nodes".to_owned())
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// For those who dial.
pub(super) fn server(identity: &Identity, pins: &Arc<Pins>) -> Result<QuicServerConfig, String> {
    let key = PrivatePkcs8KeyDer::from(identity.key_der());
    let built = ServerConfig::builder_with_provider(Arc::clone(&pins.provider))
        .with_protocol_versions(&[&version::TLS13])
        .map(|builder| builder.with_client_cert_verifier(Arc::clone(pins) as _))
        .and_then(|builder| {
            builder.with_single_cert(vec![identity.certificate().clone()], key.into())
        });
    let mut config = built.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session that is resumed would skip the pins of a key that was taken out meanwhile.
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|error| error.to_string())
}

/// For those who are dialled.
pub(super) fn client(identity: &Identity, pins: &Arc<Pins>) -> Result<QuicClientConfig, String> {
    let key = PrivatePkcs8KeyDer::from(identity.key_der());
    let built = ClientConfig::builder_with_provider(Arc::clone(&pins.provider))
        .with_protocol_versions(&[&version::TLS13])
        .and_then(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(pins) as _)
                .with_client_auth_cert(vec![identity.certificate().clone()], key.into())
        });
    let mut config = built.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(|error| error.to_string())
}
