//! What is expected of a case: [`Expected`], the document of `matrix -o json` with two letters more, for verdicts of
//! engines that say less.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{bail, ensure};
use policy_compiler::{explain::Family, model::Protocol};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Verdicts that somebody has of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Expected {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) ends: Vec<ExpectedEnd>,
    /// By `IPv4` and `IPv6`.
    pub(super) families: BTreeMap<String, Vec<ExpectedGrid>>,
}

/// Somebody who takes part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedEnd {
    pub(super) id: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) ips: Vec<IpAddr>,
}

/// The verdicts at one port: a row for each client, a letter for each server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedGrid {
    #[serde(deserialize_with = "protocol")]
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) rows: Vec<String>,
}

/// What an expectation of one connection makes of what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    Same,
    /// Kubernetes leaves it open, so that both are right.
    LeftOpen,
    /// Nothing is expected, or there is no connection.
    NotAsked,
    Differs,
}

/// The letters of a matrix.
const LETTERS: &str = ".EIB=~-";

impl Agreement {
    pub(super) fn of(expected: char, found: char) -> Self {
        match (expected, found) {
            ('?', _) | ('=', '=') | ('-', '-') => Self::NotAsked,
            // nothing keeps a pod from itself
            ('X', 'E' | 'I' | 'B') | ('.', '=') => Self::Same,
            ('.' | 'E' | 'I' | 'B' | 'X', '~') => Self::LeftOpen,
            (expected, found) if expected == found => Self::Same,
            _ => Self::Differs,
        }
    }
}

/// A letter in words.
pub(super) const fn word(letter: char) -> &'static str {
    match letter {
        '.' => "allowed",
        'E' => "refused by egress",
        'I' => "refused by ingress",
        'B' => "refused by both",
        'X' => "refused",
        '~' => "left open",
        '=' => "itself",
        _ => "no connection",
    }
}

/// A letter as JSON has it.
pub(super) const fn name(letter: char) -> &'static str {
    match letter {
        '.' => "allowed",
        'E' => "egress",
        'I' => "ingress",
        'B' => "both",
        'X' => "refused",
        '~' => "undefined",
        '=' => "itself",
        _ => "none",
    }
}

fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Protocol, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == text);
    known.ok_or_else(|| D::Error::unknown_variant(&text, &["TCP", "UDP", "SCTP"]))
}

impl Expected {
    /// Reads one, in JSON or YAML.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let expected: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)?
        } else {
            serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.without_snippet()))?
        };
        expected.check()?;
        Ok(expected)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.api_version == "policyctl/v1" && self.kind == "Matrix",
            "this is no matrix; write apiVersion: policyctl/v1 and kind: Matrix"
        );
        let mut ids: Vec<_> = self.ends.iter().map(|end| &end.id).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|two| two[0] == two[1]) {
            bail!("ends: {} is there twice", twice[0]);
        }
        for end in &self.ends {
            match &*end.kind {
                "Pod" => {}
                "Node" => ensure!(end.id.starts_with("node/"), "ends: {} is a Node; write node/NAME", end.id),
                "IP" => ensure!(
                    end.id.starts_with("ip/") && end.ips.len() == 1,
                    "ends: {} is an IP; write ip/NAME, and its address in ips",
                    end.id
                ),
                kind => bail!("ends: {} has the kind {kind:?}; write Pod, Node or IP", end.id),
            }
        }
        for (name, grids) in &self.families {
            ensure!(family(name).is_some(), "families: {name:?} is none; write IPv4 or IPv6");
            for (at, grid) in grids.iter().enumerate() {
                self.check_grid(grid, &format!("families.{name}[{at}]"))?;
                let same = |other: &&ExpectedGrid| (other.protocol, other.port) == (grid.protocol, grid.port);
                let count = grids.iter().filter(same).count();
                ensure!(count == 1, "families.{name}: {}/{} is there twice", grid.protocol, grid.port);
            }
        }
        Ok(())
    }

    fn check_grid(&self, grid: &ExpectedGrid, place: &str) -> anyhow::Result<()> {
        let ends = self.ends.len();
        ensure!(grid.port > 0, "{place}.port: there is no port 0");
        ensure!(grid.rows.len() == ends, "{place}.rows: {} rows for {ends} ends", grid.rows.len());
        for (row, end) in grid.rows.iter().zip(&self.ends) {
            let letters = row.chars().count();
            ensure!(letters == ends, "{place}.rows: that of {} has {letters} letters for {ends} ends", end.id);
            if let Some(wrong) = row.chars().find(|letter| !LETTERS.contains(*letter) && !matches!(letter, 'X' | '?')) {
                bail!("{place}.rows: {wrong:?} in that of {} is no verdict; it is one of {LETTERS}X?", end.id);
            }
        }
        Ok(())
    }

    /// The outside addresses that take part.
    pub(super) fn addresses(&self) -> Vec<(String, IpAddr)> {
        let outside = self.ends.iter().filter(|end| end.kind == "IP");
        outside.map(|end| (end.id.trim_start_matches("ip/").to_owned(), end.ips[0])).collect()
    }

    /// The grids, one after the other.
    pub(super) fn grids(&mut self) -> impl Iterator<Item = (Family, &mut ExpectedGrid)> {
        self.families.iter_mut().flat_map(|(name, grids)| {
            let family = family(name);
            grids.iter_mut().filter_map(move |grid| Some((family?, grid)))
        })
    }

    /// As it is written: in YAML, else in JSON.
    pub(super) fn written(&self, as_yaml: bool) -> anyhow::Result<String> {
        Ok(if as_yaml { serde_saphyr::to_string(self)? } else { serde_json::to_string_pretty(self)? + "\n" })
    }
}

fn family(name: &str) -> Option<Family> {
    Family::ALL.into_iter().find(|family| format!("{family:?}") == name)
}
