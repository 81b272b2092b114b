//! Many files to one [`Cluster`].

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::{Located, Object, Parsed};
use crate::{
    cluster::{Cluster, Origin},
    convert,
    diagnostic::{Diagnostic, Kind, Severity},
    model::{ObjectName, Policy},
};

/// What files amount to together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Assembled {
    /// Every object that could be used, and the namespaces that only others name.
    pub cluster: Cluster,
    /// Every file's own diagnostics, those of the objects, and objects that are there more than once.
    pub diagnostics: Vec<Diagnostic>,
}

/// Puts files together, in this order: of an object that is there twice the later one counts, as if each had been
/// applied.
pub fn assemble<'a>(files: impl IntoIterator<Item = &'a Parsed>) -> Assembled {
    let mut assembled = Assembled::default();
    for file in files {
        assembled.diagnostics.extend_from_slice(&file.diagnostics);
        for object in &file.objects {
            assembled.add(object);
        }
    }
    assembled.cluster.imply_namespaces();
    assembled
}

impl Assembled {
    pub(super) fn add(&mut self, located: &Located<Object>) {
        self.add_as(located, false);
    }

    /// `replaces`: one that is there already is meant to be replaced.
    pub(super) fn add_as(&mut self, located: &Located<Object>, replaces: bool) -> Option<ObjectName> {
        let mut found = Vec::new();
        let name = self.convert(&located.object, &mut found);
        for mut diagnostic in found {
            if !located.spoiled.iter().any(|path| is_within(&diagnostic.field, path)) {
                diagnostic.place = Some(located.origin.place_of(&diagnostic.field));
                self.diagnostics.push(diagnostic);
            }
        }
        if let Some(name) = &name {
            let origin = match &located.object {
                Object::NetworkPolicy(policy) => unlisted(policy).map(|unlisted| {
                    Arc::new(Origin { unlisted: Some(Box::new(unlisted)), ..Origin::clone(&located.origin) })
                }),
                _ => None,
            };
            self.locate(located.object.kind(), name.clone(), origin.as_ref().unwrap_or(&located.origin), replaces);
        }
        name
    }

    fn convert(&mut self, object: &Object, found: &mut Vec<Diagnostic>) -> Option<ObjectName> {
        let cluster = &mut self.cluster;
        match object {
            Object::Namespace(object) => {
                let namespace = convert::namespace(object, found)?;
                let name = namespace.name.clone();
                cluster.namespaces.insert(name.clone(), namespace);
                Some(ObjectName::new("", name))
            }
            Object::Node(object) => {
                let node = convert::node(object, found)?;
                let name = node.name.clone();
                cluster.nodes.insert(name.clone(), node);
                Some(ObjectName::new("", name))
            }
            Object::Pod(object) => {
                let pod = convert::pod(object, found)?;
                let name = pod.name.clone();
                cluster.pods.insert(name.clone(), pod);
                Some(name)
            }
            Object::Service(object) => {
                let service = convert::service(object, found)?;
                let name = service.name.clone();
                cluster.services.insert(name.clone(), service);
                Some(name)
            }
            Object::EndpointSlice(object) => {
                let slice = convert::endpoint_slice(object, found)?;
                let name = slice.name.clone();
                cluster.endpoint_slices.insert(name.clone(), slice);
                Some(name)
            }
            Object::NetworkPolicy(object) => {
                let policy = convert::network_policy(object, found)?;
                let name = policy.name.clone();
                cluster.policies.insert(name.clone(), policy);
                Some(name)
            }
        }
    }

    fn locate(&mut self, kind: Kind, name: ObjectName, origin: &Arc<Origin>, replaces: bool) {
        let earlier = self.cluster.origins.insert((kind, name.clone()), origin.clone());
        if let Some(earlier) = earlier.filter(|_| !replaces) {
            self.diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                kind: kind.name().into(),
                name: Some(name),
                field: String::new(),
                message: format!("the object is at {earlier} as well; this one counts; remove or rename one"),
                place: Some(origin.place.clone()),
            });
        }
    }
}

/// The policy with both policy types, if it has rules for one that it leaves out.
fn unlisted(policy: &NetworkPolicy) -> Option<Policy> {
    let spec = policy.spec.as_ref()?;
    let types = spec.policy_types.as_ref().filter(|types| !types.is_empty())?;
    let lacks = |name: &str| !types.iter().any(|listed| listed == name);
    let has_ingress = spec.ingress.as_ref().is_some_and(|rules| !rules.is_empty());
    let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let has_unlisted = (has_ingress && lacks("Ingress")) || (has_egress && lacks("Egress"));
    if !has_unlisted {
        return None;
    }
    let mut policy = policy.clone();
    policy.spec.as_mut()?.policy_types = Some(vec!["Ingress".to_owned(), "Egress".to_owned()]);
    // what is wrong with it was said of the policy as it is
    convert::network_policy(&policy, &mut Vec::new())
}

/// Whether `field` is `path` or something in it.
fn is_within(field: &str, path: &str) -> bool {
    field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
