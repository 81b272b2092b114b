//! An API server for tests, in a thread of its own: the objects of YAML files as lists over HTTP on the loopback, and
//! what a real one does wrong, on demand.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::{io::copy_bidirectional, net::TcpListener, sync::oneshot};

/// The server, and the folder of its kubeconfig. It stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    store: Arc<Mutex<Store>>,
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Vec<Value>>,
    /// Status codes by path.
    refusals: BTreeMap<String, u16>,
    /// Nothing is answered here.
    silent: Option<String>,
    /// How many objects a page holds at most.
    page: Option<usize>,
    /// How many tokens to go on with a list count as expired.
    expire: usize,
    /// What is answered to all, whatever it is.
    body: Option<&'static str>,
    token: Option<&'static str>,
    log: Vec<String>,
    /// What `policyctl probe` finds in pods, by its targets; nothing at all is `silent`.
    found: BTreeMap<&'static str, &'static str>,
    /// The ephemeral containers of pods, as they were created.
    containers: BTreeMap<String, Value>,
}

/// Where objects of a kind are served.
fn path(kind: &str) -> &'static str {
    match kind {
        "Namespace" => "/api/v1/namespaces",
        "Node" => "/api/v1/nodes",
        "Pod" => "/api/v1/pods",
        "Service" => "/api/v1/services",
        "EndpointSlice" => "/apis/discovery.k8s.io/v1/endpointslices",
        "NetworkPolicy" => "/apis/networking.k8s.io/v1/networkpolicies",
        "Deployment" => "/apis/apps/v1/deployments",
        "ConfigMap" => "/api/v1/configmaps",
        other => panic!("{other}"),
    }
}

impl Server {
    /// Serves what the YAML files of a folder hold, as they would be in a cluster.
    pub(crate) fn of(folder: &str) -> Self {
        let mut store = Store::default();
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shop").join(folder)).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
                match document["items"].as_array() {
                    Some(items) => items.iter().for_each(|item| store.put(item)),
                    None => store.put(&document),
                }
            }
        }
        let store = Arc::new(Mutex::new(store));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&store));
        let (address, stop) = in_thread(async |listener| axum::serve(listener, router).await.unwrap());
        let this = Self { address, store, folder: tempfile::tempdir().unwrap(), _stop: stop };
        this.kubeconfig(&json!({}), &json!({}), &json!({}));
        this
    }

    /// Writes a kubeconfig that leads here, with more fields of its cluster, user and context.
    pub(crate) fn kubeconfig(&self, cluster: &Value, user: &Value, context: &Value) -> PathBuf {
        let with = |mut object: Value, more: &Value| {
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let cluster = with(json!({"server": format!("http://{}", self.address)}), cluster);
        let context = with(json!({"cluster": "c", "user": "u"}), context);
        self.write(&json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "lab", "context": context}],
        }))
    }

    fn write(&self, kubeconfig: &Value) -> PathBuf {
        let path = self.folder().join("kubeconfig");
        fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    /// Where the kubeconfig is, and room for more.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates an object.
    pub(crate) fn put(&self, object: &Value) {
        self.lock().put(object);
    }

    /// Lists come in another order from now on.
    pub(crate) fn reverse(&self) {
        self.lock().objects.values_mut().for_each(|list| list.reverse());
    }

    /// Answers lists at `path` with this status.
    pub(crate) fn refuse(&self, path: &str, code: u16) {
        self.lock().refusals.insert(path.to_owned(), code);
    }

    /// Accepts requests at `path`, and never answers.
    pub(crate) fn silence(&self, path: &str) {
        self.lock().silent = Some(path.to_owned());
    }

    /// Pages hold this many objects at most, and this many tokens to go on expire.
    pub(crate) fn page(&self, size: usize, expire: usize) {
        let mut store = self.lock();
        (store.page, store.expire) = (Some(size), expire);
    }

    /// Answers everything with this.
    pub(crate) fn say(&self, body: &'static str) {
        self.lock().body = Some(body);
    }

    /// Requests without this token are refused.
    pub(crate) fn require_token(&self, token: &'static str) {
        self.lock().token = Some(token);
    }

    /// What `policyctl probe` finds in pods, at this target.
    pub(crate) fn finds(&self, target: &'static str, found: &'static str) {
        self.lock().found.insert(target, found);
    }

    /// The ephemeral containers of pods, by the pod's path.
    pub(crate) fn containers(&self) -> BTreeMap<String, Value> {
        self.lock().containers.clone()
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().log.clone()
    }
}

