//! What is asked of the API server, and what is kept of the answer: [`RESOURCES`]. A list of what is not here: the
//! values of environment variables, commands, volumes, Secrets, ConfigMaps, annotations that are not ours.

use super::keep::Keep::{self, All, Each, Fields, OwnAnnotations};

/// A resource that is listed in all namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    /// The name in paths and in RBAC rules.
    pub(super) plural: &'static str,
    /// What the server needn't send at all.
    pub(super) field_selector: Option<&'static str>,
    /// What is kept of each object.
    pub(super) keep: Keep,
    /// Verdicts depend on it; the others only tell whose pods are, and stand for pods that are not there yet.
    pub(super) is_needed: bool,
}

impl Resource {
    const fn core(plural: &'static str, kind: &'static str, keep: Keep) -> Self {
        Self { api_version: "v1", kind, plural, field_selector: None, keep, is_needed: true }
    }

    const fn of(self, api_version: &'static str) -> Self {
        Self { api_version, ..self }
    }

    const fn workload(api_version: &'static str, plural: &'static str, kind: &'static str, keep: Keep) -> Self {
        Self { api_version, is_needed: false, ..Self::core(plural, kind, keep) }
    }

    /// The API group; empty for the core group.
    pub(super) fn group(&self) -> &'static str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Where it is served.
    pub(super) fn path(&self) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/{}", self.api_version, self.plural)
    }

    /// As error messages of the API server name it.
    pub(super) fn qualified(&self) -> String {
        if self.group().is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group()) }
    }
}

/// All of them, in the order of a snapshot. ReplicaSets are not among them: a pod's name and labels tell the Deployment,
/// and a cluster keeps ten old ones of each.
pub(super) const RESOURCES: [Resource; 12] = [
    Resource::core("namespaces", "Namespace", Fields(&[("metadata", METADATA)])),
    Resource::core("nodes", "Node", Fields(&[("metadata", METADATA), ("status", Fields(&[("addresses", All)]))])),
    Resource::core("networkpolicies", "NetworkPolicy", Fields(&[("metadata", METADATA), ("spec", All)]))
        .of("networking.k8s.io/v1"),
    Resource {
        // a pod that has ended has no address any more, and a cluster with many jobs keeps thousands of them
        field_selector: Some("status.phase!=Succeeded,status.phase!=Failed"),
        ..Resource::core("pods", "Pod", POD)
    },
    Resource::core("services", "Service", SERVICE),
    Resource::core("endpointslices", "EndpointSlice", ENDPOINT_SLICE).of("discovery.k8s.io/v1"),
    Resource::workload("apps/v1", "deployments", "Deployment", WORKLOAD),
    Resource::workload("apps/v1", "statefulsets", "StatefulSet", WORKLOAD),
    Resource::workload("apps/v1", "daemonsets", "DaemonSet", WORKLOAD),
    Resource::workload("v1", "replicationcontrollers", "ReplicationController", WORKLOAD),
    Resource::workload("batch/v1", "cronjobs", "CronJob", CRON_JOB),
    // without its template: one that has no pods is done, and stands for none
    Resource::workload("batch/v1", "jobs", "Job", Fields(&[("metadata", METADATA)])),
];

const METADATA: Keep = Fields(&[
    ("name", All),
    ("namespace", All),
    ("labels", All),
    ("annotations", OwnAnnotations),
    ("ownerReferences", Each(&OWNER)),
]);

const OWNER: Keep = Fields(&[("apiVersion", All), ("kind", All), ("name", All), ("controller", All)]);

const CONTAINERS: Keep = Each(&Fields(&[
    ("name", All),
    ("restartPolicy", All),
    ("ports", Each(&Fields(&[("name", All), ("containerPort", All), ("protocol", All)]))),
]));

const POD_SPEC: Keep =
    Fields(&[("nodeName", All), ("hostNetwork", All), ("containers", CONTAINERS), ("initContainers", CONTAINERS)]);

const POD: Keep = Fields(&[
    ("metadata", METADATA),
    ("spec", POD_SPEC),
    ("status", Fields(&[("phase", All), ("podIP", All), ("podIPs", All)])),
]);

const SERVICE: Keep = Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("type", All),
            ("selector", All),
            ("clusterIP", All),
            ("clusterIPs", All),
            ("externalIPs", All),
            ("externalName", All),
            ("internalTrafficPolicy", All),
            ("externalTrafficPolicy", All),
            (
                "ports",
                Each(&Fields(&[
                    ("name", All),
                    ("protocol", All),
                    ("port", All),
                    ("targetPort", All),
                    ("nodePort", All),
                ])),
            ),
        ]),
    ),
    ("status", Fields(&[("loadBalancer", Fields(&[("ingress", Each(&Fields(&[("ip", All), ("ipMode", All)])))]))])),
]);

const ENDPOINT_SLICE: Keep = Fields(&[
    ("metadata", METADATA),
    ("addressType", All),
    ("endpoints", Each(&Fields(&[("addresses", All), ("conditions", All), ("nodeName", All)]))),
    ("ports", Each(&Fields(&[("name", All), ("protocol", All), ("port", All)]))),
]);

const TEMPLATE: Keep = Fields(&[("metadata", Fields(&[("labels", All)])), ("spec", POD_SPEC)]);

const WORKLOAD: Keep =
    Fields(&[("metadata", METADATA), ("spec", Fields(&[("replicas", All), ("template", TEMPLATE)]))]);

const CRON_JOB: Keep = Fields(&[
    ("metadata", METADATA),
    ("spec", Fields(&[("jobTemplate", Fields(&[("spec", Fields(&[("template", TEMPLATE)]))]))])),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        let paths: Vec<_> = RESOURCES.iter().map(Resource::path).collect();
        assert!(paths.contains(&"/api/v1/pods".to_owned()));
        assert!(paths.contains(&"/apis/networking.k8s.io/v1/networkpolicies".to_owned()));
        let qualified: Vec<_> = RESOURCES.iter().map(Resource::qualified).collect();
        assert!(qualified.contains(&"namespaces".to_owned()) && qualified.contains(&"cronjobs.batch".to_owned()));
    }
}
