//! Interfaces whose pod is known by its first process.

use policy_compiler::Event;

use super::{
    bound::Shown,
    cni::{node, pod_object},
    *,
};
use crate::bind::{Assignment, Untouched};

/// A veth with an address behind it, and whose processes are there.
fn veth(index: u32, behind: &str, pod: Option<&str>) -> Link {
    let inhabitants = pod.and_then(|uid| some(Who::Pod(uid.into()), Duration::ZERO));
    Link { inhabitants, ..link(index, behind) }
}

fn show(state: &mut State<Fake>, shown: &Shown, links: Vec<Link>) {
    *shown.0.lock().unwrap() = links;
    state.look(&BTreeSet::new());
    state.settle();
}

#[test]
fn a_pod_is_enforced_from_its_first_process() {
    let (fake, mut state, shown) = node(vec![veth(5, "10.0.0.5", None)]);
    state.tell(pod_object("a", "u", None));
    assert_eq!(state.applier.binder.interface_of("u"), None, "nobody is behind it yet");
    assert!(state.applier.binder.awaits_inhabitants(Instant::now()));
    let plugin = Link { inhabitants: some(Who::NoPod, Duration::ZERO), ..veth(5, "10.0.0.5", None) };
    show(&mut state, &shown, vec![plugin]);
    assert!(state.applier.binder.awaits_inhabitants(Instant::now()), "a plugin may be at work there");
    // what is shown by then is no longer the CNI plugins' word alone
    show(&mut state, &shown, vec![veth(5, "10.0.0.9", Some("u"))]);
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    assert_eq!(fake.kernel().pods[&5].v4, Address::from_v4([10, 0, 0, 5]));
    state.time_holds();
    assert_eq!(state.outputs.metrics.held.get_sample_count(), 1);
    state.tell(pod_object("a", "u", Some("10.0.0.6")));
    assert_eq!(fake.kernel().pods[&5].v4, Address::from_v4([10, 0, 0, 6]), "the API's word counts once it is there");
    show(&mut state, &shown, vec![]);
    assert!(state.calls.owners().is_empty());
}

#[test]
fn the_process_may_come_before_the_source_knows_the_pod() {
    let (_, mut state, shown) = node(vec![veth(5, "10.0.0.5", None)]);
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u"))]);
    state.tell(pod_object("another", "v", None));
    assert_eq!(state.applier.binder.interface_of("v"), None);
    state.tell(pod_object("a", "u", None));
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
}

#[test]
fn what_a_pod_could_have_changed_is_not_believed() {
    let (_, mut state, shown) = node(vec![veth(5, "10.0.0.5", Some("u"))]);
    state.tell(pod_object("a", "u", None));
    assert_eq!(state.applier.binder.interface_of("u"), None, "it was never seen without a process");
    let twin = |index, pod| Link { namespace: Some(77), ..veth(index, "10.0.0.7", pod) };
    show(&mut state, &shown, vec![twin(7, None), twin(8, None)]);
    show(&mut state, &shown, vec![twin(7, Some("u")), twin(8, Some("u"))]);
    assert_eq!(state.applier.binder.interface_of("u"), None, "either may be the pod's own");
}

/// As between two containers where no other process keeps the namespace.
#[test]
fn what_is_shown_while_no_process_is_there_any_more_is_not_believed() {
    let (fake, mut state, shown) = node(vec![veth(5, "10.0.0.5", None)]);
    for pod in [Some("u"), None, Some("u")] {
        show(&mut state, &shown, vec![veth(5, "10.0.0.9", pod)]);
    }
    state.tell(pod_object("a", "u", None));
    assert_eq!(fake.kernel().pods[&5].v4, Address::from_v4([10, 0, 0, 5]));
}

#[test]
fn a_pod_that_has_an_interface_gets_no_other() {
    let (_, mut state, shown) = node(vec![veth(5, "10.0.0.5", None)]);
    state.tell(pod_object("a", "u", None));
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.6", None)]);
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.6", Some("u"))]);
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    assert_eq!(state.applier.binder.assignment(6), Some(&Assignment::Held));
}

