//! The result of the plugins before: read for what it says of the pod, and passed on as it is.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    failure::{DECODING, Failure, INVALID_CONFIG},
    json::Fields,
};

/// What matters here of a result.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Previous {
    #[serde(default, rename = "cniVersion")]
    version: Option<String>,
    #[serde(default)]
    interfaces: Option<Vec<Interface>>,
    #[serde(default)]
    ips: Option<Vec<Address>>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    /// Empty on the host.
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Address {
    /// With the length of its prefix.
    address: String,
    /// Which interface has it; absent before the plugins said so.
    #[serde(default)]
    interface: Option<usize>,
}

impl Previous {
    /// Reads a result in this version.
    pub(crate) fn read(raw: Option<&RawValue>, version: &str) -> Result<Self, Failure> {
        let missing = "prevResult is missing: sluice-cni has to come after the plugin that makes the interface, as \
                       `sluice-cni install` puts it";
        let raw = raw.ok_or_else(|| Failure::new(INVALID_CONFIG, "no result of a plugin before", missing))?;
        // serde would take a list for an object, too
        let previous = Fields::parse(raw.get()).and_then(|_| serde_json::from_str(raw.get()));
        let previous: Self = previous.map_err(|error| Failure::new(DECODING, "prevResult can't be read", error))?;
        match &previous.version {
            Some(other) if other != version => {
                let details = format!("prevResult.cniVersion is {other:?}, and cniVersion is {version:?}");
                Err(Failure::new(DECODING, "the plugin before answered in another version", details))
            }
            _ => Ok(previous),
        }
    }

    /// The interfaces on the host's side that the plugins name: the pod's veth among them, perhaps a bridge.
    pub(crate) fn on_host(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().flatten().filter(|one| one.sandbox.is_empty()).map(|one| one.name.as_str())
    }

    /// The pod's addresses: those that are not said to be the host's.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let interfaces = self.interfaces.as_deref().unwrap_or_default();
        let is_hosts = |ip: &&Address| {
            let interface = ip.interface.and_then(|index| interfaces.get(index));
            interface.is_some_and(|interface| interface.sandbox.is_empty())
        };
        let parse = |ip: &Address| {
            let address = ip.address.split('/').next().and_then(|address| address.parse().ok());
            address.ok_or_else(|| {
                let details = format!("prevResult.ips has the address {:?}, which is none", ip.address);
                Failure::new(DECODING, "prevResult can't be read", details)
            })
        };
        self.ips.iter().flatten().filter(|ip| !is_hosts(ip)).map(parse).collect()
    }
}

/// The result as it came, with the version in it, which some runtimes leave out.
pub(crate) fn pass_on(raw: &RawValue, version: &str) -> String {
    let text = raw.get();
    let has_version = serde_json::from_str::<Previous>(text).is_ok_and(|previous| previous.version.is_some());
    match text.strip_prefix('{') {
        Some(rest) if !has_version => {
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            format!("{{\"cniVersion\":\"{version}\"{comma}{rest}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    const BRIDGE: &str = r#"{
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "cni0", "mac": "00:11:22:33:44:55"},
            {"name": "veth3243", "mac": "55:44:33:22:11:11", "sandbox": ""},
            {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/run/netns/blue"}
        ],
        "ips": [{"interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}, {"interface": 2, "address": "fd00::5/64"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {}
    }"#;

    #[test]
    fn what_the_bridge_plugin_says() {
        let raw = raw(BRIDGE);
        let previous = Previous::read(Some(&raw), "1.0.0").unwrap();
        assert_eq!(previous.on_host().collect::<Vec<_>>(), ["cni0", "veth3243"]);
        assert_eq!(previous.addresses().unwrap(), ["10.1.0.5", "fd00::5"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(pass_on(&raw, "1.0.0"), BRIDGE);
    }

    #[test]
    fn addresses_of_the_host_are_not_the_pods() {
        let text = r#"{"interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "/n"}], "ips":
            [{"interface": 0, "address": "169.254.1.1/32"}, {"interface": 1, "address": "10.1.0.5/32"},
             {"version": "4", "address": "10.1.0.6/32"}]}"#;
        let previous = Previous::read(Some(&raw(text)), "0.3.1").unwrap();
        assert_eq!(previous.addresses().unwrap(), ["10.1.0.5", "10.1.0.6"].map(|a| a.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn a_version_that_is_left_out_is_filled_in() {
        assert_eq!(pass_on(&raw(r#"{"ips":[]}"#), "0.4.0"), r#"{"cniVersion":"0.4.0","ips":[]}"#);
        assert_eq!(pass_on(&raw("{ }"), "0.4.0"), r#"{"cniVersion":"0.4.0" }"#);
    }

    #[test]
    fn what_is_no_result() {
        #[track_caller]
        fn check(text: Option<&str>, code: u16, says: &str) {
            let raw = text.map(raw);
            let read = Previous::read(raw.as_deref(), "1.0.0").and_then(|previous| previous.addresses());
            let failure = read.unwrap_err();
            assert!(failure.code == code && failure.details.contains(says), "{failure:?}");
        }
        check(None, INVALID_CONFIG, "sluice-cni has to come after");
        check(Some("[]"), DECODING, "");
        check(Some(r#"{"cniVersion": "0.4.0"}"#), DECODING, r#"prevResult.cniVersion is "0.4.0""#);
        check(Some(r#"{"ips": [{"address": "10.1.0/16"}]}"#), DECODING, "10.1.0/16");
    }
}
