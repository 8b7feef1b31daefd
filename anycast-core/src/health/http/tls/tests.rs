use super::*;

const TARGET: &str = "192.0.2.80:443";

fn judge(error: &rustls::Error) -> (Verdict, bool) {
    let session = Session::new(build(&Trust::Anybody, Arc::new(SystemClock)).unwrap());
    let verdict = session.judge(TARGET.parse().unwrap(), error);
    (verdict, session.refused.into_inner())
}

#[test]
fn a_refused_certificate_is_the_services_fault_and_read_the_authorities_again() {
    let expired = CertificateError::ExpiredContext {
        time: at(1_000_000),
        not_after: at(1_000_000 - 3 * 86_400),
    };
    let (verdict, refused) = judge(&rustls::Error::InvalidCertificate(expired));
    let says = format!("{TARGET}: its certificate expired 3 days ago");
    assert_eq!((verdict, refused), (Verdict::unhealthy(says), true));
    for fault in [
        CertificateError::UnknownIssuer,
        CertificateError::NotValidForName,
        CertificateError::BadEncoding,
        CertificateError::Expired,
    ] {
        let (verdict, refused) = judge(&rustls::Error::InvalidCertificate(fault));
        assert!(matches!(verdict, Verdict::Unhealthy(..)), "{verdict}");
        assert!(refused);
    }
}

#[test]
fn where_the_clock_may_be_wrong_nobody_is_blamed() {
    let early = CertificateError::NotValidYetContext {
        time: at(1_000_000),
        not_before: at(1_000_000 + 7_200),
    };
    let early = rustls::Error::InvalidCertificate(early);
    for error in [early, rustls::Error::FailedToGetCurrentTime] {
        let (verdict, _) = judge(&error);
        assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
        assert!(
            verdict.to_string().contains("this host's clock"),
            "{verdict}"
        );
    }
    assert!(
        SystemClock.current_time().is_some(),
        "this machine's clock is not set"
    );
}

#[test]
fn only_a_broken_handshake_is_the_services_fault() {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
    assert!(matches!(judge(&alert).0, Verdict::Unhealthy(..)));
    let own = rustls::Error::FailedToGetRandomBytes;
    assert!(matches!(judge(&own).0, Verdict::Unknown(_)));
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[test]
fn a_span_is_told_in_its_largest_unit() {
    for (seconds, text) in [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (172_799, "47 h"),
        (172_800, "2 days"),
    ] {
        assert_eq!(Span(seconds).to_string(), text);
    }
}

#[test]
fn authorities_are_read_from_a_file_of_bounded_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let fails = |path: &Path, says: &str| {
        let error = authorities(path).unwrap_err();
        assert!(error.contains(says), "{error}");
    };
    fails(&path, "cannot be read: No such file");
    fails(folder.path(), "it is not a regular file");
    fails(Path::new("/dev/zero"), "it is not a regular file");
    std::fs::write(&path, "no certificate").unwrap();
    fails(&path, "holds no certificate");
    std::fs::write(
        &path,
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    fails(&path, "is not PEM");
    std::fs::write(&path, vec![b'#'; 1 << 20 | 1]).unwrap();
    fails(&path, "larger than 1 MiB");
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    std::fs::write(&path, authority.pem().repeat(2)).unwrap();
    assert_eq!(authorities(&path).unwrap().len(), 2);
}

/// A clock that was never set.
#[derive(Debug)]
struct Unset;

impl TimeProvider for Unset {
    fn current_time(&self) -> Option<UnixTime> {
        None
    }
}

/// Over a real handshake: rustls asks the clock, and what it then says is understood.
#[tokio::test]
async fn a_clock_that_was_never_set_judges_no_certificate() {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let (near, far) = tokio::io::duplex(65_536);
    let serve = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far);
    let clock: Arc<dyn TimeProvider> = Arc::new(Unset);
    let session = Session::new(build(&Trust::Authorities(path), clock).unwrap());
    let target = TARGET.parse().unwrap();
    let ask = session.shake_hands(near, target, Some("localhost"));
    let (_, asked) = tokio::join!(serve, async { ask.await.map(drop) });
    assert_eq!(asked, Err(clock_is_not_set(target)));
}
