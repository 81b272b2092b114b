//! Workloads: what makes pods. A folder of manifests often holds Deployments and no pods; each then stands for a pod of
//! its template. Where there are pods, this tells whose they are.

use std::{fmt, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    origin::template_of,
    read::read,
    report::Reporter,
    tree::{Node, Value},
};
use crate::{convert::DEFAULT_NAMESPACE, diagnostic::FieldPath, model::ObjectName};

/// A kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// apps/v1
    Deployment,
    /// apps/v1
    StatefulSet,
    /// apps/v1
    DaemonSet,
    /// apps/v1
    ReplicaSet,
    /// batch/v1
    Job,
    /// batch/v1
    CronJob,
    /// core/v1
    ReplicationController,
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::Job,
        Self::CronJob,
        Self::ReplicationController,
    ];

    /// `kubectl`'s short name, and the one that ends are written with.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Deployment => "deploy",
            Self::StatefulSet => "sts",
            Self::DaemonSet => "ds",
            Self::ReplicaSet => "rs",
            Self::Job => "job",
            Self::CronJob => "cj",
            Self::ReplicationController => "rc",
        }
    }

    /// The `kind` field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::ReplicationController => "ReplicationController",
        }
    }

    const fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet => ".apps",
            Self::Job | Self::CronJob => ".batch",
            Self::ReplicationController => "",
        }
    }

    /// The one that `kubectl` would understand by `text`: `deploy`, `deployment`, `deployments`, in any case.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let name = kind.name().to_ascii_lowercase();
            text == kind.short() || text.strip_suffix('s').unwrap_or(&text) == name || text == name
        })
    }

    /// The one that a file says it is, as `Deployment.apps`.
    pub(super) fn of_file(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| kind.strip_prefix(known.name()).is_some_and(|rest| rest == known.group()))
    }
}

/// A workload; prints as an end is written: `shop/deploy/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind.short(), self.name)
    }
}

impl Workload {
    /// The name of the pod that stands for it where it has none. No pod's own name has a slash.
    #[must_use]
    pub fn stand_in(&self) -> ObjectName {
        ObjectName::new(self.namespace.clone(), format!("{}/{}", self.kind.short(), self.name))
    }

    /// Who owns the object of this metadata.
    pub(super) fn owner_of(metadata: &ObjectMeta) -> Option<Self> {
        let owners = metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        let kind = WorkloadKind::ALL.into_iter().find(|kind| kind.name() == owner.kind)?;
        Some(Self { namespace: metadata.namespace.as_deref()?.into(), kind, name: owner.name.as_str().into() })
    }

    /// A ReplicaSet of a Deployment is named after it and the hash of its template, which its pods carry too.
    pub(super) fn beyond_replica_set(self, metadata: &ObjectMeta) -> Self {
        let hash = metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
        let deployment = (self.kind == WorkloadKind::ReplicaSet)
            .then(|| self.name.strip_suffix(hash?.as_str())?.strip_suffix('-').map(Arc::from))
            .flatten();
        match deployment {
            Some(name) => Self { kind: WorkloadKind::Deployment, name, ..self },
            None => self,
        }
    }
}

/// A workload as a file has it.
pub(super) struct Read {
    pub(super) workload: Workload,
    /// It is made by another one.
    pub(super) owner: Option<Workload>,
    /// A pod of its template; `None` if it can't be read, or the workload wants none.
    pub(super) pod: Option<Pod>,
}

/// Reads a workload; `None` if it has no name.
pub(super) fn workload(node: &Node<'_>, kind: WorkloadKind, reporter: &mut Reporter<'_>) -> Option<Read> {
    let mut oddities = Vec::new();
    let root = FieldPath::ROOT;
    let metadata: ObjectMeta = read(node.get("metadata")?, &root.field("metadata"), &mut oddities).ok()?;
    let name = metadata.name.clone().filter(|name| !name.is_empty())?;
    let namespace = metadata.namespace.clone().filter(|name| !name.is_empty());
    let metadata =
        ObjectMeta { namespace: Some(namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())), ..metadata };
    let owner = Workload::owner_of(&metadata);
    let namespace: Arc<str> = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE).into();
    let workload = Workload { namespace, kind, name: name.into() };
    let none_wanted = node.get("spec").and_then(|spec| spec.get("replicas")).is_some_and(|n| n.value == Value::Int(0));
    let template = template_of(node).filter(|_| !none_wanted);
    let path = root.field("spec");
    let path = path.field("template");
    let pod = template.and_then(|template| match read::<PodTemplateSpec>(template, &path, &mut oddities) {
        Ok(template) => {
            let labels = template.metadata.and_then(|metadata| metadata.labels);
            let stand_in = workload.stand_in();
            let metadata = ObjectMeta {
                name: Some(stand_in.name.to_string()),
                namespace: Some(stand_in.namespace.to_string()),
                labels,
                ..ObjectMeta::default()
            };
            Some(Pod { metadata, spec: template.spec, status: None })
        }
        Err(failure) => {
            let (field, at) = failure.place.unwrap_or_else(|| (path.to_string(), node.at));
            reporter.error(at, &field, format!("{}; the workload stands for no pod until then", failure.message));
            None
        }
    });
    Some(Read { workload, owner, pod })
}
