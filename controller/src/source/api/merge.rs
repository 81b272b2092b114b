//! Six watches to one order of events: [`Merge`]. Pure but for the log; the time is given.
//!
//! - Nothing is handed on before every list is complete and names this node.
//! - After an outage the watches come back one after the other. What the first ones tell waits for the others, up to a
//!   bound: a pod that came during the outage must not be handed on before the policy that came before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use policy_compiler::{
    Event,
    diagnostic::{Kind, Severity},
    model::ObjectName,
};

use super::{
    super::{Problem, Update},
    failure::Failure,
    held::Held,
    resource::{RESOURCES, rank},
    watch::{News, Told},
    wire::Object,
};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Merge {
    node: ObjectName,
    /// How long what is told waits for watches that don't work.
    hold: Duration,
    kinds: [OfKind; RESOURCES.len()],
    /// What is to be handed on, in order within each kind.
    pending: Vec<Event>,
    /// When the first of it was heard.
    seen: Option<Instant>,
    /// Since when it waits for other watches.
    waits: Option<Instant>,
    /// The first update was handed on.
    started: bool,
    problems_changed: bool,
}

#[derive(Debug)]
struct OfKind {
    held: Held,
    stage: Stage,
    /// Its first list is complete.
    listed: bool,
    /// It was waited for long enough.
    given_up: bool,
    failure: Option<Failure>,
    /// What is wrong with its objects, and the list that named them last.
    problems: BTreeMap<ObjectName, (u32, Vec<Problem>)>,
    list: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Listing,
    Following,
    Failing,
}

impl Merge {
    pub(super) fn new(node: &str, hold: Duration) -> Self {
        Self {
            node: ObjectName::new("", node),
            hold,
            kinds: RESOURCES.map(|resource| OfKind {
                held: Held::new(resource.kind),
                stage: Stage::Listing,
                listed: false,
                given_up: false,
                failure: None,
                problems: BTreeMap::new(),
                list: 0,
            }),
            pending: Vec::new(),
            seen: None,
            waits: None,
            started: false,
            problems_changed: false,
        }
    }

    /// Takes in what a watch tells. True if a watch works again that did not.
    pub(super) fn take(&mut self, told: Told, now: Instant) -> bool {
        let of = &mut self.kinds[rank(told.kind)];
        let before = self.pending.len();
        let mut recovered = false;
        match told.news {
            News::Listing => {
                of.stage = Stage::Listing;
                of.list = of.list.wrapping_add(1);
                of.held.begin();
            }
            News::Object(object) => {
                self.problems_changed |= of.note(&object);
                of.held.put(*object, &mut self.pending);
            }
            News::Unreadable(name, why) => {
                let text = format!("{} {name}: can't be read, and stays as it was: {why}", told.kind);
                let problem = Problem { about: Some((told.kind, name.clone())), ..Problem::error(text) };
                self.problems_changed |= of.note_problems(name.clone(), vec![problem]);
                of.held.keep(&name);
            }
            News::Gone(name) => {
                self.problems_changed |= of.note_problems(name.clone(), Vec::new());
                of.held.remove(&name, &mut self.pending);
            }
            News::Listed => {
                of.listed = true;
                of.held.end(&mut self.pending);
                self.problems_changed |= of.forget_problems();
            }
            News::Following => {
                recovered = of.failure.take().is_some();
                (of.stage, of.given_up) = (Stage::Following, false);
            }
            News::Failing(failure) => {
                of.stage = Stage::Failing;
                of.failure = Some(failure);
            }
        }
        if self.pending.len() > before {
            self.seen.get_or_insert(now);
        }
        recovered
    }

    /// What is to be handed on now.
    pub(super) fn update(&mut self, now: Instant) -> Option<Update> {
        if !self.started {
            let complete = self.kinds.iter().all(|of| of.listed);
            if !complete || !self.knows_node() {
                return None;
            }
        } else if self.pending.is_empty() && !self.problems_changed || self.must_wait(now) {
            return None;
        }
        self.started = true;
        self.waits = None;
        self.problems_changed = false;
        let mut events = std::mem::take(&mut self.pending);
        events.sort_by_key(|event| rank(kind_of(event)));
        let problems: Arc<[Problem]> = self.problems().cloned().collect();
        Some(Update { events, seen: self.seen.take().unwrap_or(now), problems })
    }

