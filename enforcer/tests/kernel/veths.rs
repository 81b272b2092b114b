//! Which veth leads to which addresses, seen from the node alone.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use enforcer::veth::{Change, Exclusions, Interfaces, Watcher};

use crate::{
    Test,
    support::{on_node, run, wait_for},
};

pub(crate) const TESTS: &[Test] = &tests![
    addresses_behind_a_veth_are_seen_without_entering_the_namespace,
    a_pair_within_one_namespace_leads_nowhere_else,
    uplinks_and_excluded_names_are_no_candidates,
    default_routes_with_several_next_hops_and_of_ipv6_count,
    veths_and_the_addresses_behind_them_are_announced,
    interfaces_of_pods_are_not_taken_for_the_nodes,
    a_namespace_that_has_an_id_for_itself_still_hears_of_its_own_interfaces,
];

fn addresses_behind_a_veth_are_seen_without_entering_the_namespace() {
    on_node(|node| {
        let pods = [node.pod(), node.pod()];
        pods[0].run(|| {
            run("ip", "addr add 2001:db8::2/64 dev eth0 nodad");
            // Another interface's address is none of this veth's.
            run("ip", "link add eth1 type veth peer name other");
            run("ip", "addr add 172.16.0.1/24 dev eth1");
        });
        let mut interfaces = Interfaces::open().unwrap();
        let veths = interfaces.veths().unwrap();
        assert_eq!(veths.iter().map(|veth| veth.ifindex).collect::<Vec<_>>(), [pods[0].ifindex, pods[1].ifindex]);
        assert_eq!(veths[0].name, pods[0].interface);
        assert_ne!(veths[0].netns, veths[1].netns);
        let v6: IpAddr = "2001:db8::2".parse().unwrap();
        assert_eq!(interfaces.addresses_behind(&veths[0]).unwrap(), [pods[0].address(), v6]);
        assert_eq!(interfaces.addresses_behind(&veths[1]).unwrap(), [pods[1].address()]);
        let own: Vec<IpAddr> = interfaces.own_addresses().unwrap().into_iter().map(|(_, address)| address).collect();
        assert!(own.contains(&pods[0].gateway()) && !own.contains(&pods[0].address()), "{own:?}");
    });
}

fn a_pair_within_one_namespace_leads_nowhere_else() {
    on_node(|_| {
        run("ip", "link add sluice-a type veth peer name sluice-b");
        run("ip", "link add sluice-c type bridge");
        assert_eq!(Interfaces::open().unwrap().veths().unwrap(), []);
    });
}

fn uplinks_and_excluded_names_are_no_candidates() {
    on_node(|node| {
        let pods = [node.pod(), node.pod(), node.pod(), node.pod()];
        run("ip", "link add sluice-v6 type bridge");
        run("ip", &format!("route add default via 10.0.1.2 dev {}", pods[0].interface));
        let exclusions = Exclusions { names: vec![pods[1].interface.clone()], node_addresses: vec![pods[2].gateway()] };
        let mut interfaces = Interfaces::open().unwrap();
        assert_eq!(interfaces.default_route_links().unwrap(), [pods[0].ifindex]);
        let candidates: Vec<u32> =
            interfaces.candidates(&exclusions).unwrap().into_iter().map(|veth| veth.ifindex).collect();
        assert_eq!(candidates, [pods[3].ifindex]);
    });
}

fn default_routes_with_several_next_hops_and_of_ipv6_count() {
    on_node(|node| {
        let pods = [node.pod(), node.pod(), node.pod()];
        let [a, b, c] = &pods;
        let hops = format!(
            "route add default nexthop via 10.0.1.2 dev {} nexthop via 10.0.2.2 dev {}",
            a.interface, b.interface
        );
        run("ip", &hops);
        run("ip", &format!("-6 route add default dev {}", c.interface));
        let links = Interfaces::open().unwrap().default_route_links().unwrap();
        assert_eq!(links, [a.ifindex, b.ifindex, c.ifindex]);
    });
}

