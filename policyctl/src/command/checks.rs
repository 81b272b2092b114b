//! Checks as CI reads them: `-o junit` and `-o tap`. [`special`].

use serde_json::json;

use crate::format::Output;

/// Something that holds or doesn't.
pub(crate) struct Check {
    /// What JUnit groups it by: the file that it is written in.
    pub(crate) class: String,
    pub(crate) name: String,
    /// What is wrong, in one line; `None` if it holds.
    pub(crate) failure: Option<String>,
    /// Where it is, or all that is wrong.
    pub(crate) detail: String,
}

/// Both formats.
pub(crate) fn special(checks: &[Check]) -> Vec<(Output, String)> {
    vec![(Output::Tap, tap(checks)), (Output::Junit, junit(checks))]
}

fn tap(checks: &[Check]) -> String {
    let mut text = format!("TAP version 13\n1..{}\n", checks.len());
    for (number, check) in (1..).zip(checks) {
        let word = if check.failure.is_some() { "not ok" } else { "ok" };
        text.push_str(&format!("{word} {number} - {}\n", check.name.replace('#', "\\#")));
        if let Some(failure) = &check.failure {
            let (failure, place) = (json!(failure), json!(check.detail));
            text.push_str(&format!("  ---\n  message: {failure}\n  at: {place}\n  ...\n"));
        }
    }
    text
}

fn junit(checks: &[Check]) -> String {
    let (count, failed) = (checks.len(), checks.iter().filter(|check| check.failure.is_some()).count());
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{count}\" failures=\"{failed}\">\n  <testsuite \
         name=\"policyctl\" tests=\"{count}\" failures=\"{failed}\">\n"
    );
    for check in checks {
        let (name, class) = (escaped(&check.name), escaped(&check.class));
        text.push_str(&format!("    <testcase classname=\"{class}\" name=\"{name}\""));
        match &check.failure {
            None => text.push_str("/>\n"),
            Some(failure) => text.push_str(&format!(
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                escaped(failure),
                escaped(&check.detail)
            )),
        }
    }
    text + "  </testsuite>\n</testsuites>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
