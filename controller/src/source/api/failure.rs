//! Why the API server gives no answer, in one sentence that says the way out: [`Failure`].

use std::{error::Error as StdError, fmt, time::Duration};

use super::resource::Resource;

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing can be asked at all.
    Configuration(String),
    /// No connection, or it broke.
    Unreachable(String),
    /// No answer.
    Silent(Duration),
    /// 401, or credentials that can't be had.
    Credentials(String),
    /// 403
    Forbidden { verb: &'static str, resource: String },
    /// 404
    NotServed { resource: String },
    /// 429 and 5xx: it will be over some time.
    Busy { code: u16, message: String },
    /// Anything else.
    Refused { verb: &'static str, resource: String, code: u16, message: String },
    /// What came is not what was asked for.
    Unreadable { resource: String, message: String },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(cause) => write!(f, "the API server can't be asked: {cause}"),
            Self::Unreachable(cause) => {
                write!(f, "the API server can't be reached ({cause}); what is enforced stays as it is until it can")
            }
            Self::Silent(after) => write!(
                f,
                "the API server has not answered for {} s; what is enforced stays as it is until it does",
                after.as_secs()
            ),
            Self::Credentials(cause) => write!(
                f,
                "the API server refuses the agent's credentials ({cause}); check the token of its ServiceAccount, or \
                 the user in the file that --kubeconfig names"
            ),
            Self::Forbidden { verb, resource } => write!(
                f,
                "the agent may not {verb} {resource}: a ClusterRole bound to its ServiceAccount must grant the verb \
                 \"{verb}\" for \"{resource}\" in all namespaces, as manifests/base/rbac.yaml does"
            ),
            Self::NotServed { resource } => {
                write!(f, "the API server serves no {resource}; is it the address of a Kubernetes API server?")
            }
            Self::Busy { code, message } => write!(f, "the API server can't answer now ({code}: {message})"),
            Self::Refused { verb, resource, code, message } => {
                write!(f, "the API server refuses to {verb} {resource} ({code}: {message})")
            }
            Self::Unreadable { resource, message } => {
                write!(f, "what the API server sends as {resource} can't be read ({message})")
            }
        }
    }
}

impl Failure {
    /// Of a request to `verb` a resource.
    pub(super) fn of(error: &kube::Error, verb: &'static str, resource: &Resource) -> Self {
        let named = || resource.qualified();
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Credentials(if status.message.is_empty() {
                    "401 Unauthorized".to_owned()
                } else {
                    format!("401: {}", one_line(&status.message))
                }),
                403 => Self::Forbidden { verb, resource: named() },
                404 => Self::NotServed { resource: named() },
                code if code == 429 || code >= 500 => Self::Busy { code, message: one_line(&status.message) },
                code => Self::Refused { verb, resource: named(), code, message: one_line(&status.message) },
            },
            kube::Error::Auth(error) => Self::Credentials(innermost(error)),
            kube::Error::SerdeError(error) => {
                Self::Unreadable { resource: named(), message: one_line(&error.to_string()) }
            }
            error => Self::Unreachable(innermost(error)),
        }
    }
}

/// What the last cause says: those before it only say that something further down went wrong.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    one_line(&last.to_string())
}

/// The beginning of a text that a server wrote.
fn one_line(text: &str) -> String {
    const LIMIT: usize = 200;
    let line = text.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}
