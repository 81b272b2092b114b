//! What a scenario plays with: a namespace of its own with pods, policies, and questions that are asked in pods.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::venue::Venue;
use crate::{
    bed::{
        Outcome, Transport,
        registry::{Lease, Resource, Undo},
    },
    lab::{AGNHOST, Cluster},
    wait::retry,
};

/// The longest time from a change of an object until packets show it: kube-proxy and CoreDNS, on a busy machine, need
/// seconds.
const PATIENCE: Duration = Duration::from_secs(40);
/// The longest until pods are ready, whose images may have to be fetched first.
const STARTING: &str = "--timeout=180s";
/// The ports of a [`server`], each over TCP and UDP.
pub(super) const PORT: u16 = 8080;
pub(super) const OTHER_PORT: u16 = 8082;
/// The label of all namespaces of scenarios, by which an administrator finds what a killed run has left.
pub(super) const LABEL: &str = "app.kubernetes.io/managed-by=sluice-e2e";

/// A namespace, deleted when dropped.
pub(super) struct Scene<'a> {
    pub(super) venue: &'a Venue,
    name: String,
    addresses: RefCell<BTreeMap<String, Vec<IpAddr>>>,
    _lease: Lease,
}

/// A question to the network, and the answer that is expected.
#[derive(Clone, Debug)]
pub(super) struct Question {
    from: String,
    transport: Transport,
    to: SocketAddr,
    expected: Outcome,
}

impl<'a> Scene<'a> {
    pub(super) fn open(venue: &'a Venue, label: &str) -> Result<Self> {
        // Not that of a run before, which may still be going away.
        let name = format!("sluice-e2e-{label}-{}", std::process::id());
        let (cluster, doomed) = (venue.cluster().clone(), name.clone());
        let delete = move || {
            let arguments = ["delete", "namespace", &doomed, "--wait=false", "--ignore-not-found"];
            if let Err(error) = cluster.kubectl(&arguments) {
                eprintln!("the namespace {doomed} is left: {error:#}");
            }
        };
        let lease = Lease::new(Resource::Elsewhere(Undo::new(delete)));
        venue.cluster().create_namespace(&name)?;
        venue.cluster().kubectl(&["label", "namespace", &name, LABEL])?;
        Ok(Self { venue, name, addresses: RefCell::default(), _lease: lease })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.venue.cluster()
    }

    /// Creates or changes objects in the namespace.
    pub(super) fn apply(&self, objects: &[Value]) -> Result<()> {
        self.cluster().apply_in(&self.name, objects)
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster().kubectl(&[&["--namespace", &self.name], arguments].concat())
    }

    /// Creates pods, and waits until all of the namespace are ready.
    pub(super) fn add(&self, pods: &[Value]) -> Result<()> {
        self.apply(pods)?;
        self.await_ready()
    }

