//! What goes on while policies change: connections that are open, and `kubectl exec`.

use std::{
    io::Read as _,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::Outcome,
    lab::{Lab, api::Api},
    wait::until,
};
use serde_json::json;

use crate::{
    scene::{BUSYBOX, Scene, eventually, policy, with_container},
    servers::{self, PATIENCE, allow, await_cut, from_both, from_steady},
};

/// Policies, labels and namespaces that change cut the connections that they no longer allow, and no other.
pub(crate) fn open_connections(lab: &Lab) -> Result<()> {
    let scene = servers::open(lab, "open")?;
    let far = scene.at("far", 80)?[1];
    let kept = servers::connect(&scene, "steady", far)?;

    let cut = servers::connect(&scene, "client", far)?;
    scene.apply(&[allow("from", &from_steady())])?;
    await_cut(&cut).context("a policy no longer allows it")?;

    scene.apply(&[allow("from", &from_both())])?;
    eventually(&scene.ask("client", &[far], Outcome::Open)?)?;
    let cut = servers::connect(&scene, "client", far)?;
    scene.kubectl(&["label", "pod", "client", "role=nobody", "--overwrite"])?;
    await_cut(&cut).context("the pod's label no longer allows it")?;

    scene.kubectl(&["label", "pod", "client", "role=client", "--overwrite"])?;
    let of = |team: &str| json!({"namespaceSelector": {"matchLabels": {"team": team}}, "podSelector": {}});
    scene.kubectl(&["label", "namespace", scene.name(), "team=a"])?;
    let steady = json!({"podSelector": {"matchLabels": {"role": "steady"}}});
    scene.apply(&[allow("from", &json!([of("a"), steady]))])?;
    eventually(&scene.ask("client", &[far], Outcome::Open)?)?;
    let cut = servers::connect(&scene, "client", far)?;
    scene.kubectl(&["label", "namespace", scene.name(), "team=b", "--overwrite"])?;
    await_cut(&cut).context("the namespace's label no longer allows it")?;
    ensure!(kept.flows(PATIENCE), "a connection that was allowed all the time was cut");
    Ok(())
}

/// What `kubectl exec` shows goes on through a thousand epochs of its pod, and so does the pod's connection.
pub(crate) fn exec_goes_on(lab: &Lab) -> Result<()> {
    const EPOCHS: f64 = 1000.0;
    let mut scene = servers::open(lab, "exec")?;
    let container = json!({"name": "counts", "image": BUSYBOX, "command": ["sh", "-c", "while :; do sleep 1; done"]});
    scene.add(&[with_container("counts", "n1", &json!({"role": "client"}), container)])?;
    let mut kubectl = lab.cluster().kubectl_command();
    let script = "while :; do echo on; usleep 20000; done";
    kubectl.args(["exec", "--namespace", scene.name(), "counts", "--", "sh", "-c", script]);
    let mut exec = lab.cluster().spawn(kubectl.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let mut shown = exec.stdout.take().context("stdout was asked for")?;
    let lines = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = [0; 3];
            while shown.read_exact(&mut line).is_ok() {
                lines.fetch_add(1, Ordering::Relaxed);
            }
        });
        let work = || {
            let stream = servers::connect(&scene, "counts", scene.at("far", 80)?[0])?;
            await_more(&lines, 20)?;
            let epoch = || lab.machine("n1")?.agent_metric("sluice_epoch", "");
            let first = epoch()?;
            let changes = Changes::begin(lab, &scene)?;
            let deadline = Instant::now() + EPOCHS_PATIENCE;
            while epoch()? < first + EPOCHS {
                ensure!(Instant::now() < deadline, "only {} epochs in {EPOCHS_PATIENCE:?}", epoch()? - first);
                changes.make(50)?;
            }
            ensure!(stream.flows(PATIENCE), "a connection that was allowed all the time was cut");
            await_more(&lines, 20)
        };
        let result = work();
        exec.kill().and_then(|()| exec.wait()).context("cannot end kubectl")?;
        result.context("what a command shows has ended")
    })
}

/// The longest that a thousand epochs may take.
const EPOCHS_PATIENCE: Duration = Duration::from_secs(120);

/// A policy of every pod of a scene, which lets a block in and not.
struct Changes {
    api: Api,
    path: String,
}

impl Changes {
    fn begin(lab: &Lab, scene: &Scene<'_>) -> Result<Self> {
        scene.apply(&[policy("block", json!({"podSelector": {}, "ingress": []}))])?;
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies/block", scene.name());
        Ok(Self { api: Api::open(lab)?, path })
    }

    /// So many times: it opens, and closes again, which is an epoch.
    fn make(&self, times: usize) -> Result<()> {
        let block = json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]);
        for _ in 0..times {
            for ingress in [&block, &json!([])] {
                self.api.patch(&self.path, &json!({"spec": {"ingress": ingress}}))?;
            }
        }
        Ok(())
    }
}

/// Until a count that somebody raises has been raised this often.
fn await_more(counter: &AtomicUsize, count: usize) -> Result<()> {
    let before = counter.load(Ordering::Relaxed);
    let has_been = || Ok((counter.load(Ordering::Relaxed) >= before + count).then_some(()));
    until(PATIENCE, Duration::from_millis(10), || "nothing happens any more".to_owned(), has_been)
}
