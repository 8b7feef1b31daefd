//! What a bucket does, and what it does not.

use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use anycast_core::service::NodeName;
use anycast_tftp::sync::content::ContentId;
use anycast_tftp::sync::object::{
    BucketSettings, Conditions, ObjectError, ObjectStoreBackend, PART, PutManifestError, Replaces,
    Stored, StoredManifest,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::s3::{S3, content, settings};

async fn fetch(bucket: &ObjectStoreBackend, id: ContentId) -> Result<Vec<u8>, ObjectError> {
    let mut written = Cursor::new(Vec::new());
    bucket.fetch(id, &mut written).await?;
    Ok(written.into_inner())
}

async fn manifest(bucket: &ObjectStoreBackend) -> StoredManifest {
    bucket.get_manifest(None).await.unwrap()
}

#[tokio::test]
async fn contents_come_back_as_they_went() {
    let server = S3::start();
    let bucket = server.bucket();
    let mut ids = Vec::new();
    for len in [0, 1, 70_000, PART, PART + 1, 3 * PART - 5] {
        let (id, bytes) = content(len);
        assert!(!bucket.has(id).await.unwrap(), "{len}");
        let stored = bucket.put(id, &bytes[..]).await.unwrap();
        assert_eq!(stored, Stored::Uploaded, "{len}");
        let stored = bucket.put(id, &bytes[..]).await.unwrap();
        assert_eq!(stored, Stored::AlreadyThere, "{len}");
        assert!(fetch(&bucket, id).await.unwrap() == bytes, "{len}");
        let (from, to) = (len / 3, len / 2);
        let part = bucket.get(id, from as u64..to as u64).await.unwrap();
        assert!(part == bytes[from..to], "{len}");
        ids.push(id);
    }
    let mut listed = bucket.list().await.unwrap();
    listed.sort();
    ids.sort();
    assert_eq!(listed, ids);
    let gone = *ids.last().unwrap();
    bucket.remove(gone.hash).await.unwrap();
    bucket.remove(gone.hash).await.unwrap();
    assert!(!bucket.has(gone).await.unwrap());
    let told = fetch(&bucket, gone).await.unwrap_err();
    assert!(matches!(told, ObjectError::Missing { .. }), "{told}");
}

#[tokio::test]
async fn a_manifest_is_replaced_only_by_who_knows_it() {
    let server = S3::start();
    let (one, other) = (server.bucket(), server.bucket());
    assert_eq!(manifest(&one).await, StoredManifest::Absent);
    let first = one.put_manifest(b"a".to_vec(), Replaces::Nothing).await;
    let first = first.unwrap();
    let refused = other.put_manifest(b"b".to_vec(), Replaces::Nothing).await;
    assert!(
        matches!(refused, Err(PutManifestError::Conflict { .. })),
        "{refused:?}"
    );
    let known = one.get_manifest(Some(&first)).await.unwrap();
    assert_eq!(known, StoredManifest::Unchanged);
    let only = Replaces::Only(first);
    let second = one.put_manifest(b"ac".to_vec(), only.clone()).await;
    let second = second.unwrap();
    let refused = other.put_manifest(b"ab".to_vec(), only).await;
    assert!(
        matches!(refused, Err(PutManifestError::Conflict { .. })),
        "{refused:?}"
    );
    // What a node does then: look, merge, and try again.
    let StoredManifest::Found { bytes, etag } = manifest(&other).await else {
        panic!("nothing is there");
    };
    assert_eq!((&bytes[..], &etag), (&b"ac"[..], &second));
    let merged = other.put_manifest(b"abc".to_vec(), Replaces::Only(etag));
    let etag = merged.await.unwrap();
    let found = one.get_manifest(Some(&second)).await.unwrap();
    let bytes = b"abc".to_vec();
    assert_eq!(found, StoredManifest::Found { bytes, etag });
    let gone = Replaces::Only(second);
    server.curl(&["-X", "DELETE"], "boot/sites/a/manifest");
    let refused = one.put_manifest(b"x".to_vec(), gone).await;
    assert!(
        matches!(refused, Err(PutManifestError::Conflict { .. })),
        "{refused:?}"
    );
    one.put_manifest(b"y".to_vec(), Replaces::Anything)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_store_is_asked_which_conditions_it_honours() {
    let server = S3::start();
    let node = NodeName::new("oslo").unwrap();
    let conditions = server.bucket().conditions(&node).await.unwrap();
    assert_eq!(
        conditions,
        Conditions {
            if_none_match: true,
            if_match: true
        }
    );
    assert_eq!(server.bucket().list().await.unwrap(), []);
}

#[tokio::test]
async fn damaged_contents_are_never_handed_on() {
    let server = S3::start();
    let bucket = server.bucket();
    let (id, bytes) = content(100_000);
    bucket.put(id, &bytes[..]).await.unwrap();
    let path = format!("boot/sites/a/objects/{}", id.hash);
    let mut wrong = bytes.clone();
    wrong[77_777] ^= 1;
    for stored in [&wrong[..], &bytes[..99_999], &[]] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), stored).unwrap();
        server.curl(&["--upload-file", file.path().to_str().unwrap()], &path);
        let told = fetch(&bucket, id).await.unwrap_err();
        let shown = told.to_string();
        assert!(
            matches!(
                told,
                ObjectError::Damaged { .. } | ObjectError::Failed { .. }
            ),
            "{shown}"
        );
        assert!(shown.contains(&path["boot/".len()..]), "{shown}");
    }
    // One of another size is replaced as soon as somebody has the content.
    let stored = bucket.put(id, &bytes[..]).await.unwrap();
    assert_eq!(stored, Stored::Uploaded);
    assert!(fetch(&bucket, id).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_not_stored() {
    let server = S3::start();
    let bucket = server.bucket();
    for len in [1_000, 2 * PART] {
        let (id, bytes) = content(len);
        let mut wrong = bytes.clone();
        wrong[999] ^= 1;
        let longer = [&bytes[..], b"more"].concat();
        for changed in [&wrong[..], &bytes[..len - 1], &longer] {
            let told = bucket.put(id, changed).await.unwrap_err();
            assert!(matches!(told, ObjectError::Changed { .. }), "{told}");
            assert!(!bucket.has(id).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_not_an_empty_one() {
    let server = S3::start();
    let settings = BucketSettings::new("boots")
        .endpoint(&server.url)
        .access_key("id", "secret");
    let bucket = ObjectStoreBackend::new(&settings).unwrap();
    let told = bucket.get_manifest(None).await.unwrap_err().to_string();
    let expected = format!(
        "bucket boots at {} does not exist: create it, or correct its name and endpoint (key \
         manifest)",
        server.url
    );
    assert_eq!(told, expected);
    let (id, bytes) = content(5);
    for told in [
        bucket.put(id, &bytes[..]).await.unwrap_err(),
        bucket.list().await.unwrap_err(),
    ] {
        assert!(matches!(told, ObjectError::NoBucket { .. }), "{told}");
    }
}

/// A server that gives each request the next of `answers`, and the last one for ever. An empty
/// answer is silence.
fn scripted(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut silent = Vec::new();
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let answer = answers[number.min(answers.len() - 1)];
            if answer.is_empty() {
                silent.push(stream);
                continue;
            }
            let _ = stream.read(&mut [0; 4_096]).unwrap();
            let rest = "\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let answer = format!("HTTP/1.1 {answer}{rest}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let url = scripted(&[
        "503 Slow Down",
        "500 Internal Server Error",
        "404 Not Found",
    ]);
    let bucket = ObjectStoreBackend::new(&settings(&url)).unwrap();
    assert_eq!(manifest(&bucket).await, StoredManifest::Absent);
}

#[tokio::test]
async fn what_does_not_pass_is_told_with_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for (url, expected) in [
        (closed, "Connection refused"),
        (scripted(&[""]), "timed out"),
        (scripted(&["500 Internal Server Error"]), "500"),
        (scripted(&["403 Forbidden"]), "check the access key"),
        (scripted(&["200 OK"]), "failed"),
    ] {
        let settings = settings(&url)
            .timeout(Duration::from_millis(500))
            .retries(1);
        let bucket = ObjectStoreBackend::new(&settings).unwrap();
        let told = bucket.get_manifest(None).await.unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
        assert!(told.contains(&format!("bucket boot at {url}")), "{told}");
        assert!(told.contains("sites/a/manifest"), "{told}");
        assert!(!told.contains('\n'), "{told}");
    }
}

#[tokio::test]
async fn tls_is_checked_with_the_authorities_that_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (leaf, key) = (file("leaf", leaf.pem()), file("key", key.serialize_pem()));
    let server = S3::start_with(&["--ssl-cert", &leaf, "--ssl-key", &key]);
    server.curl(&["--insecure", "-X", "PUT"], "boot");
    let untrusted = settings(&server.url).retries(0);
    let trusted = untrusted.clone().authorities(certificate.pem());
    let bucket = ObjectStoreBackend::new(&trusted).unwrap();
    assert_eq!(manifest(&bucket).await, StoredManifest::Absent);
    let bucket = ObjectStoreBackend::new(&untrusted).unwrap();
    let told = bucket.get_manifest(None).await.unwrap_err().to_string();
    assert!(told.contains("certificate"), "{told}");
}