    /// When [`Self::update`] has something although nothing more is told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waits.map(|since| since + self.hold)
    }

    fn must_wait(&mut self, now: Instant) -> bool {
        if self.kinds.iter().all(|of| of.stage == Stage::Following || of.given_up) {
            return false;
        }
        let since = *self.waits.get_or_insert(now);
        if now < since + self.hold {
            return true;
        }
        for of in &mut self.kinds {
            of.given_up = of.stage != Stage::Following;
        }
        false
    }

    fn knows_node(&self) -> bool {
        self.kinds[rank(Kind::Node)].held.contains(&self.node)
    }

    /// Why the source can't do what it is there for, one sentence each.
    pub(super) fn troubles(&self) -> BTreeSet<String> {
        let failures = self.kinds.iter().filter_map(|of| of.failure.as_ref()).map(ToString::to_string);
        let mut troubles: BTreeSet<String> = failures.collect();
        if self.kinds[rank(Kind::Node)].listed && !self.knows_node() {
            troubles.insert(format!(
                "the cluster has no node {:?}; --node (NODE_NAME in the environment) must be the name that `kubectl get \
                 nodes` shows",
                &*self.node.name
            ));
        }
        troubles
    }

    /// How many objects of a kind there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.kinds[rank(kind)].held.len()
    }

    fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.kinds.iter().flat_map(|of| of.problems.values()).flat_map(|(_, problems)| problems)
    }
}

impl OfKind {
    fn note(&mut self, object: &Object) -> bool {
        if object.diagnostics.is_empty() && self.problems.is_empty() {
            return false;
        }
        let problems = object.diagnostics.iter().cloned().map(Problem::from).collect();
        self.note_problems(object.name.clone(), problems)
    }

    /// These are an object's problems now. Logs what is new and what is over; true if there was any such thing.
    fn note_problems(&mut self, name: ObjectName, problems: Vec<Problem>) -> bool {
        let before = self.problems.remove(&name).map(|(_, problems)| problems).unwrap_or_default();
        tell(&before, &problems);
        let changed = before != problems;
        if !problems.is_empty() {
            self.problems.insert(name, (self.list, problems));
        }
        changed
    }

    /// The list is complete: what it did not name is gone, with its problems.
    fn forget_problems(&mut self) -> bool {
        let before = self.problems.len();
        let list = self.list;
        self.problems.retain(|_, (named, problems)| {
            if *named != list {
                tell(problems, &[]);
            }
            *named == list
        });
        self.problems.len() != before
    }
}

fn tell(before: &[Problem], now: &[Problem]) {
    for problem in now.iter().filter(|problem| !before.contains(problem)) {
        match problem.severity {
            Severity::Error => tracing::error!("{}", problem.text),
            Severity::Warning => tracing::warn!("{}", problem.text),
        }
    }
    for problem in before.iter().filter(|problem| !now.contains(problem)) {
        tracing::info!("no longer: {}", problem.text);
    }
}

const fn kind_of(event: &Event) -> Kind {
    match event {
        Event::PutPod(_) | Event::DeletePod(_) => Kind::Pod,
        Event::PutNamespace(_) | Event::DeleteNamespace(_) => Kind::Namespace,
        Event::PutNode(_) | Event::DeleteNode(_) => Kind::Node,
        Event::PutPolicy(_) | Event::DeletePolicy(_) => Kind::NetworkPolicy,
        Event::PutService(_) | Event::DeleteService(_) => Kind::Service,
        Event::PutEndpointSlice(_) | Event::DeleteEndpointSlice(_) => Kind::EndpointSlice,
    }
}

#[cfg(test)]
mod tests {
    use policy_compiler::model::{Node, Policy};

    use super::*;
    use crate::source::api::wire;

    const HOLD: Duration = Duration::from_secs(5);

    fn told(kind: Kind, news: News) -> Told {
        Told { kind, news }
    }

