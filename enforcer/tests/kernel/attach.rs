//! Programs on interfaces, by both mechanisms.

use aya::{
    Ebpf, EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use enforcer::{Ahead, AttachError, Attached, Hooks, Mode};
use enforcer_abi::{Direction, Reason, map};

use crate::{
    Test,
    support::{Node, Pod, mechanisms, on_node, run},
};

pub(crate) const TESTS: &[Test] = &tests![
    attached_means_held_until_the_pod_is_known_and_detached_means_free,
    a_new_program_replaces_the_old_one_in_its_place,
    a_change_of_mechanism_leaves_one,
    half_an_attachment_is_noticed_and_completed needs Tcx,
    a_program_that_comes_ahead_of_ours_is_reported needs Tcx,
    a_filter_that_comes_ahead_of_ours_is_reported,
    where_an_ingress_qdisc_is_clsact_is_refused,
    where_an_ingress_qdisc_is_tcx_is_not_refused needs Tcx,
    an_interface_that_is_gone_is_said_to_be_and_leaves_no_pins,
];

fn attached_means_held_until_the_pod_is_known_and_detached_means_free() {
    for (hooks, mode) in mechanisms() {
        on_node(move |node| {
            let pod = node.pod();
            let mut enforcer = node.open_with(hooks);
            let mut events = enforcer.events().unwrap();
            assert_eq!(pod.send(&mut events), Ok(()), "{mode:?}: nothing is attached yet");

            let attachment = enforcer.attach(pod.ifindex).unwrap();
            assert_eq!((attachment.mode, attachment.ahead), (mode, vec![]));
            assert_eq!(enforcer.attached().unwrap(), [Attached { ifindex: pod.ifindex, mode, complete: true }]);
            let dropped = pod.send(&mut events).expect_err("held");
            assert_eq!((dropped.reason, dropped.direction), (Reason::Held as u8, Direction::Egress as u8));

            enforcer.put_pod(pod.entry()).unwrap();
            assert_eq!(pod.send(&mut events), Ok(()), "{mode:?}: nothing isolates it");
            enforcer.delete_pod(pod.ifindex).unwrap();
            assert!(pod.send(&mut events).is_err(), "{mode:?}: held again");

            enforcer.detach(pod.ifindex).unwrap();
            assert_eq!(enforcer.attached().unwrap(), []);
            assert_eq!(pod.send(&mut events), Ok(()), "{mode:?}: detached");
            assert_eq!(node.pins("links"), [""; 0]);
        });
    }
}

fn a_new_program_replaces_the_old_one_in_its_place() {
    for (hooks, mode) in mechanisms() {
        on_node(move |node| {
            let pod = node.pod();
            let mut enforcer = node.open_with(hooks);
            enforcer.attach(pod.ifindex).unwrap();
            let before = pod.programs(node);
            enforcer.attach(pod.ifindex).unwrap();
            assert_eq!(pod.programs(node), before, "{mode:?}: attaching twice is once");
            drop(enforcer);

            let mut enforcer = node.open_with(hooks);
            let after = pod.programs(node);
            assert!(before.iter().all(|id| !after.contains(id)), "{mode:?}: {before:?} {after:?}");
            assert_eq!(enforcer.attach(pod.ifindex).unwrap().ahead, []);
        });
    }
}

fn a_change_of_mechanism_leaves_one() {
    on_node(|node| {
        let pod = node.pod();
        for (hooks, mode) in mechanisms().into_iter().chain(mechanisms()) {
            let mut enforcer = node.open_with(hooks);
            enforcer.attach(pod.ifindex).unwrap();
            assert_eq!(enforcer.attached().unwrap(), [Attached { ifindex: pod.ifindex, mode, complete: true }]);
            let mut events = enforcer.events().unwrap();
            assert!(pod.send(&mut events).is_err(), "{mode:?}: held");
        }
    });
}

fn half_an_attachment_is_noticed_and_completed() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open();
        enforcer.attach(pod.ifindex).unwrap();
        drop(enforcer);
        // As after a crash between the two directions.
        std::fs::remove_file(node.pin_dir.join("links").join(format!("{}-from", pod.ifindex))).unwrap();
        let mut enforcer = node.open();
        let half = Attached { ifindex: pod.ifindex, mode: Mode::Tcx, complete: false };
        assert_eq!(enforcer.attached().unwrap(), [half]);
        enforcer.attach(pod.ifindex).unwrap();
        assert_eq!(enforcer.attached().unwrap(), [Attached { complete: true, ..half }]);
    });
}

