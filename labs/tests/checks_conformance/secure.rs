//! The checks over TLS.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anycast_core::health::http::{CertificateCheck, Tls};
use anycast_core::testing::health_suite::Condition::{Silent, Well, Wrong};
use anycast_labs::isolate::work_dir;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::builds;
use crate::net::{EVERY, PORT, addresses, at, page, ready};
use crate::stage::{Over, Secured, Stage, noise};

const NAME: &str = "www.example.com";
const DAY: Duration = Duration::from_secs(86_400);

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// A server whose certificate is valid for so long.
    fn server(&self, left: Duration) -> TlsAcceptor {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.not_after = (SystemTime::now() + left).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server that answers wrongly over TLS as it should, and garbage instead of TLS.
pub(crate) async fn https() -> Stage {
    let authority = Authority::new();
    let file = work_dir().join("ca.pem");
    std::fs::write(&file, &authority.pem).unwrap();
    let server = authority.server(90 * DAY);
    let secured: Secured = Arc::new(move |condition| {
        let speaks = matches!(condition, Well | Wrong | Silent);
        speaks.then(|| server.clone())
    });
    let check = ready().with_host(NAME).unwrap();
    let check = builds(check.with_tls(Tls::verified(file)));
    Stage::new(at(), Over::Tls(secured), page, &EVERY, check)
}

/// A certificate that is wrong has too little time left.
pub(crate) async fn certificate() -> Stage {
    let authority = Authority::new();
    let (fresh, old) = (authority.server(90 * DAY), authority.server(7 * DAY));
    let secured: Secured = Arc::new(move |condition| match condition {
        Well => Some(fresh.clone()),
        Wrong => Some(old.clone()),
        _ => None,
    });
    // After the handshake nothing is said; before it, noise or nothing.
    let answer = |condition, _: &[u8]| match condition {
        Silent | Well | Wrong => None,
        _ => Some(noise(5000)),
    };
    let check = CertificateCheck::new(&addresses(), PORT, 14 * DAY);
    let check = builds(check.with_host(NAME).unwrap());
    Stage::new(at(), Over::Tls(secured), answer, &EVERY, check)
}
