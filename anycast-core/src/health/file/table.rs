//! The table of a check of kind `file`.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{FileCheck, Size};
use crate::config::Period;
use crate::config::check::CheckContext;
use crate::health::BuildCheck;

/// The keys of a check of kind `file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileTable {
    /// An absolute path.
    pub path: PathBuf,
    /// Whether it must be absent, as an operator's flag must. Default false.
    #[serde(default)]
    pub absent: bool,
    /// Unhealthy once it was last modified longer ago than this.
    pub max_age: Option<Period>,
    /// Unhealthy while it was last modified less long ago than this.
    pub min_age: Option<Period>,
    /// Unhealthy while it is smaller: bytes, or `"1MiB"`. 1 means: not empty. Default 0.
    pub min_size: Option<Size>,
}

impl FileTable {
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
        let check = if self.absent {
            let bounds = [
                ("max_age", self.max_age.is_some()),
                ("min_age", self.min_age.is_some()),
                ("min_size", self.min_size.is_some()),
            ];
            if let Some((key, _)) = bounds.into_iter().find(|(_, given)| *given) {
                return Err(format!(
                    "{key}: has no meaning for a file that must be absent; remove it or absent"
                ));
            }
            FileCheck::absent(&self.path)
        } else {
            self.present()?
        };
        Ok(Arc::new(move || Box::new(check.clone())))
    }

    fn present(&self) -> Result<FileCheck, String> {
        let mut check = FileCheck::new(&self.path);
        if let (Some(max), Some(min)) = (self.max_age, self.min_age)
            && min >= max
        {
            return Err(format!(
                "min_age: {min} is not below max_age, so the check could never succeed; \
                 lower it"
            ));
        }
        if let Some(max) = self.max_age {
            if max.get().is_zero() {
                return Err("max_age: must be longer than 0s".to_owned());
            }
            check = check.with_max_age(max.get());
        }
        if let Some(min) = self.min_age {
            check = check.with_min_age(min.get());
        }
        if let Some(size) = self.min_size {
            check = check.with_min_size(size.bytes());
        }
        Ok(check)
    }
}
