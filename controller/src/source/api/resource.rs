//! What is asked of the API server: [`RESOURCES`], one a kind. The ClusterRole in `manifests/` grants exactly this.

use policy_compiler::diagnostic::Kind;

/// A resource that is listed and watched in all namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Of what.
    pub kind: Kind,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The name in paths and in RBAC rules.
    pub plural: &'static str,
    /// Where it is served.
    pub path: &'static str,
    /// What the server needn't send at all.
    pub(super) field_selector: Option<&'static str>,
}

/// The verbs that each of [`RESOURCES`] is asked with.
pub const VERBS: [&str; 2] = ["list", "watch"];

/// All of them, what others refer to first.
pub const RESOURCES: [Resource; 6] = [
    core(Kind::Namespace, "namespaces", "/api/v1/namespaces", None),
    core(Kind::Node, "nodes", "/api/v1/nodes", None),
    // a pod that has ended has no address any more, and a cluster with many jobs keeps thousands of them
    core(Kind::Pod, "pods", "/api/v1/pods", Some("status.phase!=Succeeded,status.phase!=Failed")),
    Resource {
        kind: Kind::EndpointSlice,
        group: "discovery.k8s.io",
        plural: "endpointslices",
        path: "/apis/discovery.k8s.io/v1/endpointslices",
        field_selector: None,
    },
    core(Kind::Service, "services", "/api/v1/services", None),
    Resource {
        kind: Kind::NetworkPolicy,
        group: "networking.k8s.io",
        plural: "networkpolicies",
        path: "/apis/networking.k8s.io/v1/networkpolicies",
        field_selector: None,
    },
];

const fn core(kind: Kind, plural: &'static str, path: &'static str, field_selector: Option<&'static str>) -> Resource {
    Resource { kind, group: "", plural, path, field_selector }
}

impl Resource {
    /// The resource as error messages of the API server name it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// The place of a kind in [`RESOURCES`].
pub(super) fn rank(kind: Kind) -> usize {
    match kind {
        Kind::Namespace => 0,
        Kind::Node => 1,
        Kind::Pod => 2,
        Kind::EndpointSlice => 3,
        Kind::Service => 4,
        Kind::NetworkPolicy => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place() {
        for (index, resource) in RESOURCES.iter().enumerate() {
            assert_eq!(rank(resource.kind), index);
            assert!(resource.path.ends_with(resource.plural) && resource.path.contains(resource.group));
        }
        assert_eq!(RESOURCES.len(), Kind::ALL.len());
    }
}
