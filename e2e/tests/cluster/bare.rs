//! The lab without Sluice: whatever policies say, everything passes. A denial that another test sees is Sluice's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::{bed::Outcome, lab::Lab};
use serde_json::json;

use crate::scene::{Scene, deny_all, eventually, now, pod, service};

/// Longer than any engine takes to enforce.
const LONG: Duration = Duration::from_secs(3);

/// Pods on one node, on two, and behind a Service.
pub(crate) fn nothing_is_enforced(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "bare")?;
    let web = json!({"app": "web"});
    scene.add(&[pod("client", "n1", &json!({})), pod("near", "n1", &web), pod("far", "n2", &web)])?;
    scene.apply(&[service("web", &web, 8080, 80)])?;
    for name in ["near", "far"] {
        scene.serve(name, &[80])?;
    }
    let to = [scene.at("near", 80)?, scene.at("far", 80)?, scene.at_service("web", 8080)?].concat();
    let probes = scene.ask("client", &to, Outcome::Open)?;
    eventually(&probes)?;
    scene.apply(&[deny_all()])?;
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        now(&probes).context("something else than Sluice enforces policies")?;
    }
    Ok(())
}
