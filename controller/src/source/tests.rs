//! The directory source on a real folder: everything is awaited, nothing is slept for.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use policy_compiler::{Cluster, diagnostic::Severity, model::ObjectName};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{Directory, Error, Source as _, Update};

/// Far more than anything here takes, and less than the listing that would find what nobody heard of.
const PATIENCE: Duration = Duration::from_secs(9);

/// A folder that is followed, and what has been told of it.
struct Followed {
    folder: tempfile::TempDir,
    updates: mpsc::Receiver<Update>,
    cluster: Cluster,
    problems: Vec<String>,
    task: JoinHandle<Result<(), Error>>,
}

impl Followed {
    /// Follows a folder with these files, and waits for the first update.
    async fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let (sender, updates) = mpsc::channel(16);
        let task = tokio::spawn(Directory::open(folder.path()).unwrap().run(sender));
        let mut this = Self { folder, updates, cluster: Cluster::default(), problems: Vec::new(), task };
        this.next().await;
        this
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    async fn next(&mut self) {
        let update =
            timeout(PATIENCE, self.updates.recv()).await.expect("no update in time").expect("the source ended");
        for event in update.events {
            self.cluster.apply(event);
        }
        self.problems = update.problems.iter().map(|problem| problem.text.clone()).collect();
    }

    /// Takes updates until `wanted` holds.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(self) {
            assert!(
                Instant::now() < end,
                "{what} did not come; pods: {:?}, problems: {:?}",
                self.pods(),
                self.problems
            );
            self.next().await;
        }
    }

    /// The pods with the value of their label `app`.
    fn pods(&self) -> Vec<String> {
        let app = |pod: &policy_compiler::model::Pod| pod.labels.get("app").cloned().unwrap_or_default();
        self.cluster.pods.values().map(|pod| format!("{}={}", pod.name.name, app(pod))).collect()
    }

    /// Waits for these pods.
    async fn until_pods(&mut self, expected: &[&str]) {
        self.until(&format!("{expected:?}"), |this| this.pods() == expected).await;
    }

    /// Waits until something is told that contains `text`.
    async fn until_problem(&mut self, text: &str) {
        self.until(text, |this| this.problems.iter().any(|problem| problem.contains(text))).await;
    }
}

fn pod(name: &str, app: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: '{app}'}}}}}}\n")
}

