//! The process: opens what it needs, starts the tasks, and ends when a signal comes or one of them does. Entry points:
//! [`run`] and [`cleanup`].

use std::{fs, ops::ControlFlow, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use enforcer::{Clock, Enforcer, Events, EventsError, Losses, Options, Reader, veth::Watcher};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    cli::{CleanupArgs, Established, RunArgs, SourceCheck},
    cni,
    engines::{self, Engines},
    http::{self, Identity, Loaded, Shared},
    links::{self, Lister},
    metrics::Metrics,
    notice, readable,
    report::{Journal, time_of_day},
    socket::{self, Socket},
    source::{self, Source as _},
    state::{self, Directory, Health, Inputs, Outputs, Settings},
};

/// How many updates, hints or requests may wait for the state before whoever sends them waits, too.
const QUEUE: usize = 64;

/// How often is looked whether events were lost.
const LOSSES: Duration = Duration::from_secs(1);

/// How long tasks may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT; enforcement goes on after that. An error is one of the start, or of a task that died.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let result = runtime.block_on(serve(args));
    // a directory that is being read needn't be waited for
    runtime.shutdown_background();
    result
}

/// Ends enforcement and removes every trace.
pub fn cleanup(args: &CleanupArgs) -> anyhow::Result<()> {
    let released = Enforcer::cleanup(&args.pin_dir)?;
    socket::remove_stale(&args.socket)?;
    cni::remove_records(&args.socket)?;
    println!("{} interfaces released, {} removed", released.len(), args.pin_dir.display());
    Ok(())
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let node = args.node.clone().or_else(|| std::env::var("NODE_NAME").ok()).map_or_else(host_name, Ok)?;
    let (health_in, health) = watch::channel(Health::default());
    let metrics = Metrics::new()?;
    // whatever is missing is told before anything is made
    let source = choose_source(&args, &node, &metrics, &health_in)?;
    enforcer::preflight::check(&args.pin_dir)?;
    let watcher = Watcher::open()?;
    let lister = Lister::open()?;
    let enforcer = open(&args)?;
    let events = enforcer.events()?;
    let public = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("{} can't be listened at; --listen names another address", args.listen))?;
    let (_socket, private) = Socket::listen(&args.socket)?;

    let (stop, stopping) = watch::channel(false);
    let (updates_in, updates) = mpsc::channel(QUEUE);
    let (hints_in, hints) = mpsc::channel(QUEUE);
    let (requests_in, requests) = mpsc::channel(QUEUE);
    let names = Arc::new(Directory::default());
    let journal = Arc::new(Journal::default());
    let engines = Arc::new(Engines::new(&node, metrics.clone()));
    let outputs = Outputs {
        metrics: metrics.clone(),
        health: health_in,
        names: Arc::clone(&names),
        engines: Arc::clone(&engines),
    };
    let inputs = Inputs { updates, hints, requests, stopping: stopping.clone() };
    let settings = Settings {
        node: node.clone(),
        exclude_interfaces: args.exclude_interface.clone(),
        node_interfaces: args.node_interface.clone(),
        endpoints: args.source_check == SourceCheck::Pods,
        midstream_grace: args.midstream_grace,
        cni_records: cni::records(&args.socket),
        cni_configurations: args.cni_conf_dir.clone(),
    };

    let mut tasks = Tasks::default();
    tasks.cut.spawn(named("source", async move { Ok(source.run(updates_in).await?) }));
    tasks.cut.spawn(named("links", links::hints(watcher, hints_in)));
    tasks.cut.spawn(named("events", follow_events(events, names, Arc::clone(&journal), health.clone())));
    tasks.cut.spawn(named("engines", engines::search(engines, enforcer.survey(), health.clone())));
    if args.directory.is_none() {
        let notices = notice::publish(args.kubeconfig.clone(), node.clone(), requests_in.clone());
        tasks.cut.spawn(named("notices", notices));
    }
    let identity = Identity { node: node.clone(), endpoints: settings.endpoints };
    let loaded = loaded(enforcer.reader());
    let state = spawn_state(settings, enforcer, lister, inputs, outputs)?;
    tasks.finish.spawn(named("state", async move { state.await.context("the thread 'state' panicked")? }));
    let shared =
        Shared { metrics, journal, health, requests: requests_in, identity, loaded, stopping: stopping.clone() };
    let public = axum::serve(public, http::public(shared.clone()));
    let private = axum::serve(private, http::private(shared));
    let public = public.with_graceful_shutdown(stopped(stopping.clone()));
    let private = private.with_graceful_shutdown(stopped(stopping));
    tasks.finish.spawn(named("http", async { Ok(public.await?) }));
    tasks.finish.spawn(named("socket", async { Ok(private.await?) }));
    tracing::info!(node, listen = %args.listen, socket = %args.socket.display(), "started");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = tasks.first_to_end() => ended,
    };
    stop.send_replace(true);
    tasks.drain().await;
    tracing::info!("stopped; enforcement goes on with the tables as they are");
    ended
}

