//! What a runtime says in the environment: which container, which interface, which pod.

use std::path::PathBuf;

use crate::failure::{ENVIRONMENT, Failure};

/// The longest name of an interface (`IFNAMSIZ` without its zero).
const LONGEST_INTERFACE: usize = 15;

/// The container and the interface that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// `CNI_CONTAINERID`, which is fit for a file's name.
    pub(crate) container_id: String,
    /// `CNI_IFNAME`: the interface inside, which is fit for a file's name.
    pub(crate) interface: String,
    /// `CNI_NETNS`: where the container's network namespace is.
    pub(crate) netns: Option<PathBuf>,
}

/// Whose sandbox it is, from `CNI_ARGS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    /// `K8S_POD_NAMESPACE`
    pub(crate) namespace: String,
    /// `K8S_POD_NAME`
    pub(crate) name: String,
    /// `K8S_POD_UID`
    pub(crate) uid: String,
}

/// Asks for a variable.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Attachment {
    /// From `CNI_CONTAINERID`, `CNI_IFNAME` and `CNI_NETNS`, which is only needed where `needs_netns` says so.
    pub(crate) fn read(variables: Variables<'_>, needs_netns: bool) -> Result<Self, Failure> {
        let set = |name| variables(name).filter(|value| !value.is_empty());
        let (container_id, interface, netns) = (set("CNI_CONTAINERID"), set("CNI_IFNAME"), set("CNI_NETNS"));
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", container_id.is_none()),
            ("CNI_IFNAME", interface.is_none()),
            ("CNI_NETNS", needs_netns && netns.is_none()),
        ]
        .into_iter()
        .filter_map(|(name, is_missing)| is_missing.then_some(name))
        .collect();
        let (Some(container_id), Some(interface), true) = (container_id, interface, missing.is_empty()) else {
            return Err(invalid(format!("{} must be set", missing.join(", "))));
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !container_id.starts_with(|c: char| c.is_ascii_alphanumeric()) || !container_id.chars().all(allowed) {
            return Err(invalid(format!(
                "CNI_CONTAINERID is {container_id:?}, and must be letters, digits, '_', '.' and '-', the first one a \
                 letter or digit"
            )));
        }
        let is_name = !matches!(&*interface, "." | "..")
            && interface.len() <= LONGEST_INTERFACE
            && !interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if !is_name {
            return Err(invalid(format!("CNI_IFNAME is {interface:?}, which is no name of an interface")));
        }
        Ok(Self { container_id, interface, netns: netns.map(PathBuf::from) })
    }
}

impl PodName {
    /// From `CNI_ARGS`; `None` if the container is no pod's.
    pub(crate) fn read(variables: Variables<'_>) -> Result<Option<Self>, Failure> {
        let arguments = variables("CNI_ARGS").unwrap_or_default();
        let get = |name: &str| {
            let values = arguments.split(';').filter_map(|pair| pair.split_once('='));
            values.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value.to_owned()).next()
        };
        match (get("K8S_POD_NAMESPACE"), get("K8S_POD_NAME"), get("K8S_POD_UID")) {
            (None, None, None) => Ok(None),
            (Some(namespace), Some(name), Some(uid)) => Ok(Some(Self { namespace, name, uid })),
            _ => Err(invalid(format!(
                "CNI_ARGS is {arguments:?}, and must have K8S_POD_NAMESPACE, K8S_POD_NAME and K8S_POD_UID: this container \
                 runtime is too old to say which pod it is"
            ))),
        }
    }
}

fn invalid(details: String) -> Failure {
    Failure::new(ENVIRONMENT, "invalid environment variables", details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_container_and_its_interface() {
        let set = [("CNI_CONTAINERID", "c0_1.x-y"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/run/netns/x")];
        let read = Attachment::read(&variables(&set), true).unwrap();
        assert_eq!((&*read.container_id, &*read.interface), ("c0_1.x-y", "eth0"));
        assert_eq!(read.netns, Some("/run/netns/x".into()));
        assert_eq!(Attachment::read(&variables(&set[..2]), false).unwrap().netns, None);
    }

    #[test]
    fn what_is_wrong_with_the_environment_is_named() {
        #[track_caller]
        fn check(set: &[(&str, &str)], says: &str) {
            let failure = Attachment::read(&variables(set), true).unwrap_err();
            assert_eq!(failure.code, ENVIRONMENT);
            assert!(failure.details.contains(says), "{failure:?}");
        }
        check(&[], "CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS must be set");
        check(&[("CNI_CONTAINERID", "c"), ("CNI_IFNAME", ""), ("CNI_NETNS", "/n")], "CNI_IFNAME must be set");
        for id in ["../../etc", "a/b", "-a", "a b"] {
            check(&[("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/n")], "CNI_CONTAINERID is");
        }
        for interface in ["..", "a/b", "sixteen-letters-", "a:b"] {
            check(&[("CNI_CONTAINERID", "c"), ("CNI_IFNAME", interface), ("CNI_NETNS", "/n")], "CNI_IFNAME is");
        }
    }

    #[test]
    fn whose_sandbox_it_is() {
        let read = |arguments| PodName::read(&variables(&[("CNI_ARGS", arguments)]));
        let pod =
            read("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u");
        let expected = PodName { namespace: "shop".into(), name: "db".into(), uid: "u".into() };
        assert_eq!(pod.unwrap(), Some(expected));
        assert_eq!(read("IgnoreUnknown=1;FOO=BAR").unwrap(), None);
        assert_eq!(PodName::read(&variables(&[])).unwrap(), None);
        assert!(read("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db").unwrap_err().details.contains("too old"));
        read("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db;K8S_POD_UID=").unwrap_err();
    }
}
