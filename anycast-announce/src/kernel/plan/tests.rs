//! Every plan against a small model of the kernel: every state of one address, and random
//! states of several. After each single step the rules of the module must hold, and from
//! wherever the steps stop the next plans must reach the goal.

use anycast_core::announce::InForce;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const SVC: &str = "svc0";
const LO: u32 = 1;
const SVC_INDEX: u32 = 2;
const PEER: u32 = 3;
const ETH: u32 = 4;

/// More batches than any state needs.
const MANY: usize = 6;

fn v4() -> ServiceAddress {
    "192.0.2.69/32".parse().unwrap()
}

fn v6() -> ServiceAddress {
    "2001:db8::69/128".parse().unwrap()
}

fn link(index: u32, name: &str, kind: LinkKind, up: bool) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        alias: None,
        up,
        enslaved: false,
    }
}

fn host(index: u32, address: ServiceAddress, permanent: bool, proto: Option<u8>) -> Address {
    Address {
        index,
        ip: address.ip(),
        peer: None,
        prefix_len: address.prefix().prefix_len(),
        permanent,
        proto,
        dad_failed: false,
    }
}

fn foreign(address: &Address) -> bool {
    address.permanent || address.proto != Some(TAG) || !address.is_host()
}

/// Whether the node answers for the address without its boost; said here a second time, so
/// that the plans are not measured by their own ruler.
fn served(snapshot: &Snapshot, address: ServiceAddress) -> bool {
    let on = |link: &Link| {
        snapshot.addresses.iter().any(|found| {
            found.index == link.index
                && found.ip == address.ip()
                && found.permanent
                && !found.dad_failed
        })
    };
    let elsewhere = snapshot.links.iter().filter(|link| link.index != LO);
    elsewhere.filter(|link| link.up).any(on)
}

/// Executes one step as the kernel would. Panics where the kernel would answer EEXIST or
/// where the step breaks a rule.
fn execute(before: &Snapshot, step: Step) -> Snapshot {
    let mut after = before.clone();
    match step {
        Step::CreateLink => {
            assert!(before.link_named(SVC).is_none(), "{before:?}");
            after
                .links
                .push(link(SVC_INDEX, SVC, LinkKind::Veth(Some(PEER)), false));
            after
                .links
                .push(link(PEER, "svc0p", LinkKind::Veth(Some(SVC_INDEX)), false));
        }
        Step::MarkLink { index, peer } => {
            for index in peer.into_iter().chain([index]) {
                mutable(&mut after, index).alias = Some(ALIAS.to_owned());
            }
        }
        Step::SetUp { index } => mutable(&mut after, index).up = true,
        Step::CreateCopy { index, address } => {
            create(&mut after, host(index, address, true, Some(TAG)));
        }
        Step::CreateBoost { index, address } => {
            assert_eq!(index, LO);
            create(&mut after, host(index, address, false, Some(TAG)));
        }
        Step::MakePermanent { index, address, .. } => {
            assert_ne!(index, LO);
            take(&mut after, index, address);
            create(&mut after, host(index, address, true, Some(TAG)));
        }
        Step::RenewBoost { index, address } => {
            assert_eq!(index, LO);
            take(&mut after, index, address);
            create(&mut after, host(index, address, false, Some(TAG)));
        }
        Step::RemoveBoost { index, address } => {
            assert_eq!(index, LO);
            take(&mut after, index, address);
        }
    }
    check_step(before, step, &after);
    after
}

fn mutable(snapshot: &mut Snapshot, index: u32) -> &mut Link {
    let lo_or_other = index == LO || index == ETH;
    assert!(!lo_or_other, "an interface of others is changed");
    let link = snapshot.links.iter_mut().find(|link| link.index == index);
    let link = link.expect("an interface that is not there is changed");
    assert!(!link.enslaved && link.kind != LinkKind::Other, "{link:?}");
    let alias = link.alias.as_deref().unwrap_or(ALIAS);
    assert!(alias.starts_with(ALIAS), "{link:?}");
    link
}

fn create(snapshot: &mut Snapshot, new: Address) {
    let taken = |old: &Address| old.index == new.index && old.ip == new.ip;
    assert!(!snapshot.addresses.iter().any(taken), "{new:?} exists");
    if new.index != LO {
        mutable(snapshot, new.index);
    }
    snapshot.addresses.push(new);
}

