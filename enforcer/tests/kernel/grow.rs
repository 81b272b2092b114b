//! Maps that grow, under writes, under traffic and under a process that dies.

use std::time::Duration;

use enforcer::{Contents, Enforcer, MapSizes, Options, Upkeep};
use enforcer_abi::{Address, Op, PeerValue};

use crate::{
    Test,
    support::{Node, entry, mechanisms, on_node},
    tables::peer,
};

pub(crate) const TESTS: &[Test] = &tests![
    a_map_that_becomes_full_grows_and_keeps_all_it_holds,
    maintenance_grows_in_slices_and_writes_between_them_reach_both_maps,
    a_large_change_is_made_room_for_while_others_go_on,
    a_process_that_dies_while_maps_grow_leaves_the_ones_in_force,
    a_process_that_ends_while_programs_are_loaded_leaves_the_maps_in_force,
    growth_that_the_kernel_refuses_is_an_error_and_leaves_all_as_it_was,
    pods_and_their_counters_grow_together,
    a_larger_size_is_applied_on_start_and_a_smaller_one_is_not,
    flows_of_a_table_of_another_size_are_kept_to_be_looked_up,
];

fn peers(numbers: std::ops::Range<u16>) -> Vec<Op> {
    numbers.map(|number| Op::PutPeer(numbered(number))).collect()
}

fn numbered(number: u16) -> PeerValue {
    peer(number.to_be_bytes(), u64::from(number))
}

fn small(node: &Node, peers: u32) -> Options {
    let options = node.options();
    Options { sizes: MapSizes { peers, pods: 4, ..options.sizes }, ..options }
}

fn open_with_peers(node: &Node, peers: u32) -> Enforcer {
    Enforcer::open(&small(node, peers)).unwrap()
}

fn sorted(mut contents: Contents) -> Contents {
    contents.peers.sort_by_key(|peer| peer.address);
    contents.pods.sort_by_key(|pod| pod.ifindex);
    contents
}

fn max(enforcer: &mut Enforcer, map: &str) -> u32 {
    enforcer.fill().into_iter().find(|fill| fill.map == map).unwrap().max
}

/// Until the programs are loaded in the background and the larger maps are being filled.
fn until_filling(enforcer: &mut Enforcer) {
    let mut upkeep = enforcer.maintain(Duration::ZERO, &[]).unwrap();
    assert_ne!(upkeep, Upkeep::Done);
    while upkeep == Upkeep::Soon {
        std::thread::yield_now();
        upkeep = enforcer.maintain(Duration::ZERO, &[]).unwrap();
    }
    assert_eq!(upkeep, Upkeep::Now);
}

/// What a pinned map of peers holds.
fn pinned_peers(node: &Node, name: &str) -> Vec<PeerValue> {
    let pin = aya::maps::MapData::from_pin(node.pin(name)).unwrap();
    let map = aya::maps::HashMap::<_, Address, PeerValue>::try_from(aya::maps::Map::HashMap(pin)).unwrap();
    let mut peers: Vec<PeerValue> = map.iter().map(|entry| entry.unwrap().1).collect();
    peers.sort_by_key(|peer| peer.address);
    peers
}

fn a_map_that_becomes_full_grows_and_keeps_all_it_holds() {
    for (hooks, mode) in mechanisms() {
        on_node(move |node| {
            let pod = node.pod();
            let options = Options { hooks, ..small(node, 64) };
            let mut enforcer = Enforcer::open(&options).unwrap();
            let mut events = enforcer.events().unwrap();
            enforcer.attach(pod.ifindex).unwrap();
            let before = pod.programs(node);

            enforcer.apply(&peers(0..1000)).unwrap();
            assert!(max(&mut enforcer, "PEERS") >= 1000);
            let expected: Vec<PeerValue> = (0..1000).map(numbered).collect();
            assert_eq!(sorted(enforcer.contents().unwrap()).peers, expected);
            assert_eq!(pinned_peers(node, "PEERS"), expected, "the pin is the larger map's");
            assert!(node.pins("v2").iter().all(|name| !name.ends_with("-next")), "{:?}", node.pins("v2"));

            let after = pod.programs(node);
            assert!(before.iter().all(|id| !after.contains(id)), "{mode:?}: programs that use the larger map");
            assert!(pod.send(&mut events).is_err(), "{mode:?}: still held");
            enforcer.put_pod(pod.entry()).unwrap();
            assert_eq!(pod.send(&mut events), Ok(()), "{mode:?}: by the same map of pods");
        });
    }
}

