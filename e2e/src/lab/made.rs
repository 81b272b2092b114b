//! What is costly to make and made once for each content: folders `NAME-CONTENT` of the cache.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};

use super::folder::cache;

/// What is made of a module, in the cache.
pub(super) fn named(module: &str, part: &str) -> String {
    [module, part].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The folder `NAME-CONTENT` of the cache, there or not.
pub(super) fn place(name: &str, content: &str) -> Result<PathBuf> {
    let short = content.get(..16).unwrap_or(content);
    Ok(cache()?.join("made").join(format!("{name}-{short}")))
}

/// The folder `NAME-CONTENT` of the cache. If it isn't there, `make` fills it; what fails leaves nothing, and two
/// processes wait for each other.
pub(super) fn once(name: &str, content: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = place(name, content)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let base = folder.parent().context("the cache folder has one above")?;
    fs::create_dir_all(base).with_context(|| format!("cannot make {}", base.display()))?;
    let lock = File::create(base.join(format!("{name}.lock"))).context("cannot make a lock")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).context("cannot lock")?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let start = Instant::now();
    eprintln!("building {name}");
    let unfinished = folder.with_added_extension("new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("cannot remove an unfinished build")?;
    }
    fs::create_dir(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    make(&unfinished)?;
    fs::rename(&unfinished, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    eprintln!("built {name} in {:.1} s", start.elapsed().as_secs_f64());
    Ok(folder)
}
