//! The agent's command line: flags, their `SLUICE_*` environment variables, and what is wrong with them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::RangedI64ValueParser};

use crate::timeouts::{Timeout, parse_duration};

/// Enforces network policies at the pods of this node.
#[derive(Debug, Parser)]
#[command(name = "sluice-agent", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the agent does when it doesn't run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Detach from every pod and remove every trace of Sluice from this node
    Cleanup(CleanupArgs),
}

/// Flags of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Where the maps, programs and links are pinned (a folder of a BPF file system)
    #[arg(long, env = "SLUICE_PIN_DIR", default_value = DEFAULT_PIN_DIR, value_name = "DIR")]
    pub pin_dir: PathBuf,
    /// The agent's socket, removed as well
    #[arg(long, env = "SLUICE_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
}

/// Flags of a running agent.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The name of the node whose pods are enforced; NODE_NAME in the environment, or the host's name, if absent
    #[arg(long, env = "SLUICE_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// A directory of YAML files to follow instead of the API server
    #[arg(long, env = "SLUICE_DIRECTORY", value_name = "DIR", conflicts_with = "kubeconfig")]
    pub directory: Option<PathBuf>,
    /// The kubeconfig file of the cluster to follow; without it, the one that the agent is a pod of
    #[arg(long, env = "SLUICE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where maps, programs and links are pinned (a folder of a BPF file system)
    #[arg(long, env = "SLUICE_PIN_DIR", default_value = DEFAULT_PIN_DIR, value_name = "DIR")]
    pub pin_dir: PathBuf,
    /// The unix socket that serves state and events to root
    #[arg(long, env = "SLUICE_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// The address of /metrics, /healthz and /readyz
    #[arg(long, env = "SLUICE_LISTEN", default_value = "127.0.0.1:9740", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// An interface that is never touched; a trailing * matches any ending (repeatable)
    #[arg(long, env = "SLUICE_EXCLUDE_INTERFACE", value_delimiter = ',', value_name = "NAME")]
    pub exclude_interface: Vec<String>,
    /// An interface whose packets from the node's addresses count as the node's own (repeatable)
    #[arg(long, env = "SLUICE_NODE_INTERFACE", value_delimiter = ',', value_name = "NAME")]
    pub node_interface: Vec<String>,
    /// Where the container runtime keeps its network configurations; they matter on kernels before 6.6
    #[arg(long, env = "SLUICE_CNI_CONF_DIR", default_value = "/etc/cni/net.d", value_name = "DIR")]
    pub cni_conf_dir: PathBuf,
    /// What pods may use as source address: their own addresses only (strict), also those of no pod and no node
    /// (pods), anything (off)
    #[arg(long, env = "SLUICE_SOURCE_CHECK", value_enum, default_value_t = SourceCheck::Strict, value_name = "MODE")]
    pub source_check: SourceCheck,
    /// What a change of policy does to established connections
    #[arg(long, env = "SLUICE_ESTABLISHED", value_enum, default_value_t = Established::Reevaluate, value_name = "MODE")]
    pub established: Established,
    /// Report what the policies refuse and let it pass
    #[arg(long, env = "SLUICE_AUDIT")]
    pub audit: bool,
    /// How long connections that are older than Sluice may go on by either direction's rules, at pods that ran before
    /// Sluice was first attached
    #[arg(long, env = "SLUICE_MIDSTREAM_GRACE", value_parser = parse_duration, default_value = "120s", value_name = "TIME")]
    pub midstream_grace: Duration,
    /// How long a flow is remembered without a packet, as seconds or with a unit, like tcp-established=5d (repeatable).
    /// Names: tcp-syn-sent, tcp-established, tcp-fin-wait, tcp-close, udp, udp-stream, icmp, fragment
    #[arg(long, env = "SLUICE_TIMEOUT", value_delimiter = ',', value_name = "NAME=TIME")]
    pub timeout: Vec<Timeout>,
    /// How many flows with packets in both directions are remembered; each takes 128 bytes or so of the kernel's memory
    #[arg(long, env = "SLUICE_FLOWS", value_parser = table_size(), default_value_t = 131_072, value_name = "N")]
    pub flows: u32,
    /// How many flows with packets in one direction are remembered besides
    #[arg(long, env = "SLUICE_OPENINGS", value_parser = table_size(), default_value_t = 32_768, value_name = "N")]
    pub openings: u32,
    /// The form of the log on stderr
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives of tracing-subscriber's EnvFilter
    #[arg(long, env = "SLUICE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// What `--flows` and `--openings` may be: below, the kernel's lists of free entries for each CPU are most of a table;
