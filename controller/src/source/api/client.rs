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
use tokio::sync::Mutex;
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
        Ok(Self { kubeconfig: kubeconfig.map(Path::to_owned), current })
    }

    /// The client to use now.
    pub(super) async fn client(&self) -> Numbered {
        self.current.lock().await.clone()
    }

    /// The credentials of this client were refused. Makes another, unless somebody has by now; where they can't be read,
    /// the old ones stay.
    pub(super) async fn renew(&self, refused: &Numbered) {
        let mut current = self.current.lock().await;
        if current.number != refused.number {
            return;
        }
        match connect(self.kubeconfig.as_deref()).await {
            Ok(client) => *current = Numbered { client, number: current.number + 1 },
            Err(failure) => tracing::debug!("the credentials were refused and can't be read again: {failure}"),
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
