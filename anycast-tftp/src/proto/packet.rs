//! Packets on the wire (RFC 1350 §5, RFC 2347).
//!
//! [`Packet::parse`] takes any bytes, never panics, allocates nothing and borrows from the
//! datagram. The encoders write into the caller's buffer.
//!
//! What is done with input that the RFCs do not foresee:
//!
//! | input | decision |
//! |---|---|
//! | fewer than 2 bytes, an unknown opcode, DATA, ACK or ERROR under 4 bytes | dropped in silence: an answer to rubbish starts error loops (CVE-2024-2169) |
//! | a request over 512 bytes (RFC 2347), an unterminated string, an empty file name, no mode, an option without a value | ERROR 4 |
//! | mode `mail`, or any other than `octet` and `netascii` | ERROR 4 |
//! | an option that is unknown, malformed, out of range or given twice | omitted, see [`options`](super::options) |
//! | NULs after the last string of a request or OACK | ignored |
//! | bytes after an ACK (Cisco and Raspberry Pi pad them) | ignored |
//! | an ERROR text without NUL, or of any length | taken up to [`MAX_ERROR_MESSAGE`] bytes |
//! | an OACK with a fault | malformed; a server drops it, a client refuses with ERROR 8 |
//!
//! File names are handed on as they came, whatever bytes they hold: the store decides.

pub use super::options::{DEFAULT_BLKSIZE, MAX_BLKSIZE, MAX_NODE_LEN, MIN_BLKSIZE, Options};

use super::options::split_string;

/// Largest request, in bytes (RFC 2347). A longer one is refused.
pub const MAX_REQUEST: usize = 512;
/// Longest text of an ERROR, in bytes; longer text is cut, on input and output.
pub const MAX_ERROR_MESSAGE: usize = 255;
/// Buffer that holds every ERROR, in bytes.
pub const MAX_ERROR: usize = 4 + MAX_ERROR_MESSAGE + 1;
/// Buffer that holds every OACK that our encoder writes, in bytes.
pub const MAX_OPTION_ACK: usize = 192;
/// Bytes before the payload of a DATA packet.
pub const DATA_HEADER: usize = 4;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// A transfer mode (RFC 1350 §1). `mail` is obsolete and not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Bytes as they are.
    Octet,
    /// Text: lines end in CR LF on the wire, see [`netascii`](super::netascii).
    Netascii,
}

impl Mode {
    /// The mode as it is written in a request.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Octet => "octet",
            Self::Netascii => "netascii",
        }
    }
}

/// An error code (RFC 1350 appendix, RFC 2347).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// 0: see the message.
    NotDefined,
    /// 1: file not found.
    FileNotFound,
    /// 2: access violation.
    AccessViolation,
    /// 3: disk full or allocation exceeded.
    DiskFull,
    /// 4: illegal TFTP operation.
    IllegalOperation,
    /// 5: unknown transfer ID.
    UnknownTransfer,
    /// 6: file already exists.
    FileExists,
    /// 7: no such user.
    NoSuchUser,
    /// 8: option negotiation refused.
    OptionRefused,
    /// Any other; 9 and above.
    Other(u16),
}

impl From<u16> for ErrorCode {
    fn from(code: u16) -> Self {
        match code {
            0 => Self::NotDefined,
            1 => Self::FileNotFound,
            2 => Self::AccessViolation,
            3 => Self::DiskFull,
            4 => Self::IllegalOperation,
            5 => Self::UnknownTransfer,
            6 => Self::FileExists,
            7 => Self::NoSuchUser,
            8 => Self::OptionRefused,
            other => Self::Other(other),
        }
    }
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotDefined => 0,
            ErrorCode::FileNotFound => 1,
            ErrorCode::AccessViolation => 2,
            ErrorCode::DiskFull => 3,
            ErrorCode::IllegalOperation => 4,
            ErrorCode::UnknownTransfer => 5,
            ErrorCode::FileExists => 6,
            ErrorCode::NoSuchUser => 7,
            ErrorCode::OptionRefused => 8,
            ErrorCode::Other(other) => other,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::NotDefined => "not defined",
            Self::FileNotFound => "file not found",
            Self::AccessViolation => "access violation",
            Self::DiskFull => "disk full",
            Self::IllegalOperation => "illegal operation",
            Self::UnknownTransfer => "unknown transfer",
            Self::FileExists => "file exists",
            Self::NoSuchUser => "no such user",
            Self::OptionRefused => "option refused",
            Self::Other(_) => "unknown code",
        };
        write!(f, "{} ({name})", u16::from(*self))
    }
}

/// A read or write request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request<'a> {
    /// The name as it came: not empty, without NUL, otherwise any bytes.
    pub filename: &'a [u8],
    /// The mode.
    pub mode: Mode,
    /// The options that are known and well-formed.
    pub options: Options<'a>,
    /// How many others were omitted; not encoded.
    pub omitted: u16,
}

