//! The check `http` over TLS, against a server of rustls.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anycast_core::Verdict;
use anycast_core::health::http::Tls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use super::stream::{PATIENT, SHORT, in_poverty, listen, nothing_left, probe, probe_with, serve};
use super::stream::{unhealthy, unknown};
use super::{answer, check, head};

pub(crate) const NAME: &str = "www.example.com";

/// A certificate authority, and the file that makes it known.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    pub(crate) folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        let authority = Self {
            issuer: Issuer::new(params, key),
            pem,
            folder,
        };
        authority.write_to(&authority.file());
        authority
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn write_to(&self, path: &PathBuf) {
        std::fs::write(path, &self.pem).unwrap();
    }

    fn tls(&self) -> Tls {
        Tls::verified(self.file())
    }

    /// A certificate for [`NAME`] and its key.
    pub(crate) fn sign(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

pub(crate) fn config((certificate, key): &(rcgen::Certificate, KeyPair)) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// A service that answers over TLS with "ready".
pub(crate) async fn secure(address: &str, config: ServerConfig) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(address, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            head(&mut stream).await;
            let said = answer("200 OK", "", "ready");
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.flush().await;
            head(&mut stream).await;
        }
    })
    .await
}

fn year(from: i32, until: i32) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
    }
}

async fn ask(at: SocketAddr, tls: Tls) -> Verdict {
    let check = check(at).with_host(NAME).unwrap();
    let check = check.with_body("ready").unwrap().with_tls(tls);
    probe(check, PATIENT).await
}

#[tokio::test]
async fn a_certificate_that_clients_accept_is_accepted() {
    let authority = Authority::new();
    let at = secure("127.0.0.82", config(&authority.sign(|_| {}))).await;
    for _ in 0..3 {
        assert_eq!(ask(at, authority.tls()).await, Verdict::Healthy);
        assert_eq!(ask(at, Tls::unverified()).await, Verdict::Healthy);
    }
    nothing_left(at).await;
}

#[tokio::test]
async fn an_address_may_stand_in_the_certificate_instead_of_a_name() {
    let authority = Authority::new();
    let addressed = |ip: &str| {
        let ip = SanType::IpAddress(ip.parse().unwrap());
        config(&authority.sign(|params| params.subject_alt_names = vec![ip]))
    };
    for ip in ["127.0.0.82", "::1"] {
        let at = secure(ip, addressed(ip)).await;
        let check = check(at).with_tls(authority.tls());
        assert_eq!(probe(check, PATIENT).await, Verdict::Healthy);
    }
    let at = secure("127.0.0.82", addressed("127.0.0.83")).await;
    let other = check(at).with_tls(authority.tls());
    unhealthy(&probe(other, PATIENT).await, "its certificate is refused");
}

#[tokio::test]
async fn a_certificate_that_clients_refuse_is_unhealthy() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let expired = secure("127.0.0.82", config(&authority.sign(year(2020, 2021)))).await;
    let verdict = ask(expired, authority.tls()).await;
    unhealthy(&verdict, "its certificate expired ");
    unhealthy(&verdict, " days ago");
    let foreign = secure("127.0.0.82", config(&stranger.sign(|_| {}))).await;
    unhealthy(&ask(foreign, authority.tls()).await, "UnknownIssuer");
    let named = config(&authority.sign(|params| {
        params.subject_alt_names = vec![SanType::DnsName("other.example".try_into().unwrap())];
    }));
    let named = secure("127.0.0.82", named).await;
    let verdict = ask(named, authority.tls()).await;
    unhealthy(&verdict, "not valid for name \"www.example.com\"");
    for at in [expired, foreign, named] {
        assert_eq!(ask(at, Tls::unverified()).await, Verdict::Healthy);
    }
}

#[tokio::test]
async fn a_certificate_of_the_future_blames_nobody() {
    let authority = Authority::new();
    let early = secure("127.0.0.82", config(&authority.sign(year(2999, 3000)))).await;
    let verdict = ask(early, authority.tls()).await;
    unknown(&verdict, "unless this host's clock is behind");
}

