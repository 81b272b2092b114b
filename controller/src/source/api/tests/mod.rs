//! The source against an API server that lists, watches, and fails in every way that a real one does. Everything is
//! awaited, nothing is slept for.

pub(crate) mod server;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use policy_compiler::{Cluster, Event};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use self::server::{Server, line};
use super::{super::Source as _, Api, Pace};
use crate::{metrics::Metrics, source::Update};

const PODS: &str = "/api/v1/pods";
const NODES: &str = "/api/v1/nodes";
const NAMESPACES: &str = "/api/v1/namespaces";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const PACE: Pace = Pace {
    first: Duration::from_millis(1),
    most: Duration::from_millis(20),
    answer: Duration::from_secs(10),
    stall: Duration::from_secs(10),
    hold: Duration::from_secs(10),
};

/// A server, the source that follows it, and what has been told.
struct Followed {
    server: Server,
    updates: mpsc::Receiver<Update>,
    troubles: watch::Receiver<Vec<String>>,
    cluster: Cluster,
    /// Of the last update.
    events: Vec<String>,
    problems: Vec<String>,
    metrics: Metrics,
    task: JoinHandle<Result<(), super::super::Error>>,
}

impl Followed {
    /// Follows a server that has the node `n1` and was prepared by `prepare`.
    async fn start(pace: Pace, prepare: impl FnOnce(&Server)) -> Self {
        let server = Server::new().await;
        server.put(NODES, node("n1"));
        prepare(&server);
        let (sender, updates) = mpsc::channel(64);
        let (tell, troubles) = watch::channel(Vec::new());
        let metrics = Metrics::new().unwrap();
        let api = Api {
            node: "n1".into(),
            kubeconfig: Some(server.kubeconfig()),
            metrics: metrics.clone(),
            troubles: Box::new(move |now| drop(tell.send_replace(now))),
            pace,
        };
        let task = tokio::spawn(api.run(sender));
        let cluster = Cluster::default();
        Self { server, updates, troubles, cluster, events: Vec::new(), problems: Vec::new(), metrics, task }
    }

    /// The same, up to the first update.
    async fn started(prepare: impl FnOnce(&Server)) -> Self {
        let mut this = Self::start(PACE, prepare).await;
        this.next().await;
        this
    }

    /// The next update, and what is in it, as `+name` and `-name`.
    async fn next(&mut self) -> &[String] {
        let update = timeout(PATIENCE, self.updates.recv()).await;
        let update = update.expect("no update in time").expect("the source ended");
        self.events = update.events.iter().map(short).collect();
        for event in update.events {
            self.cluster.apply(event);
        }
        self.problems = update.problems.iter().map(|problem| problem.text.clone()).collect();
        &self.events
    }

    /// All events until one of these is among them.
    async fn events_until(&mut self, last: &str) -> Vec<String> {
        let mut events = Vec::new();
        while !events.iter().any(|event| event == last) {
            events.extend_from_slice(self.next().await);
        }
        events
    }

    /// Waits for a trouble that says all of this.
    async fn trouble(&mut self, parts: &[&str]) {
        let stands = |now: &Vec<String>| now.iter().any(|one| parts.iter().all(|part| one.contains(part)));
        let found = timeout(PATIENCE, self.troubles.wait_for(stands)).await.is_ok();
        assert!(found, "no trouble with {parts:?}, but {:?}", self.troubles.borrow());
    }

    async fn no_trouble(&mut self) {
        let found = timeout(PATIENCE, self.troubles.wait_for(Vec::is_empty)).await.is_ok();
        assert!(found, "troubles stand: {:?}", self.troubles.borrow());
    }

    fn pods(&self) -> Vec<&str> {
        self.cluster.pods.keys().map(|name| &*name.name).collect()
    }