/// One packet, borrowed from its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packet<'a> {
    /// RRQ: the client wants to read.
    ReadRequest(Request<'a>),
    /// WRQ: the client wants to write.
    WriteRequest(Request<'a>),
    /// DATA.
    Data {
        /// Number of the block, modulo 2¹⁶.
        block: u16,
        /// Its bytes; fewer than the block size end the transfer.
        payload: &'a [u8],
    },
    /// ACK.
    Ack {
        /// Number of the last block received in order, modulo 2¹⁶.
        block: u16,
    },
    /// ERROR. Never answered.
    Error {
        /// The code.
        code: ErrorCode,
        /// The text, at most [`MAX_ERROR_MESSAGE`] bytes, any bytes but NUL.
        message: &'a [u8],
    },
    /// OACK: the options that the server agreed to.
    OptionAck(Options<'a>),
}

/// Why a datagram is not a TFTP packet. [`reply`](Self::reply) says whether to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Too short for its opcode, or for any.
    #[error("the datagram is {len} bytes long, too short for a packet")]
    TooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// None of the opcodes 1–6.
    #[error("unknown opcode {opcode}")]
    UnknownOpcode {
        /// The opcode.
        opcode: u16,
    },
    /// A request over [`MAX_REQUEST`] bytes.
    #[error("request longer than {MAX_REQUEST} bytes")]
    RequestTooLong,
    /// The file name or the mode does not end in NUL.
    #[error("unterminated string")]
    Unterminated,
    /// The file name is empty.
    #[error("empty file name")]
    EmptyFilename,
    /// Nothing follows the file name.
    #[error("no transfer mode")]
    MissingMode,
    /// Neither `octet` nor `netascii`.
    #[error("unsupported transfer mode")]
    UnknownMode,
    /// The options are not pairs of terminated strings.
    #[error("malformed option list")]
    OptionList,
    /// An OACK names an option that we do not know, so cannot have asked for.
    #[error("unrequested option")]
    UnknownOption,
    /// An OACK holds an option with a malformed value, or twice.
    #[error("bad value of option {option}")]
    BadOption {
        /// Name of the option.
        option: &'static str,
    },
}

impl ParseError {
    /// The ERROR that is due to the sender of a request with this fault; its text is the
    /// fault's [`Display`](std::fmt::Display). `None`: drop the datagram in silence.
    ///
    /// `datagram` is what was parsed. Only a read or write request is ever answered; a
    /// malformed OACK is not, here: the client that awaits it answers with ERROR 8.
    #[must_use]
    pub fn reply(&self, datagram: &[u8]) -> Option<ErrorCode> {
        let opcode = opcode(datagram)?;
        (opcode == RRQ || opcode == WRQ).then_some(ErrorCode::IllegalOperation)
    }
}

/// Why a packet was not encoded. Nothing usable was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The buffer is too small.
    #[error("the packet does not fit the buffer of {len} bytes")]
    Buffer {
        /// Length of the buffer in bytes.
        len: usize,
    },
    /// The request would exceed [`MAX_REQUEST`] bytes.
    #[error("the request would be longer than {MAX_REQUEST} bytes; use a shorter file name")]
    RequestTooLong,
    /// The file name is empty or holds a NUL.
    #[error("a file name must not be empty nor hold a NUL")]
    Filename,
    /// An option is out of range.
    #[error("an option is out of range")]
    Option,
}

fn opcode(datagram: &[u8]) -> Option<u16> {
    let (opcode, _) = datagram.split_first_chunk()?;
    Some(u16::from_be_bytes(*opcode))
}

impl<'a> Packet<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`ParseError`]; see the module's table for what is lenient and what is not.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let len = datagram.len();
        let (opcode, body) = datagram
            .split_first_chunk()
            .ok_or(ParseError::TooShort { len })?;
        let numbered = || {
            let (number, rest) = body
                .split_first_chunk()
                .ok_or(ParseError::TooShort { len })?;
            Ok((u16::from_be_bytes(*number), rest))
        };
        match u16::from_be_bytes(*opcode) {
            RRQ => Request::parse(body).map(Self::ReadRequest),
            WRQ => Request::parse(body).map(Self::WriteRequest),
            DATA => numbered().map(|(block, payload)| Self::Data { block, payload }),
            ACK => numbered().map(|(block, _)| Self::Ack { block }),
            ERROR => numbered().map(|(code, text)| Self::Error {
                code: code.into(),
                message: cut(text),
            }),
            OACK => Options::parse_acknowledgement(body).map(Self::OptionAck),
            opcode => Err(ParseError::UnknownOpcode { opcode }),
        }
    }

    /// Writes the packet to the start of `buffer` and returns its length in bytes.
    ///
    /// # Errors
    /// [`EncodeError`]; an ERROR text is cut rather than refused.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        match self {
            Self::ReadRequest(request) => encode_request(RRQ, request, buffer),
            Self::WriteRequest(request) => encode_request(WRQ, request, buffer),
            Self::Data { block, payload } => {
                let mut writer = Writer::new(buffer);
                writer.put(&data_header(*block));
                writer.put(payload);
                writer.finish()
            }
            Self::Ack { block } => {
                let mut writer = Writer::new(buffer);
                writer.put(&ack(*block));
                writer.finish()
            }
            Self::Error { code, message } => encode_error(*code, message, buffer),
            Self::OptionAck(options) => encode_option_ack(options, buffer),
        }
    }
}

