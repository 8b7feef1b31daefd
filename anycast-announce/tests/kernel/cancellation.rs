//! Dropping the future anywhere leaves what the next decision completes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use anycast_core::announce::{Announcer, InForce, Preference};
use anycast_labs::{Netns, isolated};

use crate::support::{
    BOTH, LONG, all, announcer, assert_copies, boosts, confirm, has, in_force, lab, lifetime, now,
};

/// More polls than any decision takes.
const MANY: usize = 500;

/// Polls at most `polls` times, then drops. Whether it was ready by then.
async fn dropped_after(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Every boost has a permanent copy behind it and a lifetime of its own.
fn assert_safe(node: &Netns) {
    for address in BOTH {
        if has(node, "lo", address) {
            assert!(lifetime(node, "lo", address).is_some());
            assert_eq!(lifetime(node, "svc0", address), None, "{}", all(node));
            let link = node.run("ip -o link show dev svc0").unwrap();
            assert!(link.contains(",UP"), "{link}");
        }
    }
}

#[test]
fn a_first_start_cut_short_anywhere() {
    isolated(|| {
        lab(async |node| {
            for polls in 0..MANY {
                let mut cut = announcer(true, LONG);
                let first = now(Preference::Preferred);
                let ready = dropped_after(polls, cut.apply(&first)).await;
                assert_safe(node);
                // By the same process or, every other time, by one that restarted.
                if polls % 2 == 0 {
                    cut = announcer(true, LONG);
                }
                confirm(&mut cut, now(Preference::Preferred)).await;
                assert_copies(node);
                assert_eq!(boosts(node), 2);
                if ready {
                    assert!(polls > 10, "too few polls to have cut anything: {polls}");
                    return;
                }
                node.run("ip addr flush dev lo scope global").unwrap();
                node.run("ip link del dev svc0").unwrap();
            }
            panic!("never ready");
        });
    });
}

#[test]
fn a_demotion_cut_short_anywhere() {
    isolated(|| {
        lab(async |node| {
            for polls in 0..MANY {
                let mut announcer = announcer(true, LONG);
                confirm(&mut announcer, now(Preference::Preferred)).await;
                let demotion = now(Preference::Demoted);
                let ready = dropped_after(polls, announcer.apply(&demotion)).await;
                assert_copies(node);
                confirm(&mut announcer, now(Preference::Demoted)).await;
                assert_copies(node);
                assert_eq!(in_force(&mut announcer).await, Some(InForce::Demoted));
                if ready {
                    return;
                }
            }
            panic!("never ready");
        });
    });
}

/// A boost that was about to be written when its future was dropped is never written later.
#[test]
fn nothing_is_written_after_the_future_is_dropped() {
    isolated(|| {
        lab(async |node| {
            for polls in 0..MANY {
                let mut announcer = announcer(true, LONG);
                confirm(&mut announcer, now(Preference::Demoted)).await;
                let promotion = now(Preference::Preferred);
                let ready = dropped_after(polls, announcer.apply(&promotion)).await;
                let before = boosts(node);
                in_force(&mut announcer).await;
                assert_eq!(boosts(node), before);
                if ready {
                    return;
                }
            }
            panic!("never ready");
        });
    });
}
