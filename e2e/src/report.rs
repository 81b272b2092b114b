//! What benchmarks print: rows of results, as a table for people and as JSON for machines.

use anyhow::Result;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [Row],
}

impl Row {
    /// A value that no goal is about.
    #[must_use]
    pub fn plain(name: String, value: f64, unit: &'static str) -> Self {
        Self { name, value: round(value, 10.0), unit, ratio: None, against: None, goal: None, met: None }
    }

    /// Nanoseconds of a primitive, which no goal is about.
    #[must_use]
    pub fn bare(name: String, value: f64) -> Self {
        Self::plain(name, value, "ns")
    }

    /// A value that is to be less than `limit`.
    #[must_use]
    pub fn below(name: String, value: f64, unit: &'static str, limit: f64) -> Self {
        let (goal, met) = (Some(format!("< {limit}")), Some(value < limit));
        Self { goal, met, ..Self::plain(name, value, unit) }
    }

    /// A value that is to be at most `limit`.
    #[must_use]
    pub fn at_most(name: String, value: f64, unit: &'static str, limit: f64) -> Self {
        let (goal, met) = (Some(format!("<= {limit}")), Some(value <= limit));
        Self { goal, met, ..Self::plain(name, value, unit) }
    }

    /// Nanoseconds that are to be at most `limit` times those of something else.
    #[must_use]
    pub fn goal(name: String, value: f64, of: f64, against: &str, limit: f64) -> Self {
        let ratio = value / of;
        Self {
            ratio: Some(round(ratio, 100.0)),
            against: Some(against.to_string()),
            goal: Some(format!("<= {limit}")),
            met: Some(ratio <= limit),
            ..Self::bare(name, value)
        }
    }

    /// How often something is done or happens, and how often it may.
    ///
    /// # Errors
    /// If it is 2^32 or more.
    pub fn count(name: String, value: u64, unit: &'static str, limit: u64) -> Result<Self> {
        let shown = f64::from(u32::try_from(value)?);
        let (goal, met) = (Some(format!("<= {limit}")), Some(value <= limit));
        Ok(Self { goal, met, ..Self::plain(name, shown, unit) })
    }
}

/// To tenths, hundredths and so on.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// One JSON document: `{"rows": [...]}`. A value that is not finite is null in it.
///
/// # Errors
/// If it can't be written.
pub fn json(rows: &[Row]) -> Result<String> {
    Ok(serde_json::to_string(&Document { rows })?)
}

/// One table.
#[must_use]
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["what", "value", "unit", "ratio", "against", "goal", "met"]);
    for row in rows {
        let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
        table.add_row([
            row.name.clone(),
            format!("{:.1}", row.value),
            row.unit.to_string(),
            row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            row.against.clone().unwrap_or_default(),
            row.goal.clone().unwrap_or_default(),
            met.to_string(),
        ]);
    }
    table
}
