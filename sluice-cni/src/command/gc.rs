//! `GC`: forgets the pods of this network that are no longer there, and removes the pins of interfaces that are gone.

use super::del;
use crate::{
    config::{Config, Valid},
    failure::{Failure, IO},
    record::Records,
};

pub(super) fn run(config: &Config<'_>) -> Result<String, Failure> {
    let settings = config.settings()?;
    let mut listed = Ok(String::new());
    if let Some(valid) = config.valid_attachments()? {
        match Records::beside(&settings.socket).all() {
            Ok(records) => records.iter().for_each(|record| {
                let is_it =
                    |one: &Valid| one.container_id == record.container_id && one.ifname == record.container_interface;
                if record.network == config.name && !valid.iter().any(is_it) {
                    del::forget(&settings, &record.container_id, &record.container_interface);
                }
            }),
            Err(error) => listed = Err(Failure::new(IO, "the records of pods can't be listed", error)),
        }
    }
    del::clear(&settings);
    listed
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
            records.put(&Record { network: network.into(), ..Record::example(container_id) }).unwrap();
        }
        let text = format!(
            r#"{{"cniVersion": "1.1.0", "name": "net", "socket": "{}", "pinDir": "{}", "cni.dev/valid-attachments":
                [{{"containerID": "stays", "ifname": "eth0"}}, {{"containerID": "goes", "ifname": "net1"}}]}}"#,
            socket.display(),
            folder.path().join("pins").display()
        );
        // without a list nobody says which are valid
        let without = text.replace("valid-attachments", "else");
        assert_eq!(run(&Config::parse(&without, "GC", "1.1.0").unwrap()), Ok(String::new()));
        assert_eq!(records.all().unwrap().len(), 3);
        assert_eq!(run(&Config::parse(&text, "GC", "1.1.0").unwrap()), Ok(String::new()));
        let mut left: Vec<String> = records.all().unwrap().into_iter().map(|record| record.container_id).collect();
        left.sort();
        assert_eq!(left, ["anothers", "stays"]);
    }
}
