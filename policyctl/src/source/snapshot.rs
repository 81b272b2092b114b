//! States that were put aside: `policyctl snapshot > FILE`, `--snapshot FILE`. A snapshot is a `List` as `kubectl` writes
//! it, so that `-f` reads it too; its metadata say when and where it was taken. [`written`] and [`take`].

use anyhow::{Context as _, ensure};
use policy_compiler::files::Gather;
use serde::{Deserialize, Serialize};

use super::{
    cluster::{About, Fetched},
    files,
};

/// The list, as it is written: what is told of it comes first, so that it can be read without the rest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    items: Vec<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    resource_version: &'a str,
    snapshot: &'a About,
}

/// What a list says of itself.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMetadata,
}

#[derive(Deserialize)]
struct HeadMetadata {
    snapshot: About,
}

/// What is written of a cluster's state: in JSON, else in YAML.
pub(crate) fn written(fetched: &Fetched, as_json: bool) -> anyhow::Result<String> {
    let metadata = Metadata { resource_version: &fetched.about.resource_version, snapshot: &fetched.about };
    let (api_version, kind) = ("v1", "List");
    if as_json {
        let list = List { api_version, kind, metadata, items: Vec::<()>::new() };
        let head = serde_json::to_string_pretty(&list)?;
        let head = head.strip_suffix("[]\n}").context("a list ends with its items")?;
        // an object a line: short, and what has changed shows in a diff
        let lines: Vec<_> = fetched.objects().map(|object| format!("    {object}")).collect();
        let items = if lines.is_empty() { String::new() } else { format!("\n{}\n  ", lines.join(",\n")) };
        return Ok(format!("{head}[{items}]\n}}\n"));
    }
    let list = List { api_version, kind, metadata, items: Vec::<()>::new() };
    let head = serde_saphyr::to_string(&list)?;
    let mut text = head.strip_suffix(" []\n").context("a list ends with its items")?.to_owned() + "\n";
    // one after the other: the values of all objects would take ten times the room of their text
    for object in fetched.objects() {
        text.push_str(&serde_saphyr::to_string(&[serde_json::from_str::<serde_json::Value>(object)?])?);
    }
    Ok(text)
}

/// Takes in a snapshot; when and where it was taken.
pub(super) fn take(name: &str, gather: &mut Gather) -> anyhow::Result<About> {
    let bytes = files::bytes(name)?;
    let about = about(&bytes).with_context(|| {
        format!("{name} is no snapshot; make one with policyctl snapshot > FILE, or read other files with -f")
    })?;
    gather.unwritten(name, &bytes);
    Ok(about)
}

/// What the list says of itself, before its items.
fn about(bytes: &[u8]) -> anyhow::Result<About> {
    let text = std::str::from_utf8(bytes).context("it is not text in UTF-8")?;
    ensure!(!text.trim().is_empty(), "it is empty");
    let head: Head = match text.split_once("\n  \"items\":") {
        Some((head, _)) if text.trim_start().starts_with('{') => {
            serde_json::from_str(&format!("{}}}", head.trim_end().trim_end_matches(',')))?
        }
        _ => {
            let (head, _) = text.split_once("\nitems:").context("it has no metadata.snapshot before its items")?;
            serde_saphyr::from_str(head).map_err(|error| anyhow::anyhow!("{}", error.without_snippet()))?
        }
    };
    Ok(head.metadata.snapshot)
}
