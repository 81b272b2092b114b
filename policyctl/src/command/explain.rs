//! `policyctl explain`: asks the compiler's own explanation, and prints it with near misses and fixes.

mod fixes;
mod many;
mod picture;

use policy_compiler::{
    explain::{
        Almost, Direction, Explanation, NearMiss, PartyKind, Query, Reason, Verdict, almost_selecting, explain,
        ineffective, near_misses, render,
    },
    model::ObjectName,
    reach::{Cell, Port, PortRange, Reach},
};
use serde_json::json;

use super::Question;
use crate::{
    Failure, Outcome, Status,
    format::{self, Answer},
    picture::gates::Crossing,
    port::{representative, written},
    source::{self, State},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
Ends:
  web                          a pod of the namespace that -n names
  shop/web                     a pod
  deploy/web, shop/deploy/web  all pods of a workload; sts, ds, job, cj, rs, rc too
  svc/db, shop/svc/db          a Service: as a destination its address, as a source its pods
  node/n1                      a node
  world                        the outside of the cluster
  ip:10.0.0.1, ip:[fd00::1]    any address; pods are recognised by theirs
  cidr:10.0.0.0/8              a network
  labels:shop{app=web}         a pod that does not exist yet
Ports, after the destination (none means every port):
  :5432  :53/udp  :UDP/53  :8000-8999  :http (a named port)  :icmp (a protocol without ports)  :any

Exit status:
  0 answered (can: yes)   1 can: no; explain --exit-code: denied
  2 wrong use, or files that can't be read   3 no such end, or left open by Kubernetes";

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who opens the connection
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to, with its port
    #[arg(value_name = "DESTINATION[:PORT]")]
    destination: String,
    #[command(flatten)]
    state: source::Args,
    #[command(flatten)]
    format: format::Args,
    /// End with status 1 if the connection is denied, even if only in part
    #[arg(long)]
    exit_code: bool,
}

/// How many near misses are told without `-v`.
const TOLD: usize = 3;

/// How much further off than the best one a near miss may be to be told without `-v`.
const FURTHER: usize = 3;

/// Answers. Errors of the input are told, and the answer is given all the same, for what could be read.
pub(crate) fn run(args: &Args) -> Outcome {
    let question = Question::ask(&args.source, &args.destination, &args.state)?;
    let probes = question.probes()?;
    let (answer, allowed) = match (&*question.source.members, &*question.destination.members, &*probes) {
        ([source], [destination], [probe]) => {
            let one = One::ask(&question.state, (&source.end, &destination.end), *probe)?;
            let mut answer = one.answer(&question, args.state.live.verbose);
            answer.special = picture::special(args.format.output, &answer, || one.crossing(&question));
            (answer, one.verdict() == "Allowed")
        }
        _ => many::answer(&question, &probes, args.state.live.verbose, args.format.output)?,
    };
    answer.print(&args.format)?;
    let status = if args.exit_code && !allowed { Status::Denied } else { Status::Answered };
    let outcome = format::ended(&question.state, status);
    // the process ends: to free every object of a large cluster takes longer than to judge a connection
    std::mem::forget(question);
    outcome
}

/// One connection, explained in each family.
struct One<'a> {
    state: &'a State,
    explanations: Vec<Explanation>,
    probe: Option<PortRange>,
    /// Kubernetes leaves it open.
    is_undefined: bool,
    near: Vec<NearMiss>,
    almost: Vec<Almost>,
}

