//! Carrying out, with a kernel that is made of maps and refuses what it is told to.

mod bound;
mod cni;
mod inhabitants;
mod looks;
mod newcomers;
mod plugins;
mod slices;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use enforcer::{MapMemory, Upkeep};
use enforcer_abi::{Address, Counters, Op, Openness, PeerValue, PodEntry, PodFlags, RowKey, RowValue};
use policy_compiler::{PodTables, PodUpdate, Step, TableUse, model::ObjectName};

use super::{
    Attachment, Condition, Datapath, Directory, Fault, Fill, Health, Lookout, Looks, Outputs, Pace, State, Unsent,
    applier::Applier, reports::Reports,
};
use crate::{
    bind::{Binder, Exclusions, Link},
    conflist::Configurations,
    engines::Engines,
    inhabited::{Inhabitants, Who},
    metrics::Metrics,
};

/// What was done to the kernel, in words, and what it refuses.
#[derive(Debug, Default)]
struct Kernel {
    log: Vec<String>,
    pods: BTreeMap<u32, PodEntry>,
    rows: BTreeSet<RowKey>,
    attached: BTreeSet<u32>,
    epoch: u64,
    /// It attaches by clsact.
    has_clsact: bool,
    /// A map is growing, and has no room before it has done so.
    is_full: bool,
    /// How many writes were announced when maps were last let grow.
    coming: usize,
    /// How long each piece of writes takes.
    piece_takes: Duration,
    /// What happens when the row of a table is written.
    at_row: BTreeMap<u64, Call>,
    /// Calls whose words begin with one of these fail.
    refuses: Vec<&'static str>,
}

struct Call(Box<dyn Fn() + Send>);

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Kernel>>);

impl Fake {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.0.lock().unwrap()
    }

    fn refuse(&self, calls: &[&'static str]) {
        self.kernel().refuses = calls.to_vec();
    }

    /// What was done since the last time.
    fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.kernel().log)
    }

    fn call(&self, words: String) -> Result<MutexGuard<'_, Kernel>, Fault> {
        let mut kernel = self.kernel();
        if kernel.refuses.iter().any(|start| words.starts_with(start)) {
            return Err(Fault(format!("no {words}")));
        }
        kernel.log.push(words);
        Ok(kernel)
    }
}

impl Datapath for Fake {
    fn attach(&mut self, ifindex: u32) -> Result<Attachment, Fault> {
        self.call(format!("attach {ifindex}"))?.attached.insert(ifindex);
        Ok(Attachment::default())
    }

