//! `policyctl lint`: faults and smells in policies, each with a code.

mod rules;

use policy_compiler::diagnostic::{Place, Severity};
use serde_json::json;

use crate::{
    Outcome, Status,
    format::{self, Answer, Output, Table},
    source::{self, State, plural},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
Codes:
  NP000 invalid object             NP009 ipBlock holds pod addresses
  NP001 policy selects no pod      NP010 only IPv4 blocks, pods have IPv6 too
  NP002 peer matches nothing       NP011 namespaceSelector matches no namespace
  NP003 rule shadowed by another   NP012 unknown field
  NP004 rules for a direction      NP013 the same policy twice
        not in policyTypes         NP014 namespace without default deny (--enable)
  NP005 egress without DNS         NP015 opens to the world
  NP006 port name nobody has       NP016 allow-all beside narrow rules
  NP007 two list elements that look like one with a dash too many
  NP008 TCP by default, but the pods serve the port over UDP";

/// Flags of `lint`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state: source::Args,
    /// All namespaces, also where -n or the environment name one (without either, all are looked at)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    format: format::Args,
    /// Also check this code, or all (repeatable)
    #[arg(long, value_name = "CODE")]
    enable: Vec<String>,
    /// Don't check this code (repeatable)
    #[arg(long, value_name = "CODE")]
    disable: Vec<String>,
    /// The least level that counts
    #[arg(long, value_enum, default_value_t)]
    level: Level,
}

/// How bad a finding must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub(crate) enum Level {
    /// What the API server would refuse.
    Error,
    /// What hardly means what its author thinks, too.
    #[default]
    Warning,
    /// What may well be meant, too.
    Info,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    place: Option<Place>,
    code: &'static str,
    level: Level,
    /// Such as `NetworkPolicy shop/db`.
    object: String,
    field: String,
    message: String,
}

impl Finding {
    /// Whether it is about a namespace or something in it. What could not be read has none, and is always told.
    fn is_in(&self, namespace: Option<&str>) -> bool {
        let (kind, name) = self.object.split_once(' ').unwrap_or_default();
        let own = if kind == "Namespace" { name } else { name.split_once('/').map_or("", |(namespace, _)| namespace) };
        own.is_empty() || namespace.is_none_or(|namespace| namespace == own)
    }
}

/// Answers: 0 nothing found, 1 something.
pub(crate) fn run(args: &Args) -> Outcome {
    let state = source::gather(&args.state)?;
    let mut findings = of_files(&state);
    findings.extend(rules::findings(&state));
    let is = |list: &[String], code: &str| list.iter().any(|asked| asked.eq_ignore_ascii_case(code) || asked == "all");
    findings.retain(|finding| {
        finding.level <= args.level
            && !is(&args.disable, finding.code)
            && (finding.code != "NP014" || is(&args.enable, finding.code))
            && (args.all_namespaces || finding.is_in(args.state.live.namespace.as_deref()))
    });
    findings.sort();
    findings.dedup();
    answer(&findings, &state).print(&args.format)?;
    Ok(if findings.is_empty() { Status::Answered } else { Status::Denied })
}

/// What reading the files found.
fn of_files(state: &State) -> Vec<Finding> {
    let finding = |diagnostic: &policy_compiler::diagnostic::Diagnostic| {
        let code = if diagnostic.message.starts_with("there is no such field") {
            "NP012"
        } else if diagnostic.message.starts_with("the object is at ") {
            "NP013"
        } else {
            "NP000"
        };
        let name = diagnostic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        Finding {
            place: diagnostic.place.clone(),
            code,
            level: if diagnostic.severity == Severity::Error { Level::Error } else { Level::Warning },
            object: format!("{} {name}", diagnostic.kind).trim().to_owned(),
            field: diagnostic.field.clone(),
            message: diagnostic.message.clone(),
        }
    };
    state.gathered.diagnostics.iter().map(finding).collect()
}

fn answer(findings: &[Finding], state: &State) -> Answer {
    let mut answer = Answer { kind: "LintReport", list: "findings", ..Answer::default() };
    let place = |finding: &Finding| {
        finding
            .place
            .as_ref()
            .map(|place| format!("{}:{}:{}", place.file, place.line, place.column))
            .unwrap_or_default()
    };
    for finding in findings {
        let field = if finding.field.is_empty() { String::new() } else { format!(" {}", finding.field) };
        let Finding { code, level, object, message, .. } = finding;
        let place = place(finding);
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        let head = format!("{place}{} {code}: {object}{field}", level.word());
        answer.text.push_str(&format!("{}\n    {message}\n", head.trim_end().trim_end_matches(':')));
    }
    answer.text.push_str(&match findings.len() {
        0 => "nothing found\n".to_owned(),
        count => format!("\n{}\n", plural(count, "finding", "findings")),
    });
    let row = |finding: &Finding| {
        let Finding { code, level, object, field, message, .. } = finding;
        vec![
            (*code).to_owned(),
            level.word().to_owned(),
            object.clone(),
            field.clone(),
            message.clone(),
            place(finding),
        ]
    };
    // text has a paragraph for each
    let head = vec!["CODE", "LEVEL", "OBJECT", "FIELD", "MESSAGE", "PLACE"];
    answer.table = Some(Table { head, narrow: 0, rows: findings.iter().map(row).collect() });
    let element = |finding: &Finding| {
        json!({
            "code": finding.code, "level": finding.level.word(), "object": finding.object, "field": finding.field,
            "message": finding.message, "place": finding.place,
        })
    };
    answer.set("findings", findings.iter().map(element).collect::<Vec<_>>());
    answer.names = findings.iter().map(|finding| format!("{} {}", finding.code, finding.object)).collect();
    answer.special = vec![(Output::Sarif, sarif(findings))];
    answer.state(state);
    answer
}

/// SARIF 2.1.0 (OASIS), as code scanning takes it.
fn sarif(findings: &[Finding]) -> String {
    let result = |finding: &Finding| {
        let location = finding.place.as_ref().map(|place| {
            json!({"physicalLocation": {
                "artifactLocation": {"uri": place.file},
                "region": {"startLine": place.line, "startColumn": place.column},
            }})
        });
        json!({
            "ruleId": finding.code,
            "level": if finding.level == Level::Info { "note" } else { finding.level.word() },
            "message": {"text": format!("{} {}: {}", finding.object, finding.field, finding.message)},
            "locations": location.into_iter().collect::<Vec<_>>(),
        })
    };
    let mut codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let report = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "policyctl",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": codes.iter().map(|code| json!({"id": code})).collect::<Vec<_>>(),
            }},
            "results": findings.iter().map(result).collect::<Vec<_>>(),
        }],
    });
    format!("{report:#}\n")
}
