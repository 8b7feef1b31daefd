//! What FRR says on a daemon's vty socket. Pure and total.
//!
//! A command is sent as text and a NUL. Its reply is text, three NULs, and one byte of
//! status: 0 for success, 1 for a warning, 2 and above for an error. One command at a time.

/// The longest reply, in bytes: we ask for one session's routes at a time. A longer one ends
/// the connection.
pub const MAX_REPLY: usize = 16 << 20;

const END: [u8; 3] = [0; 3];

/// One whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What was printed.
    pub text: String,
    /// How the command ended.
    pub status: u8,
}

impl Reply {
    /// Whether the command was carried out: FRR says some failures by status, and some only
    /// in a line that begins with `%`.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let complains = self.text.lines().any(|line| line.starts_with('%'));
        self.status == 0 && !complains
    }
}

/// A reply without end. The connection is of no use after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reply is longer than {MAX_REPLY} bytes; is this FRR's vty socket?")]
pub struct TooLong;

/// Makes replies of the bytes of a connection, however they are cut.
#[derive(Debug, Default)]
pub struct ReplyParser {
    bytes: Vec<u8>,
    /// Up to here there is no end.
    looked_at: usize,
}

impl ReplyParser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what was received.
    ///
    /// # Errors
    /// [`TooLong`]: close the connection.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.bytes.len() + bytes.len() > MAX_REPLY {
            return Err(TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole reply.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        let rest = self.bytes.get(self.looked_at..).unwrap_or_default();
        let Some(found) = rest.windows(END.len()).position(|three| three == END) else {
            // The end may have begun.
            self.looked_at = self.bytes.len().saturating_sub(END.len() - 1);
            return None;
        };
        let end = self.looked_at + found;
        let Some(&status) = self.bytes.get(end + END.len()) else {
            self.looked_at = end;
            return None;
        };
        let text = self.bytes.get(..end).unwrap_or_default();
        let text = String::from_utf8_lossy(text).into_owned();
        self.bytes.drain(..end + END.len() + 1);
        self.looked_at = 0;
        Some(Reply { text, status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(parser: &mut ReplyParser) -> Vec<Reply> {
        std::iter::from_fn(|| parser.poll_reply()).collect()
    }

    #[test]
    fn status_and_percent_lines_are_failures() {
        let mut parser = ReplyParser::new();
        parser
            .handle_bytes(b"{}\n\0\0\0\0{\"warning\":\"x\"}\n\0\0\0\x01% Unknown command\n\0\0\0\x02%% odd\n\0\0\0\0\0\0\0\0")
            .unwrap();
        let replies = all(&mut parser);
        let ok: Vec<_> = replies.iter().map(Reply::is_success).collect();
        assert_eq!(ok, [true, false, false, false, true]);
        assert_eq!(replies[0].text, "{}\n");
        assert_eq!(replies[2].status, 2);
        assert_eq!(replies[4].text, "");
    }

    #[test]
    fn half_a_reply_is_none_yet() {
        let mut parser = ReplyParser::new();
        for part in [&b"text"[..], b"\0\0", b"\0"] {
            parser.handle_bytes(part).unwrap();
            assert_eq!(parser.poll_reply(), None);
        }
        parser.handle_bytes(b"\0").unwrap();
        assert_eq!(parser.poll_reply().unwrap().text, "text");
    }

    #[test]
    fn a_reply_without_end_is_cut_off() {
        let mut parser = ReplyParser::new();
        let part = vec![b'x'; 1 << 20];
        let endless = (0..32).find_map(|_| parser.handle_bytes(&part).err());
        assert_eq!(endless, Some(TooLong));
    }

    proptest! {
        /// However the bytes are cut, the replies are the same.
        #[test]
        fn cuts_do_not_matter(
            texts in proptest::collection::vec("[a-z\n%]{0,9}", 1..5),
            cuts in proptest::collection::vec(1_usize..7, 0..40),
        ) {
            let whole: Vec<u8> = texts
                .iter()
                .flat_map(|text| [text.as_bytes(), &[0, 0, 0, 1]].concat())
                .collect();
            let (mut parser, mut found, mut rest) = (ReplyParser::new(), Vec::new(), &whole[..]);
            for cut in cuts.into_iter().chain([whole.len()]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                parser.handle_bytes(now).unwrap();
                found.extend(all(&mut parser));
                rest = later;
            }
            let found: Vec<_> = found.into_iter().map(|reply| reply.text).collect();
            prop_assert_eq!(found, texts);
        }
    }
}
