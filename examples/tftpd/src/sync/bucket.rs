//! The table `[sync.bucket]`: a bucket of an S3-compatible store that has the files too, beside the
//! other nodes or, without `[mesh]`, in their place.
//!
//! ```toml
//! [sync.bucket]
//! name = "boot"
//! # endpoint = "https://s3.example.net"    # default: Amazon S3
//! # region = "eu-central-1"                # default: us-east-1, which stores other than Amazon's take
//! # prefix = "tftp"                        # all keys begin with it
//! # access_key_file = "/etc/anycast/s3-id" # each of one line; or instead of both:
//! # secret_key_file = "/etc/anycast/s3-secret"
//! # credentials = "/etc/anycast/s3"        # as ~/.aws/credentials; its [default] is taken
//! # ca = "/etc/anycast/s3-ca.pem"          # trusted besides the system's authorities
//! # interval = "5s"                        # how often it is asked for changes
//! ```
//!
//! Without keys, those of the environment (`AWS_ACCESS_KEY_ID`, …) or of the machine's role are
//! taken.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anycast_core::config::{ConfigError, Period, invalid};
use anycast_core::service::NodeName;
use anycast_tftp::sync::driver;
use anycast_tftp::sync::object::{BucketSettings, ObjectStoreBackend};
use serde::Deserialize;

/// What this node calls the bucket among its peers.
const PEER: &str = "bucket";
/// Default of `interval`.
const INTERVAL: Duration = Duration::from_secs(5);
/// Longer files hold no key and no certificates.
const MAX_FILE: u64 = 1 << 20;
/// Bits of the mode that a file with a key must not have: written by the group, anything for
/// others.
const FORBIDDEN_MODE: u32 = 0o027;

/// `[sync.bucket]` as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BucketTable {
    name: String,
    endpoint: Option<String>,
    region: Option<String>,
    prefix: Option<String>,
    access_key_file: Option<PathBuf>,
    secret_key_file: Option<PathBuf>,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
    interval: Option<Period>,
}

/// What `[sync.bucket]` says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketConfig {
    name: String,
    endpoint: Option<String>,
    region: Option<String>,
    prefix: Option<String>,
    key: Option<AccessKey>,
    authorities: Vec<u8>,
    interval: Duration,
    peer: NodeName,
}

/// An access key. Its secret is never shown.
#[derive(Clone, PartialEq, Eq)]
struct AccessKey {
    id: String,
    secret: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

impl BucketConfig {
    /// As the driver takes it.
    pub(super) fn driver(&self) -> driver::BucketConfig {
        driver::BucketConfig {
            settings: self.settings(),
            name: self.peer.clone(),
            interval: self.interval,
        }
    }

