//! The oldest kernel that the announcer works on.

use anycast_core::announce::AnnounceError;

/// IFA_PROTO came with Linux 5.18. An earlier kernel takes the tag and forgets it: the
/// announcer would not know its own boost again, let it expire and write it anew, for ever.
const OLDEST: (u32, u32) = (5, 18);

/// Refuses a kernel that is too old. One that does not say its release is believed.
pub(super) fn check() -> Result<(), AnnounceError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match version(&release) {
        Some(version) if version < OLDEST => Err(AnnounceError::Backend {
            what: format!(
                "the kernel announcer needs Linux 5.18 or later, and this is {}",
                release.trim()
            ),
            source: "earlier kernels do not keep the mark that tells our addresses from others'"
                .into(),
        }),
        Some(_) | None => Ok(()),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, good) in [
            ("5.15.0-91-generic\n", false),
            ("5.10.0-28-amd64", false),
            ("4.19", false),
            ("5.18.0", true),
            ("6.1.0-13-amd64", true),
            ("10.0", true),
        ] {
            assert_eq!(version(release).unwrap() >= OLDEST, good, "{release}");
        }
        assert_eq!(version("unknown"), None);
        assert!(check().is_ok());
    }
}
