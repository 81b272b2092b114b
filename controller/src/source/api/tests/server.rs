//! An API server for tests: objects in memory, lists and watches over HTTP on the loopback, and everything that a real
//! one does wrong, on demand. It knows no kinds: a path is a collection.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, sync::watch, task::JoinHandle};

/// Lines of one watch; an error cuts the connection.
type Lines = mpsc::UnboundedSender<Result<Bytes, std::io::Error>>;

/// The server. It stops when it is dropped.
pub(crate) struct Server {
    /// Where it listens, also after [`Self::stop`] and [`Self::start`].
    pub(crate) address: SocketAddr,
    store: Arc<Store>,
    task: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

struct Store {
    inner: Mutex<Inner>,
    /// How many requests there have been.
    requests: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    /// Versions before this one are forgotten.
    oldest: u64,
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    history: Vec<(u64, String, &'static str, Value)>,
    watches: Vec<(String, Lines)>,
    no_streaming: bool,
    /// Status codes and messages by `verb path`.
    refusals: BTreeMap<String, (u16, String)>,
    /// Watches of these paths are accepted and get no line.
    silent: BTreeSet<String>,
    /// A token to go on with a list that counts as expired, once.
    expire_token: bool,
    page: Option<usize>,
    log: Vec<String>,
    /// Bodies of objects that were created, by path.
    created: Vec<(String, Value)>,
    /// The header `Authorization` of those who may ask.
    token: Option<String>,
}

impl Server {
    /// A server without objects.
    pub(crate) async fn new() -> Self {
        let store =
            Store { inner: Mutex::new(Inner { version: 100, ..Inner::default() }), requests: watch::Sender::new(0) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut this = Self {
            address: listener.local_addr().unwrap(),
            store: Arc::new(store),
            task: None,
            folder: tempfile::tempdir().unwrap(),
        };
        this.serve(listener);
        this
    }

    fn serve(&mut self, listener: TcpListener) {
        let router = Router::new().fallback(answer).with_state(Arc::clone(&self.store));
        self.task = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_with(None)
    }

    /// The same file with a token.
    pub(crate) fn kubeconfig_with(&self, token: Option<&str>) -> PathBuf {
        let user = token.map_or(json!({}), |token| json!({"token": token}));
        let path = self.folder.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Requests with another token are refused from now on.
    pub(crate) fn require_token(&self, token: &str) {
        self.lock().token = Some(format!("Bearer {token}"));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.store.lock()
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.lock();
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let before = inner.objects.entry(path.to_owned()).or_default().insert(key(&object), object.clone());
        let change = if before.is_some() { "MODIFIED" } else { "ADDED" };
        inner.change(path, change, object);
    }

    /// Deletes the object of this `namespace/name`.
    pub(crate) fn delete(&self, path: &str, key: &str) {
        let mut inner = self.lock();
        inner.version += 1;
        let mut object = inner.objects.get_mut(path).unwrap().remove(key).unwrap();
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        inner.change(path, "DELETED", object);
    }

    /// Sends a line to those who watch `path`, whatever it is.
    pub(crate) fn send(&self, path: &str, text: &str) {
        self.lock().send(path, text);
    }

    /// Sends a bookmark of the present version to all who watch.
    pub(crate) fn bookmark(&self) {
        let mut inner = self.lock();
        let version = inner.version;
        let paths: BTreeSet<String> = inner.watches.iter().map(|(path, _)| path.clone()).collect();
        for path in paths {
            inner.send(&path, &bookmark(version, false));
        }
    }

    /// Forgets all versions before the present one.
    pub(crate) fn compact(&self) {
        let mut inner = self.lock();
        inner.oldest = inner.version;
        inner.history.clear();
    }

    /// Ends the watches of `path` properly.
    pub(crate) fn close(&self, path: &str) {
        self.lock().watches.retain(|(watched, _)| watched != path);
    }

    /// Breaks the connections of the watches of `path`.
    pub(crate) fn cut(&self, path: &str) {
        let mut inner = self.lock();
        inner.watches.retain(|(watched, lines)| {
            let hit = watched == path;
            if hit {
                // whoever is gone needs no cutting
                let _ = lines.send(Err(std::io::Error::other("cut")));
            }
            !hit
        });
    }

    /// Answers `verb` on `path` with this code.
    pub(crate) fn refuse(&self, verb: &str, path: &str, code: u16, message: &str) {
        self.lock().refusals.insert(format!("{verb} {path}"), (code, message.to_owned()));
    }

    /// Answers it again.
    pub(crate) fn admit(&self, verb: &str, path: &str) {
        self.lock().refusals.remove(&format!("{verb} {path}"));
    }

    /// Accepts watches of `path` and says nothing, or no longer does so.
    pub(crate) fn silence(&self, path: &str, silent: bool) {
        let mut inner = self.lock();
        if silent {
            inner.silent.insert(path.to_owned());
        } else {
            inner.silent.remove(path);
        }
    }

    /// From now on there are no streamed lists, and pages hold this many objects.
    pub(crate) fn list_by_pages(&self, page: usize) {
        let mut inner = self.lock();
        (inner.no_streaming, inner.page) = (true, Some(page));
    }

    /// The next list that goes on with a token has to begin again.
    pub(crate) fn expire_token(&self) {
        self.lock().expire_token = true;
    }

    /// Stops answering: connections break, and new ones are refused.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // aborted, which is what it should be
            let _ = task.await;
        }
        let mut inner = self.lock();
        for (_, lines) in std::mem::take(&mut inner.watches) {
            let _ = lines.send(Err(std::io::Error::other("stopped")));
        }
    }

