//! What the demo prints with: headings, plain lines, verdicts. Colour is for terminals, and never the only sign.

use std::io::{self, IsTerminal as _, Write as _};

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    colour: bool,
    terminal: bool,
}

/// How a piece of text stands out, where colours are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Heading,
    Faint,
    Good,
    Bad,
    Changed,
}

impl Screen {
    /// Colours only on a terminal, and not where the user wants none (<https://no-color.org>).
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()), terminal }
    }

    /// `text` in `style`.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Heading => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Bad => "31",
            Style::Changed => "1;33",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The head of a step.
    pub(crate) fn heading(self, number: usize, text: &str) {
        println!("\n{}", self.paint(Style::Heading, &format!("{number}  {text}")));
    }

    /// A line of a step.
    pub(crate) fn line(self, text: &str) {
        println!("   {text}");
    }

    /// A line that says that something is as it should be.
    pub(crate) fn good(self, text: &str) {
        self.line(&format!("{}  {text}", self.paint(Style::Good, "ok")));
    }

    /// A line that says that something is not.
    pub(crate) fn bad(self, text: &str) {
        self.line(&format!("{}  {text}", self.paint(Style::Bad, "WRONG")));
    }

    /// Lines of a file.
    pub(crate) fn quote(self, text: &str) {
        for line in text.lines() {
            let style = match line.as_bytes().first() {
                Some(b'#') => Style::Faint,
                Some(b'+') => Style::Good,
                Some(b'-') if !line.starts_with("---") => Style::Bad,
                _ => Style::Plain,
            };
            self.line(&format!("{} {}", self.paint(Style::Faint, "|"), self.paint(style, line)));
        }
    }

    /// What is under way; on a terminal the next line takes its place.
    pub(crate) fn progress(self, text: &str) {
        if self.terminal {
            print!("   {}\r", self.paint(Style::Faint, text));
            // A progress line that isn't seen is no failure.
            let _ = io::stdout().flush();
        }
    }

    /// Removes what [`Self::progress`] shows.
    pub(crate) fn done(self) {
        if self.terminal {
            print!("\x1b[2K\r");
        }
    }
}
