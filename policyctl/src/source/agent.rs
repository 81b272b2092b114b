//! The state that an agent enforces: `--agent`. What it tells are the objects that its tables follow from, so that an
//! answer is about what holds on its node now, whatever the API server says.

use policy_compiler::{
    files::{Gather, Gathered, Workload, WorkloadKind},
    model::Pod,
};
use serde::Serialize;

use super::ClusterArgs;
use crate::{
    Failure,
    agent::{Objects, asked},
};

/// Whose state it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    pub(super) node: String,
    /// The agent's version.
    pub(super) version: String,
    pub(super) taken_at: String,
}

/// How often objects are asked for that change while they are told.
const TRIES: usize = 3;

/// Asks for the objects.
pub(super) fn fetch(name: &str, cluster: &ClusterArgs) -> Result<Objects, Failure> {
    let agent = asked::named(name, cluster)?;
    let mut objects = agent.objects().map_err(Failure::no_answer)?;
    for _ in 1..TRIES {
        if objects.head.moment.generation == objects.end.generation {
            break;
        }
        objects = agent.objects().map_err(Failure::no_answer)?;
    }
    Ok(objects)
}

/// Takes them in.
pub(super) fn take(objects: &Objects, gather: &mut Gather) -> About {
    gather.unwritten("", &objects.text);
    let head = &objects.head;
    // nobody asks for more than seconds
    let seconds = head.time.split_once('.').map_or(head.time.clone(), |(seconds, _)| format!("{seconds}Z"));
    About { node: head.node.clone(), version: head.version.clone(), taken_at: seconds }
}

/// Adds what the agent's objects don't say and their labels do, and forgets what is wrong with them: the agent enforces
/// them as they are.
pub(super) fn complete(gathered: &mut Gathered) {
    gathered.diagnostics.retain(|diagnostic| diagnostic.place.is_some());
    for (name, pod) in &gathered.cluster.pods {
        if let Some(owner) = owner(pod).filter(|_| !gathered.owners.contains_key(name)) {
            gathered.owners.insert(name.clone(), owner);
        }
    }
}

/// The workload that a pod is of, as its labels and its name say it.
fn owner(pod: &Pod) -> Option<Workload> {
    let label = |key: &str| pod.labels.get(key).map(|value| &**value);
    let name = &*pod.name.name;
    let without_suffix = name.rsplit_once('-').map(|(start, _)| start);
    let (kind, owner) = if let Some(hash) = label("pod-template-hash") {
        let set = without_suffix?;
        match set.strip_suffix(hash).and_then(|start| start.strip_suffix('-')) {
            Some(deployment) => (WorkloadKind::Deployment, deployment),
            None => (WorkloadKind::ReplicaSet, set),
        }
    } else if label("statefulset.kubernetes.io/pod-name") == Some(name) {
        (WorkloadKind::StatefulSet, without_suffix?)
    } else if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        (WorkloadKind::Job, job)
    } else if label("controller-revision-hash").is_some() && label("pod-template-generation").is_some() {
        (WorkloadKind::DaemonSet, without_suffix?)
    } else {
        return None;
    };
    Some(Workload { namespace: pod.name.namespace.clone(), kind, name: owner.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy_compiler::model::{Labels, ObjectName};

    #[test]
    fn owners() {
        #[track_caller]
        fn check(name: &str, labels: &[(&str, &str)], expected: Option<(WorkloadKind, &str)>) {
            let pod = Pod {
                name: ObjectName::new("shop", name),
                uid: "".into(),
                labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<Labels>(),
                addresses: Vec::new(),
                ports: Vec::new(),
                node: None,
                host_network: false,
                ended: false,
            };
            let expected = expected.map(|(kind, name)| Workload { namespace: "shop".into(), kind, name: name.into() });
            assert_eq!(owner(&pod), expected);
        }
        let hash = ("pod-template-hash", "6c9f7d8b5");
        check("web-6c9f7d8b5-x2x4z", &[hash], Some((WorkloadKind::Deployment, "web")));
        check("set-x2x4z", &[hash], Some((WorkloadKind::ReplicaSet, "set")));
        check("db-0", &[("statefulset.kubernetes.io/pod-name", "db-0")], Some((WorkloadKind::StatefulSet, "db")));
        check("run-k2k4z", &[("batch.kubernetes.io/job-name", "run")], Some((WorkloadKind::Job, "run")));
        let daemon = [("controller-revision-hash", "abc"), ("pod-template-generation", "1")];
        check("log-x2x4z", &daemon, Some((WorkloadKind::DaemonSet, "log")));
        check("alone", &[("app", "alone")], None);
    }
}