    fn restarts(&self, resource: &str, reason: &str) -> u64 {
        self.metrics.watch_restarts.with_label_values(&[resource, reason]).get()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn short(event: &Event) -> String {
    match event {
        Event::PutPod(pod) => format!("+{}", pod.name.name),
        Event::DeletePod(name) => format!("-{}", name.name),
        Event::PutNamespace(namespace) => format!("+namespace {}", namespace.name),
        Event::DeleteNamespace(name) => format!("-namespace {name}"),
        Event::PutNode(node) => format!("+node {}", node.name),
        Event::DeleteNode(name) => format!("-node {name}"),
        Event::PutPolicy(policy) => format!("+policy {}", policy.name.name),
        Event::DeletePolicy(name) => format!("-policy {}", name.name),
        Event::PutService(service) => format!("+service {}", service.name.name),
        Event::DeleteService(name) => format!("-service {}", name.name),
        Event::PutEndpointSlice(slice) => format!("+slice {}", slice.name.name),
        Event::DeleteEndpointSlice(name) => format!("-slice {}", name.name),
    }
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
}

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn pod_since(name: &str, address: &str, second: u32) -> Value {
    let mut pod = pod(name, address);
    let time = format!("2026-01-01T00:00:{second:02}Z");
    pod["status"]["conditions"] =
        json!([{"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": time}]);
    pod
}

fn policy(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}})
}

fn everything(server: &Server) {
    server.put(NAMESPACES, json!({"metadata": {"name": "shop", "labels": {"team": "a"}}}));
    for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        server.put(PODS, pod(name, address));
    }
    server.put(
        SERVICES,
        json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]}}),
    );
    server.put(
        SLICES,
        json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}]}),
    );
    server.put(POLICIES, policy("deny"));
}

const EVERYTHING: [&str; 8] =
    ["+namespace shop", "+node n1", "+a", "+b", "+c", "+slice web-1", "+service web", "+policy deny"];

#[tokio::test]
async fn the_first_update_is_everything() {
    let followed = Followed::started(everything).await;
    assert_eq!(followed.events, EVERYTHING);
    let requests = followed.server.requests();
    assert!(requests.iter().all(|request| request.starts_with("watch")), "{requests:?}");
    assert!(
        requests.iter().any(|request| request.starts_with(&format!("watch {PODS}?")) && request.contains("Failed"))
    );
}

#[tokio::test]
async fn a_server_without_streamed_lists_is_asked_for_pages() {
    let followed = Followed::started(|server| {
        server.list_by_pages(2);
        everything(server);
    })
    .await;
    assert_eq!(followed.events, EVERYTHING);
    let requests = followed.server.requests();
    let of_pods: Vec<&str> = requests.iter().filter(|r| r.contains(PODS)).map(|r| &r[..r.find('?').unwrap()]).collect();
    let (watch, list) = (format!("watch {PODS}"), format!("list {PODS}"));
    assert_eq!(of_pods[..3], [&*watch, &*list, &*list], "{requests:?}");
    assert_eq!(followed.restarts("pods", "not_streamed"), 1);
}

#[tokio::test]
async fn a_list_whose_token_expires_begins_again() {
    let followed = Followed::started(|server| {
        server.list_by_pages(2);
        server.expire_token();
        everything(server);
    })
    .await;
    assert_eq!(followed.events, EVERYTHING);
    assert_eq!(followed.restarts("pods", "too_old"), 1);
}

