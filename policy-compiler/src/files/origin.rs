//! Where the fields that explanations quote are in their file.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    report::Document,
    tree::{Node, Value},
};
use crate::{
    cluster::{Origin, Position},
    diagnostic::Kind,
};

/// The origin of an object.
pub(super) fn origin(node: &Node<'_>, kind: Kind, document: Document<'_>) -> Origin {
    let mut fields = BTreeMap::new();
    let metadata = node.get("metadata");
    if let Some(labels) = metadata.and_then(|metadata| metadata.get("labels")) {
        collect(labels, labels.at, &mut "metadata.labels".to_owned(), true, &mut fields);
    }
    if kind == Kind::NetworkPolicy
        && let Some(spec) = node.get("spec")
    {
        collect(spec, spec.at, &mut "spec".to_owned(), false, &mut fields);
    }
    Origin { place: document.place(node.at), fields, unlisted: None }
}

/// The origin of the pods that a workload's template makes: where the workload begins, with the template's labels.
pub(super) fn of_template(node: &Node<'_>, document: Document<'_>) -> Origin {
    let mut fields = BTreeMap::new();
    let metadata = template_of(node).and_then(|template| template.get("metadata"));
    if let Some(labels) = metadata.and_then(|metadata| metadata.get("labels")) {
        collect(labels, labels.at, &mut "metadata.labels".to_owned(), true, &mut fields);
    }
    Origin { place: document.place(node.at), fields, unlisted: None }
}

/// `spec.template`, of a CronJob that of its Jobs.
pub(super) fn template_of<'a, 'b>(node: &'b Node<'a>) -> Option<&'b Node<'a>> {
    let spec = node.get("spec")?;
    spec.get("template").or_else(|| spec.get("jobTemplate")?.get("spec")?.get("template"))
}

/// `at` is where the value's key is, if it has one.
fn collect(
    node: &Node<'_>,
    at: Position,
    path: &mut String,
    is_labels: bool,
    fields: &mut BTreeMap<Box<str>, Position>,
) {
    fields.insert(path.as_str().into(), at);
    let length = path.len();
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let written = if is_labels { write!(path, "[{}]", entry.key) } else { write!(path, ".{}", entry.key) };
                written.expect("writing to a string never fails");
                collect(&entry.value, entry.at, path, entry.key == "matchLabels", fields);
                path.truncate(length);
            }
        }
        Value::List(elements) => {
            for (index, element) in elements.iter().enumerate() {
                write!(path, "[{index}]").expect("writing to a string never fails");
                collect(element, element.at, path, false, fields);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
