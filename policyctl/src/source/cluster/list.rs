//! One resource, listed by pages and cut down page by page: [`list`].

use kube::{
    api::ListParams,
    core::{Request, Status},
};
use serde::{
    Deserialize,
    de::{DeserializeSeed as _, Error as _},
};
use serde_json::{Value, value::RawValue};
use tokio::time::timeout;

use super::{
    Tally,
    connect::Connection,
    failure::{Failure, one_line},
    resource::Resource,
};

/// How many objects a page holds.
const PAGE: u32 = 500;

/// How often a list begins again whose pages the server has forgotten while they were read.
const TRIES: usize = 3;

/// The objects of one resource, sorted by name.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) resource: &'static Resource,
    pub(super) items: Vec<Item>,
    /// The version of the list.
    pub(super) version: String,
}

/// What was kept of an object.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    /// `namespace/name`
    name: (String, String),
    /// In JSON, with `apiVersion` and `kind`.
    pub(super) json: Box<str>,
}

#[derive(Deserialize)]
struct Page<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// A list has a version; what has none may be anything, and must not count as a cluster without objects.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

/// Lists all of it.
pub(super) async fn list(
    connection: &Connection,
    resource: &'static Resource,
    tally: &Tally,
) -> Result<Listed, Failure> {
    let mut tries = 1;
    loop {
        match pages(connection, resource, tally).await? {
            Some(listed) => return Ok(listed),
            None if tries < TRIES => tries += 1,
            None => {
                let resource = resource.qualified();
                let message = "the pages of the list expire while they are read".to_owned();
                return Err(Failure::Refused { server: connection.server.clone(), resource, code: 410, message });
            }
        }
    }
}

/// All pages; `None` if those that are left were forgotten.
async fn pages(connection: &Connection, resource: &'static Resource, tally: &Tally) -> Result<Option<Listed>, Failure> {
    let server = &*connection.server;
    let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
    params.field_selector = resource.field_selector.map(str::to_owned);
    let mut items = Vec::new();
    loop {
        let request = Request::new(resource.path()).list(&params);
        let request = request.map_err(|error| Failure::Configuration(error.to_string()))?;
        let answer = timeout(connection.timeout, connection.client.request_text(request)).await;
        let text = match answer {
            Ok(Ok(text)) => text,
            Ok(Err(kube::Error::Api(status))) if is_forgotten(&status) && params.continue_token.is_some() => {
                tally.forget(items.len());
                return Ok(None);
            }
            Ok(Err(error)) => return Err(Failure::of(&error, server, &resource.qualified())),
            Err(_) => return Err(Failure::Silent { server: server.to_owned(), after: connection.timeout }),
        };
        let before = items.len();
        let metadata = take(&text, resource, &mut items).map_err(|error| Failure::Unreadable {
            server: server.to_owned(),
            resource: resource.qualified(),
            message: one_line(&error.to_string()),
        })?;
        tally.add(items.len() - before);
        params.continue_token = metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            items.sort_unstable();
            return Ok(Some(Listed { resource, items, version: metadata.resource_version }));
        }
    }
}

fn is_forgotten(status: &Status) -> bool {
    status.code == 410
}

/// Cuts the objects of a page down.
fn take(text: &str, resource: &Resource, items: &mut Vec<Item>) -> Result<Metadata, serde_json::Error> {
    let page: Page<'_> = serde_json::from_str(text)?;
    for item in page.items.iter().flatten() {
        let kept = resource.keep.deserialize(&mut serde_json::Deserializer::from_str(item.get()))?;
        let Value::Object(mut object) = kept else {
            return Err(serde_json::Error::custom("an element of the list is no object"));
        };
        // lists leave it out of their items
        object.insert("apiVersion".to_owned(), resource.api_version.into());
        object.insert("kind".to_owned(), resource.kind.into());
        let kept = Value::Object(object);
        let named = |field: &str| kept["metadata"][field].as_str().unwrap_or_default().to_owned();
        items.push(Item { name: (named("namespace"), named("name")), json: kept.to_string().into() });
    }
    Ok(page.metadata)
}

#[cfg(test)]
mod tests {
    use super::{super::resource::RESOURCES, *};

    #[test]
    fn a_pods_secrets_are_not_kept() {
        let text = r#"{"metadata": {"resourceVersion": "7", "continue": ""}, "items": [{
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "managedFields": [{"fieldsV1": {}}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "secret"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "args": ["--password=secret"],
                "env": [{"name": "PASSWORD", "value": "secret"}], "ports": [{"containerPort": 80, "hostIP": "1.2.3.4"}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"imageID": "x"}]}}]}"#;
        let pods = RESOURCES.iter().find(|resource| resource.plural == "pods").unwrap();
        let mut items = Vec::new();
        let metadata = take(text, pods, &mut items).unwrap();
        assert_eq!(metadata.resource_version, "7");
        let expected = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        });
        assert_eq!(serde_json::from_str::<Value>(&items[0].json).unwrap(), expected);
    }
}
