//! What goes on while things change: connections that are open, the agents, the API server.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::{Namespace, Outcome, Stream},
    lab::{Lab, sluice::SYSTEM},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::scene::{Scene, deny_all, eventually, now, pod, policy};

/// The longest that a connection which is to be cut may go on, and one that is to go on may pause: an agent that was killed
/// twice may be started again after ten seconds only.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where the API server has policies.
const API: &str = "/apis/networking.k8s.io/v1";

/// Policies, labels and namespaces that change cut the connections that they no longer allow, and no other.
pub(crate) fn open_connections(lab: &Lab) -> Result<()> {
    let scene = stage(lab, "open")?;
    let far = scene.at("far", 80)?[1];
    let kept = open(&scene, "steady", far)?;

    let cut = open(&scene, "client", far)?;
    scene.apply(&[allow("from", &json!([{"podSelector": {"matchLabels": {"role": "steady"}}}]))])?;
    await_cut(&cut).context("a policy no longer allows it")?;

    scene.apply(&[allow("from", &from_both())])?;
    eventually(&scene.ask("client", &[far], Outcome::Open)?)?;
    let cut = open(&scene, "client", far)?;
    scene.kubectl(&["label", "pod", "client", "role=nobody", "--overwrite"])?;
    await_cut(&cut).context("the pod's label no longer allows it")?;

    scene.kubectl(&["label", "pod", "client", "role=client", "--overwrite"])?;
    let of = |team: &str| json!({"namespaceSelector": {"matchLabels": {"team": team}}, "podSelector": {}});
    scene.kubectl(&["label", "namespace", scene.name(), "team=a"])?;
    let steady = json!({"podSelector": {"matchLabels": {"role": "steady"}}});
    scene.apply(&[allow("from", &json!([of("a"), steady]))])?;
    eventually(&scene.ask("client", &[far], Outcome::Open)?)?;
    let cut = open(&scene, "client", far)?;
    scene.kubectl(&["label", "namespace", scene.name(), "team=b", "--overwrite"])?;
    await_cut(&cut).context("the namespace's label no longer allows it")?;
    ensure!(kept.flows(PATIENCE), "a connection that was allowed all the time was cut");
    Ok(())
}

/// Agents that are killed under load: nothing that is refused passes, nothing that is allowed stops; and what has changed
/// meanwhile is in force when they are back.
pub(crate) fn agents_are_killed(lab: &Lab) -> Result<()> {
    let scene = stage(lab, "killed")?;
    let to = [scene.at("near", 80)?, scene.at("far", 80)?].concat();
    let streams = to.iter().map(|to| open(&scene, "client", *to)).collect::<Result<Vec<_>>>()?;
    let watch = Watch::default();
    thread::scope(|scope| {
        let watching = scope.spawn(|| watch.follow(&scene, &to));
        let work = || {
            let before = restarts(lab)?;
            kill_agents(lab)?;
            still_flow(&streams)?;
            await_more(&watch.asked, 20)?;
            await_restarts(lab, &before)?;
            // From the second time on, the kubelet waits before it starts them again.
            kill_agents(lab)?;
            scene.apply(&[allow("from", &json!([{"podSelector": {"matchLabels": {"role": "steady"}}}]))])?;
            still_flow(&streams)?;
            await_more(&watch.asked, 20)?;
            for stream in &streams {
                await_cut(stream).context("the agents are back, and a policy no longer allows it")?;
            }
            lab.cluster().await_sluice()?;
            Ok(())
        };
        let result = work();
        watch.end();
        watching.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??;
        result
    })
}

/// Agents that are gone for good enforce on. A pod that is born meanwhile is enforced from the moment that an agent is
/// back, which then names it.
pub(crate) fn born_without_an_agent(lab: &Lab) -> Result<()> {
    let mut scene = stage(lab, "born")?;
    let to = [scene.at("near", 80)?, scene.at("far", 80)?].concat();
    let stream = open(&scene, "client", to[0])?;
    send_agents_away(lab)?;
    now(&scene.ask("other", &to, Outcome::Dropped)?)?;
    ensure!(stream.flows(PATIENCE), "a connection was cut when its node's agent went");
    scene.add(&[pod("late", "n1", &json!({}))])?;
    call_agents_back(lab)?;
    now(&scene.ask("late", &to, Outcome::Dropped)?)?;
    now(&scene.ask("client", &to, Outcome::Open)?)?;
    let log = lab.cluster().sluice_log(-1);
    let late = format!("{}/late", scene.name());
    let named = log.lines().any(|line| line.contains("not enforced until now") && line.contains(&late));
    ensure!(named, "no agent has said that {late} was not enforced:\n{log}");
    Ok(())
}

