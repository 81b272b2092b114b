//! `cargo xtask bench prog`: nanoseconds a packet of the packet program, beside the bare primitives at the same fill
//! (DESIGN section 9). Prints one table, or with `--json` one document.

mod bare;
mod cluster;
mod goals;
mod report;

use anyhow::Result;
use e2e::packets::{devices, program::Program};

fn main() -> Result<()> {
    // cargo adds `--bench`
    let json = std::env::args().any(|argument| argument == "--json");
    devices::enter_private_network()?;
    let rows = goals::measure(Program::hz()?)?;
    if json {
        println!("{}", report::json(&rows)?);
    } else {
        println!("{}", report::table(&rows));
    }
    Ok(())
}
