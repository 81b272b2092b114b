//! Sluice removed: nothing is enforced any more, and no object of it is left.

use anyhow::{Context as _, Result, ensure};

use super::{install::Overlay, policies::shop, scene::PORT, venue::Venue};
use crate::{
    bed::Outcome,
    lab::{objects::deny_all, sluice::SYSTEM},
};

/// Removes Sluice as docs/install.md says, under pods whose policies are in force.
pub(super) fn nothing_is_enforced(venue: &Venue, overlay: &Overlay) -> Result<()> {
    let scene = shop(venue, "removal")?;
    scene.apply(&[deny_all()])?;
    let to = [scene.at("near", PORT)?, scene.at("far", PORT)?].concat();
    scene.eventually(&scene.ask("client", &to, Outcome::Dropped))?;
    uninstall(venue, overlay)?;
    scene.eventually(&scene.ask("client", &to, Outcome::Open)).context("after Sluice was removed")
}

/// Removes Sluice, and looks whether any object of it is left.
pub(super) fn uninstall(venue: &Venue, overlay: &Overlay) -> Result<()> {
    let cluster = venue.cluster();
    cluster.uninstall_kustomizations(&overlay.installation(), &overlay.cleanup())?;
    let objects = [
        format!("namespace/{SYSTEM}"),
        "namespace/sluice-cleanup".to_owned(),
        "clusterrole/sluice-agent".to_owned(),
        "clusterrolebinding/sluice-agent".to_owned(),
    ];
    for object in objects {
        let left = cluster.kubectl(&["get", &object, "--ignore-not-found", "--output=name"])?;
        ensure!(left.is_empty(), "{object} is left after Sluice was removed");
    }
    Ok(())
}
