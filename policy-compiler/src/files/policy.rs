//! A NetworkPolicy, read piece by piece, so that a mistake in it costs the piece and nothing else, and never widens.
//!
//! The API's own types can hold what the API server would refuse, and [`crate::convert`] and [`crate::reference`] read
//! that as strictly as possible. So a piece that can't be read, or that has a field which doesn't exist (a misspelt
//! `podSelector` in a peer would otherwise select every pod), is replaced by such an invalid one.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde::de::DeserializeOwned;

use super::{
    read::{Failure, Oddity, check_fields, read},
    report::Reporter,
    tree::{Node, Value},
};
use crate::diagnostic::FieldPath;

/// A policy and the paths of the pieces that were replaced; `None` if it can't be told whose it is.
pub(super) fn policy(node: &Node<'_>, reporter: &mut Reporter<'_>) -> Option<(NetworkPolicy, Vec<String>)> {
    let mut reading = Reading { reporter, spoiled: Vec::new() };
    let root = FieldPath::ROOT;
    // `status` was a field of the type in Kubernetes 1.24 to 1.27, and is in what was saved from there.
    let sound = reading.fields(node, &["apiVersion", "kind", "metadata", "spec", "status"], &root, POLICY_CLOSED);
    let (metadata, sound_metadata) = reading.metadata(node.get("metadata"), &root.field("metadata"))?;
    let spec = reading.spec(node.get("spec"), sound && sound_metadata, &root.field("spec"));
    Some((NetworkPolicy { metadata, spec }, reading.spoiled))
}

const POLICY_CLOSED: &str = "the policy allows nothing until then";
const RULE_CLOSED: &str = "the rule allows nothing until then";
const PEER_CLOSED: &str = "the peer matches nobody until then";
const PORT_CLOSED: &str = "the port matches nothing until then";
const SELECTOR_CLOSED: &str = "the policy isolates every pod of its namespace and allows nothing until then";

struct Reading<'a, 'b> {
    reporter: &'a mut Reporter<'b>,
    spoiled: Vec<String>,
}

impl Reading<'_, '_> {
    /// A value of the API, or `None` if it can't be read or has a field that doesn't exist.
    fn value<T: DeserializeOwned>(&mut self, node: &Node<'_>, path: &FieldPath<'_>, consequence: &str) -> Option<T> {
        let mut oddities = Vec::new();
        let value = read(node, path, &mut oddities);
        let sound = self.report(&oddities, consequence);
        match value {
            Ok(value) => sound.then_some(value),
            Err(failure) => {
                self.failed(failure, node, path, consequence);
                None
            }
        }
    }