    fn excludes_ingress_qdisc(&self) -> bool {
        self.kernel().has_clsact
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), Fault> {
        self.call(format!("detach {ifindex}"))?.attached.remove(&ifindex);
        Ok(())
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<(Op, Fault)> {
        let mut failed = Vec::new();
        let takes = self.kernel().piece_takes;
        if !takes.is_zero() {
            std::thread::sleep(takes);
        }
        for op in ops {
            let words = match op {
                Op::PutRow(row) => format!("put row {}", row.key.table),
                Op::DeleteRow(key) => format!("delete row {}", key.table),
                Op::PutPeer(_) => "put peer".into(),
                other => format!("{other:?}"),
            };
            match (self.call(words), op) {
                (Ok(mut kernel), Op::PutRow(row)) => {
                    kernel.rows.insert(row.key);
                    if let Some(Call(call)) = kernel.at_row.get(&row.key.table) {
                        call();
                    }
                }
                (Ok(mut kernel), Op::DeleteRow(key)) => drop(kernel.rows.remove(key)),
                (Ok(_), _) => {}
                (Err(fault), op) => failed.push((*op, fault)),
            }
        }
        failed
    }

    fn has_room(&mut self, ops: &[Op]) -> bool {
        ops.is_empty() || !self.kernel().is_full
    }

    fn maintain(&mut self, _: Duration, coming: &[&[Op]]) -> Result<Upkeep, Fault> {
        let mut kernel = self.kernel();
        kernel.coming = coming.iter().map(|ops| ops.len()).sum();
        Ok(if kernel.is_full { Upkeep::Soon } else { Upkeep::Done })
    }

    fn put_pod(&mut self, entry: PodEntry) -> Result<(), Fault> {
        self.call(format!("pod {} {}", entry.ifindex, words(&entry)))?.pods.insert(entry.ifindex, entry);
        Ok(())
    }

    fn delete_pod(&mut self, ifindex: u32) -> Result<(), Fault> {
        self.call(format!("no pod {ifindex}"))?.pods.remove(&ifindex);
        Ok(())
    }

    fn set_node(&mut self, _: &[Address], _: &[u32]) -> Result<(), Fault> {
        Ok(())
    }

    fn wait_for_readers(&mut self) -> Result<(), Fault> {
        self.call("wait".into()).map(drop)
    }

    fn raise_epoch(&mut self, interfaces: &[u32]) -> Result<u64, Fault> {
        let words: Vec<String> = interfaces.iter().map(|index| format!(" {index}")).collect();
        let mut kernel = self.call(format!("epoch{}", words.concat()))?;
        kernel.epoch += 1;
        Ok(kernel.epoch)
    }

    fn counters(&mut self, _: u32) -> Result<Option<Counters>, Fault> {
        Ok(None)
    }

    fn fills(&mut self) -> Vec<Fill> {
        Vec::new()
    }

    fn memory(&mut self) -> Vec<MapMemory> {
        Vec::new()
    }

    fn unsent(&mut self) -> Result<Unsent, Fault> {
        Ok(Unsent::default())
    }
}

impl Applier<Fake> {
    /// All of a change at once.
    fn carry_out(&mut self, steps: Vec<Step>, now: Instant) {
        self.enqueue(steps, None);
        self.finish(now);
    }
}

fn words(entry: &PodEntry) -> String {
    let flags = [
        (PodFlags::HELD, "held"),
        (PodFlags::SETUP, "setup"),
        (PodFlags::INGRESS_CLOSED, "ingress closed"),
        (PodFlags::EGRESS_CLOSED, "egress closed"),
    ];
    let set: Vec<_> = flags.iter().filter(|(bit, _)| entry.flags & bit != 0).map(|(_, word)| *word).collect();
    match set.as_slice() {
        [] => format!("tables {} {}", entry.ingress_table, entry.egress_table),
        set => set.join(", "),
    }
}

/// A pod with these tables; 0 is none.
fn pod(name: &str, address: &str, ingress: u64, egress: u64) -> PodUpdate {
    let table = |id| (id != 0).then_some(TableUse { id, everybody: Openness(0), ranges: false });
    PodUpdate::Put(PodTables {
        uid: name.into(),
        name: ObjectName::new("ns", name),
        addresses: vec![address.parse().unwrap()],
        ingress: table(ingress),
        egress: table(egress),
        forwards: false,
        audit: false,
    })
}

fn link(index: u32, behind: &str) -> Link {
    let addresses: Vec<IpAddr> = behind.split_whitespace().map(|address| address.parse().unwrap()).collect();
    let namespace = i32::try_from(index).ok();
    Link { inhabitants: some(Who::NoPod, Duration::MAX), ..empty(index, namespace, addresses) }
}

fn empty(index: u32, namespace: Option<i32>, addresses: Vec<IpAddr>) -> Link {
    Link { index, name: format!("veth{index}"), namespace, addresses, ..Link::default() }
}

fn some(who: Who, started: Duration) -> Option<Inhabitants> {
    Some(Inhabitants { who, started })
}

fn row(table: u64) -> Op {
    let key = RowKey { table, class: 1, chunk: 0, reserved: 0 };
    Op::PutRow(RowValue { key, bits: [0; 2], open: 0, reserved: [0; 7] })
}

fn no_row(table: u64) -> Op {
    Op::DeleteRow(RowKey { table, class: 1, chunk: 0, reserved: 0 })
}

fn peer() -> Op {
    Op::PutPeer(PeerValue { address: Address::from_v4([10, 0, 0, 9]), class: 1, flags: 0, reserved: 0 })
}

fn raise(uids: &[&str]) -> Step {
    Step::RaiseEpoch(uids.iter().map(|uid| (*uid).into()).collect())
}

/// An applier over a fresh kernel, with one pod `a` (tables 1 and 2) behind interface 5 and one pod `b` (table 3 for
/// ingress) behind 6.
fn two_pods() -> (Fake, Applier<Fake>, Instant) {
    let (fake, now) = (Fake::default(), Instant::now());
    let mut applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], now);
    applier.set_links(vec![link(5, "10.0.0.5"), link(6, "10.0.0.6")], &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["pod 5 held", "attach 5", "pod 6 held", "attach 6"]);
    let pods = vec![pod("a", "10.0.0.5", 1, 2), pod("b", "10.0.0.6", 3, 0)];
    applier.carry_out(vec![Step::Write(vec![row(1), row(2), row(3)]), Step::Pods(pods), raise(&["a", "b"])], now);
    assert_eq!(
        fake.done(),
        ["put row 1", "put row 2", "put row 3", "pod 5 tables 1 2", "pod 6 tables 3 0", "epoch 5 6"]
    );
    (fake, applier, now)
}

