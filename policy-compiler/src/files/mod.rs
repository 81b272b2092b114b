//! Manifests: a file's bytes to API objects ([`parse`]), and many files to a `Cluster` ([`assemble()`]). Pure; whoever
//! calls reads the files.
//!
//! Files may hold several documents, in YAML or JSON, `kind: List`, and any mix of kinds: what verdicts don't depend on
//! is counted. A document that can't be read costs itself and nothing else. What the API server would have done is done
//! here: the namespace `default` where none is given, the namespaces' label `kubernetes.io/metadata.name`.

mod assemble;
mod gather;
mod json;
mod kinds;
mod list;
mod origin;
mod pieces;
mod plain;
mod policy;
mod read;
mod report;
#[cfg(test)]
mod tests;
mod tree;
mod workload;
mod yaml;

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node as ApiNode, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;

pub use self::kinds::distance;
pub use self::{
    assemble::{Assembled, assemble},
    gather::{Gather, Gathered},
    workload::{Workload, WorkloadKind},
};
use self::{
    kinds::Said,
    pieces::Piece,
    read::OddityKind,
    report::{Document, Reporter},
    tree::{Node, Unreadable},
};
use crate::{
    cluster::{Origin, Position},
    convert::DEFAULT_NAMESPACE,
    diagnostic::{Diagnostic, FieldPath, Kind},
};

/// An object that verdicts depend on, as the API has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// core/v1
    Namespace(Box<Namespace>),
    /// core/v1
    Node(Box<ApiNode>),
    /// core/v1
    Pod(Box<Pod>),
    /// core/v1
    Service(Box<Service>),
    /// discovery.k8s.io/v1
    EndpointSlice(Box<EndpointSlice>),
    /// networking.k8s.io/v1
    NetworkPolicy(Box<NetworkPolicy>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
        }
    }

    /// Its metadata.
    #[must_use]
    pub const fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
        }
    }

    const fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Namespace(object) => &mut object.metadata,
            Self::Node(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::NetworkPolicy(object) => &mut object.metadata,
        }
    }
}

/// An object and where it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// The object.
    pub object: T,
    /// Where it was read from.
    pub origin: Arc<Origin>,
    /// Paths of pieces that could not be read, were reported, and are something invalid now.
    spoiled: Vec<String>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Parsed {
    /// In the order of the file. Every one has a name, and a namespace if its kind has one.
    pub objects: Vec<Located<Object>>,
    /// What could not be read, and fields that don't exist.
    pub diagnostics: Vec<Diagnostic>,
    /// How many objects there are of each kind that verdicts don't depend on, as `Deployment.apps`.
    pub ignored: BTreeMap<String, usize>,
}

/// Reads a file. `name` is how diagnostics call it.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Parsed {
    let mut objects = Vec::new();
    let (diagnostics, ignored) = intake(name, bytes, &mut |taken| match taken {
        Taken::Object(object) => {
            objects.push(object);
            true
        }
        Taken::Other(..) => false,
    });
    Parsed { objects, diagnostics, ignored }
}

/// What a file is found to hold, as it is found.
enum Taken<'a> {
    /// One that verdicts depend on.
    Object(Located<Object>),
    /// Of another kind, as `Deployment.apps`.
    Other(&'a str, &'a Node<'a>, Document<'a>, &'a mut Vec<Diagnostic>),
}

/// Reads one file, and hands on each object before it reads the next one.
struct Intake<'a> {
    diagnostics: Vec<Diagnostic>,
    ignored: BTreeMap<String, usize>,
    /// Answers whether it wants the object; others are counted.
    take: &'a mut dyn FnMut(Taken<'_>) -> bool,
}

