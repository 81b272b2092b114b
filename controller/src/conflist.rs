//! Whether a CNI plugin of this node needs a qdisc that excludes ours: below Linux 6.6 clsact has the place of the
//! `ingress` qdisc that `bandwidth` adds to the host's end of a veth. Entry point: [`Configurations::look`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Plugins that add an `ingress` qdisc to an interface of their predecessors' (containernetworking/plugins,
/// plugins/meta/bandwidth/ifb_creator.go). They fail where clsact is, and with them the pod's start.
const NEED_INGRESS: [&str; 1] = ["bandwidth"];

/// A runtime's network configurations.
#[derive(Clone, Debug)]
pub(crate) struct Configurations {
    folder: PathBuf,
    found: Option<Found>,
    fault: Option<String>,
}

/// A plugin that needs an `ingress` qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The configuration that names it.
    pub(crate) path: PathBuf,
    /// Its type.
    pub(crate) plugin: &'static str,
}

/// A list of plugins, or a single one.
#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Debug, Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Configurations {
    /// Nothing is known before the first look.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, found: None, fault: None }
    }

    /// Reads them again. What has changed is logged; where they can't be read, what was known stays.
    pub(crate) fn look(&mut self) {
        match find(&self.folder) {
            Ok(found) => {
                if let Some(Found { path, plugin }) = found.as_ref().filter(|found| self.found.as_ref() != Some(found))
                {
                    tracing::info!(
                        "{} names the plugin {plugin}, whose ingress qdisc excludes the clsact qdisc that this kernel needs \
                         for enforcement: pods are attached when their plugins have returned, and one that has such a qdisc \
                         by then can't be enforced",
                        path.display()
                    );
                }
                (self.found, self.fault) = (found, None);
            }
            Err(error) => {
                let fault = error.to_string();
                if self.fault.as_ref() != Some(&fault) {
                    tracing::warn!(
                        "{} can't be read: {fault}; whether plugins need an ingress qdisc is not known, and pods are attached \
                         at once (--cni-conf-dir)",
                        self.folder.display()
                    );
                }
                self.fault = Some(fault);
            }
        }
    }

    /// Of the plugins that were found, one that needs an `ingress` qdisc.
    pub(crate) const fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }
}

/// In any of a runtime's configurations: which of them counts for a pod, Multus and its like decide pod by pod.
fn find(folder: &Path) -> io::Result<Option<Found>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    let is_read =
        |path: &PathBuf| path.extension().is_some_and(|end| ["conf", "conflist", "json"].iter().any(|one| end == *one));
    paths.retain(is_read);
    paths.sort_unstable();
    for path in paths {
        // one that is being written is read again with the next interface, one that stays so no runtime can use
        let Some(configuration) = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) else {
            continue;
        };
        if let Some(plugin) = needs_ingress(&configuration) {
            return Ok(Some(Found { path, plugin }));
        }
    }
    Ok(None)
}

fn needs_ingress(configuration: &Configuration) -> Option<&'static str> {
    let kinds = configuration.plugins.iter().filter_map(|plugin| plugin.kind.as_deref());
    let mut kinds = kinds.chain(configuration.kind.as_deref());
    kinds.find_map(|kind| NEED_INGRESS.into_iter().find(|one| *one == kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_an_ingress_qdisc() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut configurations = Configurations::new(path("net.d"));
        let mut look = || {
            configurations.look();
            configurations.found().cloned()
        };
        assert_eq!(look(), None, "there is none yet");
        fs::create_dir(path("net.d")).unwrap();
        fs::write(path("net.d/10-a.conflist"), r#"{"plugins": [{"type": "ptp"}, {"type": "portmap"}]}"#).unwrap();
        fs::write(path("net.d/20-half.conflist"), r#"{"plugins": [{"type": "bandwidth"}"#).unwrap();
        fs::write(path("net.d/30-kept.conf.sluice-cni-kept"), r#"{"type": "bandwidth"}"#).unwrap();
        assert_eq!(look(), None);
        let list =
            r#"{"plugins": [{"type": "calico"}, {"type": "bandwidth", "capabilities": {"bandwidth": true}}, {}]}"#;
        fs::write(path("net.d/40-b.conflist"), list).unwrap();
        assert_eq!(look(), Some(Found { path: path("net.d/40-b.conflist"), plugin: "bandwidth" }));
        fs::remove_file(path("net.d/40-b.conflist")).unwrap();
        assert_eq!(look(), None);
        fs::write(path("net.d/50-single.conf"), r#"{"type": "bandwidth"}"#).unwrap();
        assert!(look().is_some());
        // what was known stays where nothing can be read
        fs::remove_dir_all(path("net.d")).unwrap();
        fs::write(path("net.d"), "").unwrap();
        assert!(look().is_some());
    }
}