/// above, it takes more than 8 GiB.
fn table_size() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1024..=64 << 20)
}

const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/sluice";
const DEFAULT_SOCKET: &str = "/run/sluice/agent.sock";

/// See [`RunArgs::source_check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceCheck {
    /// Own addresses.
    Strict,
    /// Also addresses of no pod and no node.
    Pods,
    /// No check.
    Off,
}

/// See [`RunArgs::established`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Established {
    /// They are judged again by the new policy.
    Reevaluate,
    /// They are left alone.
    Keep,
}

/// See [`RunArgs::log_format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Human,
    /// One JSON object a line.
    Json,
}

impl From<SourceCheck> for enforcer_abi::SourceCheck {
    fn from(check: SourceCheck) -> Self {
        match check {
            SourceCheck::Strict => Self::Strict,
            SourceCheck::Pods => Self::Pods,
            SourceCheck::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn parsed(flags: &[&str]) -> Result<RunArgs, clap::Error> {
        Cli::try_parse_from(["sluice-agent"].iter().chain(flags)).map(|cli| cli.run)
    }

    #[test]
    fn sizes_and_time_outs() {
        let args = parsed(&["--flows", "1048576", "--openings=65536", "--timeout", "udp=60,icmp=5s"]).unwrap();
        assert_eq!((args.flows, args.openings, args.timeout.len()), (1_048_576, 65_536, 2));
        let args = parsed(&["--timeout", "udp=60", "--timeout", "udp=1m"]).unwrap();
        assert_eq!(args.timeout.len(), 2);
        for (flag, value, says) in [
            ("--flows", "1000", "1000 is not in 1024..=67108864"),
            ("--openings", "many", "invalid digit"),
            ("--timeout", "udp", "is not of the form NAME=TIME"),
        ] {
            let error = parsed(&[flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_sizes_that_nobody_asks_for_are_the_enforcers() {
        let (args, sizes) = (parsed(&[]).unwrap(), enforcer::MapSizes::default());
        assert_eq!((args.flows, args.openings), (sizes.flows, sizes.openings));
    }

    #[test]
    fn running_and_cleaning_up_are_told_apart() {
        let cli = Cli::try_parse_from(["sluice-agent", "--node", "n1", "--directory", "/etc/policies"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.listen, "127.0.0.1:9740".parse().unwrap());
        assert_eq!(cli.run.midstream_grace, Duration::from_secs(120));
        let cli = Cli::try_parse_from(["sluice-agent", "cleanup", "--pin-dir", "/sys/fs/bpf/x"]).unwrap();
        let Some(Command::Cleanup(args)) = cli.command else { panic!("not cleanup") };
        assert_eq!(args.pin_dir, PathBuf::from("/sys/fs/bpf/x"));
    }

    #[test]
    fn there_is_one_source() {
        let both = ["sluice-agent", "--directory", "/etc/policies", "--kubeconfig", "/root/.kube/config"];
        Cli::try_parse_from(both).unwrap_err();
        let cli = Cli::try_parse_from(&both[..1]).unwrap();
        assert!(cli.run.directory.is_none() && cli.run.kubeconfig.is_none());
    }

    #[test]
    fn repeated_and_listed_interfaces() {
        let cli =
            Cli::try_parse_from(["sluice-agent", "--exclude-interface", "a,b", "--exclude-interface", "c*"]).unwrap();
        assert_eq!(cli.run.exclude_interface, ["a", "b", "c*"]);
    }
}
