//! `/metrics`: OpenMetrics text, made anew for each scrape from the node's status.
//!
//! A state is a family of samples of which one is 1 and the others 0, so that a state that is
//! left does not linger. Labels hold names and states only, never reasons: text from a service
//! would be a new time series each time it changed. Ages are in seconds on the monotonic
//! clock; they are right whatever the wall clock does.
//!
//! The families are listed in [`crate::admin`].

mod families;
mod section;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use self::section::SectionMetrics;
use super::access::Refusal;
use super::answer::Sources;
use super::order::Verb;
use crate::node::NodeStatus;

/// What the page is served as.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page.
pub(super) fn page(sources: &Sources) -> Result<String, fmt::Error> {
    let exposition = Exposition {
        status: sources.node.status(),
        sections: SectionMetrics::all(&sources.sections),
        orders: read(&sources.counts.orders),
        refused: read(&sources.counts.refused),
        dropped: sources.counts.dropped.load(Ordering::Relaxed),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(exposition));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(page)
}

fn read<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| counts[index].load(Ordering::Relaxed))
}

/// Everything of one scrape.
#[derive(Debug)]
struct Exposition {
    status: NodeStatus,
    sections: Vec<SectionMetrics>,
    orders: [u64; Verb::ALL.len()],
    refused: [u64; Refusal::KINDS.len()],
    dropped: u64,
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        families::node(&mut page, &self.status)?;
        families::services(&mut page, &self.status)?;
        families::mesh(&mut page, &self.status)?;
        families::checks(&mut page, &self.status)?;
        self.endpoint(&mut page)?;
        for section in &self.sections {
            section.encode(&mut page)?;
        }
        Ok(())
    }
}

impl Exposition {
    fn endpoint(&self, page: &mut Page<'_>) -> fmt::Result {
        let orders = Verb::ALL.into_iter().zip(self.orders);
        page.counters(
            "anycast_admin_orders",
            "Operator's orders carried out",
            orders.map(|(verb, count)| ([("order", verb.name())], count)),
        )?;
        let refused = Refusal::KINDS.into_iter().zip(self.refused);
        page.counters(
            "anycast_admin_refused_orders",
            "Operator's orders refused for want of rights",
            refused.map(|(why, count)| ([("why", why)], count)),
        )?;
        page.counter(
            "anycast_admin_dropped_connections",
            "Connections to the admin endpoint dropped to make place for another",
            self.dropped,
        )
    }
}

/// The page under construction: one call a family.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.gauges_in(None, name, help, samples)
    }

    /// The unit `seconds` becomes the end of the name.
    fn seconds<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.gauges_in(Some(&Unit::Seconds), name, help, samples)
    }

    fn gauges_in<L: EncodeLabelSet>(
        &mut self,
        unit: Option<&Unit>,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in samples {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// One without labels.
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// One without labels.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    /// `_total` becomes the end of the name of each sample.
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    /// `_info` becomes the end of the name of each sample.
    fn infos<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = L>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Info)?;
        for labels in samples {
            family.encode_info(&labels)?;
        }
        Ok(())
    }
}
