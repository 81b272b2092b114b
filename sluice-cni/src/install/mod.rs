//! Puts the plugin where a runtime finds it, and takes it away again. Entry points: [`install`] and [`uninstall`].
//!
//! A runtime uses the first file of its configuration folder that ends in `.conf`, `.conflist` or `.json`, by name. Into
//! that one the plugin goes. A file of a single plugin can't be chained: it is replaced by a list of its name, and kept
//! under a name that no runtime reads.

mod conflist;
mod files;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use conflist::TYPE;

use crate::config::{DEFAULT_PIN_DIR, DEFAULT_SOCKET, DEFAULT_TIMEOUT, LONGEST_TIMEOUT, OnAgentDown, OnUnenforceable};

/// What ends the name of a file of a single plugin while a list stands in for it.
const KEPT: &str = ".sluice-cni-kept";

/// Where a runtime looks.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// The folder of the runtime's network configurations
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    conf_dir: PathBuf,
    /// The folder of the runtime's plugins
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    bin_dir: PathBuf,
}

/// Flags of `install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    places: Places,
    /// What becomes of a pod whose policies are not in force in time: it does not start, or it starts held
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    on_agent_down: OnAgentDown,
    /// What becomes of a pod whose packets can't be seen: it does not start, or it starts without policies
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    on_unenforceable: OnUnenforceable,
    /// How many seconds a pod's policies may take
    #[arg(long, default_value_t = DEFAULT_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=LONGEST_TIMEOUT),
        value_name = "N")]
    timeout_seconds: u64,
    /// The agent's unix socket, on the node
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// Where the agent pins its programs, on the node
    #[arg(long, default_value = DEFAULT_PIN_DIR, value_name = "DIR")]
    pin_dir: PathBuf,
}

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    places: Places,
    /// Leave the program where it is, for a runtime that takes pods down by the configuration that they were made with
    #[arg(long)]
    keep_binary: bool,
}

/// Copies the program, then names it in the configuration. Done twice it is done once.
pub(crate) fn install(args: &InstallArgs) -> Result<String> {
    let program = copy_program(&args.places.bin_dir)?;
    let plugin = args.plugin();
    let path = first_configuration(&args.places.conf_dir)?;
    let text = read(&path)?;
    let unusable = || format!("{} can't be extended", path.display());
    if path.extension().is_some_and(|extension| extension == "conflist") {
        let edited = conflist::add(&text, &plugin).with_context(unusable)?;
        if edited == text {
            return Ok(format!("{} names {TYPE} already; {program}", path.display()));
        }
        write(&path, &edited, &plugin)?;
        return Ok(format!("{TYPE} added to {}; {program}", path.display()));
    }
    let list = conflist::from_single(&text, &plugin).with_context(unusable)?;
    let (to, kept) = (path.with_extension("conflist"), files::with_ending(&path, KEPT));
    write(&to, &list, &plugin)?;
    // by its name the single plugin's comes first: the list counts from here on
    files::rename(&path, &kept).with_context(|| format!("{} can't be renamed", path.display()))?;
    Ok(format!("{TYPE} added to {}, which takes the place of {}; {program}", to.display(), path.display()))
}

/// Takes the plugin out of all configurations, then removes the program.
pub(crate) fn uninstall(args: &UninstallArgs) -> Result<String> {
    let mut done = Vec::new();
    for path in configurations(&args.places.conf_dir)? {
        // what can't be read can't name this plugin in a way that a runtime understands
        let Ok(text) = read(&path) else { continue };
        if conflist::contains(&text) != Ok(true) {
            continue;
        }
        match kept_for(&path) {
            Some((kept, single)) => {
                // the single plugin's comes first by its name, and counts from here on
                files::rename(&kept, &single).with_context(|| format!("{} can't be renamed", kept.display()))?;
                files::remove(&path).with_context(|| format!("{} can't be removed", path.display()))?;
                done.push(format!("{} is back in place of {}", single.display(), path.display()));
            }
            None => {
                let edited = conflist::remove(&text).with_context(|| format!("{} can't be edited", path.display()))?;
                files::replace(&path, edited.as_bytes(), 0o644)
                    .with_context(|| format!("{} can't be written: take {TYPE} out by hand", path.display()))?;
                done.push(format!("{TYPE} taken out of {}", path.display()));
            }
        }
    }
    if done.is_empty() {
        done.push(format!("no configuration in {} names {TYPE}", args.places.conf_dir.display()));
    }
    let program = args.places.bin_dir.join(TYPE);
    if !args.keep_binary
        && files::remove(&program).with_context(|| format!("{} can't be removed", program.display()))?
    {
        done.push(format!("{} removed", program.display()));
    }
    Ok(done.join("; "))
}

