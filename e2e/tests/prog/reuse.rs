//! Hash elements that the kernel has given to another key while the program reads them (DESIGN section 6): values carry
//! their own key, which the program compares after reading. A value that says another key counts as none.

use anyhow::{Result, ensure};
use e2e::packets::{
    program::{Program, Sizes, Verdict},
    tables,
};
use enforcer_abi::{
    Address, Direction, FlowKey, FlowState, FlowValue, FrontEndKey, FrontEndState, FrontEndValue, Op, PeerFlags,
    PeerValue, PodEntry, PodFlags, PortKey, PortRangeKey, PortValue, Reason, RowKey, RowValue, Settings, map, protocol,
};

use crate::fixture::{
    ACK, CLASS, IFINDEX, POD, PORT, REMOTE, SYN, Test, entry, judge, peer, port, program, row, segment, settings,
};

pub(crate) const TESTS: &[Test] = &[
    ("reuse/fixture-is-open", fixture_is_open),
    ("reuse/peer", reused_peer),
    ("reuse/port", reused_port),
    ("reuse/range", reused_range),
    ("reuse/row", reused_row),
    ("reuse/front-end", reused_front_end),
    ("reuse/pod", reused_pod),
    ("reuse/previous-flows", previous_flows),
    ("reuse/cluster-ip-of-another-address", reused_cluster_ip),
];

fn opening(hz: u64, change: impl FnOnce(&mut Program) -> Result<()>) -> Result<Verdict> {
    let mut program = program(settings(hz), Sizes::new())?;
    change(&mut program)?;
    judge(&program, Direction::Ingress, &segment(Direction::Ingress, 40000, PORT, SYN)?)
}

fn fixture_is_open(hz: u64) -> Result<()> {
    ensure!(opening(hz, |_| Ok(()))? == Verdict::Pass, "the other tests would show nothing");
    Ok(())
}

fn reused_peer(hz: u64) -> Result<()> {
    let verdict = opening(hz, |program| {
        let value = PeerValue { address: Address::from_v4([10, 0, 0, 11]), ..peer() };
        Ok(program.hash::<Address, PeerValue>(map::PEERS)?.insert(Address::from(REMOTE), value, 0)?)
    })?;
    ensure!(verdict == Verdict::Drop, "another address's class was taken for this one's");
    Ok(())
}

fn reused_port(hz: u64) -> Result<()> {
    let verdict = opening(hz, |program| {
        let key = PortKey { port: 22, ..port().key };
        let value = PortValue { key, ..port() };
        Ok(program.hash::<PortKey, PortValue>(map::PORTS)?.insert(port().key, value, 0)?)
    })?;
    ensure!(verdict == Verdict::Drop, "another port's class was taken for this one's");
    Ok(())
}

fn reused_range(hz: u64) -> Result<()> {
    let verdict = |table| {
        opening(hz, |program| {
            let flags = entry().flags | PodFlags::INGRESS_RANGES;
            program.put_pod(PodEntry { flags, ..entry() })?;
            let key = PortRangeKey::new(port().key.table, protocol::TCP, PORT, u16::BITS);
            let value = PortValue { key: PortKey { table, ..port().key }, ..port() };
            tables::write(program, &[Op::DeletePort(port().key), Op::PutPortRange(key, value)])
        })
    };
    ensure!(verdict(port().key.table)? == Verdict::Pass, "the other half would show nothing");
    ensure!(verdict(99)? == Verdict::Drop, "another table's range was taken for this one's");
    Ok(())
}

fn reused_row(hz: u64) -> Result<()> {
    let verdict = opening(hz, |program| {
        let key = RowKey { class: 99, ..row().key };
        let value = RowValue { key, ..row() };
        Ok(program.hash::<RowKey, RowValue>(map::ROWS)?.insert(row().key, value, 0)?)
    })?;
    ensure!(verdict == Verdict::Drop, "another class's row was taken for this one's");
    Ok(())
}

