//! The scene of most scenarios about change: two servers, `near` and `far`, on two nodes, which `client` and `steady` may
//! reach and `other` may not.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::{Outcome, Stream},
    lab::Lab,
    wait::until,
};
use serde_json::{Value, json};

use crate::scene::{Scene, deny_all, eventually, pod, policy};

/// The longest that a connection which is to be cut may go on, and one that is to go on may pause: an agent that was killed
/// twice may be started again after ten seconds only.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// On the clients' node, and on another.
pub(crate) const SERVERS: [&str; 2] = ["near", "far"];

/// Two servers, on two nodes, that `client` and `steady` may reach and `other` may not.
pub(crate) fn open<'a>(lab: &'a Lab, name: &str) -> Result<Scene<'a>> {
    let mut scene = Scene::open(lab, name)?;
    let web = json!({"app": "web"});
    scene.add(&[
        pod("client", "n1", &json!({"role": "client"})),
        pod("steady", "n1", &json!({"role": "steady"})),
        pod("other", "n1", &json!({})),
        pod("near", "n1", &web),
        pod("far", "n2", &web),
    ])?;
    for server in SERVERS {
        scene.serve(server, &[80])?;
    }
    scene.apply(&[deny_all(), allow("from", &from_both())])?;
    let egress = json!([{"to": [{"podSelector": {"matchLabels": web}}]}]);
    scene.apply(&[policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}))])?;
    let to = addresses(&scene)?;
    let allowed = [scene.ask("client", &to, Outcome::Open)?, scene.ask("steady", &to, Outcome::Open)?].concat();
    eventually(&[allowed, scene.ask("other", &to, Outcome::Dropped)?].concat())?;
    Ok(scene)
}

/// Both servers, at each address.
pub(crate) fn addresses(scene: &Scene<'_>) -> Result<Vec<SocketAddr>> {
    Ok(SERVERS.iter().map(|server| scene.at(server, 80)).collect::<Result<Vec<_>>>()?.concat())
}

/// `steady` alone.
pub(crate) fn from_steady() -> Value {
    json!([{"podSelector": {"matchLabels": {"role": "steady"}}}])
}

/// What the servers let in.
pub(crate) fn allow(name: &str, from: &Value) -> Value {
    policy(name, json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]}))
}

/// `client` and `steady`.
pub(crate) fn from_both() -> Value {
    json!([{"podSelector": {"matchExpressions": [{"key": "role", "operator": "In", "values": ["client", "steady"]}]}}])
}

/// A connection over which data goes all the time.
pub(crate) fn connect(scene: &Scene<'_>, from: &str, to: SocketAddr) -> Result<Stream> {
    let connection = scene
        .network(from)?
        .run(|| TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("{from} does not reach {to}")))?;
    let stream = Stream::over(connection)?;
    ensure!(stream.flows(PATIENCE), "nothing comes back from {to}");
    Ok(stream)
}

/// Until nothing has come back for a while.
pub(crate) fn await_cut(stream: &Stream) -> Result<()> {
    let goes_on = || "a connection goes on that should have been cut".to_owned();
    until(PATIENCE, Duration::ZERO, goes_on, || Ok((!stream.flows(Duration::from_secs(1))).then_some(())))
}

/// None of these connections may have been cut.
pub(crate) fn still_flow(streams: &[Stream]) -> Result<()> {
    let flow = streams.iter().all(|stream| stream.flows(PATIENCE));
    ensure!(flow, "a connection was cut that policies allow");
    Ok(())
}
