//! The agent's command line: flags, their `SLUICE_*` environment variables, and what is wrong with them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// The name of the node whose pods are enforced; the host's name if absent
    #[arg(long, env = "SLUICE_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// The directory of YAML files to follow
    #[arg(long, env = "SLUICE_DIRECTORY", value_name = "DIR")]
    pub directory: Option<PathBuf>,
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
    /// The form of the log on stderr
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives of tracing-subscriber's EnvFilter
    #[arg(long, env = "SLUICE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
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

/// A number with a unit: `500ms`, `120s`, `2m`, `1h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write a whole number and ms, s, m or h, like 120s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_millis()), expected.map(u128::from), "{text}");
        }
        check("120s", Some(120_000));
        check("500ms", Some(500));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("0s", Some(0));
        check("120", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("99999999999999999999h", None);
        check("18446744073709551615h", None);
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
    fn repeated_and_listed_interfaces() {
        let cli =
            Cli::try_parse_from(["sluice-agent", "--exclude-interface", "a,b", "--exclude-interface", "c*"]).unwrap();
        assert_eq!(cli.run.exclude_interface, ["a", "b", "c*"]);
    }
}
