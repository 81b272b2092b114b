//! What a runtime says on stdin: the version, the network, the result of the plugins before, and this plugin's settings.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    failure::{DECODING, Failure, INCOMPATIBLE_VERSION, INVALID_CONFIG, UNSUPPORTED_FIELD},
    json::Fields,
};

/// The versions of the specification that this plugin speaks, oldest first. Chaining began with the first of them.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The newest of them.
pub(crate) const CURRENT: &str = VERSIONS[VERSIONS.len() - 1];

pub(crate) const DEFAULT_SOCKET: &str = "/run/sluice/agent.sock";
pub(crate) const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/sluice";
pub(crate) const DEFAULT_TIMEOUT: u64 = 10;
/// kubelet gives a runtime two minutes for a sandbox.
pub(crate) const LONGEST_TIMEOUT: u64 = 100;

/// What becomes of a pod whose policies are not in force in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnAgentDown {
    /// It does not start; kubelet tries again.
    #[default]
    Fail,
    /// It starts, and nothing but the node's own traffic passes until the agent has come.
    Hold,
}

/// What becomes of a pod whose packets can't be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnUnenforceable {
    /// It does not start.
    #[default]
    Fail,
    /// It starts without policies; the agent reports it.
    Allow,
}

/// This plugin's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where the agent answers.
    pub(crate) socket: PathBuf,
    /// Where the agent's programs and links are pinned.
    pub(crate) pin_dir: PathBuf,
    /// How long the pod's policies may take.
    pub(crate) timeout: Duration,
    pub(crate) on_agent_down: OnAgentDown,
    pub(crate) on_unenforceable: OnUnenforceable,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            pin_dir: DEFAULT_PIN_DIR.into(),
            timeout: Duration::from_secs(DEFAULT_TIMEOUT),
            on_agent_down: OnAgentDown::default(),
            on_unenforceable: OnUnenforceable::default(),
        }
    }
}

/// A configuration as a plugin gets it.
#[derive(Debug)]
pub(crate) struct Config<'a> {
    /// One of [`VERSIONS`].
    pub(crate) version: &'static str,
    /// The network.
    pub(crate) name: String,
    /// The result of the plugins before, as it was written.
    pub(crate) previous: Option<&'a RawValue>,
    fields: Fields<'a>,
}

/// An attachment that is still there, for `GC`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Valid {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

impl<'a> Config<'a> {
    /// Reads it; `command` needs version `since` at least.
    pub(crate) fn parse(text: &'a str, command: &str, since: &str) -> Result<Self, Failure> {
        let fields = Fields::parse(text);
        let fields = fields.map_err(|error| Failure::new(DECODING, "the network configuration is not JSON", error))?;
        let asked = fields.text("cniVersion").unwrap_or_default();
        let Some(place) = VERSIONS.iter().position(|version| *version == asked) else {
            let details = format!("cniVersion is {asked:?}, and this plugin speaks {}", VERSIONS.join(", "));
            return Err(Failure::new(INCOMPATIBLE_VERSION, "incompatible CNI version", details));
        };
        if VERSIONS.iter().position(|version| *version == since).is_some_and(|since| place < since) {
            let details =
                format!("{command} came with version {since} of the specification, and cniVersion is {asked}");
            return Err(Failure::new(INCOMPATIBLE_VERSION, "incompatible CNI version", details));
        }
        let name = fields.text("name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| invalid("name must be the network's name".to_owned()))?;
        let previous = fields.get("prevResult").filter(|value| value.get() != "null");
        Ok(Self { version: VERSIONS[place], name, previous, fields })
    }

    /// This plugin's own fields. One that it doesn't know is an error, since it was meant to say something.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = Settings::default();
        for (key, value) in &self.fields.0 {
            let text = value.get();
            match &**key {
                "socket" => settings.socket = path(key, text)?,
                "pinDir" => settings.pin_dir = path(key, text)?,
                "timeoutSeconds" => {
                    let seconds: Option<u64> = serde_json::from_str(text).ok();
                    let seconds = seconds.filter(|seconds| (1..=LONGEST_TIMEOUT).contains(seconds));
                    let seconds = seconds.ok_or_else(|| wrong(key, text, &format!("1 to {LONGEST_TIMEOUT}")))?;
                    settings.timeout = Duration::from_secs(seconds);
                }
                "onAgentDown" => {
                    settings.on_agent_down =
                        serde_json::from_str(text).map_err(|_| wrong(key, text, "\"fail\" or \"hold\""))?;
                }
                "onUnenforceable" => {
                    settings.on_unenforceable =
                        serde_json::from_str(text).map_err(|_| wrong(key, text, "\"fail\" or \"allow\""))?;
                }
                "cniVersion" | "name" | "type" | "prevResult" | "runtimeConfig" | "capabilities" | "args" => {}
                protocol if protocol.starts_with("cni.dev/") => {}
                _ => {
                    let details = format!("sluice-cni has no field {key:?}, whose value is {text}");
                    return Err(Failure::new(UNSUPPORTED_FIELD, "unsupported field", details));
                }
            }
        }
        Ok(settings)
    }

    /// The attachments that are still there; `None` if the runtime doesn't say, as libcni where it wasn't told. Their field
    /// had another name at first (libcni sets both).
    pub(crate) fn valid_attachments(&self) -> Result<Option<Vec<Valid>>, Failure> {
        let value = self.fields.get("cni.dev/valid-attachments").or_else(|| self.fields.get("cni.dev/attachments"));
        let Some(value) = value else { return Ok(None) };
        let valid: Result<Option<Vec<Valid>>, _> = serde_json::from_str(value.get());
        let valid = valid.map_err(|error| invalid(format!("cni.dev/valid-attachments can't be read: {error}")))?;
        Ok(Some(valid.unwrap_or_default()))
    }
}

