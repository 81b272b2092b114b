//! Rows of results, as a table for people and as JSON for machines.

use anyhow::Result;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
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
    /// Nanoseconds of a primitive, which no goal is about.
    pub(crate) fn bare(name: String, value: f64) -> Self {
        Self { name, value: round(value, 10.0), unit: "ns", ratio: None, against: None, goal: None, met: None }
    }

    /// Nanoseconds that are to be at most `limit` times those of something else.
    pub(crate) fn goal(name: String, value: f64, of: f64, against: &str, limit: f64) -> Self {
        let ratio = value / of;
        Self {
            ratio: Some(round(ratio, 100.0)),
            against: Some(against.to_string()),
            goal: Some(format!("<= {limit}")),
            met: Some(ratio <= limit),
            ..Self::bare(name, value)
        }
    }

    /// How often something is done for one packet, and how often it may be.
    pub(crate) fn count(name: String, value: u64, unit: &'static str, limit: u64) -> Result<Self> {
        let shown = f64::from(u32::try_from(value)?);
        let (goal, met) = (Some(format!("<= {limit}")), Some(value <= limit));
        Ok(Self { unit, goal, met, ..Self::bare(name, shown) })
    }
}

/// To tenths, hundredths and so on.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// One JSON document: `{"rows": [...]}`.
pub(crate) fn json(rows: &[Row]) -> Result<String> {
    Ok(serde_json::to_string(&Document { rows })?)
}

/// One table.
pub(crate) fn table(rows: &[Row]) -> Table {
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
