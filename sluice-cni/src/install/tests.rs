//! Installing and taking out again, on folders.

use std::os::unix::fs::PermissionsExt as _;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
enum Command {
    Install(InstallArgs),
    Uninstall(UninstallArgs),
}

/// A node's two folders.
struct Node(tempfile::TempDir);

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for folder in ["net.d", "bin"] {
            fs::create_dir(node.path(folder)).unwrap();
        }
        for (name, text) in files {
            fs::write(node.conf(name), text).unwrap();
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn conf(&self, name: &str) -> PathBuf {
        self.path("net.d").join(name)
    }

    fn run(&self, command: &str, flags: &[&str]) -> Result<String> {
        let places = [
            format!("--conf-dir={}", self.path("net.d").display()),
            format!("--bin-dir={}", self.path("bin").display()),
        ];
        let words =
            ["sluice-cni", command].into_iter().chain(places.iter().map(String::as_str)).chain(flags.iter().copied());
        match Command::try_parse_from(words).unwrap() {
            Command::Install(args) => install(&args),
            Command::Uninstall(args) => uninstall(&args),
        }
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const PTP: &str =
    "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    {\"type\": \"ptp\"}\n  ]\n}\n";
const SINGLE: &str = "{\"cniVersion\": \"0.4.0\", \"name\": \"net\", \"type\": \"ptp\"}\n";

#[test]
fn the_first_configuration_gets_it_and_gives_it_back() {
    let node = Node::new(&[("20-other.conflist", PTP), ("10-net.conflist", PTP), ("05-readme.txt", "x")]);
    let said = node.run("install", &[]).unwrap();
    assert!(said.contains("sluice-cni added to") && said.contains("10-net.conflist"), "{said}");
    let with = PTP.replace("{\"type\": \"ptp\"}", "{\"type\": \"ptp\"},\n    {\"type\": \"sluice-cni\"}");
    assert_eq!(fs::read_to_string(node.conf("10-net.conflist")).unwrap(), with);
    assert_eq!(fs::read_to_string(node.conf("20-other.conflist")).unwrap(), PTP);
    let program = node.path("bin").join(TYPE);
    assert_eq!(fs::read(&program).unwrap(), fs::read(env::current_exe().unwrap()).unwrap());
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);

    let said = node.run("install", &[]).unwrap();
    assert!(said.contains("names sluice-cni already") && said.contains("is up to date"), "{said}");
    node.run("install", &["--on-agent-down=hold", "--timeout-seconds=30", "--socket=/s", "--pin-dir=/p\"q"]).unwrap();
    let own =
        r#"{"type": "sluice-cni", "onAgentDown": "hold", "timeoutSeconds": 30, "socket": "/s", "pinDir": "/p\"q"}"#;
    assert_eq!(
        fs::read_to_string(node.conf("10-net.conflist")).unwrap(),
        with.replace("{\"type\": \"sluice-cni\"}", own)
    );

    node.run("uninstall", &["--keep-binary"]).unwrap();
    assert_eq!(fs::read_to_string(node.conf("10-net.conflist")).unwrap(), PTP);
    assert_eq!(node.files("bin"), [TYPE]);
    let said = node.run("uninstall", &[]).unwrap();
    assert!(said.contains("no configuration in") && said.contains("removed"), "{said}");
    assert_eq!(node.files("net.d"), ["05-readme.txt", "10-net.conflist", "20-other.conflist"]);
    assert_eq!(node.files("bin"), [""; 0]);
    node.run("uninstall", &[]).unwrap();
}

#[test]
fn a_single_plugin_becomes_a_list_and_comes_back() {
    let node = Node::new(&[("10-net.conf", SINGLE), ("20-other.conflist", PTP)]);
    node.run("install", &[]).unwrap();
    assert_eq!(node.files("net.d"), ["10-net.conf.sluice-cni-kept", "10-net.conflist", "20-other.conflist"]);
    let list: serde_json::Value = serde_json::from_str(&read(&node.conf("10-net.conflist")).unwrap()).unwrap();
    assert_eq!((&list["name"], &list["cniVersion"]), (&"net".into(), &"0.4.0".into()));
    assert_eq!((&list["plugins"][0]["type"], &list["plugins"][1]["type"]), (&"ptp".into(), &TYPE.into()));
    let said = node.run("install", &[]).unwrap();
    assert!(said.contains("names sluice-cni already"), "{said}");
    // the network's own installer writes its file again
    fs::write(node.conf("10-net.conf"), SINGLE).unwrap();
    node.run("install", &[]).unwrap();
    assert_eq!(node.files("net.d"), ["10-net.conf.sluice-cni-kept", "10-net.conflist", "20-other.conflist"]);
    node.run("uninstall", &[]).unwrap();
    assert_eq!(node.files("net.d"), ["10-net.conf", "20-other.conflist"]);
    assert_eq!(fs::read_to_string(node.conf("10-net.conf")).unwrap(), SINGLE);
}

#[test]
fn what_stands_in_the_way_is_said_with_the_way_out() {
    #[track_caller]
    fn check(files: &[(&str, &str)], says: &[&str]) {
        let node = Node::new(files);
        let error = format!("{:#}", node.run("install", &[]).unwrap_err());
        for part in says {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        for (name, text) in files {
            assert_eq!(fs::read_to_string(node.conf(name)).unwrap(), *text);
        }
    }
    check(&[], &["no network configuration is in", "has to be installed first"]);
    check(&[("10-a.conflist", "{"), ("20-b.conflist", PTP)], &["10-a.conflist can't be extended", "it can't be read"]);
    check(
        &[("10-a.conflist", r#"{"cniVersion": "0.2.0", "plugins": [{}]}"#)],
        &["its cniVersion is \"0.2.0\"", "raise it"],
    );
    check(&[("10-a.conf", "{\"cniVersion\": \"1.0.0\"}")], &["10-a.conf can't be extended", "it has no plugins"]);
    let node = Node::new(&[]);
    fs::remove_dir(node.path("net.d")).unwrap();
    let error = format!("{:#}", node.run("install", &[]).unwrap_err());
    assert!(error.contains("net.d can't be listed: --conf-dir must name"), "{error}");
    fs::remove_dir_all(node.path("bin")).unwrap();
    let error = format!("{:#}", node.run("install", &[]).unwrap_err());
    assert!(error.contains("bin/sluice-cni can't be written: --bin-dir must name"), "{error}");
}

/// A folder in place of the file that is written first can't be written by root either.
#[test]
fn a_configuration_that_cannot_be_written_stays_as_it_is() {
    let node = Node::new(&[("10-net.conflist", PTP)]);
    fs::create_dir(node.conf("10-net.conflist.sluice-cni-new")).unwrap();
    let error = format!("{:#}", node.run("install", &[]).unwrap_err());
    assert!(error.contains("10-net.conflist can't be written: make it writable"), "{error}");
    assert!(error.contains(r#"or add {"type": "sluice-cni"} at the end of its plugins by hand"#), "{error}");
    assert_eq!(fs::read_to_string(node.conf("10-net.conflist")).unwrap(), PTP);
}