    /// Waits until every pod is ready, and learns their addresses.
    pub(super) fn await_ready(&self) -> Result<()> {
        self.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", STARTING]).map(drop).or_else(|error| {
            let pods = self.kubectl(&["describe", "pods"]).unwrap_or_default();
            Err(error).with_context(|| format!("the pods don't become ready\n{pods}"))
        })?;
        let list = self.kubectl(&["get", "pods", "--output=json"])?;
        let list: Value = serde_json::from_str(&list).context("kubectl prints no JSON")?;
        let addresses = list["items"].as_array().into_iter().flatten().map(|pod| {
            let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
            let addresses = addresses.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
            (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), addresses)
        });
        *self.addresses.borrow_mut() = addresses.collect();
        Ok(())
    }

    /// A port of a pod, at each of its addresses.
    pub(super) fn at(&self, pod: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let addresses = self.addresses.borrow();
        let addresses = addresses.get(pod).with_context(|| format!("there is no pod {pod}"))?;
        ensure!(!addresses.is_empty(), "the pod {pod} is ready and has no address");
        Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
    }

    /// A port of a Service, at each of its cluster addresses.
    pub(super) fn at_service(&self, service: &str, port: u16) -> Result<Vec<SocketAddr>> {
        let addresses = self.kubectl(&["get", "service", service, "--output=jsonpath={.spec.clusterIPs[*]}"])?;
        let parse = |address: &str| Ok(SocketAddr::new(address.parse().context("a Service has no address")?, port));
        addresses.split_whitespace().map(parse).collect()
    }

    /// What a script of bash prints in a pod.
    pub(super) fn exec(&self, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--container=main", "--", "bash", "-c", script])
    }

    /// Questions over TCP and UDP from a pod.
    pub(super) fn ask(&self, from: &str, to: &[SocketAddr], expected: Outcome) -> Vec<Question> {
        let of = |to: &SocketAddr| {
            let to = *to;
            [Transport::Tcp, Transport::Udp].map(|transport| Question {
                from: from.to_owned(),
                transport,
                to,
                expected,
            })
        };
        to.iter().flat_map(of).collect()
    }

    /// Waits until all questions are answered as expected.
    pub(super) fn eventually(&self, questions: &[Question]) -> Result<()> {
        retry(PATIENCE, Duration::ZERO, || self.now(questions)).with_context(|| format!("after {PATIENCE:?}"))
    }

    /// All questions must be answered as expected, now.
    pub(super) fn now(&self, questions: &[Question]) -> Result<()> {
        let wrong = self.wrong(questions)?;
        if wrong.is_empty() { Ok(()) } else { bail!("not as expected:{wrong}") }
    }

    /// What is not as expected, a line each. All pods ask at once.
    fn wrong(&self, questions: &[Question]) -> Result<String> {
        let mut by_pod: BTreeMap<&str, Vec<&Question>> = BTreeMap::new();
        for question in questions {
            by_pod.entry(&question.from).or_default().push(question);
        }
        let answers = thread::scope(|scope| {
            let asking: Vec<_> = by_pod
                .iter()
                .map(|(pod, questions)| {
                    let (cluster, namespace) = (self.cluster(), &self.name);
                    scope.spawn(move || {
                        let script = script(questions);
                        let exec =
                            ["exec", "--namespace", namespace, pod, "--container=main", "--", "bash", "-c", &script];
                        cluster.kubectl(&exec).and_then(|said| answers(&said, questions.len()))
                    })
                })
                .collect();
            let join = |asking: thread::ScopedJoinHandle<'_, Result<Vec<String>>>| {
                asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            asking.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let mut text = String::new();
        for (question, answer) in by_pod.values().flatten().zip(answers.iter().flatten()) {
            let Question { from, transport, to, expected } = question;
            if outcome(answer) != Some(*expected) {
                write!(text, "\n{transport} from {from} to {to}: {answer}, not {expected}")?;
            }
        }
        Ok(text)
    }
}

/// Asks all at once, and prints a line for each: its number, and what agnhost says of it.
fn script(questions: &[&Question]) -> String {
    let mut script = "ask() { said=$(/agnhost connect --timeout=2s --protocol=$2 $3 2>&1) && said=OPEN; \
                      echo $1 $said; }; "
        .to_owned();
    for (number, Question { transport, to, .. }) in questions.iter().enumerate() {
        let protocol = if *transport == Transport::Udp { "udp" } else { "tcp" };
        script += &format!("ask {number} {protocol} {to} & ");
    }
    script + "wait"
}

/// The answers in the order of the questions.
fn answers(said: &str, count: usize) -> Result<Vec<String>> {
    let mut answers = vec![String::new(); count];
    for line in said.lines() {
        let (number, answer) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(place) = number.parse().ok().and_then(|number: usize| answers.get_mut(number)) {
            answer.clone_into(place);
        }
    }
    ensure!(answers.iter().all(|answer| !answer.is_empty()), "a pod gives fewer than {count} answers: {said}");
    Ok(answers)
}

/// agnhost's words for it.
fn outcome(answer: &str) -> Option<Outcome> {
    match answer.split([' ', ':']).next()? {
        "OPEN" => Some(Outcome::Open),
        "TIMEOUT" => Some(Outcome::Dropped),
        "REFUSED" => Some(Outcome::Refused),
        _ => None,
    }
}

/// A pod that waits for commands.
pub(super) fn client(name: &str, node: &str, labels: &Value) -> Value {
    pod(name, node, labels, &[json!({"name": "main", "image": AGNHOST, "args": ["pause"]})])
}

/// A pod that answers at [`PORT`] and [`OTHER_PORT`].
pub(super) fn server(name: &str, node: &str, labels: &Value) -> Value {
    let containers = [("main", PORT), ("other", OTHER_PORT)].map(|(name, port)| netexec(name, port));
    pod(name, node, labels, &containers)
}

/// A container that answers over TCP, by HTTP, and over UDP; ready when it does.
pub(super) fn netexec(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "image": AGNHOST,
        "args": ["netexec", format!("--http-port={port}"), format!("--udp-port={port}")],
        "readinessProbe": {"httpGet": {"port": port, "path": "/healthz"}, "periodSeconds": 1, "timeoutSeconds": 5},
    })
}

/// A pod as the strictest of the Pod Security standards has it.
pub(super) fn pod(name: &str, node: &str, labels: &Value, containers: &[Value]) -> Value {
    let mut containers = containers.to_vec();
    for container in &mut containers {
        container["imagePullPolicy"] = json!("IfNotPresent");
        container["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": containers,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_any_order() {
        let said = "1 TIMEOUT: read udp: i/o timeout\n0 OPEN\n";
        let answers = answers(said, 2).expect("both are there");
        assert_eq!(answers, ["OPEN", "TIMEOUT: read udp: i/o timeout"]);
        assert_eq!(
            answers.iter().map(|answer| outcome(answer)).collect::<Vec<_>>(),
            [Some(Outcome::Open), Some(Outcome::Dropped)]
        );
        assert_eq!(outcome("OTHER: network is unreachable"), None);
    }

    #[test]
    fn a_missing_answer_is_none() {
        assert!(answers("0 OPEN\n", 2).is_err());
        assert!(answers("0\n1 OPEN\n", 2).is_err());
    }

    #[test]
    fn all_questions_are_asked_at_once() {
        let question = |transport, to: &str| Question {
            from: "a".to_owned(),
            transport,
            to: to.parse().expect("an address"),
            expected: Outcome::Open,
        };
        let questions = [question(Transport::Tcp, "10.0.0.1:80"), question(Transport::Udp, "[fd00::1]:53")];
        let script = script(&questions.iter().collect::<Vec<_>>());
        assert!(script.ends_with("ask 0 tcp 10.0.0.1:80 & ask 1 udp [fd00::1]:53 & wait"), "{script}");
    }
}
