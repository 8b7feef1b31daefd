//! File names as clients send them, checked.

use std::fmt;

use arcstr::ArcStr;

/// Longest name accepted, in bytes.
pub const MAX_NAME_LEN: usize = 1024;

/// File names that begin with this belong to the server (uploads that are not finished):
/// clients can neither read nor write them.
pub const RESERVED_PREFIX: &str = ".anycast-tftp-";

/// Why a name from the wire was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing is left when slashes and dots are taken away.
    #[error("the file name is empty")]
    Empty,
    /// Longer than [`MAX_NAME_LEN`].
    #[error("the file name is too long")]
    TooLong,
    /// A `..` component.
    #[error("the file name leads upwards")]
    Upwards,
    /// A control character, or bytes that are not UTF-8.
    #[error("the file name has an illegal character")]
    Character,
    /// It ends in a slash: a folder.
    #[error("the file name is a folder")]
    Folder,
    /// A component begins with [`RESERVED_PREFIX`].
    #[error("the file name is reserved")]
    Reserved,
}

/// A relative path below a store's root: components joined by single slashes, none of them
/// empty, `.` or `..`, UTF-8 without control characters. Cheap to clone, and one pointer in size: file
/// sync keeps each name several times.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(ArcStr);

impl FileName {
    /// Checks and normalises the name of a request.
    ///
    /// - Leading slashes are dropped: a root is all that a client can see, so `/boot/x` and
    ///   `boot/x` are one file.
    /// - A backslash is a slash: Windows boot programs ask for `\boot\bcd`. A file whose own
    ///   name has a backslash in it cannot be fetched.
    /// - Doubled slashes and `.` components are dropped.
    /// - `..` is refused even where it would stay inside the root.
    ///
    /// # Errors
    /// [`NameError`], which a server answers by ERROR 2 without touching the store.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| NameError::Character)?;
        if text.chars().any(char::is_control) {
            return Err(NameError::Character);
        }
        let is_separator = |c: char| c == '/' || c == '\\';
        let mut clean = String::with_capacity(text.len());
        for component in text.split(is_separator) {
            match component {
                "" | "." => continue,
                ".." => return Err(NameError::Upwards),
                reserved if reserved.starts_with(RESERVED_PREFIX) => {
                    return Err(NameError::Reserved);
                }
                ordinary => {
                    if !clean.is_empty() {
                        clean.push('/');
                    }
                    clean.push_str(ordinary);
                }
            }
        }
        if clean.is_empty() {
            return Err(NameError::Empty);
        }
        if text.ends_with(is_separator) {
            return Err(NameError::Folder);
        }
        Ok(Self(clean.into()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder (if any) and the last component.
    #[must_use]
    pub fn split(&self) -> (Option<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((folder, file)) => (Some(folder), file),
            None => (None, &self.0),
        }
    }
}

/// Maps by name can be asked by text.
impl std::borrow::Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<String, NameError> {
        FileName::from_wire(text.as_bytes()).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn one_file_has_one_name() {
        for spelling in ["boot/x", "/boot/x", "//boot///x", "./boot/./x", "\\boot\\x"] {
            assert_eq!(name(spelling).as_deref(), Ok("boot/x"), "{spelling}");
        }
        assert_eq!(name("%n%s$(reboot)").as_deref(), Ok("%n%s$(reboot)"));
        assert_eq!(name("..x").as_deref(), Ok("..x"));
    }

    #[test]
    fn nothing_leads_out() {
        for bad in ["..", "../x", "a/../b", "/..", "..\\x", "a\\..\\x"] {
            assert_eq!(name(bad), Err(NameError::Upwards), "{bad}");
        }
        for bad in ["", "/", "\\", ".", "././"] {
            assert_eq!(name(bad), Err(NameError::Empty), "{bad:?}");
        }
        assert_eq!(name("a/"), Err(NameError::Folder));
        assert_eq!(name("a\nb"), Err(NameError::Character));
        assert_eq!(name("a\u{85}b"), Err(NameError::Character));
        assert_eq!(FileName::from_wire(b"a\0b"), Err(NameError::Character));
        assert_eq!(FileName::from_wire(b"\xff"), Err(NameError::Character));
        assert_eq!(name(&"x".repeat(1025)), Err(NameError::TooLong));
        assert_eq!(name("a/.anycast-tftp-1"), Err(NameError::Reserved));
    }
}
