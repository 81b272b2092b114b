//! `cargo xtask bench prog`: nanoseconds a packet of the packet program, beside the bare primitives at the same fill
//! (DESIGN section 9). Prints one table, or with `--json` one document. Other arguments are the scenes to be measured,
//! such as `v4/100-peers`.

mod bare;
mod cluster;
mod epochs;
mod goals;

use anyhow::Result;
use e2e::{
    packets::{devices, program::Program},
    report,
};

fn main() -> Result<()> {
    // cargo adds `--bench`
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let scenes: Vec<&str> = arguments.iter().filter(|name| !name.starts_with('-')).map(String::as_str).collect();
    devices::enter_private_network()?;
    let rows = goals::measure(Program::hz()?, &scenes)?;
    if json {
        println!("{}", report::json(&rows)?);
    } else {
        println!("{}", report::table(&rows));
    }
    Ok(())
}