    fn object(kind: Kind, name: &str) -> News {
        let text = match kind {
            Kind::Node => format!(r#"{{"metadata": {{"name": "{name}"}}}}"#),
            _ => format!(r#"{{"metadata": {{"name": "{name}", "namespace": "n"}}}}"#),
        };
        News::Object(Box::new(wire::read(kind, &text).unwrap()))
    }

    /// One that has handed on its first update: the node `n1`.
    fn started(now: Instant) -> Merge {
        let mut merge = Merge::new("n1", HOLD);
        for resource in &RESOURCES {
            assert!(merge.update(now).is_none(), "not before {}", resource.plural);
            merge.take(told(resource.kind, News::Listing), now);
            if resource.kind == Kind::Node {
                merge.take(told(Kind::Node, object(Kind::Node, "n1")), now);
            }
            merge.take(told(resource.kind, News::Listed), now);
            merge.take(told(resource.kind, News::Following), now);
        }
        let events = merge.update(now).unwrap().events;
        assert!(matches!(&*events, [Event::PutNode(Node { name, .. })] if &**name == "n1"), "{events:?}");
        assert!(merge.update(now).is_none(), "once");
        merge
    }

    #[test]
    fn after_an_outage_pods_wait_for_policies_that_came_before_them() {
        let now = Instant::now();
        let mut merge = started(now);
        let failure = || News::Failing(Failure::Unreachable("refused".into()));
        merge.take(told(Kind::NetworkPolicy, failure()), now);
        merge.take(told(Kind::Pod, object(Kind::Pod, "new")), now);
        assert!(merge.update(now).is_none(), "the policies are not known");
        merge.take(told(Kind::NetworkPolicy, News::Listing), now);
        merge.take(told(Kind::NetworkPolicy, object(Kind::NetworkPolicy, "older")), now);
        assert!(merge.update(now).is_none(), "not all policies are known");
        merge.take(told(Kind::NetworkPolicy, News::Listed), now);
        assert!(merge.take(told(Kind::NetworkPolicy, News::Following), now), "it works again");
        let events = merge.update(now).unwrap().events;
        let [Event::PutPod(_), Event::PutPolicy(Policy { name, .. })] = &*events else { panic!("{events:?}") };
        assert_eq!(&*name.name, "older");
    }

    #[test]
    fn a_watch_that_stays_broken_is_waited_for_once() {
        let now = Instant::now();
        let mut merge = started(now);
        let failure = Failure::Forbidden { verb: "watch", resource: "services".into() };
        merge.take(told(Kind::Service, News::Failing(failure)), now);
        assert_eq!(merge.troubles().len(), 1);
        merge.take(told(Kind::Pod, object(Kind::Pod, "a")), now);
        assert!(merge.update(now).is_none());
        assert_eq!(merge.due(), Some(now + HOLD));
        assert!(merge.update(now + HOLD).is_some());
        merge.take(told(Kind::Pod, object(Kind::Pod, "b")), now + HOLD);
        let update = merge.update(now + HOLD).expect("it was waited for long enough");
        assert_eq!((update.events.len(), update.seen), (1, now + HOLD));
        // until it has worked again
        merge.take(told(Kind::Service, News::Following), now + HOLD);
        assert!(merge.troubles().is_empty());
        merge.take(told(Kind::Service, News::Listing), now + HOLD);
        merge.take(told(Kind::Pod, object(Kind::Pod, "c")), now + HOLD);
        assert!(merge.update(now + HOLD).is_none());
    }

    #[test]
    fn a_list_that_is_broken_off_counts_for_nothing() {
        let now = Instant::now();
        let mut merge = started(now);
        for (name, last) in [("a", false), ("b", true)] {
            merge.take(told(Kind::Pod, News::Listing), now);
            merge.take(told(Kind::Pod, object(Kind::Pod, name)), now);
            if last {
                // what the list that was broken off has named is not known any better
                merge.take(told(Kind::Pod, object(Kind::Pod, "c")), now);
                merge.take(told(Kind::Pod, News::Listed), now);
                merge.take(told(Kind::Pod, News::Following), now);
            }
        }
        let events = merge.update(now).unwrap().events;
        let names = |event: &Event| match event {
            Event::PutPod(pod) => pod.name.name.to_string(),
            Event::DeletePod(name) => format!("-{}", name.name),
            other => panic!("{other:?}"),
        };
        assert_eq!(events.iter().map(names).collect::<Vec<_>>(), ["b", "c", "-a"]);
    }
}
