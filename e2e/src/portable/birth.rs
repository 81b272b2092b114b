//! Pods that connect from their first instant, many at once, most of them under a policy that denies it. Their own logs, and
//! that of the server, tell a leak.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    scene::{PORT, Scene, pod, server},
    venue::Venue,
};
use crate::{
    lab::{AGNHOST, objects::policy},
    wait::until,
};

/// Pods that may send, and that may not.
const FREE: usize = 4;
const SHUT: usize = 20;
/// The longest until one more of them has been asking for long enough; images may have to be fetched first.
const PATIENCE: Duration = Duration::from_secs(180);
/// Rounds of questions after which a pod has been asking for long enough.
const ENOUGH: usize = 15;

/// In each round a TCP connection of its own to each address; beside that, twenty datagrams a second. Both ask for an
/// answer that names the pod. Waiting by `read` starts no process. What arrives is copied by `dd`: a `cat` that uses
/// sendfile(2) keeps the pipe that it writes to locked while it waits, and whoever else writes there waits with it.
const SCRIPT: &str = r#"
exec 2>/dev/null 9<> <(:)
pause() { read -rt "$1" -u 9; }
for host; do
  { exec 3<>"/dev/udp/$host/$PORT"; (while :; do echo "echo answered-$HOSTNAME" >&3; pause 0.05; done) & dd bs=4096 <&3; } &
done
round=0
while :; do
  for host; do
    timeout 3 bash -c "exec 3<>/dev/tcp/$host/$PORT; printf 'GET /echo?msg=answered-$HOSTNAME HTTP/1.0\r\n\r\n' >&3; dd bs=4096 <&3" &
  done
  round=$((round + 1))
  echo "round-$round"
  if [ $round -lt 10 ]; then sleep 0.1; else sleep 1; fi
done
"#;

pub(super) fn no_early_packet(venue: &Venue) -> Result<()> {
    let scene = Scene::open(venue, "birth")?;
    scene.add(&[server("web", venue.far(), &json!({}))])?;
    let deny = json!({"podSelector": {"matchLabels": {"may": "not"}}, "policyTypes": ["Egress"]});
    scene.apply(&[policy("deny", deny)])?;
    let to: Vec<String> = scene.at("web", PORT)?.iter().map(|to| to.ip().to_string()).collect();
    let shut: Vec<String> = (0..SHUT).map(|number| format!("shut-{number}")).collect();
    let free: Vec<String> = (0..FREE).map(|number| format!("free-{number}")).collect();
    let mut pods = Vec::new();
    for (names, may) in [(&free, "yes"), (&shut, "not")] {
        for (number, name) in names.iter().enumerate() {
            let node = if number % 2 == 0 { venue.near() } else { venue.far() };
            pods.push(sender(name, node, may, &to));
        }
    }
    scene.apply(&pods)?;

    for name in free.iter().chain(&shut) {
        let is_free = free.contains(name);
        // There is none before its container.
        let log = || scene.kubectl(&["logs", name]).unwrap_or_default();
        let late = || format!("{name} has not asked often enough, or got too few answers; it said:\n{}", log());
        until(PATIENCE, Duration::from_millis(300), late, || {
            let log = log();
            let leaked = !is_free && log.contains("answered");
            ensure!(!leaked, "{name} may not send, and has got an answer: {log}");
            // Everybody who may is answered; those who may not have been asking for as long.
            let answers = log.matches(&format!("answered-{name}")).count();
            Ok((log.contains(&format!("round-{ENOUGH}\n")) && (!is_free || answers >= ENOUGH)).then_some(()))
        })?;
    }
    // One whose answer was kept from it is a leak as well.
    let log = scene.kubectl(&["logs", "web", "--container=main"])?;
    ensure!(log.contains("answered-free-"), "the server's log does not show who asks, so it proves nothing");
    let leak = log.lines().find(|line| line.contains("answered-shut-"));
    leak.map_or(Ok(()), |line| Err(anyhow::anyhow!("{line}"))).context("a pod that may not send has been heard")
}

fn sender(name: &str, node: &str, may: &str, to: &[String]) -> Value {
    let mut command = vec!["bash".to_owned(), "-c".to_owned(), SCRIPT.to_owned(), "bash".to_owned()];
    command.extend_from_slice(to);
    let env = json!([{"name": "PORT", "value": PORT.to_string()}]);
    let container = json!({"name": "main", "image": AGNHOST, "command": command, "env": env});
    pod(name, node, &json!({"may": may}), &[container])
}
