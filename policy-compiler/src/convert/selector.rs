//! Label selectors: meta/v1 `LabelSelector`, validated as `ValidateLabelSelector` of the API server does.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::{
    diagnostic::{FieldPath, Problems},
    model::{Requirement, Selector},
};

/// The selector, or `None` and diagnostics if any part of it is invalid.
pub(super) fn selector(object: &LabelSelector, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> Option<Selector> {
    let labels = match_labels(object.match_labels.as_ref(), &path.field("matchLabels"), problems);
    let expressions_path = path.field("matchExpressions");
    let expressions = object
        .match_expressions
        .iter()
        .flatten()
        .enumerate()
        .map(|(index, expression)| requirement(expression, &expressions_path.index(index), problems));
    let requirements = labels.into_iter().chain(expressions.collect::<Vec<_>>()).collect::<Option<Vec<_>>>();
    requirements.map(|mut requirements| {
        requirements.sort();
        requirements.dedup();
        Selector { requirements }
    })
}

fn match_labels(
    labels: Option<&BTreeMap<String, String>>,
    path: &FieldPath<'_>,
    problems: &mut Problems<'_>,
) -> Vec<Option<Requirement>> {
    let mut requirement = |key: &String, value: &String| {
        let path = path.key(key);
        check(problems, &path, label_key(key))?;
        check(problems, &path, label_value(value))?;
        Some(Requirement::In(Arc::from(&**key), vec![Arc::from(&**value)]))
    };
    labels.into_iter().flatten().map(|(key, value)| requirement(key, value)).collect()
}

fn requirement(
    expression: &LabelSelectorRequirement,
    path: &FieldPath<'_>,
    problems: &mut Problems<'_>,
) -> Option<Requirement> {
    check(problems, &path.field("key"), label_key(&expression.key))?;
    let key: Arc<str> = Arc::from(&*expression.key);
    let values_path = path.field("values");
    let mut values = Vec::new();
    for (index, value) in expression.values.iter().flatten().enumerate() {
        check(problems, &values_path.index(index), label_value(value))?;
        values.push(Arc::from(&**value));
    }
    values.sort();
    values.dedup();
    let operator = &*expression.operator;
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            problems.error(&values_path, format!("operator {operator} needs at least one value"));
            None
        }
        "In" => Some(Requirement::In(key, values)),
        "NotIn" => Some(Requirement::NotIn(key, values)),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            problems.error(
                &values_path,
                format!("operator {operator} takes no values; leave them out, or use In or NotIn"),
            );
            None
        }
        "Exists" => Some(Requirement::Exists(key)),
        "DoesNotExist" => Some(Requirement::DoesNotExist(key)),
        _ => {
            let message = format!("{operator:?} is no operator; write In, NotIn, Exists or DoesNotExist");
            problems.error(&path.field("operator"), message);
            None
        }
    }
}

fn check(problems: &mut Problems<'_>, path: &FieldPath<'_>, result: Result<(), String>) -> Option<()> {
    result.map_err(|message| problems.error(path, message)).ok()
}

/// The API server's `IsQualifiedName`: an optional DNS subdomain and a slash, then a name.
pub(super) fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_none_or(is_subdomain) && !name.is_empty() && is_name(name) {
        Ok(())
    } else {
        Err(format!(
            "{key:?} is no label key; write letters, digits, '-', '_' and '.', at most 63, beginning and ending with a \
             letter or digit, after an optional prefix such as example.com/"
        ))
    }
}

/// The API server's `IsValidLabelValue`.
pub(super) fn label_value(value: &str) -> Result<(), String> {
    if is_name(value) {
        Ok(())
    } else {
        Err(format!(
            "{value:?} is no label value; write at most 63 letters, digits, '-', '_' and '.', beginning and ending with \
             a letter or digit, or nothing"
        ))
    }
}

/// Empty, or at most 63 of letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric)
}

/// RFC 1123: at most 253 characters, in lower case.
fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
