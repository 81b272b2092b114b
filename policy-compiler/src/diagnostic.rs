//! What is wrong with an object, and where: [`Diagnostic`], in the words of its author.
//!
//! Whoever finds a problem appends to a list and goes on; nothing stops at the first one.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::model::ObjectName;

/// The kinds of objects that verdicts depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// core/v1
    Namespace,
    /// core/v1
    Node,
    /// core/v1
    Pod,
    /// core/v1
    Service,
    /// discovery.k8s.io/v1
    EndpointSlice,
    /// networking.k8s.io/v1
    NetworkPolicy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Namespace, Self::Node, Self::Pod, Self::Service, Self::EndpointSlice, Self::NetworkPolicy];

    /// The `kind` field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// The `apiVersion` field.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
        }
    }

    /// Whether its objects are in a namespace.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Severity {
    /// The API server would refuse the object; what could be used of it is stricter than what was meant.
    Error,
    /// The object counts, but hardly means what its author thinks.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The file's name, as its reader was told it.
    pub file: Arc<str>,
    /// The number of the document in the file, from 1.
    pub document: usize,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One problem of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The object's kind as it says itself; empty if that could not be read.
    pub kind: Arc<str>,
    /// The object, if its name could be read.
    pub name: Option<ObjectName>,
    /// The field as the API server would name it, such as `spec.ingress[0].from[1].ipBlock.cidr`; empty for the whole
    /// object.
    pub field: String,
    /// What is wrong, what became of it, and the way out.
    pub message: String,
    /// Where it was read from, if it was a file.
    pub place: Option<Place>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: ", self.severity)?;
        if let Some(place) = &self.place {
            write!(f, "document {}: ", place.document)?;
        }
        if !self.kind.is_empty() {
            f.write_str(&self.kind)?;
            if let Some(name) = &self.name {
                write!(f, " {name}")?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A field of an object as a path from its root, built on the stack and only written when something is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> FieldPath<'a> {
    /// The object itself.
    pub(crate) const ROOT: FieldPath<'static> = FieldPath { parent: None, segment: Segment::Field("") };

    /// A field of this one.
    pub(crate) const fn field(&'a self, name: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), segment: Segment::Field(name) }
    }

    /// An element of this list.
    pub(crate) const fn index(&'a self, index: usize) -> FieldPath<'a> {
        FieldPath { parent: Some(self), segment: Segment::Index(index) }
    }

    /// An entry of this map, such as a label.
    pub(crate) const fn key(&'a self, key: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        match self.segment {
            Segment::Field(name) if parent.parent.is_none() => f.write_str(name),
            Segment::Field(name) => write!(f, ".{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The list of diagnostics seen from one object.
pub(crate) struct Problems<'a> {
    kind: Kind,
    name: ObjectName,
    list: &'a mut Vec<Diagnostic>,
}

impl<'a> Problems<'a> {
    /// Those of the object `name`.
    pub(crate) const fn of(kind: Kind, name: ObjectName, list: &'a mut Vec<Diagnostic>) -> Self {
        Self { kind, name, list }
    }

    /// What the API server would refuse.
    pub(crate) fn error(&mut self, field: &FieldPath<'_>, message: impl Into<String>) {
        self.push(Severity::Error, field, message.into());
    }

    /// What is allowed and still odd.
    pub(crate) fn warning(&mut self, field: &FieldPath<'_>, message: impl Into<String>) {
        self.push(Severity::Warning, field, message.into());
    }

    fn push(&mut self, severity: Severity, field: &FieldPath<'_>, message: String) {
        let kind = self.kind.name().into();
        let name = Some(self.name.clone());
        self.list.push(Diagnostic { severity, kind, name, field: field.to_string(), message, place: None });
    }
}