impl InstallArgs {
    /// The object in the list: what differs from the default is written down.
    fn plugin(&self) -> String {
        let text = |value: &Path| serde_json::Value::from(value.to_string_lossy()).to_string();
        let mut fields = vec![format!(r#""type": "{TYPE}""#)];
        if self.on_agent_down != OnAgentDown::default() {
            fields.push(r#""onAgentDown": "hold""#.to_owned());
        }
        if self.on_unenforceable != OnUnenforceable::default() {
            fields.push(r#""onUnenforceable": "allow""#.to_owned());
        }
        if self.timeout_seconds != DEFAULT_TIMEOUT {
            fields.push(format!(r#""timeoutSeconds": {}"#, self.timeout_seconds));
        }
        if self.socket != Path::new(DEFAULT_SOCKET) {
            fields.push(format!(r#""socket": {}"#, text(&self.socket)));
        }
        if self.pin_dir != Path::new(DEFAULT_PIN_DIR) {
            fields.push(format!(r#""pinDir": {}"#, text(&self.pin_dir)));
        }
        format!("{{{}}}", fields.join(", "))
    }
}

/// Puts this program into the folder of plugins, unless it is there already.
fn copy_program(folder: &Path) -> Result<String> {
    let own = env::current_exe().context("where this program is can't be told")?;
    let to = folder.join(TYPE);
    let content = fs::read(&own).with_context(|| format!("{} can't be read", own.display()))?;
    if fs::read(&to).is_ok_and(|there| there == content) {
        return Ok(format!("{} is up to date", to.display()));
    }
    files::replace(&to, &content, 0o755).with_context(|| {
        format!("{} can't be written: --bin-dir must name the folder of the runtime's plugins, writable", to.display())
    })?;
    Ok(format!("{} copied", to.display()))
}

fn write(path: &Path, text: &str, plugin: &str) -> Result<()> {
    files::replace(path, text.as_bytes(), 0o644).with_context(|| {
        format!(
            "{} can't be written: make it writable for this, or add {plugin} at the end of its plugins by hand",
            path.display()
        )
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// What a runtime reads, in its order.
fn configurations(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut paths = list().with_context(|| {
        format!("{} can't be listed: --conf-dir must name the folder of the runtime's configurations", folder.display())
    })?;
    let is_read = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conf" | "conflist" | "json")) && !path.is_dir()
    };
    paths.retain(is_read);
    paths.sort_unstable();
    Ok(paths)
}

/// The one that a runtime uses.
fn first_configuration(folder: &Path) -> Result<PathBuf> {
    match configurations(folder)?.into_iter().next() {
        Some(path) => Ok(path),
        None => bail!(
            "no network configuration is in {} yet: {TYPE} follows another plugin, which has to be installed first",
            folder.display()
        ),
    }
}

/// The file of a single plugin that a list stands in for, and where it was.
fn kept_for(list: &Path) -> Option<(PathBuf, PathBuf)> {
    ["conf", "json"].into_iter().find_map(|extension| {
        let single = list.with_extension(extension);
        let kept = files::with_ending(&single, KEPT);
        kept.is_file().then_some((kept, single))
    })
}

#[cfg(test)]
mod tests;