/// A state over what an applier has done so far.
fn state(mut applier: Applier<Fake>, mut node: impl Looks + 'static) -> State<Fake> {
    let now = Instant::now();
    applier.set_links(node.look(&|_| false).unwrap().veths, &BTreeSet::new(), now);
    let outputs = Outputs {
        metrics: Metrics::new().unwrap(),
        health: tokio::sync::watch::channel(Health::default()).0,
        names: Arc::new(Directory::default()),
        engines: Arc::new(Engines::new("here", Metrics::new().unwrap())),
    };
    State {
        node: "here".into(),
        node_interfaces: Vec::new(),
        compiler: policy_compiler::Compiler::new(policy_compiler::Options::new("here")),
        applier,
        calls: super::Calls::new("here", Vec::new()),
        holds: super::Holds::default(),
        configurations: Configurations::new("/nonexistent".into()),
        lookout: Lookout::new(Box::new(node), now),
        outputs,
        node_addresses: Vec::new(),
        link_names: BTreeMap::new(),
        node_told: None,
        problems: Arc::new([]),
        generation: 0,
        reports: Reports::default(),
        counted: rustc_hash::FxHashMap::default(),
        unsent: Unsent::default(),
        faults: 0,
        pace: Pace::Idle,
        isolating: rustc_hash::FxHashMap::default(),
    }
}

/// A folder of configurations of which one names a plugin that needs an `ingress` qdisc.
fn bandwidth() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let list = r#"{"plugins": [{"type": "ptp"}, {"type": "bandwidth"}]}"#;
    std::fs::write(folder.path().join("10-net.conflist"), list).unwrap();
    folder
}

#[test]
fn steps_are_carried_out_in_their_order_and_frees_wait() {
    let (fake, mut applier, now) = two_pods();
    let steps = vec![
        Step::Write(vec![row(4)]),
        Step::Pods(vec![pod("b", "10.0.0.6", 4, 0)]),
        raise(&["b"]),
        Step::Free(vec![no_row(3)]),
    ];
    applier.carry_out(steps, now);
    assert_eq!(fake.done(), ["put row 4", "pod 6 tables 4 0", "epoch 6"]);
    applier.tick(now);
    assert_eq!(fake.done(), [] as [&str; 0]);
    let due = applier.next_tick().unwrap();
    applier.tick(due);
    applier.finish(due);
    assert_eq!(fake.done(), ["wait", "delete row 3"]);
    assert_eq!(applier.next_tick(), None);
}

#[test]
fn what_comes_back_before_it_is_freed_stays() {
    let (fake, mut applier, now) = two_pods();
    applier.carry_out(vec![Step::Free(vec![no_row(3)])], now);
    applier.carry_out(vec![Step::Write(vec![row(3)])], now);
    applier.tick(now + Duration::from_secs(10));
    assert_eq!(fake.done(), ["put row 3"]);
}

