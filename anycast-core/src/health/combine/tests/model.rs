//! The rules against a truth table: what an unknown child might be is tried out.

use proptest::prelude::*;

use super::*;

/// Cases of each property.
const CASES: u32 = 20_000;

/// A child's verdict without its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Healthy,
    Failed,
    Gone,
    Unknown,
}

impl Leaf {
    fn verdict(self) -> Verdict {
        match self {
            Self::Healthy => Verdict::Healthy,
            Self::Failed => Verdict::unhealthy("failed"),
            Self::Gone => Verdict::gone("gone"),
            Self::Unknown => Verdict::unknown("broken"),
        }
    }

    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Unhealthy(_, Evidence::Probe) => Self::Failed,
            Verdict::Unhealthy(_, Evidence::Conclusive) => Self::Gone,
            Verdict::Unknown(_) => Self::Unknown,
        }
    }

    const fn is_unhealthy(self) -> bool {
        matches!(self, Self::Failed | Self::Gone)
    }

    /// What it might be in truth.
    const fn might_be(self) -> &'static [bool] {
        match self {
            Self::Healthy => &[true],
            Self::Failed | Self::Gone => &[false],
            Self::Unknown => &[true, false],
        }
    }
}

/// A rule as a test writes it down.
#[derive(Debug, Clone, Copy)]
enum Gate {
    All,
    Any,
    Quorum(usize),
    Weighted(usize),
    Not,
}

impl Gate {
    /// The truth table.
    fn holds(self, children: &[(bool, u32)]) -> bool {
        let healthy = children.iter().filter(|(healthy, _)| *healthy);
        match self {
            Self::All => children.iter().all(|(healthy, _)| *healthy),
            Self::Any => children.iter().any(|(healthy, _)| *healthy),
            Self::Quorum(n) => healthy.count() >= n,
            Self::Weighted(threshold) => {
                let sum: u32 = healthy.map(|(_, weight)| *weight).sum();
                sum as usize >= threshold
            }
            Self::Not => children.iter().all(|(healthy, _)| !healthy),
        }
    }

    fn combination(self, weights: &[u32]) -> Combination {
        let children: Vec<_> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| heavy(&format!("child{index}"), *weight))
            .collect();
        match self {
            Self::All => Combination::all(children).unwrap(),
            Self::Any => Combination::any(children).unwrap(),
            Self::Quorum(n) => Combination::quorum(u32::try_from(n).unwrap(), children).unwrap(),
            Self::Weighted(threshold) => Combination::weighted(threshold as u64, children).unwrap(),
            Self::Not => Combination::not(children[0].clone()),
        }
    }
}

/// All ways in which the children might be in truth.
fn worlds(leaves: &[Leaf]) -> Vec<Vec<bool>> {
    let mut worlds = vec![Vec::new()];
    for leaf in leaves {
        worlds = worlds
            .into_iter()
            .flat_map(|world| {
                leaf.might_be().iter().map(move |truth| {
                    let mut longer = world.clone();
                    longer.push(*truth);
                    longer
                })
            })
            .collect();
    }
    worlds
}

/// What is so in every world.
fn agreed(truths: impl Iterator<Item = bool>) -> Leaf {
    let truths: Vec<_> = truths.collect();
    if truths.iter().all(|truth| *truth) {
        Leaf::Healthy
    } else if truths.iter().any(|truth| *truth) {
        Leaf::Unknown
    } else {
        Leaf::Failed
    }
}

fn model(gate: Gate, leaves: &[Leaf], weights: &[u32]) -> Leaf {
    let in_all_worlds = |leaves: &[Leaf]| {
        agreed(worlds(leaves).into_iter().map(|world| {
            let children: Vec<_> = world.into_iter().zip(weights.iter().copied()).collect();
            gate.holds(&children)
        }))
    };
    if in_all_worlds(leaves) != Leaf::Failed {
        return in_all_worlds(leaves);
    }
    // Conclusive if those that are gone decide, whatever the others are.
    let gone_alone: Vec<_> = leaves
        .iter()
        .map(|leaf| {
            if *leaf == Leaf::Gone {
                Leaf::Gone
            } else {
                Leaf::Unknown
            }
        })
        .collect();
    match in_all_worlds(&gone_alone) {
        Leaf::Failed => Leaf::Gone,
        Leaf::Healthy | Leaf::Gone | Leaf::Unknown => Leaf::Failed,
    }
}

fn leaf() -> impl Strategy<Value = Leaf> {
    prop_oneof![
        3 => Just(Leaf::Healthy),
        2 => Just(Leaf::Failed),
        1 => Just(Leaf::Gone),
        2 => Just(Leaf::Unknown),
    ]
}

