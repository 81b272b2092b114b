//! What the CNI plugin tells, and when it is answered.

use policy_compiler::{
    Event,
    model::{Labels, Pod},
};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{bound::Shown, *};
use crate::{
    cni::{Call, HangUp, Standing},
    state::Request,
};

pub(super) fn pod_object(name: &str, uid: &str, address: Option<&str>) -> Event {
    Event::PutPod(Pod {
        name: ObjectName::new("ns", name),
        uid: uid.into(),
        labels: Labels::new(),
        addresses: address.map(|address| address.parse().unwrap()).into_iter().collect(),
        ports: Vec::new(),
        node: Some("here".into()),
        host_network: false,
        ended: false,
    })
}

pub(super) fn call(container: &str, name: &str, uid: &str, ifindex: u32, address: &str) -> Call {
    Call {
        container_id: container.into(),
        container_interface: format!("eth{ifindex}"),
        namespace: "ns".into(),
        name: name.into(),
        uid: uid.into(),
        interface: format!("veth{ifindex}"),
        ifindex,
        addresses: vec![address.parse().unwrap()],
    }
}

impl State<Fake> {
    fn ask(&mut self, call: &Call, patience: Duration) -> oneshot::Receiver<Standing> {
        let (answer, answered) = oneshot::channel();
        self.answer(Request::Call(call.clone(), patience, answer));
        self.settle();
        self.answer_calls();
        answered
    }

    fn tell_and_answer(&mut self, event: Event) {
        self.tell(event);
        self.answer_calls();
    }
}

pub(super) fn node(links: Vec<Link>) -> (Fake, State<Fake>, Shown) {
    let (fake, shown) = (Fake::default(), Shown::default());
    *shown.0.lock().unwrap() = links;
    let applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], Instant::now());
    let state = state(applier, shown.clone());
    fake.done();
    (fake, state, shown)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_answer_comes_when_the_tables_are_in_force() {
    let (fake, mut state, _) = node(vec![link(5, "")]);
    state.tell(pod_object("a", "u", None));
    let mut answered = state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    assert_eq!(answered.try_recv(), Ok(Standing::Enforced));
    assert_eq!(fake.done(), ["attach 5", "pod 5 tables 0 0"], "attached again: somebody else may have done so before");
    assert_eq!(fake.kernel().pods[&5].v4, Address::from_v4([10, 0, 0, 5]), "the CNI's, before the API knows it");
    // asking again changes nothing
    let mut answered = state.ask(&call("c", "a", "u", 5, "10.0.0.5"), Duration::ZERO);
    assert_eq!((answered.try_recv(), fake.done()), (Ok(Standing::Enforced), vec!["attach 5".to_owned()]));
}

#[test]
fn the_call_may_come_before_the_source_knows_the_pod() {
    let (_, mut state, _) = node(vec![link(5, "")]);
    let mut answered = state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    assert_eq!(answered.try_recv(), Err(TryRecvError::Empty));
    state.tell_and_answer(pod_object("a", "another", None));
    assert_eq!(answered.try_recv(), Err(TryRecvError::Empty), "of that name, but another pod");
    state.tell_and_answer(pod_object("a", "u", None));
    assert_eq!(answered.try_recv(), Ok(Standing::Enforced));
}

#[test]
fn whoever_has_waited_long_enough_is_told_what_is_missing() {
    let (_, mut state, _) = node(vec![link(5, "10.0.0.5")]);
    let mut answered = state.ask(&call("c", "a", "u", 5, "10.0.0.5"), Duration::ZERO);
    let reason = "no pod ns/a with the UID u is known on this node".to_owned();
    assert_eq!(answered.try_recv(), Ok(Standing::Held { reason }));
    let mut answered = state.ask(&call("d", "a", "u", 9, "10.0.0.5"), LONG);
    assert_eq!(answered.try_recv(), Ok(Standing::Gone));
    assert!(state.calls.next_deadline().is_none());
    // nobody waits for whoever no longer listens
    drop(state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG));
    state.answer_calls();
    assert!(state.calls.next_deadline().is_none());
}

#[test]
fn a_static_pod_is_known_by_its_name() {
    let hash = "0f3be7e0f2a1c9d8b7a6f5e4d3c2b1a0";
    let (_, mut state, _) = node(vec![link(5, ""), link(6, "")]);
    let mut first = state.ask(&call("c", "first", hash, 5, "10.0.0.5"), LONG);
    state.tell_and_answer(pod_object("first", "mirror-1", None));
    assert_eq!(first.try_recv(), Ok(Standing::Enforced));
    state.tell(pod_object("second", "mirror-2", None));
    let hash = "1f3be7e0f2a1c9d8b7a6f5e4d3c2b1a0";
    let mut second = state.ask(&call("d", "second", hash, 6, "10.0.0.6"), LONG);
    assert_eq!(second.try_recv(), Ok(Standing::Enforced));
}

#[test]
fn a_veth_that_was_taken_for_another_pods_changes_hands() {
    let (fake, mut state, _) = node(vec![link(5, "10.0.0.5")]);
    state.tell(pod_object("old", "o", Some("10.0.0.5")));
    assert_eq!(state.applier.binder.interface_of("o"), Some(5), "an ended pod of which the API doesn't know it yet");
    state.tell(pod_object("new", "n", None));
    fake.done();
    let mut answered = state.ask(&call("c", "new", "n", 5, "10.0.0.5"), LONG);
    assert_eq!(answered.try_recv(), Ok(Standing::Enforced));
    assert_eq!((state.applier.binder.interface_of("o"), state.applier.binder.interface_of("n")), (None, Some(5)));
    assert!(fake.done().contains(&"epoch 5".to_owned()), "its flows are not the new one's");
}

