//! Where the objects come from. A [`Source`] tells what there is, then what changes; everything after it is the same
//! code whatever the source.

pub mod api;
mod directory;
mod index;
mod listing;
#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Instant};

use policy_compiler::{
    Event,
    diagnostic::{Diagnostic, Kind, Severity},
    model::ObjectName,
};
use serde::Serialize;
use tokio::sync::mpsc;

pub use api::Api;
pub use directory::Directory;

/// Tells an agent's objects and their changes.
pub trait Source: Send + 'static {
    /// Sends updates until it fails, or until nobody receives them any more, which is no error. The first update holds
    /// everything there is; those after it hold what changed.
    fn run(self, updates: mpsc::Sender<Update>) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The source that was chosen.
#[derive(Debug)]
pub enum Chosen {
    /// `--directory`
    Directory(Directory),
    /// Without it.
    Api(Box<Api>),
}

impl Source for Chosen {
    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), Error> {
        match self {
            Self::Directory(directory) => directory.run(updates).await,
            Self::Api(api) => api.run(updates).await,
        }
    }
}

/// What a source tells at once.
#[derive(Clone, Debug)]
pub struct Update {
    /// In the order in which they are to be applied.
    pub events: Vec<Event>,
    /// When the source noticed the first of them.
    pub seen: Instant,
    /// Everything that is wrong with the source's objects now.
    pub problems: Arc<[Problem]>,
}

/// Something wrong with an object of the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence with file, document, object and field.
    pub text: String,
    /// The object, if it is known.
    #[serde(skip)]
    pub about: Option<(Kind, ObjectName)>,
}

impl From<Diagnostic> for Problem {
    fn from(diagnostic: Diagnostic) -> Self {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == &*diagnostic.kind);
        let (severity, text) = (diagnostic.severity, diagnostic.to_string());
        Self { severity, text, about: kind.zip(diagnostic.name) }
    }
}

impl Problem {
    fn error(text: String) -> Self {
        Self { severity: Severity::Error, text, about: None }
    }
}

/// Why a source ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory to follow is not there, or is something else.
    #[error("{path} is not a directory that can be read; --directory names the folder of YAML files to follow")]
    NotADirectory {
        /// As given.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// inotify refuses.
    #[error(
        "{path} can't be watched for changes; if the limit of watches is reached, raise fs.inotify.max_user_watches"
    )]
    Watch {
        /// As given.
        path: String,
        /// What the system said.
        #[source]
        source: notify::Error,
    },
}