fn take(snapshot: &mut Snapshot, index: u32, address: ServiceAddress) {
    let at = snapshot
        .addresses
        .iter()
        .position(|old| old.index == index && old.ip == address.ip() && !foreign(old));
    snapshot
        .addresses
        .remove(at.expect("replaced or removed what is not ours"));
}

/// The rules that hold for every single step.
fn check_step(before: &Snapshot, step: Step, after: &Snapshot) {
    for kept in before.addresses.iter().filter(|address| foreign(address)) {
        assert!(after.addresses.contains(kept), "{step:?} touched {kept:?}");
    }
    if let Step::CreateBoost { address, .. }
    | Step::RenewBoost { address, .. }
    | Step::RemoveBoost { address, .. } = step
    {
        assert!(served(before, address), "{step:?} of an only copy (F7)");
    }
    for address in [v4(), v6()] {
        assert!(
            served(after, address) || !served(before, address),
            "{step:?} cost the permanent copy (F7)"
        );
    }
}

/// Plans and executes until nothing is left to do, stopping each batch at `cut` once.
fn settle(
    mut now: Snapshot,
    addresses: &[ServiceAddress],
    goal: Goal,
    cut: usize,
) -> (Snapshot, Plan) {
    let mut goal = goal;
    for round in 0..MANY {
        let plan = plan(&now, SVC, addresses, goal);
        if plan.steps.is_empty() {
            return (now, plan);
        }
        let stop = if round == 0 { cut } else { usize::MAX };
        let mut renewed = false;
        for &step in plan.steps.iter().take(stop) {
            now = execute(&now, step);
            renewed |= matches!(step, Step::RenewBoost { .. } | Step::CreateBoost { .. });
        }
        if goal == Goal::Renewed && renewed && plan.steps.len() <= stop {
            goal = Goal::Present;
        }
    }
    panic!("does not settle: {now:?}");
}

fn check_end(end: &Snapshot, addresses: &[ServiceAddress], goal: Goal, last: &Plan) {
    let lo = end.loopback().unwrap();
    let refused = |address| {
        last.refusals
            .iter()
            .any(|refusal| refusal.address == address)
    };
    for &address in addresses.iter().filter(|address| !refused(**address)) {
        assert!(served(end, address), "{address} has no copy in {end:?}");
        match goal {
            Goal::Absent => assert_eq!(end.on_loopback(lo, address), Ok(false)),
            Goal::Present | Goal::Renewed if last.refusals.is_empty() => {
                assert_eq!(end.on_loopback(lo, address), Ok(true));
            }
            Goal::Present | Goal::Renewed => {}
        }
    }
    // Idempotent: what is done is not done again.
    let again = if goal == Goal::Renewed {
        Goal::Present
    } else {
        goal
    };
    assert_eq!(plan(end, SVC, addresses, again).steps, []);
}

fn writes(plan: &Plan) -> usize {
    let write = |step: &&Step| matches!(step, Step::CreateBoost { .. } | Step::RenewBoost { .. });
    plan.steps.iter().filter(write).count()
}

/// All that must hold from one state, wherever the first batch is cut short.
fn check(state: &Snapshot, addresses: &[ServiceAddress]) {
    for goal in [Goal::Renewed, Goal::Present, Goal::Absent] {
        let first = plan(state, SVC, addresses, goal);
        let written = writes(&first);
        assert!(first.refusals.is_empty() || written == 0, "{first:?}");
        if goal == Goal::Renewed {
            let later = !first.refusals.is_empty() || first.steps.contains(&Step::CreateLink);
            let wanted = if later { 0 } else { addresses.len() };
            assert_eq!(written, wanted, "preferred in part: {first:?}");
        }
        for cut in 0..=first.steps.len() {
            let (end, last) = settle(state.clone(), addresses, goal, cut);
            check_end(&end, addresses, goal, &last);
            // What is refused may become possible (an interface comes up), never the reverse.
            assert!(
                last.refusals.is_empty() || !first.refusals.is_empty(),
                "{state:?}"
            );
        }
    }
}

