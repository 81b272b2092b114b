//! From what the compiler says of a pod, and what is known of its interface, to the entry that the packet program reads.

use enforcer_abi::{Address, Openness, PodEntry, PodFlags};
use policy_compiler::{PodTables, TableUse};

/// What only the interface's side knows of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Interface index.
    pub(super) ifindex: u32,
    /// Where its packets are counted.
    pub(super) slot: u32,
    /// See [`PodEntry::midstream_until`].
    pub(super) midstream_until: u64,
}

/// Which directions are closed because they could not be programmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) ingress: bool,
    pub(super) egress: bool,
}

/// The entry of a pod.
pub(super) fn of_pod(frame: Frame, pod: &PodTables, closed: Closed) -> PodEntry {
    let mut flags = 0;
    let mut set = |bit: u32, on: bool| flags |= if on { bit } else { 0 };
    set(PodFlags::INGRESS_ISOLATED, pod.ingress.is_some());
    set(PodFlags::EGRESS_ISOLATED, pod.egress.is_some());
    set(PodFlags::INGRESS_RANGES, pod.ingress.is_some_and(|table| table.ranges));
    set(PodFlags::EGRESS_RANGES, pod.egress.is_some_and(|table| table.ranges));
    set(PodFlags::INGRESS_CLOSED, closed.ingress);
    set(PodFlags::EGRESS_CLOSED, closed.egress);
    set(PodFlags::AUDIT, pod.audit);
    set(PodFlags::FORWARDS, pod.forwards);
    let id = |table: Option<TableUse>| table.map_or(0, |table| table.id);
    let everybody = |table: Option<TableUse>| table.map_or(Openness(0), |table| table.everybody).0;
    let address = |v4: bool| {
        pod.addresses.iter().find(|address| address.is_ipv4() == v4).map_or(Address::NONE, |a| Address::from(*a))
    };
    PodEntry {
        ifindex: frame.ifindex,
        flags,
        ingress_table: id(pod.ingress),
        egress_table: id(pod.egress),
        midstream_until: frame.midstream_until,
        v4: address(true),
        v6: address(false),
        slot: frame.slot,
        ingress_everybody: everybody(pod.ingress),
        egress_everybody: everybody(pod.egress),
        reserved: [0; 2],
    }
}

/// The entry of an interface that is held; `setup` while its namespace has no process.
pub(super) fn held(frame: Frame, setup: bool) -> PodEntry {
    PodEntry {
        ifindex: frame.ifindex,
        flags: PodFlags::HELD | if setup { PodFlags::SETUP } else { 0 },
        ingress_table: 0,
        egress_table: 0,
        midstream_until: frame.midstream_until,
        v4: Address::NONE,
        v6: Address::NONE,
        slot: frame.slot,
        ingress_everybody: 0,
        egress_everybody: 0,
        reserved: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy_compiler::model::ObjectName;

    const FRAME: Frame = Frame { ifindex: 7, slot: 3, midstream_until: 99 };

    fn pod() -> PodTables {
        PodTables {
            uid: "u".into(),
            name: ObjectName::new("shop", "db"),
            addresses: vec!["fd00::2".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ingress: Some(TableUse { id: 5, everybody: Openness(Openness::UNNAMED), ranges: true }),
            egress: None,
            forwards: false,
            audit: false,
        }
    }

    #[test]
    fn what_the_compiler_says_is_in_the_entry() {
        let entry = of_pod(FRAME, &pod(), Closed::default());
        assert_eq!((entry.ifindex, entry.slot, entry.midstream_until), (7, 3, 99));
        assert_eq!(entry.flags, PodFlags::INGRESS_ISOLATED | PodFlags::INGRESS_RANGES);
        assert_eq!((entry.ingress_table, entry.ingress_everybody), (5, Openness::UNNAMED));
        assert_eq!((entry.egress_table, entry.egress_everybody), (0, 0));
        assert_eq!(entry.v4, Address::from_v4([10, 0, 0, 2]));
        assert_eq!(entry.v6, Address::from("fd00::2".parse::<std::net::IpAddr>().unwrap()));
    }

    #[test]
    fn flags() {
        #[track_caller]
        fn check(change: fn(&mut PodTables), closed: Closed, expected: u32) {
            let mut pod = PodTables { ingress: None, egress: None, ..pod() };
            change(&mut pod);
            assert_eq!(of_pod(FRAME, &pod, closed).flags, expected);
        }
        let open = Closed::default();
        check(|_| {}, open, 0);
        check(|pod| pod.audit = true, open, PodFlags::AUDIT);
        check(|pod| pod.forwards = true, open, PodFlags::FORWARDS);
        check(|_| {}, Closed { ingress: true, egress: false }, PodFlags::INGRESS_CLOSED);
        check(|_| {}, Closed { ingress: false, egress: true }, PodFlags::EGRESS_CLOSED);
        check(|pod| pod.egress = Some(TableUse { id: 1, everybody: Openness(0), ranges: true }), open, {
            PodFlags::EGRESS_ISOLATED | PodFlags::EGRESS_RANGES
        });
        assert_eq!(held(FRAME, false).flags, PodFlags::HELD);
        assert_eq!(held(FRAME, true).flags, PodFlags::HELD | PodFlags::SETUP);
    }
}
