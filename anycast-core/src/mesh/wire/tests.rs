use super::*;
use proptest::prelude::*;

fn name<T>() -> impl Strategy<Value = T>
where
    T: std::str::FromStr + std::fmt::Debug,
    T::Err: std::fmt::Debug,
{
    "[a-z][a-z0-9-]{0,20}".prop_map(|text| text.trim_end_matches('-').parse().unwrap())
}

fn service() -> impl Strategy<Value = ServiceStatus> {
    let turn = prop::sample::select(vec![TurnStage::Idle, TurnStage::Waits, TurnStage::Has]);
    let times = any::<[Option<u64>; 2]>();
    (name(), any::<bool>(), any::<bool>(), times, turn).prop_map(
        |(name, preferred, draining, [failing_for, outlives], turn)| ServiceStatus {
            name,
            preferred,
            draining,
            failing_for,
            outlives,
            turn,
        },
    )
}

fn turn_request() -> impl Strategy<Value = TurnRequest> {
    let want = (name(), any::<bool>(), any::<u32>(), any::<u64>());
    let want = want.prop_map(|(service, leaves, spacing, wish)| TurnWant {
        service,
        leaves,
        spacing,
        wish,
    });
    (any::<u64>(), prop::collection::vec(want, 0..5))
        .prop_map(|(id, wants)| TurnRequest { id, wants })
}

fn turn() -> impl Strategy<Value = Turn> {
    let waits = prop_oneof![
        (name(), any::<bool>()).prop_map(|(node, leaves)| WaitsFor::Node { node, leaves }),
        prop::sample::select(vec![
            WaitsFor::Settling,
            WaitsFor::Beginning,
            WaitsFor::Nothing
        ]),
    ];
    let state = prop_oneof![
        any::<u32>().prop_map(TurnAnswer::Given),
        waits.prop_map(TurnAnswer::Waits),
    ];
    let one = (name(), state).prop_map(|(service, state)| ServiceTurn { service, state });
    (any::<u64>(), prop::collection::vec(one, 0..5))
        .prop_map(|(id, services)| Turn { id, services })
}

fn services() -> impl Strategy<Value = Vec<ServiceName>> {
    prop::collection::vec(name(), 0..5)
}

fn data() -> impl Strategy<Value = DataStatus> {
    let reason = any::<Option<String>>().prop_map(|text| text.map(|text| Reason::new(&text)));
    (name(), any::<bool>(), reason, any::<Option<u64>>()).prop_map(
        |(name, ready, reason, behind)| DataStatus {
            name,
            ready,
            reason,
            behind,
        },
    )
}

fn clients() -> impl Strategy<Value = Clients> {
    let network = prop_oneof![
        any::<u32>().prop_map(|bits| IpNet::new(std::net::Ipv4Addr::from(bits).into(), 24)),
        any::<u128>().prop_map(|bits| IpNet::new(std::net::Ipv6Addr::from(bits).into(), 48)),
    ];
    let network = network.prop_map(|network| network.unwrap().trunc());
    let top = prop::collection::vec((network, any::<u64>()), 0..=MAX_NETWORKS);
    (any::<u64>(), top).prop_map(|(total, top)| Clients { total, top })
}

fn status() -> impl Strategy<Value = Status> {
    (
        any::<u64>(),
        prop::collection::vec(service(), 0..5),
        prop::option::of("[ -~]{0,20}"),
        prop::collection::vec(data(), 0..3),
        prop::option::of(clients()),
        any::<bool>(),
    )
        .prop_map(
            |(sequence, services, software, data, clients, gives_turns)| Status {
                sequence,
                services,
                software: software.map(Reason::from),
                data,
                clients,
                gives_turns,
            },
        )
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (name(), any::<u16>(), any::<u16>(), any::<u64>()).prop_map(
            |(name, version, least_version, incarnation)| Message::Hello(Hello {
                name,
                version,
                least_version,
                incarnation,
            })
        ),
        status().prop_map(Message::Status),
        (any::<u64>(), any::<u32>(), services()).prop_map(|(id, duration, services)| {
            Message::GrantRequest(GrantRequest {
                id,
                duration,
                services,
            })
        }),
        (any::<u64>(), any::<u32>(), services(), services()).prop_map(
            |(id, duration, granted, refused)| Message::Grant(Grant {
                id,
                duration,
                granted,
                refused,
            })
        ),
        turn_request().prop_map(Message::TurnRequest),
        turn().prop_map(Message::Turn),
        (any::<u64>(), any::<u32>())
            .prop_map(|(id, duration)| Message::VoteRequest(VoteRequest { id, duration })),
        (any::<u64>(), any::<u32>())
            .prop_map(|(id, duration)| Message::Vote(Vote { id, duration })),
        any::<u32>().prop_map(|id| Message::Ping(Ping { id })),
        (any::<u32>(), any::<i64>(), any::<i64>())
            .prop_map(|(id, received, sent)| Message::Pong(Pong { id, received, sent })),
    ]
}

