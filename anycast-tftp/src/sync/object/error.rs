//! What can go wrong with a bucket, in words that say what to do.

use std::error::Error as _;
use std::io;

use anycast_core::health::Reason;
use object_store::Error as StoreError;
use object_store::path::Path;

/// Why a bucket was not read or written. Each names the bucket and the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The settings make no sense. Nothing was sent.
    #[error("{bucket}: the settings are wrong: {reason}")]
    Settings {
        /// The bucket.
        bucket: String,
        /// What is wrong.
        reason: Reason,
    },
    /// The store refuses.
    #[error(
        "{bucket}: access to {key} is refused: check the access key, and that its policy allows \
         s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket: {reason}"
    )]
    Denied {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What the store said.
        reason: Reason,
    },
    /// There is no such bucket.
    #[error("{bucket} does not exist: create it, or correct its name and endpoint (key {key})")]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// There is no such content.
    #[error("{bucket}: {key} is not there: a node that has the file uploads it when its sync runs")]
    Missing {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// What is stored is not what its name says. It was not used.
    #[error(
        "{bucket}: {key} is damaged, for its bytes do not have the hash and size of its name: \
         delete it, and a node that has the file uploads it again"
    )]
    Damaged {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The manifest cannot be read. It is neither used nor overwritten.
    #[error(
        "{bucket}: {key} is no manifest: {reason}; update this node if others are newer, else \
         delete it, and the nodes store theirs"
    )]
    NoManifest {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: Reason,
    },
    /// More than is read into memory.
    #[error("{bucket}: {key} has {size} bytes, and more than {most} are not read: is it ours?")]
    TooLarge {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        most: u64,
    },
    /// The local content is not, or no longer, what was to be stored. Nothing was stored.
    #[error("{bucket}: {key} was not stored, for the file changed while it was read")]
    Changed {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The local content could not be read or written. Nothing was stored.
    #[error("{bucket}: the local copy of {key} cannot be read or written: {source}")]
    Local {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store could not be reached or did not do it, after all retries.
    #[error(
        "{bucket}: {what} {key} failed: {reason}; check the endpoint, the network and the store"
    )]
    Failed {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What was tried.
        what: &'static str,
        /// What happened.
        reason: Reason,
    },
}

/// Why a manifest was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutManifestError {
    /// Another node stored one since: get it, merge, and try again. Nothing was stored.
    #[error("{bucket}: another node stored {key} since it was read")]
    Conflict {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// It failed. Whether it was stored is not known when the answer was lost: get it.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Says in our words what the library said.
pub(super) fn explain(
    bucket: &str,
    key: &Path,
    what: &'static str,
    error: &StoreError,
) -> ObjectError {
    let (bucket, key, reason) = (bucket.to_owned(), key.to_string(), innermost(error));
    // The status alone does not say whether the bucket or the key is absent.
    if reason.as_str().contains("NoSuchBucket") {
        return ObjectError::NoBucket { bucket, key };
    }
    if matches!(error, StoreError::NotFound { .. }) {
        return ObjectError::Missing { bucket, key };
    }
    if matches!(
        error,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }
    ) {
        return ObjectError::Denied {
            bucket,
            key,
            reason,
        };
    }
    ObjectError::Failed {
        bucket,
        key,
        what,
        reason,
    }
}

/// The cause at the bottom: what surrounds it repeats the URL and says little else.
pub(super) fn innermost(error: &StoreError) -> Reason {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    Reason::new(&text)
}