impl<'a> One<'a> {
    fn ask(
        state: &'a State,
        (source, destination): (&policy_compiler::explain::End, &policy_compiler::explain::End),
        probe: Option<PortRange>,
    ) -> Result<Self, Failure> {
        let cluster = state.cluster();
        let port = representative(probe);
        let query = Query { source: source.clone(), destination: destination.clone(), port, family: None };
        let explanations = explain(cluster, &query).map_err(Failure::no_answer)?;
        let hosts = [PartyKind::HostNetworkPod];
        let has_host = explanations.iter().any(|explanation| {
            hosts.contains(&explanation.connection.source.kind)
                || hosts.contains(&explanation.connection.destination.kind)
        });
        let is_undefined = has_host && is_undefined(state, &query, port);
        let mut one = Self { state, explanations, probe, is_undefined, near: Vec::new(), almost: Vec::new() };
        let siblings = |pod: &ObjectName| fixes::siblings(state, pod);
        one.near = near_misses(cluster, &one.explanations, &siblings);
        if let Some(first) = one.explanations.first() {
            for (direction, judgement, party) in [
                (Direction::Egress, &first.egress, &first.connection.source),
                (Direction::Ingress, &first.ingress, &first.connection.destination),
            ] {
                let name = ObjectName { namespace: party.namespace.clone(), name: party.name.clone() };
                let pod = cluster.pods.get(&name).filter(|_| party.kind == PartyKind::Pod);
                if let Some(pod) = pod.filter(|_| judgement.reason == Reason::NotIsolated) {
                    one.almost.extend(almost_selecting(cluster, pod, direction));
                    one.almost.extend(ineffective(cluster, pod, direction));
                }
            }
        }
        Ok(one)
    }

