//! A bucket of an S3-compatible store as the place where a folder's files are kept.
//!
//! | key | what it is |
//! |---|---|
//! | `PREFIX/manifest` | the manifest, replaced only by who knows the one that it replaces |
//! | `PREFIX/objects/HASH` | a content, by its BLAKE3 hash; never changes |
//! | `PREFIX/probe/NODE` | for a moment, while a node finds out what the store can do |
//!
//! Contents go first and the manifest that names them follows, so that what it names is there.
//! Nothing that comes from the bucket is trusted: a content is verified by its hash.
//!
//! **Conditions.** A store that honours `If-Match` and `If-None-Match` when it is written to
//! (Amazon S3, MinIO, Ceph, R2, Garage and others) lets no node's manifest overwrite another's.
//! One that ignores them does, and the other node, which still has its part, merges and stores
//! again at its next look: files are late then, and one is lost only with a node that dies
//! before. [`ObjectStoreBackend::conditions`] says which it is.
//!
//! **Cost.** The manifest is stored whole, some 150 bytes a file, each time that something has
//! changed; changes within a moment go together. Contents that no version names any longer stay
//! in the bucket.
//!
//! [`ObjectSync`] keeps a node's copy and the bucket the same; [`ObjectStoreBackend`] is what it is
//! made of.
//!
//! Every request has a time-out and is repeated a few times; see [`BucketSettings`]. All of this
//! needs a tokio runtime. TLS uses the provider of cryptography that the process has chosen, and
//! chooses `ring` for it where it has not.

mod body;
mod error;
mod peer;
mod settings;
mod transfer;

use std::fmt;
use std::time::Duration;

use anycast_core::health::Reason;
use anycast_core::service::NodeName;
use futures_util::stream::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error as StoreError, GetOptions, ObjectStore as _,
    ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
};

use super::content::{ContentHash, ContentId};

pub use error::{ObjectError, PutManifestError};
pub use peer::{Host, ObjectSync};
pub use settings::BucketSettings;
pub use transfer::Stored;

/// Contents up to this size go in one request, larger ones in parts of it: 8 MiB.
pub const PART: usize = 8 << 20;
/// A larger manifest is refused: 512 MiB, twice what a million files take.
pub const MAX_MANIFEST: u64 = 512 << 20;
/// No more contents are listed: 4 million. What is beyond is left out.
pub const MAX_LISTED: usize = 4_000_000;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between retries.
const BACKOFF: BackoffConfig = BackoffConfig {
    init_backoff: Duration::from_millis(100),
    max_backoff: Duration::from_secs(5),
    base: 2.0,
};

/// Names one state of an object, as the store gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

/// What a bucket has for a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredManifest {
    /// None: nobody has stored one yet. It never means that files were deleted (F10).
    Absent,
    /// The one that was known.
    Unchanged,
    /// This one.
    Found {
        /// Its bytes, as they were stored.
        bytes: Vec<u8>,
        /// Its state, to [replace](Replaces::Only) it or to ask for changes.
        etag: Etag,
    },
}

/// What a manifest may take the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaces {
    /// Nothing: there must be none.
    Nothing,
    /// The one in this state.
    Only(Etag),
    /// Whatever is there: for stores that honour no conditions.
    Anything,
}

/// Which conditions a store honours when it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// `If-None-Match: *`: an object that is there is not overwritten.
    pub if_none_match: bool,
    /// `If-Match`: an object in another state is not overwritten.
    pub if_match: bool,
}

/// A bucket. Cheap to clone.
#[derive(Clone)]
pub struct ObjectStoreBackend {
    store: AmazonS3,
    prefix: Path,
    /// For people.
    bucket: String,
}

impl fmt::Debug for ObjectStoreBackend {
    /// Without the store, which would print its settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreBackend")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix.as_ref())
            .finish_non_exhaustive()
    }
}

impl ObjectStoreBackend {
    /// A bucket. Sends nothing yet.
    ///
    /// # Errors
    /// [`ObjectError::Settings`]
    pub fn new(settings: &BucketSettings) -> Result<Self, ObjectError> {
        let bucket = settings.to_string();
        let wrong = |reason: Reason| ObjectError::Settings {
            bucket: bucket.clone(),
            reason,
        };
        if settings.bucket.is_empty() {
            return Err(wrong("the bucket has no name".into()));
        }
        let prefix = Path::parse(&settings.prefix)
            .map_err(|error| wrong(format!("the prefix: {error}").into()))?;
        let store = connect(settings).map_err(wrong)?;
        Ok(Self {
            store,
            prefix,
            bucket,
        })
    }