/// A directory if one is named, else the API server of `--kubeconfig` or of the cluster that this is a pod of.
fn choose_source(
    args: &RunArgs,
    node: &str,
    metrics: &Metrics,
    health: &watch::Sender<Health>,
) -> anyhow::Result<source::Chosen> {
    if let Some(directory) = &args.directory {
        return Ok(source::Chosen::Directory(source::Directory::open(directory)?));
    }
    if args.kubeconfig.is_none() && !source::api::in_cluster() {
        anyhow::bail!(
            "nothing to follow: this is no pod of a cluster, so --kubeconfig must name a cluster's file, or --directory \
             a folder of YAML files"
        );
    }
    let health = health.clone();
    Ok(source::Chosen::Api(Box::new(source::Api {
        node: node.to_owned(),
        kubeconfig: args.kubeconfig.clone(),
        metrics: metrics.clone(),
        troubles: Box::new(move |troubles| health.send_modify(|health| health.source = troubles)),
        pace: source::api::Pace::default(),
    })))
}

fn open(args: &RunArgs) -> anyhow::Result<Enforcer> {
    let mut options = Options::new(&args.pin_dir, Clock::measure()?);
    options.settings.source_check = enforcer_abi::SourceCheck::from(args.source_check) as u32;
    options.settings.audit = u32::from(args.audit);
    options.settings.keep_established = u32::from(args.established == Established::Keep);
    for timeout in &args.timeout {
        timeout.set(&mut options.settings.timeouts, |time| options.clock.jiffies(time));
    }
    (options.sizes.flows, options.sizes.openings) = (args.flows, args.openings);
    options.settings.node_interfaces = u32::from(!args.node_interface.is_empty());
    Ok(Enforcer::open(&options)?)
}

/// What the kernel holds, read beside the state.
fn loaded(reader: Reader) -> Loaded {
    Loaded(Arc::new(move || reader.contents().map_err(|error| state::Fault::new(&error).to_string())))
}

/// The state has a thread of its own, so that a long compilation keeps nobody from being answered.
fn spawn_state(
    settings: Settings,
    enforcer: Enforcer,
    lister: Lister,
    mut inputs: Inputs,
    outputs: Outputs,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("no runtime")?;
    let (ended, has_ended) = oneshot::channel();
    thread::Builder::new().name("state".into()).spawn(move || {
        let result = runtime.block_on(async {
            match state::start(settings, enforcer, lister, &mut inputs, outputs).await? {
                Some(state) => state.run(inputs).await,
                None => Ok(()),
            }
        });
        // nobody waits for it any more if the process ends anyway
        let _ = ended.send(result);
    })?;
    Ok(has_ended)
}

