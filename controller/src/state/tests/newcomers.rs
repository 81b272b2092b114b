//! Interfaces that come while the agent starts, and may have an index that an earlier agent knew as a pod's.

use super::*;
use crate::state::start::Newcomers;

fn nothing() -> Configurations {
    Configurations::new("/nonexistent".into())
}

#[test]
fn a_newcomer_inherits_nothing_from_what_had_its_index() {
    let (fake, now) = (Fake::default(), Instant::now());
    let exclusions = Exclusions { names: vec!["veth9".into()], ..Exclusions::default() };
    let mut newcomers = Newcomers::new(BTreeSet::from([5]), exclusions.clone(), nothing());
    // both went while no agent ran
    let left = vec![pinned(7, [10, 0, 0, 7], 1), pinned(8, [10, 0, 0, 8], 1)];
    let mut applier = Applier::new(fake.clone(), Binder::new(exclusions), left, &[], now);
    let links = vec![link(5, "10.0.0.5"), link(7, "10.0.0.7"), link(9, "")];
    let held = newcomers.hold(&links, &mut applier.datapath);
    assert_eq!((&*held, fake.done()), (&[7][..], vec!["no pod 7".into(), "epoch 7".into(), "attach 7".into()]));
    assert_eq!(newcomers.hold(&links, &mut applier.datapath), [0; 0], "once is enough");
    applier.forget_former(&held);
    // the very entry that was there before has to be written again
    applier.set_links(links, &BTreeSet::new(), now);
    fake.done();
    applier.carry_out(vec![Step::Pods(vec![pod("a", "10.0.0.7", 1, 0)])], now);
    assert_eq!(fake.done(), ["pod 7 tables 1 0"]);
    assert_eq!(fake.kernel().pods[&7].midstream_until, 0, "the other one's grace is not this one's");
}

#[test]
fn a_newcomer_is_attached_whatever_fails_before() {
    let mut fake = Fake::default();
    fake.refuse(&["no pod", "epoch"]);
    let mut newcomers = Newcomers::new(BTreeSet::new(), Exclusions::default(), nothing());
    newcomers.hold(&[link(7, "")], &mut fake);
    assert_eq!(fake.done(), ["attach 7"]);
}

/// Below Linux 6.6.
#[test]
fn a_newcomer_whose_plugins_need_an_ingress_qdisc_is_held_from_its_first_process_on() {
    let (mut fake, folder) = (Fake::default(), bandwidth());
    let mut newcomers =
        Newcomers::new(BTreeSet::new(), Exclusions::default(), Configurations::new(folder.path().into()));
    fake.kernel().has_clsact = true;
    assert_eq!(newcomers.hold(&[empty(7, Some(7), Vec::new())], &mut fake), [0; 0]);
    assert_eq!(fake.done(), [""; 0]);
    let first = Link { inhabitants: some(Who::Pod("u".into()), Duration::ZERO), ..link(7, "10.0.0.7") };
    assert_eq!(newcomers.hold(&[first], &mut fake), [7]);
    assert_eq!(fake.done(), ["no pod 7", "epoch 7", "attach 7"]);
}