#[tokio::test]
async fn nothing_is_told_before_every_list_is_complete() {
    let mut followed = Followed::start(PACE, |server| {
        everything(server);
        server.refuse("watch", SLICES, 403, "endpointslices is forbidden: User \"x\" cannot watch");
    })
    .await;
    followed.trouble(&["may not watch endpointslices.discovery.k8s.io", "the verb \"watch\""]).await;
    followed.server.until(|requests| requests.iter().filter(|r| r.contains(SLICES)).count() > 3).await;
    assert!(followed.updates.try_recv().is_err(), "something was told without the EndpointSlices");
    followed.server.admit("watch", SLICES);
    assert_eq!(followed.next().await, EVERYTHING);
    followed.no_trouble().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_waited_for() {
    let mut followed = Followed::start(PACE, |server| {
        server.delete(NODES, "/n1");
        server.put(NODES, node("n2"));
    })
    .await;
    followed.trouble(&["no node \"n1\"", "--node"]).await;
    assert!(followed.updates.try_recv().is_err());
    followed.server.put(NODES, node("n1"));
    assert_eq!(followed.next().await, ["+node n2", "+node n1"]);
    followed.no_trouble().await;
}

#[tokio::test]
async fn changes_come_in_order_and_only_if_something_changed() {
    let mut followed = Followed::started(everything).await;
    let server = &followed.server;
    let mut same = pod("a", "10.0.0.1");
    same["status"]["qosClass"] = json!("Burstable");
    same["metadata"]["managedFields"] = json!([{"manager": "kubelet"}]);
    server.put(PODS, same);
    server.put(PODS, pod("d", "10.0.0.4"));
    server.delete(PODS, "shop/b");
    let mut ended = pod("c", "10.0.0.3");
    ended["status"]["phase"] = json!("Succeeded");
    server.put(PODS, ended);
    server.put(PODS, pod("b", "10.0.0.9"));
    assert_eq!(followed.events_until("+b").await, ["+d", "-b", "-c", "+b"]);
    assert_eq!(followed.pods(), ["a", "b", "d"]);
}

#[tokio::test]
async fn what_is_sent_again_is_no_news() {
    let mut followed = Followed::started(everything).await;
    let mut again = pod("a", "10.0.0.1");
    again["metadata"]["resourceVersion"] = json!("150");
    followed.server.send(PODS, &line("ADDED", &again));
    followed.server.send(PODS, &line("MODIFIED", &again));
    followed.server.put(PODS, pod("z", "10.0.0.7"));
    assert_eq!(followed.events_until("+z").await, ["+z"]);
}

#[tokio::test]
async fn a_cut_watch_goes_on_where_it_was() {
    let mut followed = Followed::started(everything).await;
    let before = followed.server.requests().len();
    // half a line, and the rest never comes
    followed.server.send(PODS, r#"{"type":"DELETED","object":{"metadata":{"name":"a","namespace":"shop""#);
    followed.server.cut(PODS);
    followed.server.put(PODS, pod("d", "10.0.0.4"));
    followed.server.delete(PODS, "shop/a");
    assert_eq!(followed.events_until("-a").await, ["+d", "-a"]);
    let requests = followed.server.requests();
    let later = &requests[before..];
    assert!(later.iter().all(|r| r.contains("resourceVersion=1") && !r.contains("sendInitial")), "{later:?}");
    assert_eq!(followed.restarts("pods", "cut"), 1);
    // the same where the connection ends in order
    followed.server.send(PODS, r#"{"type":"DELETED","object":{"metadata":{"name":"d""#);
    followed.server.close(PODS);
    followed.server.put(PODS, pod("e", "10.0.0.5"));
    assert_eq!(followed.events_until("+e").await, ["+e"]);
    assert_eq!((followed.restarts("pods", "cut"), followed.restarts("pods", "failed")), (2, 0));
}

#[tokio::test]
async fn a_bookmark_moves_the_place_to_go_on_from() {
    let mut followed = Followed::started(everything).await;
    // other resources move the version on; pods hear of it by a bookmark only
    followed.server.put(NAMESPACES, json!({"metadata": {"name": "other"}}));
    assert_eq!(followed.next().await, ["+namespace other"]);
    followed.server.bookmark();
    followed.server.put(PODS, pod("d", "10.0.0.4"));
    assert_eq!(followed.next().await, ["+d"]);
    followed.server.put(NAMESPACES, json!({"metadata": {"name": "third"}}));
    assert_eq!(followed.next().await, ["+namespace third"]);
    followed.server.bookmark();
    // a line after the bookmark shows that the bookmark was read
    followed.server.send(PODS, &line("MODIFIED", &json!({"metadata": {"name": "x", "namespace": "shop"}, "spec": 3})));
    while followed.problems.is_empty() {
        followed.next().await;
    }
    followed.server.compact();
    followed.server.close(PODS);
    followed.server.put(PODS, pod("e", "10.0.0.5"));
    assert_eq!(followed.events_until("+e").await, ["+e"]);
    assert_eq!(followed.restarts("pods", "too_old"), 0, "the watch went on from an old version");
}

/// What happens while nobody watches, and the server has forgotten it.
async fn relist(prepare: fn(&Server)) -> Followed {
    let mut followed = Followed::started(|server| {
        prepare(server);
        everything(server);
    })
    .await;
    followed.server.refuse("watch", PODS, 503, "starting");
    followed.server.close(PODS);
    followed.trouble(&["can't answer now (503: starting)"]).await;
    let server = &followed.server;
    server.delete(PODS, "shop/a");
    server.put(PODS, pod("b", "10.0.0.22"));
    server.put(PODS, pod("d", "10.0.0.1"));
    server.compact();
    server.admit("watch", PODS);
    assert_eq!(followed.next().await, ["+b", "+d", "-a"], "one difference, and what is gone at its end");
    assert_eq!(followed.restarts("pods", "too_old"), 1);
    followed.no_trouble().await;
    followed
}

#[tokio::test]
async fn a_relist_is_the_difference_streamed() {
    relist(|_| {}).await;
}

#[tokio::test]
async fn a_relist_is_the_difference_by_pages() {
    let followed = relist(|server| server.list_by_pages(2)).await;
    assert_eq!(followed.pods(), ["b", "c", "d"]);
}

#[tokio::test]
async fn a_stalled_watch_is_taken_up_again() {
    let pace = Pace { stall: Duration::from_millis(200), ..PACE };
    let mut followed = Followed::start(pace, everything).await;
    followed.next().await;
    followed.server.silence(PODS, true);
    followed.server.put(PODS, pod("d", "10.0.0.4"));
    let watches = |requests: &[String]| requests.iter().filter(|request| request.contains(PODS)).count();
    let before = watches(&followed.server.requests());
    followed.server.until(|requests| watches(requests) > before).await;
    followed.server.silence(PODS, false);
    assert_eq!(followed.events_until("+d").await, ["+d"]);
    assert!(followed.restarts("pods", "stalled") > 0);
    assert!(followed.troubles.borrow().is_empty(), "a quiet watch is no trouble");
}

#[tokio::test]
async fn an_outage_changes_nothing_and_is_caught_up_with() {
    let mut followed = Followed::started(everything).await;
    followed.server.stop().await;
    followed.trouble(&["can't be reached", "stays as it is"]).await;
    assert!(followed.updates.try_recv().is_err(), "an outage is no news");
    let server = &followed.server;
    server.put(POLICIES, policy("later"));
    server.put(PODS, pod("d", "10.0.0.4"));
    server.delete(PODS, "shop/a");
    server.compact();
    followed.server.start().await;
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend_from_slice(followed.next().await);
    }
    events.sort();
    assert_eq!(events, ["+d", "+policy later", "-a"]);
    followed.no_trouble().await;
}

#[tokio::test]
async fn the_pod_that_got_an_address_last_comes_last() {
    let mut followed = Followed::started(|server| {
        server.put(PODS, pod_since("a-new", "10.0.0.1", 30));
        server.put(PODS, pod_since("b-old", "10.0.0.1", 10));
        server.put(PODS, pod("c-unknown", "10.0.0.1"));
    })
    .await;
    assert_eq!(followed.events, ["+node n1", "+c-unknown", "+b-old", "+a-new"]);
    // in a watch the order of reports is the order of events, whatever they say
    followed.server.put(PODS, pod_since("d-late", "10.0.0.2", 20));
    followed.server.put(PODS, pod_since("e-early", "10.0.0.2", 5));
    assert_eq!(followed.events_until("+e-early").await, ["+d-late", "+e-early"]);
    followed.server.refuse("watch", PODS, 503, "starting");
    followed.server.close(PODS);
    followed.trouble(&["503"]).await;
    followed.server.put(PODS, pod_since("a-new", "10.0.0.3", 41));
    followed.server.put(PODS, pod_since("b-old", "10.0.0.3", 40));
    followed.server.compact();
    followed.server.admit("watch", PODS);
    assert_eq!(followed.next().await, ["+b-old", "+a-new"]);
}

#[tokio::test]
async fn what_cannot_be_read_stays_as_it_was() {
    let mut followed = Followed::started(everything).await;
    let mut odd = policy("deny");
    odd["spec"]["ingress"] = json!(3);
    followed.server.put(POLICIES, odd);
    followed.next().await;
    assert!(followed.events.is_empty() && followed.cluster.policies.len() == 1);
    assert!(followed.problems[0].starts_with("NetworkPolicy shop/deny: can't be read"), "{:?}", followed.problems);
    // neither does a list take it for gone
    followed.server.compact();
    followed.server.close(POLICIES);
    followed.server.put(POLICIES, policy("other"));
    assert_eq!(followed.events_until("+policy other").await, ["+policy other"]);
    followed.server.put(POLICIES, policy("deny"));
    while !followed.problems.is_empty() {
        followed.next().await;
    }
}

#[tokio::test]
async fn diagnostics_are_problems_until_the_object_is_put_right_or_gone() {
    let bad = json!({"metadata": {"name": "deny", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]}]}});
    let mut followed = Followed::started(|server| {
        everything(server);
        server.put(POLICIES, bad.clone());
    })
    .await;
    assert!(followed.problems[0].contains("NetworkPolicy shop/deny: spec.ingress[0].from[0].ipBlock.cidr"));
    followed.server.put(POLICIES, policy("deny"));
    followed.next().await;
    assert!(followed.problems.is_empty(), "{:?}", followed.problems);
    followed.server.put(POLICIES, bad);
    followed.next().await;
    assert_eq!(followed.problems.len(), 1);
    followed.server.delete(POLICIES, "shop/deny");
    followed.next().await;
    assert!(followed.problems.is_empty(), "{:?}", followed.problems);
}

