//! How answers are printed: one [`Answer`] for every command, in the format that `-o` asks for.

mod flag;
mod fold;

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::bail;
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::flag::OutputParser;
pub(crate) use self::{flag::SnapshotParser, fold::width};
use crate::{Failure, Outcome, Status, jsonpath::Template, source::State};

/// A format, as `-o` names it.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For people, with more columns
    Wide,
    /// For programs
    Json,
    /// For programs
    Yaml,
    /// One JSON document a line, for each element of a list
    Jsonl,
    /// Names only
    Name,
    /// A table with commas
    Csv,
    /// A table in Markdown
    Md,
    /// Test results, for CI (test, conformance)
    Junit,
    /// Test results, for CI (test, conformance)
    Tap,
    /// Findings, for code scanning (lint)
    Sarif,
    /// A page that stands alone (matrix, graph, diff, explain)
    Html,
    /// A picture (matrix, graph, diff, explain)
    Svg,
    /// For Graphviz (graph)
    Dot,
    /// For Mermaid (graph)
    Mermaid,
    /// What a template makes of the JSON document.
    #[value(skip)]
    Jsonpath(&'static Template),
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// How to print the answer
    #[arg(short, long, value_parser = OutputParser, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// Tables without their heads
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// When to colour; what is coloured is also said in words
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
    /// The exit status alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// A table; cells that are empty are written as `-` in text.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In capitals.
    pub(crate) head: Vec<&'static str>,
    /// How many columns text has; `wide` has all.
    pub(crate) narrow: usize,
    pub(crate) rows: Vec<Vec<String>>,
}

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// `kind` in JSON.
    pub(crate) kind: &'static str,
    /// Everything but `apiVersion` and `kind`.
    pub(crate) body: Map<String, Value>,
    /// The list in `body` that `jsonl` and `name` go through.
    pub(crate) list: &'static str,
    /// What text begins with.
    pub(crate) text: String,
    /// What text, `csv` and `md` have as a table.
    pub(crate) table: Option<Table>,
    /// What `name` prints.
    pub(crate) names: Vec<String>,
    /// What text ends with.
    pub(crate) footer: String,
    /// Formats of this command alone.
    pub(crate) special: Vec<(Output, String)>,
}

impl Output {
    /// It is a picture, which is drawn only if it is asked for.
    pub(crate) const fn is_picture(self) -> bool {
        matches!(self, Self::Html | Self::Svg)
    }
}

impl Answer {
    /// Adds a field.
    pub(crate) fn set(&mut self, field: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).expect("answers have text keys only, which is all that JSON asks for");
        self.body.insert(field.to_owned(), value);
    }

    /// Adds which state it was asked of.
    pub(crate) fn state(&mut self, state: &State) {
        self.set("state", &state.summary);
        self.footer.push_str(&format!("{}\n", state.summary));
    }

    /// As one JSON document.
    pub(crate) fn json(&self) -> Value {
        let mut all =
            Map::from_iter([("apiVersion".to_owned(), json!("policyctl/v1")), ("kind".to_owned(), json!(self.kind))]);
        all.extend(self.body.clone());
        Value::Object(all)
    }

    /// Prints it.
    pub(crate) fn print(&self, args: &Args) -> Result<(), Failure> {
        if args.quiet {
            return Ok(());
        }
        let is_text = matches!(args.output, Output::Text | Output::Wide);
        let width = if is_text { width(io::stdout()) } else { None };
        let text = self.formatted(args, width).map_err(Failure::wrong_use)?;
        write(&if is_text { shown(&text, width, wants_color(args.color)) } else { text });
        Ok(())
    }

    fn formatted(&self, args: &Args, width: Option<usize>) -> anyhow::Result<String> {
        if let Some((_, text)) = self.special.iter().find(|(output, _)| *output == args.output) {
            return Ok(text.clone());
        }
        Ok(match args.output {
            Output::Junit | Output::Tap | Output::Sarif => {
                bail!("junit and tap are for test and conformance, sarif is for lint")
            }
            Output::Html | Output::Svg | Output::Dot | Output::Mermaid => {
                bail!("html and svg are for matrix, graph, diff and explain, dot and mermaid for graph")
            }
            Output::Text | Output::Wide => {
                let mut text = self.text.clone();
                if let Some(table) = self.table.as_ref().filter(|table| table.narrow > 0) {
                    text.push_str(&table.text(args.output == Output::Wide, !args.no_headers, width));
                }
                if !self.footer.is_empty() {
                    text.push_str(&format!("\n{}", self.footer));
                }
                text
            }
            Output::Json => format!("{:#}\n", self.json()),
            Output::Jsonpath(template) => {
                template.fill(&self.json()).map_err(|message| anyhow::anyhow!("-o jsonpath: {message}"))?
            }
            Output::Yaml => serde_saphyr::to_string(&self.json())?,
            Output::Jsonl => {
                let Some(Value::Array(list)) = self.body.get(self.list) else {
                    return Ok(format!("{}\n", self.json()));
                };
                list.iter().map(|element| format!("{element}\n")).collect()
            }
            Output::Name if self.names.is_empty() && self.list.is_empty() => bail!("-o name is for lists"),
            Output::Name => self.names.iter().map(|name| format!("{name}\n")).collect(),
            Output::Csv | Output::Md => {
                let Some(table) = &self.table else { bail!("there is no table to print; csv and md are for lists") };
                if args.output == Output::Csv { table.csv(!args.no_headers) } else { table.markdown() }
            }
        })
    }
}

