use super::*;

/// The MRT record of a BGP message received from 10.0.0.2.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(kind);
    message.extend(body);
    let mut inner = Vec::new();
    inner.extend(65000_u32.to_be_bytes());
    inner.extend(65000_u32.to_be_bytes());
    inner.extend([0, 1, 0, 1, 10, 0, 0, 2, 10, 0, 0, 1]);
    inner.extend(message);
    mrt(16, 4, &inner)
}

fn mrt(kind: u16, subtype: u16, inner: &[u8]) -> Vec<u8> {
    let mut bytes = 1000_u32.to_be_bytes().to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(subtype.to_be_bytes());
    bytes.extend(u32::try_from(inner.len()).unwrap().to_be_bytes());
    bytes.extend(inner);
    bytes
}

fn update(withdrawn: &[u8], attributes: &[u8], announced: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(withdrawn.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    body.extend(withdrawn);
    body.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend(attributes);
    body.extend(announced);
    record(2, &body)
}

fn only(dump: &[u8]) -> Update {
    match parse(dump).unwrap().as_slice() {
        [
            Record {
                message: Message::Update(update),
                ..
            },
        ] => update.clone(),
        other => panic!("{other:?}"),
    }
}

const SERVICE: [u8; 5] = [32, 192, 0, 2, 69];

fn service() -> Prefix {
    Prefix::host("192.0.2.69".parse().unwrap())
}

fn service6() -> Prefix {
    Prefix::host("2001:db8::69".parse().unwrap())
}

fn nlri6() -> Vec<u8> {
    let mut bytes = vec![128];
    bytes.extend("2001:db8::69".parse::<Ipv6Addr>().unwrap().octets());
    bytes
}

#[test]
fn an_ipv4_announcement_shows_prefix_and_local_pref() {
    let seen = only(&update(&[], &[0x40, 5, 4, 0, 0, 0, 200], &SERVICE));
    assert_eq!(seen.announced, [service()]);
    assert_eq!(seen.local_pref, Some(200));
    assert!(seen.withdrawn.is_empty());
}

#[test]
fn an_ipv4_withdrawal_is_seen() {
    let seen = only(&update(&SERVICE, &[], &[]));
    assert_eq!(seen.withdrawn, [service()]);
    assert!(seen.announced.is_empty());
}

#[test]
fn ipv6_is_announced_by_mp_reach_and_withdrawn_by_mp_unreach() {
    let mut reach = vec![0, 2, 1, 16];
    reach.extend([0; 16]);
    reach.push(0);
    reach.extend(nlri6());
    let mut attributes = vec![0x80, 14, u8::try_from(reach.len()).unwrap()];
    attributes.extend(&reach);
    let seen = only(&update(&[], &attributes, &[]));
    assert_eq!((seen.announced, seen.withdrawn), (vec![service6()], vec![]));

    let mut unreach = vec![0, 2, 1];
    unreach.extend(nlri6());
    // With the extended length that a long attribute has.
    let mut attributes = vec![0x90, 15, 0, u8::try_from(unreach.len()).unwrap()];
    attributes.extend(&unreach);
    let seen = only(&update(&[], &attributes, &[]));
    assert_eq!((seen.announced, seen.withdrawn), (vec![], vec![service6()]));
}

#[test]
fn end_of_rib_withdraws_nothing() {
    assert_eq!(only(&update(&[], &[], &[])), Update::default());
    assert_eq!(
        only(&update(&[], &[0x80, 15, 3, 0, 2, 1], &[])),
        Update::default()
    );
}

#[test]
fn sender_time_and_other_messages_are_told_apart() {
    let mut dump = record(1, &[4]);
    dump.extend(record(4, &[]));
    dump.extend(record(3, &[6, 2]));
    let records = parse(&dump).unwrap();
    let messages: Vec<_> = records.iter().map(|record| &record.message).collect();
    assert_eq!(
        messages,
        [
            &Message::Open,
            &Message::Keepalive,
            &Message::Notification(6, 2)
        ]
    );
    assert_eq!(records[0].peer, IpAddr::from([10, 0, 0, 2]));
    assert_eq!(records[0].at, Duration::from_secs(1000));
}

#[test]
fn state_changes_and_foreign_records_are_left_out() {
    let mut dump = mrt(16, 5, &[0; 24]);
    dump.extend(mrt(13, 1, &[1, 2, 3]));
    assert_eq!(parse(&dump), Ok(vec![]));
}

#[test]
fn a_record_that_is_still_being_written_is_left_out() {
    let whole = update(&SERVICE, &[], &[]);
    let mut dump = record(4, &[]);
    let first = dump.len();
    dump.extend(&whole);
    for end in first..dump.len() {
        assert_eq!(parse(&dump[..end]).unwrap().len(), 1);
    }
    assert_eq!(parse(&dump).unwrap().len(), 2);
}

#[test]
fn no_damage_makes_it_panic_and_none_invents_a_message_type() {
    let mut dump = update(&SERVICE, &[0x40, 5, 4, 0, 0, 0, 200], &SERVICE);
    dump.extend(record(3, &[6, 2]));
    for at in 0..dump.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = dump.clone();
            damaged[at] = value;
            let _ = parse(&damaged);
        }
    }
    let mut bad_marker = record(4, &[]);
    let marker = 12 + 20;
    bad_marker[marker] = 0;
    assert_eq!(parse(&bad_marker).unwrap_err().what, "no BGP marker");
}