    /// Whether the bucket answers at all.
    ///
    /// # Errors
    /// [`ObjectError`] when it does not.
    pub async fn reach(&self) -> Result<(), ObjectError> {
        // Mostly nothing is there; and unlike a look at one object it tells a missing bucket.
        let folder = self.prefix.clone().join("probe");
        let found = self.store.list(Some(&folder)).try_next().await;
        found.map_err(|error| self.failed(&folder, "listing", &error))?;
        Ok(())
    }

    /// The manifest, unless it is the one that is `known`.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub async fn get_manifest(&self, known: Option<&Etag>) -> Result<StoredManifest, ObjectError> {
        let key = self.manifest_key();
        let failed = |error: &StoreError| self.failed(&key, "reading", error);
        let options = GetOptions {
            if_none_match: known.map(|etag| etag.0.clone()),
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(&key, options).await {
            Ok(found) => found,
            Err(StoreError::NotModified { .. }) => return Ok(StoredManifest::Unchanged),
            Err(error) => {
                let error = failed(&error);
                let absent = matches!(error, ObjectError::Missing { .. });
                return if absent {
                    Ok(StoredManifest::Absent)
                } else {
                    Err(error)
                };
            }
        };
        if found.meta.size > MAX_MANIFEST {
            return Err(ObjectError::TooLarge {
                bucket: self.bucket.clone(),
                key: key.to_string(),
                size: found.meta.size,
                most: MAX_MANIFEST,
            });
        }
        let etag = self.etag(&key, found.meta.e_tag.clone())?;
        if known == Some(&etag) {
            return Ok(StoredManifest::Unchanged); // the store ignores the condition
        }
        let bytes = found.bytes().await.map_err(|error| failed(&error))?.into();
        Ok(StoredManifest::Found { bytes, etag })
    }

    /// Stores a manifest, and returns its state. The contents that it names must be there.
    ///
    /// When an answer was lost and the request repeated, the repetition finds what the first one
    /// stored and is told [`Conflict`](PutManifestError::Conflict); to merge and try again is
    /// right then too.
    ///
    /// # Errors
    /// [`PutManifestError`]
    pub async fn put_manifest(
        &self,
        bytes: Vec<u8>,
        replaces: Replaces,
    ) -> Result<Etag, PutManifestError> {
        let key = self.manifest_key();
        let mode = match replaces {
            Replaces::Nothing => PutMode::Create,
            Replaces::Only(etag) => update(etag.0),
            Replaces::Anything => PutMode::Overwrite,
        };
        let options = PutOptions::from(mode);
        match self.store.put_opts(&key, bytes.into(), options).await {
            Ok(stored) => Ok(self.etag(&key, stored.e_tag)?),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                Err(PutManifestError::Conflict {
                    bucket: self.bucket.clone(),
                    key: key.to_string(),
                })
            }
            Err(error) => Err(self.failed(&key, "storing", &error).into()),
        }
    }

    /// The contents that the bucket has, in no order, going by their names and sizes. Keys that
    /// name no content are left out.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub async fn list(&self) -> Result<Vec<ContentId>, ObjectError> {
        let folder = self.prefix.clone().join("objects");
        let mut found = Vec::new();
        let mut listing = self.store.list(Some(&folder));
        let failed = |error| self.failed(&folder, "listing", &error);
        while let Some(object) = listing.try_next().await.map_err(failed)? {
            let hash = object.location.filename().and_then(parse_hash);
            let size = object.size;
            found.extend(hash.map(|hash| ContentId { hash, size }));
            if found.len() == MAX_LISTED {
                break;
            }
        }
        Ok(found)
    }

    /// Finds out which conditions the store honours, by writing a small object of this node's.
    ///
    /// # Errors
    /// [`ObjectError`] when the object cannot be written at all.
    pub async fn conditions(&self, node: &NodeName) -> Result<Conditions, ObjectError> {
        let key = self.prefix.clone().join("probe").join(node.as_str());
        let put = async |mode: PutMode| {
            let payload = PutPayload::from_static(b"which conditions does this store honour?");
            self.store.put_opts(&key, payload, mode.into()).await
        };
        let stored = put(PutMode::Overwrite).await;
        stored.map_err(|error| self.failed(&key, "storing", &error))?;
        let if_none_match = matches!(
            put(PutMode::Create).await,
            Err(StoreError::AlreadyExists { .. })
        );
        let other = update("\"00000000000000000000000000000000\"".to_owned());
        let if_match = matches!(
            put(other).await,
            Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. })
        );
        let removed = self.store.delete(&key).await;
        removed.map_err(|error| self.failed(&key, "removing", &error))?;
        Ok(Conditions {
            if_none_match,
            if_match,
        })
    }

    fn manifest_key(&self) -> Path {
        self.prefix.clone().join("manifest")
    }

    fn object_key(&self, hash: ContentHash) -> Path {
        self.prefix.clone().join("objects").join(hash.to_string())
    }

    fn etag(&self, key: &Path, etag: Option<String>) -> Result<Etag, ObjectError> {
        etag.map(Etag).ok_or_else(|| ObjectError::Failed {
            bucket: self.bucket.clone(),
            key: key.to_string(),
            what: "reading the state of",
            reason: "the store gave it no ETag".into(),
        })
    }

    fn no_manifest(&self, error: &body::BodyError) -> ObjectError {
        ObjectError::NoManifest {
            bucket: self.bucket.clone(),
            key: self.manifest_key().to_string(),
            reason: Reason::new(&error.to_string()),
        }
    }

    fn failed(&self, key: &Path, what: &'static str, error: &StoreError) -> ObjectError {
        error::explain(&self.bucket, key, what, error)
    }
}

