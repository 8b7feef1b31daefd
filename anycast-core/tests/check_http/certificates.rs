//! The check `certificate`: what it says of a service long before its clients notice.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anycast_core::Verdict;
use anycast_core::health::http::{CertificateCheck, Tls};
use rcgen::CertificateParams;

use super::check;
use super::stream::{PATIENT, SHORT, addresses, listen, probe, serve, unhealthy, unknown};
use super::tls::{Authority, NAME, config, secure};

const DAY: Duration = Duration::from_secs(86_400);

fn certificate(at: SocketAddr, left: Duration) -> CertificateCheck {
    let port = NonZeroU16::new(at.port()).unwrap();
    CertificateCheck::new(&addresses(&[at.ip()]), port, left)
}

fn expires_in(left: Duration) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.not_after = (SystemTime::now() + left + DAY / 2).into()
}

#[tokio::test]
async fn it_warns_while_the_service_is_healthy() {
    let authority = Authority::new();
    let signed = authority.sign(expires_in(10 * DAY));
    let at = secure("127.0.0.84", config(&signed)).await;
    let verdict = probe(certificate(at, 14 * DAY), PATIENT).await;
    unhealthy(
        &verdict,
        "its certificate expires in 10 days, which is less than 14 days",
    );
    assert_eq!(
        probe(certificate(at, 7 * DAY), PATIENT).await,
        Verdict::Healthy
    );
    let http = check(at).with_host(NAME).unwrap();
    let http = http.with_tls(Tls::verified(authority.file()));
    assert_eq!(probe(http, PATIENT).await, Verdict::Healthy);
}

#[tokio::test]
async fn the_certificate_of_a_name_is_asked_for() {
    let authority = Authority::new();
    let mut resolver = rustls::server::ResolvesServerCertUsingSni::new();
    let mut server = config(&authority.sign(expires_in(10 * DAY)));
    for (name, days) in [(NAME, 100), ("old.example.com", 10)] {
        let (certificate, key) = authority.sign(|params| {
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
            expires_in(days * DAY)(params);
        });
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let key = rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], key);
        resolver.add(name, key).unwrap();
    }
    server.cert_resolver = Arc::new(resolver);
    let at = secure("127.0.0.84", server).await;
    let named = |name| certificate(at, 14 * DAY).with_host(name).unwrap();
    assert_eq!(probe(named(NAME), PATIENT).await, Verdict::Healthy);
    let verdict = probe(named("old.example.com"), PATIENT).await;
    unhealthy(&verdict, "expires in 10 days");
    let verdict = probe(named("unknown.example.com"), PATIENT).await;
    unhealthy(&verdict, "TLS handshake: ");
}

#[tokio::test]
async fn one_that_has_expired_or_is_of_the_future() {
    let authority = Authority::new();
    let year = |from, until| {
        authority.sign(|params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
        })
    };
    let expired = secure("127.0.0.84", config(&year(2020, 2021))).await;
    let verdict = probe(certificate(expired, DAY), PATIENT).await;
    unhealthy(&verdict, "its certificate expired ");
    let early = secure("127.0.0.84", config(&year(2999, 3000))).await;
    let verdict = probe(certificate(early, DAY), PATIENT).await;
    unknown(&verdict, "unless this host's clock is behind");
}

#[tokio::test]
async fn a_service_that_shows_none() {
    let (listener, silent) = listen("127.0.0.84").await;
    let verdict = probe(certificate(silent, DAY), SHORT).await;
    unhealthy(&verdict, "no TLS handshake within 200ms");
    drop(listener);
    let verdict = probe(certificate(silent, DAY), PATIENT).await;
    unhealthy(&verdict, "connecting: Connection refused");
    let garbage = serve("127.0.0.84", |mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        let _ = stream.write_all(&[0xff; 65_536]).await;
    })
    .await;
    unhealthy(&probe(certificate(garbage, DAY), PATIENT).await, "");
}
