//! Which cluster is meant, and as whom: what `kubectl` reads, by its rules. Entry points: [`Chosen::find`], and
//! [`Chosen::connect`] for a client.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::client::proxy::matcher::Matcher;
use kube::{
    Client, Config,
    config::{Cluster, Context, KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;

use super::failure::{Failure, innermost, one_line};

/// Flags that say which cluster is meant.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The context of the kubeconfig (default: its current one)
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig (default: the files in KUBECONFIG, or ~/.kube/config; in a pod its ServiceAccount)
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How long the API server may take to answer one request, such as 30s or 1m; 0 means for ever
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) request_timeout: Duration,
}

/// `10s`, `1m`, `500ms`, `2h` or a number of seconds; nothing at all is for ever.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| "write a time such as 30s or 1m")?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a time such as 30s or 1m".to_owned()),
    };
    match number.checked_mul(milliseconds) {
        Some(0) => Ok(Duration::MAX),
        Some(time) => Ok(Duration::from_millis(time)),
        None => Err("that is too long".to_owned()),
    }
}

/// A cluster that was chosen.
#[derive(Debug)]
pub(crate) struct Chosen {
    from: From,
    /// The name of the context; `None` in a pod.
    pub(crate) context: Option<String>,
    /// The namespace of what names none.
    pub(crate) namespace: String,
    timeout: Duration,
}

#[derive(Debug)]
enum From {
    Kubeconfig(Box<Kubeconfig>),
    Pod,
}

impl Chosen {
    /// Reads what there is to read; asks nobody.
    pub(crate) fn find(args: &Args) -> Result<Self, Failure> {
        let timeout = args.request_timeout;
        let (kubeconfig, looked) = read(args.kubeconfig.as_deref())?;
        // kubectl takes a file that says nothing for one that isn't there
        let says = kubeconfig.filter(|file| !file.clusters.is_empty() || !file.contexts.is_empty());
        let Some(file) = says else {
            if env::var_os("KUBERNETES_SERVICE_HOST").is_some() && args.context.is_none() {
                let namespace = fs::read_to_string(POD_NAMESPACE).unwrap_or_default();
                let namespace = if namespace.trim().is_empty() { "default" } else { namespace.trim() }.to_owned();
                return Ok(Self { from: From::Pod, context: None, namespace, timeout });
            }
            return Err(Failure::NoKubeconfig { looked });
        };
        let current = file.current_context.clone().filter(|name| !name.is_empty());
        let Some(name) = args.context.clone().or(current) else {
            return Err(Failure::Configuration(format!(
                "no context is current; choose one with --context: {}",
                names(&file)
            )));
        };
        let Some(context) = context(&file, &name) else {
            return Err(Failure::Configuration(format!("there is no context {name:?}; there are {}", names(&file))));
        };
        let namespace = context.namespace.clone().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        Ok(Self { from: From::Kubeconfig(Box::new(file)), context: Some(name), namespace, timeout })
    }

    /// A client. Exec plugins are run here; they may ask their user something, so nothing limits their time.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let wrong = |error: &(dyn std::error::Error + 'static)| Failure::Configuration(innermost(error));
        let mut config = match &self.from {
            From::Pod => Config::incluster_env().map_err(|error| {
                Failure::Configuration(format!("the ServiceAccount's files can't be read: {}", innermost(&error)))
            })?,
            From::Kubeconfig(file) => {
                let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig((**file).clone(), &options).await;
                let mut config = config.map_err(|error| wrong(&error))?;
                let cluster = self.context.as_deref().and_then(|name| cluster(file, context(file, name)?));
                config.proxy_url = proxy(cluster, &config.cluster_url)?;
                config
            }
        };
        // a shorter time is up for the request as a whole, which is told better
        config.connect_timeout = (self.timeout > CONNECT).then_some(CONNECT);
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| match error {
            kube::Error::Auth(error) => credentials(&server, &error),
            error => wrong(&error),
        })?;
        Ok(Connection { client, server, timeout: self.timeout })
    }
}

/// Why an exec plugin gives no credentials, in its own words where it has some.
fn credentials(server: &str, error: &kube::client::AuthError) -> Failure {
    let cause = match error {
        kube::client::AuthError::AuthExecRun { cmd, out } => {
            let said = String::from_utf8_lossy(&out.stderr);
            format!("{cmd} ended with {}: {}", out.status, one_line(&said))
        }
        error => innermost(error),
    };
    Failure::Credentials { server: server.to_owned(), cause }
}

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Its address.
    pub(crate) server: String,
    /// How long a request may take.
    pub(crate) timeout: Duration,
}

impl Connection {
    /// The API server's own version, such as `v1.36.2`.
    pub(super) async fn version(&self) -> Result<String, Failure> {
        let server = self.server.clone();
        match timeout(self.timeout, self.client.apiserver_version()).await {
            Ok(Ok(info)) => Ok(info.git_version),
            Ok(Err(error)) => Err(Failure::of(&error, &server, "its version")),
            Err(_) => Err(Failure::Silent { server, after: self.timeout }),
        }
    }

