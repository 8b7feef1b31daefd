//! What an answer means, for right, wrong, foreign and broken ones; and that no bytes panic.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsOption, NSIDPayload};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, SOA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::judge::{Finding, Query, judge};
use super::{Identity, Question, QuestionError};

const ID: u16 = 0x1234;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 60, data)
}

/// An answer to `question` with these records.
fn answer(question: &Question, records: Vec<Record>) -> Message {
    let mut message = Message::new(ID, MessageType::Response, OpCode::Query);
    let mut asked = Asked::query(question.name.clone(), question.kind);
    asked.set_query_class(question.class);
    message.add_query(asked).add_answers(records);
    message
}

fn judged(question: &Question, message: &Message) -> Finding {
    judge(&message.to_vec().unwrap(), &Query::new(ID, question, None))
}

#[track_caller]
fn wrong(finding: &Finding, hint: &str) {
    let Finding::Wrong(why) = finding else {
        panic!("{finding:?}");
    };
    assert!(why.contains(hint), "{why}");
}

#[track_caller]
fn not_ours(finding: &Finding, hint: &str) {
    let Finding::NotOurs(why) = finding else {
        panic!("{finding:?}");
    };
    assert!(why.contains(hint), "{why}");
}

fn question() -> Question {
    Question::new("health.example", "A").unwrap()
}

fn full_answer() -> Message {
    let records = [1, 2].map(|last| record("health.example.", a(last)));
    answer(&question(), records.to_vec())
}

#[test]
fn any_record_of_the_type_will_do() {
    assert_eq!(judged(&question(), &full_answer()), Finding::Right);
    // Case does not matter in names (RFC 4343).
    let asked = Question::new("HEALTH.Example.", "a").unwrap();
    assert_eq!(judged(&asked, &full_answer()), Finding::Right);
}

#[test]
fn an_answer_without_the_record_is_wrong() {
    let empty = answer(&question(), vec![]);
    wrong(&judged(&question(), &empty), "no health.example. A");
    let other_type = RData::NS(NS(name("ns.example.")));
    let other_type = answer(&question(), vec![record("health.example.", other_type)]);
    wrong(&judged(&question(), &other_type), "no health.example. A");
    let stranger = answer(&question(), vec![record("other.example.", a(1))]);
    wrong(&judged(&question(), &stranger), "no health.example. A");
    let mut other_class = record("health.example.", a(1));
    other_class.dns_class = DNSClass::CH;
    let other_class = answer(&question(), vec![other_class]);
    wrong(&judged(&question(), &other_class), "no health.example. A");
}

#[test]
fn aliases_are_followed_and_loops_end() {
    let alias = |from: &str, to: &str| record(from, RData::CNAME(CNAME(name(to))));
    let chain = vec![
        record("c.example.", a(1)),
        alias("b.example.", "c.example."),
        alias("health.example.", "b.example."),
    ];
    assert_eq!(
        judged(&question(), &answer(&question(), chain)),
        Finding::Right
    );
    let circle = vec![
        alias("health.example.", "b.example."),
        alias("b.example.", "health.example."),
    ];
    let circle = answer(&question(), circle);
    wrong(&judged(&question(), &circle), "no health.example. A");
}

#[test]
fn expected_records_are_compared() {
    let contain = question().containing(&["192.0.2.2"]).unwrap();
    assert_eq!(judged(&contain, &full_answer()), Finding::Right);
    let missing = question().containing(&["192.0.2.2", "192.0.2.9"]).unwrap();
    wrong(
        &judged(&missing, &full_answer()),
        "answered 192.0.2.1, 192.0.2.2, expected 192.0.2.9",
    );
    let equal = question().equalling(&["192.0.2.2", "192.0.2.1"]).unwrap();
    assert_eq!(judged(&equal, &full_answer()), Finding::Right);
    let fewer = question().equalling(&["192.0.2.2"]).unwrap();
    wrong(&judged(&fewer, &full_answer()), "192.0.2.1 as well");
    let many = (0..20).map(|n| record("health.example.", a(n))).collect();
    let more = question().containing(&["192.0.2.99"]).unwrap();
    wrong(&judged(&more, &answer(&more, many)), "and 17 more");
}