#[test]
fn a_refused_entry_that_is_wanted_no_more_is_no_fault() {
    let (fake, mut applier, now) = two_pods();
    fake.refuse(&["pod 6"]);
    applier.carry_out(vec![Step::Pods(vec![pod("b", "10.0.0.6", 0, 0)])], now);
    assert_eq!(applier.condition("b"), Condition::Unenforceable);
    applier.carry_out(vec![Step::Pods(vec![pod("b", "10.0.0.6", 3, 0)])], now);
    assert_eq!(applier.condition("b"), Condition::Enforced, "the kernel has what is wanted");
}

/// As a static pod's mirror that is made again, and policies that have changed meanwhile.
#[test]
fn a_pod_that_replaces_another_at_its_address_inherits_no_flow() {
    let (fake, mut applier, now) = two_pods();
    let gone = |uid: &str| PodUpdate::Delete { uid: uid.into() };
    applier.carry_out(vec![Step::Pods(vec![gone("a"), pod("c", "10.0.0.5", 3, 3)])], now);
    assert_eq!(fake.done(), ["pod 5 tables 3 3", "epoch 5"]);
    // though the entry is the same
    applier.carry_out(vec![Step::Pods(vec![gone("c"), pod("d", "10.0.0.5", 3, 3)])], now);
    assert_eq!(fake.done(), ["epoch 5"]);
}

#[test]
fn an_entry_that_stays_the_same_is_not_written_again() {
    let (fake, mut applier, now) = two_pods();
    applier.carry_out(vec![Step::Pods(vec![pod("a", "10.0.0.5", 1, 2)])], now);
    applier.set_links(vec![link(5, ""), link(6, "")], &BTreeSet::new(), now);
    assert_eq!(fake.done(), [] as [&str; 0]);
    // but an interface that has changed is looked at: somebody may have come ahead of us
    applier.set_links(vec![link(5, ""), link(6, "")], &BTreeSet::from([6]), now);
    assert_eq!(fake.done(), ["attach 6"]);
}

#[test]
fn the_entry_comes_before_the_program_and_goes_after_it() {
    let (fake, now) = (Fake::default(), Instant::now());
    let mut applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], now);
    applier.carry_out(vec![Step::Pods(vec![pod("a", "10.0.0.5", 1, 2)])], now);
    applier.set_links(vec![link(5, "10.0.0.5")], &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["pod 5 tables 1 2", "attach 5"], "a pod that runs isn't held in between");
    applier.set_links(Vec::new(), &BTreeSet::new(), now);
    assert_eq!(fake.done(), ["detach 5", "no pod 5", "epoch 5"]);
}

#[test]
fn a_pod_that_goes_leaves_its_interface_held() {
    let (fake, mut applier, now) = two_pods();
    applier.carry_out(vec![Step::Pods(vec![PodUpdate::Delete { uid: "b".into() }])], now);
    assert_eq!(fake.done(), ["pod 6 held", "epoch 6"], "its flows are not the next one's");
    applier.carry_out(vec![Step::Pods(vec![pod("c", "10.0.0.7", 3, 0)])], now);
    applier.set_links(vec![link(5, "10.0.0.5"), link(6, "10.0.0.7")], &BTreeSet::new(), now);
    assert_eq!(fake.done(), [""; 0], "what it has come to show is nobody's word");
    applier.call(6, &"c".into(), &ObjectName::new("ns", "c"), now);
    assert_eq!(fake.done(), ["pod 6 tables 3 0"], "what was held has no flows");
}

