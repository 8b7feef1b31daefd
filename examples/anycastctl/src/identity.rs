//! `anycastctl identity`: a node's key, and what others know it by. Asks no node.

use std::path::PathBuf;

use anycast_core::mesh::identity::{Identity, IdentityError};
use clap::Subcommand;

/// Where the daemons look for it.
const DEFAULT: &str = "/var/lib/anycast/identity.pem";

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key in a file that is not there yet, and print its fingerprint
    New {
        /// The file
        #[arg(default_value = DEFAULT)]
        file: PathBuf,
    },
    /// Print the fingerprint, for the peers' configuration
    Show {
        /// The file
        #[arg(default_value = DEFAULT)]
        file: PathBuf,
    },
}

impl Key {
    /// The fingerprint, in one line.
    pub(crate) fn run(&self) -> Result<String, IdentityError> {
        let identity = match self {
            Self::New { file } => {
                let identity = Identity::generate()?;
                identity.save_new(file)?;
                identity
            }
            Self::Show { file } => Identity::load(file)?,
        };
        Ok(format!("{}\n", identity.fingerprint()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_what_is_shown_and_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity.pem");
        let made = Key::New { file: file.clone() }.run().unwrap();
        assert!(made.starts_with("sha256:") && made.ends_with('\n'));
        assert_eq!(Key::Show { file: file.clone() }.run().unwrap(), made);
        let error = Key::New { file }.run().unwrap_err().to_string();
        assert!(error.contains("File exists"), "{error}");
    }
}
