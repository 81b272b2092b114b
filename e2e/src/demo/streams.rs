//! Connections that are open while the policy changes, with a count of what came back on each.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use e2e::bed::Stream;
use policy_compiler::model::ObjectName;

use crate::{
    screen::{Screen, Style},
    stage::{FrontEnd, Stage, front_ends},
};

/// The time between two lines of the table.
const TICK: Duration = Duration::from_millis(250);
/// Silence for so long, on connections that answer within a millisecond, means that one is cut.
const SILENCE: Duration = Duration::from_millis(700);
const WIDTH: usize = 22;

/// A connection from a pod to a front end.
struct Open {
    label: String,
    family: &'static str,
    client: ObjectName,
    to: SocketAddr,
    stream: Stream,
    /// Whether the policies still allow it.
    allowed: bool,
}

/// Open connections.
pub(crate) struct Streams {
    open: Vec<Open>,
    start: Instant,
}

impl Streams {
    /// From each of `clients` one over IPv4 to the pod itself and one over IPv6 through its Service.
    pub(crate) fn open(stage: &Stage, clients: &[ObjectName], server: &ObjectName) -> Result<Self> {
        let ways: Vec<FrontEnd> =
            front_ends(&stage.manifests()?)?.into_iter().filter(|way| way.pod == *server).collect();
        let mut open = Vec::new();
        for client in clients {
            for (family, way) in ways.iter().enumerate() {
                let to = SocketAddr::new(*way.addresses.get(family).context("both families")?, way.port);
                let stream = Stream::open(stage.pod(client)?, to, Duration::from_secs(2))?;
                open.push(Open {
                    label: format!("{} to {}", client.name, way.label),
                    family: if to.is_ipv4() { "IPv4" } else { "IPv6" },
                    client: client.clone(),
                    to,
                    stream,
                    allowed: true,
                });
            }
        }
        Ok(Self { open, start: Instant::now() })
    }

    /// The heads of the table.
    pub(crate) fn heads(&self, screen: Screen) {
        let line = |text: &dyn Fn(&Open) -> String| -> String {
            self.open.iter().map(|open| format!("{:<WIDTH$}", text(open))).collect()
        };
        screen.line(&format!("{:<9}{}", "", screen.paint(Style::Heading, line(&|open| open.label.clone()).trim_end())));
        screen.line(
            &screen.paint(Style::Faint, &format!("{:<9}{}", "time", line(&|open| open.family.to_owned()).trim_end())),
        );
    }

    /// Prints the counts `lines` times, a [`TICK`] after each other.
    pub(crate) fn watch(&self, screen: Screen, lines: usize) {
        for _ in 0..lines {
            let before: Vec<u64> = self.open.iter().map(|open| open.stream.bytes()).collect();
            thread::sleep(TICK);
            let mut line = format!("{:>5.2} s  ", self.start.elapsed().as_secs_f64());
            for (open, before) in self.open.iter().zip(before) {
                let now = open.stream.bytes();
                let (gain, style) = if now > before {
                    (format!("+{}", kilobytes(now - before)), Style::Good)
                } else {
                    ("nothing".to_owned(), Style::Bad)
                };
                let text = format!("{:>8}  {gain:<12}", kilobytes(now));
                line.push_str(&screen.paint(style, &text));
            }
            screen.line(line.trim_end());
        }
    }

    /// Asks the policies as they are now which of the connections they allow.
    pub(crate) fn judge_again(&mut self, stage: &Stage) -> Result<()> {
        let manifests = stage.manifests()?;
        for open in &mut self.open {
            open.allowed = manifests.allow(&open.client, open.to)?;
        }
        Ok(())
    }

    /// Compares what flows with what the policies allow, and says so; the number of connections that are wrong.
    pub(crate) fn compare(&self, screen: Screen, changed: Option<Instant>) -> usize {
        let mut wrong = 0;
        for open in &self.open {
            let what = format!("{} over {}", open.label, open.family);
            let flows = open.stream.flows(SILENCE);
            match (open.allowed, flows) {
                (true, true) => screen.good(&format!("{what}: allowed; flows on")),
                (false, false) => {
                    let after = changed.map_or(String::new(), |changed| {
                        let time = open.stream.last_progress().saturating_duration_since(changed);
                        format!(" {} ms after the file was written", time.as_millis())
                    });
                    screen.good(&format!("{what}: no longer allowed; cut{after}"));
                }
                (true, false) => screen.bad(&format!("{what}: allowed, but cut")),
                (false, true) => screen.bad(&format!("{what}: no longer allowed, but flows on")),
            }
            wrong += usize::from(open.allowed != flows);
        }
        wrong
    }
}

fn kilobytes(bytes: u64) -> String {
    format!("{} kB", bytes / 1000)
}
