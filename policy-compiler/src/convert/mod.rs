//! API objects to the [`crate::model`], to the letter of the API. One function a kind; each returns what the compiler
//! may use and appends a [`Diagnostic`] for every field it could not.
//!
//! **Conversion never widens access.** What the API server would refuse (it may still come from a file, or from an API
//! server with another idea of validity) is replaced by the strictest reading that keeps the object's subject:
//!
//! - a peer that can't be used is [`Peer::Nobody`], a port [`PortMatch::Nothing`]; an `except` that can't be used makes
//!   its whole block unusable, because what it should have taken out is not known;
//! - a policy whose `podSelector` can't be used isolates *every* pod of its namespace, in the directions that it names,
//!   and allows nothing: whom it meant is not known;
//! - a policy with a policy type that doesn't exist isolates in both directions; rules count in the directions that it
//!   names rightly.
//!
//! `None` comes back only for an object without a name, or one that says nothing to us (an EndpointSlice of no Service).
//!
//! [`Peer::Nobody`]: crate::model::Peer::Nobody
//! [`PortMatch::Nothing`]: crate::model::PortMatch::Nothing
//! [`Diagnostic`]: crate::diagnostic::Diagnostic

mod address;
mod peer;
mod policy;
mod port;
mod selector;
mod service;
#[cfg(test)]
mod tests;
mod workload;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use self::{
    policy::network_policy,
    service::{endpoint_slice, service},
    workload::{METADATA_NAME, implied_namespace, namespace, node, pod},
};
pub(crate) use self::{
    service::SERVICE_NAME,
    workload::{AUDIT, FORWARDS},
};
use crate::{
    diagnostic::{Diagnostic, FieldPath, Kind, Severity},
    model::{Labels, ObjectName, Protocol},
};

/// The namespace of objects that name none, as `kubectl` has it without a context.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The name of an object of `kind`, or a diagnostic and `None` if it has none.
pub(crate) fn object_name(kind: Kind, metadata: &ObjectMeta, list: &mut Vec<Diagnostic>) -> Option<ObjectName> {
    let namespace = match metadata.namespace.as_deref() {
        _ if !kind.is_namespaced() => "",
        None | Some("") => DEFAULT_NAMESPACE,
        Some(namespace) => namespace,
    };
    match metadata.name.as_deref() {
        Some(name) if !name.is_empty() => Some(ObjectName::new(namespace, name)),
        _ => {
            list.push(Diagnostic {
                severity: Severity::Error,
                kind: kind.name().into(),
                name: None,
                field: FieldPath::ROOT.field("metadata").field("name").to_string(),
                message: "the object has no name and does not count; give it one".into(),
                place: None,
            });
            None
        }
    }
}

fn labels(metadata: &ObjectMeta) -> Labels {
    metadata.labels.iter().flatten().map(|(key, value)| (Arc::from(&**key), Arc::from(&**value))).collect()
}

/// `protocol`, which is TCP if it is absent.
fn protocol(name: Option<&str>) -> Result<Protocol, String> {
    match name {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is no protocol of the API; write TCP, UDP or SCTP")),
    }
}

/// A port number, from 1 to 65535.
fn port_number(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{number} is no port number; write one from 1 to 65535")),
    }
}