/// Ends as a question does that only prints.
pub(crate) fn ended(state: &State, status: Status) -> Outcome {
    Ok(if state.has_errors { Status::BadInput } else { status })
}

/// Writes to stdout. A reader who has seen enough is no failure.
pub(crate) fn write(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("error: stdout can't be written: {error}");
    }
}

impl Table {
    /// Columns two spaces apart, as `kubectl` has them; cells are folded to a terminal's width.
    fn text(&self, wide: bool, with_head: bool, terminal: Option<usize>) -> String {
        let columns = if wide { self.head.len() } else { self.narrow };
        let cell = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
        let mut rows: Vec<Vec<String>> = Vec::with_capacity(self.rows.len() + 1);
        if with_head {
            rows.push(self.head[..columns].iter().map(|head| (*head).to_owned()).collect());
        }
        rows.extend(self.rows.iter().map(|row| row[..columns].iter().map(cell).collect()));
        let wanted = |column: usize| fold::Wanted::by(rows.iter().map(|row| &*row[column]));
        let wanted: Vec<_> = (0..columns).map(wanted).collect();
        let fitting = terminal.and_then(|terminal| fold::columns(&wanted, terminal));
        let widths = fitting.unwrap_or_else(|| wanted.iter().map(|wanted| wanted.width).collect());
        let mut text = String::new();
        for row in rows {
            let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| fold::cell(cell, *width)).collect();
            for number in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
                let cell = |lines: &Vec<String>| lines.get(number).cloned().unwrap_or_default();
                let cells = cells.iter().map(cell).zip(&widths);
                let line: String = cells.map(|(cell, width)| format!("{cell:<width$}  ")).collect();
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn csv(&self, with_head: bool) -> String {
        let quoted = |cell: &str| {
            let plain = !cell.contains([',', '"', '\n']);
            if plain { cell.to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
        };
        let head = with_head.then(|| self.head.join(",").to_lowercase());
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(","));
        head.into_iter().chain(rows).map(|line| line + "\n").collect()
    }

    fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.head.iter().map(|head| (*head).to_owned()).collect());
        text.push_str(&line(self.head.iter().map(|_| "---".to_owned()).collect()));
        for row in &self.rows {
            text.push_str(&line(row.iter().map(|cell| cell.replace('|', "\\|")).collect()));
        }
        text
    }
}

fn wants_color(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
    }
}

/// Writes a line to stderr, folded where that is a terminal.
pub(crate) fn tell(line: &str) {
    eprint!("{}", shown(&format!("{line}\n"), width(io::stderr()), false));
}

/// Text as a person sees it: folded to the width of a terminal, and coloured.
pub(crate) fn shown(text: &str, width: Option<usize>, is_painted: bool) -> String {
    let mut shown = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        let folded = width.map_or_else(|| vec![content.to_owned()], |width| fold::lines(content, width));
        // a word that a line goes on with tells nothing
        for (number, part) in folded.iter().enumerate() {
            let after = if number + 1 < folded.len() { "\n" } else { end };
            shown.push_str(&if is_painted && number == 0 { painted(part) } else { part.clone() });
            shown.push_str(after);
        }
    }
    shown
}

/// A line with the word that tells a state, if it begins with one.
fn painted(line: &str) -> String {
    const GREEN: &str = "\x1b[32m";
    const RED: &str = "\x1b[31m";
    const YELLOW: &str = "\x1b[33m";
    const BOLD: &str = "\x1b[1m";
    let words = [
        ("ALLOWED", GREEN),
        ("DENIED", RED),
        ("PARTLY", YELLOW),
        ("UNDEFINED", YELLOW),
        ("yes", GREEN),
        ("no", RED),
        ("closest rule", BOLD),
        ("fix", BOLD),
        ("opened", GREEN),
        ("closed", RED),
        ("ok", GREEN),
        ("FAILED", RED),
        ("error", RED),
        ("warning", YELLOW),
    ];
    let content = line.trim_start();
    let indent = &line[..line.len() - content.len()];
    let is_it =
        |word: &str| content.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':']));
    match words.iter().find(|(word, _)| is_it(word)) {
        Some((word, color)) => format!("{indent}{color}{word}\x1b[0m{}", &content[word.len()..]),
        None => line.to_owned(),
    }
}