const BROKEN: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: [unclosed\n";

#[tokio::test]
async fn the_first_update_holds_everything() {
    let this = Followed::start(&[("a.yaml", &pod("a", "1")), ("b.yml", &pod("b", "1")), ("notes.txt", "no")]).await;
    assert_eq!(this.pods(), ["a=1", "b=1"]);
    assert_eq!(this.problems, [] as [&str; 0]);
}

#[tokio::test]
async fn an_empty_folder_is_told_too() {
    assert_eq!(Followed::start(&[]).await.cluster, Cluster::default());
}

#[tokio::test]
async fn files_that_come_change_and_go() {
    let mut this = Followed::start(&[]).await;
    this.write("a.yaml", &pod("a", "1"));
    this.until_pods(&["a=1"]).await;
    this.write("a.yaml", &pod("a", "2"));
    this.until_pods(&["a=2"]).await;
    this.write("b.yaml", &format!("{}---\n{}", pod("b", "1"), pod("c", "1")));
    this.until_pods(&["a=2", "b=1", "c=1"]).await;
    this.write("b.yaml", &pod("c", "1"));
    this.until_pods(&["a=2", "c=1"]).await;
    fs::remove_file(this.path("a.yaml")).unwrap();
    this.until_pods(&["c=1"]).await;
}

#[tokio::test]
async fn a_change_of_the_same_length_within_one_tick_is_seen() {
    let mut this = Followed::start(&[("a.yaml", &pod("a", "0"))]).await;
    for round in 1..20 {
        let app = (round % 10).to_string();
        this.write("a.yaml", &pod("a", &app));
        this.until_pods(&[&format!("a={app}")]).await;
    }
}

#[tokio::test]
async fn a_renamed_file_changes_nothing_and_a_replaced_one_does() {
    let mut this = Followed::start(&[("a.yaml", &pod("a", "1"))]).await;
    fs::rename(this.path("a.yaml"), this.path("z.yaml")).unwrap();
    // as editors save: a new file over the old one
    this.write(".z.yaml.swp", &pod("a", "2"));
    fs::rename(this.path(".z.yaml.swp"), this.path("z.yaml")).unwrap();
    this.until_pods(&["a=2"]).await;
    // out of the folder of object files
    fs::rename(this.path("z.yaml"), this.path("z.yaml.bak")).unwrap();
    this.until_pods(&[]).await;
}

#[tokio::test]
async fn a_file_that_turns_bad_keeps_its_last_good_content() {
    let mut this = Followed::start(&[("a.yaml", &pod("a", "1")), ("b.yaml", &pod("b", "1"))]).await;
    this.write("a.yaml", BROKEN);
    this.until_problem("last good content").await;
    assert!(this.problems.iter().any(|problem| problem.contains("a.yaml:")), "{:?}", this.problems);
    // the other file goes on, and the bad one stays what it was
    this.write("b.yaml", &pod("b", "2"));
    this.until_pods(&["a=1", "b=2"]).await;
    // still bad, differently
    this.write("a.yaml", &format!("{}---\n{BROKEN}", pod("a", "9")));
    this.write("b.yaml", &pod("b", "3"));
    this.until_pods(&["a=1", "b=3"]).await;
    this.write("a.yaml", &pod("a", "2"));
    this.until_pods(&["a=2", "b=3"]).await;
    assert_eq!(this.problems, [] as [&str; 0]);
}

#[tokio::test]
async fn of_a_file_that_was_never_good_counts_what_can_be_used() {
    let this = Followed::start(&[("a.yaml", &format!("{}---\n{BROKEN}", pod("a", "1")))]).await;
    assert_eq!(this.pods(), ["a=1"]);
    assert_eq!(this.problems.len(), 1, "{:?}", this.problems);
    assert!(this.problems[0].contains("document 2"), "{:?}", this.problems);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_read_when_it_is_closed() {
    use std::io::Write as _;
    let mut this = Followed::start(&[("a.yaml", &format!("{}---\n{}", pod("a", "1"), pod("b", "1")))]).await;
    // truncated, then written in two parts: in between it is a good file without b
    let mut file = fs::File::create(this.path("a.yaml")).unwrap();
    file.write_all(pod("a", "2").as_bytes()).unwrap();
    this.write("other.yaml", &pod("other", "1"));
    this.until_pods(&["a=1", "b=1", "other=1"]).await;
    file.write_all(format!("---\n{}", pod("b", "2")).as_bytes()).unwrap();
    drop(file);
    this.until_pods(&["a=2", "b=2", "other=1"]).await;
}

#[tokio::test]
async fn a_file_that_nobody_closes_is_read_all_the_same() {
    use std::io::Write as _;
    let mut this = Followed::start(&[]).await;
    let mut file = fs::File::create(this.path("a.yaml")).unwrap();
    file.write_all(pod("a", "1").as_bytes()).unwrap();
    this.until_pods(&["a=1"]).await;
    drop(file);
}

#[tokio::test]
async fn folders_within_and_links() {
    let mut this = Followed::start(&[]).await;
    fs::create_dir_all(this.path("x/y")).unwrap();
    this.write("x/y/a.yaml", &pod("a", "1"));
    this.until_pods(&["a=1"]).await;
    // as kubelet mounts a ConfigMap: data in a hidden folder, a link to it that is replaced, links through it
    fs::create_dir(this.path("..1")).unwrap();
    this.write("..1/b.yaml", &pod("b", "1"));
    std::os::unix::fs::symlink("..1", this.path("..data")).unwrap();
    std::os::unix::fs::symlink("..data/b.yaml", this.path("b.yaml")).unwrap();
    this.until_pods(&["a=1", "b=1"]).await;
    fs::create_dir(this.path("..2")).unwrap();
    this.write("..2/b.yaml", &pod("b", "2"));
    std::os::unix::fs::symlink("..2", this.path("..data_tmp")).unwrap();
    fs::rename(this.path("..data_tmp"), this.path("..data")).unwrap();
    this.until_pods(&["a=1", "b=2"]).await;
    assert_eq!(this.problems, [] as [&str; 0], "an object is there once");
    fs::remove_dir_all(this.path("x")).unwrap();
    this.until_pods(&["b=2"]).await;
}

#[tokio::test]
async fn a_folder_that_goes_keeps_its_objects_and_may_come_back() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("policies");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), pod("a", "1")).unwrap();
    let (sender, updates) = mpsc::channel(16);
    let task = tokio::spawn(Directory::open(&root).unwrap().run(sender));
    let mut this = Followed { folder: outer, updates, cluster: Cluster::default(), problems: Vec::new(), task };
    this.next().await;
    fs::rename(&root, this.path("elsewhere")).unwrap();
    this.until_problem("its objects stay").await;
    assert_eq!(this.pods(), ["a=1"]);
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.yaml"), pod("a", "2")).unwrap();
    this.until_pods(&["a=2"]).await;
    // and it is followed again
    fs::write(root.join("a.yaml"), pod("a", "3")).unwrap();
    this.until_pods(&["a=3"]).await;
}