    fn settings(&self) -> BucketSettings {
        let mut settings = BucketSettings::new(&self.name).authorities(self.authorities.as_slice());
        if let Some(endpoint) = &self.endpoint {
            settings = settings.endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            settings = settings.region(region);
        }
        if let Some(prefix) = &self.prefix {
            settings = settings.prefix(prefix);
        }
        if let Some(key) = &self.key {
            settings = settings.access_key(&key.id, &key.secret);
        }
        settings
    }
}

impl BucketTable {
    /// Checks it, and reads the files that it names. Nothing is sent.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub(super) fn resolve(
        &self,
        path: &Path,
        nodes: &[&NodeName],
    ) -> Result<BucketConfig, ConfigError> {
        let fault =
            |key: &str, reason: String| invalid(path, format!("[sync.bucket] {key}"), reason);
        let Some(peer) = PEER.parse().ok().filter(|peer| !nodes.contains(&peer)) else {
            let reason = format!("a node is called {PEER}, as the bucket is; rename the node");
            return Err(invalid(path, "[sync.bucket]", reason));
        };
        let interval = self.interval.map_or(INTERVAL, Period::get);
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(3600));
        if !(min..=max).contains(&interval) {
            return Err(fault(
                "interval",
                format!("must be between {min:?} and {max:?}"),
            ));
        }
        let authorities = match &self.ca {
            None => Vec::new(),
            Some(ca) => authorities(ca).map_err(|reason| fault("ca", reason))?,
        };
        let config = BucketConfig {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            key: self.key().map_err(|(key, reason)| fault(key, reason))?,
            authorities,
            interval,
            peer,
        };
        match ObjectStoreBackend::new(&config.settings()) {
            Ok(_) => Ok(config),
            Err(error) => Err(invalid(path, "[sync.bucket]", error.to_string())),
        }
    }

    /// The access key, or what is wrong with which key of the table.
    fn key(&self) -> Result<Option<AccessKey>, (&'static str, String)> {
        match (
            &self.access_key_file,
            &self.secret_key_file,
            &self.credentials,
        ) {
            (None, None, None) => Ok(None),
            (Some(id), Some(secret), None) => {
                let line = |key, path| match read(path, FORBIDDEN_MODE) {
                    Ok(text) => one_word(path, &text).map_err(|reason| (key, reason)),
                    Err(reason) => Err((key, reason)),
                };
                Ok(Some(AccessKey {
                    id: line("access_key_file", id)?,
                    secret: line("secret_key_file", secret)?,
                }))
            }
            (None, None, Some(file)) => {
                let text = read(file, FORBIDDEN_MODE);
                let key = text.and_then(|text| of_profile(file, &text));
                key.map(Some).map_err(|reason| ("credentials", reason))
            }
            (None, Some(_), None) => {
                let reason = "is missing: it goes with secret_key_file".to_owned();
                Err(("access_key_file", reason))
            }
            (Some(_), None, None) => {
                let reason = "is missing: it goes with access_key_file".to_owned();
                Err(("secret_key_file", reason))
            }
            (_, _, Some(_)) => {
                let reason = "is instead of access_key_file and secret_key_file; remove one or \
                              the others";
                Err(("credentials", reason.to_owned()))
            }
        }
    }
}

/// A regular file's text, unless its mode has a bit that it must not have.
fn read(path: &Path, forbidden: u32) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        format!("{shown}: cannot be read: {error}; check the path and its permissions")
    };
    if !path.is_absolute() {
        return Err(format!("{shown} is not an absolute path"));
    }
    // A FIFO would block, and a device might not end.
    let is_file = |metadata: &std::fs::Metadata| metadata.is_file() && metadata.len() <= MAX_FILE;
    if !is_file(&std::fs::metadata(path).map_err(unreadable)?) {
        return Err(format!("{shown}: is no regular file of at most 1 MiB"));
    }
    let file = File::open(path).map_err(unreadable)?;
    // Of what was opened: the path may lead elsewhere by now.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(format!(
            "{shown}: its mode is {mode:04o}, so that others could read or change it; run chmod 600 \
             on it, and replace the key if others had access"
        ));
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE).read_to_string(&mut text);
    read.map_err(unreadable)?;
    Ok(text)
}

fn one_word(path: &Path, text: &str) -> Result<String, String> {
    let word = text.trim();
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        let shown = path.display();
        return Err(format!(
            "{shown}: must have one line with nothing but the key"
        ));
    }
    Ok(word.to_owned())
}

/// What `[default]` says, or what stands before any section.
fn of_profile(path: &Path, text: &str) -> Result<AccessKey, String> {
    let (mut id, mut secret) = (None, None);
    let shown = path.display();
    let mut is_default = true;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            is_default = section.trim_end_matches(']').trim() == "default";
        }
        let Some((key, value)) = line.split_once('=').filter(|_| is_default) else {
            continue;
        };
        match key.trim() {
            "aws_access_key_id" => id = Some(one_word(path, value)?),
            "aws_secret_access_key" => secret = Some(one_word(path, value)?),
            "aws_session_token" => {
                return Err(format!(
                    "{shown}: aws_session_token: a key that ends is of no use here; make one that stays"
                ));
            }
            _ => {}
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(AccessKey { id, secret }),
        (_, _) => Err(format!(
            "{shown}: its section [default] must have aws_access_key_id and aws_secret_access_key"
        )),
    }
}

fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    let text = read(path, 0)?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(text.into_bytes());
    }
    let shown = path.display();
    Err(format!(
        "{shown}: has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn resolve(text: &str) -> Result<BucketConfig, String> {
        let table: BucketTable = toml::from_str(text).map_err(|error| error.to_string())?;
        let node: NodeName = "ams1".parse().unwrap();
        let resolved = table.resolve(Path::new("tftpd.toml"), &[&node]);
        resolved.map_err(|error| error.to_string())
    }

    fn write(path: &Path, text: &str, mode: u32) -> String {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_key_is_taken_from_two_files_or_from_one() {
        let folder = tempfile::tempdir().unwrap();
        let id = write(&folder.path().join("id"), "AKIA1\n", 0o600);
        let secret = write(&folder.path().join("secret"), " hush\n", 0o640);
        let text = "[other]\naws_access_key_id = no\n[default]\n# a comment = none\n\
                    aws_access_key_id = AKIA1\naws_secret_access_key=hush\n";
        let both = write(&folder.path().join("credentials"), text, 0o600);
        let one = resolve(&format!("name = 'boot'\ncredentials = '{both}'")).unwrap();
        let two = format!("name = 'boot'\naccess_key_file = '{id}'\nsecret_key_file = '{secret}'");
        assert_eq!(resolve(&two).unwrap(), one);
        let shown = format!("{one:?}");
        assert!(
            shown.contains("AKIA1") && !shown.contains("hush"),
            "{shown}"
        );
        assert_eq!(one.interval, INTERVAL);
        assert_eq!(resolve("name = 'boot'").unwrap().key, None);
    }

    #[test]
    fn what_cannot_work_is_said_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| write(&folder.path().join(name), text, mode);
        let (id, open) = (file("id", "AKIA1", 0o600), file("open", "hush", 0o644));
        let (empty, half) = (
            file("empty", "\n", 0o600),
            file("half", "aws_access_key_id = a\n", 0o600),
        );
        let text = "aws_access_key_id = a\naws_secret_access_key = b\naws_session_token = c\n";
        let ends = file("ends", text, 0o600);
        let place = folder.path().display();
        for (text, why) in [
            ("".to_owned(), "the bucket has no name"),
            (
                "endpoint = 's3.example.net'".to_owned(),
                "neither https:// nor",
            ),
            ("prefix = 'a//b'".to_owned(), "the prefix"),
            ("interval = '1ms'".to_owned(), "interval: must be"),
            (
                format!("access_key_file = '{id}'"),
                "secret_key_file: is missing",
            ),
            (
                format!("secret_key_file = '{id}'"),
                "access_key_file: is missing",
            ),
            (
                format!("access_key_file = '{id}'\ncredentials = '{id}'"),
                "is instead of",
            ),
            (
                format!("access_key_file = '{id}'\nsecret_key_file = '{open}'"),
                "its mode is 0644",
            ),
            (
                format!("access_key_file = '{id}'\nsecret_key_file = '{empty}'"),
                "nothing but the key",
            ),
            (
                format!("credentials = '{half}'"),
                "must have aws_access_key_id",
            ),
            (format!("credentials = '{ends}'"), "aws_session_token"),
            (format!("credentials = '{place}/none'"), "cannot be read"),
            ("credentials = 'none'".to_owned(), "not an absolute path"),
            (format!("credentials = '{place}'"), "no regular file"),
            (format!("ca = '{id}'"), "no certificate"),
        ] {
            let name = if text.is_empty() { "" } else { "boot" };
            let said = resolve(&format!("name = '{name}'\n{text}")).unwrap_err();
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
            assert!(said.contains("[sync.bucket]"), "{said}");
        }
        let table: BucketTable = toml::from_str("name = 'boot'").unwrap();
        let node: NodeName = PEER.parse().unwrap();
        let said = table
            .resolve(Path::new("tftpd.toml"), &[&node])
            .unwrap_err();
        assert!(said.to_string().contains("rename the node"), "{said}");
    }
}
