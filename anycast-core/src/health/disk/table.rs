//! The table of a check of kind `disk`.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{DiskCheck, Size};
use crate::config::check::CheckContext;
use crate::health::BuildCheck;

/// The keys of a check of kind `disk`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DiskTable {
    /// An absolute path on the file system.
    pub path: PathBuf,
    /// Least free space: bytes, or `"2GiB"`.
    pub min_free: Option<Size>,
    /// Least free space in percent, 1 to 99.
    pub min_free_percent: Option<u8>,
    /// Least number of free inodes.
    pub min_free_inodes: Option<u64>,
    /// Least free inodes in percent, 1 to 99.
    pub min_free_inodes_percent: Option<u8>,
    /// Whether the file system may be read-only. Default false.
    #[serde(default)]
    pub allow_read_only: bool,
}

impl DiskTable {
    /// What builds the check.
    ///
    /// # Errors
    /// One line that names the key, what is wrong and what to do.
    pub fn build(&self, _: &CheckContext<'_>) -> Result<BuildCheck, String> {
        if !self.path.is_absolute() {
            return Err(format!(
                "path: {} is not an absolute path; write it in full",
                self.path.display()
            ));
        }
        let mut check = DiskCheck::new(&self.path);
        if let Some(size) = self.min_free {
            check = check.with_min_free(size.bytes());
        }
        if let Some(percent) = percent("min_free_percent", self.min_free_percent)? {
            check = check.with_min_free_percent(percent);
        }
        if let Some(inodes) = self.min_free_inodes {
            check = check.with_min_free_inodes(inodes);
        }
        let key = "min_free_inodes_percent";
        if let Some(percent) = percent(key, self.min_free_inodes_percent)? {
            check = check.with_min_free_inodes_percent(percent);
        }
        if self.allow_read_only {
            if self.min_free.is_none()
                && self.min_free_percent.is_none()
                && self.min_free_inodes.is_none()
                && self.min_free_inodes_percent.is_none()
            {
                return Err(
                    "allow_read_only: then nothing is left to check; set min_free too".to_owned(),
                );
            }
            check = check.with_read_only_allowed();
        }
        Ok(Arc::new(move || Box::new(check.clone())))
    }
}

fn percent(key: &str, value: Option<u8>) -> Result<Option<u8>, String> {
    match value {
        Some(0 | 100..) => Err(format!("{key}: must be between 1 and 99")),
        Some(1..=99) | None => Ok(value),
    }
}
