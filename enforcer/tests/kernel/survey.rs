//! What of others judges pods' packets, too, and what our maps take of the kernel's memory.

use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use enforcer::{Mode, OtherProgram, nft_names};
use enforcer_abi::{Direction, FlowKey, FlowValue, map};

use crate::{
    Test,
    attach::{classifier, foreign},
    support::{mechanisms, on_node, run},
};

pub(crate) const TESTS: &[Test] = &tests![
    filters_of_others_are_found_on_interfaces_that_run_ours,
    tcx_programs_of_others_are_found_ahead_and_behind needs Tcx,
    tables_and_chains_of_nftables_are_told,
    what_each_map_takes_is_told,
];

fn filters_of_others_are_found_on_interfaces_that_run_ours() {
    for (hooks, mode) in mechanisms() {
        on_node(move |node| {
            let (pod, elsewhere) = (node.pod(), node.pod());
            let mut enforcer = node.open_with(hooks);
            enforcer.attach(pod.ifindex).unwrap();
            let survey = enforcer.survey();
            assert_eq!(survey.programs().unwrap(), [], "{mode:?}");

            let pinned = node.pin(map::FROM_POD);
            for there in [&pod, &elsewhere] {
                if mode == Mode::Tcx || there.ifindex == elsewhere.ifindex {
                    run("tc", &format!("qdisc add dev {} clsact", there.interface));
                }
                // one that judges packets behind ours, and one that is no program
                let filter = format!("filter add dev {} egress prio", there.interface);
                run("tc", &format!("{filter} 7 bpf da pinned {}", pinned.display()));
                run("tc", &format!("{filter} 8 protocol ip u32 match u32 0 0"));
            }
            let found = survey.programs().unwrap();
            let [OtherProgram { ifindex, direction, id: Some(_), name: Some(name) }] = &found[..] else {
                panic!("{mode:?}: {found:?}");
            };
            assert_eq!((*ifindex, *direction), (pod.ifindex, Direction::Ingress), "{mode:?}");
            assert!(name.contains(map::FROM_POD), "{mode:?}: {name}");
        });
    }
}

fn tcx_programs_of_others_are_found_ahead_and_behind() {
    for (hooks, mode) in mechanisms() {
        on_node(move |node| {
            let pod = node.pod();
            let mut enforcer = node.open_with(hooks);
            enforcer.attach(pod.ifindex).unwrap();
            let survey = enforcer.survey();
            let (mut first, mut last) = (foreign(), foreign());
            for (other, order) in [(&mut first, LinkOrder::first()), (&mut last, LinkOrder::last())] {
                let order = TcAttachOptions::TcxOrder(order);
                classifier(other).attach_with_options(&pod.interface, TcAttachType::Ingress, order).unwrap();
            }
            let others = [&mut first, &mut last].map(|other| OtherProgram {
                ifindex: pod.ifindex,
                direction: Direction::Egress,
                id: Some(classifier(other).info().unwrap().id()),
                name: Some(map::CLOCK.to_owned()),
            });
            assert_eq!(survey.programs().unwrap(), others, "{mode:?}");
            drop((first, last));
            assert_eq!(survey.programs().unwrap(), [], "{mode:?}: they are gone");
        });
    }
}

fn tables_and_chains_of_nftables_are_told() {
    on_node(|_| {
        let names = || {
            let mut names = Vec::new();
            nft_names(|table, chain| names.push(format!("{table} {}", chain.unwrap_or("-")))).unwrap();
            names
        };
        assert_eq!(names(), [""; 0]);
        run("nft", "add table inet kindnet-network-policies");
        run("nft", "add table ip filter");
        // more than one datagram holds
        let chains: Vec<String> = (0..500).map(|number| format!("cali-tw-{number:03}")).collect();
        for some in chains.chunks(100) {
            let commands: Vec<String> = some.iter().map(|chain| format!("add chain ip filter {chain}")).collect();
            run("nft", &commands.join(";"));
        }
        let expected = ["kindnet-network-policies -".to_owned(), "filter -".to_owned()].into_iter();
        let expected: Vec<String> = expected.chain(chains.iter().map(|chain| format!("filter {chain}"))).collect();
        assert_eq!(names(), expected);
    });
}

fn what_each_map_takes_is_told() {
    on_node(|node| {
        let enforcer = node.open();
        let memory = enforcer.memory();
        let of = |name| memory.iter().find(|memory| memory.map == name).map(|memory| memory.bytes);
        let entries = u64::from(node.options().sizes.flows);
        let least = entries * u64::try_from(size_of::<FlowKey>() + size_of::<FlowValue>()).unwrap();
        let flows = of(map::FLOWS).unwrap();
        assert!((least..least * 8).contains(&flows), "{entries} flows take {flows} bytes");
        assert!(of(map::EVENTS).unwrap() >= u64::from(node.options().sizes.event_bytes));
        assert_eq!(of(map::PREVIOUS_FLOWS), None, "it is not in use");
        assert_eq!(memory.len(), 17, "{memory:?}");
    });
}
