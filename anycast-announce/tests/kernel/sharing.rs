//! Announcers that read and hear together behave as each would alone.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use anycast_announce::kernel::{KernelAnnouncer, KernelShare};
use anycast_core::announce::{Announcer, Applied, Preference};
use anycast_labs::{Netns, isolated};

use crate::support::{LONG, PATIENCE, about, announcer, copy_of, has, lab};

const SERVICES: u8 = 50;

fn address(n: u8) -> String {
    format!("198.51.100.{n}/32")
}

fn shared(share: &KernelShare) -> KernelAnnouncer {
    announcer(true, LONG).sharing(share)
}

async fn apply(announcer: &mut KernelAnnouncer, address: &str, preference: Preference) {
    let applied = announcer.apply(&about(&[address], preference)).await;
    assert_eq!(applied.unwrap(), Applied::Confirmed, "{address}");
}

/// Many at once, since what one read is then handed to the others.
async fn apply_all(all: &mut [(KernelAnnouncer, String)], preference: Preference) {
    let each = all
        .iter_mut()
        .map(|(announcer, address)| apply(announcer, address, preference));
    futures_util::future::join_all(each).await;
}

fn many(share: &KernelShare) -> Vec<(KernelAnnouncer, String)> {
    (1..=SERVICES)
        .map(|n| (shared(share), address(n)))
        .collect()
}

fn count(node: &Netns, device: &str) -> usize {
    (1..=SERVICES)
        .filter(|n| has(node, device, &address(*n)))
        .count()
}

#[test]
fn many_are_raised_renewed_and_lowered_together() {
    isolated(|| {
        lab(async |node| {
            let share = KernelShare::default();
            let mut all = many(&share);
            for _ in 0..3 {
                apply_all(&mut all, Preference::Preferred).await;
                assert_eq!(count(node, "lo"), usize::from(SERVICES));
            }
            apply_all(&mut all, Preference::Demoted).await;
            assert_eq!(count(node, "lo"), 0);
            assert_eq!(count(node, "svc0"), usize::from(SERVICES));
        });
    });
}

/// What was read before somebody's change is not taken for what is there after it: each
/// renewal sees that its permanent copy is gone, whatever the others had read.
#[test]
fn a_renewal_never_trusts_what_was_read_before_it() {
    isolated(|| {
        lab(async |node| {
            let share = KernelShare::default();
            let mut all = many(&share);
            apply_all(&mut all, Preference::Preferred).await;
            for n in 1..=SERVICES {
                node.run(&format!("ip addr del {} dev svc0", copy_of(&address(n))))
                    .unwrap();
                let (announcer, address) = &mut all[usize::from(n) - 1];
                apply(announcer, address, Preference::Preferred).await;
                assert!(has(node, "svc0", address), "{address}");
            }
        });
    });
}

#[test]
fn only_those_concerned_are_disturbed() {
    isolated(|| {
        lab(async |node| {
            let share = KernelShare::default();
            let (mut one, mut two) = (shared(&share), shared(&share));
            apply(&mut one, &address(1), Preference::Preferred).await;
            apply(&mut two, &address(2), Preference::Preferred).await;
            node.run(&format!("ip addr del {} dev lo", address(1)))
                .unwrap();
            let told = tokio::time::timeout(PATIENCE, one.disturbed()).await;
            assert!(told.is_ok(), "went unnoticed");
            assert!(is_quiet(&mut two), "the other was disturbed as well");
            apply(&mut one, &address(1), Preference::Preferred).await;
            // With the first that joined gone, the rest still hear.
            drop(one);
            node.run(&format!("ip addr del {} dev lo", address(2)))
                .unwrap();
            let told = tokio::time::timeout(PATIENCE, two.disturbed()).await;
            assert!(told.is_ok(), "went unnoticed");
        });
    });
}

fn is_quiet(announcer: &mut KernelAnnouncer) -> bool {
    let disturbed = pin!(announcer.disturbed());
    disturbed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending
}

/// A call that is dropped half-way holds nothing up.
#[test]
fn a_cancelled_call_does_not_hold_up_the_others() {
    isolated(|| {
        lab(async |node| {
            let share = KernelShare::default();
            let (mut one, mut two) = (shared(&share), shared(&share));
            for _ in 0..50 {
                let (first, second) = (address(1), address(2));
                let decision = about(&[&first], Preference::Preferred);
                tokio::select! {
                    biased;
                    _ = one.apply(&decision) => {}
                    () = tokio::task::yield_now() => {}
                }
                apply(&mut two, &second, Preference::Preferred).await;
            }
            apply(&mut one, &address(1), Preference::Preferred).await;
            assert!(has(node, "lo", &address(1)) && has(node, "lo", &address(2)));
        });
    });
}