fn body(message: &Message) -> Vec<u8> {
    let frame = message.encode().unwrap();
    let (head, body) = frame.split_first_chunk().unwrap();
    assert_eq!(frame_length(*head), Ok(body.len()));
    body.to_vec()
}

proptest! {
    #[test]
    fn what_is_said_is_what_is_heard(message in message()) {
        prop_assert_eq!(Message::decode(&body(&message)), Ok(Some(message)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn a_cut_message_is_an_error_or_lacks_a_field(message in message(), cut in any::<prop::sample::Index>()) {
        let whole = body(&message);
        let cut = cut.index(whole.len());
        if let Ok(Some(heard)) = Message::decode(&whole[..cut]) {
            // Only what is listed, or may be absent, may be less.
            let lists = matches!(
                heard,
                Message::Status(_)
                    | Message::GrantRequest(_)
                    | Message::Grant(_)
                    | Message::TurnRequest(_)
                    | Message::Turn(_)
            );
            prop_assert!(lists);
        }
    }

    #[test]
    fn fields_of_a_later_version_are_skipped(message in message(), tag in 100u8.., value in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut newer = Fields(body(&message));
        newer.put(tag, &value);
        prop_assert_eq!(Message::decode(&newer.0), Ok(Some(message)));
    }
}

#[test]
fn a_message_of_a_later_version_is_skipped() {
    assert_eq!(Message::decode(&[200, 1, 0, 1, 9]), Ok(None));
    assert_eq!(Message::decode(&[]), Err(WireError::Cut));
}

/// A later version may give other reasons: what is no turn is none.
#[test]
fn an_answer_of_a_later_version_is_no_turn() {
    let mut one = Fields(Vec::new());
    one.put(1, b"tftp");
    one.put(2, &[99]);
    let mut fields = Fields(vec![TURN]);
    fields.put(1, &7u64.to_be_bytes());
    fields.put(2, &one.0);
    let heard = Turn {
        id: 7,
        services: vec![ServiceTurn {
            service: ServiceName::new("tftp").unwrap(),
            state: TurnAnswer::Waits(WaitsFor::Nothing),
        }],
    };
    assert_eq!(Message::decode(&fields.0), Ok(Some(Message::Turn(heard))));
}

#[test]
fn a_status_of_a_node_that_says_less_is_understood() {
    let mut fields = Fields(vec![STATUS]);
    fields.put(1, &7u64.to_be_bytes());
    let heard = Status {
        sequence: 7,
        ..Status::default()
    };
    let decoded = Message::decode(&fields.0);
    assert_eq!(decoded, Ok(Some(Message::Status(heard))));
}

#[test]
fn more_than_the_limits_is_neither_said_nor_heard() {
    let service = ServiceName::new("dns").unwrap();
    let request = Message::GrantRequest(GrantRequest {
        id: 1,
        duration: 1,
        services: vec![service; MAX_SERVICES + 1],
    });
    assert_eq!(request.encode(), Err(WireError::Services));
    let mut fields = Fields(vec![GRANT_REQUEST]);
    fields.put(1, &[0; 8]);
    fields.put(2, &[0; 4]);
    for _ in 0..=MAX_SERVICES {
        fields.put(3, b"dns");
    }
    assert_eq!(Message::decode(&fields.0), Err(WireError::Services));
    for kind in [TURN_REQUEST, TURN] {
        let mut fields = Fields(vec![kind]);
        fields.put(1, &[0; 8]);
        for _ in 0..=MAX_SERVICES {
            fields.put(2, b"");
        }
        assert_eq!(Message::decode(&fields.0), Err(WireError::Services));
    }
    let mut clients = Fields(Vec::new());
    clients.put(1, &[0; 8]);
    for _ in 0..=MAX_NETWORKS {
        clients.put(2, b"");
    }
    let mut fields = Fields(vec![STATUS]);
    fields.put(1, &[0; 8]);
    fields.put(5, &clients.0);
    assert_eq!(Message::decode(&fields.0), Err(WireError::Status));
}

#[test]
fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
    assert_eq!(frame_length([0, 4, 0, 0]), Ok(MAX_FRAME));
    assert!(frame_length([0, 4, 0, 1]).is_err());
    assert!(frame_length([0xff; 4]).is_err());
}

#[test]
fn a_name_that_is_none_is_refused() {
    let mut fields = Fields(vec![HELLO]);
    fields.put(1, b"../etc");
    fields.put(2, &[0, 1]);
    fields.put(3, &[0, 1]);
    fields.put(4, &[0; 8]);
    let refused = WireError::Field {
        kind: HELLO,
        tag: 1,
    };
    assert_eq!(Message::decode(&fields.0), Err(refused));
}
