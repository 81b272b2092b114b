//! Signs of engines, told once each.

use std::net::{IpAddr, Ipv4Addr};

use enforcer_abi::Direction;
use policy_compiler::model::Pod;

use super::*;

const NODE: &str = "n1";

fn pod(name: &str, label: (&str, &str)) -> Pod {
    Pod {
        name: ObjectName::new("kube-system", name),
        uid: name.into(),
        labels: [("tier".into(), "node".into()), (label.0.into(), label.1.into())].into(),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))],
        ports: Vec::new(),
        node: Some(NODE.into()),
        host_network: true,
        ended: false,
    }
}

fn calico(name: &str) -> Event {
    Event::PutPod(pod(name, ("k8s-app", "calico-node")))
}

fn engines() -> Engines {
    Engines::new(NODE, Metrics::new().unwrap())
}

fn count(engines: &Engines, kind: &str) -> i64 {
    engines.metrics.other_engines.with_label_values(&[kind]).get()
}

const CALICO: &str = "pods of Calico (label k8s-app=calico-node in namespace kube-system) run on this node and may enforce \
                      NetworkPolicies, too: a packet passes only where Sluice and they both let it, so switch policies \
                      off in one of the two";

#[test]
fn an_engines_pod_is_one_sentence_while_it_is_there() {
    let engines = engines();
    assert_eq!((engines.sentences(), count(&engines, "pod")), (Vec::new(), 0));
    engines.follow(&[calico("calico-node-a"), calico("calico-node-b")]);
    assert_eq!((engines.sentences(), count(&engines, "pod")), (vec![CALICO.to_owned()], 1));
    engines.follow(&[Event::DeletePod(ObjectName::new("kube-system", "calico-node-a"))]);
    assert_eq!(engines.sentences(), [CALICO], "the other one is there");
    let mut ended = pod("calico-node-b", ("k8s-app", "calico-node"));
    ended.ended = true;
    engines.follow(&[Event::PutPod(ended)]);
    assert_eq!((engines.sentences(), count(&engines, "pod")), (Vec::new(), 0));
}

#[test]
fn pods_of_other_nodes_and_those_that_only_wear_the_label_are_none() {
    let engines = engines();
    let mut elsewhere = pod("a", ("k8s-app", "cilium"));
    elsewhere.node = Some("n2".into());
    let mut nowhere = pod("b", ("k8s-app", "cilium"));
    nowhere.node = None;
    let mut tenant = pod("c", ("k8s-app", "cilium"));
    tenant.host_network = false;
    let flannel = pod("d", ("app", "flannel"));
    engines.follow(&[elsewhere, nowhere, tenant, flannel].map(Event::PutPod));
    assert_eq!(engines.sentences(), [""; 0]);
}

#[track_caller]
fn check_label(label: (&str, &str), engine: Option<&str>) {
    assert_eq!(known::by_labels(&pod("p", label).labels).map(|known| known.engine), engine, "{label:?}");
}

#[test]
fn labels() {
    check_label(("k8s-app", "calico-node"), Some("Calico"));
    check_label(("k8s-app", "canal"), Some("Calico"));
    check_label(("k8s-app", "cilium"), Some("Cilium"));
    check_label(("name", "weave-net"), Some("Weave Net"));
    check_label(("component", "antrea-agent"), Some("Antrea"));
    check_label(("k8s-app", "kube-router"), Some("kube-router"));
    check_label(("app", "kindnet"), Some("kindnet"));
    check_label(("k8s-app", "aws-node"), Some("the Amazon VPC CNI"));
    check_label(("app", "ovnkube-node"), Some("OVN-Kubernetes"));
    check_label(("k8s-app", "azure-npm"), Some("Azure NPM"));
    check_label(("k8s-app", "calico-typha"), None);
    check_label(("app", "calico-node"), None);
    check_label(("k8s-app", "kube-proxy"), None);
}

