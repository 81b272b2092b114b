//! What the plugin was called for, one file for each interface beside the agent's socket: an agent that starts later
//! learns from them whose interfaces are, and `GC` which are no longer valid.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    environment::{Attachment, PodName},
    failure::{Failure, IO},
};

/// An interface that was made for a pod. The agent reads the same (`controller::cni::Call`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The network, so that the `GC` of another one lets it be.
    pub(crate) network: String,
    pub(crate) container_id: String,
    /// The interface inside.
    pub(crate) container_interface: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The host's end of the veth.
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Record {
    pub(crate) fn new(network: &str, attachment: &Attachment, pod: PodName, veth: &enforcer::Link) -> Self {
        Self {
            network: network.to_owned(),
            container_id: attachment.container_id.clone(),
            container_interface: attachment.interface.clone(),
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
            interface: veth.name.clone(),
            ifindex: veth.ifindex,
            addresses: Vec::new(),
        }
    }

    /// `namespace/name`
    pub(crate) fn pod(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The folder of records.
#[derive(Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    /// Beside the agent's socket.
    pub(crate) fn beside(socket: &Path) -> Self {
        Self(socket.with_file_name("cni"))
    }

    /// Writes one, whole or not at all.
    pub(crate) fn put(&self, record: &Record) -> Result<(), Failure> {
        let path = self.path(&record.container_id, &record.container_interface);
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            fs::write(&new, serde_json::to_vec(record)?)?;
            fs::rename(&new, &path)
        };
        let failed = |error| Failure::new(IO, "the record of the pod can't be written", at(&path, &error));
        write().map_err(failed)
    }

    /// Removes one; that it isn't there is fine.
    pub(crate) fn remove(&self, container_id: &str, interface: &str) -> io::Result<()> {
        match fs::remove_file(self.path(container_id, interface)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All that can be read.
    pub(crate) fn all(&self) -> io::Result<Vec<Record>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        let is_record = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let read = |path: &PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
        Ok(paths.iter().filter(is_record).filter_map(read).collect())
    }

    fn path(&self, container_id: &str, interface: &str) -> PathBuf {
        self.0.join(format!("{container_id}@{interface}.json"))
    }
}

/// Where, and what the system says.
fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
impl Record {
    /// What tests call the plugin for.
    pub(crate) fn example(container_id: &str) -> Self {
        Self {
            network: "net".into(),
            container_id: container_id.into(),
            container_interface: "eth0".into(),
            namespace: "shop".into(),
            name: "db".into(),
            uid: "u".into(),
            interface: "veth7".into(),
            ifindex: 7,
            addresses: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(container: &str) -> Record {
        let addresses = vec!["10.1.0.7".parse().unwrap()];
        Record { container_interface: "eth0.5".into(), addresses, ..Record::example(container) }
    }

    #[test]
    fn records_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::beside(&folder.path().join("run/agent.sock"));
        assert_eq!(records.all().unwrap(), []);
        records.remove("a", "eth0.5").unwrap();
        records.put(&record("a.b")).unwrap();
        records.put(&record("a")).unwrap();
        records.put(&record("a")).unwrap();
        assert_eq!(records.all().unwrap().len(), 2);
        fs::write(folder.path().join("run/cni/torn.json"), "{").unwrap();
        records.remove("a.b", "eth0.5").unwrap();
        assert_eq!(records.all().unwrap(), [record("a")]);
    }

    #[test]
    fn the_agent_reads_the_same() {
        let json = serde_json::to_value(record("c")).unwrap();
        let expected = serde_json::json!({"network": "net", "containerId": "c", "containerInterface": "eth0.5",
            "namespace": "shop", "name": "db", "uid": "u", "interface": "veth7", "ifindex": 7, "addresses": ["10.1.0.7"]});
        assert_eq!(json, expected);
    }
}
