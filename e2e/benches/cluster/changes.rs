//! How long it takes from the API server's acknowledgement of a change to the first packet that is judged by it, counted
//! on the wire. Entry point: [`measure`].

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::{
    figures::percentile,
    lab::{
        Lab,
        api::{Acknowledged, Api},
    },
    moment::Moment,
    report::Row,
};
use nix::unistd::gettid;
use serde_json::{Value, json};

use crate::{
    priority,
    stage::{Stage, policy, v4},
    wire::{STREAMS, Wire},
};

/// Milliseconds that half of the changes, and all but one of a hundred, are to take at most.
const GOALS: [(usize, f64); 2] = [(50, 20.0), (99, 100.0)];

/// Something that is changed to close the wire, and back to open it.
struct Change {
    name: &'static str,
    path: String,
    close: Value,
    open: Value,
}

/// Times of one change, by stream.
#[derive(Default)]
struct Times {
    closing: [Vec<Duration>; 2],
    opening: [Vec<Duration>; 2],
    /// From asking the API server to its answer.
    answers: Vec<Duration>,
}

/// Closes and opens a wire between two nodes this often by each change.
pub(crate) fn measure(lab: &Lab, api: &Api, rounds: usize) -> Result<Vec<Row>> {
    let (judged, peers) = (Stage::open(lab, "bench-judged")?, Stage::open(lab, "bench-peers")?);
    let [here, there, ..] = lab.nodes() else { return Err(anyhow!("two nodes are needed")) };
    let server = judged.add("server", there.name(), &json!({"app": "server"}))?;
    let client = peers.add("client", here.name(), &json!({"role": "friend"}))?;
    lab.kubectl(&["label", "namespace", peers.name(), "team=ours"])?;
    let from = json!([{"from": [{
        "namespaceSelector": {"matchLabels": {"team": "ours"}},
        "podSelector": {"matchLabels": {"role": "friend"}},
    }]}]);
    let spec = json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": from});
    judged.apply(&[policy("friends", spec)])?;

    let changes = changes(&judged, &peers, &from);
    let wire = Wire::default();
    thread::scope(|scope| {
        let work = || {
            wire.start(scope, client.network(), (server.network(), v4(server.addresses())?))?;
            let mut rows = Vec::new();
            for change in &changes {
                eprintln!("{}: {rounds} times closed and opened", change.name);
                let times = round_after_round(api, &wire, change, rounds).context(change.name)?;
                times.report(change.name, &mut rows)?;
            }
            anyhow::Ok(rows)
        };
        let rows = work();
        let ended = wire.end();
        let rows = rows.with_context(|| lab.cluster().sluice_log(20))?;
        ended.map(|()| rows)
    })
}

/// What closes and opens a wire that a policy of `judged` opens to pods of `peers` by rules `from`.
fn changes(judged: &Stage<'_>, peers: &Stage<'_>, from: &Value) -> [Change; 3] {
    let label = |name: &str, value: &str| json!({"metadata": {"labels": {name: value}}});
    [
        Change {
            name: "policy",
            path: format!("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/friends", judged.name()),
            close: json!({"spec": {"ingress": []}}),
            open: json!({"spec": {"ingress": from}}),
        },
        Change {
            name: "pod's label",
            path: peers.path("pods/client"),
            close: label("role", "stranger"),
            open: label("role", "friend"),
        },
        Change {
            name: "namespace's label",
            path: format!("/api/v1/namespaces/{}", peers.name()),
            close: label("team", "theirs"),
            open: label("team", "ours"),
        },
    ]
}

/// On a thread that doesn't wait for a processor: what it waited for that would be missing from the times.
fn round_after_round(api: &Api, wire: &Wire, change: &Change, rounds: usize) -> Result<Times> {
    let work = || {
        priority::raise(gettid());
        let mut times = Times::default();
        for _ in 0..rounds {
            wire.await_flow()?;
            let closed = api.patch(&change.path, &change.close)?;
            times.closing.add(closed, wire.await_closed()?)?;
            wire.forget();
            let opened = api.patch(&change.path, &change.open)?;
            times.opening.add(opened, wire.await_open()?)?;
            times.answers.extend([closed, opened].map(|answer| answer.at.since(answer.asked)));
        }
        anyhow::Ok(times)
    };
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("the measuring thread panicked"))?
}

/// Both streams' times of changes.
trait Add {
    fn add(&mut self, change: Acknowledged, seen: [Option<Moment>; 2]) -> Result<()>;
}

impl Add for [Vec<Duration>; 2] {
    /// What was seen before the acknowledgement took no time.
    fn add(&mut self, change: Acknowledged, seen: [Option<Moment>; 2]) -> Result<()> {
        for (times, seen) in self.iter_mut().zip(seen) {
            times.push(seen.context("no datagram at all")?.since(change.at));
        }
        Ok(())
    }
}

impl Times {
    fn report(&self, name: &str, rows: &mut Vec<Row>) -> Result<()> {
        for (direction, streams) in [("closes", &self.closing), ("opens", &self.opening)] {
            for (stream, times) in STREAMS.iter().zip(streams) {
                for (hundredths, goal) in GOALS {
                    let name = format!("{name} {direction}/{stream} flows/p{hundredths}");
                    rows.push(Row::below(name, milliseconds(times, hundredths)?, "ms", goal));
                }
            }
        }
        for (hundredths, _) in GOALS {
            let name = format!("{name}, the API server's answer/p{hundredths}");
            rows.push(Row::plain(name, milliseconds(&self.answers, hundredths)?, "ms"));
        }
        Ok(())
    }
}

/// A percentile in milliseconds.
pub(crate) fn milliseconds(times: &[Duration], hundredths: usize) -> Result<f64> {
    ensure!(!times.is_empty(), "nothing was measured");
    let time = percentile(times, hundredths).context("there are times")?;
    Ok(time.as_secs_f64() * 1000.0)
}