/// The API's address of a pod is no proof for an interface behind which another pod's processes are.
#[test]
fn what_a_pod_writes_makes_it_no_other_pod() {
    const UID: &str = "4a8c37a7-0f0e-4c5e-8f3a-0c9d6d1f2b11";
    let (_, mut state, shown) = node(vec![veth(5, "10.0.0.9", Some(UID))]);
    state.tell(pod_object("victim", "v", Some("10.0.0.9")));
    show(&mut state, &shown, vec![veth(5, "10.0.0.9", Some(UID))]);
    assert_eq!(state.applier.binder.assignment(5), Some(&Assignment::Held));
    // nor while the runtime carries something out there
    let beside = some(Who::Several([UID.into()].into()), Duration::ZERO);
    show(&mut state, &shown, vec![Link { inhabitants: beside, ..link(5, "10.0.0.9") }]);
    assert_eq!(state.applier.binder.assignment(5), Some(&Assignment::Held));
    state.tell(pod_object("a", UID, Some("10.0.0.5")));
    state.tell(pod_object("victim", "v", None));
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some(UID))]);
    assert_eq!(state.applier.binder.interface_of(UID), Some(5));
}

/// As when the agent comes to a node on which pods run already.
#[test]
fn a_process_of_the_pod_itself_vouches_for_what_is_shown() {
    let (_, mut state, shown) = node(vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.6", None)]);
    state.tell(pod_object("a", "u", Some("10.0.0.5")));
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    // of one that was not, what was there before the process; not what has come with it
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.7", Some("w"))]);
    state.tell(pod_object("victim", "v", Some("10.0.0.7")));
    let unclear = Link { inhabitants: some(Who::Unknown, Duration::ZERO), ..link(6, "10.0.0.7") };
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), unclear]);
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.7", None)]);
    assert_eq!(state.applier.binder.assignment(6), Some(&Assignment::Held));
    state.tell(pod_object("b", "w", Some("10.0.0.6")));
    assert_eq!(state.applier.binder.interface_of("w"), Some(6));
}

#[test]
fn processes_of_no_pod_are_left_alone_once_they_have_stayed() {
    let stranger =
        |index, started| Link { inhabitants: some(Who::NoPod, started), ..link(index, &format!("172.17.0.{index}")) };
    let (fake, mut state, shown) = node(vec![stranger(6, Duration::ZERO)]);
    let assignment = |state: &State<Fake>, index| state.applier.binder.assignment(index).cloned();
    let untouched = Some(Assignment::Untouched(Untouched::NoPod));
    show(&mut state, &shown, vec![stranger(6, Duration::ZERO)]);
    assert_eq!(assignment(&state, 6), Some(Assignment::Held), "no pod's control group was seen");
    let links = || vec![veth(5, "10.0.0.5", Some("u")), stranger(6, Duration::ZERO), stranger(7, Duration::MAX)];
    show(&mut state, &shown, links());
    assert_eq!(assignment(&state, 6), untouched);
    assert!(!fake.kernel().attached.contains(&6));
    assert_eq!(assignment(&state, 7), Some(Assignment::Held), "it may be a plugin at work");
    show(&mut state, &shown, links());
    assert_eq!(assignment(&state, 6), untouched);
    // nor does it tell anything how old a process is that has only just come
    let visited = || [links(), vec![stranger(8, Duration::ZERO)]].concat();
    show(&mut state, &shown, visited());
    assert_eq!(assignment(&state, 8), Some(Assignment::Held));
    state.holds.strangers.get_mut(&8).unwrap().seen = Duration::ZERO;
    show(&mut state, &shown, [links(), vec![link(8, "172.17.0.8")]].concat());
    show(&mut state, &shown, visited());
    assert_eq!(assignment(&state, 8), Some(Assignment::Held), "another one was there meanwhile");
    // nor does a look at which its control group can't be read
    state.holds.strangers.get_mut(&8).unwrap().seen = Duration::ZERO;
    let unknown = Link { inhabitants: some(Who::Unknown, Duration::ZERO), ..link(8, "172.17.0.8") };
    show(&mut state, &shown, [links(), vec![unknown]].concat());
    assert_eq!(assignment(&state, 8), Some(Assignment::Held), "it may be a pod's");
    show(&mut state, &shown, visited());
    assert_eq!(assignment(&state, 8), Some(Assignment::Held), "it has to stay from now on");
    state.tell(pod_object("vm", "m", None));
    state.holds.strangers.get_mut(&8).unwrap().seen = Duration::ZERO;
    show(&mut state, &shown, visited());
    assert_eq!(assignment(&state, 8), Some(Assignment::Held), "a pod waits, and this may be a virtual machine of its");
    state.tell(Event::DeletePod(ObjectName::new("ns", "vm")));
    show(&mut state, &shown, visited());
    assert_eq!(assignment(&state, 8), untouched, "it has stayed");
    // a pod of a runtime that names its groups otherwise
    state.tell(pod_object("b", "w", Some("172.17.0.6")));
    show(&mut state, &shown, vec![stranger(6, Duration::ZERO)]);
    assert_eq!(state.applier.binder.interface_of("w"), Some(6));
}
