//! Accounts of this host.

use std::io;
use std::path::PathBuf;

const PASSWD: &str = "/etc/passwd";

/// An account of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    name: Option<String>,
    home: Option<PathBuf>,
}

/// Why an account was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// `/etc/passwd` cannot be read.
    #[error("{PASSWD} cannot be read: {source}; write numbers, such as \"65534:65534\"")]
    Unreadable {
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// No such account.
    #[error(
        "there is no account {text:?} in {PASSWD}; create it, or write numbers, such as \"65534:65534\""
    )]
    NotFound {
        /// What was looked up, cut to 64 characters.
        text: String,
    },
}

impl User {
    /// An account by its numbers; it need not have a name.
    #[must_use]
    pub const fn new(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            name: None,
            home: None,
        }
    }

    /// Looks up `name`, `uid`, or `uid:gid`.
    ///
    /// Names and single numbers are looked up in `/etc/passwd` alone, since a directory
    /// service may be slow or away. For its accounts write `uid:gid`.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn look_up(text: &str) -> Result<Self, UserError> {
        if let Some((uid, gid)) = text.split_once(':') {
            return match (uid.parse(), gid.parse()) {
                (Ok(uid), Ok(gid)) => Ok(Self::new(uid, gid)),
                (Err(_), _) | (_, Err(_)) => Err(not_found(text)),
            };
        }
        let passwd = std::fs::read(PASSWD).map_err(|source| UserError::Unreadable { source })?;
        find(&String::from_utf8_lossy(&passwd), text).ok_or_else(|| not_found(text))
    }

    /// The user's number.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The number of its primary group.
    #[must_use]
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// Its name, where it was looked up.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its home folder, where it was looked up.
    #[must_use]
    pub fn home(&self) -> Option<&std::path::Path> {
        self.home.as_deref()
    }
}

fn not_found(text: &str) -> UserError {
    UserError::NotFound {
        text: text.chars().take(64).collect(),
    }
}

/// `name:password:uid:gid:comment:home:shell` (passwd(5)); other lines are passed over.
fn find(passwd: &str, wanted: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?;
        if name.is_empty() || (name != wanted && uid != wanted) {
            return None;
        }
        Some(User {
            uid: uid.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            name: Some(name.to_owned()),
            home: fields.nth(1).map(PathBuf::from),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "root:x:0:0:root:/root:/bin/bash\n\n# x\n+::::::\n:x:1:1::/:\n\
                        nagios:x:112:118::/var/lib/nagios:/usr/sbin/nologin\nbad:x:y:z::/:\n";

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let nagios = find(TEXT, "nagios").unwrap();
        assert_eq!((nagios.uid(), nagios.gid()), (112, 118));
        assert_eq!(nagios.home(), Some("/var/lib/nagios".as_ref()));
        assert_eq!(find(TEXT, "112"), Some(nagios));
        for absent in ["", "+", "bad", "nobody", "1"] {
            assert_eq!(find(TEXT, absent), None, "{absent:?}");
        }
    }

    #[test]
    fn numbers_need_no_account() {
        assert_eq!(User::look_up("7:8").unwrap(), User::new(7, 8));
        assert_eq!(User::look_up("root").unwrap().uid(), 0);
        for bad in ["7:", ":8", "a:b", "-1:1", "no such account"] {
            let error = User::look_up(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }
}