    /// Whether a map has no other fields than `fields`, and each once.
    fn fields(
        &mut self,
        node: &Node<'_>,
        fields: &'static [&'static str],
        path: &FieldPath<'_>,
        consequence: &str,
    ) -> bool {
        let mut oddities = Vec::new();
        check_fields(node, fields, path, &mut oddities);
        self.report(&oddities, consequence)
    }

    fn report(&mut self, oddities: &[Oddity], consequence: &str) -> bool {
        for oddity in oddities {
            self.reporter.error(oddity.at, &oddity.field, format!("{}; {consequence}", oddity.kind));
        }
        oddities.is_empty()
    }

    fn failed(&mut self, failure: Failure, node: &Node<'_>, path: &FieldPath<'_>, consequence: &str) {
        let (field, at) = failure.place.unwrap_or_else(|| (path.to_string(), node.at));
        self.reporter.error(at, &field, format!("{}; {consequence}", failure.message));
    }

    fn wrong(&mut self, node: &Node<'_>, path: &FieldPath<'_>, expected: &str, consequence: &str) {
        self.reporter.error(node.at, &path.to_string(), format!("this should be {expected}; {consequence}"));
    }

    fn spoil(&mut self, path: &FieldPath<'_>) {
        self.spoiled.push(path.to_string());
    }

    /// The metadata, and whether it is what it says; `None` if the object's name can't be read.
    fn metadata(&mut self, node: Option<&Node<'_>>, path: &FieldPath<'_>) -> Option<(ObjectMeta, bool)> {
        let empty = ObjectMeta::default();
        let Some(node) = node else { return Some((empty, false)) };
        if let Some(metadata) = self.value::<ObjectMeta>(node, path, POLICY_CLOSED) {
            return Some((metadata, true));
        }
        let name = node.text("name")?.to_owned();
        let namespace = match node.get("namespace") {
            None => None,
            Some(_) => Some(node.text("namespace")?.to_owned()),
        };
        Some((ObjectMeta { name: Some(name), namespace, ..empty }, false))
    }

    /// `sound` is false if something outside the rules is wrong, so that what the rules were meant for is unknown: the
    /// policy isolates in the directions that it names, else in both, and its rules don't count.
    fn spec(&mut self, node: Option<&Node<'_>>, sound: bool, path: &FieldPath<'_>) -> Option<NetworkPolicySpec> {
        let closed = NetworkPolicySpec { policy_types: both_types(), ..NetworkPolicySpec::default() };
        let node = match node {
            None => return (!sound).then_some(closed),
            Some(node) => node,
        };
        match &node.value {
            Value::Null => return (!sound).then_some(closed),
            Value::Map(_) => {}
            _ => {
                self.wrong(node, path, "a map", SELECTOR_CLOSED);
                self.spoil(path);
                return Some(closed);
            }
        }
        let fields = &["podSelector", "policyTypes", "ingress", "egress"];
        let mut sound = self.fields(node, fields, path, POLICY_CLOSED) && sound;
        let subject = node.get("podSelector").filter(|selector| !selector.is_null());
        let pod_selector = subject.map(|selector| self.subject(selector, &path.field("podSelector")));
        let (policy_types, sound_types) = self.policy_types(node, &path.field("policyTypes"));
        sound &= sound_types;
        let ingress = self.rules(node, "ingress", "from", path);
        let egress = self.rules(node, "egress", "to", path);
        let (Some(ingress), Some(egress), true) = (ingress, egress, sound) else {
            self.spoil(&path.field("ingress"));
            self.spoil(&path.field("egress"));
            let policy_types = policy_types.filter(|types| sound_types && !types.is_empty()).or_else(both_types);
            return Some(NetworkPolicySpec { pod_selector, policy_types, ingress: None, egress: None });
        };
        let ingress_rule = |(from, ports)| NetworkPolicyIngressRule { from, ports };
        let egress_rule = |(to, ports)| NetworkPolicyEgressRule { to, ports };
        Some(NetworkPolicySpec {
            pod_selector,
            policy_types,
            ingress: ingress.map(|rules| rules.into_iter().map(ingress_rule).collect()),
            egress: egress.map(|rules| rules.into_iter().map(egress_rule).collect()),
        })
    }

    fn subject(&mut self, node: &Node<'_>, path: &FieldPath<'_>) -> LabelSelector {
        self.value(node, path, SELECTOR_CLOSED).unwrap_or_else(|| {
            self.spoil(path);
            unusable_selector()
        })
    }

    /// The types, and whether they could be read.
    fn policy_types(&mut self, spec: &Node<'_>, path: &FieldPath<'_>) -> (Option<Vec<String>>, bool) {
        let Some(node) = spec.get("policyTypes").filter(|types| !types.is_null()) else { return (None, true) };
        let types = self.value(node, path, "the policy isolates in both directions and allows nothing until then");
        let sound = types.is_some();
        (types, sound)
    }

    /// A direction's rules; `Some(None)` if there is no list of them, `None` if it is something else.
    #[expect(clippy::option_option, reason = "absent and unreadable are different things here")]
    fn rules(
        &mut self,
        spec: &Node<'_>,
        field: &'static str,
        peers_field: &'static str,
        path: &FieldPath<'_>,
    ) -> Option<Option<Vec<Rule>>> {
        let Some(node) = spec.get(field).filter(|rules| !rules.is_null()) else { return Some(None) };
        let path = path.field(field);
        let Value::List(rules) = &node.value else {
            self.wrong(node, &path, "a list of rules", POLICY_CLOSED);
            return None;
        };
        let rule = |(index, rule)| self.rule(rule, peers_field, &path.index(index));
        Some(Some(rules.iter().enumerate().map(rule).collect()))
    }

    fn rule(&mut self, node: &Node<'_>, peers_field: &'static str, path: &FieldPath<'_>) -> Rule {
        let fields: &'static [&'static str] = if peers_field == "from" { &["from", "ports"] } else { &["to", "ports"] };
        let sound = if let Value::Map(_) = node.value {
            self.fields(node, fields, path, RULE_CLOSED)
        } else {
            // The API server would read null as {}, which allows everything.
            self.wrong(
                node,
                path,
                &format!("a map ({{}} allows everything, {peers_field} and ports less)"),
                RULE_CLOSED,
            );
            false
        };
        let peers = self.elements(node, peers_field, path, PEER_CLOSED, NetworkPolicyPeer::default);
        let ports = self.elements(node, "ports", path, PORT_CLOSED, unusable_port);
        match (peers, ports) {
            (Some(peers), Some(ports)) if sound => (peers, ports),
            _ => {
                self.spoil(path);
                (Some(vec![NetworkPolicyPeer::default()]), None)
            }
        }
    }

    /// The elements of a rule's list, unusable ones replaced; `Some(None)` if there is no list, `None` if it is
    /// something else.
    #[expect(clippy::option_option, reason = "absent and unreadable are different things here")]
    fn elements<T: DeserializeOwned>(
        &mut self,
        rule: &Node<'_>,
        field: &'static str,
        path: &FieldPath<'_>,
        consequence: &str,
        unusable: fn() -> T,
    ) -> Option<Option<Vec<T>>> {
        let Some(node) = rule.get(field) else { return Some(None) };
        let path = path.field(field);
        let nodes = match &node.value {
            Value::Null => return Some(None),
            Value::List(nodes) => nodes,
            _ => {
                self.wrong(node, &path, "a list", RULE_CLOSED);
                return None;
            }
        };
        let mut element = |(index, node): (usize, &Node<'_>)| {
            let path = path.index(index);
            let value = if node.is_null() {
                self.wrong(node, &path, "a map", consequence);
                None
            } else {
                self.value(node, &path, consequence)
            };
            value.unwrap_or_else(|| {
                self.spoil(&path);
                unusable()
            })
        };
        Some(Some(nodes.iter().enumerate().map(&mut element).collect()))
    }
}

type Rule = (Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>);

fn both_types() -> Option<Vec<String>> {
    Some(vec!["Ingress".to_owned(), "Egress".to_owned()])
}

/// No label key is empty.
fn unusable_selector() -> LabelSelector {
    LabelSelector { match_expressions: Some(vec![LabelSelectorRequirement::default()]), match_labels: None }
}

/// No port is 0.
fn unusable_port() -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(0)), ..NetworkPolicyPort::default() }
}
