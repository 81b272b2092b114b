//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether a selector matches labels; `None` if the API server would refuse the selector.
///
/// 'A label selector is a label query over a set of resources. The result of matchLabels and matchExpressions are ANDed.
/// An empty label selector matches all objects' (LabelSelector).
pub(super) fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<bool> {
    let mut all = true;
    // 'matchLabels is a map of {key,value} pairs. A single {key,value} in the matchLabels map is equivalent to an element
    // of matchExpressions, whose key field is "key", the operator is "In", and the values array contains only "value"'.
    for (key, value) in selector.match_labels.iter().flatten() {
        if !is_key(key) || !is_value(value) {
            return None;
        }
        all &= labels.get(key) == Some(value);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.as_deref().unwrap_or_default();
        if !is_key(&expression.key) || !values.iter().all(|value| is_value(value)) {
            return None;
        }
        let label = labels.get(&expression.key);
        // 'values is an array of string values. If the operator is In or NotIn, the values array must be non-empty. If
        // the operator is Exists or DoesNotExist, the values array must be empty' (LabelSelectorRequirement.values).
        all &= match &*expression.operator {
            "In" if !values.is_empty() => label.is_some_and(|label| values.contains(label)),
            // 'all resources with key equal to [...] and all resources with no labels with the key' (Labels and
            // Selectors, on notin).
            "NotIn" if !values.is_empty() => label.is_none_or(|label| !values.contains(label)),
            "Exists" if values.is_empty() => label.is_some(),
            "DoesNotExist" if values.is_empty() => label.is_none(),
            _ => return None,
        };
    }
    Some(all)
}

/// 'Valid label keys have two segments: an optional prefix and name, separated by a slash. The name segment is required
/// and must be 63 characters or less, beginning and ending with an alphanumeric character with dashes, underscores, dots,
/// and alphanumerics between. [...] If specified, the prefix must be a DNS subdomain [...] not longer than 253
/// characters in total' (Labels and Selectors).
fn is_key(key: &str) -> bool {
    let segments: Vec<&str> = key.split('/').collect();
    match *segments {
        [name] => !name.is_empty() && is_value(name),
        [prefix, name] => {
            let label = |label: &str| {
                let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                label.starts_with(outer) && label.ends_with(outer) && label.chars().all(|c| outer(c) || c == '-')
            };
            prefix.len() <= 253 && prefix.split('.').all(label) && !name.is_empty() && is_value(name)
        }
        _ => false,
    }
}

/// 'must be 63 characters or less (can be empty), unless empty, must begin and end with an alphanumeric character, could
/// contain dashes, underscores, dots, and alphanumerics between' (Labels and Selectors).
fn is_value(value: &str) -> bool {
    let outer = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || value.len() <= 63
            && value.starts_with(outer)
            && value.ends_with(outer)
            && value.chars().all(|c| outer(c) || "-_.".contains(c))
}
