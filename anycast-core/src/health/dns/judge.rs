//! From the bytes of an answer to what it means: pure, and total on any bytes.
//!
//! Judged in the order in which the parts matter, so that an answer with a broken end still
//! tells who gave it up to there: header, question, TC, records, identity, response code,
//! content.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption, NSIDPayload};
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

use super::question::{Expected, Question, Wanted, printed, rcode_name};

/// Payload that queries offer to take: what crosses any network unfragmented (DNS flag day
/// 2020).
const PAYLOAD: u16 = 1232;
/// CNAME records followed in one answer; further names count as strangers.
const MAX_CHAIN: usize = 16;
/// Records of an answer that a reason shows.
const SHOWN: usize = 3;

/// One query on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a> {
    id: u16,
    question: &'a Question,
    nsid: Option<&'a [u8]>,
}

impl<'a> Query<'a> {
    /// `nsid`: the identity that the answer must carry.
    pub(super) const fn new(id: u16, question: &'a Question, nsid: Option<&'a [u8]>) -> Self {
        Self { id, question, nsid }
    }

    /// The query as it is sent; `None` when it cannot be written, which no name allows.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut asked = Asked::query(self.question.name.clone(), self.question.kind);
        asked.set_query_class(self.question.class);
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        if self.nsid.is_some() {
            // RFC 5001 2.1: the resolver asks by an empty option.
            let empty = NSIDPayload::new(Vec::new()).ok()?;
            edns.options_mut().insert(EdnsOption::NSID(empty));
        }
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.question.recursion;
        message.add_query(asked).set_edns(edns);
        message.to_vec().ok()
    }
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// As expected.
    Right,
    /// The answer to this query, and not as expected; why.
    Wrong(String),
    /// The answer to this query, cut off: ask again over TCP.
    Truncated,
    /// No answer to this query; what it is instead.
    NotOurs(String),
}

/// Judges what was received, whatever it is.
pub(super) fn judge(answer: &[u8], query: &Query<'_>) -> Finding {
    let mut decoder = BinDecoder::new(answer);
    let header = match ours(&mut decoder, query) {
        Ok(header) => header,
        Err(what) => return Finding::NotOurs(format!("{what} ({} bytes)", answer.len())),
    };
    if header.metadata.truncation {
        return Finding::Truncated;
    }
    match Content::read(&mut decoder, &header) {
        Ok(content) => match content.fault(query) {
            None => Finding::Right,
            Some(fault) => Finding::Wrong(fault),
        },
        Err(error) => Finding::Wrong(format!("the answer cannot be decoded: {error}")),
    }
}

/// Reads header and question, and says why the message is no answer to this query.
fn ours(decoder: &mut BinDecoder<'_>, query: &Query<'_>) -> Result<Header, &'static str> {
    let header = Header::read(decoder).map_err(|_| "not a DNS message")?;
    if header.metadata.id != query.id {
        return Err("an answer to another query");
    }
    if header.metadata.message_type != MessageType::Response
        || header.metadata.op_code != OpCode::Query
    {
        return Err("not an answer");
    }
    match header.counts.queries {
        // A server that could not read the question need not repeat it.
        0 if u16::from(header.metadata.response_code) != 0 => Ok(header),
        1 => {
            let asked = Asked::read(decoder).map_err(|_| "an answer whose question is broken")?;
            let question = query.question;
            let same = asked.name == question.name
                && asked.query_type == question.kind
                && asked.query_class == question.class;
            same.then_some(header)
                .ok_or("an answer to another question")
        }
        _ => Err("an answer without the one question"),
    }
}

/// What an answer holds after its question.
struct Content {
    rcode: u16,
    answers: Vec<Record>,
    nsid: Option<Vec<u8>>,
}

impl Content {
    fn read(decoder: &mut BinDecoder<'_>, header: &Header) -> Result<Self, DecodeError> {
        let mut section = |count: u16, is_additional: bool| {
            let op = header.metadata.op_code;
            Message::read_records(decoder, usize::from(count), is_additional, op)
        };
        let (answers, _, _) = section(header.counts.answers, false)?;
        section(header.counts.authorities, false)?;
        let (_, edns, _) = section(header.counts.additionals, true)?;
        let high = edns.as_ref().map_or(0, Edns::rcode_high);
        let nsid = edns.and_then(|edns| match edns.option(EdnsCode::NSID) {
            // An empty one is our own, repeated.
            Some(EdnsOption::NSID(payload)) if !payload.as_ref().is_empty() => {
                Some(payload.as_ref().to_vec())
            }
            _ => None,
        });
        Ok(Self {
            rcode: u16::from(high) << 4 | u16::from(header.metadata.response_code.low()),
            answers,
            nsid,
        })
    }

