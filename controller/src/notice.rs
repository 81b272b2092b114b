//! Kubernetes Events for what an administrator must know: a policy that can't be honoured, a Service that is closed
//! because policies disagree about its back ends, a pod that can't be enforced. Entry point: [`publish`].
//!
//! The state tells what stands ([`Request::Notices`]); each such fact becomes one Event, whose name is made of the fact:
//! of a thousand agents that see the same bad policy, one creates it, and the others learn that it is there. It is
//! created again while it stands and the API server has forgotten it, an hour later by default, and few at a time.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hash as _, Hasher as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::{Client, api::PostParams, core::Request as ApiRequest};
use policy_compiler::{diagnostic::Kind, model::ObjectName};
use rustc_hash::FxBuildHasher;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use crate::{source::api, state::Request};

/// The API group, resource and verb of what is asked here, as RBAC names them.
pub const RIGHT: (&str, &str, &str) = ("events.k8s.io", "events", "create");

/// How often the state is asked what stands.
const ROUND: Duration = Duration::from_secs(15);
/// How many Events are created in a round.
const A_ROUND: usize = 5;
/// After which time an Event is created again if what it says still stands. An API server forgets it after an hour.
const AGAIN: Duration = Duration::from_secs(3_700);
/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest `note` that the API server accepts, in bytes.
const NOTE: usize = 1_024;

/// Something that an administrator must know of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// Of the object.
    pub kind: Kind,
    /// The object, which is in a namespace.
    pub name: ObjectName,
    /// `metadata.uid`, if it is known.
    pub uid: Option<Arc<str>>,
    /// In CamelCase, from a fixed set.
    pub reason: &'static str,
    /// One sentence.
    pub note: String,
}

/// Creates Events of what the state says, for as long as somebody answers for the state.
pub async fn publish(kubeconfig: Option<PathBuf>, node: String, requests: mpsc::Sender<Request>) -> anyhow::Result<()> {
    let mut book = Book::default();
    let mut client = None;
    loop {
        sleep(api::jittered(ROUND * 4 / 3)).await;
        let (answer, answered) = oneshot::channel();
        requests.send(Request::Notices(answer)).await.map_err(|_| anyhow::anyhow!("the state has ended"))?;
        let Ok(stand) = answered.await else { continue };
        let due = book.due(stand, Instant::now());
        if due.is_empty() {
            continue;
        }
        if client.is_none() {
            // that there is no API server is told by the source
            client = api::connect(kubeconfig.as_deref()).await.ok();
        }
        if let Some(asked) = &client
            && !round(asked, &node, due, &mut book).await
        {
            // its credentials may have been replaced
            client = None;
        }
    }
}

/// Creates what is due, up to the first failure; false if there was one.
async fn round(client: &Client, node: &str, due: Vec<Notice>, book: &mut Book) -> bool {
    for notice in due {
        match timeout(ANSWER, create(client, node, &notice)).await {
            Ok(Ok(())) => book.told(notice, Instant::now()),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                let (group, resource, verb) = RIGHT;
                book.complain(&format!(
                    "the agent may not {verb} {resource}.{group}, so what it has to say is in its log only; \
                     manifests/base/rbac.yaml has the rule"
                ));
                return false;
            }
            Ok(Err(error)) => {
                book.complain(&format!("an Event could not be created, and is tried again: {error}"));
                return false;
            }
            Err(_) => return false,
        }
    }
    book.complaint = None;
    true
}

/// Creates the Event of a notice; that it is there is as good.
async fn create(client: &Client, node: &str, notice: &Notice) -> kube::Result<()> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", notice.name.namespace);
    let body = event(notice, node, Timestamp::now()).to_string().into_bytes();
    let request = ApiRequest::new(path).create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
    match client.request::<serde::de::IgnoredAny>(request).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        answer => answer.map(drop),
    }
}

fn event(notice: &Notice, node: &str, now: Timestamp) -> Value {
    let Notice { kind, name, uid, reason, note } = notice;
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": event_name(notice), "namespace": &*name.namespace},
        "eventTime": format!("{now:.6}"),
        "reportingController": "sluice.dev/agent",
        "reportingInstance": shortened(node, 128),
        "action": "Enforce",
        "type": "Warning",
        "reason": reason,
        "note": shortened(note, NOTE),
        "regarding": {
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "namespace": &*name.namespace,
            "name": &*name.name,
            "uid": uid.as_deref(),
        },
    })
}