/// Every state that `svc0` and its peer can be in.
fn interfaces() -> Vec<Vec<Link>> {
    let veth = LinkKind::Veth(Some(PEER));
    let peer = |up| link(PEER, "svc0p", LinkKind::Veth(Some(SVC_INDEX)), up);
    let marked = |mut link: Link, alias: &str| {
        link.alias = Some(alias.to_owned());
        link
    };
    let mut port = link(SVC_INDEX, SVC, veth, false);
    port.enslaved = true;
    vec![
        vec![],
        vec![link(SVC_INDEX, SVC, LinkKind::Dummy, false)],
        vec![link(SVC_INDEX, SVC, LinkKind::Dummy, true)],
        vec![link(SVC_INDEX, SVC, veth, false), peer(false)],
        vec![
            marked(link(SVC_INDEX, SVC, veth, true), "anycast"),
            peer(true),
        ],
        vec![
            marked(link(SVC_INDEX, SVC, veth, false), "anycast: ours"),
            peer(true),
        ],
        vec![
            marked(link(SVC_INDEX, SVC, veth, true), "anycast"),
            peer(false),
        ],
        vec![marked(
            link(SVC_INDEX, SVC, LinkKind::Veth(None), true),
            "anycast",
        )],
        vec![
            marked(link(SVC_INDEX, SVC, veth, true), "storage"),
            peer(true),
        ],
        vec![port.clone(), peer(true)],
        vec![marked(port, "anycast"), peer(true)],
        vec![link(SVC_INDEX, SVC, LinkKind::Other, true)],
        vec![marked(
            link(SVC_INDEX, SVC, LinkKind::Other, true),
            "anycast",
        )],
    ]
}

/// Every state that one address can be in on one interface.
fn copies(index: u32, address: ServiceAddress) -> Vec<Vec<Address>> {
    let mut states = vec![vec![]];
    for permanent in [true, false] {
        for proto in [None, Some(TAG), Some(TAG + 1)] {
            let plain = host(index, address, permanent, proto);
            let mut wide = plain;
            wide.prefix_len -= 8;
            let mut failed = plain;
            failed.dad_failed = true;
            states.extend([vec![plain], vec![wide], vec![failed]]);
        }
    }
    let ours = host(index, address, false, Some(TAG));
    let mut wide = host(index, address, true, None);
    wide.prefix_len -= 8;
    states.push(vec![ours, wide]);
    states
}

fn base(lo_up: bool, eth_up: bool, interface: &[Link]) -> Snapshot {
    let mut links = vec![
        link(LO, "lo", LinkKind::Loopback, lo_up),
        link(ETH, "eth0", LinkKind::Other, eth_up),
    ];
    links.extend_from_slice(interface);
    Snapshot {
        links,
        addresses: vec![],
    }
}

