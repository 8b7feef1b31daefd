//! What BIRD says on its control socket. Pure and total.
//!
//! A reply is lines of a four-digit code: `1007-text` when more follow, `0000 text` for the
//! last. A line that begins with a space has the code of the line before it; one that begins
//! with `+` was not asked for (a log message) and belongs to no reply. Codes, not words, are
//! what is decided by: words change between releases.

use std::collections::VecDeque;

/// The longest line, in bytes. A longer one ends the connection: a route with thousands of
/// communities is shorter.
pub const MAX_LINE: usize = 64 << 10;

/// The longest reply, in bytes. A longer one ends the connection: we ask for single routes, and
/// where BIRD shows a whole link-state database, this holds some 70,000 external routes.
pub const MAX_REPLY: usize = 4 << 20;

/// One line of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its code, its own or the one it continues.
    pub code: u16,
    /// Its text, without code and separator. Not cleaned: it may hold control characters.
    pub text: String,
}

/// One whole reply: never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    lines: Vec<Line>,
    code: u16,
}

impl Reply {
    /// The code of its last line, which says how the command ended.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// Whether the command failed: 8xxx at run time, 9xxx in its syntax.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.code >= 8000
    }

    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The text of its last line.
    #[must_use]
    pub fn last_text(&self) -> &str {
        self.lines.last().map_or("", |line| line.text.as_str())
    }
}

/// Why what came is no reply of BIRD. The connection is of no use after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// A line without end.
    #[error("a line is longer than {MAX_LINE} bytes")]
    LongLine,
    /// A reply without end.
    #[error("a reply is longer than {MAX_REPLY} bytes")]
    LongReply,
    /// Not the protocol: another program listens there.
    #[error("{0:?} is no line of BIRD's protocol; is this BIRD's control socket?")]
    NotBird(String),
}

/// Makes replies of the bytes of a connection, however they are cut.
#[derive(Debug, Default)]
pub struct ReplyParser {
    line: Vec<u8>,
    lines: Vec<Line>,
    size: usize,
    replies: VecDeque<Reply>,
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
    /// [`ReplyError`]: close the connection; what came before is still there to be polled.
    pub fn handle_bytes(&mut self, mut bytes: &[u8]) -> Result<(), ReplyError> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.extend(line)?;
            self.end_of_line()?;
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.extend(bytes)
    }

    /// The next whole reply.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err(ReplyError::LongLine);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<(), ReplyError> {
        let line = std::mem::take(&mut self.line);
        self.size += line.len() + 1;
        if self.size > MAX_REPLY {
            return Err(ReplyError::LongReply);
        }
        let (code, is_last, text) = match line.split_first() {
            Some((b'+', _)) => return Ok(()),
            Some((b' ', text)) => match self.lines.last() {
                Some(before) => (before.code, false, text),
                None => return Err(not_bird(&line)),
            },
            Some(_) | None => coded(&line).ok_or_else(|| not_bird(&line))?,
        };
        self.lines.push(Line {
            code,
            text: String::from_utf8_lossy(text).into_owned(),
        });
        if is_last {
            self.size = 0;
            let lines = std::mem::take(&mut self.lines);
            self.replies.push_back(Reply { lines, code });
        }
        Ok(())
    }
}

/// `1234-text` or `1234 text`.
fn coded(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(4)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match rest.split_first() {
        Some((b'-', text)) => Some((code, false, text)),
        Some((b' ', text)) => Some((code, true, text)),
        Some(_) | None => None,
    }
}

fn not_bird(line: &[u8]) -> ReplyError {
    let start = line.get(..line.len().min(40)).unwrap_or_default();
    ReplyError::NotBird(String::from_utf8_lossy(start).into_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first reply in a text.
    pub(crate) fn reply(text: &str) -> Reply {
        let mut parser = ReplyParser::new();
        parser.handle_bytes(text.as_bytes()).unwrap();
        parser.poll_reply().unwrap()
    }

    const SHOWN: &str = "1007-Table export:\n 192.0.2.69/32 unicast [b 13:08:22.665] * (240)\n \tdev lo\n1008-\tType: device univ\n1012-\tBGP.local_pref: 200\n0000 \n";

    fn all(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let mut parser = ReplyParser::new();
        parser.handle_bytes(bytes)?;
        Ok(std::iter::from_fn(|| parser.poll_reply()).collect())
    }

    #[test]
    fn continued_lines_have_the_code_before_them() {
        let replies = all(format!("0001 BIRD 2.0.12 ready.\n{SHOWN}").as_bytes()).unwrap();
        assert_eq!(replies[0].code(), 1);
        assert_eq!(replies[0].last_text(), "BIRD 2.0.12 ready.");
        let codes: Vec<_> = replies[1].lines().iter().map(|line| line.code).collect();
        assert_eq!(codes, [1007, 1007, 1007, 1008, 1012, 0]);
        assert!(!replies[1].is_error());
    }

    #[test]
    fn what_was_not_asked_for_belongs_to_no_reply() {
        let replies = all(b"0002-Reading\n+Some log line\n0003 Reconfigured\n").unwrap();
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].lines().len(), 2);
        assert_eq!(replies[0].code(), 3);
    }

    #[test]
    fn errors_are_known_by_their_codes() {
        let replies = all(b"8001 Network not found\n9001 syntax error\n0015 x\n").unwrap();
        let errors: Vec<_> = replies.iter().map(Reply::is_error).collect();
        assert_eq!(errors, [true, true, false]);
    }

    #[test]
    fn half_a_reply_is_none_yet() {
        assert_eq!(all(b"1007-Table\n0000"), Ok(vec![]));
    }

    #[test]
    fn endless_lines_and_replies_are_cut_off() {
        assert_eq!(all(&vec![b'x'; MAX_LINE + 1]), Err(ReplyError::LongLine));
        let endless = "1000-0123456789012345678901234567890123456789\n".repeat(MAX_REPLY / 40);
        assert_eq!(all(endless.as_bytes()), Err(ReplyError::LongReply));
    }

    #[test]
    fn other_protocols_are_named() {
        for other in [
            "SSH-2.0-OpenSSH_9.2\n",
            " a continuation of nothing\n",
            "\n",
            "000\n",
            "0000\n",
            "00x0 \n",
            "HTTP/1.1 400 Bad Request\r\n",
        ] {
            let error = all(other.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("is this BIRD"), "{other:?}");
        }
    }

    proptest! {
        /// However the bytes are cut, the replies are the same.
        #[test]
        fn cuts_do_not_matter(cuts in proptest::collection::vec(1_usize..9, 0..64)) {
            let text = format!("0001 BIRD ready.\n{SHOWN}+log\n8001 Network not found\n");
            let mut parser = ReplyParser::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                parser.handle_bytes(now).unwrap();
                rest = later;
            }
            parser.handle_bytes(rest).unwrap();
            let replies: Vec<_> = std::iter::from_fn(|| parser.poll_reply()).collect();
            prop_assert_eq!(replies, all(text.as_bytes()).unwrap());
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = all(&bytes);
        }
    }
}
