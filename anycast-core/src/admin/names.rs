//! Names of users and groups, from the host's own files.
//!
//! Name services beyond them (LDAP, SSSD) are not asked: the endpoint must answer while the
//! network is down. A user whom these files do not know is told by number.

use std::fs::File;
use std::io::Read;

/// Most of a file that is read, in bytes; what comes after it is not known.
const MAX_FILE: u64 = 1 << 20;
/// Longest name that is shown, in characters.
const MAX_NAME: usize = 64;
/// The audit's "nobody logged in": -1.
const NO_LOGIN: u32 = u32::MAX;

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Users,
    Groups,
}

impl Table {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Users => "/etc/passwd",
            Self::Groups => "/etc/group",
        }
    }
}

/// The number of this name.
pub(super) fn id_of(table: Table, name: &str) -> Option<u32> {
    let text = read(table.path());
    entries(&text)
        .find(|(entry, _)| *entry == name)
        .map(|(_, id)| id)
}

/// The user's name, cut and cleaned.
pub(super) fn user(uid: u32) -> Option<String> {
    let text = read(Table::Users.path());
    let (name, _) = entries(&text).find(|(_, id)| *id == uid)?;
    Some(
        name.chars()
            .filter(|c| !c.is_control())
            .take(MAX_NAME)
            .collect(),
    )
}

/// Who logged in to the session that this process belongs to, as the kernel's audit keeps it
/// over `sudo` and `su`. `None` where nobody did, or where the kernel keeps no audit.
pub(super) fn login_of(pid: i32) -> Option<u32> {
    let text = read(&format!("/proc/{pid}/loginuid"));
    let uid = text.trim().parse().ok()?;
    (uid != NO_LOGIN).then_some(uid)
}

/// Names and numbers of lines such as `root:x:0:…`.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

/// What can be read of a file; nothing where it is not there.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before a failure counts.
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_broken_lines_passed_over() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\n\n:x:7:\nbroken\nbad:x:one:\nalice:x:1000:1000\n";
        let read: Vec<_> = entries(text).collect();
        assert_eq!(read, [("root", 0), ("alice", 1000)]);
    }

    #[test]
    fn the_hosts_own_root_is_known() {
        assert_eq!(user(0).as_deref(), Some("root"));
        assert_eq!(id_of(Table::Users, "root"), Some(0));
        assert_eq!(id_of(Table::Groups, "no such group"), None);
        assert_eq!(user(NO_LOGIN - 7), None);
    }
}
