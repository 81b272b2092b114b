//! A connection to the API server: whose it is, and that its silence is noticed. Entry points: [`connect`], and
//! [`Connection`] for what has to last.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    runtime::Handle,
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tower::{BoxError, ServiceBuilder};

use super::failure::{Failure, innermost};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// After how long a silence the other end is asked whether it is still there, how often then, and how many times. A
/// connection whose other end vanished is noticed within half a minute, long before a watch would miss its bookmarks.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// A client for the cluster that `kubeconfig` names, or the one that this process runs in.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Failure> {
    let config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster_env().map_err(|error| {
            Failure::Configuration(format!(
                "the ServiceAccount's files can't be read: {}; the pod needs one, and its token mounted",
                innermost(&error)
            ))
        })?,
    };
    with_config(config)
}

/// A client for all watches, which is made anew when its credentials are refused: they may have been replaced where they
/// are kept. Left to itself, kube reads a kubeconfig once, and the file of a ServiceAccount's token again when the time of
/// day says so; after a clock that was ahead has been put right, that is too late.
#[derive(Debug)]
pub(super) struct Connection {
    kubeconfig: Option<PathBuf>,
    current: Mutex<Numbered>,
    /// The reading of credentials that goes on, if one does.
    renewal: Mutex<Option<JoinHandle<Result<Numbered, Failure>>>>,
}

/// A client, and which one it is of those that there have been.
#[derive(Clone)]
pub(super) struct Numbered {
    pub(super) client: Client,
    number: u64,
}

impl std::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Numbered").field(&self.number).finish()
    }
}

impl Connection {
    /// As [`connect`].
    pub(super) async fn open(kubeconfig: Option<&Path>) -> Result<Self, Failure> {
        let client = connect(kubeconfig).await?;
        let current = Mutex::new(Numbered { client, number: 0 });
        Ok(Self { kubeconfig: kubeconfig.map(Path::to_owned), current, renewal: Mutex::default() })
    }

    /// The client to use now.
    pub(super) async fn client(&self) -> Numbered {
        self.current.lock().await.clone()
    }

    /// The credentials of this client were refused. Makes another, unless somebody has by now, or is at it; where they
    /// can't be read, the old ones stay. Whoever keeps them, a program or a file system, may not answer: after `patience`
    /// this comes back, and the next call waits for the same answer, so that no two are ever asked for.
    pub(super) async fn renew(&self, refused: &Numbered, patience: Duration) {
        let Ok(mut renewal) = self.renewal.try_lock() else { return };
        if self.current.lock().await.number != refused.number {
            return;
        }
        let reading = renewal.get_or_insert_with(|| {
            let (kubeconfig, runtime, number) = (self.kubeconfig.clone(), Handle::current(), refused.number + 1);
            // kube waits for a program that gives credentials, and the standard library for a file, where they stand
            spawn_blocking(move || {
                let client = runtime.block_on(connect(kubeconfig.as_deref()));
                client.map(|client| Numbered { client, number })
            })
        });
        let Ok(read) = timeout(patience, reading).await else {
            tracing::warn!("the credentials were refused, and reading them again takes longer than {patience:?}");
            return;
        };
        *renewal = None;
        match read {
            Ok(Ok(renewed)) => *self.current.lock().await = renewed,
            Ok(Err(failure)) => tracing::debug!("the credentials were refused and can't be read again: {failure}"),
            Err(error) => tracing::error!("the credentials were refused, and reading them again failed: {error}"),
        }
    }
}

/// Whether this process runs in a pod of a cluster.
pub(super) fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

async fn from_file(path: &Path) -> Result<Config, Failure> {
    let wrong = |error| Failure::Configuration(format!("--kubeconfig {}: {}", path.display(), innermost(&error)));
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrong)
}

/// kube's own stack of services, on connections with keepalive, and without logging each failure as an error: failures
/// are reported once, as what they mean.
pub(super) fn with_config(config: Config) -> Result<Client, Failure> {
    let wrong = |error: kube::Error| Failure::Configuration(innermost(&error));
    if let Some(proxy) = &config.proxy_url {
        return Err(Failure::Configuration(format!("proxies are not supported, but {proxy} is asked for")));
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(KEEPALIVE.0));
    http.set_keepalive_interval(Some(KEEPALIVE.1));
    http.set_keepalive_retries(Some(KEEPALIVE.2));
    let https = config.rustls_https_connector_with_connector(http).map_err(wrong)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(wrong)?)
        .layer(config.extra_headers_layer().map_err(wrong)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}"#;

    #[tokio::test]
    async fn credentials_that_cannot_be_read_in_time_keep_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let (path, patience) = (folder.path().join("kubeconfig"), Duration::from_millis(20));
        fs::write(&path, KUBECONFIG).unwrap();
        let connection = Connection::open(Some(&path)).await.unwrap();
        let used = connection.client().await;
        // who reads it waits until somebody writes
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let long = Duration::from_secs(60);
        for _ in 0..2 {
            timeout(long, connection.renew(&used, patience)).await.expect("it waits for the credentials");
            assert_eq!(connection.client().await.number, used.number, "the old ones stay");
        }
        {
            let waits = connection.renew(&used, long);
            tokio::pin!(waits);
            assert!(timeout(patience, &mut waits).await.is_err());
            let others = async {
                connection.renew(&used, long).await;
                connection.client().await
            };
            timeout(long, others).await.expect("the other watches wait as well");
            // there is one reader for all three calls, so that what is written once is enough
            fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(KUBECONFIG.as_bytes()).unwrap();
            timeout(long, waits).await.expect("the credentials were written");
        }
        assert_eq!(connection.client().await.number, used.number + 1);
    }
}