/// Serves on the loopback, until the sender is dropped.
fn in_thread(serve: impl AsyncFnOnce(TcpListener) + Send + 'static) -> (SocketAddr, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            tokio::select! {
                () = serve(listener) => {}
                _ = stopped => {}
            }
        });
    });
    (told.recv().unwrap(), stop)
}

/// A proxy that takes CONNECT, and how often it was asked.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let (address, stop) = in_thread(async move |listener| {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let mut client = BufReader::new(client);
                    let mut line = String::new();
                    client.read_line(&mut line).await.unwrap();
                    let target = line.split(' ').nth(1).unwrap().to_owned();
                    log.lock().unwrap().push(line);
                    let mut header = String::new();
                    while client.read_line(&mut header).await.unwrap() > 2 {
                        header.clear();
                    }
                    let mut server = tokio::net::TcpStream::connect(target).await.unwrap();
                    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    // either may hang up first
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, asked, _stop: stop }
    }
}

impl Store {
    fn put(&mut self, object: &Value) {
        let mut object = object.clone();
        let path = path(object["kind"].as_str().unwrap());
        object["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:secret": {}}}]);
        // items of typed lists don't say what they are
        object.as_object_mut().unwrap().retain(|field, _| field != "kind" && field != "apiVersion");
        self.objects.entry(path.to_owned()).or_default().push(object);
    }

    fn list(&mut self, path: &str, query: &BTreeMap<String, String>) -> Response {
        let from: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
        if from > 0 && self.expire > 0 {
            self.expire -= 1;
            return status(410, "The provided continue parameter is too old");
        }
        let limit = self.page.unwrap_or(usize::MAX).min(query["limit"].parse().unwrap());
        let all = self.objects.get(path).map(Vec::as_slice).unwrap_or_default();
        let items: Vec<_> = all.iter().skip(from).take(limit).collect();
        let rest = all.len() - from - items.len();
        let token = if rest > 0 { (from + limit).to_string() } else { String::new() };
        let version = 1000 + path.len();
        let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
        axum::Json(json!({"apiVersion": "v1", "kind": "SomeList", "metadata": metadata, "items": items}))
            .into_response()
    }
}

impl Store {
    /// One pod: what its kubelet would do with an ephemeral container is done at once.
    fn pod(&mut self, path: &str, body: &str) -> Option<Response> {
        let mut parts = path.strip_prefix("/api/v1/namespaces/")?.splitn(4, '/');
        let (namespace, _, pod, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
        let pod = format!("{namespace}/{pod}");
        if rest == Some("ephemeralcontainers") {
            let patch: Value = serde_json::from_str(body).unwrap();
            self.containers.insert(pod.clone(), patch["spec"]["ephemeralContainers"][0].clone());
        }
        let container = self.containers.get(&pod)?;
        if rest == Some("log") {
            let targets = container["command"].as_array().unwrap().iter().skip(2).enumerate();
            let found = |target: &Value| *self.found.get(target.as_str().unwrap()).unwrap_or(&"silent");
            let line =
                |(number, target)| json!({"target": number, "found": found(target), "why": "no way"}).to_string();
            return Some(targets.map(line).collect::<Vec<_>>().join("\n").into_response());
        }
        let own = json!({
            "name": container["name"], "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0}},
        });
        let status = json!({"phase": "Running", "ephemeralContainerStatuses": [own]});
        Some(axum::Json(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": status})).into_response())
    }
}

async fn answer(
    State(store): State<Arc<Mutex<Store>>>,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let (response, is_silent) = {
        let mut store = store.lock().unwrap();
        store.log.push(uri.to_string());
        let path = uri.path();
        let response = if store.token.is_some_and(|token| given != Some(format!("Bearer {token}"))) {
            status(401, "Unauthorized")
        } else if let Some(code) = store.refusals.get(path) {
            status(*code, "no")
        } else if let Some(body) = store.body {
            body.into_response()
        } else if let Some(response) = store.pod(path, &body) {
            response
        } else {
            store.list(path, &query)
        };
        (response, store.silent.as_deref() == Some(path))
    };
    if is_silent {
        std::future::pending::<()>().await;
    }
    response
}

fn status(code: u16, message: &str) -> Response {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        _ => "InternalError",
    };
    let body = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}