fn update(etag: String) -> PutMode {
    PutMode::Update(UpdateVersion {
        e_tag: Some(etag),
        version: None,
    })
}

/// A client for these settings, or what is wrong with them.
fn connect(settings: &BucketSettings) -> Result<AmazonS3, Reason> {
    // Fails where the process has chosen already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = ClientOptions::new()
        .with_timeout(settings.timeout)
        .with_connect_timeout(CONNECT_TIMEOUT);
    let authorities = Certificate::from_pem_bundle(&settings.authorities)
        .map_err(|error| format!("the authorities: {error}"))?;
    for authority in authorities {
        client = client.with_root_certificate(authority);
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&settings.bucket);
    if let Some(endpoint) = &settings.endpoint {
        let plain = endpoint.starts_with("http://");
        if !plain && !endpoint.starts_with("https://") {
            return Err(format!(
                "the endpoint {endpoint:?} begins with neither https:// nor http://"
            )
            .into());
        }
        client = client.with_allow_http(plain);
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some((id, secret)) = &settings.key {
        builder = builder
            .with_access_key_id(id)
            .with_secret_access_key(secret);
    }
    let retry = RetryConfig {
        backoff: BACKOFF,
        max_retries: settings.retries,
        retry_timeout: settings.timeout.saturating_mul(2),
    };
    builder
        .with_client_options(client)
        .with_retry(retry)
        .build()
        .map_err(|error| error::innermost(&error))
}

/// 64 lower-case hexadecimal digits.
fn parse_hash(name: &str) -> Option<ContentHash> {
    let digits = name.as_bytes();
    if digits.len() != 64 || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(ContentHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_object_is_its_hash() {
        let hash = ContentHash(*blake3::hash(b"kernel").as_bytes());
        let name = hash.to_string();
        assert_eq!(parse_hash(&name), Some(hash));
        for wrong in [
            "",
            &name[1..],
            &name.to_uppercase(),
            &name.replace('a', "g"),
        ] {
            assert_ne!(parse_hash(wrong), Some(hash), "{wrong}");
        }
    }

    #[test]
    fn wrong_settings_are_told_before_anything_is_sent() {
        let told =
            |settings: BucketSettings| ObjectStoreBackend::new(&settings).unwrap_err().to_string();
        assert_eq!(
            told(BucketSettings::new("")),
            "bucket  at Amazon S3: the settings are wrong: the bucket has no name"
        );
        assert_eq!(
            told(BucketSettings::new("boot").endpoint("s3.example.net")),
            "bucket boot at s3.example.net: the settings are wrong: the endpoint \
             \"s3.example.net\" begins with neither https:// nor http://"
        );
        let prefix = told(BucketSettings::new("boot").prefix("a//b"));
        assert!(prefix.contains("the prefix: "), "{prefix}");
    }

    #[test]
    fn a_secret_is_not_printed() {
        let settings = BucketSettings::new("boot").access_key("id", "hush");
        let backend = ObjectStoreBackend::new(&settings).unwrap();
        let printed = format!("{settings:?} {settings} {backend:?}");
        assert!(!printed.contains("hush"), "{printed}");
    }
}
