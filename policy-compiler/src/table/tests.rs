//! Precedence, port classes and openness of single tables.

use super::*;
use crate::port::PortRange;

const A: PeerId = 1;
const B: PeerId = 2;

fn tcp(first: u16, last: u16) -> PortSpace {
    let mut space = PortSpace::default();
    space.add(PortRange { protocol: Protocol::Tcp, first, last });
    space
}

fn all() -> PortSpace {
    let mut space = PortSpace::default();
    space.add_all();
    space
}

type RuleOf = (Tier, Action, Option<PeerId>, PortSpace);

fn rules(isolated: bool, rules: &[RuleOf]) -> TableRules {
    let mut table = TableRules::new(Direction::Ingress);
    table.isolated = isolated;
    rules.iter().for_each(|(tier, action, who, ports)| table.add(*tier, *action, *who, ports));
    table.normalise();
    table
}

fn allow(who: Option<PeerId>, ports: PortSpace) -> RuleOf {
    (Tier::NetworkPolicy, Action::Allow, who, ports)
}

/// `expected` is which of TCP 80, TCP 81, UDP 80 and ICMP are open to a class of these peers.
#[track_caller]
fn check(isolated: bool, of: &[RuleOf], class: &[PeerId], expected: [bool; 4]) {
    let table = Table::new(7, rules(isolated, of));
    let row = table.row(class);
    let bits = &row.as_ref().unwrap_or(&table.everybody).bits;
    let ports = [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 80)];
    let open = |(protocol, port)| is_set(bits, table.port_class(protocol, port));
    assert_eq!([open(ports[0]), open(ports[1]), open(ports[2]), is_set(bits, 0)], expected);
}

#[test]
fn network_policies_allow_and_isolate() {
    check(true, &[], &[A], [false; 4]);
    check(true, &[allow(Some(A), tcp(80, 80))], &[A], [true, false, false, false]);
    check(true, &[allow(Some(A), tcp(80, 80))], &[B], [false; 4]);
    check(true, &[allow(Some(A), tcp(80, 80)), allow(Some(B), tcp(81, 81))], &[A, B], [true, true, false, false]);
    check(true, &[allow(None, tcp(80, 80)), allow(Some(A), tcp(81, 81))], &[A], [true, true, false, false]);
    check(true, &[allow(None, all())], &[], [true; 4]);
    check(true, &[allow(Some(A), tcp(0, 65535))], &[A], [true, true, false, false]);
}

#[test]
fn tiers_are_weighed_in_order() {
    let deny = |tier, ports| (tier, Action::Deny, Some(A), ports);
    let pass = |tier, ports| (tier, Action::Pass, Some(A), ports);
    let admit = |tier, ports| (tier, Action::Allow, Some(A), ports);
    // nothing isolates: what nobody denies is open
    check(false, &[deny(Tier::Admin, tcp(80, 80))], &[A], [false, true, true, true]);
    check(false, &[deny(Tier::Baseline, all())], &[A], [false; 4]);
    check(false, &[admit(Tier::Baseline, tcp(80, 80)), deny(Tier::Baseline, all())], &[A], [true, false, false, false]);
    // the administrator's word counts before a policy's
    check(true, &[deny(Tier::Admin, tcp(80, 80)), allow(Some(A), tcp(80, 81))], &[A], [false, true, false, false]);
    check(true, &[admit(Tier::Admin, tcp(80, 80))], &[A], [true, false, false, false]);
    // the first rule that matches counts
    let ordered = [pass(Tier::Admin, tcp(80, 80)), deny(Tier::Admin, tcp(80, 81)), allow(Some(A), tcp(80, 81))];
    check(true, &ordered, &[A], [true, false, false, false]);
    // what is passed and isolated is refused, baseline or not
    let passed = [pass(Tier::Admin, all()), admit(Tier::Baseline, all())];
    check(true, &passed, &[A], [false; 4]);
    check(false, &passed, &[A], [true; 4]);
}

#[test]
fn a_policy_can_only_allow() {
    check(
        true,
        &[(Tier::NetworkPolicy, Action::Deny, None, tcp(80, 80)), allow(None, tcp(80, 80))],
        &[],
        [true, false, false, false],
    );
}

#[test]
fn equal_meanings_have_equal_ids() {
    let id = |of: &[RuleOf]| rules(true, of).id(|_| false);
    let plain = id(&[allow(Some(A), tcp(80, 90)), allow(Some(B), tcp(1, 1))]);
    assert_eq!(plain, id(&[allow(Some(B), tcp(1, 1)), allow(Some(A), tcp(86, 90)), allow(Some(A), tcp(80, 85))]));
    assert_ne!(plain, id(&[allow(Some(A), tcp(80, 90)), allow(Some(B), tcp(1, 2))]));
    // what everybody may do needs no peer
    assert_eq!(id(&[allow(None, tcp(80, 90))]), id(&[allow(None, tcp(80, 90)), allow(Some(A), tcp(80, 81))]));
    // the id is part of what is pinned: it must never change
    assert_eq!(id(&[]), 0x1bba_afb2_0eaf_fe6b);
}

#[test]
fn only_a_class_with_a_peer_of_the_table_has_a_row() {
    let table = Table::new(7, rules(true, &[allow(Some(A), tcp(80, 80))]));
    assert!(table.row(&[A, B]).is_some());
    assert_eq!(table.row(&[B]), None);
    assert_eq!(table.row(&[]), None);
}

#[test]
fn openness_is_about_whole_protocols() {
    #[track_caller]
    fn check(of: &[RuleOf], expected: u8) {
        assert_eq!(Table::new(7, rules(true, of)).everybody.open, Openness(expected));
    }
    check(&[], 0);
    check(&[allow(None, all())], Openness::UNNAMED | Openness::ALL_TCP | Openness::ALL_UDP | Openness::ALL_SCTP);
    check(&[allow(None, tcp(0, 65535))], Openness::ALL_TCP);
    check(&[allow(None, tcp(0, 65535)), allow(Some(A), tcp(80, 80))], Openness::ALL_TCP);
    check(&[allow(None, tcp(1, 65535))], 0);
}

#[test]
fn three_hundred_ports_fill_three_chunks() {
    let of: Vec<RuleOf> = (0..300_u16).map(|n| allow(Some(1000 + u64::from(n)), tcp(1 + n * 2, 1 + n * 2))).collect();
    let table = Table::new(7, rules(true, &of));
    let values: Vec<RowValue> = table.row(&[1299]).expect("a peer of the table").values(7, 9).collect();
    assert_eq!(values.iter().map(|row| row.key.chunk).collect::<Vec<_>>(), [0, 1, 2]);
    let class = table.port_class(Protocol::Tcp, 599);
    assert_eq!(class, 300);
    let set: u32 = values.iter().flat_map(|row| row.bits).map(u64::count_ones).sum();
    assert_eq!(set, 1);
    assert_eq!(values[2].bits[(class % CHUNK_BITS) as usize / 64] >> (class % 64) & 1, 1);
    assert_eq!(table.ports().count(), 300);
}
