//! A file's text, kept while it is read, so that every fault can name its line.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{ConfigError, MAX_FILE};

/// A configuration file and its text.
///
/// [`read`](super::read) is enough for a file whose tables are wholly known to its reader;
/// tables that are read in two steps ([`check`](super::check)) need the text again for the
/// place of a fault.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`]; [`ConfigError::NotAConfiguration`] for one that is larger
    /// than [`MAX_FILE`] or not a regular file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(ConfigError::NotAConfiguration {
                path: path.to_owned(),
                reason: format!("is not a regular file of at most {MAX_FILE} bytes"),
            });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Ok(Self::new(path, text))
    }

    /// A text that is already read; `path` is for the errors.
    #[must_use]
    pub fn new(path: &Path, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            text: text.into(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text as tables.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`].
    pub fn tables<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        tables(&self.path, &self.text)
    }

    /// A fault at this byte of the text.
    pub fn fault(&self, offset: usize, message: &str) -> ConfigError {
        fault(&self.path, &self.text, offset, message)
    }
}

pub(super) fn tables<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        fault(path, text, offset, error.message())
    })
}

fn fault(path: &Path, text: &str, offset: usize, message: &str) -> ConfigError {
    let before = text.get(..offset.min(text.len())).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: message.replace('\n', " "),
    }
}
