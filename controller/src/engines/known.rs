//! By what other policy engines are known, a line for each sign. Only engines that judge pods' packets are listed: a CNI
//! plugin that merely connects pods (flannel) is none.

use policy_compiler::model::Labels;

/// A label of an engine's pods on every node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) engine: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
}

/// A TC program by how its name begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) engine: &'static str,
    pub(super) prefix: &'static str,
}

/// Something of nftables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nft {
    pub(super) engine: &'static str,
    name: NftName,
}

#[derive(Debug, PartialEq, Eq)]
enum NftName {
    /// The table's whole name.
    Table(&'static str),
    /// How the name of a chain begins, in any table.
    Chain(&'static str),
}

const fn pod(engine: &'static str, key: &'static str, value: &'static str) -> Label {
    Label { engine, key, value }
}

const fn program(engine: &'static str, prefix: &'static str) -> Program {
    Program { engine, prefix }
}

const fn chain(engine: &'static str, prefix: &'static str) -> Nft {
    Nft { engine, name: NftName::Chain(prefix) }
}

const fn table(engine: &'static str, name: &'static str) -> Nft {
    Nft { engine, name: NftName::Table(name) }
}

/// The pod templates' labels in each project's own manifests, named behind each.
#[rustfmt::skip]
static PODS: [Label; 13] = [
    pod("Calico", "k8s-app", "calico-node"), // projectcalico/calico manifests/calico.yaml
    pod("Calico", "k8s-app", "canal"), // projectcalico/calico manifests/canal.yaml
    pod("Cilium", "k8s-app", "cilium"), // cilium/cilium install/kubernetes/cilium/templates/cilium-agent/daemonset.yaml
    pod("Weave Net", "name", "weave-net"), // weaveworks/weave prog/weave-kube/weave-daemonset-k8s-1.11.yaml
    pod("Antrea", "component", "antrea-agent"), // antrea-io/antrea build/yamls/antrea.yml
    pod("kube-router", "k8s-app", "kube-router"), // cloudnativelabs/kube-router daemonset/generic-kuberouter.yaml
    pod("kindnet", "k8s-app", "kindnet"), // kubernetes-sigs/kind pkg/build/nodeimage/const_cni.go; enforces from kind 0.24
    pod("kindnet", "app", "kindnet"), // the same
    pod("kube-network-policies", "k8s-app", "kube-network-policies"), // kubernetes-sigs/kube-network-policies install.yaml
    pod("the Amazon VPC CNI", "k8s-app", "aws-node"), // aws/amazon-vpc-cni-k8s config/master/aws-k8s-cni.yaml; its agent can be off
    pod("OVN-Kubernetes", "app", "ovnkube-node"), // ovn-kubernetes/ovn-kubernetes dist/templates/ovnkube-node.yaml.j2
    pod("Kube-OVN", "app", "kube-ovn-cni"), // kubeovn/kube-ovn dist/images/install.sh
    pod("Azure NPM", "k8s-app", "azure-npm"), // Azure/azure-container-networking npm/azure-npm.yaml
];

#[rustfmt::skip]
static PROGRAMS: [Program; 2] = [
    program("Cilium", "cil_"), // cilium/cilium bpf/bpf_lxc.c: cil_from_container, cil_to_container
    program("Calico", "cali_tc_"), // projectcalico/calico felix/bpf-gpl/tc_preamble.c
];

/// kube-router's are also those of k3s, which has it built in and no pod of it.
#[rustfmt::skip]
static NFT: [Nft; 10] = [
    chain("Calico", "cali-"), // projectcalico/calico felix/rules/rule_defs.go
    table("Calico", "calico"), // its nftables mode: felix/nftables
    chain("Cilium", "CILIUM_"), // cilium/cilium pkg/datapath/iptables
    chain("kube-router", "KUBE-ROUTER-"), // cloudnativelabs/kube-router pkg/controllers/netpol
    chain("kube-router", "KUBE-NWPLCY-"), // the same: a policy's
    chain("kube-router", "KUBE-POD-FW-"), // the same: a pod's
    chain("Weave Net", "WEAVE-NPC"), // weaveworks/weave npc/constants.go
    chain("Azure NPM", "AZURE-NPM"), // Azure/azure-container-networking npm/util/const.go
    table("kindnet", "kindnet-network-policies"), // kubernetes-sigs/kind images/kindnetd
    table("kube-network-policies", "kube-network-policies"), // kubernetes-sigs/kube-network-policies pkg/networkpolicy
];

/// The engine whose pods have a label of these.
pub(super) fn by_labels(labels: &Labels) -> Option<&'static Label> {
    PODS.iter().find(|known| labels.get(known.key).is_some_and(|value| &**value == known.value))
}

/// The engine whose programs have such a name.
pub(super) fn by_program(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|known| name.starts_with(known.prefix))
}

/// The engine whose table it is, or whose chain in any table.
pub(super) fn by_nft(table: &str, chain: Option<&str>) -> Option<&'static Nft> {
    NFT.iter().find(|known| match known.name {
        NftName::Table(name) => chain.is_none() && table == name,
        NftName::Chain(prefix) => chain.is_some_and(|chain| chain.starts_with(prefix)),
    })
}

impl Nft {
    /// What was found.
    pub(super) fn what(&self) -> String {
        match self.name {
            NftName::Table(name) => format!("the table {name}"),
            NftName::Chain(prefix) => format!("chains {prefix}*"),
        }
    }
}
