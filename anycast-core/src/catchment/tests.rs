use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn clients_count_by_network_and_the_families_apart() {
    let now = Instant::now();
    let mut catchment = Catchment::new(now);
    let clients = [
        "192.0.2.1",
        "192.0.2.255",
        "::ffff:192.0.2.9",
        "198.51.100.1",
        "2001:db8:7::1",
        "2001:db8:7:ffff::2",
    ];
    for client in clients {
        catchment.handle_request(now, address(client));
    }
    let told = catchment.top(now, 16);
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    assert_eq!(told.total, 6);
    assert_eq!(
        told.top,
        [
            (net("192.0.2.0/24"), 3),
            (net("2001:db8:7::/48"), 2),
            (net("198.51.100.0/24"), 1),
        ]
    );
    assert_eq!(catchment.top(now, 1).top.len(), 1);
}

#[test]
fn what_was_long_ago_counts_less_and_then_nothing() {
    let now = Instant::now();
    let mut catchment = Catchment::new(now);
    for _ in 0..8 {
        catchment.handle_request(now, address("192.0.2.1"));
    }
    catchment.handle_request(now, address("198.51.100.1"));
    let told = catchment.top(now + HALF_LIFE, 16);
    assert_eq!((told.total, told.top.len()), (4, 1));
    assert_eq!(told.top[0].1, 4);
    assert_eq!(catchment.top(now + HALF_LIFE * 10, 16), Clients::default());
    catchment.handle_request(now + HALF_LIFE * 1_000_000, address("192.0.2.1"));
    // A clock that stands still or runs backwards changes nothing.
    assert_eq!(catchment.top(now, 16).total, 1);
}

proptest! {
    #[test]
    fn a_network_that_asks_much_has_a_place_and_none_is_told_more_than_it_asked(
        steps in prop::collection::vec((0u32..2000, 1u32..40, 0u64..60), 1..800),
    ) {
        let mut now = Instant::now();
        let mut catchment = Catchment::new(now);
        let mut asked: BTreeMap<IpNet, u64> = BTreeMap::new();
        for (network, times, later) in steps {
            now += Duration::from_secs(later);
            let client = IpAddr::from((network << 8 | 7).to_be_bytes());
            for _ in 0..times {
                catchment.handle_request(now, client);
            }
            let net = IpNet::new(client, 24).unwrap().trunc();
            *asked.entry(net).or_default() += u64::from(times);
        }
        prop_assert!(catchment.networks.len() <= NETWORKS);
        prop_assert_eq!(catchment.networks.len(), catchment.places.len());
        for (network, count) in catchment.top(now, usize::MAX).top {
            prop_assert!(count <= asked[&network]);
        }
    }

    #[test]
    fn without_decay_more_than_its_share_is_always_counted(
        order in prop::collection::vec(0u32..1500, 3000),
    ) {
        let now = Instant::now();
        let mut catchment = Catchment::new(now);
        let client = |network: u32| IpAddr::from((network << 8).to_be_bytes());
        for (step, network) in order.iter().enumerate() {
            catchment.handle_request(now, client(*network));
            if step % 50 == 0 {
                catchment.handle_request(now, client(9999));
            }
        }
        let heavy = Network::of(client(9999));
        prop_assert!(catchment.networks.contains(&heavy));
    }
}