#[test]
fn each_type_is_compared_as_dig_prints_it() {
    let soa = SOA::new(
        name("NS.example."),
        name("admin.example."),
        7,
        3600,
        600,
        86400,
        300,
    );
    let cases = [
        (
            "TXT",
            RData::TXT(TXT::new(vec!["one ".to_owned(), "Two".to_owned()])),
            "one Two",
            "one two",
        ),
        (
            "NS",
            RData::NS(NS(name("NS.example."))),
            "ns.example",
            "ns2.example",
        ),
        (
            "MX",
            RData::MX(MX::new(10, name("mail.example."))),
            "10  Mail.example",
            "20 mail.example.",
        ),
        (
            "SOA",
            RData::SOA(soa),
            "ns.example. admin.example. 7 3600 600 86400 300",
            "ns.example. admin.example. 8 3600 600 86400 300",
        ),
        (
            "AAAA",
            RData::AAAA("2001:db8::1".parse().unwrap()),
            "2001:0DB8:0::1",
            "2001:db8::2",
        ),
    ];
    for (kind, data, right, other) in cases {
        let question = Question::new("example.", kind).unwrap();
        let message = answer(&question, vec![record("example.", data)]);
        let expecting = |text| question.clone().equalling(&[text]).unwrap();
        assert_eq!(
            judged(&expecting(right), &message),
            Finding::Right,
            "{kind}"
        );
        wrong(&judged(&expecting(other), &message), "expected");
    }
}

#[test]
fn the_response_code_is_compared_with_its_upper_bits() {
    let mut refused = answer(&question(), vec![]);
    refused.metadata.response_code = ResponseCode::Refused;
    wrong(&judged(&question(), &refused), "REFUSED instead of NOERROR");
    let expected = question().with_rcode("refused").unwrap();
    assert_eq!(judged(&expected, &refused), Finding::Right);
    wrong(
        &judged(&expected, &full_answer()),
        "NOERROR instead of REFUSED",
    );
    let no_data = question().with_rcode("NOERROR").unwrap();
    assert_eq!(
        judged(&no_data, &answer(&question(), vec![])),
        Finding::Right
    );
    let mut extended = answer(&question(), vec![]);
    extended.metadata.response_code = ResponseCode::BADVERS;
    extended.set_edns(Edns::new());
    wrong(&judged(&question(), &extended), "BADVERS instead");
    // A server that cannot read a question need not repeat it.
    let mut bare = Message::new(ID, MessageType::Response, OpCode::Query);
    not_ours(&judged(&question(), &bare), "without the one question");
    bare.metadata.response_code = ResponseCode::FormErr;
    wrong(&judged(&question(), &bare), "FORMERR instead");
}

#[test]
fn what_answers_something_else_is_ignored() {
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = full_answer();
        change(&mut message);
        judged(&question(), &message)
    };
    not_ours(&with(&|m| m.metadata.id = 1), "another query");
    let query = |m: &mut Message| m.metadata.message_type = MessageType::Query;
    not_ours(&with(&query), "not an answer");
    let notify = |m: &mut Message| m.metadata.op_code = OpCode::Notify;
    not_ours(&with(&notify), "not an answer");
    let twice = |m: &mut Message| m.queries.push(m.queries[0].clone());
    not_ours(&with(&twice), "without the one question");
    let other_name = Asked::query(name("other.example."), RecordType::A);
    let other = |m: &mut Message| m.queries = vec![other_name.clone()];
    not_ours(&with(&other), "another question");
    let other_type = |m: &mut Message| m.queries[0].query_type = RecordType::AAAA;
    not_ours(&with(&other_type), "another question");
    let other_class = |m: &mut Message| m.queries[0].query_class = DNSClass::CH;
    not_ours(&with(&other_class), "another question");
    let short = |bytes: &[u8]| judge(bytes, &Query::new(ID, &question(), None));
    not_ours(&short(b""), "not a DNS message (0 bytes)");
    not_ours(&short(b"x"), "not a DNS message (1 bytes)");
}

#[test]
fn an_answer_that_is_cut_off_asks_for_tcp_and_a_broken_one_is_wrong() {
    let mut truncated = full_answer();
    truncated.metadata.truncation = true;
    let bytes = truncated.to_vec().unwrap();
    // However little of it came, once the question is there.
    let question = question();
    let query = Query::new(ID, &question, None);
    for end in 32..=bytes.len() {
        assert_eq!(judge(&bytes[..end], &query), Finding::Truncated, "{end}");
    }
    let whole = full_answer().to_vec().unwrap();
    for end in 32..whole.len() {
        wrong(&judge(&whole[..end], &query), "cannot be decoded");
    }
}