fn maintenance_grows_in_slices_and_writes_between_them_reach_both_maps() {
    on_node(|node| {
        let mut enforcer = open_with_peers(node, 8192);
        enforcer.apply(&peers(0..6500)).unwrap();
        assert_eq!(max(&mut enforcer, "PEERS"), 8192, "three quarters are used, nothing is full");
        let mut slices = 0;
        let mut number = 6500;
        until_filling(&mut enforcer);
        while enforcer.maintain(Duration::ZERO, &[]).unwrap() == Upkeep::Now {
            slices += 1;
            // New ones, changed ones and deleted ones, wherever the copy is.
            let changed = PeerValue { class: 99, ..numbered(number - 6000) };
            let ops =
                [Op::PutPeer(numbered(number)), Op::PutPeer(changed), Op::DeletePeer(numbered(number - 3000).address)];
            enforcer.apply(&ops).unwrap();
            assert!(pinned_peers(node, "PEERS-next").contains(&numbered(number)));
            number += 1;
        }
        assert!(slices > 3, "{slices} slices");
        assert_eq!(max(&mut enforcer, "PEERS"), 16384);
        let expected: Vec<PeerValue> = (0..number)
            .filter(|other| !(3500..number - 3000).contains(other))
            .map(|other| {
                let is_changed = (500..number - 6000).contains(&other);
                PeerValue { class: if is_changed { 99 } else { other.into() }, ..numbered(other) }
            })
            .collect();
        assert_eq!(pinned_peers(node, "PEERS"), expected);
        assert_eq!(enforcer.maintain(Duration::ZERO, &[]).unwrap(), Upkeep::Done, "nothing is due");
    });
}

fn a_large_change_is_made_room_for_while_others_go_on() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = open_with_peers(node, 64);
        let mut events = enforcer.events().unwrap();
        let change = peers(0..5000);
        let (mut done, mut waits) = (0, 0);
        while done < change.len() {
            let upkeep = enforcer.maintain(Duration::ZERO, &[&change[done..]]).unwrap();
            let chunk = &change[done..change.len().min(done + 16)];
            if upkeep == Upkeep::Done || enforcer.has_room(chunk) {
                enforcer.apply(chunk).unwrap();
                done += chunk.len();
            } else {
                if waits == 0 {
                    // what doesn't need the room needn't wait for it
                    enforcer.attach(pod.ifindex).unwrap();
                    assert!(pod.send(&mut events).is_err(), "held");
                    enforcer.put_pod(pod.entry()).unwrap();
                    assert_eq!(pod.send(&mut events), Ok(()), "bound");
                }
                waits += 1;
                std::thread::yield_now();
            }
        }
        assert!(waits > 0, "programs for larger maps take longer to verify than 5000 writes");
        assert_eq!(max(&mut enforcer, "PEERS"), 8192, "in one go, and no larger than need be");
        assert_eq!(pinned_peers(node, "PEERS").len(), 5000);
        assert_eq!(pod.send(&mut events), Ok(()), "by the programs of the larger map");
    });
}

fn a_process_that_dies_while_maps_grow_leaves_the_ones_in_force() {
    on_node(|node| {
        let mut enforcer = open_with_peers(node, 8192);
        enforcer.apply(&peers(0..6500)).unwrap();
        until_filling(&mut enforcer);
        enforcer.apply(&peers(6500..6600)).unwrap();
        assert!(node.pins("v2").contains(&"PEERS-next".to_owned()));
        drop(enforcer);

        let enforcer = open_with_peers(node, 8192);
        assert_eq!(sorted(enforcer.contents().unwrap()).peers, (0..6600).map(numbered).collect::<Vec<_>>());
        assert!(!node.pins("v2").iter().any(|name| name.ends_with("-next")));
    });
}

fn a_process_that_ends_while_programs_are_loaded_leaves_the_maps_in_force() {
    on_node(|node| {
        let mut enforcer = open_with_peers(node, 64);
        enforcer.apply(&peers(0..50)).unwrap();
        assert_eq!(enforcer.maintain(Duration::ZERO, &[]).unwrap(), Upkeep::Soon);
        enforcer.apply(&peers(50..60)).unwrap();
        drop(enforcer);
        let enforcer = open_with_peers(node, 64);
        assert_eq!(sorted(enforcer.contents().unwrap()).peers, (0..60).map(numbered).collect::<Vec<_>>());
        assert!(!node.pins("v2").iter().any(|name| name.ends_with("-next")));
    });
}

