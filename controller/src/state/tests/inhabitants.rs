//! Interfaces whose pod is known by its first process.

use super::{
    bound::Shown,
    cni::{node, pod_object},
    *,
};
use crate::bind::Assignment;

/// A veth with an address behind it, and whose processes are there.
fn veth(index: u32, behind: &str, pod: Option<&str>) -> Link {
    Link { is_empty: pod.is_none(), pod: pod.map(Arc::from), ..link(index, behind) }
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
    // what is shown by then is no longer the CNI plugins' word alone
    show(&mut state, &shown, vec![veth(5, "10.0.0.9", Some("u"))]);
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    assert_eq!(fake.kernel().pods[&5].v4, Address::from_v4([10, 0, 0, 5]));
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

#[test]
fn a_pod_that_has_an_interface_gets_no_other() {
    let (_, mut state, shown) = node(vec![veth(5, "10.0.0.5", None)]);
    state.tell(pod_object("a", "u", None));
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.6", None)]);
    show(&mut state, &shown, vec![veth(5, "10.0.0.5", Some("u")), veth(6, "10.0.0.6", Some("u"))]);
    assert_eq!(state.applier.binder.interface_of("u"), Some(5));
    assert_eq!(state.applier.binder.assignment(6), Some(&Assignment::Held));
}
