//! Why the API server gives no answer, in one sentence that says the way out: [`Failure`].

use std::{error::Error as StdError, time::Duration};

use thiserror::Error;

/// A cluster that can't be asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Failure {
    #[error(
        "there is no cluster to ask: {looked}, and this is no pod; name files with -f, or a kubeconfig with --kubeconfig"
    )]
    NoKubeconfig { looked: String },
    #[error("kubeconfig: {0}")]
    Configuration(String),
    #[error("the cluster at {server} can't be reached: {cause}")]
    Unreachable { server: String, cause: String },
    #[error(
        "the cluster at {server} has not answered within {} s; --request-timeout gives it longer",
        after.as_secs_f64()
    )]
    Silent { server: String, after: Duration },
    #[error("the cluster at {server} refuses the credentials ({cause}); log in again, or choose another --context")]
    Credentials { server: String, cause: String },
    #[error(
        "you may not list {resource}: ask for a ClusterRole with the verb \"list\" for \"{resource}\", or for a \
         snapshot (policyctl snapshot) by somebody who may"
    )]
    Forbidden { resource: String },
    #[error("the cluster at {server} serves no {resource}; is it the address of a Kubernetes API server?")]
    NotServed { server: String, resource: String },
    #[error("the cluster at {server} refuses to tell {resource} ({code}: {message})")]
    Refused { server: String, resource: String, code: u16, message: String },
    #[error("what the cluster at {server} sends as {resource} can't be read: {message}")]
    Unreadable { server: String, resource: String, message: String },
}

impl Failure {
    /// Whether flags or files are wrong; else the cluster gives no answer.
    pub(super) const fn is_wrong_use(&self) -> bool {
        matches!(self, Self::NoKubeconfig { .. } | Self::Configuration(_))
    }

    /// Of a request for what is `named` so.
    pub(super) fn of(error: &kube::Error, server: &str, named: &str) -> Self {
        let (server, named) = (server.to_owned(), named.to_owned());
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Credentials { server, cause: "401 Unauthorized".to_owned() },
                403 => Self::Forbidden { resource: named },
                404 => Self::NotServed { server, resource: named },
                code => Self::Refused { server, resource: named, code, message: one_line(&status.message) },
            },
            kube::Error::SerdeError(error) => {
                Self::Unreadable { server, resource: named, message: one_line(&error.to_string()) }
            }
            kube::Error::Auth(error) => Self::Credentials { server, cause: innermost(error) },
            error => Self::Unreachable { server, cause: innermost(error) },
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

/// The beginning of a text that somebody else wrote.
pub(super) fn one_line(text: &str) -> String {
    const LIMIT: usize = 200;
    let line = text.lines().next().unwrap_or_default().trim();
    match line.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}