fn growth_that_the_kernel_refuses_is_an_error_and_leaves_all_as_it_was() {
    on_node(|node| {
        let mut enforcer = open_with_peers(node, 64);
        enforcer.apply(&peers(0..50)).unwrap();
        // Where the larger map would be pinned something lies already, which is no map.
        std::os::unix::fs::symlink("/nowhere", node.pin("PEERS-next")).unwrap();
        let refused = loop {
            match enforcer.maintain(Duration::ZERO, &[]) {
                Ok(Upkeep::Soon) => std::thread::yield_now(),
                other => break other,
            }
        };
        refused.unwrap_err();
        assert_eq!(enforcer.maintain(Duration::ZERO, &[]).unwrap(), Upkeep::Done, "not again at once");
        assert_eq!(sorted(enforcer.contents().unwrap()).peers, (0..50).map(numbered).collect::<Vec<_>>());
        // What forces it, and has nothing in its way, succeeds.
        enforcer.apply(&peers(50..200)).unwrap();
        assert_eq!(enforcer.contents().unwrap().peers.len(), 200);
    });
}

fn pods_and_their_counters_grow_together() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = open_with_peers(node, 64);
        let mut events = enforcer.events().unwrap();
        enforcer.put_pod(pod.entry()).unwrap();
        enforcer.attach(pod.ifindex).unwrap();
        let passed = |enforcer: &Enforcer| {
            let egress = enforcer.counters(pod.ifindex).unwrap().unwrap().packets[1];
            egress[enforcer_abi::Reason::NotIsolated as usize]
        };
        assert_eq!(pod.send(&mut events), Ok(()));
        let before = passed(&enforcer);
        assert!(before > 0);
        for ifindex in 1000..1100 {
            enforcer.put_pod(entry(ifindex, Address::NONE)).unwrap();
        }
        assert!(max(&mut enforcer, "PODS") >= 101);
        assert!(passed(&enforcer) >= before, "nothing that was counted is lost");
        assert_eq!(pod.send(&mut events), Ok(()));
        assert!(passed(&enforcer) > before, "and counting goes on");
        let mut slots: Vec<u32> = enforcer.contents().unwrap().pods.iter().map(|pod| pod.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 101, "every pod has a slot of its own");
    });
}

fn a_larger_size_is_applied_on_start_and_a_smaller_one_is_not() {
    on_node(|node| {
        for (wanted, expected) in [(128, 128), (512, 512), (128, 512)] {
            let mut enforcer = open_with_peers(node, wanted);
            assert_eq!(max(&mut enforcer, "PEERS"), expected);
            enforcer.apply(&peers(0..50)).unwrap();
            assert_eq!(enforcer.contents().unwrap().peers.len(), 50);
        }
    });
}

fn flows_of_a_table_of_another_size_are_kept_to_be_looked_up() {
    on_node(|node| {
        let (pod, other) = (node.pod(), node.pod());
        let with_flows = |flows| {
            let options = node.options();
            Enforcer::open(&Options { sizes: MapSizes { flows, ..options.sizes }, ..options }).unwrap()
        };
        let mut enforcer = with_flows(1024);
        assert!(!node.pins("v2").contains(&"PREVIOUS_FLOWS".to_owned()));
        // A flow that was seen in both directions: a question and its answer.
        enforcer.put_pod(pod.entry()).unwrap();
        enforcer.attach(pod.ifindex).unwrap();
        pod.exchange(&other);
        let flows = enforcer.flows().unwrap();
        let replied: Vec<_> = flows.iter().filter(|flow| flow.replied).collect();
        assert_eq!(replied.len(), 1, "{flows:?}");
        let kept = replied[0].key;
        drop(enforcer);

        let enforcer = with_flows(2048);
        assert!(!enforcer.flows().unwrap().iter().any(|flow| flow.replied), "they aren't copied");
        assert!(node.pins("v2").contains(&"PREVIOUS_FLOWS".to_owned()));
        let pin = aya::maps::MapData::from_pin(node.pin("PREVIOUS_FLOWS")).unwrap();
        let map = aya::maps::Map::LruHashMap(pin);
        let map = aya::maps::HashMap::<_, enforcer_abi::FlowKey, enforcer_abi::FlowValue>::try_from(map).unwrap();
        assert!(map.get(&kept, 0).is_ok());
        drop(enforcer);

        // While one may be alive the old table stays; without one it goes.
        drop(with_flows(2048));
        assert!(node.pins("v2").contains(&"PREVIOUS_FLOWS".to_owned()));
        let pin = aya::maps::MapData::from_pin(node.pin("PREVIOUS_FLOWS")).unwrap();
        let map = aya::maps::Map::LruHashMap(pin);
        let mut map = aya::maps::HashMap::<_, enforcer_abi::FlowKey, enforcer_abi::FlowValue>::try_from(map).unwrap();
        map.remove(&kept).unwrap();
        drop(with_flows(2048));
        assert!(!node.pins("v2").contains(&"PREVIOUS_FLOWS".to_owned()));
    });
}
