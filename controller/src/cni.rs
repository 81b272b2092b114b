//! What the CNI plugin tells the agent: [`Call`], over the socket as a pod's interface is made, and from the records that
//! the plugin keeps ([`recorded`]) after a restart of the agent. [`Standing`] is the answer.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use policy_compiler::model::{ObjectName, Pod};
use serde::{Deserialize, Serialize};

/// An interface that the runtime has had made for a pod. The same as JSON in `PUT /v1/cni` and in a record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// `CNI_CONTAINERID`: the pod's sandbox. One pod may have several, one after the other.
    pub container_id: String,
    /// `CNI_IFNAME`: the interface inside. Empty where nobody has said it.
    #[serde(default)]
    pub container_interface: String,
    /// `K8S_POD_NAMESPACE`
    pub namespace: String,
    /// `K8S_POD_NAME`
    pub name: String,
    /// `K8S_POD_UID`: `metadata.uid`, or of a static pod the hash of its file.
    pub uid: String,
    /// The host's end of the veth.
    pub interface: String,
    /// The same as an index.
    pub ifindex: u32,
    /// What the plugins before gave the pod.
    pub addresses: Vec<IpAddr>,
}

impl Call {
    /// The pod's name.
    #[must_use]
    pub fn pod(&self) -> ObjectName {
        ObjectName::new(self.namespace.as_str(), self.name.as_str())
    }

    /// Whether it is about this pod. A static pod's mirror in the API has a UID of its own; what kubelet calls it is 32
    /// hexadecimal digits (pkg/kubelet/config/common.go), which no UID of the API is.
    #[must_use]
    pub fn is_about(&self, pod: &Pod) -> bool {
        let is_hash = self.uid.len() == 32 && self.uid.bytes().all(|byte| byte.is_ascii_hexdigit());
        *self.uid == *pod.uid || (is_hash && pod.name == self.pod())
    }
}

/// The interface of a sandbox that is about to go, of several that the sandbox may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HangUp {
    /// [`Call::container_id`]
    pub container_id: String,
    /// [`Call::container_interface`]; without it, all that the sandbox has.
    pub container_interface: Option<String>,
}

impl HangUp {
    /// Whether this is the end of what `call` was about.
    #[must_use]
    pub fn ends(&self, call: &Call) -> bool {
        let is_it = |interface: &String| call.container_interface.is_empty() || *interface == call.container_interface;
        self.container_id == call.container_id && self.container_interface.as_ref().is_none_or(is_it)
    }
}

/// How an interface stands that the plugin has named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Standing {
    /// The pod's tables are in force.
    Enforced,
    /// Nothing but the node's own traffic passes.
    Held {
        /// What is still missing.
        reason: String,
    },
    /// Nothing passes: the pod's tables could not be programmed.
    Closed {
        /// Why.
        reason: String,
    },
    /// The pod's packets can't be seen.
    Unenforceable {
        /// Why.
        reason: String,
    },
    /// It is none of Sluice's business.
    Untouched {
        /// Why.
        reason: String,
    },
    /// There is no such interface.
    Gone,
}

impl Standing {
    /// Whether waiting changes nothing.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Held { .. } | Self::Closed { .. })
    }
}

/// Where the plugin keeps its records: beside the agent's socket.
#[must_use]
pub fn records(socket: &Path) -> PathBuf {
    socket.with_file_name("cni")
}

/// Removes what the plugin has recorded, if it has.
pub(crate) fn remove_records(socket: &Path) -> anyhow::Result<()> {
    let folder = records(socket);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("the records of sluice-cni in {} can't be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What the plugin has told earlier agents. What can't be read is as if it had not been told.
#[must_use]
pub fn recorded(folder: &Path) -> Vec<Call> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!("the records of sluice-cni in {} can't be read: {error}", folder.display());
            return Vec::new();
        }
    };
    let is_record = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_record);
    let read = |path: PathBuf| {
        let call = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        call.inspect_err(|error| tracing::warn!("the record {} of sluice-cni can't be read: {error}", path.display()))
            .ok()
    };
    paths.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy_compiler::model::Labels;

    fn call(uid: &str) -> Call {
        let json = format!(
            r#"{{"network": "net", "containerId": "c1", "containerInterface": "eth0", "namespace": "shop", "name": "db",
                 "uid": "{uid}", "interface": "veth7", "ifindex": 7, "addresses": ["10.1.0.7", "fd00::7"]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn pod(name: &str, uid: &str) -> Pod {
        Pod {
            name: ObjectName::new("shop", name),
            uid: uid.into(),
            labels: Labels::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            node: None,
            host_network: false,
            ended: false,
        }
    }

    #[test]
    fn a_pod_is_known_by_its_uid_and_a_static_one_by_its_name() {
        let api = "4a8c37a7-0f0e-4c5e-8f3a-0c9d6d1f2b11";
        assert!(call(api).is_about(&pod("db", api)));
        assert!(!call(api).is_about(&pod("db", "9d0ccf1e-76ad-4a7a-b87f-0d5c4a7c1b43")));
        let hash = "0f3be7e0f2a1c9d8b7a6f5e4d3c2b1a0";
        assert!(call(hash).is_about(&pod("db", api)));
        assert!(!call(hash).is_about(&pod("other", api)));
    }

    #[test]
    fn records_that_are_none_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recorded(&folder.path().join("none")), []);
        fs::write(
            folder.path().join("good.json"),
            r#"{"containerId": "c", "namespace": "n", "name": "p", "uid": "u",
            "interface": "veth1", "ifindex": 1, "addresses": []}"#,
        )
        .unwrap();
        fs::write(folder.path().join("bad.json"), "{").unwrap();
        fs::write(folder.path().join("half.json.new"), "{").unwrap();
        let found = recorded(folder.path());
        assert_eq!(found.iter().map(|call| call.ifindex).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn records_are_removed_with_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        remove_records(&socket).unwrap();
        fs::create_dir(records(&socket)).unwrap();
        fs::write(records(&socket).join("one.json"), "{}").unwrap();
        remove_records(&socket).unwrap();
        assert!(!records(&socket).exists());
    }

    #[test]
    fn answers_as_json() {
        let json = |standing: Standing| serde_json::to_string(&standing).unwrap();
        assert_eq!(json(Standing::Enforced), r#"{"state":"enforced"}"#);
        assert_eq!(json(Standing::Held { reason: "x".into() }), r#"{"state":"held","reason":"x"}"#);
    }
}
