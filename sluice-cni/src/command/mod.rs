//! The commands of the specification. Entry point: [`run`].

mod add;
mod check;
mod del;
mod gc;
mod status;

use crate::{
    config::{Config, VERSIONS, version_of},
    environment::Variables,
    failure::{ENVIRONMENT, Failure},
};

/// Carries out `CNI_COMMAND`; the result goes to stdout.
pub(crate) fn run(command: &str, variables: Variables<'_>, stdin: &str) -> Result<String, Failure> {
    let config = |since| Config::parse(stdin, command, since);
    match command {
        "ADD" => add::run(&config(VERSIONS[0])?, variables),
        "DEL" => del::run(&config(VERSIONS[0])?, variables),
        "CHECK" => check::run(&config("0.4.0")?, variables),
        "STATUS" => status::run(&config("1.1.0")?),
        "GC" => gc::run(&config("1.1.0")?),
        "VERSION" => Ok(version(stdin)),
        other => {
            let details = format!("CNI_COMMAND is {other:?}, and must be ADD, DEL, CHECK, STATUS, GC or VERSION");
            Err(Failure::new(ENVIRONMENT, "invalid environment variables", details))
        }
    }
}

fn version(stdin: &str) -> String {
    let answer = serde_json::json!({"cniVersion": version_of(stdin), "supportedVersions": VERSIONS});
    format!("{answer}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{INCOMPATIBLE_VERSION, INVALID_CONFIG};

    #[track_caller]
    fn check(command: &str, stdin: &str, code: u16) {
        let failure = run(command, &|_| None, stdin).unwrap_err();
        assert_eq!(failure.code, code, "{failure:?}");
    }

    #[test]
    fn versions_that_are_spoken() {
        let expected =
            "{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";
        assert_eq!(run("VERSION", &|_| None, r#"{"cniVersion": "0.4.0"}"#).unwrap(), expected);
        assert!(run("VERSION", &|_| None, "").unwrap().starts_with(r#"{"cniVersion":"1.1.0""#));
    }

    #[test]
    fn commands_and_the_versions_that_they_came_with() {
        check("UPDATE", "{}", ENVIRONMENT);
        for (command, before) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0"), ("ADD", "0.2.0")] {
            check(command, &format!(r#"{{"cniVersion": "{before}", "name": "n"}}"#), INCOMPATIBLE_VERSION);
        }
        check("GC", r#"{"cniVersion": "1.1.0", "name": "n", "cni.dev/attachments": 1}"#, INVALID_CONFIG);
        check("ADD", r#"{"cniVersion": "1.1.0", "name": "n"}"#, ENVIRONMENT);
    }
}