#[track_caller]
fn check_nft(table: &str, chain: Option<&str>, what: Option<&str>) {
    assert_eq!(of_nft(table, chain).map(|finding| finding.what).as_deref(), what, "{table} {chain:?}");
}

#[test]
fn nftables() {
    check_nft("filter", Some("cali-FORWARD"), Some("nftables has chains cali-* of Calico"));
    check_nft("calico", None, Some("nftables has the table calico of Calico"));
    check_nft("filter", Some("KUBE-NWPLCY-A5"), Some("nftables has chains KUBE-NWPLCY-* of kube-router"));
    check_nft("filter", Some("WEAVE-NPC"), Some("nftables has chains WEAVE-NPC* of Weave Net"));
    check_nft("filter", Some("AZURE-NPM-INGRESS"), Some("nftables has chains AZURE-NPM* of Azure NPM"));
    check_nft("filter", Some("CILIUM_FORWARD"), Some("nftables has chains CILIUM_* of Cilium"));
    let kindnet = "nftables has the table kindnet-network-policies of kindnet";
    check_nft("kindnet-network-policies", None, Some(kindnet));
    // told of its table
    check_nft("kindnet-network-policies", Some("postrouting"), None);
    // kube-proxy's, in either mode, the kubelet's, and others that judge no policies
    for chain in ["KUBE-FORWARD", "KUBE-SVC-A5", "KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "FLANNEL-FWD", "DOCKER-USER"] {
        check_nft("filter", Some(chain), None);
    }
    check_nft("kube-proxy", None, None);
}

fn program(name: Option<&str>) -> OtherProgram {
    OtherProgram { ifindex: 7, direction: Direction::Ingress, id: Some(1), name: name.map(str::to_owned) }
}

#[track_caller]
fn check_programs(names: &[Option<&str>], expected: &[&str]) {
    let programs: Vec<OtherProgram> = names.iter().map(|name| program(*name)).collect();
    let found: Vec<String> = of_programs(&programs).into_iter().map(|finding| finding.what).collect();
    assert_eq!(found, expected);
}

#[test]
fn programs() {
    check_programs(&[], &[]);
    let cilium = "TC programs of Cilium (cil_*) are on pods' interfaces";
    check_programs(&[Some("cil_from_container-lxc1"), Some("cil_to_container-lxc2")], &[cilium]);
    check_programs(
        &[Some("meter.o:[classifier]"), Some("meter.o:[classifier]"), None, Some("cali_tc_preambl")],
        &[
            "TC programs of Calico (cali_tc_*) are on pods' interfaces",
            "TC programs that are not Sluice's are on pods' interfaces (meter, some whose names the kernel doesn't tell) \
             and may be another policy engine's",
        ],
    );
    let many: Vec<Option<&str>> = ["a", "b", "c", "d", "e", "f", "g"].map(Some).to_vec();
    check_programs(
        &many,
        &[
            "TC programs that are not Sluice's are on pods' interfaces (a, b, c, d, e, 2 more) and may be another policy \
           engine's",
        ],
    );
}

#[test]
fn what_is_looked_for_replaces_what_was_found() {
    let engines = engines();
    engines.follow(&[calico("calico-node-a")]);
    engines.set(Trace::Nftables, of_nft("filter", Some("cali-FORWARD")).into_iter().collect());
    engines.set(Trace::Program, of_programs(&[program(None)]));
    assert_eq!(["pod", "tc_program", "nftables"].map(|kind| count(&engines, kind)), [1, 1, 1]);
    let sentences = engines.sentences();
    assert_eq!(sentences.len(), 3);
    assert!(sentences[2].ends_with("in one of the two, or remove them if they were left behind"), "{sentences:?}");
    engines.set(Trace::Nftables, BTreeSet::new());
    assert_eq!(["pod", "tc_program", "nftables"].map(|kind| count(&engines, kind)), [1, 1, 0]);
}
