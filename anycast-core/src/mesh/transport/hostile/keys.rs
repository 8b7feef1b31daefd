use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::*;
use crate::mesh::wire::VERSION;

#[tokio::test]
async fn a_key_that_nobody_knows_gets_no_further_than_the_handshake() {
    let mut site = Site::new().await;
    let stranger = Identity::generate().unwrap();
    let dialled = client(&site.a, &stranger, transport());
    if let Ok(mut hostile) = Hostile::dial_with(dialled, ELSEWHERE, site.target()).await {
        // It has shown its key, and cannot know yet what that is worth.
        let _ = hostile.send.write_all(&hello("a")).await;
        let why = hostile.closed().await;
        assert!(
            why.contains("handshake") || why.contains("certificate"),
            "{why}"
        );
    }
    site.told(&["WARN", "a handshake failed", "remote=127.0.0.2:"])
        .await;
    assert_eq!(view(&site.b.views().borrow(), "a").heard_at, None);
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}

/// The certificate of a, and another's key to sign with.
#[derive(Debug)]
struct Borrowed(Arc<CertifiedKey>);

impl ResolvesClientCert for Borrowed {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_certificate_of_a_peer_without_its_key_is_worth_nothing() {
    let mut site = Site::new().await;
    let thief = Identity::generate().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(thief.key_der());
    let key = provider.key_provider.load_private_key(key.into()).unwrap();
    let chain = vec![site.a.identity.certificate().clone()];
    let borrowed = Borrowed(Arc::new(CertifiedKey::new(chain, key)));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pins(&site.a).unwrap())
        .with_client_cert_resolver(Arc::new(borrowed));
    tls.alpn_protocols = vec![b"anycast-mesh/1".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let dialled = quinn::ClientConfig::new(Arc::new(tls));
    if let Ok(mut hostile) = Hostile::dial_with(dialled, HERE, site.target()).await {
        let _ = hostile.send.write_all(&hello("a")).await;
        let why = hostile.closed().await;
        assert!(
            why.contains("handshake") || why.contains("signature"),
            "{why}"
        );
    }
    site.told(&["WARN", "a handshake failed"]).await;
    assert_eq!(view(&site.b.views().borrow(), "a").heard_at, None);
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}

#[tokio::test]
async fn the_key_of_one_peer_with_the_name_of_another_is_cut_off() {
    let mut site = Site::new().await;
    let mut hostile = Hostile::dial(&site).await.unwrap();
    hostile.send.write_all(&hello("c")).await.unwrap();
    let why = hostile.closed().await;
    let said = "it calls itself c, and has the key of a";
    assert!(why.contains(said), "{why}");
    site.told(&["WARN", "peer=a", said]).await;
    let down = view(&site.b.views().borrow(), "a").down.clone();
    assert!(down.unwrap().as_str().contains(said));
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}

#[tokio::test]
async fn versions_that_are_not_shared_are_refused_and_later_ones_understood() {
    let mut site = Site::new().await;
    let says = |version, least_version| {
        let hello = Hello {
            name: node("a"),
            version,
            least_version,
            incarnation: 1,
        };
        Message::Hello(hello).encode().unwrap()
    };
    let mut hostile = Hostile::dial(&site).await.unwrap();
    hostile.send.write_all(&says(9, 8)).await.unwrap();
    let why = hostile.closed().await;
    assert!(why.contains("it speaks versions 8 to 9"), "{why}");
    site.told(&["WARN", "peer=a", "it speaks versions 8 to 9"])
        .await;
    // One that speaks later ones as well, and says what this one does not know.
    let mut newer = Hostile::dial(&site).await.unwrap();
    newer.send.write_all(&says(9, 1)).await.unwrap();
    newer.send.write_all(&[0, 0, 0, 3, 99, 1, 2]).await.unwrap();
    let mut views = site.b.views();
    let is_up = |views: &Views| view(views, "a").version == Some(VERSION);
    timeout(SOON, views.wait_for(is_up)).await.unwrap().unwrap();
    drop(newer);
    site.others_notice_nothing().await;
    site.a_is_let_in().await;
}