/// Reads one file; what is wrong with it, and how many objects of each kind nobody wanted.
fn intake(
    name: &str,
    bytes: &[u8],
    take: &mut dyn FnMut(Taken<'_>) -> bool,
) -> (Vec<Diagnostic>, BTreeMap<String, usize>) {
    let mut intake = Intake { diagnostics: Vec::new(), ignored: BTreeMap::new(), take };
    let file: Arc<str> = name.into();
    match std::str::from_utf8(bytes) {
        Ok(text) => intake.text(text.strip_prefix('\u{feff}').unwrap_or(text), &file, name.ends_with(".json")),
        Err(error) => {
            let before = &bytes[..error.valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let at = Position { line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 };
            let message = "the file is not text in UTF-8; save it as that".to_owned();
            intake.diagnostics.push(Document { file: &file, number: 1 }.error(at, message));
        }
    }
    (intake.diagnostics, intake.ignored)
}

/// How many diagnostics are kept of one file.
const MAX_DIAGNOSTICS: usize = 10_000;

impl Intake<'_> {
    fn text(&mut self, text: &str, file: &Arc<str>, is_json: bool) {
        let mut number = 0;
        pieces::for_each(text, is_json, |piece| {
            match piece {
                Piece::Whole(node) => {
                    number += 1;
                    if !node.is_null() {
                        self.item(node, None, Document { file, number });
                    }
                }
                Piece::List => number += 1,
                Piece::Item(kind, node) => self.item(node, *kind, Document { file, number }),
                Piece::Broken(Unreadable { at, message }) => {
                    self.diagnostics.push(Document { file, number }.error(*at, message.clone()));
                }
                Piece::Unreadable(Unreadable { at, message }) => {
                    number += 1;
                    self.diagnostics.push(Document { file, number }.error(*at, message.clone()));
                }
                Piece::End(line) if self.diagnostics.len() > MAX_DIAGNOSTICS => {
                    let message = format!("more than {MAX_DIAGNOSTICS} mistakes; the rest of the file is not read");
                    let at = Position { line: *line, column: 1 };
                    self.diagnostics.push(Document { file, number }.error(at, message));
                    return ControlFlow::Break(());
                }
                Piece::End(_) => {}
            }
            ControlFlow::Continue(())
        });
    }

    fn item(&mut self, node: &Node<'_>, item_of: Option<Kind>, document: Document<'_>) {
        match kinds::recognise(node, item_of) {
            Said::Known(kind) => self.object(node, kind, document),
            Said::List(kind) => {
                for item in node.get("items").map(Node::elements).unwrap_or_default() {
                    self.item(item, kind, document);
                }
            }
            Said::Other(kind) => {
                if !(self.take)(Taken::Other(&kind, node, document, &mut self.diagnostics)) {
                    *self.ignored.entry(kind).or_default() += 1;
                }
            }
            Said::Misspelt { field, meant } => {
                let mut reporter = self.reporter(node, document);
                let written = node.text(field).unwrap_or_default();
                let at = node.get(field).map_or(node.at, |value| value.at);
                reporter.error(
                    at,
                    field,
                    format!("{written:?} is not known, so the object does not count; write {meant}"),
                );
            }
            Said::Nothing { field } => {
                let message = format!("the object has no {field} and does not count; add it");
                self.reporter(node, document).error(node.at, field, message);
            }
        }
    }

    fn reporter<'b>(&'b mut self, node: &Node<'_>, document: Document<'b>) -> Reporter<'b> {
        Reporter::new(document, node.text("kind").unwrap_or_default(), node, &mut self.diagnostics)
    }

    fn object(&mut self, node: &Node<'_>, kind: Kind, document: Document<'_>) {
        let mut reporter = Reporter::new(document, kind.name(), node, &mut self.diagnostics);
        let read = match kind {
            Kind::Namespace => plain(node, &mut reporter, Object::Namespace),
            Kind::Node => plain(node, &mut reporter, Object::Node),
            Kind::Pod => plain(node, &mut reporter, Object::Pod),
            Kind::Service => plain(node, &mut reporter, Object::Service),
            Kind::EndpointSlice => plain(node, &mut reporter, Object::EndpointSlice),
            Kind::NetworkPolicy => policy::policy(node, &mut reporter)
                .map(|(policy, spoiled)| (Object::NetworkPolicy(Box::new(policy)), spoiled)),
        };
        let Some((mut object, spoiled)) = read else { return };
        let metadata = object.metadata_mut();
        if metadata.name.as_ref().is_none_or(String::is_empty) {
            let message = "the object has no name and does not count; give it one".to_owned();
            reporter.error(node.at, "metadata.name", message);
            return;
        }
        metadata.namespace = match metadata.namespace.take() {
            _ if !kind.is_namespaced() => None,
            Some(namespace) if !namespace.is_empty() => Some(namespace),
            _ => Some(DEFAULT_NAMESPACE.to_owned()),
        };
        let origin = Arc::new(origin::origin(node, kind, document));
        (self.take)(Taken::Object(Located { object, origin, spoiled }));
    }
}

/// An object of a kind that is taken whole or not at all.
fn plain<T: DeserializeOwned>(
    node: &Node<'_>,
    reporter: &mut Reporter<'_>,
    wrap: fn(Box<T>) -> Object,
) -> Option<(Object, Vec<String>)> {
    let mut oddities = Vec::new();
    let result = read::read::<T>(node, &FieldPath::ROOT, &mut oddities);
    let mut sound = true;
    for oddity in oddities {
        match oddity.kind {
            OddityKind::Unknown(_) => reporter.warning(oddity.at, &oddity.field, oddity.kind.to_string()),
            OddityKind::Repeated => {
                reporter.error(
                    oddity.at,
                    &oddity.field,
                    format!("{}; the object does not count until then", oddity.kind),
                );
                sound = false;
            }
        }
    }
    match result {
        Ok(object) => sound.then(|| (wrap(Box::new(object)), Vec::new())),
        Err(failure) => {
            let (field, at) = failure.place.unwrap_or_else(|| (String::new(), node.at));
            reporter.error(at, &field, format!("{}; the object does not count until then", failure.message));
            None
        }
    }
}
