//! Contents on their way to the bucket and back.

use std::ops::Range;

use futures_util::stream::{self, StreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload, WriteMultipart};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::super::content::{ContentHash, ContentId};
use super::error::ObjectError;
use super::{ObjectStoreBackend, PART};

/// Parts of one content that are under way at a time, each of [`PART`] bytes in memory. More
/// wait.
const PARTS_UNDER_WAY: usize = 4;
/// Amazon takes 10,000 parts of one object. Parts of larger contents are larger.
const MAX_PARTS: u64 = 9_000;

/// What storing a content did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was sent.
    Uploaded,
    /// The bucket had it.
    AlreadyThere,
}

impl ObjectStoreBackend {
    /// Whether the bucket has a content, going by the size of what it has under that hash.
    ///
    /// # Errors
    /// [`ObjectError`] when it cannot be known.
    pub async fn has(&self, id: ContentId) -> Result<bool, ObjectError> {
        let key = self.object_key(id.hash);
        match self.store.head(&key).await {
            Ok(found) => Ok(found.size == id.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(&key, "looking for", &error)),
        }
    }

    /// Some bytes of a content, not verified: for those who verify them or the whole. Holds them
    /// in memory.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Damaged`] when it ends before `range` does, and
    /// others.
    pub async fn get(&self, id: ContentId, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.object_key(id.hash);
        let len = range.end - range.start;
        if range.end > id.size {
            return Err(self.damaged(&key));
        }
        match self.store.get_range(&key, range).await {
            Ok(bytes) if bytes.len() as u64 == len => Ok(bytes.into()),
            Ok(_) => Err(self.damaged(&key)),
            Err(error) => Err(self.failed(&key, "reading", &error)),
        }
    }

    /// Writes a whole content to `writer` and flushes it. Only when this succeeds has what was
    /// written the hash and the size; else it is of no use.
    ///
    /// Dropping the future stops it.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub async fn fetch(
        &self,
        id: ContentId,
        mut writer: impl AsyncWrite + Unpin,
    ) -> Result<(), ObjectError> {
        let key = self.object_key(id.hash);
        let starts = (0..id.size).step_by(PART);
        let parts = starts.map(|start| self.get(id, start..id.size.min(start + PART as u64)));
        let mut parts = stream::iter(parts).buffered(PARTS_UNDER_WAY);
        let mut hasher = blake3::Hasher::new();
        while let Some(part) = parts.next().await {
            let part = part?;
            hasher.update(&part);
            let written = writer.write_all(&part).await;
            written.map_err(|source| self.local(&key, source))?;
        }
        if hasher.finalize() != id.hash.0 {
            return Err(self.damaged(&key));
        }
        let flushed = writer.flush().await;
        flushed.map_err(|source| self.local(&key, source))
    }

    /// Stores a content unless the bucket has it. What `reader` gives is hashed on the way, so
    /// that nothing is ever stored under a hash that is not its own.
    ///
    /// Dropping the future stops it; parts that were sent by then stay in the bucket as an
    /// unfinished upload, which a rule of the bucket (`AbortIncompleteMultipartUpload`) removes.
    ///
    /// # Errors
    /// [`ObjectError::Changed`] when `reader` gives something else, and others.
    pub async fn put(
        &self,
        id: ContentId,
        mut reader: impl AsyncRead + Unpin,
    ) -> Result<Stored, ObjectError> {
        if self.has(id).await? {
            return Ok(Stored::AlreadyThere);
        }
        let key = self.object_key(id.hash);
        if id.size <= PART as u64 {
            self.put_whole(&key, id, &mut reader).await?;
        } else {
            self.put_parts(&key, id, &mut reader).await?;
        }
        Ok(Stored::Uploaded)
    }

    async fn put_whole(
        &self,
        key: &Path,
        id: ContentId,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), ObjectError> {
        let mut bytes = Vec::new();
        // One byte more shows that there are more.
        let read = reader.take(id.size + 1).read_to_end(&mut bytes).await;
        read.map_err(|source| self.local(key, source))?;
        if bytes.len() as u64 != id.size || blake3::hash(&bytes) != id.hash.0 {
            return Err(self.changed(key));
        }
        let put = self.store.put(key, PutPayload::from(bytes)).await;
        put.map_err(|error| self.failed(key, "storing", &error))?;
        Ok(())
    }

    async fn put_parts(
        &self,
        key: &Path,
        id: ContentId,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), ObjectError> {
        let failed = |error| self.failed(key, "storing", &error);
        let upload = self.store.put_multipart(key).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, part_size(id.size));
        match self.send_parts(key, id, reader, &mut upload).await {
            Ok(()) => upload.finish().await.map(drop).map_err(failed),
            Err(error) => {
                if let Err(left) = upload.abort().await {
                    let reason = super::error::innermost(&left);
                    tracing::warn!(bucket = %self.bucket, %key, %reason, "parts of an upload stay in the bucket");
                }
                Err(error)
            }
        }
    }

    async fn send_parts(
        &self,
        key: &Path,
        id: ContentId,
        reader: &mut (impl AsyncRead + Unpin),
        upload: &mut WriteMultipart,
    ) -> Result<(), ObjectError> {
        let mut hasher = blake3::Hasher::new();
        let mut reader = reader.take(id.size + 1);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = reader.read(&mut buffer).await;
            let read = read.map_err(|source| self.local(key, source))?;
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            let room = upload.wait_for_capacity(PARTS_UNDER_WAY).await;
            room.map_err(|error| self.failed(key, "storing", &error))?;
            upload.write(bytes);
        }
        if hasher.count() != id.size || hasher.finalize() != id.hash.0 {
            return Err(self.changed(key));
        }
        Ok(())
    }

    /// Removes a content, which no manifest may name any longer. It need not be there.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub async fn remove(&self, hash: ContentHash) -> Result<(), ObjectError> {
        let key = self.object_key(hash);
        match self.store.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&key, "removing", &error)),
        }
    }

    fn damaged(&self, key: &Path) -> ObjectError {
        ObjectError::Damaged {
            bucket: self.bucket.clone(),
            key: key.to_string(),
        }
    }

    fn changed(&self, key: &Path) -> ObjectError {
        ObjectError::Changed {
            bucket: self.bucket.clone(),
            key: key.to_string(),
        }
    }

    fn local(&self, key: &Path, source: std::io::Error) -> ObjectError {
        ObjectError::Local {
            bucket: self.bucket.clone(),
            key: key.to_string(),
            source,
        }
    }
}

/// [`PART`], or what keeps a content within [`MAX_PARTS`].
fn part_size(size: u64) -> usize {
    let least = size.div_ceil(MAX_PARTS).next_multiple_of(1 << 20);
    usize::try_from(least).map_or(usize::MAX, |least| least.max(PART))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_content_has_more_parts_than_a_store_takes() {
        assert_eq!(part_size(0), PART);
        assert_eq!(part_size(PART as u64 * 9_000), PART);
        for size in [PART as u64 * 9_000 + 1, 1 << 40, 5 << 40] {
            assert!(size.div_ceil(part_size(size) as u64) <= MAX_PARTS, "{size}");
        }
    }
}