#[test]
fn a_table_that_cannot_be_written_closes_its_pods_until_it_can() {
    let (fake, mut applier, now) = two_pods();
    fake.refuse(&["put row 4"]);
    let steps = vec![Step::Write(vec![row(4), row(3)]), Step::Pods(vec![pod("a", "10.0.0.5", 4, 2)]), raise(&["a"])];
    applier.carry_out(steps, now);
    // the other writes are carried out; the pod is never at the table that isn't whole
    assert_eq!(fake.done(), ["put row 3", "pod 5 ingress closed", "epoch 5", "epoch 5"]);
    assert_eq!(applier.closed(), BTreeMap::from([(5, "ns/a".to_owned())]));
    assert_eq!((applier.condition("a"), applier.condition("b")), (Condition::Closed, Condition::Enforced));
    assert_eq!(applier.faults, 1);
    assert!(applier.standing_fault().is_some());
    // not yet
    let first = applier.next_tick().unwrap();
    applier.tick(first);
    assert_eq!(fake.done(), [] as [&str; 0]);
    let second = applier.next_tick().unwrap();
    assert!(second - first > first - now, "the pauses get longer");
    fake.refuse(&[]);
    applier.tick(second);
    assert_eq!(fake.done(), ["put row 4", "pod 5 tables 4 2"]);
    assert_eq!(applier.condition("a"), Condition::Enforced);
    assert!(applier.standing_fault().is_none());
    assert_eq!(applier.next_tick(), None);
}

/// Until it is written, flows are judged by the entry before it, in the epoch that was raised for it.
#[test]
fn an_entry_that_is_written_late_raises_the_epoch() {
    let (fake, mut applier, now) = two_pods();
    fake.refuse(&["pod 5"]);
    applier
        .carry_out(vec![Step::Write(vec![row(4)]), Step::Pods(vec![pod("a", "10.0.0.5", 4, 2)]), raise(&["a"])], now);
    assert_eq!(fake.done(), ["put row 4", "epoch 5"]);
    assert_eq!(applier.condition("a"), Condition::Unenforceable);
    fake.refuse(&[]);
    applier.tick(applier.next_tick().unwrap());
    assert_eq!(fake.done(), ["pod 5 tables 4 2", "epoch 5"]);
}

#[test]
fn a_failed_write_that_is_no_longer_needed_closes_nobody() {
    let (fake, mut applier, now) = two_pods();
    fake.refuse(&["put row 4"]);
    applier.carry_out(vec![Step::Write(vec![row(4)]), Step::Pods(vec![pod("a", "10.0.0.5", 4, 2)])], now);
    assert_eq!(applier.condition("a"), Condition::Closed);
    let steps = vec![Step::Pods(vec![pod("a", "10.0.0.5", 1, 2)]), Step::Free(vec![no_row(4)])];
    applier.carry_out(steps, now);
    assert_eq!(applier.condition("a"), Condition::Enforced, "it uses that table no more");
    applier.tick(now + Duration::from_secs(2));
    assert!(applier.standing_fault().is_none(), "and nobody tries again to write what was freed");
}

#[test]
fn a_class_that_cannot_be_written_concerns_every_isolated_pod() {
    let (fake, mut applier, now) = two_pods();
    applier.carry_out(vec![Step::Pods(vec![pod("open", "10.0.0.7", 0, 0)])], now);
    fake.done();
    fake.refuse(&["put peer"]);
    applier.carry_out(vec![Step::Write(vec![peer()])], now);
    assert_eq!(fake.done(), ["pod 5 ingress closed, egress closed", "pod 6 ingress closed", "epoch 5 6"]);
}

#[test]
fn an_interface_that_refuses_the_program_is_unenforceable_and_tried_again() {
    let (fake, now) = (Fake::default(), Instant::now());
    let mut applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], now);
    fake.refuse(&["attach 5"]);
    applier.carry_out(vec![Step::Pods(vec![pod("a", "10.0.0.5", 1, 2)])], now);
    applier.set_links(vec![link(5, "10.0.0.5")], &BTreeSet::new(), now);
    assert_eq!(applier.condition("a"), Condition::Unenforceable);
    assert!(applier.fault(5).is_some());
    fake.refuse(&[]);
    fake.done();
    applier.tick(applier.next_tick().unwrap());
    assert_eq!(fake.done(), ["attach 5"]);
    assert_eq!(applier.condition("a"), Condition::Enforced);
}

