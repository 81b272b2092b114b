//! Ephemeral containers: `policyctl probe` in pods that run already. [`start`] begins one, and
//! [`found`] brings what it says. It stays in the pod's spec for as long as there is the pod: Kubernetes takes none away.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api,
    api::{LogParams, Patch, PatchParams},
};
use policy_compiler::model::ObjectName;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    agent::said,
    command::probe::{Found, Line},
    source::Connection,
};

/// How long a container may take to begin and to end: its image may have to be pulled.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is looked at.
const PACE: Duration = Duration::from_millis(250);

/// Where the agent's image has this program.
const PROGRAM: &str = "/policyctl";

/// What is to be run.
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    /// As `policyctl probe` takes them.
    pub(super) targets: &'a [String],
}

impl Container<'_> {
    /// As Pod Security's level *restricted* wants it; it needs nothing but the pod's network.
    fn spec(&self) -> Value {
        let command: Vec<_> = [PROGRAM, "probe"].into_iter().chain(self.targets.iter().map(String::as_str)).collect();
        json!({
            "name": self.name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
                "runAsGroup": 65532,
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        })
    }
}

/// Starts it.
pub(super) async fn start(connection: &Connection, pod: &ObjectName, container: &Container<'_>) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(connection.client.clone(), &pod.namespace);
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container.spec()]}}));
    let params = PatchParams::default();
    let begun = connection.within(pods.patch_ephemeral_containers(&pod.name, &params, &patch));
    begun.await?.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 403 => anyhow::anyhow!(
            "{}; it takes the verb \"patch\" for \"pods/ephemeralcontainers\" there, and Pod Security that lets the whole pod be",
            status.message
        ),
        error => anyhow::anyhow!("{}", said(error)),
    })?;
    Ok(())
}

/// What came of each target, once it has ended.
pub(super) async fn found(
    connection: &Connection,
    pod: &ObjectName,
    container: &Container<'_>,
) -> anyhow::Result<Vec<Found>> {
    let pods = Api::<Pod>::namespaced(connection.client.clone(), &pod.namespace);
    let end = Instant::now() + PATIENCE;
    let code = loop {
        let now = connection.within(pods.get(&pod.name)).await?;
        let now = now.map_err(|error| anyhow::anyhow!("{}", said(&error)))?;
        if let Some(code) = ended(&now, container.name)? {
            break code;
        }
        ensure!(Instant::now() < end, "the container {} has not ended within {} s", container.name, PATIENCE.as_secs());
        sleep(PACE).await;
    };
    let params = LogParams { container: Some(container.name.to_owned()), ..LogParams::default() };
    let log = connection.within(pods.logs(&pod.name, &params)).await?;
    let log =
        log.map_err(|error| anyhow::anyhow!("{}; it takes the verb \"get\" for \"pods/log\" there", said(&error)))?;
    answers(&log, container.targets.len())
        .with_context(|| format!("the container {} ended with status {code}: {}", container.name, log.trim()))
}

/// The container's exit status, once it has ended; an error if it can't begin.
fn ended(pod: &Pod, name: &str) -> anyhow::Result<Option<i32>> {
    let Some(status) = &pod.status else { return Ok(None) };
    let phase = status.phase.as_deref().unwrap_or_default();
    ensure!(phase == "Running", "the pod is {phase}");
    let named = |status: &&ContainerStatus| status.name == name;
    let Some(state) =
        status.ephemeral_container_statuses.iter().flatten().find(named).and_then(|own| own.state.as_ref())
    else {
        return Ok(None);
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        // what is neither of these two doesn't get better by itself
        if !matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
            bail!("the container can't begin: {reason}: {}", waiting.message.as_deref().unwrap_or_default());
        }
    }
    Ok(state.terminated.as_ref().map(|terminated| terminated.exit_code))
}

/// One answer for each target.
fn answers(log: &str, count: usize) -> anyhow::Result<Vec<Found>> {
    let mut answers: Vec<Option<Found>> = vec![None; count];
    for line in log.lines() {
        let line: Line = serde_json::from_str(line).context("it says something else")?;
        *answers.get_mut(line.target).context("it says more than it was asked")? = Some(line.found);
    }
    answers.into_iter().collect::<Option<_>>().context("it says less than it was asked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(state: &Value) -> Pod {
        let own = json!({
            "name": "own", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state,
        });
        serde_json::from_value(json!({"status": {"phase": "Running", "ephemeralContainerStatuses": [own]}})).unwrap()
    }

    #[test]
    fn a_container_is_awaited_unless_it_cant_begin() {
        let end = |state: Value| ended(&pod(&state), "own").map_err(|error| error.to_string());
        assert_eq!(end(json!({})), Ok(None));
        assert_eq!(end(json!({"waiting": {"reason": "ContainerCreating"}})), Ok(None));
        assert_eq!(end(json!({"running": {}})), Ok(None));
        assert_eq!(end(json!({"terminated": {"exitCode": 2}})), Ok(Some(2)));
        let wrong = end(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}));
        assert_eq!(wrong, Err("the container can't begin: ErrImagePull: not found".to_owned()));
        assert_eq!(ended(&pod(&json!({"terminated": {"exitCode": 0}})), "another").unwrap(), None);
        let gone: Pod = serde_json::from_value(json!({"status": {"phase": "Failed"}})).unwrap();
        assert_eq!(ended(&gone, "own").unwrap_err().to_string(), "the pod is Failed");
    }

    #[test]
    fn each_target_has_an_answer() {
        let log = "{\"target\":1,\"found\":\"silent\"}\n{\"target\":0,\"found\":\"unreachable\",\"why\":\"no way\"}\n";
        let why = "no way".to_owned();
        assert_eq!(answers(log, 2).unwrap(), [Found::Unreachable { why }, Found::Silent]);
        for (log, count) in [(log, 1), (log, 3), ("error: unrecognized subcommand 'probe'", 1)] {
            answers(log, count).unwrap_err();
        }
    }

    /// What Pod Security's level *restricted* asks of a container
    /// (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>).
    #[test]
    fn the_container_is_restricted() {
        let targets = ["TCP/10.0.0.1:80".to_owned()];
        let spec = Container { name: "own", image: "i", targets: &targets }.spec();
        let context = &spec["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["runAsNonRoot"], true);
        assert!(context["runAsUser"].as_u64().unwrap() > 0);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(spec["command"], json!(["/policyctl", "probe", "TCP/10.0.0.1:80"]));
    }
}
