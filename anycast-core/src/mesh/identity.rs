//! The key of a node, and the fingerprints of its peers' keys.
//!
//! A node makes its own key (Ed25519) and keeps it in a file that only its user may read. Others know
//! it by the SHA-256 of its public key (the SubjectPublicKeyInfo of RFC 5280, section 4.1.2.7, as
//! HTTP's pins in RFC 7469 have it), written `sha256:` and 64 hexadecimal digits. The certificate
//! that TLS wants is made anew at each start; nothing in it but the key is looked at.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The longest file that is taken for a key, in bytes.
const MAX_FILE: u64 = 16 << 10;
const PREFIX: &str = "sha256:";

/// What is known of a peer's key. Equal if and only if the keys are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the key in a certificate. `None`: it is none.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        rest.is_empty()
            .then(|| Self::of_key(parsed.public_key().raw))
    }

    fn of_key(public_key: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, public_key);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fingerprint: write sha256: and 64 hexadecimal digits, as `anycastctl identity show` does"
)]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(PREFIX).ok_or(FingerprintError)?;
        let is_hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = digits.get(2 * index..2 * index + 2).filter(|_| is_hex);
            let parsed = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
            *byte = parsed.ok_or(FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

impl<'de> serde::Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error(
        "{}: its mode is {mode:o}; a key that others can read is no secret: chmod 600 it, and make \
         a new one if it may have been read",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a key in PEM, or of another kind.
    #[error("{}: no private key in PEM (PKCS#8, Ed25519): {reason}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No key or certificate could be made.
    #[error("a key cannot be made: {0}")]
    Make(String),
}

/// A node's key, and its certificate.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Identity {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

impl Identity {
    /// A new key, nowhere stored.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519);
        Self::of(key.map_err(|error| IdentityError::Make(error.to_string()))?)
    }

    fn of(key: KeyPair) -> Result<Self, IdentityError> {
        let made = CertificateParams::new(vec!["anycast-mesh".to_owned()]);
        let made = made.and_then(|params| params.self_signed(&key));
        let certificate = made.map_err(|error| IdentityError::Make(error.to_string()))?;
        let certificate = certificate.der().clone();
        let fingerprint = Fingerprint::of_certificate(&certificate)
            .ok_or_else(|| IdentityError::Make("its certificate cannot be read".to_owned()))?;
        Ok(Self {
            key,
            certificate,
            fingerprint,
        })
    }

    /// The key in this file.
    ///
    /// # Errors
    /// [`IdentityError::File`], [`IdentityError::Open`], [`IdentityError::NoKey`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let wrong = |source| IdentityError::File {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(wrong)?;
        let mode = file.metadata().map_err(wrong)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(wrong)?;
        let no_key = |reason: String| IdentityError::NoKey {
            path: path.to_owned(),
            reason,
        };
        let key = KeyPair::from_pem(&text).map_err(|error| no_key(error.to_string()))?;
        if !key.is_compatible(&PKCS_ED25519) {
            return Err(no_key("it is of another kind".to_owned()));
        }
        Self::of(key)
    }

    /// Puts the key into a file that is not there yet, readable by its owner alone, and on the disk
    /// when this returns.
    ///
    /// # Errors
    /// [`IdentityError::File`]; a file that is there is left alone.
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        let save = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(self.key.serialize_pem().as_bytes())?;
            file.sync_all()?;
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        save().map_err(|source| IdentityError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// By which others know it.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key as TLS wants it.
    pub(super) fn key_der(&self) -> Vec<u8> {
        self.key.serialize_der()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_the_same_fingerprint_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let first = Identity::generate().unwrap();
        first.save_new(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Identity::load(&path).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_ne!(
            first.fingerprint(),
            Identity::generate().unwrap().fingerprint()
        );
        let text = first.fingerprint().to_string();
        assert_eq!(text.parse(), Ok(first.fingerprint()));
        assert!(!format!("{first:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_file_that_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        std::fs::write(&path, "precious").unwrap();
        let error = Identity::generate().unwrap().save_new(&path).unwrap_err();
        assert!(error.to_string().contains("identity.pem"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn bad_files_are_refused_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let refused = |path: &Path| {
            let error = Identity::load(path).unwrap_err().to_string();
            assert_eq!(error.lines().count(), 1, "{error}");
            error
        };
        assert!(refused(&path).contains("No such file"));
        for text in [
            "",
            "nonsense",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options
                .open(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            assert!(refused(&path).contains("no private key"));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&path).contains("chmod 600"));
    }

    #[test]
    fn other_texts_are_no_fingerprints() {
        let good = format!("sha256:{}", "ab".repeat(32));
        assert!(good.parse::<Fingerprint>().is_ok());
        for bad in [
            "",
            "sha256:",
            "sha1:ab",
            &good[..70],
            &format!("{good}0"),
            &good.replace("ab", "+f"),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
        let certificate = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(Fingerprint::of_certificate(&certificate), None);
    }
}
