//! How a level shows in what a routing daemon exports.
//!
//! Pure. The daemons' parsers make [`Attributes`] of a route in the Adj-RIB-Out;
//! [`Expression`] says which level they mean. What means neither level is an error and not a
//! guess: somebody else's policy is at work then.

use anycast_core::announce::{InForce, Level, Role};

/// GRACEFUL_SHUTDOWN (RFC 8326, section 5): a router that honours it gives the route the
/// lowest local preference.
pub const GRACEFUL_SHUTDOWN: Community = Community(65535, 0);

/// A standard community (RFC 1997), in its two halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u16, pub u16);

impl std::fmt::Display for Community {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// The attributes of one exported route that can express a level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// LOCAL_PREF; absent towards another AS.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// The metric of an external LSA.
    pub ospf: Option<(MetricType, u32)>,
    /// Number of ASes in AS_PATH.
    pub path_length: usize,
    /// Standard communities.
    pub communities: Vec<Community>,
    /// How many attributes the daemon shows, those above and others; 0 where it does not tell.
    pub shown: usize,
}

/// Of an external route of OSPF. Type 1 is preferred to type 2, whatever their metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// Comparable with the cost of links, which is added.
    One,
    /// Greater than any cost of links.
    Two,
}

/// The metric of an external route that nobody can reach (RFC 2328, appendix B: LSInfinity): to
/// announce it is to withdraw.
pub const LS_INFINITY: u32 = 0x00ff_ffff;

/// Which attribute the routing policy sets, and to what at each level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expression {
    /// Local preference, within one AS: what [`Role::local_pref`] says, unless given.
    LocalPref {
        /// Of a preferred node.
        preferred: u32,
        /// Of a demoted node: lower.
        demoted: u32,
    },
    /// MED, towards one neighbouring AS; lower is better.
    Med {
        /// Of a preferred node.
        preferred: u32,
        /// Of a demoted node: higher.
        demoted: u32,
    },
    /// A longer AS path, towards any AS.
    Prepend {
        /// ASes in the path of a preferred node, as exported.
        preferred: usize,
        /// ASes in the path of a demoted node: more.
        demoted: usize,
    },
    /// A community that a demoted node adds, and that every neighbour has agreed to.
    Community(Community),
    /// The metric of an external route of OSPF, of one type at both levels; lower is better.
    OspfMetric {
        /// Of which type.
        kind: MetricType,
        /// Of a preferred node.
        preferred: u32,
        /// Of a demoted node: higher, and below [`LS_INFINITY`].
        demoted: u32,
    },
}

impl Expression {
    /// Local preference with the levels that this role has.
    #[must_use]
    pub fn local_pref(role: Role) -> Self {
        Self::LocalPref {
            preferred: role.local_pref(Level::Preferred),
            demoted: role.local_pref(Level::Demoted),
        }
    }

    /// Whether the two levels can be told apart, and the preferred one is the better.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        match self {
            Self::LocalPref { preferred, demoted } => preferred > demoted,
            Self::Med { preferred, demoted } => preferred < demoted,
            Self::Prepend { preferred, demoted } => preferred < demoted,
            Self::Community(_) => true,
            Self::OspfMetric {
                preferred, demoted, ..
            } => preferred < demoted && demoted < LS_INFINITY,
        }
    }

    /// The level that an exported route means.
    ///
    /// # Errors
    /// What was found, when it means neither level.
    pub fn level(self, route: &Attributes) -> Result<InForce, String> {
        let (is_preferred, is_demoted, found) = match self {
            Self::LocalPref { preferred, demoted } => (
                route.local_pref == Some(preferred),
                route.local_pref == Some(demoted),
                number("local preference", route.local_pref, preferred, demoted),
            ),
            Self::Med { preferred, demoted } => (
                route.med == Some(preferred),
                route.med == Some(demoted),
                number("MED", route.med, preferred, demoted),
            ),
            Self::Prepend { preferred, demoted } => (
                route.path_length == preferred,
                route.path_length == demoted,
                format!(
                    "an AS path of {}, neither {preferred} (preferred) nor {demoted} (demoted)",
                    route.path_length
                ),
            ),
            Self::Community(community) => {
                let is_demoted = route.communities.contains(&community);
                (!is_demoted, is_demoted, String::new())
            }
            Self::OspfMetric {
                kind,
                preferred,
                demoted,
            } => {
                let found = route.ospf.filter(|(found, _)| *found == kind);
                let metric = found.map(|(_, metric)| metric);
                let name = match kind {
                    MetricType::One => "OSPF metric of type 1",
                    MetricType::Two => "OSPF metric of type 2",
                };
                (
                    metric == Some(preferred),
                    metric == Some(demoted),
                    number(name, metric, preferred, demoted),
                )
            }
        };
        if is_preferred {
            Ok(InForce::Preferred)
        } else if is_demoted {
            Ok(InForce::Demoted)
        } else {
            Err(found)
        }
    }
}

fn number(name: &str, found: Option<u32>, preferred: u32, demoted: u32) -> String {
    let found = found.map_or_else(|| format!("no {name}"), |found| format!("{name} {found}"));
    format!("{found}, neither {preferred} (preferred) nor {demoted} (demoted)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(local_pref: u32) -> Attributes {
        Attributes {
            local_pref: Some(local_pref),
            ..Attributes::default()
        }
    }

    #[test]
    fn each_expression_tells_its_two_levels_and_nothing_else() {
        let primary = Expression::local_pref(Role::Primary);
        assert!(primary.is_ordered());
        assert_eq!(primary.level(&route(200)), Ok(InForce::Preferred));
        assert_eq!(primary.level(&route(50)), Ok(InForce::Demoted));
        let said = primary.level(&route(100)).unwrap_err();
        assert_eq!(
            said,
            "local preference 100, neither 200 (preferred) nor 50 (demoted)"
        );
        assert!(primary.level(&Attributes::default()).is_err());

        let med = Expression::Med {
            preferred: 100,
            demoted: 1000,
        };
        let with = |med| Attributes {
            med: Some(med),
            ..Attributes::default()
        };
        assert_eq!(med.level(&with(1000)), Ok(InForce::Demoted));
        assert!(med.level(&with(1)).is_err());

        let prepend = Expression::Prepend {
            preferred: 1,
            demoted: 4,
        };
        let long = Attributes {
            path_length: 4,
            ..Attributes::default()
        };
        assert_eq!(prepend.level(&long), Ok(InForce::Demoted));

        let agreed = Expression::Community(GRACEFUL_SHUTDOWN);
        let marked = Attributes {
            communities: vec![Community(65000, 1), GRACEFUL_SHUTDOWN],
            ..Attributes::default()
        };
        assert_eq!(agreed.level(&marked), Ok(InForce::Demoted));
        assert_eq!(agreed.level(&Attributes::default()), Ok(InForce::Preferred));
    }

    #[test]
    fn levels_in_the_wrong_order_are_found_out() {
        let same = Expression::LocalPref {
            preferred: 50,
            demoted: 50,
        };
        let med = Expression::Med {
            preferred: 10,
            demoted: 1,
        };
        assert!(!same.is_ordered() && !med.is_ordered());
    }
}
