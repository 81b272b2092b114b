//! What the agent counts, under the names that `/metrics` shows. Every metric is made in [`Metrics::new`]; label values
//! come from fixed sets and from names of objects, never from the text of an error.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

/// All metrics of an agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Packets dropped at pods, by `direction`, `namespace`, `pod` and `reason`.
    pub drops: IntCounterVec,
    /// New flows and flowless packets that passed, by the same.
    pub flows: IntCounterVec,
    /// Entries of each kernel map divided by its capacity, by `map`.
    pub map_fill: GaugeVec,
    /// Capacity of each kernel map in entries, by `map`.
    pub map_capacity: GaugeVec,
    /// Bytes of the kernel's memory that each map takes, by `map`; none of it is the agent's own.
    pub map_bytes: GaugeVec,
    /// Seconds from a batch of events to the compiled changes.
    pub compile: Histogram,
    /// Seconds from noticing an event at the source to the last write to the kernel.
    pub applied: Histogram,
    /// Seconds from the start of a pod's first process to the pod's entry in the kernel.
    pub held: Histogram,
    /// Pods of this node, by `state`.
    pub pods: IntGaugeVec,
    /// Events of the packet program that were not reported, by `cause`.
    pub events_lost: IntCounterVec,
    /// Writes to the kernel that failed.
    pub programming_failures: IntCounter,
    /// Pods that are closed because their tables could not be programmed.
    pub closed: IntGauge,
    /// Services that are closed to new connections because some of their back ends are refused.
    pub mixed_services: IntGauge,
    /// What is wrong with the objects of the source.
    pub source_problems: IntGauge,
    /// 1 once the source's initial list is in force.
    pub synced: IntGauge,
    /// Signs of other policy engines on the node, by `kind`.
    pub other_engines: IntGaugeVec,
    /// The epoch of the flows.
    pub epoch: Gauge,
    /// 1 while changes of a resource come as they happen, by `resource`.
    pub watch_up: IntGaugeVec,
    /// When something last came of a resource, in seconds since 1970, by `resource`.
    pub watch_heard: GaugeVec,
    /// How often a watch had to be taken up again, by `resource` and `reason`.
    pub watch_restarts: IntCounterVec,
    /// Objects of the cluster, by `resource`.
    pub watch_objects: IntGaugeVec,
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let by_pod = ["direction", "namespace", "pod", "reason"];
        let metrics = Self {
            drops: add(
                &registry,
                IntCounterVec::new(
                    Opts::new("sluice_drops_total", "Packets dropped at the pods of this node"),
                    &by_pod,
                )?,
            )?,
            flows: add(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sluice_new_flows_total",
                        "New flows and packets of no flow that passed at the pods of this node",
                    ),
                    &by_pod,
                )?,
            )?,
            map_fill: add(
                &registry,
                GaugeVec::new(Opts::new("sluice_map_fill_ratio", "Entries of a kernel map by its capacity"), &["map"])?,
            )?,
            map_capacity: add(
                &registry,
                GaugeVec::new(Opts::new("sluice_map_capacity", "Entries that a kernel map can hold"), &["map"])?,
            )?,
            map_bytes: add(
                &registry,
                GaugeVec::new(
                    Opts::new("sluice_map_bytes", "Kernel memory that a map takes, apart from the agent's own"),
                    &["map"],
                )?,
            )?,
            compile: add(
                &registry,
                histogram("sluice_compile_seconds", "From a batch of events to the compiled changes")?,
            )?,
            applied: add(
                &registry,
                histogram("sluice_event_to_applied_seconds", "From an event at the source to its last kernel write")?,
            )?,
            held: add(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "sluice_pod_held_seconds",
                        "From the start of a pod's first process until the pod's policies hold",
                    )
                    .buckets(HELD.to_vec()),
                )?,
            )?,
            pods: add(
                &registry,
                IntGaugeVec::new(Opts::new("sluice_pods", "Pods of this node by state"), &["state"])?,
            )?,
            events_lost: add(
                &registry,
                IntCounterVec::new(
                    Opts::new("sluice_events_lost_total", "Events of the packet program that were not reported"),
                    &["cause"],
                )?,
            )?,
            programming_failures: add(
                &registry,
                IntCounter::new("sluice_programming_failures_total", "Writes to the kernel that failed")?,
            )?,
            closed: add(
                &registry,
                IntGauge::new("sluice_closed_pods", "Pods closed because their tables could not be programmed")?,
            )?,
            mixed_services: add(
                &registry,
                IntGauge::new("sluice_mixed_services", "Services closed because some of their back ends are refused")?,
            )?,
            source_problems: add(
                &registry,
                IntGauge::new("sluice_source_problems", "What is wrong with the objects of the source")?,
            )?,
            synced: add(&registry, IntGauge::new("sluice_synced", "1 once the source's initial list is in force")?)?,
            other_engines: add(
                &registry,
                IntGaugeVec::new(
                    Opts::new("sluice_other_engines", "Signs of other policy engines on this node"),
                    &["kind"],
                )?,
            )?,
            epoch: add(&registry, Gauge::new("sluice_epoch", "The epoch in which new flows are judged")?)?,
            watch_up: add(
                &registry,
                IntGaugeVec::new(
                    Opts::new("sluice_watch_up", "1 while changes of a resource come from the API server"),
                    &["resource"],
                )?,
            )?,
            watch_heard: add(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "sluice_watch_last_message_timestamp_seconds",
                        "When the API server last sent something of a resource, bookmarks included",
                    ),
                    &["resource"],
                )?,
            )?,
            watch_restarts: add(
                &registry,
                IntCounterVec::new(
                    Opts::new("sluice_watch_restarts_total", "How often a watch was taken up again"),
                    &["resource", "reason"],
                )?,
            )?,
            watch_objects: add(
                &registry,
                IntGaugeVec::new(Opts::new("sluice_watch_objects", "Objects that the watches hold"), &["resource"])?,
            )?,
            registry,
        };
        let build = add(
            &metrics.registry,
            IntGaugeVec::new(Opts::new("sluice_build_info", "1, with the agent's version"), &["version"])?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// All of them in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Seconds a pod is held. The kernel tells the start of a process in hundredths, so finer ones would tell nothing.
const HELD: [f64; 14] = [0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// From 10 us, an incremental change, to 10 s, a full compilation on a small machine.
fn histogram(name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let buckets = [1.0, 2.5, 5.0];
    let buckets = (-5..=0).flat_map(|power| buckets.map(|step| step * 10_f64.powi(power))).chain([10.0]).collect();
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.drops.with_label_values(&["ingress", "shop", "db", "no_rule"]).inc_by(3);
        metrics.compile.observe(0.000_02);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let line = r#"sluice_drops_total{direction="ingress",namespace="shop",pod="db",reason="no_rule"} 3"#;
        assert!(text.lines().any(|l| l == line), "{text}");
        assert!(text.contains(r#"sluice_compile_seconds_bucket{le="0.000025"} 1"#), "{text}");
        assert!(text.contains(r#"sluice_compile_seconds_bucket{le="0.00001"} 0"#), "{text}");
    }
}