#[tokio::test]
async fn authorities_that_cannot_be_read_blame_nobody() {
    let authority = Authority::new();
    let at = secure("127.0.0.82", config(&authority.sign(|_| {}))).await;
    let path = authority.folder.path().join("later.pem");
    let check = check(at).with_host(NAME).unwrap();
    let mut check = check.with_tls(Tls::verified(&path));
    unknown(
        &probe_with(&mut check, PATIENT).await,
        "later.pem: cannot be read: ",
    );
    std::fs::write(&path, "").unwrap();
    unknown(
        &probe_with(&mut check, PATIENT).await,
        "holds no certificate",
    );
    authority.write_to(&path);
    assert_eq!(probe_with(&mut check, PATIENT).await, Verdict::Healthy);
    // What was read stays in force.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(probe_with(&mut check, PATIENT).await, Verdict::Healthy);
}

/// A new authority takes effect with the first probe after the one that was refused.
#[tokio::test]
async fn authorities_are_read_again_after_a_refusal() {
    let (old, new) = (Authority::new(), Authority::new());
    let at = secure("127.0.0.82", config(&new.sign(|_| {}))).await;
    let check = check(at).with_host(NAME).unwrap();
    let mut check = check.with_tls(old.tls());
    unhealthy(&probe_with(&mut check, PATIENT).await, "UnknownIssuer");
    new.write_to(&old.file());
    assert_eq!(probe_with(&mut check, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn what_is_no_tls_is_unhealthy() {
    let plain = serve("127.0.0.82", |mut stream| async move {
        let said = answer("400 Bad Request", "", "");
        let _ = stream.write_all(said.as_bytes()).await;
        head(&mut stream).await;
    })
    .await;
    let verdict = ask(plain, Tls::unverified()).await;
    unhealthy(&verdict, "TLS handshake: ");
    let closing = serve("127.0.0.82", |_| async {}).await;
    unhealthy(&ask(closing, Tls::unverified()).await, "");
    let (_listener, silent) = listen("127.0.0.82").await;
    let check = |at| check(at).with_tls(Tls::unverified());
    let verdict = probe(check(silent), SHORT).await;
    unhealthy(&verdict, "no TLS handshake within 200ms");
    let trickle = serve("127.0.0.82", |mut stream| async move {
        while stream.write_all(b"\x16").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    unhealthy(&probe(check(trickle), SHORT).await, "TLS handshake");
}

#[tokio::test]
async fn a_handshake_without_end_is_bounded_in_bytes() {
    // A certificate of 16 MiB, announced in fragments of handshake.
    let at = serve("127.0.0.82", |mut stream| async move {
        let mut record = vec![0x16, 3, 3, 0x40, 0];
        record.extend([11, 0xff, 0xff, 0xff]);
        record.resize(5 + 0x4000, 0);
        while stream.write_all(&record).await.is_ok() {}
    })
    .await;
    let check = check(at).with_tls(Tls::unverified());
    let verdict = probe(check, PATIENT).await;
    unhealthy(&verdict, "TLS handshake: ");
    assert!(!verdict.to_string().contains("within"), "{verdict}");
}

#[test]
fn without_descriptors_nothing_is_said_of_the_service() {
    in_poverty(|exhaust| async move {
        let authority = Authority::new();
        let at = secure("127.0.0.82", config(&authority.sign(|_| {}))).await;
        let check = check(at).with_host(NAME).unwrap();
        let mut check = check.with_tls(authority.tls());
        let hoard = exhaust();
        let verdict = probe_with(&mut check, PATIENT).await;
        unknown(&verdict, "ca.pem: cannot be read: Too many open files");
        drop(hoard);
        assert_eq!(probe_with(&mut check, PATIENT).await, Verdict::Healthy);
        let hoard = exhaust();
        unknown(&probe_with(&mut check, PATIENT).await, "opening a socket");
        drop(hoard);
        assert_eq!(probe_with(&mut check, PATIENT).await, Verdict::Healthy);
    });
}
