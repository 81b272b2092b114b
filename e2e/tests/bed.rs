//! The test bed itself, without Sluice: what is asked between pods gets through, on both wirings, in both families, across
//! nodes and through Services. A denial that another test sees is therefore Sluice's.
#![forbid(unsafe_code)]

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{
    Fabric, Node, Outcome, Pod, Probe, RawSocket, Server, Stream, Transport, Wiring, is_root, probe, probe_all,
    services::Ruleset,
};
use policy_compiler::model::{Endpoint, EndpointPort, EndpointSlice, ObjectName, Protocol, Service, ServicePort};

const PORT: u16 = 8080;
const NODE_PORT: u16 = 30080;
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];
const EXTERNAL_IPS: [&str; 2] = ["198.51.100.5", "2001:db8:1::5"];

/// Two nodes with two pods each, and a server in every pod.
struct Bed {
    fabric: Fabric,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    _servers: Vec<Server>,
}

impl Bed {
    fn create(wiring: Wiring) -> Result<Self> {
        let fabric = Fabric::create()?;
        let nodes = vec![fabric.node("n1", 1, wiring)?, fabric.node("n2", 2, wiring)?];
        let mut pods = Vec::new();
        for (node, name) in [(0, "a"), (0, "b"), (1, "c"), (1, "d")] {
            pods.push(nodes[node].pod(name)?);
        }
        let servers = pods
            .iter()
            .map(|pod| Server::start(pod.namespace(), pod.name(), &[(Transport::Tcp, PORT), (Transport::Udp, PORT)]))
            .collect::<Result<_>>()?;
        Ok(Self { fabric, nodes, pods, _servers: servers })
    }

    fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name() == name).expect("the four pods' names are above")
    }

    /// A Service of port 80 for the pods of these names.
    fn serve(&self, back_ends: &[&str], change: impl Fn(&mut Service)) -> Result<()> {
        let name = ObjectName::new("shop", "web");
        let port = ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: Some(NODE_PORT) };
        let udp = ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: 53, node_port: None };
        let mut service = Service {
            name: name.clone(),
            cluster_ips: addresses(CLUSTER_IPS),
            external_ips: addresses(EXTERNAL_IPS),
            ports: vec![port, udp],
            internal_local: false,
            external_local: false,
        };
        change(&mut service);
        let slices: Vec<EndpointSlice> = [0, 1]
            .map(|family: usize| EndpointSlice {
                name: ObjectName::new("shop", format!("web-{family}")),
                service: "web".into(),
                ports: vec![
                    EndpointPort { name: "http".into(), protocol: Protocol::Tcp, number: PORT },
                    EndpointPort { name: "dns".into(), protocol: Protocol::Udp, number: PORT },
                ],
                endpoints: back_ends
                    .iter()
                    .map(|name| Endpoint {
                        addresses: vec![self.pod(name).addresses()[family]],
                        ready: true,
                        serving: true,
                        terminating: false,
                        node: Some(if ["a", "b"].contains(name) { "n1".into() } else { "n2".into() }),
                    })
                    .collect(),
            })
            .into();
        for node in &self.nodes {
            node.set_services(&Ruleset::new(node.name(), std::slice::from_ref(&service), &slices))?;
        }
        Ok(())
    }
}

fn addresses(text: [&str; 2]) -> Vec<IpAddr> {
    text.iter().map(|text| text.parse().expect("the constants above are addresses")).collect()
}

/// Nothing of this is possible without root; `cargo xtask test` says so and leaves this target out.
fn entitled() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root");
    }
    is_root()
}

#[test]
fn every_pod_reaches_every_pod() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    for wiring in Wiring::ALL {
        let bed = Bed::create(wiring)?;
        let mut probes = Vec::new();
        let mut expected = Vec::new();
        for from in &bed.pods {
            for to in &bed.pods {
                for address in to.addresses() {
                    for transport in [Transport::Tcp, Transport::Udp, Transport::Icmp] {
                        let port = if transport == Transport::Icmp { 0 } else { PORT };
                        let to_address = SocketAddr::new(*address, port);
                        probes.push(Probe {
                            from: from.namespace(),
                            source: None,
                            transport,
                            to: to_address,
                            expected: Outcome::Open,
                        });
                        expected.push((from, to, *address, transport));
                    }
                }
            }
        }
        for (answer, (from, to, address, transport)) in probe_all(&probes)?.into_iter().zip(expected) {
            let what = format!("{wiring:?}: {} to {} ({address}) over {transport}", from.name(), to.name());
            assert_eq!(answer.outcome, Outcome::Open, "{what}");
            if transport != Transport::Icmp {
                let greeting = answer.greeting.context("an open port greets")?;
                assert_eq!(greeting.server, to.name(), "{what}");
                assert!(from.addresses().contains(&greeting.client), "{what}: the server saw {}", greeting.client);
            }
        }
    }
    Ok(())
}

