//! What the kernel's verifier makes of the programs. Its work multiplies with every branch whose outcome it remembers, so
//! a small change may cost seconds, or be refused ("BPF program is too large").

use anyhow::{Result, ensure};
use e2e::packets::program::{Program, Sizes};
use enforcer_abi::{Settings, SourceCheck};

use crate::fixture::{Test, settings};

pub(crate) const TESTS: &[Test] = &[("verifier/usual-settings", usual), ("verifier/everything-on", everything)];

/// The verifier gives up at a million instructions a program. It walks over about a million in a second.
const LIMIT: u32 = 150_000;

fn usual(hz: u64) -> Result<()> {
    walked("usual", settings(hz))
}

/// What settings switch off, the verifier doesn't walk.
fn everything(hz: u64) -> Result<()> {
    let all = Settings {
        source_check: SourceCheck::Pods as u32,
        audit: 1,
        node_interfaces: 1,
        keep_established: 1,
        previous_flows: 1,
        ..settings(hz)
    };
    walked("everything", all)
}

/// Prints the figures, too, for `cargo xtask kernels`.
fn walked(name: &str, settings: Settings) -> Result<()> {
    let program = Program::load(settings, &Sizes::new())?;
    for one in program.verifications() {
        let instructions = one.instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("sluice-verifier {name} {} {instructions} {}", one.program, one.took.as_micros());
        let fits = one.instructions.is_none_or(|count| count <= LIMIT);
        ensure!(fits, "{} has the verifier walk over {instructions} instructions", one.program);
    }
    Ok(())
}