#[test]
fn the_nsid_must_be_the_nodes() {
    let question = question();
    let identity = Identity::nsid("ams1").unwrap();
    let query = Query::new(ID, &question, identity.nsid_bytes());
    let says = |nsid: Option<&[u8]>, rcode| {
        let mut message = full_answer();
        message.metadata.response_code = rcode;
        let mut edns = Edns::new();
        if let Some(nsid) = nsid {
            let payload = NSIDPayload::new(nsid).unwrap();
            edns.options_mut().insert(EdnsOption::NSID(payload));
        }
        message.set_edns(edns);
        judge(&message.to_vec().unwrap(), &query)
    };
    let ok = ResponseCode::NoError;
    assert_eq!(says(Some(b"ams1"), ok), Finding::Right);
    wrong(
        &says(Some(b"fra1"), ok),
        r#"answered by "fra1", not by "ams1""#,
    );
    wrong(&says(Some(b"AMS1"), ok), r#"answered by "AMS1""#);
    wrong(&says(Some(&[0, 255]), ok), "answered by 0x00ff");
    wrong(&says(None, ok), "names no node");
    wrong(&says(Some(b""), ok), "names no node");
    // Who answered comes first, then what.
    let refused = ResponseCode::Refused;
    wrong(&says(Some(b"fra1"), refused), "answered by");
    wrong(&says(None, refused), "REFUSED");
    let hexadecimal = Identity::nsid("0x616D7331").unwrap();
    assert_eq!(hexadecimal.nsid_bytes(), Some(&b"ams1"[..]));
}

#[test]
fn id_server_must_be_the_nodes() {
    let identity = Identity::id_server("ams1").unwrap();
    let question = identity.question().unwrap();
    let says = |texts: &[&str]| {
        let data = |text: &&str| RData::TXT(TXT::new(vec![(*text).to_owned()]));
        let mut records: Vec<Record> = texts
            .iter()
            .map(|text| record("id.server.", data(text)))
            .collect();
        for record in &mut records {
            record.dns_class = DNSClass::CH;
        }
        judged(question, &answer(question, records))
    };
    assert_eq!(says(&["ams1"]), Finding::Right);
    wrong(&says(&["fra1"]), r#"answered by "fra1", not by "ams1""#);
    wrong(&says(&["ams1", "fra1"]), "answered by");
    wrong(&says(&[]), "no id.server. TXT");
}

#[test]
fn what_cannot_be_asked_or_expected_is_refused() {
    let long = "x".repeat(64);
    for bad in ["", "ümlaut.example", "a..b", long.as_str()] {
        let refused = Question::new(bad, "A").unwrap_err();
        assert!(matches!(refused, QuestionError::Name { .. }), "{refused}");
    }
    for bad in ["", "B", "ANY", "AXFR", "ixfr", "TSIG", "OPT", "TYPE1"] {
        let refused = Question::new("example", bad).unwrap_err();
        assert!(matches!(refused, QuestionError::Type { .. }), "{refused}");
    }
    assert!(Question::new(".", "NS").is_ok());
    for (kind, bad) in [("A", "2001:db8::1"), ("AAAA", "x"), ("NS", ""), ("TXT", "")] {
        let question = Question::new("example", kind).unwrap();
        let refused = question.containing(&[bad]).unwrap_err();
        assert!(matches!(refused, QuestionError::Answer { .. }), "{refused}");
    }
    let dnskey = Question::new("example", "DNSKEY").unwrap();
    let refused = dnskey.containing(&["257 3 13 x"]).unwrap_err();
    assert!(matches!(refused, QuestionError::Incomparable { .. }));
    let refused = question().containing::<&str>(&[]).unwrap_err();
    assert_eq!(refused, QuestionError::Count { count: 0 });
    assert!(question().with_rcode("NOPE").is_err());
    let long = "x".repeat(256);
    for bad in ["", "0x", "0xf", "0xzz", "0x+1", long.as_str()] {
        assert!(Identity::nsid(bad).is_err(), "{bad}");
    }
    assert!(Identity::id_server("").is_err());
    assert!(Identity::hostname_bind(&long).is_err());
}

#[test]
fn the_query_says_what_is_asked() {
    let question = Question::new("health.example", "A").unwrap();
    let nsid = Identity::nsid("ams1").unwrap();
    let bytes = Query::new(ID, &question, nsid.nsid_bytes()).encode();
    let query = Message::from_vec(&bytes.unwrap()).unwrap();
    assert_eq!(query.metadata.id, ID);
    assert!(query.metadata.recursion_desired);
    assert_eq!(query.queries.len(), 1);
    let edns = query.edns.unwrap();
    assert_eq!(edns.max_payload(), 1232);
    assert_eq!(edns.options().as_ref().len(), 1);
    let question = question.with_recursion(false);
    let bytes = Query::new(ID, &question, None).encode();
    let query = Message::from_vec(&bytes.unwrap()).unwrap();
    assert!(!query.metadata.recursion_desired);
    assert!(query.edns.unwrap().options().as_ref().is_empty());
}

/// Every kind of question and expectation, so that all code after the header runs.
fn questions() -> Vec<Question> {
    let mut all = vec![
        question().equalling(&["192.0.2.1"]).unwrap(),
        question().with_rcode("NXDOMAIN").unwrap(),
    ];
    let kinds = [
        "AAAA",
        "CAA",
        "CERT",
        "CNAME",
        "CSYNC",
        "DNAME",
        "DNSKEY",
        "DS",
        "HINFO",
        "HTTPS",
        "MX",
        "NAPTR",
        "NS",
        "NSEC",
        "NSEC3",
        "OPENPGPKEY",
        "PTR",
        "RRSIG",
        "SMIMEA",
        "SOA",
        "SRV",
        "SSHFP",
        "SVCB",
        "TLSA",
        "TXT",
    ];
    for kind in kinds {
        let any = Question::new("health.example", kind).unwrap();
        let texts = ["2001:db8::1", "ns.example."];
        all.extend(
            texts
                .iter()
                .filter_map(|t| any.clone().containing(&[t]).ok()),
        );
        all.push(any);
    }
    let identity = Identity::id_server("ams1").unwrap();
    all.extend(identity.question().cloned());
    all
}

/// A well-formed start, then whatever: `kind`, counts and record data are the random part.
fn headed(question: &Question, counts: [u16; 3], tail: &[u8]) -> Vec<u8> {
    let mut bytes = answer(question, vec![]).to_vec().unwrap();
    for (at, count) in [6, 8, 10].into_iter().zip(counts) {
        bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    bytes.extend_from_slice(tail);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let question = question();
        let nsid = Query::new(ID, &question, Some(b"ams1"));
        prop_assert!(!matches!(judge(&bytes, &nsid), Finding::Right));
    }

    #[test]
    fn no_records_panic(
        which in any::<prop::sample::Index>(),
        counts in any::<[u8; 3]>(),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let questions = questions();
        let question = which.get(&questions);
        let bytes = headed(question, counts.map(|count| u16::from(count % 4)), &tail);
        let _ = judge(&bytes, &Query::new(ID, question, Some(b"ams1")));
    }

    /// One record of the very type asked for, with random data of a fitting length.
    #[test]
    fn no_record_data_panic(
        which in any::<prop::sample::Index>(),
        data in prop::collection::vec(any::<u8>(), 1..300),
        small in any::<bool>(),
    ) {
        let questions = questions();
        let question = which.get(&questions);
        // Pointer to the name in the question, type, class, time to live, length, data.
        let mut tail = vec![0xc0, 12];
        tail.extend(u16::from(question.kind).to_be_bytes());
        tail.extend(u16::from(question.class).to_be_bytes());
        tail.extend([0; 4]);
        tail.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        // Small bytes make labels and lengths that fit.
        tail.extend(data.iter().map(|byte| if small { byte % 9 } else { *byte }));
        let bytes = headed(question, [1, 0, 0], &tail);
        let _ = judge(&bytes, &Query::new(ID, question, None));
    }

    #[test]
    fn no_mutation_panics(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let question = question().equalling(&["192.0.2.1", "192.0.2.2"]).unwrap();
        let mut message = full_answer();
        message.set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let _ = judge(&bytes, &Query::new(ID, &question, None));
    }
}
