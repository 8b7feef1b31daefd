//! What is asked, which answer is right, and who is to give it.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

/// Most answers that one question may expect.
const MAX_EXPECTED: usize = 64;
/// Longest identity or expected answer, in bytes.
const MAX_TEXT: usize = 255;

/// Why a question was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// Not a domain name.
    #[error(
        "{text:?} is not a domain name ({reason}); write one such as \"health.example.com\", international names as \"xn--…\""
    )]
    Name {
        /// What was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// Not a type that can be asked for.
    #[error(
        "{text:?} is not a record type to ask for; write one such as \"A\", \"AAAA\", \"SOA\", \"NS\" or \"TXT\""
    )]
    Type {
        /// What was given.
        text: String,
    },
    /// Not an answer of that type.
    #[error("{text:?} is not the data of a record of type {kind}; write it as dig prints it")]
    Answer {
        /// What was given.
        text: String,
        /// The type asked for.
        kind: String,
    },
    /// Answers of this type cannot be compared.
    #[error(
        "records of type {kind} cannot be compared with a text; expect any, or ask for another type"
    )]
    Incomparable {
        /// The type asked for.
        kind: String,
    },
    /// No answer, or too many.
    #[error("{count} expected answers; name between 1 and {MAX_EXPECTED}")]
    Count {
        /// How many were given.
        count: usize,
    },
    /// Not a response code.
    #[error(
        "{text:?} is not a response code; write one such as \"NOERROR\", \"NXDOMAIN\" or \"REFUSED\""
    )]
    Rcode {
        /// What was given.
        text: String,
    },
    /// An identity that is empty, too long, or has bad hexadecimal digits.
    #[error(
        "{text:?} is not an identity; write what the server is configured to say, 1 to {MAX_TEXT} bytes, as text or as 0x and hexadecimal digits"
    )]
    Identity {
        /// What was given.
        text: String,
    },
}

/// The class of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
#[non_exhaustive]
pub enum Class {
    /// The Internet. The default.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "IN"))]
    Internet,
    /// Chaos: what servers say about themselves, such as `version.server`.
    #[cfg_attr(feature = "serde", serde(rename = "CH"))]
    Chaos,
}

/// What is asked, and which answer is right.
///
/// A record counts when it is of the type and class asked for, and its owner is the name asked
/// for or one that CNAME records of the answer lead to.
#[derive(Debug, Clone)]
pub struct Question {
    pub(super) name: Name,
    pub(super) kind: RecordType,
    pub(super) class: DNSClass,
    pub(super) recursion: bool,
    pub(super) expected: Expected,
}

/// Which answer is right.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// NOERROR and at least one record.
    Any,
    /// NOERROR and, among the records, all of these.
    Contains(Vec<Wanted>),
    /// NOERROR and these records, no others.
    Equals(Vec<Wanted>),
    /// This response code, whatever the records.
    Rcode(u16),
    /// As `Equals`, and another answer means that another node gave it.
    Node(Wanted),
}

impl Question {
    /// Asks for records of a type: `A`, `AAAA`, `SOA`, `NS`, `TXT`, … in class IN, with
    /// recursion desired, and expects NOERROR with at least one of them.
    ///
    /// # Errors
    /// [`QuestionError::Name`], [`QuestionError::Type`].
    pub fn new(name: &str, kind: &str) -> Result<Self, QuestionError> {
        Ok(Self {
            name: domain_name(name)?,
            kind: record_type(kind)?,
            class: DNSClass::IN,
            recursion: true,
            expected: Expected::Any,
        })
    }

    /// Asks in another class.
    #[must_use]
    pub const fn with_class(mut self, class: Class) -> Self {
        self.class = match class {
            Class::Internet => DNSClass::IN,
            Class::Chaos => DNSClass::CH,
        };
        self
    }

    /// Whether recursion is desired (the flag RD). Default: yes. Authoritative servers do not
    /// mind; resolvers may refuse without.
    #[must_use]
    pub const fn with_recursion(mut self, desired: bool) -> Self {
        self.recursion = desired;
        self
    }

