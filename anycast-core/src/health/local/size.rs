//! Sizes as an operator writes them.

use std::fmt;

use serde::Deserialize;

/// A number of bytes: a whole number, or text such as `"512MiB"` or `"10GB"`.
///
/// `kB`, `MB`, `GB`, `TB` are powers of 1000; `KiB`, `MiB`, `GiB`, `TiB` powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

fn parse(text: &str) -> Option<Size> {
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let number: u64 = number.trim_end().parse().ok()?;
    number.checked_mul(factor).map(Size)
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size such as \"512MiB\" or \"10GB\"")
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                parse(text).ok_or_else(|| {
                    E::custom(format!(
                        "{text:?} is not a size; write a whole number and a unit: \
                         \"512MiB\" (powers of 1024) or \"10GB\" (powers of 1000)"
                    ))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("0B", 0),
            ("512MiB", 512 << 20),
            ("10 GB", 10_000_000_000),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(parse(text), Some(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "B",
            "10",
            "10G",
            "10g",
            "-1MB",
            "1.5GB",
            "99999999TiB",
            "MiB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
