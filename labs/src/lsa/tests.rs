use super::*;

/// An LSA with this age, type and body, by 10.10.0.1, number 7, version -5.
fn lsa(age: u16, kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    let mut lsa = age.to_be_bytes().to_vec();
    lsa.extend(kind);
    lsa.extend(7_u32.to_be_bytes());
    lsa.extend([10, 10, 0, 1]);
    lsa.extend((-5_i32).to_be_bytes());
    lsa.extend([0xaa, 0xbb]);
    lsa.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
    lsa.extend(body);
    lsa
}

fn packet(version: u8, kind: u8, lsas: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = vec![version, kind];
    packet.extend([0, 0, 10, 10, 0, 1]);
    packet.resize(if version == 2 { 24 } else { 16 }, 0);
    packet.extend(u32::try_from(lsas.len()).unwrap().to_be_bytes());
    packet.extend(lsas.concat());
    packet
}

const fn external(flushed: bool, metric: u32) -> External {
    External {
        origin: Ipv4Addr::new(10, 10, 0, 1),
        id: 7,
        sequence: -5,
        flushed,
        metric,
        direct: true,
    }
}

#[test]
fn an_external_route_of_either_version_shows_metric_and_age() {
    let router = lsa(1, [2, 1], &[0; 16]);
    let v2 = lsa(
        3,
        [2, 5],
        &[255, 255, 255, 255, 0x80, 0, 0x27, 0x10, 0, 0, 0, 0],
    );
    assert_eq!(
        parse(&packet(2, 4, &[router, v2])),
        [external(false, 10_000)]
    );
    let v3 = lsa(0x8000 | 3600, [0x40, 5], &[0x04, 0, 0, 100, 128, 0, 0, 0]);
    assert_eq!(parse(&packet(3, 4, &[v3])), [external(true, 100)]);
}

#[test]
fn what_others_flood_on_is_told_from_what_the_originator_sends() {
    let mut whole = packet(2, 4, &[lsa(3, [2, 5], &[255; 16])]);
    assert!(parse(&whole)[0].direct);
    whole[7] = 2;
    assert!(!parse(&whole)[0].direct);
}

#[test]
fn what_is_late_or_repeated_is_no_news() {
    let one = |id, sequence, metric, direct| External {
        id,
        sequence,
        direct,
        ..external(false, metric)
    };
    let heard = [
        one(7, 1, 10_000, true),
        one(7, 2, 100, true),
        one(7, 1, 10_000, false), // late, by way of another router
        one(7, 2, 100, false),
        one(7, 3, 10_000, false), // heard of another first
        one(7, 3, 10_000, true),
        one(7, 1, 10_000, true), // restarted
        one(8, 1, 100, false),
    ];
    let listener = Listener {
        heard: Arc::new(Mutex::new(heard.map(|one| (true, one)).into())),
        over: Arc::default(),
        threads: Vec::new(),
    };
    let (origin, service) = (heard[0].origin, Ipv4Addr::LOCALHOST.into());
    let news = [0, 1, 4, 6, 7].map(|number| (number, heard[number]));
    assert_eq!(listener.heard(origin, service), news);
}

#[test]
fn other_packets_and_malformed_ones_show_nothing() {
    let v2 = lsa(3, [2, 5], &[255, 255, 255, 255, 0x80, 0, 0, 1]);
    assert_eq!(parse(&packet(2, 1, std::slice::from_ref(&v2))), []);
    assert_eq!(parse(&packet(4, 4, std::slice::from_ref(&v2))), []);
    let whole = packet(2, 4, &[v2]);
    for length in 0..whole.len() {
        assert_eq!(parse(&whole[..length]), [], "{length} bytes");
    }
    let short = lsa(3, [2, 5], &[]);
    assert_eq!(parse(&packet(2, 4, &[short])), []);
    let mut endless = packet(2, 4, &[lsa(3, [2, 5], &[])]);
    endless[24 + 4 + 18..].copy_from_slice(&[0, 0]);
    assert_eq!(parse(&endless), []);
}