#[test]
fn a_closed_port_refuses_and_a_filter_drops() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let bed = Bed::create(Wiring::PointToPoint)?;
    let (a, b) = (bed.pod("a"), bed.pod("b"));
    b.namespace().nft(
        "table inet filter {\n chain input {\n type filter hook input priority 0;\n \
         tcp dport 81 drop\n udp dport 81 drop\n tcp dport 83 reject with tcp reset\n udp dport 83 reject with icmpx type admin-prohibited\n }\n}\n",
    )?;
    for address in b.addresses() {
        for (transport, port, outcome) in [
            (Transport::Tcp, 81, Outcome::Dropped),
            (Transport::Udp, 81, Outcome::Dropped),
            (Transport::Tcp, 82, Outcome::Refused),
            (Transport::Udp, 82, Outcome::Refused),
            (Transport::Tcp, 83, Outcome::Refused),
            (Transport::Udp, 83, Outcome::Refused),
        ] {
            let answer = probe(a.namespace(), transport, SocketAddr::new(*address, port), outcome)?;
            assert_eq!(answer.outcome, outcome, "{transport} {address} {port}");
        }
    }
    Ok(())
}

#[test]
fn nodes_and_the_outside_reach_pods_and_are_reached() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    for wiring in Wiring::ALL {
        let bed = Bed::create(wiring)?;
        let _outside = Server::start(bed.fabric.outside(), "outside", &[(Transport::Tcp, PORT)])?;
        let _node = Server::start(bed.nodes[0].namespace(), "n1", &[(Transport::Tcp, PORT)])?;
        for family in [0, 1] {
            let pod = bed.pod("a").addresses()[family];
            let node = bed.nodes[0].addresses()[family];
            let outside = bed.fabric.outside_addresses()[family];
            let questions = [
                (bed.nodes[0].namespace(), pod, "a"),
                (bed.nodes[1].namespace(), pod, "a"),
                (bed.fabric.outside(), pod, "a"),
                (bed.pod("a").namespace(), node, "n1"),
                (bed.pod("c").namespace(), node, "n1"),
                (bed.pod("a").namespace(), outside, "outside"),
            ];
            for (from, to, name) in questions {
                let answer = probe(from, Transport::Tcp, SocketAddr::new(to, PORT), Outcome::Open)?;
                let greeting = answer.greeting.with_context(|| format!("{wiring:?}: {} to {to}", from.name()))?;
                assert_eq!(greeting.server, name);
            }
        }
    }
    Ok(())
}