/// Leaves every node without an agent, until [`call_agents_back`].
pub(crate) fn send_agents_away(lab: &Lab) -> Result<()> {
    place_agents(lab, &json!({"sluice.test/is": "nowhere"}))?;
    let agents = "--selector=app.kubernetes.io/component=agent";
    lab.kubectl(&["wait", "pod", "--namespace", SYSTEM, agents, "--for=delete", "--timeout=60s"]).map(drop)
}

/// Waits until every node has an agent again, and every pod is enforced.
pub(crate) fn call_agents_back(lab: &Lab) -> Result<()> {
    place_agents(lab, &json!({"sluice.test/is": null}))?;
    lab.cluster().await_sluice()
}

/// Changes the node selector of the agents.
fn place_agents(lab: &Lab, selector: &Value) -> Result<()> {
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}).to_string();
    let daemons = ["patch", "daemonset/sluice-agent", "--namespace", SYSTEM, "--type=merge", "--patch", &patch];
    lab.kubectl(&daemons).map(drop)
}

/// While there is no API server, all is as it was; when it is back, changes count again.
pub(crate) fn api_server_is_away(lab: &Lab) -> Result<()> {
    let scene = stage(lab, "away")?;
    let to = [scene.at("near", 80)?, scene.at("far", 80)?].concat();
    let stream = open(&scene, "client", to[0])?;
    let allowed = scene.ask("client", &to, Outcome::Open)?;
    let refused = scene.ask("other", &to, Outcome::Dropped)?;
    lab.stop_api()?;
    let end = Instant::now() + Duration::from_secs(5);
    let meanwhile = || {
        while Instant::now() < end {
            now(&allowed)?;
            now(&refused)?;
        }
        ensure!(stream.flows(PATIENCE), "a connection was cut while the API server was away");
        Ok(())
    };
    let result = meanwhile();
    lab.start_api()?;
    result?;
    scene.apply(&[allow("from", &json!([{"podSelector": {"matchLabels": {"role": "steady"}}}]))])?;
    await_cut(&stream).context("the API server is back, and a policy no longer allows it")?;
    scene.apply(&[allow("from", &from_both())])?;
    eventually(&allowed)?;
    now(&refused)
}

/// What `kubectl exec` shows goes on while policies come and go.
pub(crate) fn exec_goes_on(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "exec")?;
    let container = json!({"name": "counts", "image": crate::scene::BUSYBOX,
        "command": ["sh", "-c", "while :; do sleep 1; done"]});
    scene.add(&[crate::scene::with_container("counts", "n1", &json!({}), container)])?;
    let mut kubectl = lab.cluster().kubectl_command();
    let script = "while :; do echo on; usleep 20000; done";
    kubectl.args(["exec", "--namespace", scene.name(), "counts", "--", "sh", "-c", script]);
    let mut exec = lab.cluster().spawn(kubectl.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let mut shown = exec.stdout.take().context("stdout was asked for")?;
    let lines = AtomicUsize::new(0);
    let policies: Vec<Value> = (0..50).map(|n| policy(&format!("deny-{n}"), json!({"podSelector": {}}))).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = [0; 3];
            while shown.read_exact(&mut line).is_ok() {
                lines.fetch_add(1, Ordering::Relaxed);
            }
        });
        let work = || {
            for _ in 0..5 {
                await_more(&lines, 20)?;
                scene.apply(&policies)?;
                // All at once, as `kubectl delete --all` does not.
                lab.kubectl(&["delete", "--raw", &format!("{API}/namespaces/{}/networkpolicies", scene.name())])?;
            }
            await_more(&lines, 20)
        };
        let result = work();
        exec.kill().and_then(|()| exec.wait()).context("cannot end kubectl")?;
        result.context("what a command shows has ended")
    })
}