    /// Answers again.
    pub(crate) async fn start(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    /// The requests so far, as `verb path?query`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// What was created, by path.
    pub(crate) fn created(&self) -> Vec<(String, Value)> {
        self.lock().created.clone()
    }

    /// Waits until the requests are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&[String]) -> bool) {
        let mut requests = self.store.requests.subscribe();
        requests.wait_for(|_| wanted(&self.requests())).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn change(&mut self, path: &str, change: &'static str, object: Value) {
        self.send(path, &line(change, &object));
        self.history.push((self.version, path.to_owned(), change, object));
    }

    fn send(&mut self, path: &str, text: &str) {
        let (text, silent) = (Bytes::from(text.to_owned()), self.silent.contains(path));
        self.watches.retain(|(watched, lines)| watched != path || silent || lines.send(Ok(text.clone())).is_ok());
    }

    fn list(&mut self, path: &str, query: &BTreeMap<String, String>) -> Response {
        let from = match query.get("continue") {
            Some(_) if std::mem::take(&mut self.expire_token) => return status(410, "the token has expired"),
            Some(token) => token.parse().unwrap(),
            None => 0,
        };
        let limit = self.page.unwrap_or(usize::MAX).min(query["limit"].parse().unwrap());
        let all = self.objects.entry(path.to_owned()).or_default();
        let items: Vec<&Value> = all.values().skip(from).take(limit).collect();
        let rest = all.len() - from - items.len();
        let token = if rest > 0 { (from + limit).to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": self.version.to_string(), "continue": token});
        axum::Json(json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items})).into_response()
    }

    fn watch(&mut self, path: &str, query: &BTreeMap<String, String>) -> Response {
        let mut first = String::new();
        let initial = query.get("sendInitialEvents").is_some_and(|value| value == "true");
        if initial {
            assert_eq!(query["resourceVersionMatch"], "NotOlderThan");
            if self.no_streaming {
                return status(422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch");
            }
            for object in self.objects.entry(path.to_owned()).or_default().values() {
                first += &line("ADDED", object);
            }
            first += &bookmark(self.version, true);
        } else {
            let from: u64 = query["resourceVersion"].parse().unwrap();
            if from < self.oldest {
                let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
                return lines(stream::iter([Ok::<_, Infallible>(line("ERROR", &gone))]));
            }
            for (_, _, change, object) in self.history.iter().filter(|(at, of, ..)| *at > from && of == path) {
                first += &line(change, object);
            }
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        if !self.silent.contains(path) && !first.is_empty() {
            sender.send(Ok(Bytes::from(first))).unwrap();
        }
        self.watches.push((path.to_owned(), sender));
        lines(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
    }
}

fn lines<T: Into<Bytes>, E: Into<axum::BoxError> + 'static>(
    stream: impl futures_util::Stream<Item = Result<T, E>> + Send + 'static,
) -> Response {
    let stream = stream.map(|item| item.map(Into::into));
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}

async fn answer(
    State(store): State<Arc<Store>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let verb = match method {
        Method::POST => "create",
        _ if query.get("watch").is_some_and(|value| value == "true") => "watch",
        _ => "list",
    };
    let mut inner = store.lock();
    let mut request = format!("{verb} {path}");
    let given = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
    let response = if inner.token.is_some() && inner.token.as_deref() != given {
        status(401, "Unauthorized")
    } else if let Some((code, message)) = inner.refusals.get(&request) {
        status(*code, message)
    } else {
        match verb {
            "create" => {
                inner.created.push((path.clone(), serde_json::from_slice(&body).unwrap()));
                (StatusCode::CREATED, body).into_response()
            }
            "watch" => inner.watch(&path, &query),
            _ => inner.list(&path, &query),
        }
    };
    write!(request, "?{}", uri.query().unwrap_or_default()).unwrap();
    inner.log.push(request);
    drop(inner);
    store.requests.send_modify(|count| *count += 1);
    response
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

/// A line of a watch.
pub(crate) fn line(change: &str, object: &Value) -> String {
    format!("{{\"type\":\"{change}\",\"object\":{object}}}\n")
}

fn bookmark(version: u64, ends: bool) -> String {
    let mut object = json!({"kind": "X", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}});
    if ends {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", &object)
}

fn status(code: u16, message: &str) -> Response {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "AlreadyExists",
        410 => "Expired",
        422 => "Invalid",
        _ => "",
    };
    let body = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}
