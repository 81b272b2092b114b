//! `CHECK`: whether the programs are on the pod's interface, and the agent, if it runs, enforces the pod.

use enforcer::is_attached;

use crate::{
    agent::{self, Unanswered},
    config::{Config, OnUnenforceable},
    environment::{Attachment, PodName, Variables},
    failure::{Failure, IO, NOT_ENFORCED, UNENFORCEABLE, sentence},
    previous::Previous,
    record::Record,
    veth,
};

pub(super) fn run(config: &Config<'_>, variables: Variables<'_>) -> Result<String, Failure> {
    let attachment = Attachment::read(variables, true)?;
    let settings = config.settings()?;
    let previous = Previous::read(config.previous, config.version)?;
    let Some(pod) = PodName::read(variables)? else { return Ok(String::new()) };
    let netns = attachment.netns.clone().unwrap_or_default();
    let is_allowed = settings.on_unenforceable == OnUnenforceable::Allow;
    let veth = match veth::find(&netns, &previous) {
        Err(failure) if is_allowed && failure.code == UNENFORCEABLE => return Ok(String::new()),
        other => other?,
    };
    let mut record = Record::new(&config.name, &attachment, pod, &veth);
    record.addresses = previous.addresses()?;
    // it may be called right after an ADD that left the pod held
    let standing = match agent::call(&settings.socket, &record, settings.timeout) {
        Ok(standing) => Some(standing),
        Err(Unanswered::Absent { .. }) => None,
        Err(error) => return Err(Failure::new(NOT_ENFORCED, "the agent does not answer", sentence(&error))),
    };
    match standing {
        Some(standing) if standing.state == "untouched" => return Ok(String::new()),
        Some(standing) if standing.state == "unenforceable" && is_allowed => return Ok(String::new()),
        Some(standing) if standing.state != "enforced" => {
            let msg = format!("{} is {}", record.pod(), standing.state);
            return Err(Failure::new(NOT_ENFORCED, msg, standing.reason));
        }
        _ => {}
    }
    let attached = is_attached(&settings.pin_dir, veth.ifindex);
    if attached.map_err(|error| Failure::caused(IO, "what is attached can't be listed", &error))? {
        return Ok(String::new());
    }
    let details = format!("no programs of Sluice are on its interface {}", veth.name);
    Err(Failure::new(NOT_ENFORCED, format!("{} is not enforced", record.pod()), details))
}
