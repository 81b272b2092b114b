//! `STATUS`: whether an `ADD` would succeed.

use std::time::Duration;

use crate::{
    agent::{self, Unanswered},
    config::{Config, OnAgentDown},
    failure::{Failure, LIMITED, NOT_AVAILABLE, sentence},
};

/// How long the agent may take to answer. Runtimes ask every few seconds.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn run(config: &Config<'_>) -> Result<String, Failure> {
    let settings = config.settings()?;
    match agent::readiness(&settings.socket, PATIENCE) {
        Ok(readiness) if readiness.limited.is_empty() => Ok(String::new()),
        Ok(readiness) => {
            let details = format!("the policies of {} could not be programmed", readiness.limited.join(", "));
            Err(Failure::new(LIMITED, "some pods are closed", details))
        }
        // pods start held, for which there must have been an agent once
        Err(Unanswered::Absent { .. }) if settings.on_agent_down == OnAgentDown::Hold && settings.pin_dir.is_dir() => {
            Ok(String::new())
        }
        Err(error) => Err(Failure::new(NOT_AVAILABLE, "the Sluice agent is not ready", sentence(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_agent_pods_can_only_be_held() {
        let folder = tempfile::tempdir().unwrap();
        let status = |on_agent_down: &str, pin_dir: &str| {
            let (socket, pins) = (folder.path().join("agent.sock"), folder.path().join(pin_dir));
            let text = format!(
                r#"{{"cniVersion": "1.1.0", "name": "n", "socket": "{}", "pinDir": "{}", "onAgentDown": "{on_agent_down}"}}"#,
                socket.display(),
                pins.display()
            );
            run(&Config::parse(&text, "STATUS", "1.1.0").unwrap()).map_err(|failure| failure.code)
        };
        assert_eq!(status("fail", ""), Err(NOT_AVAILABLE));
        assert_eq!(status("hold", ""), Ok(String::new()));
        assert_eq!(status("hold", "never-made"), Err(NOT_AVAILABLE));
    }
}