#[tokio::test]
async fn each_failure_is_one_clear_sentence() {
    #[track_caller]
    fn refused(code: u16, message: &'static str) -> impl FnOnce(&Server) {
        move |server| server.refuse("watch", SERVICES, code, message)
    }
    let mut followed = Followed::start(PACE, refused(401, "Unauthorized")).await;
    followed.trouble(&["refuses the agent's credentials (401: Unauthorized)", "--kubeconfig"]).await;
    let mut followed = Followed::start(PACE, refused(404, "not found")).await;
    followed.trouble(&["serves no services"]).await;
    let mut followed = Followed::start(PACE, refused(403, "services is forbidden")).await;
    followed.trouble(&["may not watch services", "the verb \"watch\" for \"services\"", "rbac.yaml"]).await;
    assert!(followed.updates.try_recv().is_err(), "something was told without the Services");
    let mut followed = Followed::start(PACE, |server| {
        server.list_by_pages(9);
        server.refuse("list", SERVICES, 403, "services is forbidden");
    })
    .await;
    followed.trouble(&["may not list services", "the verb \"list\" for \"services\""]).await;
}

/// They may be replaced in their file at any time; what is enforced meanwhile stays.
#[tokio::test]
async fn credentials_that_were_replaced_are_read_again() {
    let mut followed = Followed::start(PACE, |server| {
        everything(server);
        server.require_token("first");
    })
    .await;
    followed.trouble(&["refuses the agent's credentials (401: Unauthorized)", "--kubeconfig"]).await;
    assert!(followed.updates.try_recv().is_err(), "something was told without credentials");
    followed.server.kubeconfig_with(Some("first"));
    assert_eq!(followed.next().await, EVERYTHING);
    followed.no_trouble().await;

    followed.server.require_token("second");
    followed.server.close(PODS);
    followed.trouble(&["refuses the agent's credentials"]).await;
    assert!(followed.updates.try_recv().is_err(), "refused credentials are no news");
    followed.server.put(PODS, pod("d", "10.0.0.4"));
    followed.server.kubeconfig_with(Some("second"));
    assert_eq!(followed.events_until("+d").await, ["+d"]);
    followed.no_trouble().await;
}

#[tokio::test]
async fn without_an_api_server_it_says_so_and_goes_on_trying() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (sender, updates) = mpsc::channel(1);
    let (tell, mut troubles) = watch::channel(Vec::new());
    let seen = Arc::clone(&told);
    let api = Api {
        node: "n1".into(),
        kubeconfig: Some("/nonexistent/kubeconfig".into()),
        metrics: Metrics::new().unwrap(),
        troubles: Box::new(move |now: Vec<String>| {
            seen.lock().unwrap().push(now.clone());
            tell.send_replace(now);
        }),
        pace: PACE,
    };
    let task = tokio::spawn(api.run(sender));
    let stands = |now: &Vec<String>| now.iter().any(|one| one.contains("--kubeconfig /nonexistent/kubeconfig: "));
    timeout(PATIENCE, troubles.wait_for(stands)).await.expect("it said nothing").unwrap();
    drop(updates);
    timeout(PATIENCE, task).await.expect("it goes on although nobody listens").unwrap().unwrap();
    assert_eq!(told.lock().unwrap().len(), 1, "told once");
}
