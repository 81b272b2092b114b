//! The upstream suite's cases about NetworkPolicy, and the proof before them that nobody else enforces.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::lab::{
    Lab,
    conformance::{Conformance, NETWORK_POLICY, kernel_has_sctp},
};

/// What a cluster with other plugins runs: one case of each kind of thing that packets through a bridge could change.
const CHOSEN: [&str; 6] = [
    r"Netpol .*should support a 'default-deny-ingress' policy",
    r"Netpol .*should support a 'default-deny-all' policy",
    r"Netpol .*should enforce policy based on Ports",
    r"Netpol .*should enforce except clause while egress access to server in CIDR block",
    r"Netpol .*should enforce egress policy allowing traffic to a server in a different namespace",
    r"NetpolLegacy|Netpol .*should enforce updated policy",
];

/// Nothing is refused before Sluice is there.
pub(crate) fn proof(lab: &Lab) -> Result<()> {
    lab.cluster().prove_unenforced()
}

/// All cases.
pub(crate) fn all(lab: &Lab) -> Result<()> {
    run(lab, &[NETWORK_POLICY])
}

/// Some cases, by [`CHOSEN`].
pub(crate) fn chosen(lab: &Lab) -> Result<()> {
    run(lab, &CHOSEN)
}

/// Says on stdout what can't be run here.
pub(crate) fn tell_skipped() {
    if !kernel_has_sctp() {
        println!("skipped: the upstream cases over SCTP: this kernel has no SCTP");
    }
}

fn run(lab: &Lab, focus: &[&str]) -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstream");
    let suite = Conformance {
        focus: focus.iter().map(|&focus| focus.to_owned()).collect(),
        processes: 6,
        sctp: kernel_has_sctp(),
        folder: folder.clone(),
    };
    let outcome = suite.run(lab.cluster())?;
    eprintln!("upstream suite: {outcome}");
    let logs = || format!("{}/output.log has more\n{}", folder.display(), lab.cluster().sluice_log(20));
    ensure!(outcome.failed.is_empty(), "{outcome}\n{}", logs());
    Ok(())
}