    fn fault(&self, query: &Query<'_>) -> Option<String> {
        let question = query.question;
        if let (Some(expected), Some(seen)) = (query.nsid, self.nsid.as_deref())
            && expected != seen
        {
            return Some(another_node(&shown(seen), &shown(expected)));
        }
        let expected_rcode = match question.expected {
            Expected::Rcode(rcode) => rcode,
            Expected::Any | Expected::Contains(_) | Expected::Equals(_) | Expected::Node(_) => 0,
        };
        if self.rcode != expected_rcode {
            let (seen, expected) = (rcode_name(self.rcode), rcode_name(expected_rcode));
            return Some(format!(
                "{seen} instead of {expected} for {}",
                title(question)
            ));
        }
        if let (Some(expected), None) = (query.nsid, self.nsid.as_deref()) {
            let expected = shown(expected);
            return Some(format!(
                "the answer names no node (NSID), expected {expected}; does the server have one configured?"
            ));
        }
        self.wrong_content(question)
    }

    fn wrong_content(&self, question: &Question) -> Option<String> {
        let data = self.data(question);
        let none = || format!("no {} in the answer", title(question));
        let missing = |wanted: &[Wanted]| {
            let is_there = |wanted: &&Wanted| data.iter().any(|data| wanted.is(data));
            wanted.iter().find(|wanted| !is_there(wanted)).cloned()
        };
        let other = |expected: &Wanted| format!("answered {}, expected {expected}", list(&data));
        match &question.expected {
            Expected::Rcode(_) => None,
            Expected::Any => data.is_empty().then(none),
            Expected::Contains(_) | Expected::Equals(_) | Expected::Node(_) if data.is_empty() => {
                Some(none())
            }
            Expected::Contains(wanted) => missing(wanted).as_ref().map(other),
            Expected::Equals(wanted) => missing(wanted).as_ref().map(other).or_else(|| {
                let expected = |data: &&RData| wanted.iter().any(|wanted| wanted.is(data));
                let extra = data.iter().find(|data| !expected(data))?;
                Some(format!(
                    "answered {} as well, which is not expected",
                    text_of(extra)
                ))
            }),
            Expected::Node(wanted) => (!data.iter().all(|data| wanted.is(data)))
                .then(|| another_node(&list(&data), &wanted.to_string())),
        }
    }

    /// The records that were asked for: of this type and class, at the name or where CNAMEs
    /// lead.
    fn data(&self, question: &Question) -> Vec<&RData> {
        let mut names = vec![&question.name];
        while let Some(next) = names
            .last()
            .and_then(|name| self.alias(name, question.class))
        {
            if names.len() > MAX_CHAIN || names.contains(&next) {
                break;
            }
            names.push(next);
        }
        let asked = |record: &&Record| {
            record.record_type() == question.kind
                && record.dns_class == question.class
                && names.contains(&&record.name)
        };
        self.answers.iter().filter(asked).map(|r| &r.data).collect()
    }

    fn alias(&self, name: &Name, class: DNSClass) -> Option<&Name> {
        let of_name = |record: &&Record| record.name == *name && record.dns_class == class;
        let mut records = self.answers.iter().filter(of_name);
        records.find_map(|record| {
            let RData::CNAME(alias) = &record.data else {
                return None;
            };
            Some(&alias.0)
        })
    }
}

fn another_node(seen: &str, expected: &str) -> String {
    format!("answered by {seen}, not by {expected}: another node, or its identity is not set so")
}

fn title(question: &Question) -> String {
    format!("{} {}", question.name, question.kind)
}

fn list(data: &[&RData]) -> String {
    let mut texts: Vec<String> = data.iter().take(SHOWN).map(|data| text_of(data)).collect();
    if data.len() > SHOWN {
        texts.push(format!("and {} more", data.len() - SHOWN));
    }
    texts.join(", ")
}

fn text_of(data: &RData) -> String {
    if let RData::TXT(txt) = data {
        return shown(&txt.txt_data.concat());
    }
    printed(data)
}

/// Printable text in quotes, other bytes in hexadecimal; at most 64 bytes.
fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.get(..64).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => bytes.iter().fold("0x".to_owned(), |mut text, byte| {
            text.push_str(&format!("{byte:02x}"));
            text
        }),
    }
}
