//! Agents that are replaced or gone: what is allowed goes on, what is refused stays refused.

use anyhow::Result;
use serde_json::json;

use super::{
    changes::streams,
    policies::{openings, shop},
    scene::{PORT, Scene, client},
    talk::{Stream, Watch},
    venue::Venue,
};
use crate::{
    bed::{
        Outcome,
        registry::{Lease, Resource, Undo},
    },
    lab::{
        Cluster,
        objects::deny_all,
        sluice::{AGENTS, SYSTEM},
    },
};

/// A rollout under running connections.
pub(super) fn are_rolled_out(venue: &Venue) -> Result<()> {
    let scene = stage(venue, "rollout")?;
    let cluster = venue.cluster();
    through(&scene, || {
        cluster.kubectl(&["rollout", "restart", "--namespace", SYSTEM, "daemonset/sluice-agent"])?;
        await_rollout(cluster)
    })
}

/// All agents at once, without a farewell.
pub(super) fn are_killed(venue: &Venue) -> Result<()> {
    let scene = stage(venue, "killed")?;
    let cluster = venue.cluster();
    through(&scene, || {
        cluster.kubectl(&["delete", "pod", "--namespace", SYSTEM, AGENTS, "--grace-period=0", "--force"])?;
        await_rollout(cluster)
    })
}

/// Agents that are gone enforce on. A pod that is born meanwhile is enforced when they are back; with the CNI plugin it
/// does not start before.
pub(super) fn are_away(venue: &Venue) -> Result<()> {
    let scene = stage(venue, "away")?;
    let open = streams(&scene, "client", "far")?;
    let watch = Watch::start(&scene, "other", &targets(&scene)?)?;
    {
        let _absence = send_away(venue.cluster())?;
        scene.apply(&[client("late", venue.near(), &json!({}))])?;
        open.iter().try_for_each(Stream::ensure_flows)?;
        watch.ensure_refused()?;
    }
    await_rollout(venue.cluster())?;
    scene.await_ready()?;
    scene.now(&scene.ask("late", &targets(&scene)?, Outcome::Dropped))?;
    watch.ensure_refused()?;
    open.iter().try_for_each(Stream::ensure_flows)
}

/// Does something to the agents while `client` has connections and `other` is refused.
fn through(scene: &Scene<'_>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut open = streams(scene, "client", "near")?;
    open.extend(streams(scene, "client", "far")?);
    let watch = Watch::start(scene, "other", &targets(scene)?)?;
    work()?;
    watch.ensure_refused()?;
    open.iter().try_for_each(Stream::ensure_flows)
}

/// `client` may reach `near` and `far`, and nobody else may.
fn stage<'a>(venue: &'a Venue, label: &str) -> Result<Scene<'a>> {
    let scene = shop(venue, label)?;
    scene.apply(&[deny_all()])?;
    scene.apply(&openings(&json!([])))?;
    let to = targets(&scene)?;
    scene.eventually(&[scene.ask("client", &to, Outcome::Open), scene.ask("other", &to, Outcome::Dropped)].concat())?;
    Ok(scene)
}

fn targets(scene: &Scene<'_>) -> Result<Vec<std::net::SocketAddr>> {
    Ok([scene.at("near", PORT)?, scene.at("far", PORT)?].concat())
}

/// Until every agent is ready, on a cluster of any size.
fn await_rollout(cluster: &Cluster) -> Result<()> {
    let wait = ["rollout", "status", "--namespace", SYSTEM, "daemonset/sluice-agent", "--timeout=600s"];
    cluster.kubectl(&wait).map(drop)
}

/// Sends the agents away, until what this gives is dropped; a signal calls them back as well.
fn send_away(cluster: &Cluster) -> Result<Lease> {
    let other = cluster.clone();
    let lease = Lease::new(Resource::Elsewhere(Undo::new(move || {
        if let Err(error) = other.call_agents_back() {
            eprintln!("the agents' node selector sluice.dev/e2e is left, which keeps them away: {error:#}");
        }
    })));
    cluster.send_agents_away()?;
    Ok(lease)
}