/// Two servers, on two nodes, that `client` and `steady` may reach and `other` may not.
fn stage<'a>(lab: &'a Lab, name: &str) -> Result<Scene<'a>> {
    let mut scene = Scene::open(lab, name)?;
    let web = json!({"app": "web"});
    scene.add(&[
        pod("client", "n1", &json!({"role": "client"})),
        pod("steady", "n1", &json!({"role": "steady"})),
        pod("other", "n1", &json!({})),
        pod("near", "n1", &web),
        pod("far", "n2", &web),
    ])?;
    for server in ["near", "far"] {
        scene.serve(server, &[80])?;
    }
    scene.apply(&[deny_all(), allow("from", &from_both())])?;
    let egress = json!([{"to": [{"podSelector": {"matchLabels": web}}]}]);
    scene.apply(&[policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}))])?;
    let to = [scene.at("near", 80)?, scene.at("far", 80)?].concat();
    let allowed = [scene.ask("client", &to, Outcome::Open)?, scene.ask("steady", &to, Outcome::Open)?].concat();
    eventually(&[allowed, scene.ask("other", &to, Outcome::Dropped)?].concat())?;
    Ok(scene)
}

/// What the servers of [`stage`] let in.
fn allow(name: &str, from: &Value) -> Value {
    policy(name, json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]}))
}

fn from_both() -> Value {
    json!([{"podSelector": {"matchExpressions": [{"key": "role", "operator": "In", "values": ["client", "steady"]}]}}])
}

fn open(scene: &Scene<'_>, from: &str, to: SocketAddr) -> Result<Stream> {
    let connection = scene
        .network(from)?
        .run(|| TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("{from} does not reach {to}")))?;
    let stream = Stream::over(connection)?;
    ensure!(stream.flows(PATIENCE), "nothing comes back from {to}");
    Ok(stream)
}

/// Until nothing has come back for a while.
fn await_cut(stream: &Stream) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while stream.flows(Duration::from_secs(1)) {
        ensure!(Instant::now() < deadline, "a connection goes on that should have been cut");
    }
    Ok(())
}

fn still_flow(streams: &[Stream]) -> Result<()> {
    let flow = streams.iter().all(|stream| stream.flows(PATIENCE));
    ensure!(flow, "a connection was cut while its node's agent was away");
    Ok(())
}

fn kill_agents(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        // One that has just ended is as good.
        if let Some(agent) = node.machine().find("sluice-agent")? {
            node.machine().stop(&agent, Signal::SIGKILL)?;
        }
    }
    Ok(())
}

/// How often each agent was started again, in the order of their names.
fn restarts(lab: &Lab) -> Result<Vec<u32>> {
    let path = "--output=jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    let counts = lab.kubectl(&["get", "pods", "--namespace", SYSTEM, path])?;
    counts.split_whitespace().map(|count| count.parse().context("a count is a number")).collect()
}

/// Until each agent was started once more, and is ready.
fn await_restarts(lab: &Lab, before: &[u32]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = restarts(lab)?;
        if now.len() == before.len() && now.iter().zip(before).all(|(now, before)| now > before) {
            return lab.cluster().await_sluice();
        }
        ensure!(Instant::now() < deadline, "the agents are not started again: {before:?}, then {now:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Asks again and again what is to be refused.
#[derive(Default)]
struct Watch {
    asked: AtomicUsize,
    done: AtomicBool,
}

impl Watch {
    fn follow(&self, scene: &Scene<'_>, to: &[SocketAddr]) -> Result<()> {
        let from: &Namespace = scene.network("other")?;
        while !self.done.load(Ordering::Relaxed) {
            for to in to {
                let answer = from.run(|| Ok(TcpStream::connect_timeout(to, Duration::from_millis(30))))?;
                self.asked.fetch_add(1, Ordering::Relaxed);
                ensure!(answer.is_err(), "a refused connection to {to} came about");
            }
        }
        Ok(())
    }

    fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// Until a count that somebody raises has been raised this often.
fn await_more(counter: &AtomicUsize, count: usize) -> Result<()> {
    let (before, deadline) = (counter.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while counter.load(Ordering::Relaxed) < before + count {
        ensure!(Instant::now() < deadline, "nothing happens any more");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
