//! The rules of binding as sequences of inputs, each with what must come of it.

use super::*;

/// One thing that happens.
enum Do {
    /// These veths are there: index, namespace, addresses behind it.
    Links(&'static [(u32, Option<i32>, &'static [&'static str])]),
    /// A pod comes or changes: name (and UID), addresses.
    Pod(&'static str, &'static [&'static str]),
    /// A pod goes.
    NoPod(&'static str),
    /// Several at once: first those that go, then those that come.
    Replace(&'static str, &'static str, &'static [&'static str]),
    /// An earlier agent had bound it.
    Adopt(u32, &'static [&'static str]),
    /// The CNI plugin names the pod of an interface.
    Call(u32, &'static str),
    /// It says that the interface goes.
    HangUp(u32),
    /// Seconds pass.
    Wait(u64),
}
use Do::{Adopt, Call, HangUp, Links, NoPod, Pod, Replace, Wait};

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn link(index: u32, namespace: Option<i32>, behind: &[&str]) -> Link {
    Link { index, name: format!("veth{index}"), namespace, addresses: addresses(behind), ..Link::default() }
}

/// Does it all, and compares what each interface is taken for and what is reported at the end, in words.
#[track_caller]
fn check(inputs: &[Do], interfaces: &[&str], reports: &[&str]) {
    let mut binder = Binder::new(Exclusions { names: vec!["veth9*".into()], node_addresses: addresses(&["10.0.0.1"]) });
    let mut now = Instant::now();
    let mut assigned = BTreeMap::new();
    for input in inputs {
        let outcome = match input {
            Links(links) => {
                let links = links.iter().map(|(index, namespace, behind)| link(*index, *namespace, behind)).collect();
                binder.set_links(links, now)
            }
            Pod(name, ips) => put(&mut binder, &[(name, Some(ips))], now),
            NoPod(name) => put(&mut binder, &[(name, None)], now),
            Replace(old, new, ips) => put(&mut binder, &[(old, None), (new, Some(ips))], now),
            Adopt(index, ips) => {
                binder.adopt(*index, addresses(ips), now);
                Outcome::default()
            }
            Call(index, name) => binder.call(*index, &Arc::from(*name), &ObjectName::new("ns", *name), now),
            HangUp(index) => {
                binder.hang_up(*index);
                binder.tick(now)
            }
            Wait(seconds) => {
                now += Duration::from_secs(*seconds);
                binder.tick(now)
            }
        };
        for index in &outcome.gone {
            assigned.remove(index);
        }
        assigned.extend(outcome.assigned);
    }
    let words: Vec<String> = binder.interfaces().map(|(link, a)| format!("{} {}", link.index, word(a))).collect();
    assert_eq!(words, interfaces, "interfaces");
    for (index, assignment) in &assigned {
        assert_eq!(binder.assignment(*index), Some(assignment), "what was told of {index} differs from what is held");
    }
    let words: Vec<String> = binder.reports().iter().map(report).collect();
    assert_eq!(words, reports, "reports");
}

fn put(binder: &mut Binder, pods: &[(&str, Option<&&[&str]>)], now: Instant) -> Outcome {
    let pods: Vec<_> = pods
        .iter()
        .map(|(name, ips)| (Arc::<str>::from(*name), ObjectName::new("ns", *name), ips.map(|ips| addresses(ips))))
        .collect();
    let changes = pods.iter().map(|(uid, name, ips)| (Arc::clone(uid), ips.as_deref().map(|ips| (name, ips))));
    binder.set_pods(changes, now)
}

fn word(assignment: &Assignment) -> String {
    match assignment {
        Assignment::Untouched(why) => format!("untouched: {why}"),
        Assignment::Held => "held".into(),
        Assignment::Pod(uid) => format!("pod {uid}"),
        Assignment::Secondary(uid) => format!("secondary of {uid}"),
    }
}

fn report(report: &Report) -> String {
    match report {
        Report::Unknown { interface, .. } => format!("unknown {interface}"),
        Report::SecondClaim { interface, pod, bound } => format!("{interface} claims {pod} of {bound}"),
        Report::Late { interface, pod } => format!("{interface} shows {pod} late"),
        Report::Ambiguous { interface, pods } => format!("{interface} is any of {}", pods.len()),
        Report::Awaited { interface, pod } => format!("{interface} awaits {pod}"),
        Report::Secondary { interface, pod, bound } => format!("{interface} is beside {bound} of {pod}"),
        Report::NoInterface { pod } => format!("no interface for {pod}"),
    }
}

#[test]
fn a_veth_is_bound_whichever_comes_first() {
    check(&[Links(&[(5, Some(0), &["10.1.0.2"])]), Pod("a", &["10.1.0.2"])], &["5 pod a"], &[]);
    check(&[Pod("a", &["10.1.0.2"]), Links(&[(5, Some(0), &["10.1.0.2"])])], &["5 pod a"], &[]);
    check(&[Pod("a", &["10.1.0.2", "fd00::2"]), Links(&[(5, Some(0), &["fe80::1", "fd00::2"])])], &["5 pod a"], &[]);
}

#[test]
fn the_address_may_come_later() {
    let bare = Links(&[(5, Some(0), &[])]);
    check(&[Pod("a", &["10.1.0.2"]), bare], &["5 held"], &[]);
    let bare = Links(&[(5, Some(0), &[])]);
    let full = Links(&[(5, Some(0), &["10.1.0.2"])]);
    check(&[Pod("a", &["10.1.0.2"]), bare, full], &["5 pod a"], &[]);
}

/// Where no processes are seen, that of a pod may have added it.
#[test]
fn an_address_that_comes_later_makes_a_veth_no_pods() {
    let own = || Links(&[(5, Some(0), &["10.1.0.2"])]);
    let more = || Links(&[(5, Some(0), &["10.1.0.2", "10.1.0.3"])]);
    let other = || Links(&[(5, Some(0), &["10.1.0.3"])]);
    let victim = || Pod("victim", &["10.1.0.3"]);
    check(&[own(), more(), victim()], &["5 held"], &[]);
    check(&[victim(), own(), other()], &["5 held"], &[]);
    check(
        &[victim(), own(), other(), Wait(30)],
        &["5 held"],
        &["veth5 shows ns/victim late", "no interface for ns/victim"],
    );
    check(&[victim(), own(), more(), Pod("a", &["10.1.0.2"])], &["5 pod a"], &[]);
    // nor when the pod has gone that it was
    check(&[Pod("a", &["10.1.0.2"]), own(), NoPod("a"), other(), victim()], &["5 held"], &[]);
}

#[test]
fn a_bound_veth_stays_bound_whatever_it_shows() {
    check(
        &[
            Pod("a", &["10.1.0.2"]),
            Links(&[(5, Some(0), &["10.1.0.2"])]),
            Pod("victim", &["10.1.0.3"]),
            Links(&[(5, Some(0), &["10.1.0.3"])]),
        ],
        &["5 pod a"],
        &[],
    );
}

#[test]
fn a_second_veth_with_a_bound_address_takes_nothing_over() {
    let pod = || Pod("a", &["10.1.0.2"]);
    let one = || Links(&[(5, Some(0), &["10.1.0.2"])]);
    let both = || Links(&[(4, Some(1), &["10.1.0.2"]), (5, Some(0), &["10.1.0.2"])]);
    check(&[pod(), one(), both()], &["4 held", "5 pod a"], &["veth4 claims ns/a of veth5"]);
    // when the first one has gone, another pod may have its address: there is time to say so before this one gets it
    let gone = || Links(&[(4, Some(1), &["10.1.0.2"])]);
    check(&[pod(), one(), both(), gone()], &["4 held"], &[]);
    check(&[pod(), one(), both(), gone(), Wait(0)], &["4 pod a"], &[]);
    check(&[pod(), one(), both(), gone(), Replace("a", "b", &["10.1.0.2"])], &["4 pod b"], &[]);
}

#[test]
fn another_interface_of_the_same_namespace_is_left_alone() {
    let links = || Links(&[(5, Some(0), &["10.1.0.2"]), (6, Some(0), &["192.168.7.2"])]);
    check(&[Pod("a", &["10.1.0.2"]), links()], &["5 pod a", "6 secondary of a"], &["veth6 is beside veth5 of ns/a"]);
    check(&[Pod("a", &["10.1.0.2"]), links(), NoPod("a")], &["5 held", "6 held"], &[]);
}

#[test]
fn addresses_of_two_pods_are_nobodys() {
    check(
        &[Pod("a", &["10.1.0.2"]), Pod("b", &["10.1.0.3"]), Links(&[(5, Some(0), &["10.1.0.2", "10.1.0.3"])])],
        &["5 held"],
        &["veth5 is any of 2"],
    );
}

#[test]
fn an_address_that_another_pod_takes() {
    // the old pod has gone, the new one has its address
    let links = || Links(&[(5, Some(0), &["10.1.0.2"])]);
    check(&[Pod("a", &["10.1.0.2"]), links(), NoPod("a")], &["5 held"], &[]);
    check(&[Pod("a", &["10.1.0.2"]), links(), Replace("a", "b", &["10.1.0.2"])], &["5 pod b"], &[]);
}

#[test]
fn a_pod_that_comes_back_with_another_address() {
    check(
        &[
            Pod("a", &["10.1.0.2"]),
            Links(&[(5, Some(0), &["10.1.0.2"]), (6, Some(1), &["10.1.0.3"])]),
            Pod("a", &["10.1.0.3"]),
        ],
        &["5 held", "6 pod a"],
        &[],
    );
    // one address more is the same pod still
    check(
        &[
            Pod("a", &["10.1.0.2"]),
            Links(&[(5, Some(0), &["10.1.0.2"])]),
            Pod("a", &["10.1.0.2", "fd00::2"]),
            Pod("a", &["fd00::2"]),
        ],
        &["5 pod a"],
        &[],
    );
}

#[test]
fn what_is_left_alone() {
    let mut excluded = link(9, Some(0), &["10.1.0.2"]);
    let exclusions = Exclusions { names: vec!["veth9*".into(), "up".into()], node_addresses: addresses(&["10.0.0.1"]) };
    assert_eq!(exclusions.untouched(&excluded), Some(Untouched::Excluded));
    excluded.name = "veth8".into();
    assert_eq!(exclusions.untouched(&excluded), None);
    assert_eq!(exclusions.untouched(&Link { name: "upper".into(), ..excluded.clone() }), None);
    assert_eq!(exclusions.untouched(&Link { uplink: true, ..excluded.clone() }), Some(Untouched::Uplink));
    let own = |own: &[&str]| Link { own: addresses(own), ..excluded.clone() };
    assert_eq!(exclusions.untouched(&own(&["10.0.0.1"])), Some(Untouched::NodeAddress([10, 0, 0, 1].into())));
    // the gateway's address on every veth, as ptp does it
    assert_eq!(exclusions.untouched(&own(&["10.1.0.1"])), None);
    assert_eq!(exclusions.untouched(&Link { namespace: None, ..excluded }), Some(Untouched::BothEndsHere));
}

#[test]
fn a_veth_whose_other_end_leaves_is_held() {
    check(&[Links(&[(5, None, &[])])], &["5 untouched: both its ends are in the node's namespace"], &[]);
    check(&[Links(&[(5, None, &[])]), Links(&[(5, Some(0), &[])])], &["5 held"], &[]);
}

#[test]
fn what_is_reported_after_a_while() {
    check(&[Links(&[(5, Some(0), &["10.1.0.2"])]), Wait(29)], &["5 held"], &[]);
    check(&[Links(&[(5, Some(0), &["10.1.0.2"])]), Wait(30)], &["5 held"], &["unknown veth5"]);
    check(&[Links(&[(5, Some(0), &["10.1.0.2"])]), Wait(30), Pod("a", &["10.1.0.2"])], &["5 pod a"], &[]);
    check(&[Pod("a", &["10.1.0.2"]), Wait(29)], &[], &[]);
    check(&[Pod("a", &["10.1.0.2"]), Wait(30)], &[], &["no interface for ns/a"]);
    check(&[Links(&[(91, Some(0), &[])]), Wait(90)], &["91 untouched: --exclude-interface names it"], &[]);
}

#[test]
fn what_an_earlier_agent_had_bound() {
    // meanwhile the pod has put the victim's address in place of its own
    let stolen = || Links(&[(5, Some(0), &["10.1.0.3"]), (6, Some(1), &["10.1.0.3"])]);
    let pods = || [Pod("a", &["10.1.0.2"]), Pod("victim", &["10.1.0.3"])];
    let [a, victim] = pods();
    check(&[Adopt(5, &["10.1.0.2"]), Adopt(6, &["10.1.0.3"]), a, victim, stolen()], &["5 pod a", "6 pod victim"], &[]);
    // an interface that was bound to a pod that has gone meanwhile is not that of another one for all that it shows
    let inputs = || [Adopt(5, &["10.1.0.9"]), Links(&[(5, Some(0), &["10.1.0.2"])]), Pod("a", &["10.1.0.2"])];
    check(&inputs(), &["5 held"], &[]);
    let [adopt, links, pod] = inputs();
    check(&[adopt, links, pod, Call(5, "a")], &["5 pod a"], &[]);
    // one that has gone is forgotten
    check(&[Adopt(5, &["10.1.0.2"]), Pod("a", &["10.1.0.2"]), Links(&[])], &[], &[]);
}

#[test]
fn a_report_is_told_once_and_taken_back() {
    let mut binder = Binder::default();
    let start = Instant::now();
    binder.set_links(vec![link(5, Some(0), &["10.1.0.2"])], start);
    let late = start + PATIENCE;
    assert_eq!(binder.tick(late).reports.len(), 1);
    assert_eq!(binder.tick(late).reports.len(), 0);
    let outcome = binder.set_links(Vec::new(), late);
    assert_eq!(outcome.settled.len(), 1);
    assert_eq!(outcome.gone, [5]);
}

#[test]
fn the_cni_plugins_word_counts_whatever_a_veth_shows() {
    let bare = || Links(&[(5, Some(0), &[])]);
    check(&[bare(), Call(5, "a"), Pod("a", &["10.1.0.2"])], &["5 pod a"], &[]);
    check(&[bare(), Pod("a", &["10.1.0.2"]), Call(5, "a")], &["5 pod a"], &[]);
    // the first process of the pod has put another pod's address in place of its own
    let stolen = || Links(&[(5, Some(0), &["10.1.0.3"])]);
    let pods = || [Pod("a", &["10.1.0.2"]), Pod("victim", &["10.1.0.3"])];
    let [a, victim] = pods();
    check(&[stolen(), Call(5, "a"), victim, a], &["5 pod a"], &[]);
    let [a, victim] = pods();
    check(&[a, victim, stolen(), Call(5, "a")], &["5 pod a"], &[]);
    // until its own pod is known, it is nobody's
    check(&[stolen(), Call(5, "a"), Pod("victim", &["10.1.0.3"])], &["5 held"], &[]);
    check(&[bare(), Call(5, "a"), Wait(29)], &["5 held"], &[]);
    check(&[bare(), Call(5, "a"), Wait(30)], &["5 held"], &["veth5 awaits ns/a"]);
}

#[test]
fn a_pod_that_the_cni_plugin_named_is_behind_no_other_veth() {
    let both = || Links(&[(4, Some(1), &["10.1.0.2"]), (5, Some(0), &[])]);
    check(&[both(), Call(5, "a"), Pod("a", &["10.1.0.2"])], &["4 held", "5 pod a"], &["veth4 claims ns/a of veth5"]);
    check(&[both(), Pod("a", &["10.1.0.2"]), Call(5, "a")], &["4 held", "5 pod a"], &["veth4 claims ns/a of veth5"]);
    // a new sandbox of the same pod
    let new = || Links(&[(5, Some(0), &["10.1.0.2"]), (6, Some(1), &["10.1.0.9"])]);
    let first = || [new(), Call(5, "a"), Pod("a", &["10.1.0.2"])];
    let [links, call, pod] = first();
    check(&[links, call, pod, Call(6, "a")], &["5 held", "6 pod a"], &["veth5 claims ns/a of veth6"]);
    let [links, call, pod] = first();
    let gone = Links(&[(6, Some(1), &["10.1.0.9"])]);
    check(&[links, call, pod, HangUp(5), Call(6, "a"), gone], &["6 pod a"], &[]);
}

#[test]
fn a_pod_that_the_cni_plugin_named_keeps_its_veth_with_another_address() {
    let links = || Links(&[(5, Some(0), &[])]);
    check(&[links(), Call(5, "a"), Pod("a", &["10.1.0.2"]), Pod("a", &["10.1.0.3"])], &["5 pod a"], &[]);
    // what it said ends with the interface, or before
    check(&[links(), Call(5, "a"), Links(&[]), links(), Pod("a", &["10.1.0.2"])], &["5 held"], &[]);
    check(&[links(), Call(5, "a"), HangUp(5), Pod("a", &["10.1.0.2"])], &["5 held"], &[]);
    check(&[links(), Call(5, "a"), Pod("a", &["10.1.0.2"]), HangUp(5)], &["5 pod a"], &[]);
    check(&[links(), Call(5, "a"), Pod("a", &["10.1.0.2"]), NoPod("a")], &["5 held"], &[]);
}

#[test]
fn another_interface_of_a_pod_becomes_its_own_by_the_cni_plugins_word() {
    let links = || Links(&[(5, Some(0), &["10.1.0.2"]), (6, Some(0), &["10.1.0.3"])]);
    let inputs = [Pod("a", &["10.1.0.2"]), links(), Pod("b", &["10.1.0.3"]), Call(6, "b")];
    check(&inputs, &["5 pod a", "6 pod b"], &[]);
    let excluded = Links(&[(91, Some(0), &[])]);
    check(&[excluded, Call(91, "a"), Pod("a", &["10.1.0.2"])], &["91 untouched: --exclude-interface names it"], &[]);
}
