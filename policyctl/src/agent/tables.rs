//! Compiled tables as an agent tells them: [`Tables`]; and what the ports of one mean: [`Ports`].

use std::{collections::BTreeMap, io::BufRead as _};

use anyhow::{Context as _, bail};
use enforcer_abi::{CHUNK_BITS, Op, PodEntry, PortKey, RowValue, TableId, protocol};
use policy_compiler::{Contents, PodTables};
use serde::Deserialize;

use super::{Agent, Head, Moment, end};

/// Whose tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The compiler's.
    Compiled,
    /// The kernel's.
    Loaded,
}

/// What the compiler has, or the kernel.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) head: Head,
    /// The compiler's pods; of the kernel's tables none.
    pub(crate) pods: Vec<CompiledPod>,
    /// The kernel's entries of interfaces; of the compiler's tables none.
    pub(crate) entries: BTreeMap<u32, PodEntry>,
    pub(crate) contents: Contents,
    /// The state at the end.
    pub(crate) end: Moment,
}

/// A pod of the node, as its agent has it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CompiledPod {
    #[serde(flatten)]
    pub(crate) tables: PodTables,
    pub(crate) ifindex: Option<u32>,
    /// `enforced`, `held`, `unenforceable` or `closed`
    pub(crate) state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Pod(Box<CompiledPod>),
    Entry(PodEntry),
    Put(Op),
}

impl Agent {
    /// `/v1/tables`
    pub(crate) fn tables(&self, of: Of) -> anyhow::Result<Tables> {
        let which = match of {
            Of::Compiled => "compiled",
            Of::Loaded => "loaded",
        };
        let mut answer = self.ask(&format!("/v1/tables?of={which}"), false)?;
        let head = self.first(&mut answer)?;
        let (mut pods, mut entries, mut contents) = (Vec::new(), BTreeMap::new(), Contents::default());
        let mut line = Vec::new();
        loop {
            line.clear();
            if answer.read_until(b'\n', &mut line)? == 0 {
                bail!("{}", self.broken_off());
            }
            if line.starts_with(b"{\"end\"") {
                let end = end(&line).with_context(|| self.broken_off())?;
                return Ok(Tables { head, pods, entries, contents, end });
            }
            match serde_json::from_slice(&line).with_context(|| self.broken_off())? {
                Line::Pod(pod) => pods.push(*pod),
                Line::Entry(entry) => drop(entries.insert(entry.ifindex, entry)),
                Line::Put(op) => contents.apply(&op),
            }
        }
    }
}

/// The protocols that have ports.
pub(crate) const PROTOCOLS: [(u8, &str); 3] =
    [(protocol::TCP, "TCP"), (protocol::UDP, "UDP"), (protocol::SCTP, "SCTP")];

/// The class of every port in a table, as runs of equal ones.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// Protocol, first and last port, class.
    runs: Vec<(&'static str, u16, u16, u32)>,
}

impl Ports {
    /// Of one table.
    pub(crate) fn of(contents: &Contents, table: TableId) -> Self {
        let mut runs = Vec::new();
        for (number, name) in PROTOCOLS {
            let mut classes = vec![0_u32; 1 << 16];
            // shorter prefixes come first, and longer ones overrule them
            for (key, value) in &contents.port_ranges {
                if value.key.table == table && key.protocol == number {
                    let bits = key.prefix_len.saturating_sub(enforcer_abi::PortRangeKey::FIXED_BITS).min(16);
                    let first = usize::from(u16::from_be_bytes(key.port));
                    let last = (first + (1 << (16 - bits))).min(classes.len());
                    classes[first..last].fill(value.class);
                }
            }
            for value in contents.ports.range(of_table(table)).map(|(_, value)| value) {
                if value.key.protocol == number {
                    classes[usize::from(value.key.port)] = value.class;
                }
            }
            for (port, class) in (0..=u16::MAX).zip(classes).skip(1) {
                match runs.last_mut() {
                    Some((of, _, last, before)) if *of == name && *before == class => *last = port,
                    _ => runs.push((name, port, port, class)),
                }
            }
        }
        Self { runs }
    }

    /// The ports for which `opens` says so of their class, written as in `TCP 80, 443`.
    pub(crate) fn written(&self, opens: impl Fn(u32) -> bool) -> String {
        let mut open: Vec<(&str, u16, u16)> = Vec::new();
        for (name, first, last, class) in &self.runs {
            if !opens(*class) {
                continue;
            }
            match open.last_mut() {
                Some((of, _, end)) if of == name && end.checked_add(1) == Some(*first) => *end = *last,
                _ => open.push((name, *first, *last)),
            }
        }
        let is_all = |name: &str| open.contains(&(name, 1, u16::MAX));
        if opens(0) && PROTOCOLS.iter().all(|(_, name)| is_all(name)) {
            return "everything".into();
        }
        let mut parts = Vec::new();
        for (_, name) in PROTOCOLS {
            let ranges: Vec<String> = open
                .iter()
                .filter(|(of, ..)| *of == name)
                .map(|(_, first, last)| match (first, last) {
                    (1, &u16::MAX) => "all".into(),
                    (first, last) if first == last => first.to_string(),
                    (first, last) => format!("{first}-{last}"),
                })
                .collect();
            if !ranges.is_empty() {
                parts.push(format!("{name} {}", ranges.join(",")));
            }
        }
        if opens(0) {
            parts.push("protocols without ports".into());
        }
        if parts.is_empty() { "nothing".into() } else { parts.join("; ") }
    }

    /// The first port of a class.
    pub(crate) fn first(&self, class: u32) -> String {
        if class == 0 {
            return "ports that no rule names".into();
        }
        let found = self.runs.iter().find(|(.., of)| *of == class);
        found.map_or_else(|| format!("port class {class}"), |(name, first, ..)| format!("{name}/{first}"))
    }
}

/// The keys of a table in `PORTS`.
pub(crate) const fn of_table(table: TableId) -> std::ops::RangeInclusive<PortKey> {
    let first = PortKey { table, port: 0, protocol: 0, reserved: [0; 5] };
    let last = PortKey { table, port: u16::MAX, protocol: u8::MAX, reserved: [0xff; 5] };
    first..=last
}

/// Whether a row opens a port class; the row of another chunk says nothing of it.
pub(crate) fn opens(row: &RowValue, class: u32) -> Option<bool> {
    let (chunk, bit) = (class / CHUNK_BITS, class % CHUNK_BITS);
    (row.key.chunk == chunk).then(|| row.bits[bit as usize / 64] >> (bit % 64) & 1 == 1)
}