impl<'a> Request<'a> {
    /// A request without options.
    #[must_use]
    pub fn new(filename: &'a [u8], mode: Mode) -> Self {
        Self {
            filename,
            mode,
            options: Options::default(),
            omitted: 0,
        }
    }

    fn parse(body: &'a [u8]) -> Result<Self, ParseError> {
        if body.len() + 2 > MAX_REQUEST {
            return Err(ParseError::RequestTooLong);
        }
        let (filename, rest) = split_string(body).ok_or(ParseError::Unterminated)?;
        if filename.is_empty() {
            return Err(ParseError::EmptyFilename);
        }
        if rest.iter().all(|byte| *byte == 0) {
            return Err(ParseError::MissingMode);
        }
        let (mode, rest) = split_string(rest).ok_or(ParseError::Unterminated)?;
        let mode = [Mode::Octet, Mode::Netascii]
            .into_iter()
            .find(|known| known.as_str().as_bytes().eq_ignore_ascii_case(mode))
            .ok_or(ParseError::UnknownMode)?;
        let (options, omitted) = Options::parse_request(rest)?;
        Ok(Self {
            filename,
            mode,
            options,
            omitted,
        })
    }
}

/// The text up to the first NUL, at most [`MAX_ERROR_MESSAGE`] bytes of it.
fn cut(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(MAX_ERROR_MESSAGE)];
    split_string(text).map_or(text, |(text, _)| text)
}

/// The four bytes before the payload of DATA `block`.
#[must_use]
pub const fn data_header(block: u16) -> [u8; DATA_HEADER] {
    let [high, low] = block.to_be_bytes();
    [0, DATA as u8, high, low]
}

/// The whole of ACK `block`.
#[must_use]
pub const fn ack(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, ACK as u8, high, low]
}

fn encode_request(
    opcode: u16,
    request: &Request<'_>,
    buffer: &mut [u8],
) -> Result<usize, EncodeError> {
    if request.filename.is_empty() || request.filename.contains(&0) {
        return Err(EncodeError::Filename);
    }
    if !request.options.is_valid() {
        return Err(EncodeError::Option);
    }
    let mut writer = Writer::new(buffer);
    writer.put(&opcode.to_be_bytes());
    writer.put_string(request.filename);
    writer.put_string(request.mode.as_str().as_bytes());
    request.options.for_each(|name, value| {
        writer.put_string(name);
        writer.put_string(value);
    });
    if writer.len > MAX_REQUEST {
        return Err(EncodeError::RequestTooLong);
    }
    writer.finish()
}

/// Writes an ERROR. The text ends at its first NUL and is cut to [`MAX_ERROR_MESSAGE`]
/// bytes; a buffer of [`MAX_ERROR`] bytes always suffices.
///
/// # Errors
/// [`EncodeError::Buffer`].
pub fn encode_error(
    code: ErrorCode,
    message: &[u8],
    buffer: &mut [u8],
) -> Result<usize, EncodeError> {
    let mut writer = Writer::new(buffer);
    writer.put(&ERROR.to_be_bytes());
    writer.put(&u16::from(code).to_be_bytes());
    writer.put_string(cut(message));
    writer.finish()
}

/// Writes an OACK, exactly as long as its options need (Cisco refuses trailing bytes).
/// A buffer of [`MAX_OPTION_ACK`] bytes always suffices.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_option_ack(options: &Options<'_>, buffer: &mut [u8]) -> Result<usize, EncodeError> {
    if !options.is_valid() {
        return Err(EncodeError::Option);
    }
    let mut writer = Writer::new(buffer);
    writer.put(&OACK.to_be_bytes());
    options.for_each(|name, value| {
        writer.put_string(name);
        writer.put_string(value);
    });
    writer.finish()
}

/// Appends to a buffer and counts what would have been needed.
struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(target) = self.buffer.get_mut(self.len..end) {
            target.copy_from_slice(bytes);
        }
        self.len = end;
    }

    fn put_string(&mut self, bytes: &[u8]) {
        self.put(bytes);
        self.put(&[0]);
    }

    const fn finish(self) -> Result<usize, EncodeError> {
        if self.len > self.buffer.len() {
            return Err(EncodeError::Buffer {
                len: self.buffer.len(),
            });
        }
        Ok(self.len)
    }
}

#[cfg(test)]
mod tests;