/// A rule and the weights of its children.
fn gate(children: usize) -> impl Strategy<Value = (Gate, Vec<u32>)> {
    let weights = proptest::collection::vec(1_u32..=4, children);
    weights.prop_flat_map(move |weights| {
        let total: u32 = weights.iter().sum();
        let mut gates = vec![
            Just(Gate::All).boxed(),
            Just(Gate::Any).boxed(),
            (1..=children).prop_map(Gate::Quorum).boxed(),
            (1..=total as usize).prop_map(Gate::Weighted).boxed(),
        ];
        if children == 1 {
            gates.push(Just(Gate::Not).boxed());
        }
        (proptest::strategy::Union::new(gates), Just(weights))
    })
}

fn gate_and_leaves() -> impl Strategy<Value = (Gate, Vec<u32>, Vec<Leaf>)> {
    (1_usize..=6).prop_flat_map(|count| {
        (gate(count), proptest::collection::vec(leaf(), count))
            .prop_map(|((gate, weights), leaves)| (gate, weights, leaves))
    })
}

fn judged(gate: Gate, weights: &[u32], leaves: &[Leaf]) -> Leaf {
    let verdicts: Vec<_> = leaves.iter().map(|leaf| leaf.verdict()).collect();
    Leaf::of(&gate.combination(weights).judge(&verdicts))
}

/// Rules within rules.
#[derive(Debug, Clone)]
enum Tree {
    Leaf(Leaf),
    Gate(Gate, Vec<u32>, Vec<Self>),
}

impl Tree {
    fn leaves(&self) -> Vec<Leaf> {
        match self {
            Self::Leaf(leaf) => vec![*leaf],
            Self::Gate(_, _, children) => children.iter().flat_map(Self::leaves).collect(),
        }
    }

    /// The whole in one world; takes the truths of its leaves.
    fn holds(&self, world: &mut impl Iterator<Item = bool>) -> bool {
        match self {
            Self::Leaf(_) => world.next().unwrap(),
            Self::Gate(gate, weights, children) => {
                let children: Vec<_> = children
                    .iter()
                    .zip(weights)
                    .map(|(child, weight)| (child.holds(world), *weight))
                    .collect();
                gate.holds(&children)
            }
        }
    }

    fn judge(&self, leaves: &mut impl Iterator<Item = Leaf>) -> Verdict {
        match self {
            Self::Leaf(_) => leaves.next().unwrap().verdict(),
            Self::Gate(gate, weights, children) => {
                let verdicts: Vec<_> = children.iter().map(|child| child.judge(leaves)).collect();
                gate.combination(weights).judge(&verdicts)
            }
        }
    }

    fn value(&self, leaves: &[Leaf]) -> Leaf {
        Leaf::of(&self.judge(&mut leaves.iter().copied()))
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaves = leaf().prop_map(Tree::Leaf);
    leaves.prop_recursive(3, 8, 3, |inner| {
        (1_usize..=3).prop_flat_map(move |count| {
            let children = proptest::collection::vec(inner.clone(), count);
            (gate(count), children)
                .prop_map(|((gate, weights), children)| Tree::Gate(gate, weights, children))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_rule_is_its_truth_table_over_every_world((gate, weights, leaves) in gate_and_leaves()) {
        prop_assert_eq!(judged(gate, &weights, &leaves), model(gate, &leaves, &weights));
    }

    #[test]
    fn a_broken_checker_never_makes_the_whole_fail(
        (gate, weights, mut leaves) in gate_and_leaves(),
        broken in any::<prop::sample::Index>(),
    ) {
        let before = judged(gate, &weights, &leaves);
        let broken = broken.index(leaves.len());
        leaves[broken] = Leaf::Unknown;
        let after = judged(gate, &weights, &leaves);
        prop_assert!(before.is_unhealthy() || !after.is_unhealthy(), "{:?} became {:?}", before, after);
        // Nor does it make a failure surer, or anything but less known.
        prop_assert!(after == before || after == Leaf::Unknown || (before, after) == (Leaf::Gone, Leaf::Failed));
    }

    #[test]
    fn rules_within_rules_are_exact_too(tree in tree()) {
        let leaves = tree.leaves();
        let worlds = worlds(&leaves).into_iter();
        let truth = agreed(worlds.map(|world| tree.holds(&mut world.into_iter())));
        let value = tree.value(&leaves);
        let value = if value == Leaf::Gone { Leaf::Failed } else { value };
        prop_assert_eq!(value, truth);
    }

    #[test]
    fn a_broken_checker_deep_inside_never_makes_the_whole_fail(
        tree in tree(),
        broken in any::<prop::sample::Index>(),
    ) {
        let mut leaves = tree.leaves();
        let before = tree.value(&leaves);
        let broken = broken.index(leaves.len());
        leaves[broken] = Leaf::Unknown;
        let after = tree.value(&leaves);
        prop_assert!(before.is_unhealthy() || !after.is_unhealthy(), "{:?} became {:?}", before, after);
        prop_assert!(after == before || after == Leaf::Unknown || (before, after) == (Leaf::Gone, Leaf::Failed));
    }
}
