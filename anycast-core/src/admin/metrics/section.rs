//! A service's own section of `/status` as metrics.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::Page;
use crate::admin::Section;

/// Most metrics of one section; the others are left out.
const MAX_METRICS: usize = 256;

/// The first words of the names of our own families, which no section can have.
const TAKEN: [&str; 7] = [
    "admin",
    "check",
    "fleet",
    "mesh",
    "node",
    "readiness",
    "service",
];

/// The numbers of one section.
#[derive(Debug)]
pub(super) struct SectionMetrics {
    name: &'static str,
    gauges: BTreeMap<String, f64>,
    counters: BTreeMap<String, u64>,
}

impl SectionMetrics {
    /// Each section once: a name that is taken is left out, as in `/status`.
    pub(super) fn all(sections: &[Section]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for section in sections {
            let taken = TAKEN.contains(&section.name);
            if !taken && !all.iter().any(|known| known.name == section.name) {
                all.push(Self::of(section));
            }
        }
        all
    }

    /// Whole numbers are counters unless the section says that they are gauges; what is no
    /// number is left out.
    fn of(section: &Section) -> Self {
        let mut metrics = Self {
            name: section.name,
            gauges: BTreeMap::new(),
            counters: BTreeMap::new(),
        };
        let told = (section.tell)().ok();
        let entries = told.as_ref().and_then(Value::as_object);
        for (key, value) in entries.into_iter().flatten().take(MAX_METRICS) {
            let name = metric_name(section.name, key);
            if section.gauges.contains(&key.as_str()) {
                if let Some(value) = value.as_f64() {
                    metrics.gauges.entry(name).or_insert(value);
                }
            } else if let Some(value) = value.as_u64() {
                // The suffix is the encoder's.
                let name = name.strip_suffix("_total").unwrap_or(&name).to_owned();
                metrics.counters.entry(name).or_insert(value);
            }
        }
        // One name is one family.
        let gauges = &metrics.gauges;
        metrics
            .counters
            .retain(|name, _| !gauges.contains_key(name));
        metrics
    }

    pub(super) fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        for (name, value) in &self.counters {
            let help = format!("Counter of the section {} of /status", self.name);
            page.counter(name, &help, *value)?;
        }
        for (name, value) in &self.gauges {
            let help = format!("Gauge of the section {} of /status", self.name);
            page.gauge(name, &help, *value)?;
        }
        Ok(())
    }
}

/// `anycast_SECTION_KEY`, of the characters that a metric's name may have.
fn metric_name(section: &str, key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("anycast_{section}_{key}")
        .chars()
        .map(allowed)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_metrics_of_their_type() {
        let section = Section {
            name: "tftp",
            tell: Box::new(|| {
                Ok(serde_json::json!({
                    "blocks": 7, "bytes_total": 9, "in_flight": 3, "load": 0.5, "text": "x",
                    "od\"d\n": 1, "negative": -1, "list": [1], "ratio": 0.25,
                }))
            }),
            gauges: &["in_flight", "ratio", "absent"],
        };
        let metrics = SectionMetrics::of(&section);
        let counters: Vec<_> = metrics.counters.iter().map(|(k, v)| (&k[..], *v)).collect();
        assert_eq!(
            counters,
            [
                ("anycast_tftp_blocks", 7),
                ("anycast_tftp_bytes", 9),
                ("anycast_tftp_od_d_", 1),
            ]
        );
        let gauges: Vec<_> = metrics.gauges.iter().map(|(k, v)| (&k[..], *v)).collect();
        assert_eq!(
            gauges,
            [
                ("anycast_tftp_in_flight", 3.0),
                ("anycast_tftp_ratio", 0.25)
            ]
        );
    }

    #[test]
    fn no_family_is_told_twice() {
        let section = |name| Section {
            name,
            tell: Box::new(|| Ok(serde_json::json!({"phase": 1}))),
            gauges: &[],
        };
        let all = SectionMetrics::all(&[section("check"), section("tftp"), section("tftp")]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].name, "tftp");
    }

    #[test]
    fn their_number_is_bounded() {
        let section = Section {
            name: "s",
            tell: Box::new(|| {
                let pairs = (0..10_000).map(|i| (format!("k{i}"), Value::from(i)));
                Ok(Value::Object(pairs.collect()))
            }),
            gauges: &[],
        };
        let sections = [section];
        let all = SectionMetrics::all(&sections);
        assert_eq!(all[0].counters.len(), MAX_METRICS);
    }
}