    fn verdict(&self) -> &'static str {
        if self.is_undefined {
            return "Undefined";
        }
        let denied = self.explanations.iter().filter(|explanation| explanation.verdict == Verdict::Denied).count();
        match denied {
            0 => "Allowed",
            all if all == self.explanations.len() => "Denied",
            _ => "Partly",
        }
    }

    fn answer(&self, question: &Question, verbose: bool) -> Answer {
        let labels = (&*question.source.label, &*question.destination.label);
        let mut answer = Answer { kind: "Explanation", text: self.text(labels, verbose), ..Answer::default() };
        self.fields(&mut answer);
        answer.state(self.state);
        answer
    }

    /// The sides that refuse it.
    fn refused(first: &Explanation, labels: (&str, &str)) -> String {
        let side = |direction: &Direction| match direction {
            Direction::Egress => format!("egress of {}", short(&first.connection.source.name, labels.0)),
            Direction::Ingress => format!("ingress of {}", short(&first.connection.destination.name, labels.1)),
        };
        first.decided_by.iter().map(side).collect::<Vec<_>>().join(" and ")
    }

    /// What its picture shows: a line for each family that has a story of its own.
    fn crossing(&self, question: &Question) -> Crossing {
        let labels = (&*question.source.label, &*question.destination.label);
        let title = format!("{}: {} to {}, {}", self.verdict(), labels.0, labels.1, written(self.probe));
        let first = self.explanations.first();
        let same =
            |one: &Explanation| first.is_some_and(|first| first.egress == one.egress && first.ingress == one.ingress);
        let all_alike = self.explanations.iter().all(same);
        let told = self.explanations.iter().take(if all_alike { 1 } else { self.explanations.len() });
        let heading =
            |one: &Explanation| if all_alike { String::new() } else { format!("{:?}", one.connection.family) };
        let near = |one: &Explanation| if one.verdict == Verdict::Denied { &*self.near } else { &[] };
        let lanes = told.map(|one| picture::lane(one, near(one), heading(one), labels)).collect();
        let mut notes: Vec<String> = self.assumed_note().into_iter().collect();
        if self.is_undefined {
            notes.push("Kubernetes lets an engine treat hostNetwork pods as pods or as their node; this one treats them as their node.".to_owned());
        }
        let refused = first.filter(|_| self.verdict() == "Denied").map(|first| Self::refused(first, labels));
        let summary = refused.map(|refused| format!("Refused by {refused}.")).into_iter().collect();
        Crossing { title, summary, lanes, notes, footer: vec![self.state.summary.to_string()] }
    }

    fn fields(&self, answer: &mut Answer) {
        answer.set("verdict", self.verdict());
        if let Some(serde_json::Value::Object(fields)) =
            self.explanations.first().and_then(|first| serde_json::to_value(first).ok())
        {
            answer.body.extend(fields.into_iter().filter(|(field, _)| field != "verdict"));
        }
        if self.explanations.len() > 1 {
            answer.set("families", &self.explanations);
        }
        answer.set("nearMisses", &self.near);
        answer.set("almost", &self.almost);
        let mut notes: Vec<_> = self.explanations.iter().flat_map(|explanation| explanation.notes.clone()).collect();
        notes.extend(self.assumed_note());
        notes.sort();
        notes.dedup();
        answer.set("notes", json!(notes));
    }

    /// Verdict first; then the sides; then what nearly applied, and what would help.
    fn text(&self, labels: (&str, &str), verbose: bool) -> String {
        let verdict = self.verdict().to_uppercase();
        let mut text = format!("{verdict:<8}  {} -> {}  {}", labels.0, labels.1, written(self.probe));
        let first = self.explanations.first();
        if let Some(first) = first.filter(|_| matches!(self.verdict(), "Denied" | "Undefined")) {
            let sides = Self::refused(first, labels);
            if self.is_undefined {
                let here = if sides.is_empty() { "ALLOWED".to_owned() } else { format!("DENIED by {sides}") };
                text.push_str(&format!("\n\n  Kubernetes lets an engine treat hostNetwork pods as pods or as their node;\n  this one treats them as their node -> {here}"));
            } else {
                text.push_str(&format!("      refused by {sides}"));
            }
        }
        let rendered = render(&self.explanations, verbose);
        let single = !rendered.contains("  over IPv");
        let rest = if single { rendered.split_once('\n').map_or("", |(_, rest)| rest) } else { &*rendered };
        text.push_str(&format!("\n{}{}", if single { "" } else { "\n" }, rest.trim_end()));
        text.push('\n');
        for almost in &self.almost {
            text.push_str(&fixes::almost(almost, first));
        }
        for near in
            self.near.iter().filter(|near| verbose || self.is_told(near)).take(if verbose { usize::MAX } else { TOLD })
        {
            text.push_str(&fixes::near(
                near,
                self.explanations.iter().find(|e| e.verdict == Verdict::Denied),
                self.state,
            ));
        }
        if self.near.iter().any(|near| near.direction == Direction::Egress)
            && self.near.iter().any(|near| near.direction == Direction::Ingress)
        {
            text.push_str("\n  note  both sides refuse it: it takes a fix of each; they were tried together\n");
        }
        if let Some(note) = self.assumed_note() {
            text.push_str(&format!("\n  note  {note}\n"));
        }
        text
    }

    /// What is much further off than the best of its side is left out.
    fn is_told(&self, near: &NearMiss) -> bool {
        let own = self.near.iter().filter(|other| other.direction == near.direction && !other.failed.is_empty());
        let best = own.map(|other| (other.failures, other.weight)).min();
        near.failed.is_empty()
            || best.is_none_or(|(failures, weight)| near.failures == failures && near.weight <= weight + FURTHER)
    }

    fn assumed_note(&self) -> Option<String> {
        let connection = &self.explanations.first()?.connection;
        let assumed: Vec<_> = [&connection.source, &connection.destination]
            .into_iter()
            .filter(|party| self.state.gathered.assumed.contains(&party.ip))
            .map(|party| format!("{}/{} ({})", party.namespace, party.name, party.ip))
            .collect();
        (!assumed.is_empty())
            .then(|| format!("no address is known yet of {}; the one in parentheses is assumed", assumed.join(" and ")))
    }
}

/// The name if there is one, else the label that it was asked by.
fn short<'a>(name: &'a str, label: &'a str) -> &'a str {
    if name.is_empty() { label } else { name }
}

fn is_undefined(state: &State, query: &Query, port: Port) -> bool {
    let reach = Reach::of_few(state.cluster());
    let (Ok(sources), Ok(destinations)) = (reach.seats(&query.source), reach.seats(&query.destination)) else {
        return false;
    };
    sources.iter().any(|from| {
        let mut same = destinations.iter().filter(|to| to.family == from.family);
        same.any(|to| reach.judge(from, to, port) == Cell::Undefined)
    })
}
