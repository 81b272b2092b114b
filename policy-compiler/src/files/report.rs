//! Diagnostics of one object in one document.

use std::sync::Arc;

use super::tree::Node;
use crate::{
    cluster::Position,
    convert::DEFAULT_NAMESPACE,
    diagnostic::{Diagnostic, Kind, Place, Severity},
    model::ObjectName,
};

/// A document of a file.
#[derive(Clone, Copy)]
pub(super) struct Document<'a> {
    pub(super) file: &'a Arc<str>,
    /// From 1.
    pub(super) number: usize,
}

impl Document<'_> {
    pub(super) fn place(&self, at: Position) -> Place {
        Place { file: self.file.clone(), document: self.number, line: at.line as usize, column: at.column as usize }
    }

    /// What is wrong with the whole document.
    pub(super) fn error(&self, at: Position, message: String) -> Diagnostic {
        let place = Some(self.place(at));
        Diagnostic { severity: Severity::Error, kind: "".into(), name: None, field: String::new(), message, place }
    }
}

/// Collects diagnostics of one object.
pub(super) struct Reporter<'a> {
    document: Document<'a>,
    kind: Arc<str>,
    name: Option<ObjectName>,
    list: &'a mut Vec<Diagnostic>,
}

impl<'a> Reporter<'a> {
    /// Of an object that says it is of `kind`, by the name that it has, if it can be read.
    pub(super) fn new(document: Document<'a>, kind: &str, object: &Node<'_>, list: &'a mut Vec<Diagnostic>) -> Self {
        let metadata = object.get("metadata");
        let name = metadata.and_then(|metadata| metadata.text("name")).filter(|name| !name.is_empty());
        let namespace = match metadata.and_then(|metadata| metadata.text("namespace")) {
            _ if Kind::ALL.iter().any(|known| known.name() == kind && !known.is_namespaced()) => "",
            None | Some("") => DEFAULT_NAMESPACE,
            Some(namespace) => namespace,
        };
        Self { document, kind: kind.into(), name: name.map(|name| ObjectName::new(namespace, name)), list }
    }

    pub(super) fn error(&mut self, at: Position, field: &str, message: String) {
        self.push(Severity::Error, at, field, message);
    }

    pub(super) fn warning(&mut self, at: Position, field: &str, message: String) {
        self.push(Severity::Warning, at, field, message);
    }

    fn push(&mut self, severity: Severity, at: Position, field: &str, message: String) {
        self.list.push(Diagnostic {
            severity,
            kind: self.kind.clone(),
            name: self.name.clone(),
            field: field.to_owned(),
            message,
            place: Some(self.document.place(at)),
        });
    }
}
