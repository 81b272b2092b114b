//! Edits network configurations as text: what is not this plugin's stays byte for byte, and taking the plugin out gives
//! back what was there before. Pure.

use serde_json::value::RawValue;

use crate::{config::VERSIONS, json::Fields};

/// This plugin's `type`, which is the name of its program.
pub(crate) const TYPE: &str = "sluice-cni";

/// Why a configuration can't be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Not JSON, or of another form.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// Plugins are chained since 0.3.0.
    #[error("its cniVersion is {0:?}, and plugins are chained from 0.3.0 on: raise it, if its plugins allow that")]
    TooOld(String),
    /// No list to add to.
    #[error("it has no plugins, so there is none whose interface could be enforced")]
    NoPlugins,
}

/// The plugins of a list, as they are written in its text.
struct List<'a> {
    text: &'a str,
    plugins: Vec<&'a RawValue>,
}

impl<'a> List<'a> {
    fn parse(text: &'a str) -> Result<Self, Unusable> {
        let fields = Fields::parse(text).map_err(unreadable)?;
        let plugins = fields.get("plugins").map_or("null", RawValue::get);
        let plugins: Option<Vec<&RawValue>> = serde_json::from_str(plugins).map_err(unreadable)?;
        let plugins = plugins.filter(|plugins| !plugins.is_empty()).ok_or(Unusable::NoPlugins)?;
        Ok(Self { text, plugins })
    }

    /// Where a plugin begins and ends in the text.
    fn span(&self, plugin: &RawValue) -> (usize, usize) {
        // both are of one text: RawValue borrows
        let start = plugin.get().as_ptr().addr() - self.text.as_ptr().addr();
        (start, start + plugin.get().len())
    }

    fn own(&self) -> Option<usize> {
        self.plugins.iter().position(|plugin| is_own(plugin))
    }
}

fn is_own(plugin: &RawValue) -> bool {
    Fields::parse(plugin.get()).is_ok_and(|fields| fields.text("type").as_deref() == Some(TYPE))
}

