//! What a document says it is: one of our kinds, a list, something that is none of our business, or a misspelling.

use super::tree::Node;
use crate::diagnostic::Kind;

/// What a document or an item of a list is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// One that verdicts depend on.
    Known(Kind),
    /// `items` holds the objects, which are of this kind if they don't say themselves.
    List(Option<Kind>),
    /// A kind of another API, as `Kind.group` or `Kind`.
    Other(String),
    /// Probably meant one of ours.
    Misspelt {
        /// `apiVersion` or `kind`
        field: &'static str,
        /// What should be written.
        meant: String,
    },
    /// No object at all.
    Nothing {
        /// What is missing.
        field: &'static str,
    },
}

/// Looks at `apiVersion` and `kind`. Items of a typed list (`PodList`) may leave both out.
pub(super) fn recognise(node: &Node<'_>, item_of: Option<Kind>) -> Said {
    let (version, kind) = match (node.text("apiVersion"), node.text("kind"), item_of) {
        (version, None, Some(kind)) if version.is_none_or(|version| version == kind.api_version()) => {
            return Said::Known(kind);
        }
        (_, None, _) => return Said::Nothing { field: "kind" },
        (None, Some(kind), _) => match kind_named(kind) {
            Some(meant) => {
                return Said::Misspelt { field: "apiVersion", meant: meant.api_version().to_owned() };
            }
            None => return Said::Nothing { field: "apiVersion" },
        },
        (Some(version), Some(kind), _) => (version, kind),
    };
    if version == "v1" && kind == "List" {
        return Said::List(None);
    }
    for known in Kind::ALL {
        let list = kind.strip_suffix("List");
        if version == known.api_version() && kind == known.name() {
            return Said::Known(known);
        }
        if version == known.api_version() && list == Some(known.name()) {
            return Said::List(Some(known));
        }
    }
    misspelt(version, kind).unwrap_or_else(|| {
        let group = version.rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        Said::Other(format!("{kind}{group}"))
    })
}

fn kind_named(kind: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|known| known.name() == kind)
}

fn misspelt(version: &str, kind: &str) -> Option<Said> {
    if let Some(known) = kind_named(kind) {
        // A NetworkPolicy of projectcalico.org, or a Service of serving.knative.dev, is another thing altogether.
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let ours = known.api_version().rsplit_once('/').map_or("", |(group, _)| group);
        let near = group == ours
            || matches!(group, "" | "extensions" | "networking" | "discovery" | "core")
            || distance(version, known.api_version()) <= 3;
        return near.then(|| Said::Misspelt { field: "apiVersion", meant: known.api_version().to_owned() });
    }
    let near = |known: &Kind| {
        let allowed = if known.name().len() < 6 { 1 } else { 2 };
        version == known.api_version() && distance(&kind.to_lowercase(), &known.name().to_lowercase()) <= allowed
    };
    let known = Kind::ALL.into_iter().find(near)?;
    Some(Said::Misspelt { field: "kind", meant: known.name().to_owned() })
}

/// The number of letters that were inserted, left out, replaced or swapped with their neighbour (Damerau and
/// Levenshtein, restricted to one edit a place).
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_one_edit() {
        for (a, b, expected) in [
            ("", "", 0),
            ("pod", "pod", 0),
            ("pdo", "pod", 1),
            ("pod", "pods", 1),
            ("cahce", "cache", 1),
            ("a", "xyz", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
