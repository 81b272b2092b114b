//! Writes, and what the maps hold after them.

use enforcer::Contents;
use enforcer_abi::{
    Address, BlockKey, FrontEndKey, FrontEndState, FrontEndValue, Op, Openness, PeerValue, PortKey, PortRangeKey,
    PortValue, RowKey, RowValue, protocol,
};

use crate::{
    Test,
    support::{entry, on_node},
};

pub(crate) const TESTS: &[Test] = &tests![
    every_operation_does_what_it_says_and_may_be_repeated,
    what_is_written_outlives_the_process_and_so_does_the_epoch,
    pods_have_slots_of_their_own_that_begin_at_zero,
    sets_of_the_node_hold_exactly_what_is_given,
    readers_can_be_waited_for,
];

const TABLE: u64 = 7;

pub(crate) fn peer(last: [u8; 2], class: u64) -> PeerValue {
    PeerValue { address: Address::from_v4([10, 1, last[0], last[1]]), class, flags: 0, reserved: 0 }
}

fn block(class: u64) -> (BlockKey, u64) {
    (BlockKey { prefix_len: Address::V4_PREFIX_LEN + 8, address: Address::from_v4([10, 0, 0, 0]) }, class)
}

fn port(port: u16, class: u32) -> PortValue {
    let key = PortKey { table: TABLE, port, protocol: protocol::TCP, reserved: [0; 5] };
    PortValue { key, class, everybody: 0 }
}

fn range(first: u16, bits: u32, class: u32) -> (PortRangeKey, PortValue) {
    (PortRangeKey::new(TABLE, protocol::TCP, first, bits), port(first, class))
}

fn row(class: u64, bits: u64) -> RowValue {
    let key = RowKey { table: TABLE, class, chunk: 0, reserved: 0 };
    RowValue { key, bits: [bits, 0], open: Openness::UNNAMED, reserved: [0; 7] }
}

fn front_end(port: u16, state: FrontEndState) -> FrontEndValue {
    let key = FrontEndKey {
        table: TABLE,
        address: Address::from_v4([10, 96, 0, 1]),
        port,
        protocol: protocol::TCP,
        reserved: [0; 5],
    };
    FrontEndValue { key, state: state as u32, reserved: 0 }
}

fn every_operation_does_what_it_says_and_may_be_repeated() {
    on_node(|node| {
        let mut enforcer = node.open();
        assert_eq!(enforcer.contents().unwrap(), Contents::default());
        let endpoint = Address::from_v4([10, 9, 9, 9]);
        let (block_key, class) = block(3);
        let (range_key, range_value) = range(8192, 3, 2);
        let puts = [
            Op::PutPeer(peer([0, 1], 2)),
            Op::PutBlock(block_key, class),
            Op::PutPort(port(80, 1)),
            Op::PutPortRange(range_key, range_value),
            Op::PutRow(row(2, 0b10)),
            Op::PutFrontEnd(front_end(443, FrontEndState::Mixed)),
            Op::PutEndpoint(endpoint),
        ];
        let expected = Contents {
            pods: vec![],
            peers: vec![peer([0, 1], 2)],
            blocks: vec![block(3)],
            ports: vec![port(80, 1)],
            port_ranges: vec![range(8192, 3, 2)],
            rows: vec![row(2, 0b10)],
            front_ends: vec![front_end(443, FrontEndState::Mixed)],
            endpoints: vec![endpoint],
        };
        for _ in 0..2 {
            enforcer.apply(&puts).unwrap();
            assert_eq!(enforcer.contents().unwrap(), expected);
        }
        enforcer.apply(&[Op::PutPeer(peer([0, 1], 5))]).unwrap();
        assert_eq!(enforcer.contents().unwrap().peers, [peer([0, 1], 5)], "an entry is overwritten");
        // Of a prefix, an entry below or above it is no part.
        let (longer, _) = range(8192, 4, 2);
        enforcer.apply(&[Op::DeletePortRange(longer)]).unwrap();
        assert_eq!(enforcer.contents().unwrap().port_ranges, expected.port_ranges);

        let deletes = [
            Op::DeletePeer(peer([0, 1], 2).address),
            Op::DeleteBlock(block_key),
            Op::DeletePort(port(80, 1).key),
            Op::DeletePortRange(range_key),
            Op::DeleteRow(row(2, 0).key),
            Op::DeleteFrontEnd(front_end(443, FrontEndState::Mixed).key),
            Op::DeleteEndpoint(endpoint),
        ];
        for _ in 0..2 {
            enforcer.apply(&deletes).unwrap();
            assert_eq!(enforcer.contents().unwrap(), Contents::default());
        }
        assert!(enforcer.fill().iter().all(|fill| fill.used == 0), "{:?}", enforcer.fill());
    });
}

