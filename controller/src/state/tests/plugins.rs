//! Kernels on which the programs exclude what a CNI plugin needs: nothing is attached before the plugins have returned.

use super::{
    bound::Shown,
    cni::{call, node, pod_object},
    *,
};
use crate::{bind::LONGEST_SET_UP, state::Request};

fn veth(pod: Option<&str>) -> Link {
    let inhabitants = pod.and_then(|uid| some(Who::Pod(uid.into()), Duration::ZERO));
    Link { inhabitants, ..empty(5, Some(5), vec!["10.0.0.5".parse().unwrap()]) }
}

/// A node whose plugins need an `ingress` qdisc, and on which an interface has just come.
fn state_with(has_clsact: bool) -> (Fake, State<Fake>, Shown, tempfile::TempDir) {
    let (fake, mut state, shown) = node(Vec::new());
    let folder = bandwidth();
    fake.kernel().has_clsact = has_clsact;
    state.configurations = Configurations::new(folder.path().into());
    show(&mut state, &shown, veth(None));
    (fake, state, shown, folder)
}

fn show(state: &mut State<Fake>, shown: &Shown, link: Link) {
    *shown.0.lock().unwrap() = vec![link];
    state.look(&BTreeSet::new());
    state.settle();
}

#[test]
fn an_interface_is_attached_when_the_pods_first_process_is_there() {
    let (fake, mut state, shown, _folder) = state_with(true);
    assert_eq!(fake.done(), ["pod 5 held, setup"]);
    let reason = state.view().interfaces[0].reason.clone().unwrap();
    assert!(reason.contains("plugins may not have returned"), "{reason}");
    // whatever the plugins do to it
    state.look(&BTreeSet::from([5]));
    assert_eq!(fake.done(), [""; 0]);
    show(&mut state, &shown, veth(Some("u")));
    assert_eq!(fake.done(), ["pod 5 held", "attach 5"]);
}

#[test]
fn or_when_the_pods_address_is_known_or_the_plugin_behind_them_calls() {
    let (fake, mut state, _, _folder) = state_with(true);
    state.tell(pod_object("a", "u", Some("10.0.0.5")));
    assert!(fake.kernel().attached.contains(&5));
    let (fake, mut state, _, _folder) = state_with(true);
    let (answer, _answered) = tokio::sync::oneshot::channel();
    state.answer(Request::Call(call("c", "a", "u", 5, "10.0.0.5"), Duration::ZERO, answer));
    state.settle();
    assert!(fake.kernel().attached.contains(&5), "held, though the source knows of no such pod");
}

#[test]
fn or_when_nobody_can_be_at_it_any_more() {
    let (fake, mut state, ..) = state_with(true);
    state.applier.set_links(vec![veth(None)], &BTreeSet::new(), Instant::now() + LONGEST_SET_UP);
    assert!(fake.kernel().attached.contains(&5));
}

#[test]
fn where_both_have_their_place_it_is_attached_at_once() {
    let (fake, ..) = state_with(false);
    assert_eq!(fake.done(), ["pod 5 held, setup", "attach 5"]);
}
