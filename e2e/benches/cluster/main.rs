//! `cargo xtask bench cluster`: Sluice on a lab, as a user installs it: how soon changes and pods' starts take effect on
//! the wire, what leaks meanwhile, and what the agents use. Prints one table, or with `--json` one document.
#![forbid(unsafe_code)]

mod agents;
mod births;
mod changes;
mod ear;
mod priority;
mod stage;
mod wire;

use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, builder::RangedU64ValueParser};
use e2e::{
    bed::is_root,
    lab::{Lab, Settings, api::Api},
    report::{self, Row},
};

use crate::agents::Agents;

/// The variable that the lab takes the agent's image from.
const IMAGE: &str = "SLUICE_IMAGE";

/// Sluice on a cluster, measured.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench cluster --")]
struct Arguments {
    /// Print rows for machines.
    #[arg(long)]
    json: bool,
    /// Pods that are started at least; 0 leaves that part out.
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Pods that are started side by side, of which one is under no policy. With more than the processors can start, it
    /// is those that are measured.
    #[arg(long, default_value_t = twice_the_processors(), value_parser = RangedU64ValueParser::<usize>::new().range(2..=30))]
    at_a_time: usize,
    /// How often each change is made and taken back; 0 leaves that part out.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn twice_the_processors() -> usize {
    thread::available_parallelism().map_or(2, |processors| (2 * processors.get()).clamp(2, 30))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(is_root(), "the lab is made of namespaces, which only root can make: run this with sudo");
    // The lab's own default is an image of the debug build, whose figures nobody wants.
    let way_out = "`cargo xtask bench cluster` makes the release's and names it";
    ensure!(std::env::var_os(IMAGE).is_some(), "{IMAGE} must name the image to be measured: {way_out}");
    // Two nodes, so that what is changed is on another than what is judged.
    let lab = Lab::up(&Settings { nodes: 2, ..Settings::default() })?;
    let rows = lab.install_sluice().and_then(|()| measure(&lab, &arguments));
    let down = lab.down();
    let rows = rows?;
    down?;
    if arguments.json {
        println!("{}", report::json(&rows)?);
    } else {
        println!("{}", report::table(&rows));
    }
    Ok(())
}

fn measure(lab: &Lab, arguments: &Arguments) -> Result<Vec<Row>> {
    let api = Api::open(lab)?;
    let mut agents = Agents::find(lab)?;
    let mut rows = vec![load("before")?];
    eprintln!("the agents at rest");
    rows.extend(agents.at_rest()?);
    if arguments.rounds > 0 {
        rows.extend(changes::measure(lab, &api, arguments.rounds)?);
    }
    if arguments.pods > 0 {
        let plan = births::Plan { pods: arguments.pods, at_a_time: arguments.at_a_time };
        let (account, held) = (agents.account()?, agents.held()?);
        rows.extend(births::measure(lab, &api, &mut agents, plan)?);
        rows.extend(agents::held_rows(held.as_ref(), agents.held()?.as_ref())?);
        rows.extend(agents.under_churn(&account)?);
    }
    rows.push(load("after")?);
    Ok(rows)
}

/// How many wait for a processor on this machine, over a minute, whoever they are: times are longer for it.
fn load(when: &str) -> Result<Row> {
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the machine's load")?;
    let minute = load.split(' ').next().and_then(|load| load.parse().ok()).context("the load is no number")?;
    Ok(Row::plain(format!("this machine's load/{when}"), minute, ""))
}