/// Reports what the packet program tells, from the moment that there are names for it.
async fn follow_events(
    events: Events,
    names: Arc<Directory>,
    journal: Arc<Journal>,
    mut health: watch::Receiver<Health>,
) -> anyhow::Result<()> {
    health.wait_for(|health| health.synced).await.context("the state has ended")?;
    let losses = count_losses(events.losses(), Arc::clone(&journal));
    let followed = readable::follow("events", events, move |events| {
        while let Some(event) = events.read() {
            journal.record(&event, names.of(&event), time_of_day(event.time));
        }
        Ok(ControlFlow::Continue(()))
    });
    tokio::select! {
        ended = followed => ended,
        ended = losses => ended,
    }
}

/// Reports what the packet program has not told, a moment after.
async fn count_losses(losses: Losses, journal: Arc<Journal>) -> anyhow::Result<()> {
    let mut before = losses.read()?;
    let mut interval = tokio::time::interval(LOSSES);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = match losses.read() {
            // the state has ended, of which others tell
            Err(EventsError::Closed) => std::future::pending().await,
            read => read?,
        };
        if now != before {
            // a larger map has begun to count anew
            let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            journal.lost(since(now.suppressed, before.suppressed), since(now.lost, before.lost));
            before = now;
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // an agent that is gone has stopped, too
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn host_name() -> anyhow::Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .context("the host's name can't be read, so --node has to name the node")?;
    // as kubelet does it
    Ok(name.trim().to_lowercase())
}

/// Tasks that all have to live.
#[derive(Debug, Default)]
struct Tasks {
    /// Those that end by themselves when the agent drains.
    finish: JoinSet<Ended>,
    /// Those that have nothing to finish.
    cut: JoinSet<Ended>,
}

type Ended = (&'static str, anyhow::Result<()>);

impl Tasks {
    /// The first that ends is an error, whatever it says.
    async fn first_to_end(&mut self) -> anyhow::Result<()> {
        let ended = tokio::select! {
            Some(ended) = self.finish.join_next() => ended,
            Some(ended) = self.cut.join_next() => ended,
            else => return Ok(()),
        };
        match ended {
            Err(error) => std::panic::resume_unwind(error.into_panic()),
            Ok((name, Ok(()))) => anyhow::bail!("the agent's task '{name}' ended by itself"),
            Ok((_, Err(error))) => Err(error),
        }
    }

    /// Lets those end that have something to finish.
    async fn drain(mut self) {
        self.cut.abort_all();
        let finish = async { while self.finish.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, finish).await.is_err() {
            tracing::warn!("some tasks did not end in time and are cut off");
        }
    }
}

async fn named(name: &'static str, task: impl Future<Output = anyhow::Result<()>>) -> Ended {
    (name, task.await)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    /// What an agent with these flags says when it gives up, before it has made anything.
    #[track_caller]
    fn check(flags: &[&str], expected: &str) {
        let flags = ["sluice-agent", "--node", "n1", "--pin-dir", "/tmp/sluice-no-such-folder"].iter().chain(flags);
        let error = run(Cli::parse_from(flags).run).unwrap_err();
        assert_eq!(format!("{error:#}"), expected);
        assert!(!std::path::Path::new("/tmp/sluice-no-such-folder").exists());
    }

    #[test]
    fn what_is_missing_at_the_start_is_one_sentence() {
        check(
            &["--directory", "/tmp/sluice-no-such-directory"],
            "/tmp/sluice-no-such-directory is not a directory that can be read; --directory names the folder of YAML files \
             to follow: No such file or directory (os error 2)",
        );
        if !source::api::in_cluster() {
            check(
                &[],
                "nothing to follow: this is no pod of a cluster, so --kubeconfig must name a cluster's file, or \
                 --directory a folder of YAML files",
            );
        }
        if nix::unistd::geteuid().is_root() {
            check(
                &["--directory", "/tmp"],
                "/tmp/sluice-no-such-folder is not on a BPF file system, where maps and links outlive the agent: run \
                 `mount -t bpf bpf /sys/fs/bpf`, or, in a container, mount the host's /sys/fs/bpf",
            );
        }
    }
}
