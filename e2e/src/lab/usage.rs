//! What a process of a machine uses: memory, the kernel's maps that it holds, processor time.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use super::{Daemon, Machine};

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory that are its own and resident (`VmRSS`): the kernel's maps are none of them.
    pub resident: u64,
    /// Bytes of the BPF maps that it has opened, each counted once (`memlock` of proc_pid_fdinfo(5)).
    pub maps: u64,
    /// Time on a processor since it was started, its own and the kernel's for it.
    pub processor: Duration,
}

/// Of the times in `/proc/PID/stat`: the kernel shows them in hundredths of a second, whatever its own clock ticks at
/// (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// Between the files that are read.
const NEXT: &str = "--next--";

impl Machine {
    /// What a process of this machine uses now.
    ///
    /// # Errors
    /// If it has ended.
    pub fn usage(&self, daemon: &Daemon) -> Result<Usage> {
        // A descriptor may be closed before its turn.
        let script = "cd /proc/$1 && cat stat && echo $2 && cat status && echo $2 && cat fdinfo/* 2>/dev/null; true";
        let mut shell = Command::new("sh");
        let said = self.output(shell.args(["-c", script, "sh", &daemon.pid().to_string(), NEXT]))?;
        parse(&said).with_context(|| format!("process {} of {} tells nothing of itself", daemon.pid(), self.name()))
    }
}

fn parse(said: &str) -> Option<Usage> {
    let mut parts = said.split(NEXT);
    let (stat, status, descriptors) = (parts.next()?, parts.next()?, parts.next()?);
    // The second field is the program's name in parentheses, which may hold anything.
    let mut times = stat.rsplit_once(") ")?.1.split(' ').skip(11).map(str::parse::<u32>);
    let ticks = times.next()?.ok()?.checked_add(times.next()?.ok()?)?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Usage { resident: kibibytes * 1024, maps: maps(descriptors), processor: TICK * ticks })
}

/// Bytes of the maps that descriptors lead to. Programs, which have a `memlock` as well, have no `map_id`.
fn maps(descriptors: &str) -> u64 {
    let mut maps = BTreeMap::new();
    let mut bytes = 0;
    for line in descriptors.lines() {
        match line.split_once(":\t") {
            Some(("memlock", number)) => bytes = number.parse().unwrap_or(0),
            Some(("map_id", id)) => drop(maps.insert(id, bytes)),
            _ => {}
        }
    }
    maps.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "17 (a) b) S 1 17 17 0 -1 4194560 900 0 3 0 25 17 0 0 20 0 3 0 100 1000 500 0 0\n";
    const STATUS: &str = "Name:\tsluice-agent\nVmHWM:\t   30000 kB\nVmRSS:\t   20480 kB\nThreads:\t3\n";
    const DESCRIPTORS: &str = "pos:\t0\nflags:\t02\nmap_type:\t9\nmemlock:\t4096\nmap_id:\t7\nfrozen:\t0\n\
        pos:\t0\nprog_type:\t3\nmemlock:\t8192\nprog_id:\t12\n\
        pos:\t0\nmap_type:\t9\nmemlock:\t4096\nmap_id:\t7\nfrozen:\t0\n\
        pos:\t0\nmap_type:\t1\nmemlock:\t1000\nmap_id:\t8\nfrozen:\t0\n";

    #[test]
    fn a_process_is_read() {
        let usage = parse(&[STAT, STATUS, DESCRIPTORS].join(NEXT)).expect("it is whole");
        let expected = Usage { resident: 20 << 20, maps: 5096, processor: Duration::from_millis(420) };
        assert_eq!(usage, expected);
    }

    #[test]
    fn one_that_has_ended_has_no_usage() {
        assert_eq!(parse(""), None);
        assert_eq!(parse(&[STAT, "Name:\tsluice-agent\nState:\tZ (zombie)\n", ""].join(NEXT)), None);
    }
}
