//! `ADD`: returns when the pod's policies are in force, and before that holds its interface, agent or not.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer::{Unattended, UnattendedError, is_attached};

use crate::{
    agent::{self, Standing, Unanswered},
    config::{Config, OnAgentDown, OnUnenforceable, Settings},
    environment::{Attachment, PodName, Variables},
    failure::{Failure, NOT_ENFORCED, TRY_AGAIN, UNENFORCEABLE, sentence},
    previous::{Previous, pass_on},
    record::{Record, Records},
    veth,
};

/// How often an agent that isn't there is looked for.
const PAUSE: Duration = Duration::from_millis(50);
/// How long before the time is over the agent is to answer whatever it is.
const MARGIN: Duration = Duration::from_millis(200);

pub(super) fn run(config: &Config<'_>, variables: Variables<'_>) -> Result<String, Failure> {
    let attachment = Attachment::read(variables, true)?;
    let settings = config.settings()?;
    let previous = Previous::read(config.previous, config.version)?;
    let result = || config.previous.map(|raw| pass_on(raw, config.version)).unwrap_or_default();
    let Some(pod) = PodName::read(variables)? else {
        eprintln!("sluice-cni: container {} is no pod's, and is left alone", attachment.container_id);
        return Ok(result());
    };
    let netns = attachment.netns.clone().unwrap_or_default();
    let allowed = |failure: Failure| match settings.on_unenforceable {
        OnUnenforceable::Allow if failure.code == UNENFORCEABLE => {
            eprintln!("sluice-cni: {}: {}", failure.msg, failure.details);
            Ok(result())
        }
        _ => Err(failure),
    };
    let veth = match veth::find(&netns, &previous) {
        Ok(veth) => veth,
        Err(failure) => return allowed(failure),
    };
    let mut record = Record::new(&config.name, &attachment, pod, &veth);
    record.addresses = previous.addresses()?;
    // an agent that starts while this waits, or after it, is to know whose the interface is
    Records::beside(&settings.socket).put(&record)?;
    match settle(&record, &settings) {
        Ok(()) => Ok(result()),
        Err(failure) => allowed(failure),
    }
}

/// Waits until the pod's tables are in force, or until it may start without.
fn settle(record: &Record, settings: &Settings) -> Result<(), Failure> {
    let deadline = Instant::now() + settings.timeout;
    let mut guard = Guard { is_held: false, refusal: None };
    loop {
        guard.hold(record.ifindex, settings)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = agent::call(&settings.socket, record, left.saturating_sub(MARGIN));
        match answer {
            Ok(standing) => match verdict(&standing, record) {
                Verdict::Done => return Ok(()),
                Verdict::Never(failure) => return Err(failure),
                Verdict::Late(reason) => return late(record, settings, &reason),
            },
            Err(Unanswered::Refused(reason)) if Instant::now() >= deadline => return late(record, settings, &reason),
            Err(error) if Instant::now() >= deadline => {
                let refusal = guard.refusal.map(|refusal| format!("; {refusal}")).unwrap_or_default();
                return late(record, settings, &format!("{}{refusal}", sentence(&error)));
            }
            // it may be starting
            Err(_) => thread::sleep(PAUSE.min(left)),
        }
    }
}

/// Holds an interface while no agent does.
struct Guard {
    is_held: bool,
    /// Why it could not be held.
    refusal: Option<String>,
}

impl Guard {
    /// Attaches the pinned programs, unless an agent runs: it does so itself. Whatever fails may succeed in a moment.
    fn hold(&mut self, ifindex: u32, settings: &Settings) -> Result<(), Failure> {
        if self.is_held {
            return Ok(());
        }
        let held = Unattended::lock(&settings.pin_dir).and_then(|pins| match pins {
            Some(mut pins) => pins.hold(ifindex).map(|()| true),
            None => Ok(false),
        });
        match held {
            Ok(held) => (self.is_held, self.refusal) = (held, None),
            Err(UnattendedError::Attach(
                error @ (enforcer::AttachError::IngressQdisc { .. } | enforcer::AttachError::PriorityTaken { .. }),
            )) => return Err(Failure::caused(UNENFORCEABLE, "the pod can't be enforced", &error)),
            Err(error) => self.refusal = Some(sentence(&error)),
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing to wait for.
    Done,
    /// The tables were not in force in time.
    Late(String),
    /// They never will be.
    Never(Failure),
}

fn verdict(standing: &Standing, record: &Record) -> Verdict {
    let Standing { state, reason } = standing;
    match &**state {
        // what an administrator has excluded is nobody's business
        "enforced" | "untouched" => Verdict::Done,
        "unenforceable" => {
            Verdict::Never(Failure::new(UNENFORCEABLE, format!("{} can't be enforced", record.pod()), reason))
        }
        "gone" => {
            let details = format!("the agent sees no interface {} (index {})", record.interface, record.ifindex);
            Verdict::Never(Failure::new(NOT_ENFORCED, "the pod's interface is gone", details))
        }
        _ => Verdict::Late(format!("the pod is {state}: {reason}")),
    }
}

/// The time is over. A pod may only start held if it is held.
fn late(record: &Record, settings: &Settings, reason: &str) -> Result<(), Failure> {
    let msg = format!("the policies of {} are not in force after {} s", record.pod(), settings.timeout.as_secs());
    match settings.on_agent_down {
        OnAgentDown::Fail => Err(Failure::new(TRY_AGAIN, msg, reason)),
        OnAgentDown::Hold => match is_attached(&settings.pin_dir, record.ifindex) {
            Ok(true) => {
                eprintln!("sluice-cni: {msg}, and it is held until they are: {reason}");
                Ok(())
            }
            Ok(false) => Err(Failure::new(TRY_AGAIN, msg, format!("nor can it be held: {reason}"))),
            Err(error) => Err(Failure::new(TRY_AGAIN, msg, format!("nor can it be held: {}", sentence(&error)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_enforced_or_none_of_ours_may_start() {
        let of = |state: &str| verdict(&Standing { state: state.into(), reason: "why".into() }, &Record::example("c"));
        assert_eq!((of("enforced"), of("untouched")), (Verdict::Done, Verdict::Done));
        for state in ["held", "closed", "levitating"] {
            assert_eq!(of(state), Verdict::Late(format!("the pod is {state}: why")));
        }
        let Verdict::Never(failure) = of("unenforceable") else { panic!("it can't be enforced") };
        assert_eq!(
            (failure.code, &*failure.msg, &*failure.details),
            (UNENFORCEABLE, "shop/db can't be enforced", "why")
        );
        assert!(matches!(of("gone"), Verdict::Never(Failure { code: NOT_ENFORCED, .. })));
    }

    #[test]
    fn a_pod_that_is_not_held_does_not_start() {
        let settings = Settings { pin_dir: "/nowhere/sluice".into(), timeout: PAUSE, ..Settings::default() };
        let failure = late(&Record::example("c"), &settings, "why").unwrap_err();
        assert_eq!((failure.code, &*failure.details), (TRY_AGAIN, "why"));
        let settings = Settings { on_agent_down: OnAgentDown::Hold, ..settings };
        assert!(late(&Record::example("c"), &settings, "why").unwrap_err().details.starts_with("nor can it be held: "));
    }
}
