//! What the plugin answers when it can't do what it was asked: the specification's error object.

use std::fmt;

/// The version of the configuration is not one of ours.
pub(crate) const INCOMPATIBLE_VERSION: u16 = 1;
/// A field of the configuration that means nothing.
pub(crate) const UNSUPPORTED_FIELD: u16 = 2;
/// An environment variable is missing or wrong.
pub(crate) const ENVIRONMENT: u16 = 4;
/// Something could not be read or written.
pub(crate) const IO: u16 = 5;
/// Not JSON, or not of the form that it should have.
pub(crate) const DECODING: u16 = 6;
/// The configuration can't be used.
pub(crate) const INVALID_CONFIG: u16 = 7;
/// It may be otherwise in a moment.
pub(crate) const TRY_AGAIN: u16 = 11;
/// No pod can be added.
pub(crate) const NOT_AVAILABLE: u16 = 50;
/// No pod can be added, and those that are there may be cut off.
pub(crate) const LIMITED: u16 = 51;
/// The pod's packets can't be seen at the host's end of its interface. Our own, from 100 on.
pub(crate) const UNENFORCEABLE: u16 = 100;
/// What should be in force isn't.
pub(crate) const NOT_ENFORCED: u16 = 101;

/// An error of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    /// In a few words.
    pub(crate) msg: String,
    /// Why, and the way out.
    pub(crate) details: String,
}

impl Failure {
    pub(crate) fn new(code: u16, msg: impl Into<String>, details: impl fmt::Display) -> Self {
        Self { code, msg: msg.into(), details: details.to_string() }
    }

    /// From an error and its sources, in one sentence.
    pub(crate) fn caused(code: u16, msg: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, msg, sentence(error))
    }

    /// The error object, for a runtime that speaks this version.
    pub(crate) fn to_json(&self, version: &str) -> String {
        let Self { code, msg, details } = self;
        serde_json::json!({"cniVersion": version, "code": code, "msg": msg, "details": details}).to_string()
    }
}

/// An error and its sources.
pub(crate) fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_specification_has_it() {
        let failure = Failure::new(INVALID_CONFIG, "no \"prevResult\"", "why");
        assert_eq!(
            failure.to_json("1.0.0"),
            r#"{"cniVersion":"1.0.0","code":7,"details":"why","msg":"no \"prevResult\""}"#
        );
    }
}
