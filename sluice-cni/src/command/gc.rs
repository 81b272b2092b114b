//! `GC`: forgets the pods of this network that are no longer there, and removes the pins of interfaces that are gone.

use super::del;
use crate::{
    config::Config,
    failure::{Failure, IO},
    record::Records,
};

pub(super) fn run(config: &Config<'_>) -> Result<String, Failure> {
    let settings = config.settings()?;
    let valid = config.valid_attachments()?;
    let records = Records::beside(&settings.socket).all();
    let records = records.map_err(|error| Failure::new(IO, "the records of pods can't be listed", error));
    for record in records.as_deref().unwrap_or_default() {
        let is_valid =
            valid.iter().any(|one| one.container_id == record.container_id && one.ifname == record.container_interface);
        if record.network == config.name && !is_valid {
            del::forget(&settings, &record.container_id, &record.container_interface);
        }
    }
    del::clear(&settings);
    records.map(|_| String::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn what_is_no_longer_valid_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let records = Records::beside(&socket);
        for (network, container_id) in [("net", "stays"), ("net", "goes"), ("other", "anothers")] {
            let record = Record {
                network: network.into(),
                container_id: container_id.into(),
                container_interface: "eth0".into(),
                namespace: "shop".into(),
                name: "db".into(),
                uid: "u".into(),
                interface: "veth7".into(),
                ifindex: 7,
                addresses: Vec::new(),
            };
            records.put(&record).unwrap();
        }
        let text = format!(
            r#"{{"cniVersion": "1.1.0", "name": "net", "socket": "{}", "pinDir": "{}", "cni.dev/valid-attachments":
                [{{"containerID": "stays", "ifname": "eth0"}}, {{"containerID": "goes", "ifname": "net1"}}]}}"#,
            socket.display(),
            folder.path().join("pins").display()
        );
        assert_eq!(run(&Config::parse(&text, "GC", "1.1.0").unwrap()), Ok(String::new()));
        let mut left: Vec<String> = records.all().unwrap().into_iter().map(|record| record.container_id).collect();
        left.sort();
        assert_eq!(left, ["anothers", "stays"]);
    }
}