#[test]
fn a_pod_without_interface_is_held_then_unenforceable() {
    let (fake, now) = (Fake::default(), Instant::now());
    let mut applier = Applier::new(fake, Binder::new(Exclusions::default()), Vec::new(), &[], now);
    applier.carry_out(vec![Step::Pods(vec![pod("a", "10.0.0.5", 1, 2)])], now);
    assert_eq!(applier.condition("a"), Condition::Held);
    applier.tick(now + crate::bind::PATIENCE);
    assert_eq!(applier.condition("a"), Condition::Unenforceable);
}

/// An entry as an earlier agent left it.
fn pinned(index: u32, address: [u8; 4], ingress: u64) -> PodEntry {
    PodEntry {
        ifindex: index,
        flags: PodFlags::INGRESS_ISOLATED,
        ingress_table: ingress,
        egress_table: 0,
        midstream_until: 77,
        v4: Address::from_v4(address),
        v6: Address::NONE,
        slot: 9,
        ingress_everybody: 0,
        egress_everybody: 0,
        reserved: [0; 2],
    }
}

#[test]
fn what_an_earlier_agent_left_is_taken_over_without_a_gap() {
    let (fake, now) = (Fake::default(), Instant::now());
    let left = vec![pinned(5, [10, 0, 0, 5], 1), pinned(6, [10, 0, 0, 6], 3), pinned(7, [10, 0, 0, 7], 3)];
    let mut applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), left, &[5, 6, 7, 8], now);
    applier.allow_midstream([5, 8], 100);
    let pods = vec![pod("a", "10.0.0.5", 1, 0), pod("b", "10.0.0.6", 4, 0)];
    applier.carry_out(vec![Step::Write(vec![row(4)]), Step::Pods(pods)], now);
    // 5 is as it should be: only the program's place is looked at
    assert_eq!(fake.done(), ["put row 4", "attach 5", "pod 6 tables 4 0", "attach 6"]);
    // 6 shows another address by now, which tells nothing; 7 has gone; 8 was held and still is
    applier.set_links(vec![link(5, "10.0.0.5"), link(6, "10.0.0.5"), link(8, "")], &BTreeSet::new(), now);
    applier.refresh_all(now);
    assert_eq!(fake.done(), ["detach 7", "no pod 7", "epoch 7", "pod 8 held", "attach 8"]);
    assert_eq!(fake.kernel().pods[&6].midstream_until, 77, "a grace that was granted stays");
}

#[test]
fn connections_older_than_sluice_have_their_grace() {
    let (fake, now) = (Fake::default(), Instant::now());
    let mut applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], now);
    applier.allow_midstream([5], 100);
    applier.set_links(vec![link(5, "10.0.0.5"), link(6, "10.0.0.6")], &BTreeSet::new(), now);
    let pods = vec![pod("a", "10.0.0.5", 1, 0), pod("b", "10.0.0.6", 1, 0)];
    applier.carry_out(vec![Step::Pods(pods)], now);
    assert_eq!(fake.kernel().pods[&5].midstream_until, 100);
    assert_eq!(fake.kernel().pods[&6].midstream_until, 0, "it came after Sluice");
}

#[test]
fn an_interface_that_is_excluded_now_is_let_go() {
    let (fake, now) = (Fake::default(), Instant::now());
    let exclusions = Exclusions { names: vec!["veth5".into()], node_addresses: Vec::new() };
    let left = vec![pinned(5, [10, 0, 0, 5], 1)];
    let mut applier = Applier::new(fake.clone(), Binder::new(exclusions), left, &[5], now);
    applier.set_links(vec![link(5, "10.0.0.5")], &BTreeSet::new(), now);
    applier.refresh_all(now);
    assert_eq!(fake.done(), ["detach 5", "no pod 5", "epoch 5"]);
    assert!(fake.kernel().attached.is_empty());
}