#[test]
fn the_apis_addresses_count_once_they_are_new() {
    let (fake, mut state, shown) = node(vec![link(5, "")]);
    let v4 = |fake: &Fake, index: u32| IpAddr::from(fake.kernel().pods[&index].v4);
    let is = |text: &str| text.parse::<IpAddr>().unwrap();
    state.tell(pod_object("a", "u", None));
    state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    state.tell(pod_object("a", "u", Some("10.0.0.6")));
    assert_eq!(v4(&fake, 5), is("10.0.0.6"));
    // a new sandbox of the same pod: the API still has the old one's
    *shown.0.lock().unwrap() = vec![link(7, "")];
    state.ask(&call("d", "a", "u", 7, "10.0.0.7"), LONG);
    state.tell(pod_object("a", "u", Some("10.0.0.6")));
    assert_eq!(v4(&fake, 7), is("10.0.0.7"));
    state.tell(pod_object("a", "u", Some("10.0.0.8")));
    assert_eq!(v4(&fake, 7), is("10.0.0.8"));
}

#[test]
fn what_was_told_ends_with_the_sandbox_or_its_interface() {
    let (fake, mut state, shown) = node(vec![link(5, ""), link(6, "")]);
    for (name, index, address) in [("a", 5, "10.0.0.5"), ("b", 6, "10.0.0.6")] {
        state.tell(pod_object(name, name, None));
        state.ask(&call(name, name, name, index, address), LONG);
    }
    let (answer, mut answered) = oneshot::channel();
    let gone = |interface: &str| HangUp { container_id: "a".into(), container_interface: Some(interface.into()) };
    state.hang_up(&gone("eth1"));
    state.settle();
    assert_eq!(state.applier.condition("a"), Condition::Enforced, "the interface of another network has gone");
    state.answer(Request::HangUp(gone("eth5"), answer));
    assert_eq!(answered.try_recv(), Ok(()));
    state.settle();
    assert_eq!(fake.kernel().pods[&5].flags & PodFlags::HELD, PodFlags::HELD, "it has no address any more");
    *shown.0.lock().unwrap() = vec![link(5, "")];
    state.look(&BTreeSet::new());
    state.settle();
    assert!(state.applier.pods().all(|pod| pod.addresses.is_empty()), "nor has the other one");
    assert!(state.calls.owners().is_empty());
}

#[test]
fn an_interface_that_refuses_the_program_is_no_reason_to_wait() {
    let (fake, mut state, _) = node(vec![link(5, "")]);
    state.tell(pod_object("a", "u", None));
    fake.refuse(&["attach 5"]);
    let mut answered = state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    assert!(matches!(answered.try_recv(), Ok(Standing::Unenforceable { .. })));
}

#[test]
fn a_second_interface_of_a_sandbox_takes_nothing_over() {
    let (_, mut state, _) = node(vec![link(5, ""), link(6, "")]);
    state.tell(pod_object("a", "u", None));
    state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    let mut answered = state.ask(&call("c", "a", "u", 6, "192.168.7.2"), LONG);
    let reason = "the network policies of ns/a are enforced at veth5".to_owned();
    assert_eq!(answered.try_recv(), Ok(Standing::Untouched { reason }));
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
}

/// As a CNI daemon that has entered the namespace for a moment.
#[test]
fn the_plugins_word_goes_before_what_processes_tell() {
    let stranger = Link { inhabitants: some(Who::NoPod, Duration::ZERO), ..link(5, "") };
    let another = Link { inhabitants: some(Who::Pod("x".into()), Duration::ZERO), ..link(6, "") };
    let (fake, mut state, _) = node(vec![stranger, another]);
    state.look(&BTreeSet::new());
    assert!(!fake.kernel().attached.contains(&5));
    state.tell(pod_object("a", "u", None));
    let mut answered = state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    assert_eq!(answered.try_recv(), Ok(Standing::Enforced));
    assert!(fake.kernel().attached.contains(&5));
}

#[test]
fn secondary_networks_take_nothing_over_after_a_restart() {
    let (fake, mut state, _) = node(vec![link(5, ""), link(6, "")]);
    let (own, other) = (call("c", "a", "u", 5, "10.0.0.5"), call("c", "a", "u", 6, "192.168.7.2"));
    state.calls = crate::state::Calls::new("here", vec![other, own]);
    state.follow_calls(state.calls.owners());
    state.tell(pod_object("a", "u", None));
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    assert_eq!(fake.kernel().pods[&5].v4, Address::from_v4([10, 0, 0, 5]));
}

#[test]
fn a_network_that_is_added_later_takes_nothing_over() {
    let beside = |index| Link { namespace: Some(5), ..link(index, "") };
    let (fake, mut state, shown) = node(vec![beside(5), beside(6)]);
    state.tell(pod_object("a", "u", Some("10.0.0.5")));
    state.ask(&call("c", "a", "u", 5, "10.0.0.5"), LONG);
    state.ask(&call("c", "a", "u", 6, "192.168.7.2"), LONG);
    // the sandbox goes, as far as is told, and a third network comes
    state.hang_up(&HangUp { container_id: "c".into(), container_interface: None });
    *shown.0.lock().unwrap() = vec![beside(5), beside(7)];
    let mut answered = state.ask(&call("c", "a", "u", 7, "192.168.8.2"), LONG);
    let reason = "the network policies of ns/a are enforced at veth5".to_owned();
    assert_eq!(answered.try_recv(), Ok(Standing::Untouched { reason }));
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    assert!(fake.kernel().attached.contains(&5));
}