fn what_is_written_outlives_the_process_and_so_does_the_epoch() {
    on_node(|node| {
        let mut enforcer = node.open();
        let first = enforcer.raise_epoch(&[77, 5000]).unwrap();
        enforcer.apply(&[Op::PutRow(row(2, 1)), Op::PutBlock(block(3).0, 3)]).unwrap();
        enforcer.put_pod(entry(77, Address::from_v4([10, 0, 0, 7]))).unwrap();
        let contents = enforcer.contents().unwrap();
        drop(enforcer);

        let mut enforcer = node.open();
        assert_eq!(enforcer.contents().unwrap(), contents);
        assert_eq!(enforcer.epoch(), first);
        assert_eq!(enforcer.raise_epoch(&[77]).unwrap(), first + 1);
        let rows = enforcer.fill().into_iter().find(|fill| fill.map == "ROWS").unwrap();
        assert_eq!(rows.used, 1);
    });
}

fn pods_have_slots_of_their_own_that_begin_at_zero() {
    on_node(|node| {
        let mut enforcer = node.open();
        for ifindex in 1..=3 {
            enforcer.put_pod(entry(ifindex, Address::NONE)).unwrap();
        }
        let slot = |enforcer: &enforcer::Enforcer, ifindex| enforcer.pod(ifindex).unwrap().unwrap().slot;
        let slots: Vec<u32> = (1..=3).map(|ifindex| slot(&enforcer, ifindex)).collect();
        assert!(slots[0] != slots[1] && slots[1] != slots[2] && slots[0] != slots[2], "{slots:?}");
        // An update keeps the slot, also when another process makes it.
        drop(enforcer);
        let mut enforcer = node.open();
        enforcer.put_pod(entry(2, Address::from_v4([10, 0, 0, 2]))).unwrap();
        assert_eq!(slot(&enforcer, 2), slots[1]);
        enforcer.delete_pod(1).unwrap();
        assert_eq!(enforcer.counters(1).unwrap(), None);
        enforcer.put_pod(entry(4, Address::NONE)).unwrap();
        assert!(![slots[1], slots[2]].contains(&slot(&enforcer, 4)));
        assert!(enforcer.counters(4).unwrap().unwrap().packets.iter().flatten().all(|&count| count == 0));
    });
}

fn sets_of_the_node_hold_exactly_what_is_given() {
    on_node(|node| {
        let mut enforcer = node.open();
        let [a, b, c] = [1, 2, 3].map(|last| Address::from_v4([192, 0, 2, last]));
        let used = |enforcer: &mut enforcer::Enforcer, map: &str| {
            enforcer.fill().into_iter().find(|fill| fill.map == map).unwrap().used
        };
        for addresses in [&[a, b][..], &[b, c], &[b, c], &[], &[a]] {
            enforcer.set_node_addresses(addresses).unwrap();
            assert_eq!(used(&mut enforcer, "NODE_ADDRESSES") as usize, addresses.len());
            let pin = aya::maps::MapData::from_pin(node.pin("NODE_ADDRESSES")).unwrap();
            let map = aya::maps::HashMap::<_, Address, u32>::try_from(aya::maps::Map::HashMap(pin)).unwrap();
            let mut there: Vec<Address> = map.keys().map(Result::unwrap).collect();
            there.sort_unstable();
            assert_eq!(there, addresses);
        }
        enforcer.set_node_interfaces(&[4, 5]).unwrap();
        assert_eq!(used(&mut enforcer, "NODE_INTERFACES"), 2);
    });
}

fn readers_can_be_waited_for() {
    on_node(|node| {
        let enforcer = node.open();
        for _ in 0..3 {
            enforcer.wait_for_readers().unwrap();
        }
    });
}