    /// Expects all of these records, and perhaps others. Each is written as `dig` prints it;
    /// of a TXT record, the text without quotes. Addresses are compared as addresses, names
    /// without regard to case or a dot at the end.
    ///
    /// # Errors
    /// [`QuestionError::Answer`], [`QuestionError::Incomparable`], [`QuestionError::Count`].
    pub fn containing<T: AsRef<str>>(mut self, answers: &[T]) -> Result<Self, QuestionError> {
        self.expected = Expected::Contains(self.wanted(answers)?);
        Ok(self)
    }

    /// Expects these records and no others; otherwise as [`Self::containing`].
    ///
    /// # Errors
    /// As [`Self::containing`].
    pub fn equalling<T: AsRef<str>>(mut self, answers: &[T]) -> Result<Self, QuestionError> {
        self.expected = Expected::Equals(self.wanted(answers)?);
        Ok(self)
    }

    /// Expects this response code, such as `NXDOMAIN`, with whatever records. `NOERROR`
    /// accepts an answer without any.
    ///
    /// # Errors
    /// [`QuestionError::Rcode`].
    pub fn with_rcode(mut self, rcode: &str) -> Result<Self, QuestionError> {
        self.expected = Expected::Rcode(rcode_number(rcode)?);
        Ok(self)
    }

    fn wanted<T: AsRef<str>>(&self, answers: &[T]) -> Result<Vec<Wanted>, QuestionError> {
        if answers.is_empty() || answers.len() > MAX_EXPECTED {
            let count = answers.len();
            return Err(QuestionError::Count { count });
        }
        let wanted = |text: &T| Wanted::new(self.kind, text.as_ref());
        answers.iter().map(wanted).collect()
    }
}

/// One record's data, to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(Name),
    /// The strings of a TXT record, joined.
    Text(String),
    /// Fields as `dig` prints them, [`squeezed`].
    Fields(String),
}

impl Wanted {
    fn new(kind: RecordType, text: &str) -> Result<Self, QuestionError> {
        let wrong = || QuestionError::Answer {
            text: text.to_owned(),
            kind: kind.to_string(),
        };
        if text.is_empty() {
            return Err(wrong());
        }
        if kind == RecordType::A {
            return text.parse().map(Self::V4).map_err(|_| wrong());
        }
        if kind == RecordType::AAAA {
            return text.parse().map(Self::V6).map_err(|_| wrong());
        }
        if [RecordType::NS, RecordType::CNAME, RecordType::PTR].contains(&kind) {
            return domain_name(text).map(Self::Name).map_err(|_| wrong());
        }
        if kind == RecordType::TXT {
            return Ok(Self::Text(text.to_owned()));
        }
        let in_fields = [
            RecordType::MX,
            RecordType::SOA,
            RecordType::SRV,
            RecordType::CAA,
        ];
        if in_fields.contains(&kind) {
            return Ok(Self::Fields(squeezed(text)));
        }
        let kind = kind.to_string();
        Err(QuestionError::Incomparable { kind })
    }

    pub(super) fn is(&self, data: &RData) -> bool {
        match self {
            Self::V4(address) => matches!(data, RData::A(a) if a.0 == *address),
            Self::V6(address) => matches!(data, RData::AAAA(a) if a.0 == *address),
            Self::Name(name) => {
                matches!(data, RData::NS(ns) if ns.0 == *name)
                    || matches!(data, RData::CNAME(cname) if cname.0 == *name)
                    || matches!(data, RData::PTR(ptr) if ptr.0 == *name)
            }
            Self::Text(text) => {
                matches!(data, RData::TXT(txt) if txt.txt_data.concat() == text.as_bytes())
            }
            Self::Fields(fields) => squeezed(&printed(data)) == *fields,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Fields(fields) => fields.fmt(f),
        }
    }
}

/// A record's data as `dig` prints it. Not every kind of data can be printed, and `to_string`
/// would panic then.
pub(super) fn printed(data: &RData) -> String {
    let mut text = String::new();
    match write!(text, "{data}") {
        Ok(()) => text,
        Err(fmt::Error) => "(no text)".to_owned(),
    }
}

/// Fields in lower case, one space apart, without dots at the end of names.
fn squeezed(fields: &str) -> String {
    let words = fields.split_whitespace();
    let words = words.map(|word| word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase());
    words.collect::<Vec<_>>().join(" ")
}

/// Who is to answer.
#[derive(Debug, Clone)]
pub struct Identity(Who);

