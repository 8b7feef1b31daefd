mod model;
mod running;

use std::num::NonZeroU32;
use std::sync::Arc;

use super::*;

fn name(text: &str) -> CheckName {
    CheckName::new(text).unwrap()
}

/// A child whose build nobody calls.
fn child(text: &str) -> Child {
    let build: BuildCheck = Arc::new(|| panic!("nobody builds it"));
    Child::new(name(text), build)
}

fn heavy(text: &str, weight: u32) -> Child {
    child(text).with_weight(NonZeroU32::new(weight).unwrap())
}

#[test]
fn children_that_cannot_be_combined_are_named() {
    assert_eq!(
        Combination::all(Vec::new()).unwrap_err(),
        CombineError::Empty
    );
    let many = (0..=MAX_CHILDREN).map(|n| child(&n.to_string())).collect();
    assert_eq!(
        Combination::any(many).unwrap_err(),
        CombineError::TooMany { count: 65 }
    );
    let twice = Combination::any(vec![child("a"), child("b"), child("a")]).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "two of its checks are called a; give each a name of its own"
    );
    let reach = |n| Combination::quorum(n, vec![child("a"), child("b")]);
    assert!(reach(1).is_ok() && reach(2).is_ok());
    assert_eq!(
        reach(3).unwrap_err().to_string(),
        "3 must be between 1 and 2, which is all there is"
    );
    assert!(reach(0).is_err());
    let weighted = |t| Combination::weighted(t, vec![heavy("a", 3), heavy("b", u32::MAX)]);
    assert!(weighted(4_294_967_298).is_ok());
    assert!(weighted(4_294_967_299).is_err() && weighted(0).is_err());
}

#[test]
fn weights_of_the_greatest_size_do_not_overflow() {
    let many: Vec<_> = (0..MAX_CHILDREN)
        .map(|n| heavy(&n.to_string(), u32::MAX))
        .collect();
    let total = 64 * u64::from(u32::MAX);
    let whole = Combination::weighted(total, many).unwrap();
    assert_eq!(whole.judge(&vec![Verdict::Healthy; 64]), Verdict::Healthy);
}

#[test]
fn reasons_name_the_children_that_decide_first() {
    let three = || vec![child("web"), child("dns"), child("disk")];
    let verdicts = [
        Verdict::unknown("no descriptors"),
        Verdict::Healthy,
        Verdict::unhealthy("full"),
    ];
    let said = |whole: Combination| whole.judge(&verdicts).to_string();
    assert_eq!(
        said(Combination::all(three()).unwrap()),
        "unhealthy: all: disk unhealthy: full; web unknown: no descriptors"
    );
    assert_eq!(
        said(Combination::quorum(2, three()).unwrap()),
        "unknown: 1 of 3 healthy, 2 needed: disk unhealthy: full; web unknown: no descriptors"
    );
    let weighted = vec![heavy("web", 5), child("dns"), child("disk")];
    assert_eq!(
        said(Combination::weighted(3, weighted).unwrap()),
        "unknown: weight 1 of 7, 3 needed: disk unhealthy: full; web unknown: no descriptors"
    );
    let one = |verdict| {
        Combination::not(child("debug-port"))
            .judge(&[verdict])
            .to_string()
    };
    assert_eq!(
        one(Verdict::Healthy),
        "unhealthy: not debug-port: it is healthy"
    );
    assert_eq!(one(Verdict::unhealthy("refused")), "healthy");
    assert_eq!(
        one(Verdict::unknown("EMFILE")),
        "unknown: not debug-port: EMFILE"
    );
}

#[test]
fn a_long_reason_hides_no_other_child() {
    let whole = Combination::all(vec![child("first"), child("second"), child("third")]).unwrap();
    let long = Verdict::unhealthy("é".repeat(400));
    let said = whole.judge(&[long.clone(), long.clone(), long]).to_string();
    for name in ["first", "second", "third"] {
        assert!(said.contains(name), "{said}");
    }
}
