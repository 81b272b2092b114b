//! `DEL`: forgets a pod. It never fails for what is missing, and leaves the interface enforced until it is gone.

use std::time::Duration;

use enforcer::Unattended;

use crate::{
    agent,
    config::{Config, Settings},
    environment::{Attachment, Variables},
    failure::{Failure, sentence},
    record::Records,
};

/// How long the agent may take to hear of it.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(config: &Config<'_>, variables: Variables<'_>) -> Result<String, Failure> {
    let attachment = Attachment::read(variables, false)?;
    // with settings that can't be read nothing was ever added
    let settings = config.settings().unwrap_or_default();
    forget(&settings, &attachment.container_id, &attachment.interface);
    clear(&settings);
    Ok(String::new())
}

/// As far as it goes: whoever calls can't do anything about the rest.
pub(super) fn forget(settings: &Settings, container_id: &str, interface: &str) {
    if let Err(error) = Records::beside(&settings.socket).remove(container_id, interface) {
        eprintln!("sluice-cni: the record of container {container_id} can't be removed: {error}");
    }
    // an agent that isn't there knows of nothing
    match agent::hang_up(&settings.socket, container_id, interface, PATIENCE) {
        Ok(()) | Err(agent::Unanswered::Absent { .. }) => {}
        Err(error) => eprintln!("sluice-cni: {}", sentence(&error)),
    }
}

/// Removes the pins of interfaces that are gone, unless an agent runs: it does so itself.
pub(super) fn clear(settings: &Settings) {
    let cleared = Unattended::lock(&settings.pin_dir).and_then(|pins| match pins {
        Some(mut pins) => pins.clear(),
        None => Ok(()),
    });
    match cleared {
        Ok(()) | Err(enforcer::UnattendedError::Pins(enforcer::PinsError::Nothing { .. })) => {}
        Err(error) => eprintln!("sluice-cni: pins of interfaces that are gone stay: {}", sentence(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_missing_makes_it_fail() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str| match name {
            "CNI_CONTAINERID" => Some("c".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            _ => None,
        };
        let at = |path: &str| folder.path().join(path).display().to_string();
        let text = format!(
            r#"{{"cniVersion": "1.0.0", "name": "n", "socket": "{}", "pinDir": "{}"}}"#,
            at("agent.sock"),
            at("pins")
        );
        let config = Config::parse(&text, "DEL", "0.3.0").unwrap();
        assert_eq!(run(&config, &set), Ok(String::new()));
        assert_eq!(run(&config, &set), Ok(String::new()));
    }
}
