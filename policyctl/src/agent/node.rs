//! Agents by their nodes' names: reached as `kubectl exec` reaches a pod, where `policyctl relay` leads to the agent's
//! socket. Whoever asks needs the verb `create` for `pods/exec` in the agents' namespace. Entry points: [`all`] and
//! [`Seat::open`].

use std::{
    fmt,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess, ListParams},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Handle},
    time::timeout,
};

use super::{Agent, Place};
use crate::{
    Failure,
    source::{ClusterArgs, Connection},
};

/// Which pods are agents'.
const LABELS: &str = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=agent";

/// What is run in an agent's pod.
const RELAY: [&str; 2] = ["/policyctl", "relay"];

/// The container that has it.
const CONTAINER: &str = "agent";

/// A way to the API server, for all agents that are reached by it.
#[derive(Clone)]
struct Link {
    client: Client,
    handle: Handle,
    /// How long a request may take.
    timeout: Duration,
}

/// The pod of an agent.
#[derive(Clone)]
pub(crate) struct Seat {
    link: Link,
    namespace: String,
    pod: String,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}

/// Why a connection has ended, once it has, if that wasn't its answer's end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    fn set(&self, sentence: String) {
        // a sentence is put there whole or not at all
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sentence);
    }

    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The agents of a cluster, by their nodes' names. `patience` is how long each may be silent.
pub(crate) fn all(args: &ClusterArgs, namespace: &str, patience: Option<Duration>) -> Result<Vec<Agent>, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no threads can be started")
        .map_err(Failure::no_answer)?;
    let connection = runtime.block_on(crate::source::connect(args))?;
    let pods = runtime.block_on(pods(&connection, namespace));
    let pods = pods
        .with_context(|| format!("the cluster at {} doesn't tell which agents there are", connection.server))
        .map_err(Failure::no_answer)?;
    let link = Link { client: connection.client, handle: runtime.handle().clone(), timeout: connection.timeout };
    // what is asked later is carried by it until the process ends
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let mut agents: Vec<Agent> = pods.into_iter().filter_map(|pod| agent(&link, namespace, pod, patience)).collect();
    if agents.is_empty() {
        return Err(Failure::no_answer(anyhow::anyhow!(
            "there are no agents' pods in namespace {namespace}; --agent-namespace names another one, --agent a socket"
        )));
    }
    agents.sort_by(|a, b| {
        (&a.name, matches!(a.place, Place::Away(_))).cmp(&(&b.name, matches!(b.place, Place::Away(_))))
    });
    // while a pod is replaced there are two of them on a node
    agents.dedup_by(|b, a| a.name == b.name);
    Ok(agents)
}

/// The image that a cluster's agents run, which holds this program, too.
pub(crate) async fn image(connection: &Connection, namespace: &str) -> anyhow::Result<String> {
    let none = || format!("no pod in namespace {namespace} says which image agents run; name one with --probe-image");
    let pods = pods(connection, namespace).await.with_context(none)?;
    let containers = pods.into_iter().filter_map(|pod| pod.spec).flat_map(|spec| spec.containers);
    let own = containers.into_iter().find(|container| container.name == CONTAINER);
    own.and_then(|container| container.image).with_context(none)
}

async fn pods(connection: &Connection, namespace: &str) -> anyhow::Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(connection.client.clone(), namespace);
    let params = ListParams::default().labels(LABELS);
    let list = connection.within(pods.list(&params)).await?;
    Ok(list.map_err(|error| anyhow::anyhow!("{}", said(&error)))?.items)
}

fn agent(link: &Link, namespace: &str, pod: Pod, patience: Option<Duration>) -> Option<Agent> {
    let node = pod.spec.and_then(|spec| spec.node_name)?;
    let pod_name = pod.metadata.name?;
    let is_going = pod.metadata.deletion_timestamp.is_some();
    let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
    let place = if phase == "Running" && !is_going {
        Place::Pod(Seat { link: link.clone(), namespace: namespace.to_owned(), pod: pod_name })
    } else {
        let state = if is_going { "being removed" } else { &*phase };
        Place::Away(format!("its pod {namespace}/{pod_name} is {state}"))
    };
    Some(Agent { name: format!("node {node}"), place, patience })
}

impl Seat {
    /// A connection to the agent's socket.
    pub(crate) fn open(&self) -> anyhow::Result<(UnixStream, Trouble)> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let trouble = Trouble::default();
        let (seat, told) = (self.clone(), trouble.clone());
        self.link.handle.spawn(async move {
            // the stream ends after the trouble is told
            let Ok(mut theirs) = tokio::net::UnixStream::from_std(theirs) else { return };
            if let Err(error) = seat.relay(&mut theirs).await {
                told.set(format!("{error:#}"));
            }
        });
        Ok((ours, trouble))
    }

    async fn relay(&self, theirs: &mut tokio::net::UnixStream) -> anyhow::Result<()> {
        let mut process = self.exec().await?;
        let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
        let (mut stdin, mut stdout, mut stderr) =
            (stdin.context("no stdin")?, stdout.context("no stdout")?, stderr.context("no stderr")?);
        let (mut from, mut to) = theirs.split();
        let mut said = Vec::new();
        let mut limited = (&mut stderr).take(4096);
        let answered = tokio::select! {
            // nobody wants to know any more
            _ = tokio::io::copy(&mut from, &mut stdin) => return Ok(()),
            copied = async {
                let (answer, errors) = tokio::join!(tokio::io::copy(&mut stdout, &mut to), limited.read_to_end(&mut said));
                errors.and(answer)
            } => copied.unwrap_or_default(),
        };
        let said = String::from_utf8_lossy(&said);
        let said = said.trim().trim_start_matches("error: ");
        let _ = stdin.shutdown().await;
        anyhow::ensure!(answered > 0 && said.is_empty(), "{}", if said.is_empty() { "no answer" } else { said });
        Ok(())
    }

    async fn exec(&self) -> anyhow::Result<AttachedProcess> {
        let pods = Api::<Pod>::namespaced(self.link.client.clone(), &self.namespace);
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(1 << 16);
        let asked = timeout(self.link.timeout, pods.exec(&self.pod, RELAY, &params)).await;
        let limit = |_| {
            let (namespace, pod, limit) = (&self.namespace, &self.pod, self.link.timeout.as_secs_f64());
            anyhow::anyhow!("pod {namespace}/{pod} can't be entered within {limit} s")
        };
        asked.map_err(limit)?.map_err(|error| {
            anyhow::anyhow!(
                "pod {}/{} can't be entered ({}); it takes the verb \"create\" for \"pods/exec\" there",
                self.namespace,
                self.pod,
                said(&error)
            )
        })
    }
}

/// What went wrong, in the words of the last cause.
pub(crate) fn said(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} {}", status.code, status.message);
    }
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