/// A program of somebody else.
pub(crate) fn foreign() -> Ebpf {
    let mut loader = EbpfLoader::new();
    for name in [map::FLOWS, map::OPENINGS, map::PREVIOUS_FLOWS, map::FRAGMENTS, map::COUNTERS] {
        loader.map_max_entries(name, 1);
    }
    let mut ebpf = loader.load(enforcer::OBJECT).unwrap();
    classifier(&mut ebpf).load().unwrap();
    ebpf
}

pub(crate) fn classifier(ebpf: &mut Ebpf) -> &mut SchedClassifier {
    ebpf.program_mut(map::CLOCK).unwrap().try_into().unwrap()
}

fn a_program_that_comes_ahead_of_ours_is_reported() {
    for (hooks, mode) in mechanisms() {
        on_node(move |node| {
            let pod = node.pod();
            let mut enforcer = node.open_with(hooks);
            let mut other = foreign();
            let order = TcAttachOptions::TcxOrder(LinkOrder::first());
            classifier(&mut other).attach_with_options(&pod.interface, TcAttachType::Egress, order).unwrap();
            let attachment = enforcer.attach(pod.ifindex).unwrap();
            let id = classifier(&mut other).info().unwrap().id();
            let ahead = Ahead { direction: Direction::Ingress, id: Some(id), name: map::CLOCK.to_owned() };
            match mode {
                // We came first, though it was there before.
                Mode::Tcx => assert_eq!(attachment.ahead, []),
                // TCX programs run before all filters.
                Mode::Clsact => assert_eq!(attachment.ahead, [ahead]),
            }

            let mut later = foreign();
            let order = TcAttachOptions::TcxOrder(LinkOrder::first());
            classifier(&mut later).attach_with_options(&pod.interface, TcAttachType::Ingress, order).unwrap();
            let reported = enforcer.attach(pod.ifindex).unwrap().ahead;
            let id = classifier(&mut later).info().unwrap().id();
            let ahead = Ahead { direction: Direction::Egress, id: Some(id), name: map::CLOCK.to_owned() };
            assert!(reported.contains(&ahead), "{mode:?}: {reported:?}");
        });
    }
}

fn a_filter_that_comes_ahead_of_ours_is_reported() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open_with(Hooks::Clsact);
        enforcer.attach(pod.ifindex).unwrap();
        // At the same priority the newer filter runs first.
        let pinned = node.pin(map::FROM_POD);
        let filter = format!("filter add dev {} ingress prio 1 bpf da pinned {}", pod.interface, pinned.display());
        run("tc", &filter);
        let ahead = enforcer.attach(pod.ifindex).unwrap().ahead;
        assert_eq!(ahead.len(), 1, "{ahead:?}");
        assert_eq!(ahead[0].direction, Direction::Egress);
    });
}

/// A pod at whose interface somebody has put a qdisc that is no clsact.
fn with_ingress_qdisc(node: &mut Node) -> Pod {
    let pod = node.pod();
    run("tc", &format!("qdisc add dev {} ingress", pod.interface));
    pod
}

fn where_an_ingress_qdisc_is_clsact_is_refused() {
    on_node(|node| {
        let pod = with_ingress_qdisc(node);
        let error = node.open_with(Hooks::Clsact).attach(pod.ifindex).unwrap_err();
        assert!(matches!(error, AttachError::IngressQdisc { ifindex } if ifindex == pod.ifindex), "{error:?}");
    });
}

fn where_an_ingress_qdisc_is_tcx_is_not_refused() {
    on_node(|node| {
        let pod = with_ingress_qdisc(node);
        assert_eq!(node.open().attach(pod.ifindex).unwrap().mode, Mode::Tcx);
    });
}

fn an_interface_that_is_gone_is_said_to_be_and_leaves_no_pins() {
    for (hooks, _) in mechanisms() {
        on_node(move |node| {
            let pod = node.pod();
            let mut enforcer = node.open_with(hooks);
            enforcer.attach(pod.ifindex).unwrap();
            run("ip", &format!("link del {}", pod.interface));
            assert_eq!(enforcer.attached().unwrap(), []);
            assert_eq!(node.pins("links"), [""; 0]);
            let error = enforcer.attach(pod.ifindex).unwrap_err();
            assert!(matches!(error, AttachError::Gone { ifindex } if ifindex == pod.ifindex), "{error:?}");
            enforcer.detach(pod.ifindex).unwrap();
        });
    }
}