#[test]
fn services_lead_to_their_back_ends() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    for wiring in Wiring::ALL {
        let bed = Bed::create(wiring)?;
        bed.serve(&["b", "c"], |_| {})?;
        for family in [0, 1] {
            let cluster_ip = addresses(CLUSTER_IPS)[family];
            let external_ip = addresses(EXTERNAL_IPS)[family];
            let mut seen = Vec::new();
            // Two back ends chosen at random: all of 64 the same would be a chance of 2^-63.
            let probes = vec![
                Probe {
                    from: bed.pod("a").namespace(),
                    source: None,
                    transport: Transport::Tcp,
                    to: SocketAddr::new(cluster_ip, 80),
                    expected: Outcome::Open,
                };
                64
            ];
            for answer in probe_all(&probes)? {
                let greeting = answer.greeting.with_context(|| format!("{wiring:?}: {cluster_ip} did not answer"))?;
                assert_eq!(greeting.client, bed.pod("a").addresses()[family], "a pod is not masqueraded");
                seen.push(greeting.server);
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen, ["b", "c"], "{wiring:?}");

            let answer =
                probe(bed.pod("a").namespace(), Transport::Udp, SocketAddr::new(cluster_ip, 53), Outcome::Open)?;
            assert_eq!(answer.outcome, Outcome::Open, "{wiring:?}: UDP through the Service");
            let node_port = SocketAddr::new(bed.nodes[0].addresses()[family], NODE_PORT);
            for from in [bed.pod("a").namespace(), bed.pod("d").namespace(), bed.fabric.outside()] {
                for to in [node_port, SocketAddr::new(external_ip, 80)] {
                    if from.name() == bed.fabric.outside().name() && to != node_port {
                        continue;
                    }
                    let answer = probe(from, Transport::Tcp, to, Outcome::Open)?;
                    let greeting = answer.greeting.with_context(|| format!("{wiring:?}: {} to {to}", from.name()))?;
                    assert!(
                        !bed.pods.iter().any(|pod| pod.addresses().contains(&greeting.client)),
                        "{wiring:?}: {} to {to} is masqueraded, but the server saw {}",
                        from.name(),
                        greeting.client
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    for wiring in Wiring::ALL {
        let bed = Bed::create(wiring)?;
        bed.serve(&["a"], |_| {})?;
        for family in [0, 1] {
            let to = SocketAddr::new(addresses(CLUSTER_IPS)[family], 80);
            let greeting = probe(bed.pod("a").namespace(), Transport::Tcp, to, Outcome::Open)?.greeting;
            let greeting = greeting.with_context(|| format!("{wiring:?}: {to} did not answer"))?;
            assert_eq!(greeting.server, "a");
            assert_eq!(greeting.client, bed.nodes[0].seen_by_pods()[family], "{wiring:?}: hairpins are masqueraded");
        }
    }
    Ok(())
}

#[test]
fn traffic_policies_keep_to_the_node() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let bed = Bed::create(Wiring::PointToPoint)?;
    bed.serve(&["c"], |service| {
        service.internal_local = true;
        service.external_local = true;
    })?;
    for family in [0, 1] {
        let cluster_ip = SocketAddr::new(addresses(CLUSTER_IPS)[family], 80);
        for (from, outcome) in [("a", Outcome::Refused), ("d", Outcome::Open)] {
            let answer = probe(bed.pod(from).namespace(), Transport::Tcp, cluster_ip, outcome)?;
            assert_eq!(answer.outcome, outcome, "{from} to {cluster_ip}");
        }
        for (node, outcome) in [(0, Outcome::Refused), (1, Outcome::Open)] {
            let to = SocketAddr::new(bed.nodes[node].addresses()[family], NODE_PORT);
            let answer = probe(bed.fabric.outside(), Transport::Tcp, to, outcome)?;
            assert_eq!(answer.outcome, outcome, "outside to {to}");
            if let Some(greeting) = answer.greeting {
                ensure!(
                    !bed.nodes.iter().any(|node| node.addresses().contains(&greeting.client)),
                    "the client is seen"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn streams_flow_and_frames_are_seen() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let bed = Bed::create(Wiring::PointToPoint)?;
    let (a, c) = (bed.pod("a"), bed.pod("c"));
    let stream = Stream::open(a, SocketAddr::new(c.addresses()[1], PORT), Duration::from_secs(2))?;
    assert!(stream.flows(Duration::from_secs(1)));
    bed.nodes[1].namespace().ip(&[format!("link set {} down", c.host_interface())])?;
    assert!(!stream.flows(Duration::from_millis(300)), "nothing flows over a link that is down");

    let outside = RawSocket::open(bed.pod("b").namespace(), "eth0")?;
    let frame =
        [&[0xff; 6][..], &outside.hardware_address, &[0x88, 0xb5], b"a frame of an experimental EtherType"].concat();
    let host = RawSocket::open(bed.nodes[0].namespace(), bed.pod("b").host_interface())?;
    outside.send(&frame)?;
    let seen = host.receive(Duration::from_secs(1), |frame| frame[12..14] == [0x88, 0xb5])?;
    assert_eq!(seen.as_deref(), Some(&frame[..]));
    Ok(())
}

#[test]
fn nothing_is_left() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let bed = Bed::create(Wiring::Bridge)?;
    let (node, extra) = (bed.nodes[0].namespace(), bed.nodes[0].pod("extra")?);
    let interface = extra.host_interface().to_owned();
    assert!(node.interface_index(&interface).is_ok());
    drop(extra);
    assert!(node.interface_index(&interface).is_err(), "a pod's veth goes with it, not some time later");
    let paths: Vec<_> = bed.pods.iter().map(|pod| pod.namespace().path()).collect();
    assert!(paths.iter().all(|path| path.exists()));
    drop(bed);
    assert!(!paths.iter().any(|path| path.exists()));

    let mut path = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let fabric = Fabric::create().expect("as above");
        path = Some(fabric.outside().path());
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(!path.context("the fabric was made")?.exists(), "a panic removes it too");
    assert!(!Path::new("/sys/class/net/cni0").exists(), "the machine's own namespace has no link of the bed");
    Ok(())
}