/// The version that an answer is to be in; the newest if the text doesn't say.
pub(crate) fn version_of(text: &str) -> &'static str {
    let asked = Fields::parse(text).ok().and_then(|fields| fields.text("cniVersion"));
    asked.and_then(|asked| VERSIONS.into_iter().find(|version| *version == asked)).unwrap_or(CURRENT)
}

fn path(key: &str, text: &str) -> Result<PathBuf, Failure> {
    let path: Option<PathBuf> = serde_json::from_str(text).ok();
    path.filter(|path| path.is_absolute()).ok_or_else(|| wrong(key, text, "an absolute path"))
}

fn wrong(key: &str, value: &str, expected: &str) -> Failure {
    invalid(format!("{key} is {value}, and must be {expected}"))
}

fn invalid(details: String) -> Failure {
    Failure::new(INVALID_CONFIG, "invalid network configuration", details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fields: &str) -> String {
        format!(r#"{{"cniVersion": "1.0.0", "name": "net", "type": "sluice-cni"{fields}}}"#)
    }

    #[test]
    fn what_nobody_sets() {
        let text = with("");
        let config = Config::parse(&text, "ADD", "0.3.0").unwrap();
        assert_eq!((config.version, &*config.name, config.previous.is_none()), ("1.0.0", "net", true));
        assert_eq!(config.settings().unwrap(), Settings::default());
    }

    #[test]
    fn what_can_be_set() {
        let text = with(
            r#", "socket": "/s", "pinDir": "/p", "timeoutSeconds": 3, "onAgentDown": "hold", "onUnenforceable": "allow",
               "prevResult": {"x":1}, "runtimeConfig": {}, "cni.dev/new": 1"#,
        );
        let config = Config::parse(&text, "ADD", "0.3.0").unwrap();
        assert_eq!(config.previous.unwrap().get(), r#"{"x":1}"#);
        let expected = Settings {
            socket: "/s".into(),
            pin_dir: "/p".into(),
            timeout: Duration::from_secs(3),
            on_agent_down: OnAgentDown::Hold,
            on_unenforceable: OnUnenforceable::Allow,
        };
        assert_eq!(config.settings().unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        #[track_caller]
        fn check(fields: &str, code: u16, says: &str) {
            let text = with(fields);
            let failure = Config::parse(&text, "ADD", "0.3.0").unwrap().settings().unwrap_err();
            assert_eq!((failure.code, &*failure.details), (code, says));
        }
        check(r#", "timeoutSeconds": 0"#, INVALID_CONFIG, "timeoutSeconds is 0, and must be 1 to 100");
        check(r#", "timeoutSeconds": "5""#, INVALID_CONFIG, "timeoutSeconds is \"5\", and must be 1 to 100");
        check(r#", "onAgentDown": "open""#, INVALID_CONFIG, r#"onAgentDown is "open", and must be "fail" or "hold""#);
        let says = r#"onUnenforceable is "hold", and must be "fail" or "allow""#;
        check(r#", "onUnenforceable": "hold""#, INVALID_CONFIG, says);
        check(r#", "socket": "agent.sock""#, INVALID_CONFIG, "socket is \"agent.sock\", and must be an absolute path");
        let says = r#"sluice-cni has no field "onAgentDwn", whose value is "hold""#;
        check(r#", "onAgentDwn": "hold""#, UNSUPPORTED_FIELD, says);
    }

    #[test]
    fn versions() {
        #[track_caller]
        fn check(version: &str, since: &str, code: Option<u16>) {
            let text = format!(r#"{{"cniVersion": "{version}", "name": "n"}}"#);
            assert_eq!(Config::parse(&text, "X", since).err().map(|failure| failure.code), code, "{version} {since}");
        }
        for version in VERSIONS {
            check(version, "0.3.0", None);
        }
        check("0.2.0", "0.3.0", Some(INCOMPATIBLE_VERSION));
        check("2.0.0", "0.3.0", Some(INCOMPATIBLE_VERSION));
        check("0.3.1", "0.4.0", Some(INCOMPATIBLE_VERSION));
        check("1.0.0", "1.1.0", Some(INCOMPATIBLE_VERSION));
        check("1.1.0", "1.1.0", None);
        assert_eq!(
            (version_of(r#"{"cniVersion": "0.4.0"}"#), version_of("{"), version_of("{}")),
            ("0.4.0", CURRENT, CURRENT)
        );
        assert_eq!(Config::parse("{", "X", "0.3.0").unwrap_err().code, DECODING);
        assert_eq!(Config::parse(r#"{"cniVersion": "1.0.0"}"#, "X", "0.3.0").unwrap_err().code, INVALID_CONFIG);
    }

    #[test]
    fn attachments_by_either_name() {
        #[track_caller]
        fn check(fields: &str, expected: Option<Option<Vec<Valid>>>) {
            let text = with(fields);
            assert_eq!(Config::parse(&text, "GC", "0.3.0").unwrap().valid_attachments().ok(), expected);
        }
        let one = Valid { container_id: "c".into(), ifname: "eth0".into() };
        for name in ["valid-attachments", "attachments"] {
            let fields = format!(r#", "cni.dev/{name}": [{{"containerID": "c", "ifname": "eth0"}}]"#);
            check(&fields, Some(Some(vec![one.clone()])));
        }
        // what Go makes of an empty list
        check(r#", "cni.dev/valid-attachments": null"#, Some(Some(Vec::new())));
        check("", Some(None));
        check(r#", "cni.dev/valid-attachments": 1"#, None);
    }
}
