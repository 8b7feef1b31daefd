//! The bearer token that orders over TCP need.

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Shortest token, in characters. 128 random bits are 22 characters of base64.
pub const MIN_TOKEN: usize = 16;
/// Longest token, in characters.
pub const MAX_TOKEN: usize = 512;
/// Bits of the mode that a token's file must not have: written by the group, anything for
/// others.
const FORBIDDEN_MODE: u32 = 0o027;

/// Why a token's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("token_file {}: cannot be read: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "token_file {}: its mode is {mode:04o}, so that others could read or change it; run \
         chmod 640 (or 600) on it, and replace the token if others had access",
        path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no regular file, or does not hold one line of the right length.
    #[error(
        "token_file {}: must be a regular file with one line of {MIN_TOKEN} to {MAX_TOKEN} \
         printable ASCII characters without spaces; make one with: openssl rand -base64 32",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Reads a token's file. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |source| TokenError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let malformed = || TokenError::Malformed {
            path: path.to_owned(),
        };
        // A FIFO would block, and a device might not end.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(malformed());
        }
        let file = File::open(path).map_err(unreadable)?;
        // Of what was opened: the path may lead elsewhere by now.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(malformed());
        }
        let mode = metadata.mode() & 0o7777;
        if mode & FORBIDDEN_MODE != 0 {
            return Err(TokenError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut bytes = Vec::new();
        let limit = MAX_TOKEN as u64 + 16;
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        Self::new(bytes.trim_ascii()).ok_or_else(malformed)
    }

    /// Wraps a token. `None` when it is too short, too long or holds other than printable
    /// ASCII characters.
    #[must_use]
    pub fn new(token: &[u8]) -> Option<Self> {
        let printable = token.iter().all(u8::is_ascii_graphic);
        let fits = (MIN_TOKEN..=MAX_TOKEN).contains(&token.len());
        (printable && fits).then(|| Self(token.into()))
    }

    /// Whether this was presented, in a time that does not depend on how much of it is right.
    /// (That its length can be told is no secret worth keeping.)
    #[must_use]
    pub fn is(&self, presented: &[u8]) -> bool {
        if presented.len() != self.0.len() {
            return false;
        }
        let difference = self
            .0
            .iter()
            .zip(presented)
            .fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
        black_box(difference) == 0
    }

    /// As text, to present it.
    #[must_use]
    pub fn expose(&self) -> &str {
        // It is ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GOOD: &str = "0123456789abcdef0123";

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_for_owner_and_group_is_read() {
        for mode in [0o600, 0o400, 0o640, 0o440] {
            let (_folder, path) = file(format!("  {GOOD}\n").as_bytes(), mode);
            let token = Token::read(&path).unwrap();
            assert!(token.is(GOOD.as_bytes()));
            assert!(!format!("{token:?}").contains("0123"));
        }
    }

    #[test]
    fn a_file_that_others_can_reach_is_refused() {
        for mode in [0o644, 0o604, 0o602, 0o660, 0o601] {
            let (_folder, path) = file(GOOD.as_bytes(), mode);
            let error = Token::read(&path).unwrap_err();
            assert!(matches!(error, TokenError::TooOpen { .. }), "{mode:o}");
            assert!(error.to_string().contains("chmod 640"));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = "x".repeat(MAX_TOKEN + 1);
        let contents: [&[u8]; 6] = [
            b"",
            b"short",
            b"two words of some length",
            b"0123456789abcdef\n0123456789abcdef",
            b"\xff\xfe0123456789abcdef0123456789",
            long.as_bytes(),
        ];
        for content in contents {
            let (_folder, path) = file(content, 0o600);
            let error = Token::read(&path).unwrap_err();
            assert!(matches!(error, TokenError::Malformed { .. }), "{error}");
        }
        let error = Token::read(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { .. }), "{error}");
        let error = Token::read(Path::new("/does/not/exist")).unwrap_err();
        assert!(matches!(error, TokenError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn only_the_whole_token_is_right() {
        let token = Token::new(GOOD.as_bytes()).unwrap();
        assert!(token.is(GOOD.as_bytes()));
        for wrong in [
            "",
            "0123456789abcdef012",
            "0123456789abcdef01234",
            "1123456789abcdef0123",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(token.expose(), GOOD);
    }
}
