//! Interfaces that come while no agent runs: held by what an agent has left pinned.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer::{Enforcer, PinsError, Unattended, UnattendedError, is_attached};
use enforcer_abi::Reason;

use crate::{
    Test,
    support::{has_tcx, on_node, run},
};

pub(crate) const TESTS: &[Test] = &tests![
    an_interface_is_held_and_what_its_index_was_before_is_forgotten,
    flows_of_what_had_the_index_before_do_not_pass,
    half_an_attachment_is_completed_and_its_entry_stays needs Tcx,
    programs_of_another_layout_will_do,
    pins_of_interfaces_that_are_gone_are_cleared_away,
    an_agent_goes_first_and_waits_for_who_stands_in_for_it,
    without_programs_nothing_can_be_held,
];

fn lock(pin_dir: &std::path::Path) -> Unattended {
    Unattended::lock(pin_dir).unwrap().expect("no agent runs")
}

fn an_interface_is_held_and_what_its_index_was_before_is_forgotten() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open();
        let mut events = enforcer.events().unwrap();
        // as left by a pod whose interface went while no agent ran
        enforcer.put_pod(pod.entry()).unwrap();
        drop(enforcer);
        assert!(!is_attached(&node.pin_dir, pod.ifindex).unwrap());
        assert_eq!(pod.send(&mut events), Ok(()), "nothing is attached yet");

        lock(&node.pin_dir).hold(pod.ifindex).unwrap();
        assert!(is_attached(&node.pin_dir, pod.ifindex).unwrap());
        assert_eq!(pod.send(&mut events).expect_err("held").reason, Reason::Held as u8);

        let mut enforcer = node.open();
        assert!(enforcer.attached().unwrap()[0].complete);
        assert_eq!(enforcer.contents().unwrap().pods, []);
        enforcer.put_pod(pod.entry()).unwrap();
        assert_eq!(pod.send(&mut events), Ok(()));
    });
}

/// The fast path knows an interface by its index alone.
fn flows_of_what_had_the_index_before_do_not_pass() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open();
        let mut events = enforcer.events().unwrap();
        enforcer.put_pod(pod.entry()).unwrap();
        enforcer.attach(pod.ifindex).unwrap();
        let (from, to) = pod.ends();
        assert_eq!(pod.send_between(&from, &to, &mut events), Ok(()));
        to.send_to(b"answer", from.local_addr().unwrap()).unwrap();
        from.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        from.recv(&mut [0; 8]).expect("the answer");
        // as an interface that goes while no agent runs, and one that comes with its index
        enforcer.detach(pod.ifindex).unwrap();
        drop(enforcer);
        lock(&node.pin_dir).hold(pod.ifindex).unwrap();
        let event = pod.send_between(&from, &to, &mut events).expect_err("it was another pod's flow");
        assert_eq!(event.reason, Reason::Held as u8);
    });
}

/// Once it runs one of the programs, an interface's entry is its own.
fn half_an_attachment_is_completed_and_its_entry_stays() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open();
        let mut events = enforcer.events().unwrap();
        enforcer.put_pod(pod.entry()).unwrap();
        enforcer.attach(pod.ifindex).unwrap();
        drop(enforcer);
        let programs = pod.programs(node);
        lock(&node.pin_dir).hold(pod.ifindex).unwrap();
        assert_eq!(pod.send(&mut events), Ok(()));
        std::fs::remove_file(node.pin_dir.join("links").join(format!("{}-from", pod.ifindex))).unwrap();
        assert!(!is_attached(&node.pin_dir, pod.ifindex).unwrap());
        // the kernel lets go of a link a moment after its pin
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(error) = lock(&node.pin_dir).hold(pod.ifindex) {
            assert!(Instant::now() < deadline, "{error:?}");
            thread::yield_now();
        }
        assert_eq!((pod.send(&mut events), pod.programs(node)), (Ok(()), programs));
    });
}

fn programs_of_another_layout_will_do() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open();
        let mut events = enforcer.events().unwrap();
        enforcer.put_pod(pod.entry()).unwrap();
        drop(enforcer);
        let own = node.pin_dir.join(format!("v{}", enforcer_abi::LAYOUT_VERSION));
        std::fs::rename(own, node.pin_dir.join("v999")).unwrap();
        lock(&node.pin_dir).hold(pod.ifindex).unwrap();
        assert_eq!(pod.send(&mut events).expect_err("held").reason, Reason::Held as u8);
    });
}

fn pins_of_interfaces_that_are_gone_are_cleared_away() {
    on_node(|node| {
        let (pod, other) = (node.pod(), node.pod());
        drop(node.open());
        let mut unattended = lock(&node.pin_dir);
        unattended.hold(pod.ifindex).unwrap();
        unattended.hold(other.ifindex).unwrap();
        run("ip", &format!("link del {}", pod.interface));
        unattended.clear().unwrap();
        if has_tcx() {
            assert_eq!(node.pins("links"), [format!("{}-from", other.ifindex), format!("{}-to", other.ifindex)]);
        }
        assert!(is_attached(&node.pin_dir, other.ifindex).unwrap());
    });
}

fn an_agent_goes_first_and_waits_for_who_stands_in_for_it() {
    on_node(|node| {
        let error = Unattended::lock(&node.pin_dir).map(drop).unwrap_err();
        let UnattendedError::Pins(PinsError::Nothing { .. }) = error else { panic!("{error:?}") };
        let enforcer = node.open();
        assert!(Unattended::lock(&node.pin_dir).unwrap().is_none());
        drop(enforcer);
        let unattended = lock(&node.pin_dir);
        assert!(Unattended::lock(&node.pin_dir).unwrap().is_none());
        let standing_in = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(unattended);
        });
        Enforcer::open(&node.options()).map(drop).unwrap();
        standing_in.join().unwrap();
    });
}

fn without_programs_nothing_can_be_held() {
    on_node(|node| {
        let pod = node.pod();
        std::fs::create_dir(&node.pin_dir).unwrap();
        let error = lock(&node.pin_dir).hold(pod.ifindex).unwrap_err();
        assert!(matches!(error, UnattendedError::NoPrograms { .. }), "{error:?}");
    });
}
