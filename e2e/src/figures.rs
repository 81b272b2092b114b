//! What many measurements come to: percentiles of times, and quantiles of the histograms of a metrics page.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// The time that this many hundredths of `times` don't exceed (nearest rank); `None` if there is none.
#[must_use]
pub fn percentile(times: &[Duration], hundredths: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A histogram of Prometheus' text format: how many values were at most as large as each bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By the bound in billionths, so that it can be a key; the last is that of all values.
    buckets: BTreeMap<u64, u64>,
}

/// The bound of the bucket that holds all values.
const UNBOUNDED: u64 = u64::MAX;

impl Histogram {
    /// The histogram of this name on a metrics page, whatever its other labels are; `None` if there is none.
    ///
    /// # Errors
    /// If a bound or a count is no number.
    pub fn parse(page: &str, name: &str) -> Result<Option<Self>> {
        let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
        let prefix = format!("{name}_bucket{{");
        for line in page.lines().filter(|line| line.starts_with(&prefix)) {
            let parse = || {
                let (labels, count) = line[prefix.len()..].rsplit_once("} ")?;
                let bound = labels.split(',').find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'))?;
                Some((billionths(bound)?, count.trim().parse::<u64>().ok()?))
            };
            let (bound, count) = parse().with_context(|| format!("no bucket of a histogram: {line}"))?;
            *buckets.entry(bound).or_default() += count;
        }
        Ok((!buckets.is_empty()).then_some(Self { buckets }))
    }

    /// With the values of another one of the same bounds.
    ///
    /// # Errors
    /// If the bounds are not the same.
    pub fn plus(&self, other: &Self) -> Result<Self> {
        self.zip(other, u64::checked_add)
    }

    /// Without the values that were there `before`.
    ///
    /// # Errors
    /// If the bounds are not the same, or there were more then.
    pub fn since(&self, before: &Self) -> Result<Self> {
        self.zip(before, u64::checked_sub)
    }

    fn zip(&self, other: &Self, count: impl Fn(u64, u64) -> Option<u64>) -> Result<Self> {
        ensure!(self.buckets.keys().eq(other.buckets.keys()), "histograms with different bounds");
        let both = self.buckets.iter().zip(other.buckets.values());
        let buckets = both.map(|((bound, one), other)| Some((*bound, count(*one, *other)?)));
        Ok(Self { buckets: buckets.collect::<Option<_>>().context("a count that has fallen")? })
    }

    /// How many values it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().next_back().copied().unwrap_or(0)
    }

    /// The bound that this many hundredths of the values don't exceed: the upper one of their bucket, so never less than
    /// what was measured. Infinite, if it is in the bucket without a bound; `None` if there is no value.
    #[must_use]
    pub fn bound(&self, hundredths: u64) -> Option<f64> {
        let rank = (self.count() * hundredths).div_ceil(100).max(1);
        let (bound, _) = self.buckets.iter().find(|(_, count)| **count >= rank)?;
        // Bounds are decimal fractions of few digits, far below 2^53 billionths.
        #[expect(clippy::cast_precision_loss, reason = "bounds have few digits")]
        Some(if *bound == UNBOUNDED { f64::INFINITY } else { *bound as f64 / 1e9 })
    }
}

/// A bound as it is written, in billionths.
fn billionths(bound: &str) -> Option<u64> {
    if bound == "+Inf" {
        return Some(UNBOUNDED);
    }
    let time = Duration::try_from_secs_f64(bound.parse().ok()?).ok()?;
    u64::try_from(time.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP held_seconds How long
# TYPE held_seconds histogram
held_seconds_bucket{by=\"api\",le=\"0.0025\"} 1
held_seconds_bucket{by=\"api\",le=\"0.05\"} 2
held_seconds_bucket{by=\"api\",le=\"+Inf\"} 2
held_seconds_bucket{by=\"cgroup\",le=\"0.0025\"} 0
held_seconds_bucket{by=\"cgroup\",le=\"0.05\"} 97
held_seconds_bucket{by=\"cgroup\",le=\"+Inf\"} 98
held_seconds_sum 1.5
held_seconds_count 100
other_bucket{le=\"1\"} 7
";

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&times, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&times, 100), Some(Duration::from_millis(200)));
        assert_eq!(percentile(&times[..1], 1), Some(Duration::from_millis(200)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn buckets_of_all_labels_are_one_histogram() {
        let held = Histogram::parse(PAGE, "held_seconds").expect("it is a page").expect("it is there");
        assert_eq!(held.count(), 100);
        assert_eq!(held.bound(1), Some(0.0025));
        assert_eq!(held.bound(50), Some(0.05));
        assert_eq!(held.bound(99), Some(0.05));
        assert_eq!(held.bound(100), Some(f64::INFINITY));
        assert_eq!(Histogram::parse(PAGE, "no_seconds").expect("it is a page"), None);
        Histogram::parse("held_seconds_bucket{le=\"x\"} 1", "held_seconds").expect_err("x is no bound");
    }

    #[test]
    fn what_was_there_before_is_taken_off() {
        let page = |low: u64, all: u64| format!("t_bucket{{le=\"1\"}} {low}\nt_bucket{{le=\"+Inf\"}} {all}\n");
        let parse = |page: &str| Histogram::parse(page, "t").expect("it is a page").expect("it is there");
        let (before, after) = (parse(&page(5, 6)), parse(&page(5, 9)));
        let since = after.since(&before).expect("it has grown");
        assert_eq!((since.count(), since.bound(50)), (3, Some(f64::INFINITY)));
        assert_eq!(since.plus(&before).expect("the bounds are the same"), after);
        before.since(&after).expect_err("it has not grown");
        assert_eq!(Histogram::default().bound(50), None);
    }
}