/// The same for the same fact, whichever agent tells it.
fn event_name(notice: &Notice) -> String {
    let mut hasher = FxBuildHasher.build_hasher();
    (notice.kind.name(), &*notice.name.namespace, &*notice.name.name).hash(&mut hasher);
    (notice.uid.as_deref(), notice.reason, &*notice.note).hash(&mut hasher);
    let object = shortened(&notice.name.name, 200).trim_end_matches(['.', '-']);
    format!("{object}.{:016x}", hasher.finish())
}

/// The beginning of a text, of so many bytes at most.
fn shortened(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// What has been told, and when.
#[derive(Debug, Default)]
struct Book {
    told: BTreeMap<Notice, Instant>,
    /// What was last complained about.
    complaint: Option<String>,
}

impl Book {
    /// Those of `stand` that are to be told now. What no longer stands is remembered as long as the API server
    /// remembers it, so that what comes and goes is no flood.
    fn due(&mut self, stand: Vec<Notice>, now: Instant) -> Vec<Notice> {
        self.told.retain(|_, at| *at + AGAIN > now);
        stand.into_iter().filter(|notice| !self.told.contains_key(notice)).take(A_ROUND).collect()
    }

    fn told(&mut self, notice: Notice, now: Instant) {
        self.told.insert(notice, now);
    }

    /// Logs a failure once, until something else happens.
    fn complain(&mut self, text: &str) {
        if self.complaint.as_deref() != Some(text) {
            tracing::warn!("{text}");
            self.complaint = Some(text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::api::tests::server::Server;

    fn notice(name: &str) -> Notice {
        Notice {
            kind: Kind::NetworkPolicy,
            name: ObjectName::new("shop", name),
            uid: None,
            reason: "PolicyUnusable",
            note: "spec.ingress: odd".into(),
        }
    }

    #[test]
    fn an_event_is_what_the_api_takes() {
        let mut long = notice("deny");
        long.note = "ä".repeat(NOTE);
        let event = event(&long, "n1", "2026-01-02T03:04:05.5Z".parse().unwrap());
        assert_eq!(event["eventTime"], "2026-01-02T03:04:05.500000Z");
        assert_eq!(event["note"].as_str().unwrap().len(), NOTE);
        let regarding = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "namespace": "shop",
            "name": "deny", "uid": null});
        assert_eq!(event["regarding"], regarding);
    }

    #[test]
    fn the_name_is_the_facts() {
        let name = event_name(&notice("deny"));
        assert_eq!(name, "deny.09a128a8f53d061f", "agents of all versions that are about agree on it");
        let mut other = notice("deny");
        other.note.push('!');
        assert_ne!(event_name(&other), name);
        let long = event_name(&notice(&format!("{}.{}", "a".repeat(199), "b".repeat(53))));
        assert!(long.len() <= 253 && !long.contains(".."), "{long}");
    }

    #[test]
    fn each_fact_is_told_once_an_hour_and_few_at_a_time() {
        let start = Instant::now();
        let mut book = Book::default();
        let stand: Vec<Notice> = (0..8).map(|number| notice(&format!("p{number}"))).collect();
        let due = book.due(stand.clone(), start);
        assert_eq!(due, stand[..A_ROUND]);
        due.into_iter().for_each(|notice| book.told(notice, start));
        assert_eq!(book.due(stand.clone(), start), stand[A_ROUND..]);
        assert!(book.due(stand[..1].to_vec(), start).is_empty());
        assert!(book.due(Vec::new(), start + ROUND).is_empty());
        assert!(book.due(stand[..1].to_vec(), start + ROUND * 2).is_empty(), "it came back");
        assert_eq!(book.due(stand[..1].to_vec(), start + AGAIN), stand[..1]);
    }

    #[tokio::test]
    async fn what_another_agent_has_told_is_told() {
        let server = Server::new().await;
        let client = api::connect(Some(&server.kubeconfig())).await.unwrap();
        let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
        let mut book = Book::default();
        round(&client, "n1", vec![notice("deny")], &mut book).await;
        let created = server.created();
        assert_eq!((created.len(), &*created[0].0), (1, path));
        assert_eq!(created[0].1["reason"], "PolicyUnusable");
        server.refuse("create", path, 409, "it is there");
        round(&client, "n2", vec![notice("other")], &mut book).await;
        assert_eq!(book.told.len(), 2);
        server.refuse("create", path, 403, "events is forbidden");
        round(&client, "n2", vec![notice("third")], &mut book).await;
        assert!(book.complaint.as_ref().unwrap().contains("may not create events.events.k8s.io"));
        assert_eq!(book.due(vec![notice("third")], Instant::now()).len(), 1, "it is tried again");
    }
}