/// Reads changes until one is as wanted.
#[track_caller]
fn until(watcher: &mut Watcher, mut wanted: impl FnMut(&Change) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        wait_for(&[&*watcher], deadline);
        if watcher.read().unwrap().iter().any(&mut wanted) {
            return;
        }
    }
    panic!("no such change was announced");
}

fn veths_and_the_addresses_behind_them_are_announced() {
    on_node(|node| {
        let mut watcher = Watcher::open().unwrap();
        let pod = node.pod();
        until(
            &mut watcher,
            |change| matches!(change, Change::Link(link) if link.ifindex == pod.ifindex && link.leads_elsewhere() && link.up),
        );
        let mut interfaces = Interfaces::open().unwrap();
        let veth = interfaces.veths().unwrap().remove(0);
        let netns = veth.netns.unwrap();
        watcher.read().unwrap();

        pod.run(|| run("ip", "addr add 10.7.7.7/32 dev eth0"));
        until(&mut watcher, |change| *change == Change::AddressesBehind { netns });
        assert!(interfaces.addresses_behind(&veth).unwrap().contains(&"10.7.7.7".parse().unwrap()));
        pod.run(|| run("ip", "addr del 10.7.7.7/32 dev eth0"));
        until(&mut watcher, |change| *change == Change::AddressesBehind { netns });
        run("ip", &format!("addr add 10.8.8.8/32 dev {}", pod.interface));
        until(&mut watcher, |change| *change == Change::OwnAddresses);

        // The pod's namespace ends, and its veth with it.
        let ifindex = pod.ifindex;
        drop(pod);
        until(&mut watcher, |change| *change == Change::Gone { ifindex });
        assert_eq!(interfaces.addresses_behind(&veth).unwrap(), [] as [IpAddr; 0]);
    });
}

fn interfaces_of_pods_are_not_taken_for_the_nodes() {
    on_node(|node| {
        let pod = node.pod();
        let mut interfaces = Interfaces::open().unwrap();
        interfaces.veths().unwrap();
        let mut watcher = Watcher::open().unwrap();
        pod.run(|| {
            run("ip", "link add sluice-x type bridge");
            run("ip", "link del sluice-x");
            run("ip", "addr add 10.7.7.7/32 dev eth0");
        });
        let mut changes = Vec::new();
        until(&mut watcher, |change| {
            changes.push(change.clone());
            matches!(change, Change::AddressesBehind { .. })
        });
        // The veth itself may still be settling.
        let of_the_pod = changes.iter().find(|change| match change {
            Change::Link(link) => link.ifindex != pod.ifindex || link.name != pod.interface,
            Change::Gone { .. } => true,
            _ => false,
        });
        assert_eq!(of_the_pod, None, "{changes:?}");
    });
}

/// A name below /run/netns for the test's own namespace, as long as this lives.
struct Named(String);

impl Named {
    fn own_namespace(id: u32) -> Self {
        let name = format!("sluice-own-{}", nix::unistd::gettid());
        run("ip", &format!("netns attach {name} {}", nix::unistd::gettid()));
        let named = Self(name);
        run("ip", &format!("netns set {} {id}", named.0));
        named
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        run("ip", &format!("netns delete {}", self.0));
    }
}

fn a_namespace_that_has_an_id_for_itself_still_hears_of_its_own_interfaces() {
    // Given before, and given while somebody listens.
    for before in [true, false] {
        on_node(move |node| {
            let early = before.then(|| Named::own_namespace(77));
            let mut watcher = Watcher::open().unwrap();
            let late = (!before).then(|| Named::own_namespace(77));
            let pod = node.pod();
            until(&mut watcher, |change| matches!(change, Change::Link(link) if link.ifindex == pod.ifindex));
            drop((early, late));
        });
    }
}
