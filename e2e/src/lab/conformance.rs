//! The upstream end-to-end suite on a cluster, in several processes, and what its report says of each case.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{Cluster, Suite};

/// The cases about NetworkPolicy.
pub const NETWORK_POLICY: &str = r"\[Feature:NetworkPolicy\]";

/// What is run, and how.
#[derive(Clone, Debug)]
pub struct Conformance {
    /// Regular expressions on a case's full name, one of which must match.
    pub focus: Vec<String>,
    /// Processes that run cases side by side.
    pub processes: u8,
    /// Whether the nodes' kernel knows SCTP; if not, its cases are left out.
    pub sctp: bool,
    /// The folder for the report and the whole output.
    pub folder: PathBuf,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cases that passed, in alphabetical order, with the time that each took.
    pub passed: Vec<(String, Duration)>,
    /// Cases that did not, and why.
    pub failed: Vec<(String, String)>,
    /// From the first case's beginning to the last one's end.
    pub took: Duration,
}

impl Conformance {
    /// Runs it to its end.
    ///
    /// # Errors
    /// If the suite can't be built or started, or runs no case. A case that fails is no error.
    pub fn run(&self, cluster: &Cluster) -> Result<Outcome> {
        let suite = Suite::get()?;
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        let report = self.folder.join("report.json");
        let _ = fs::remove_file(&report);
        let start = Instant::now();
        let log = self.folder.join("output.log");
        let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share the log")?;
        let mut ginkgo = self.command(&suite, cluster.kubeconfig());
        ginkgo.stdin(Stdio::null()).stdout(output).stderr(errors);
        let status = cluster.spawn(&mut ginkgo)?.wait().context("cannot wait for the suite")?;
        let took = start.elapsed();
        let text = fs::read_to_string(&report)
            .with_context(|| format!("the suite ({status}) has left no report; it said: {}", log.display()))?;
        let outcome = Outcome { took, ..read(&text)? };
        let cases = outcome.passed.len() + outcome.failed.len();
        ensure!(cases > 0, "the suite ({status}) has run no case; it said: {}", log.display());
        ensure!(
            status.success() || !outcome.failed.is_empty(),
            "the suite failed ({status}) beside its cases; it said: {}",
            log.display()
        );
        Ok(outcome)
    }

    fn command(&self, suite: &Suite, kubeconfig: &Path) -> Command {
        let mut command = Command::new(&suite.ginkgo);
        command.arg(format!("--procs={}", self.processes)).args(["--no-color", "--json-report=report.json"]);
        command.arg(format!("--output-dir={}", self.folder.display()));
        command.args(self.focus.iter().map(|focus| format!("--focus={focus}")));
        if !self.sctp {
            command.arg("--skip=SCTP");
        }
        command.arg(&suite.tests).arg("--").args(["--provider=local", "--node-os-distro=custom"]);
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        // What the suite writes beside its report stays there, too.
        command.current_dir(&self.folder);
        command
    }
}

impl Outcome {
    /// How many cases ran.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.passed.len() + self.failed.len()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, why) in &self.failed {
            writeln!(f, "failed: {name}\n    {}", why.replace('\n', "\n    "))?;
        }
        let (passed, failed) = (self.passed.len(), self.failed.len());
        write!(f, "{passed} passed, {failed} failed of {} cases in {:.0} s", self.cases(), self.took.as_secs_f64())
    }
}

/// Whether this machine's kernel has SCTP, loaded or built in.
#[must_use]
pub fn kernel_has_sctp() -> bool {
    let protocols = fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    protocols.lines().any(|line| line.starts_with("SCTP"))
}

/// Of ginkgo's report, what is used here (github.com/onsi/ginkgo/v2/types).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SuiteReport {
    spec_reports: Option<Vec<SpecReport>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    leaf_node_type: String,
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    run_time: u64,
    #[serde(default)]
    failure: Failure,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

fn read(report: &str) -> Result<Outcome> {
    let suites: Vec<SuiteReport> = serde_json::from_str(report).context("the suite's report can't be read")?;
    let mut passed = BTreeMap::new();
    let mut failed = BTreeMap::new();
    for spec in suites.into_iter().flat_map(|suite| suite.spec_reports.unwrap_or_default()) {
        let mut parts = spec.container_hierarchy_texts.unwrap_or_default();
        parts.push(spec.leaf_node_text);
        let name = parts.join(" ");
        match spec.state.as_str() {
            "skipped" | "pending" => {}
            // What the suite does before and after its cases counts when it fails.
            "passed" if spec.leaf_node_type == "It" => _ = passed.insert(name, Duration::from_nanos(spec.run_time)),
            "passed" => {}
            state => {
                let name = if name.trim().is_empty() { spec.leaf_node_type } else { name };
                failed.insert(name, format!("{state}: {}", spec.failure.message));
            }
        }
    }
    Ok(Outcome { passed: passed.into_iter().collect(), failed: failed.into_iter().collect(), took: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = r#"[{"SpecReports": [
            {"LeafNodeType": "BeforeSuite", "ContainerHierarchyTexts": null, "LeafNodeText": "", "State": "passed", "RunTime": 5},
            {"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-network] Netpol", "between"], "LeafNodeText": "denies",
             "State": "passed", "RunTime": 2000000000},
            {"LeafNodeType": "It", "ContainerHierarchyTexts": ["Netpol"], "LeafNodeText": "over SCTP", "State": "skipped", "RunTime": 0},
            {"LeafNodeType": "It", "ContainerHierarchyTexts": ["Netpol"], "LeafNodeText": "allows", "State": "failed", "RunTime": 1,
             "Failure": {"Message": "had 2 wrong results"}},
            {"LeafNodeType": "AfterSuite", "ContainerHierarchyTexts": null, "LeafNodeText": "", "State": "panicked", "RunTime": 5}
        ]}]"#;
        let outcome = read(report).expect("it is one");
        assert_eq!(outcome.passed, [("[sig-network] Netpol between denies".to_owned(), Duration::from_secs(2))]);
        let failed = [("AfterSuite", "panicked: "), ("Netpol allows", "failed: had 2 wrong results")];
        assert_eq!(outcome.failed, failed.map(|(name, why)| (name.to_owned(), why.to_owned())));
        assert!(read("[").is_err());
    }
}