fn reused_front_end(hz: u64) -> Result<()> {
    let verdict = |table| -> Result<Verdict> {
        let mut program = program(settings(hz), Sizes::new())?;
        let flags = PeerFlags::FRONT_END | PeerFlags::CLUSTER_IP;
        tables::write(&mut program, &[Op::PutPeer(PeerValue { class: 99, flags, ..peer() })])?;
        let (table_of_pod, address) = (entry().egress_table, Address::from(REMOTE));
        let key = FrontEndKey { table: table_of_pod, address, port: PORT, protocol: protocol::TCP, reserved: [0; 5] };
        let value = FrontEndValue { key: FrontEndKey { table, ..key }, state: FrontEndState::Open as u32, reserved: 0 };
        program.hash::<FrontEndKey, FrontEndValue>(map::FRONT_ENDS)?.insert(key, value, 0)?;
        judge(&program, Direction::Egress, &segment(Direction::Egress, PORT, 40000, SYN)?)
    };
    ensure!(verdict(entry().egress_table)? == Verdict::Pass, "the other half would show nothing");
    ensure!(verdict(99)? == Verdict::Drop, "another table's front end was taken for this one's");
    Ok(())
}

fn reused_pod(hz: u64) -> Result<()> {
    let verdict = opening(hz, |program| {
        let value = PodEntry { ifindex: IFINDEX + 1, ..entry() };
        Ok(program.hash::<u32, PodEntry>(map::PODS)?.insert(IFINDEX, value, 0)?)
    })?;
    ensure!(verdict == Verdict::Drop, "another interface's pod was taken for this one's");
    Ok(())
}

fn reused_cluster_ip(hz: u64) -> Result<()> {
    let mut program = program(settings(hz), Sizes::new())?;
    // a port without a front end would be closed, were this the address's own entry
    let value = PeerValue {
        address: Address::from_v4([10, 0, 0, 11]),
        class: CLASS,
        flags: PeerFlags::FRONT_END | PeerFlags::CLUSTER_IP,
        reserved: 0,
    };
    program.hash::<Address, PeerValue>(map::PEERS)?.insert(Address::from(REMOTE), value, 0)?;
    judge(&program, Direction::Egress, &segment(Direction::Egress, PORT, 40000, SYN)?)?;
    let counters = program.counters(crate::fixture::SLOT)?;
    let egress = counters[Direction::Egress as usize];
    ensure!(egress[Reason::NoRule as usize] == 1, "it was judged as the other address: {egress:?}");
    tables::write(&mut program, &[Op::PutPeer(PeerValue { address: Address::from(REMOTE), ..value })])?;
    judge(&program, Direction::Egress, &segment(Direction::Egress, PORT, 40000, SYN)?)?;
    let counters = program.counters(crate::fixture::SLOT)?;
    ensure!(counters[Direction::Egress as usize][Reason::FrontEndClosed as usize] == 1, "{counters:?}");
    Ok(())
}

/// While a larger table replaces one, flows are looked up in the old one, if the settings say so.
fn previous_flows(hz: u64) -> Result<()> {
    for (on, expected) in [(1, Verdict::Pass), (0, Verdict::Drop)] {
        let mut program = program(Settings { previous_flows: on, ..settings(hz) }, Sizes::new())?;
        let key = FlowKey {
            remote: Address::from(REMOTE),
            ifindex: IFINDEX,
            remote_port: 40000,
            pod_port: 22,
            protocol: protocol::TCP,
            reserved: [0; 3],
        };
        let value = FlowValue {
            pod: Address::from(POD),
            epoch: 0,
            last_seen: u32::try_from(program.jiffies()? & 0xffff_ffff)?,
            reason: Reason::Rule as u8,
            opener: Direction::Ingress as u8,
            state: FlowState::Established as u8,
            fins: 0,
        };
        program.hash::<FlowKey, FlowValue>(map::PREVIOUS_FLOWS)?.insert(key, value, 0)?;
        for direction in Direction::ALL {
            let verdict = judge(&program, direction, &segment(direction, 40000, 22, ACK)?)?;
            ensure!(verdict == expected, "previous_flows = {on}: {verdict:?} in direction {direction:?}");
        }
    }
    Ok(())
}
