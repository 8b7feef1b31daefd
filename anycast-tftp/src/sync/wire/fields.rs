//! Tags, lengths, values.

use super::WireError;

/// Fields that are written one after another.
pub(in crate::sync) struct Fields(pub(in crate::sync) Vec<u8>);

impl Fields {
    /// Values are parts of a frame, far below 4 GiB; a longer one would be cut.
    pub(in crate::sync) fn put(&mut self, tag: u8, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.push(tag);
        self.0.extend(length.to_be_bytes());
        self.0.extend(
            value
                .iter()
                .take(usize::try_from(length).unwrap_or(usize::MAX)),
        );
    }
}

/// The fields of one message, or of one of its parts.
pub(in crate::sync) struct Read<'a> {
    kind: u8,
    fields: Vec<(u8, &'a [u8])>,
}

impl<'a> Read<'a> {
    pub(in crate::sync) fn new(kind: u8, mut rest: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            let (head, after) = after.split_first_chunk().ok_or(WireError::Cut)?;
            let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
            let (value, after) = after.split_at_checked(length).ok_or(WireError::Cut)?;
            fields.push((tag, value));
            rest = after;
        }
        Ok(Self { kind, fields })
    }

    /// The first field of this tag.
    pub(in crate::sync) fn get(&self, tag: u8) -> Option<&'a [u8]> {
        self.all(tag).next()
    }

    pub(in crate::sync) fn all(&self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        let of_tag = self.fields.iter().filter(move |(found, _)| *found == tag);
        of_tag.map(|(_, value)| *value)
    }

    pub(in crate::sync) fn at_most(&self, tag: u8, most: usize) -> Result<(), WireError> {
        if self.all(tag).nth(most).is_some() {
            return Err(WireError::Items { kind: self.kind });
        }
        Ok(())
    }

    pub(in crate::sync) fn malformed(&self, tag: u8) -> WireError {
        let kind = self.kind;
        WireError::Field { kind, tag }
    }

    pub(in crate::sync) fn need(&self, tag: u8) -> Result<&'a [u8], WireError> {
        let kind = self.kind;
        self.get(tag).ok_or(WireError::Missing { kind, tag })
    }

    pub(in crate::sync) fn array<const N: usize>(&self, tag: u8) -> Result<[u8; N], WireError> {
        let value = self.need(tag)?.try_into();
        value.map_err(|_| self.malformed(tag))
    }

    pub(in crate::sync) fn u64(&self, tag: u8) -> Result<u64, WireError> {
        self.array(tag).map(u64::from_be_bytes)
    }

    pub(in crate::sync) fn text<T: std::str::FromStr>(&self, tag: u8) -> Result<T, WireError> {
        let text = std::str::from_utf8(self.need(tag)?).ok();
        let parsed = text.and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| self.malformed(tag))
    }
}
