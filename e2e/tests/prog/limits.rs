//! What the program reports and counts, and where it stops reporting.

use anyhow::{Result, ensure};
use aya::maps::PerCpuArray;
use e2e::packets::program::{Program, Sizes, Verdict};
use enforcer_abi::{Direction, EventBudget, EventKind, Reason, Settings, map};

use crate::fixture::{PORT, SLOT, SYN, Test, judge, program, segment, settings};

pub(crate) const TESTS: &[Test] = &[
    ("limits/event-rate", event_rate),
    ("limits/ring-buffer-full", ring_buffer_full),
    ("limits/flows-are-not-reported", flows_are_not_reported),
    ("limits/new-flows-are-reported", new_flows_are_reported),
    ("limits/counters-of-one-pod", counters_of_one_pod),
];

/// `packets` openings of a port that nobody may use.
fn denied(program: &Program, packets: u16) -> Result<()> {
    for port in 0..packets {
        let verdict = judge(program, Direction::Ingress, &segment(Direction::Ingress, 1024 + port, 22, SYN)?)?;
        ensure!(verdict == Verdict::Drop, "port {port} passed");
    }
    Ok(())
}

/// All CPUs' budgets: suppressed, lost.
fn unsent(program: &mut Program) -> Result<(u64, u64)> {
    let budgets: PerCpuArray<_, EventBudget> = PerCpuArray::try_from(program.map(map::EVENT_BUDGET)?)?;
    let budgets = budgets.get(&0, 0)?;
    Ok(budgets.iter().fold((0, 0), |sum, budget| (sum.0 + budget.suppressed, sum.1 + budget.lost)))
}

/// `Settings::event_rate`: events per second and CPU, and the depth of the bucket; what is over it is counted.
fn event_rate(hz: u64) -> Result<()> {
    let mut program = program(Settings { event_rate: 10, ..settings(hz) }, Sizes::new())?;
    denied(&program, 500)?;
    let sent = u64::try_from(program.events()?.len())?;
    let (suppressed, lost) = unsent(&mut program)?;
    // the thread may have run on each of the CPUs, and the buckets may have been refilled a little
    let cpus = u64::try_from(std::thread::available_parallelism()?.get())?;
    ensure!((10..=20 * cpus).contains(&sent), "{sent} events were sent");
    ensure!((sent + suppressed, lost) == (500, 0), "{sent} sent, {suppressed} suppressed, {lost} lost");
    ensure!(program.counters(SLOT)?[0][Reason::NoRule as usize] == 500, "drops are counted, reported or not");
    Ok(())
}

/// `EventBudget::lost`: events that were not sent, because the ring buffer was full.
fn ring_buffer_full(hz: u64) -> Result<()> {
    let settings = settings(hz);
    let mut program = program(settings, Sizes::from([(map::EVENTS, 4096)]))?;
    denied(&program, 500)?;
    let sent = u64::try_from(program.events()?.len())?;
    let (suppressed, lost) = unsent(&mut program)?;
    ensure!(lost > 0 && (sent + lost, suppressed) == (500, 0), "{sent} sent, {suppressed} suppressed, {lost} lost");
    denied(&program, 1)?;
    ensure!(program.events()?.len() == 1, "the ring buffer has room again");
    Ok(())
}

/// `Settings::report_flows`: 1: new flows are reported, not only drops.
fn flows_are_not_reported(hz: u64) -> Result<()> {
    let mut program = program(Settings { report_flows: 0, ..settings(hz) }, Sizes::new())?;
    let verdict = judge(&program, Direction::Ingress, &segment(Direction::Ingress, 40000, PORT, SYN)?)?;
    ensure!(verdict == Verdict::Pass && program.events()?.is_empty(), "a new flow was reported");
    denied(&program, 1)?;
    ensure!(program.events()?.len() == 1, "a drop was not reported");
    Ok(())
}

/// Once, by the packet that opens it.
fn new_flows_are_reported(hz: u64) -> Result<()> {
    let mut program = program(settings(hz), Sizes::new())?;
    judge(&program, Direction::Ingress, &segment(Direction::Ingress, 40000, PORT, SYN)?)?;
    let events = program.events()?;
    ensure!(matches!(events.as_slice(), [event] if event.kind == EventKind::NewFlow as u8), "{events:?}");
    ensure!(
        (events[0].table, events[0].class, events[0].port_class) == (crate::fixture::TABLE, crate::fixture::CLASS, 1)
    );
    judge(&program, Direction::Egress, &segment(Direction::Egress, 40000, PORT, e2e::packets::payload::TcpFlags(18))?)?;
    judge(&program, Direction::Ingress, &segment(Direction::Ingress, 40000, PORT, crate::fixture::ACK)?)?;
    ensure!(program.events()?.is_empty(), "packets of a known flow are reported");
    Ok(())
}

/// `PodEntry::slot`: no packet is counted with another pod's.
fn counters_of_one_pod(hz: u64) -> Result<()> {
    let mut program = program(settings(hz), Sizes::new())?;
    denied(&program, 3)?;
    ensure!(program.counters(SLOT)?[0][Reason::NoRule as usize] == 3, "three drops were not counted");
    for slot in [0, SLOT - 1, SLOT + 1] {
        ensure!(program.counters(slot)? == [[0; Reason::COUNT]; 2], "slot {slot} counts what isn't its");
    }
    Ok(())
}
