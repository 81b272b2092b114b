//! A large change is written in slices, and what needn't wait for it doesn't.

use std::cell::Cell;

use tokio::sync::{mpsc, watch};

use super::*;
use crate::{
    links::{Hint, Links},
    state::{Inputs, Looks},
};

const LARGE: u64 = 100_000;

fn large() -> Step {
    Step::Write((1..=LARGE).map(row).collect())
}

/// Carries out this many pieces.
fn pieces(applier: &mut Applier<Fake>, count: usize, now: Instant) {
    let left = Cell::new(count);
    applier.advance(now, || {
        left.set(left.get() - 1);
        left.get() > 0
    });
}

fn rows(fake: &Fake) -> u64 {
    fake.kernel().rows.len() as u64
}

#[test]
fn an_interface_is_held_and_bound_in_the_middle_of_a_large_change() {
    let (fake, mut applier, now) = two_pods();
    // the pod's tables are in force, its interface isn't there yet
    applier.carry_out(vec![Step::Pods(vec![pod("c", "10.0.0.7", 3, 0)])], now);
    applier.enqueue(vec![large(), Step::Pods(vec![pod("b", "10.0.0.6", 4, 0)]), raise(&["b"])], None);
    pieces(&mut applier, 10, now);
    let written = rows(&fake);
    assert_eq!(written, 640);
    fake.done();

    let links = |more: &[Link]| [link(5, ""), link(6, "")].iter().chain(more).cloned().collect::<Vec<_>>();
    applier.set_links(links(&[link(7, ""), link(8, "")]), &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["pod 7 held", "attach 7", "pod 8 held", "attach 8"]);
    applier.set_links(links(&[link(7, "10.0.0.7"), link(8, "10.0.0.8")]), &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["pod 7 tables 3 0"], "by the tables in force; whose 8 is isn't known");
    applier.set_links(links(&[link(7, "10.0.0.7")]), &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["detach 8", "no pod 8"]);
    assert_eq!(rows(&fake), written, "none of which took a step of the change");
    assert!(applier.is_busy());

    applier.finish(now);
    let done = fake.done();
    assert_eq!(rows(&fake), LARGE);
    assert_eq!(done[done.len() - 2..], ["pod 6 tables 4 0", "epoch 6"], "in the change's own order");
}

#[test]
fn a_pod_of_a_change_under_way_is_held_until_its_tables_are_written() {
    let (fake, mut applier, now) = two_pods();
    applier.enqueue(vec![large(), Step::Pods(vec![pod("c", "10.0.0.7", LARGE, 0)])], None);
    pieces(&mut applier, 10, now);
    fake.done();
    let links = vec![link(5, ""), link(6, ""), link(7, "10.0.0.7")];
    applier.set_links(links, &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["pod 7 held", "attach 7"]);
    applier.finish(now);
    assert_eq!(fake.done().last().unwrap(), &format!("pod 7 tables {LARGE} 0"));
}

#[test]
fn a_second_change_comes_after_the_first() {
    let (fake, mut applier, now) = two_pods();
    let seen = Instant::now();
    applier.enqueue(vec![Step::Write((10..200).map(row).collect())], Some(seen));
    pieces(&mut applier, 1, now);
    applier.enqueue(vec![Step::Write(vec![no_row(10)])], None);
    let advance = applier.finish(now);
    assert_eq!(advance.finished, [seen]);
    assert_eq!(fake.done().last().unwrap(), "delete row 10");
}

#[test]
fn removals_wait_until_nothing_else_is_to_be_written() {
    let (fake, mut applier, now) = two_pods();
    applier.carry_out(vec![Step::Free(vec![no_row(3)])], now);
    let due = applier.next_tick().unwrap();
    applier.enqueue(vec![Step::Write((10..200).map(row).collect()), Step::Write(vec![row(3)])], None);
    pieces(&mut applier, 1, now);
    assert_eq!(applier.next_tick(), None);
    applier.tick(due);
    applier.finish(due);
    applier.tick(due);
    assert!(!applier.is_busy(), "what was written again is not removed");
    assert!(!fake.done().contains(&"delete row 3".to_owned()));
}

#[test]
fn while_a_map_grows_only_what_needs_it_waits() {
    let (fake, mut applier, now) = two_pods();
    fake.kernel().is_full = true;
    applier.enqueue(vec![Step::Pods(vec![pod("b", "10.0.0.6", 1, 0)]), large()], None);
    assert_eq!(applier.maintain(Duration::ZERO), Upkeep::Soon);
    assert_eq!(fake.kernel().coming as u64, LARGE);
    let advance = applier.advance(now, || true);
    assert!(advance.waits && applier.is_busy());
    applier.set_links(vec![link(5, ""), link(6, ""), link(7, "")], &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["pod 6 tables 1 0", "pod 7 held", "attach 7"]);
    fake.kernel().is_full = false;
    assert_eq!(applier.maintain(Duration::ZERO), Upkeep::Done);
    assert!(!applier.advance(now, || true).waits);
    assert_eq!(rows(&fake), LARGE);
}

#[test]
fn whom_a_failed_write_concerns_is_closed_before_the_change_is_through() {
    let (fake, mut applier, now) = two_pods();
    fake.refuse(&["put row 3"]);
    applier.enqueue(vec![Step::Write(vec![row(3)]), large()], None);
    pieces(&mut applier, 1, now);
    assert!(applier.is_busy());
    assert_eq!(applier.condition("b"), Condition::Closed);
}

/// A node with an interface 5, and another one from the second look on.
struct Node(bool);

impl Looks for Node {
    fn look(&mut self, _: &dyn Fn(u32) -> bool) -> Result<Links, Fault> {
        let mut veths = vec![link(5, "10.0.0.5")];
        veths.extend(std::mem::replace(&mut self.0, true).then(|| link(7, "")));
        Ok(Links { veths, ..Links::default() })
    }
}

/// The whole state, over a kernel that takes a millisecond for every piece.
#[test]
fn a_hint_is_followed_between_slices_of_a_large_change_and_a_stop_after_all_of_it() {
    const WRITES: u64 = 20_000;
    let (fake, now) = (Fake::default(), Instant::now());
    let (hints_in, hints) = mpsc::channel(1);
    let (_updates, updates) = mpsc::channel(1);
    let (_requests, requests) = mpsc::channel(1);
    let (stop, stopping) = watch::channel(false);
    let mut applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], now);
    applier.enqueue(vec![Step::Write((1..=WRITES).map(row).collect())], None);
    {
        let mut kernel = fake.kernel();
        kernel.piece_takes = Duration::from_millis(1);
        let hint = Hint { links: BTreeSet::new(), veths: Vec::new(), seen: now };
        kernel.at_row.insert(1000, Call(Box::new(move || hints_in.try_send(hint.clone()).unwrap())));
        kernel.at_row.insert(5000, Call(Box::new(move || stop.send(true).unwrap())));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(state(applier, Node(false)).run(Inputs { updates, hints, requests, stopping })).unwrap();
    assert_eq!(rows(&fake), WRITES);
    let done = fake.done();
    let attached = done.iter().position(|words| words == "attach 7").expect("it came with the hint");
    let writes = done[..attached].iter().filter(|words| words.starts_with("put row")).count();
    // a slice is over before the look is begun, and those that are written meanwhile
    assert!((1000..5000).contains(&writes), "{writes} writes before the interface was held");
}
