//! A connection to the API server: whose it is, and that its silence is noticed. Entry point: [`connect`].

use std::{path::Path, time::Duration};

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
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
