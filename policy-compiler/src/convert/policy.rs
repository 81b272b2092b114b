//! networking/v1 `NetworkPolicy`: subject, directions, rules.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};

use super::{object_name, peer::peer, port::port_match, selector::selector};
use crate::{
    diagnostic::{Diagnostic, FieldPath, Kind, Problems},
    model::{Action, NamespaceMatch, PodMatch, Policy, Rule, Selector, Tier},
};

/// A policy; `None` only if it has no name.
pub fn network_policy(object: &NetworkPolicy, diagnostics: &mut Vec<Diagnostic>) -> Option<Policy> {
    let name = object_name(Kind::NetworkPolicy, &object.metadata, diagnostics)?;
    let problems = &mut Problems::of(Kind::NetworkPolicy, name.clone(), diagnostics);
    let empty = NetworkPolicySpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let path = FieldPath::ROOT.field("spec");

    let pods = match &spec.pod_selector {
        None => Some(Selector::default()),
        Some(object) => selector(object, &path.field("podSelector"), problems),
    };
    if pods.is_none() {
        problems.error(
            &path.field("podSelector"),
            "the selector can't be used, so the policy isolates every pod of its namespace and allows nothing; correct \
             the selector",
        );
    }
    let directions = directions(spec, &path, problems);
    let keep = |direction: Named, rules: Vec<Rule>| match direction {
        Named::No => None,
        Named::Yes if pods.is_some() => Some(rules),
        Named::Yes | Named::Unclear => Some(Vec::new()),
    };
    let ingress = rules(
        spec.ingress.iter().flatten().map(|rule| (rule.from.as_deref(), rule.ports.as_deref())),
        &name.namespace,
        (&path.field("ingress"), "from"),
        problems,
    );
    let egress = rules(
        spec.egress.iter().flatten().map(|rule| (rule.to.as_deref(), rule.ports.as_deref())),
        &name.namespace,
        (&path.field("egress"), "to"),
        problems,
    );
    Some(Policy {
        tier: Tier::NetworkPolicy,
        priority: 0,
        ingress: keep(directions.0, ingress),
        egress: keep(directions.1, egress),
        subject: PodMatch { namespaces: NamespaceMatch::Name(name.namespace.clone()), pods: pods.unwrap_or_default() },
        name,
    })
}

/// Whether a policy is about a direction.
#[derive(Clone, Copy)]
enum Named {
    Yes,
    /// Another type is misspelt and may have meant this one: it isolates, its rules don't count.
    Unclear,
    No,
}

/// `policyTypes` for ingress and egress. The API server's `SetDefaults_NetworkPolicy`: where the list is absent or
/// empty, ingress always, and egress if there are egress rules.
fn directions(spec: &NetworkPolicySpec, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> (Named, Named) {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        return (Named::Yes, if has_egress { Named::Yes } else { Named::No });
    }
    let path = path.field("policyTypes");
    let mut unnamed = Named::No;
    for (index, name) in types.iter().enumerate() {
        if !matches!(&**name, "Ingress" | "Egress") {
            let message = format!(
                "{name:?} is no policy type, so the policy isolates in both directions; write Ingress or Egress"
            );
            problems.error(&path.index(index), message);
            unnamed = Named::Unclear;
        }
    }
    if types.len() > 2 {
        problems.error(&path, "there are only two policy types; remove the repetition");
    }
    let named = |wanted| if types.iter().any(|name| name == wanted) { Named::Yes } else { unnamed };
    (named("Ingress"), named("Egress"))
}

/// The peers and the ports of one rule, as the API has them in either direction.
type RuleParts<'a> = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>);

/// `path` is the list's, with the name of its field for peers.
fn rules<'a>(
    objects: impl Iterator<Item = RuleParts<'a>>,
    namespace: &Arc<str>,
    (path, peers_field): (&FieldPath<'_>, &str),
    problems: &mut Problems<'_>,
) -> Vec<Rule> {
    let mut rule = |index, (peers, ports): RuleParts<'_>| {
        let path = path.index(index);
        let peers_path = path.field(peers_field);
        let ports_path = path.field("ports");
        Rule {
            action: Action::Allow,
            peers: elements(peers, |index, object| peer(object, namespace, &peers_path.index(index), problems)),
            ports: elements(ports, |index, object| port_match(object, &ports_path.index(index), problems)),
        }
    };
    objects.enumerate().map(|(index, parts)| rule(index, parts)).collect()
}

/// `from`, `to` and `ports` say the same where they are absent and where they are empty: 'If this field is empty or
/// missing, this rule matches all'.
fn elements<T, U>(list: Option<&[T]>, mut convert: impl FnMut(usize, &T) -> U) -> Option<Vec<U>> {
    let list = list.filter(|list| !list.is_empty())?;
    Some(list.iter().enumerate().map(|(index, object)| convert(index, object)).collect())
}