    /// What comes of a request, if that comes in time.
    pub(crate) async fn within<T>(&self, request: impl Future<Output = T>) -> anyhow::Result<T> {
        let silent = |_| anyhow::anyhow!("no answer within {} s", self.timeout.as_secs_f64());
        timeout(self.timeout, request).await.map_err(silent)
    }
}

/// How long a connection may take where a request may take longer.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a pod finds its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The kubeconfig, if there is one, and where it was looked for.
fn read(flag: Option<&Path>) -> Result<(Option<Kubeconfig>, String), Failure> {
    let read = |path: &Path| {
        Kubeconfig::read_from(path)
            .map_err(|error| Failure::Configuration(format!("{} can't be read: {}", path.display(), innermost(&error))))
    };
    if let Some(path) = flag {
        return Ok((Some(read(path)?), format!("{} holds none", path.display())));
    }
    let variable = env::var_os("KUBECONFIG").unwrap_or_default();
    let mut paths: Vec<_> = env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty()).collect();
    let looked = if paths.is_empty() {
        paths.extend(env::home_dir().map(|home| home.join(".kube/config")));
        "there is no ~/.kube/config, KUBECONFIG is not set".to_owned()
    } else {
        format!("KUBECONFIG names no cluster ({})", variable.to_string_lossy())
    };
    let mut merged: Option<Kubeconfig> = None;
    // kubectl leaves out files that aren't there
    for path in paths.iter().filter(|path| path.exists()) {
        let next = read(path)?;
        merged = Some(match merged {
            None => next,
            Some(before) => before.merge(next).map_err(|error| Failure::Configuration(innermost(&error)))?,
        });
    }
    Ok((merged, looked))
}

fn names(file: &Kubeconfig) -> String {
    file.contexts.iter().map(|context| &*context.name).collect::<Vec<_>>().join(", ")
}

fn context<'a>(file: &'a Kubeconfig, name: &str) -> Option<&'a Context> {
    file.contexts.iter().find(|context| context.name == name)?.context.as_ref()
}

fn cluster<'a>(file: &'a Kubeconfig, context: &Context) -> Option<&'a Cluster> {
    file.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()
}

/// The proxy on the way to `server`: `proxy-url` of the kubeconfig, else what the environment says. kube asks whether
/// NO_PROXY holds the proxy, where it ought to ask for the server, and takes HTTPS_PROXY for plain HTTP too.
fn proxy(cluster: Option<&Cluster>, server: &http::Uri) -> Result<Option<http::Uri>, Failure> {
    let wrong = |text: &str| Failure::Configuration(format!("{text:?} is no address of a proxy"));
    if let Some(text) = cluster.and_then(|cluster| cluster.proxy_url.as_deref()).filter(|text| !text.is_empty()) {
        return text.parse().map(Some).map_err(|_| wrong(text));
    }
    let variable = |names: [&str; 2]| {
        names.into_iter().filter_map(|name| env::var(name).ok()).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let text = match server.scheme_str() {
        Some("https") => variable(["HTTPS_PROXY", "https_proxy"]),
        _ => variable(["HTTP_PROXY", "http_proxy"]),
    };
    let text = if text.is_empty() || text.contains("://") { text } else { format!("http://{text}") };
    if !uses_proxy(server, &text, &variable(["NO_PROXY", "no_proxy"])) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| wrong(&text))
}

/// Whether the way to `server` leads through a proxy that the environment names.
fn uses_proxy(server: &http::Uri, proxy: &str, no_proxy: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    !proxy.is_empty() && !is_loopback && Matcher::builder().all(proxy).no(no_proxy).build().intercept(server).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_kubectl_reads_them() {
        let seconds = |seconds| Ok(Duration::from_secs(seconds));
        assert_eq!(duration("10s"), seconds(10));
        assert_eq!(duration("10"), seconds(10));
        assert_eq!(duration("1m"), seconds(60));
        assert_eq!(duration("2h"), seconds(7200));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0"), Ok(Duration::MAX));
        for wrong in ["", "s", "-1s", "10x", "1.5s", "99999999999999999h"] {
            duration(wrong).unwrap_err();
        }
    }

    #[test]
    fn the_servers_own_name_decides_about_the_proxy() {
        #[track_caller]
        fn check(server: &str, no_proxy: &str, expected: bool) {
            assert_eq!(uses_proxy(&server.parse().unwrap(), "http://proxy:3128", no_proxy), expected);
        }
        check("https://api.example.com:6443", "", true);
        check("https://api.example.com:6443", "example.com", false);
        check("https://api.example.com:6443", ".example.com", false);
        check("https://api.example.com:6443", "proxy", true);
        check("https://10.0.0.1:6443", "10.0.0.0/8", false);
        check("https://10.0.0.1:6443", "192.168.0.0/16", true);
        check("https://127.0.0.1:6443", "", false);
        check("https://[::1]:6443", "", false);
        check("https://localhost:6443", "", false);
        check("https://anywhere", "*", false);
        assert!(!uses_proxy(&"https://anywhere".parse().unwrap(), "", ""));
    }
}