#[tokio::test]
async fn of_an_object_in_two_files_the_last_counts() {
    let mut this = Followed::start(&[("a.yaml", &pod("a", "1")), ("b.yaml", &pod("a", "2"))]).await;
    assert_eq!(this.pods(), ["a=2"]);
    assert_eq!(this.problems.len(), 1, "{:?}", this.problems);
    fs::remove_file(this.path("b.yaml")).unwrap();
    this.until_pods(&["a=1"]).await;
    assert_eq!(this.problems, [] as [&str; 0]);
}

#[tokio::test]
async fn an_object_that_moves_to_another_file_is_not_deleted_in_between() {
    let mut this = Followed::start(&[("a.yaml", &pod("a", "1"))]).await;
    fs::rename(this.path("a.yaml"), this.path("b.yaml")).unwrap();
    this.write("c.yaml", &pod("c", "1"));
    let update = timeout(PATIENCE, this.updates.recv()).await.unwrap().unwrap();
    let deleted = policy_compiler::Event::DeletePod(ObjectName::new("shop", "a"));
    assert!(!update.events.contains(&deleted), "{:?}", update.events);
}

#[tokio::test]
async fn problems_name_file_document_object_and_field() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  \
                  podSelector: {}\n  ingress: [{from: [{ipBlock: {cidr: 10.0.0.300/8}}]}]\n";
    let this = Followed::start(&[("p.yaml", &format!("{}---\n{policy}", pod("a", "1")))]).await;
    let [problem] = this.problems.as_slice() else { panic!("{:?}", this.problems) };
    for part in ["p.yaml", "document 2", "NetworkPolicy", "shop/p", "spec.ingress[0].from[0].ipBlock.cidr"] {
        assert!(problem.contains(part), "{part} is not in {problem}");
    }
    // and the policy isolates all the same
    assert_eq!(this.cluster.policies.len(), 1);
}

#[tokio::test]
async fn an_unreadable_file_keeps_its_objects() {
    if nix::unistd::geteuid().is_root() {
        // root reads everything: a folder in the file's place can't be read by anybody
        let mut this = Followed::start(&[("a.yaml", &pod("a", "1"))]).await;
        fs::remove_file(this.path("a.yaml")).unwrap();
        std::os::unix::fs::symlink("a.yaml", this.path("a.yaml")).unwrap();
        this.until_problem("can't be read").await;
        assert_eq!(this.pods(), ["a=1"]);
    } else {
        let mut this = Followed::start(&[("a.yaml", &pod("a", "1"))]).await;
        fs::set_permissions(this.path("a.yaml"), fs::Permissions::from_mode(0o0)).unwrap();
        this.until_problem("can't be read").await;
        assert_eq!(this.pods(), ["a=1"]);
    }
}

#[tokio::test]
async fn nothing_to_follow_is_an_error_and_nobody_listening_is_none() {
    let error = Directory::open("/nonexistent/policies").unwrap_err();
    assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
    let this = Followed::start(&[]).await;
    drop(this.updates);
    timeout(PATIENCE, this.task).await.unwrap().unwrap().unwrap();
}

#[test]
fn severities_are_ordered() {
    assert!(Severity::Error < Severity::Warning, "problems are logged worst first");
}
