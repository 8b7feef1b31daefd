//! Which bucket, and how to reach it.

use std::fmt;
use std::time::Duration;

/// A bucket of an S3-compatible store.
///
/// What is not said is taken from the environment variables that every S3 client knows
/// (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, …) or, on a machine of a cloud,
/// from its metadata service.
#[derive(Clone)]
pub struct BucketSettings {
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) key: Option<(String, String)>,
    pub(super) authorities: Vec<u8>,
    pub(super) timeout: Duration,
    pub(super) retries: usize,
}

impl BucketSettings {
    /// The bucket of that name, at Amazon unless an endpoint is given.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            key: None,
            authorities: Vec::new(),
            timeout: Duration::from_secs(60),
            retries: 3,
        }
    }

    /// The URL of another store: `https://s3.example.net`, or `http://…` for one without TLS,
    /// which shows contents to the network and lets it change what is listed. The bucket's name
    /// is added as the first part of the path.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// All keys begin with `prefix/`, so that a bucket can hold several folders. Default: none.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The region that requests are signed for. Default: `us-east-1`, which stores other than
    /// Amazon's take as well.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The access key: its id and its secret.
    #[must_use]
    pub fn access_key(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.key = Some((id.into(), secret.into()));
        self
    }

    /// Certificates (PEM) of authorities to trust besides the system's own.
    #[must_use]
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = pem.into();
        self
    }

    /// How long one request may take, 8 MiB of content included. Default: 60 s. A link that
    /// carries less than about 1 Mbit/s needs more.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a request is repeated that failed for a reason which passes, with growing
    /// pauses from 100 ms to 5 s. Default: 3.
    #[must_use]
    pub fn retries(mut self, retries: usize) -> Self {
        self.retries = retries;
        self
    }
}

impl fmt::Debug for BucketSettings {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketSettings")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("key", &self.key.as_ref().map(|(id, _)| id))
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// For people: `bucket NAME at URL`.
impl fmt::Display for BucketSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_deref().unwrap_or("Amazon S3");
        write!(f, "bucket {} at {endpoint}", self.bucket)
    }
}