/// Whether the list has this plugin.
pub(crate) fn contains(text: &str) -> Result<bool, Unusable> {
    match List::parse(text) {
        Ok(list) => Ok(list.own().is_some()),
        Err(Unusable::NoPlugins) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The list with `plugin` at its end, or in the place where this plugin is already. At the end it comes after everything
/// that gives the pod its interface, and after `bandwidth`, whose qdisc excludes ours before Linux 6.6.
pub(crate) fn add(text: &str, plugin: &str) -> Result<String, Unusable> {
    check_version(text)?;
    let list = List::parse(text)?;
    if let Some(own) = list.own() {
        let (start, end) = list.span(list.plugins[own]);
        return Ok(format!("{}{plugin}{}", &text[..start], &text[end..]));
    }
    let (start, end) = list.span(list.plugins[list.plugins.len() - 1]);
    let before = &text[..start];
    let space = &before[before.trim_end().len()..];
    Ok(format!("{},{space}{plugin}{}", &text[..end], &text[end..]))
}

/// The list without this plugin, however often it is there.
pub(crate) fn remove(text: &str) -> Result<String, Unusable> {
    let mut text = text.to_owned();
    loop {
        let list = match List::parse(&text) {
            Err(Unusable::NoPlugins) => return Ok(text),
            other => other?,
        };
        let Some(own) = list.own() else { return Ok(text) };
        let (start, end) = list.span(list.plugins[own]);
        let cut = match (own.checked_sub(1), list.plugins.get(own + 1)) {
            (Some(before), _) => list.span(list.plugins[before]).1..end,
            (None, Some(after)) => start..list.span(after).0,
            (None, None) => start..end,
        };
        text.replace_range(cut, "");
    }
}

/// A list that does what a file of one plugin does, and then `plugin`.
pub(crate) fn from_single(text: &str, plugin: &str) -> Result<String, Unusable> {
    let fields = Fields::parse(text).map_err(unreadable)?;
    check_version(text)?;
    if fields.text("type").is_none() {
        return Err(Unusable::NoPlugins);
    }
    let carried = ["cniVersion", "name"].into_iter().filter_map(|key| Some((key, fields.get(key)?.get())));
    let head: String = carried.map(|(key, value)| format!("  \"{key}\": {value},\n")).collect();
    Ok(format!("{{\n{head}  \"plugins\": [\n    {},\n    {plugin}\n  ]\n}}\n", text.trim()))
}

fn check_version(text: &str) -> Result<(), Unusable> {
    let fields = Fields::parse(text).map_err(unreadable)?;
    let version = fields.text("cniVersion").unwrap_or_default();
    let more: Vec<String> =
        fields.get("cniVersions").and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default();
    let is_spoken = |version: &String| VERSIONS.contains(&version.as_str());
    if is_spoken(&version) || more.iter().any(is_spoken) { Ok(()) } else { Err(Unusable::TooOld(version)) }
}

fn unreadable(error: serde_json::Error) -> Unusable {
    Unusable::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"{"type": "sluice-cni", "timeoutSeconds": 10}"#;

    /// Adding gives `after`, adding again changes nothing, and removing gives back `before`.
    #[track_caller]
    fn check(before: &str, after: &str) {
        assert_eq!(add(before, OWN).unwrap(), after);
        assert_eq!(add(after, OWN).unwrap(), after);
        assert_eq!(remove(after).unwrap(), before);
        assert_eq!((contains(before), contains(after)), (Ok(false), Ok(true)));
    }

    #[test]
    fn a_list_with_a_line_for_each_plugin() {
        check(
            r#"{
  "name": "k8s", "unknown": {"z": 1.50, "a": "\u00fc"},
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "ptp", "ipam": {"type": "host-local"}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ],
  "after": [ ]
}
"#,
            r#"{
  "name": "k8s", "unknown": {"z": 1.50, "a": "\u00fc"},
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "ptp", "ipam": {"type": "host-local"}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "sluice-cni", "timeoutSeconds": 10}
  ],
  "after": [ ]
}
"#,
        );
    }

    #[test]
    fn a_list_in_one_line() {
        check(
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}"#,
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type": "sluice-cni", "timeoutSeconds": 10}]}"#,
        );
        check(
            r#"{"cniVersions": ["0.1.0", "1.1.0"], "name": "n", "plugins": [ {"type":"ptp"}, {"type":"tuning"} ]}"#,
            r#"{"cniVersions": ["0.1.0", "1.1.0"], "name": "n", "plugins": [ {"type":"ptp"}, {"type":"tuning"}, {"type": "sluice-cni", "timeoutSeconds": 10} ]}"#,
        );
    }

    #[test]
    fn other_settings_take_the_place_of_the_old_ones() {
        let list = |own: &str| {
            format!(r#"{{"cniVersion": "1.0.0", "plugins": [{{"type": "ptp"}}, {own}, {{"type": "last"}}]}}"#)
        };
        let (old, new) = (r#"{"onAgentDown": "hold", "type": "sluice-cni"}"#, OWN);
        assert_eq!(add(&list(old), new).unwrap(), list(new));
        let without = r#"{"cniVersion": "1.0.0", "plugins": [{"type": "ptp"}, {"type": "last"}]}"#;
        assert_eq!(remove(&list(old)).unwrap(), without);
    }

    #[test]
    fn it_is_removed_wherever_it_is() {
        let list = |plugins: &str| format!(r#"{{"cniVersion": "1.0.0", "plugins": [ {plugins} ]}}"#);
        let ptp = r#"{"type": "ptp"}"#;
        assert_eq!(remove(&list(&format!("{OWN}, {ptp}, {OWN}"))).unwrap(), list(ptp));
        assert_eq!(remove(&list(OWN)).unwrap(), list(""));
        assert_eq!(remove(&list("")).unwrap(), list(""));
    }

    #[test]
    fn a_file_of_one_plugin_becomes_a_list() {
        let single = "{\n  \"cniVersion\": \"0.4.0\",\n  \"name\": \"k8s\",\n  \"type\": \"bridge\"\n}\n";
        assert_eq!(
            from_single(single, OWN).unwrap(),
            r#"{
  "cniVersion": "0.4.0",
  "name": "k8s",
  "plugins": [
    {
  "cniVersion": "0.4.0",
  "name": "k8s",
  "type": "bridge"
},
    {"type": "sluice-cni", "timeoutSeconds": 10}
  ]
}
"#
        );
    }

    #[test]
    fn what_cannot_be_edited() {
        let is = |text: &str| add(text, OWN).unwrap_err();
        assert!(matches!(is("{"), Unusable::Unreadable(_)));
        assert!(matches!(is("[]"), Unusable::Unreadable(_)));
        assert!(matches!(is(r#"{"cniVersion": "1.0.0", "plugins": {}}"#), Unusable::Unreadable(_)));
        assert_eq!(is(r#"{"cniVersion": "0.2.0", "plugins": [{"type": "ptp"}]}"#), Unusable::TooOld("0.2.0".into()));
        assert_eq!(is(r#"{"plugins": [{"type": "ptp"}]}"#), Unusable::TooOld(String::new()));
        assert_eq!(is(r#"{"cniVersion": "1.0.0", "plugins": []}"#), Unusable::NoPlugins);
        assert_eq!(is(r#"{"cniVersion": "1.0.0"}"#), Unusable::NoPlugins);
        assert_eq!(from_single(r#"{"cniVersion": "1.0.0"}"#, OWN).unwrap_err(), Unusable::NoPlugins);
    }
}
