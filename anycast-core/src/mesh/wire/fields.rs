//! Tags, lengths and values.

use super::WireError;
use crate::health::Reason;

/// The fields of a message under construction.
pub(super) struct Fields(pub(super) Vec<u8>);

impl Fields {
    /// Values are names and numbers, far below 64 KiB; a longer one would be cut.
    pub(super) fn put(&mut self, tag: u8, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.push(tag);
        self.0.extend(length.to_be_bytes());
        self.0.extend(&value[..usize::from(length)]);
    }
}

/// The fields of one message, or of one of its parts.
pub(super) struct Read<'a>(pub(super) Vec<(u8, &'a [u8])>, u8);

impl<'a> Read<'a> {
    pub(super) fn new(kind: u8, mut rest: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            let (head, after) = after.split_first_chunk().ok_or(WireError::Cut)?;
            let length = usize::from(u16::from_be_bytes(*head));
            let value = after.get(..length).ok_or(WireError::Cut)?;
            fields.push((tag, value));
            rest = &after[length..];
        }
        Ok(Self(fields, kind))
    }

    /// The first field of this tag.
    pub(super) fn get(&self, tag: u8) -> Option<&'a [u8]> {
        let found = self.0.iter().find(|(found, _)| *found == tag);
        found.map(|(_, value)| *value)
    }

    /// Every field of this tag, in order.
    pub(super) fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        let of = self.0.iter().filter(move |(found, _)| *found == tag);
        of.map(|(_, value)| *value)
    }

    pub(super) fn need(&self, tag: u8) -> Result<&'a [u8], WireError> {
        let kind = self.1;
        self.get(tag).ok_or(WireError::Missing { kind, tag })
    }

    pub(super) fn array<const N: usize>(&self, tag: u8) -> Result<[u8; N], WireError> {
        let kind = self.1;
        let value = self.need(tag)?.try_into();
        value.map_err(|_| WireError::Field { kind, tag })
    }

    pub(super) fn text<T: std::str::FromStr>(&self, tag: u8) -> Result<T, WireError> {
        self.parse(tag, self.need(tag)?)
    }

    /// Every field of this tag as a name: at most `most`.
    pub(super) fn names<T: std::str::FromStr>(
        &self,
        tag: u8,
        most: usize,
    ) -> Result<Vec<T>, WireError> {
        if self.all(tag).count() > most {
            return Err(WireError::Services);
        }
        self.all(tag).map(|value| self.parse(tag, value)).collect()
    }

    /// Text for people, if it is there: cut and cleaned.
    pub(super) fn reason(&self, tag: u8) -> Option<Reason> {
        let text = String::from_utf8_lossy(self.get(tag)?);
        Some(Reason::new(&text))
    }

    /// A number that may be absent.
    pub(super) fn number(&self, tag: u8) -> Result<Option<u64>, WireError> {
        let found = self.get(tag).map(|_| self.array(tag)).transpose()?;
        Ok(found.map(u64::from_be_bytes))
    }

    fn parse<T: std::str::FromStr>(&self, tag: u8, value: &[u8]) -> Result<T, WireError> {
        let kind = self.1;
        let text = std::str::from_utf8(value).ok();
        let parsed = text.and_then(|text| text.parse().ok());
        parsed.ok_or(WireError::Field { kind, tag })
    }
}