#[test]
fn every_state_of_one_address() {
    let mut states = 0;
    for address in [v4(), v6()] {
        for interface in interfaces() {
            for (lo_up, eth_up) in [(true, true), (true, false), (false, true)] {
                for boost in copies(LO, address) {
                    for copy in copies(SVC_INDEX, address) {
                        if interface.is_empty() && !copy.is_empty() {
                            continue;
                        }
                        for other in copies(ETH, address) {
                            let mut state = base(lo_up, eth_up, &interface);
                            state
                                .addresses
                                .extend(boost.iter().chain(&copy).chain(&other));
                            check(&state, &[address]);
                            states += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(states > 100_000, "{states}");
}

#[test]
fn nothing_seen_changes_nothing() {
    for goal in [Goal::Renewed, Goal::Present, Goal::Absent] {
        let plan = plan(&Snapshot::default(), SVC, &[v4(), v6()], goal);
        assert_eq!(plan.steps, [], "F10");
        assert_eq!(plan.refusals.len(), 2);
    }
    let bare = base(true, true, &[]);
    let steps = plan(&bare, SVC, &[v4()], Goal::Absent).steps;
    assert_eq!(steps, [Step::CreateLink]);
}

#[test]
fn a_list_of_addresses_that_is_empty_does_nothing() {
    let mut state = base(true, true, &interfaces()[4]);
    state.addresses.push(host(LO, v4(), false, Some(TAG)));
    state.addresses.push(host(SVC_INDEX, v4(), true, Some(TAG)));
    for goal in [Goal::Renewed, Goal::Absent] {
        assert_eq!(plan(&state, SVC, &[], goal), Plan::default(), "F10");
    }
}

#[test]
fn a_lost_copy_is_repaired_before_the_boost_is_renewed() {
    let mut state = base(true, true, &interfaces()[4]);
    state.addresses.push(host(LO, v4(), false, Some(TAG)));
    let steps = plan(&state, SVC, &[v4()], Goal::Renewed).steps;
    let copy = Step::CreateCopy {
        index: SVC_INDEX,
        address: v4(),
    };
    let renewal = Step::RenewBoost {
        index: LO,
        address: v4(),
    };
    assert_eq!(steps, [copy, renewal]);
}

#[test]
fn a_demotion_does_not_wait_for_the_repair_of_another_address() {
    let mut state = base(true, true, &interfaces()[0]);
    for address in [v4(), v6()] {
        state.addresses.push(host(LO, address, false, Some(TAG)));
    }
    state.addresses.push(host(ETH, v6(), true, None));
    let steps = plan(&state, SVC, &[v4(), v6()], Goal::Absent).steps;
    let removal = Step::RemoveBoost {
        index: LO,
        address: v6(),
    };
    assert_eq!(steps, [removal, Step::CreateLink]);
}

#[test]
fn a_boost_that_is_the_only_copy_is_left_to_expire() {
    let bridge = link(SVC_INDEX, SVC, LinkKind::Other, true);
    let mut state = base(true, true, &[bridge]);
    state.addresses.push(host(LO, v4(), false, Some(TAG)));
    for goal in [Goal::Renewed, Goal::Absent] {
        let plan = plan(&state, SVC, &[v4()], goal);
        assert_eq!(plan.steps, []);
        assert!(plan.refusals[0].reason.contains("svc0"));
    }
}

#[test]
fn an_interface_of_ours_that_is_down_only_comes_up() {
    let mut state = base(true, true, &interfaces()[5]);
    state.addresses.push(host(SVC_INDEX, v4(), true, Some(TAG)));
    let Plan { steps, refusals } = plan(&state, SVC, &[v4(), v6()], Goal::Absent);
    assert_eq!(refusals, []);
    let up = Step::SetUp { index: SVC_INDEX };
    let address = v6();
    let index = SVC_INDEX;
    assert_eq!(steps, [up, Step::CreateCopy { index, address }]);
}

#[test]
fn what_is_in_force() {
    let mut state = base(true, true, &interfaces()[4]);
    assert_eq!(in_force(&state, v4(), true), InForce::Withdrawn);
    state.addresses.push(host(SVC_INDEX, v4(), true, Some(TAG)));
    assert_eq!(in_force(&state, v4(), true), InForce::Demoted);
    assert_eq!(in_force(&state, v4(), false), InForce::Withdrawn);
    state.addresses.push(host(LO, v4(), false, Some(TAG)));
    assert_eq!(in_force(&state, v4(), true), InForce::Preferred);
    assert_eq!(in_force(&state, v4(), false), InForce::Preferred);
    assert_eq!(in_force(&state, v6(), true), InForce::Withdrawn);
    assert_eq!(
        in_force(&Snapshot::default(), v4(), true),
        InForce::Withdrawn
    );
}

fn any_address() -> impl Strategy<Value = Vec<Address>> {
    let at = (
        select(vec![LO, SVC_INDEX, PEER, ETH]),
        select(vec![v4(), v6()]),
    );
    at.prop_flat_map(|(index, address)| select(copies(index, address)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(10_000),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_states_of_two_addresses(
        interface in select(interfaces()),
        (lo_up, eth_up) in any::<(bool, bool)>(),
        found in prop::collection::vec(any_address(), 0..8),
        wanted in select(vec![vec![v4()], vec![v6()], vec![v4(), v6()]]),
    ) {
        let mut state = base(lo_up, eth_up, &interface);
        for address in found.into_iter().flatten() {
            let there = state.link_at(address.index).is_some();
            // The kernel holds an IPv6 address once an interface, an IPv4 prefix once.
            let taken = state.addresses.iter().any(|old| {
                old.index == address.index
                    && old.ip == address.ip
                    && (old.ip.is_ipv6() || old.prefix_len == address.prefix_len)
            });
            if there && !taken {
                state.addresses.push(address);
            }
        }
        check(&state, &wanted);
    }
}
