//! What the compiler reports, kept for as long as it holds.

use std::collections::BTreeSet;

use policy_compiler::{Report, model::ObjectName};

/// Reports that hold.
#[derive(Debug, Default)]
pub(super) struct Reports {
    hold: BTreeSet<Report>,
}

impl Reports {
    /// Takes note of an answer's reports, and logs what is new and what is over.
    pub(super) fn note(&mut self, reports: Vec<Report>) {
        for report in reports {
            let over: Vec<Report> = self.hold.iter().filter(|held| ends(&report, held)).cloned().collect();
            for held in over {
                self.hold.remove(&held);
                if let Report::ServiceUnmixed { .. } = report {
                    tracing::info!("no longer: {}", describe(&held));
                }
            }
            if !matches!(report, Report::ServiceUnmixed { .. }) {
                tracing::warn!("{}", describe(&report));
                self.hold.insert(report);
            }
        }
    }

    /// One sentence each.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.hold.iter().map(describe)
    }

    /// The Services that are closed to somebody, with the sentence that says so.
    pub(super) fn mixed(&self) -> impl Iterator<Item = (ObjectName, String)> {
        self.hold.iter().filter_map(|report| match report {
            Report::MixedService { service, .. } => Some((service.clone(), describe(report))),
            _ => None,
        })
    }

    /// How many Services are closed to somebody because some of their back ends are refused.
    pub(super) fn mixed_services(&self) -> usize {
        let services = self.hold.iter().filter_map(|report| match report {
            Report::MixedService { service, .. } => Some(service),
            _ => None,
        });
        services.collect::<BTreeSet<_>>().len()
    }
}

/// Whether `new` says that `held` is over, or says it anew.
fn ends(new: &Report, held: &Report) -> bool {
    match (new, held) {
        (Report::AddressConflict { address: new, .. }, Report::AddressConflict { address: held, .. }) => new == held,
        (Report::ServiceUnmixed { service, table }, Report::MixedService { service: held, table: held_table, .. }) => {
            (service, table) == (held, held_table)
        }
        _ => false,
    }
}

fn describe(report: &Report) -> String {
    match report {
        Report::AddressConflict { address, holder, other } => {
            format!("{holder} and {other} both claim {address}; {holder} has it")
        }
        Report::MixedService { service, address, port, closed_by, .. } => {
            let front_end = match address {
                Some(address) => std::net::SocketAddr::new(*address, *port).to_string(),
                None => format!("node port {port}"),
            };
            format!(
                "Service {service} ({front_end}) is closed to new connections of some pods: policies refuse its back end \
                 {closed_by}, but not all of them"
            )
        }
        Report::ServiceUnmixed { service, .. } => format!("Service {service} is open or closed as a whole"),
    }
}