#[derive(Debug, Clone)]
enum Who {
    Nsid(Vec<u8>),
    Chaos(Question),
}

impl Identity {
    /// The NSID (RFC 5001) in the answer: a text, or `0x` and hexadecimal digits.
    ///
    /// # Errors
    /// [`QuestionError::Identity`].
    pub fn nsid(expected: &str) -> Result<Self, QuestionError> {
        let wrong = || QuestionError::Identity {
            text: expected.to_owned(),
        };
        let bytes = match expected.strip_prefix("0x") {
            Some(digits) => hexadecimal(digits).ok_or_else(wrong)?,
            None => expected.as_bytes().to_vec(),
        };
        if bytes.is_empty() || bytes.len() > MAX_TEXT {
            return Err(wrong());
        }
        Ok(Self(Who::Nsid(bytes)))
    }

    /// The text of `id.server` TXT in class CH (RFC 4892).
    ///
    /// # Errors
    /// [`QuestionError::Identity`].
    pub fn id_server(expected: &str) -> Result<Self, QuestionError> {
        Self::chaos("id.server.", expected)
    }

    /// The text of `hostname.bind` TXT in class CH, the older name of the same.
    ///
    /// # Errors
    /// [`QuestionError::Identity`].
    pub fn hostname_bind(expected: &str) -> Result<Self, QuestionError> {
        Self::chaos("hostname.bind.", expected)
    }

    fn chaos(name: &str, expected: &str) -> Result<Self, QuestionError> {
        if expected.is_empty() || expected.len() > MAX_TEXT {
            let text = expected.to_owned();
            return Err(QuestionError::Identity { text });
        }
        let mut question = Question::new(name, "TXT")?
            .with_class(Class::Chaos)
            .with_recursion(false);
        question.expected = Expected::Node(Wanted::Text(expected.to_owned()));
        Ok(Self(Who::Chaos(question)))
    }

    pub(super) fn nsid_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Who::Nsid(bytes) => Some(bytes),
            Who::Chaos(_) => None,
        }
    }

    /// The question of its own that it needs.
    pub(super) const fn question(&self) -> Option<&Question> {
        match &self.0 {
            Who::Nsid(_) => None,
            Who::Chaos(question) => Some(question),
        }
    }
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let all_digits = digits.bytes().all(|b| b.is_ascii_hexdigit());
    (all_digits && digits.len().is_multiple_of(2))
        .then(|| digits.as_bytes().chunks(2).map(pair).collect())?
}

fn domain_name(text: &str) -> Result<Name, QuestionError> {
    let wrong = |reason: String| QuestionError::Name {
        text: text.to_owned(),
        reason,
    };
    if text.is_empty() || !text.is_ascii() {
        return Err(wrong("it is empty or not ASCII".to_owned()));
    }
    let mut name = Name::from_ascii(text).map_err(|error| wrong(error.to_string()))?;
    name.set_fqdn(true);
    Ok(name)
}

/// Types that are no records, or none that a server gives out by name.
const NOT_ASKED: [RecordType; 9] = [
    RecordType::ANY,
    RecordType::ANAME,
    RecordType::AXFR,
    RecordType::IXFR,
    RecordType::KEY,
    RecordType::NULL,
    RecordType::SIG,
    RecordType::TSIG,
    RecordType::ZERO,
];

fn record_type(text: &str) -> Result<RecordType, QuestionError> {
    RecordType::from_str(&text.to_ascii_uppercase())
        .ok()
        .filter(|kind| !NOT_ASKED.contains(kind))
        .ok_or_else(|| QuestionError::Type {
            text: text.to_owned(),
        })
}

/// The response codes that answers carry, as they are written: RFC 6895 2.3.
const RCODES: [(u16, &str); 13] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (16, "BADVERS"),
    (23, "BADCOOKIE"),
];

fn rcode_number(text: &str) -> Result<u16, QuestionError> {
    RCODES
        .iter()
        .find(|(_, name)| name.eq_ignore_ascii_case(text))
        .map(|(number, _)| *number)
        .ok_or_else(|| QuestionError::Rcode {
            text: text.to_owned(),
        })
}

/// A response code as it is written.
pub(super) fn rcode_name(number: u16) -> String {
    RCODES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("RCODE{number}"), |(_, name)| (*name).to_owned())
}
