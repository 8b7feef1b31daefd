//! A daemon's socket to which the right is missing: whose it is, and what to do.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What to do about `EACCES`. `usual` is the group that packages give the socket.
pub(crate) fn denied(path: &Path, usual: &str) -> String {
    let group = std::fs::metadata(path).map(|file| file.gid());
    let named = group.as_ref().ok().and_then(|gid| name_of(*gid));
    match (group, named) {
        // Group 0 has no right either, or it would not have come to this.
        (Ok(0), _) => format!(
            "only its owner may use the socket; let the daemon give it to a group, such as \
             `{usual}`, and add SupplementaryGroups={usual} to the unit (root needs it as well, \
             since CAP_DAC_OVERRIDE is dropped)"
        ),
        (_, named) => {
            let group = named.unwrap_or_else(|| usual.to_owned());
            format!(
                "the socket is for its owner and the group `{group}`: add \
                 SupplementaryGroups={group} to the unit (root needs it as well, since \
                 CAP_DAC_OVERRIDE is dropped)"
            )
        }
    }
}

/// Of `/etc/group`; it is for a message only.
fn name_of(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}
