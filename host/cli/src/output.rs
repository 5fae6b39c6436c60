//! Output: data on stdout, messages on stderr.

use std::io::{ErrorKind, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// The form of a command's output on stdout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON for programs, text for people.
    pub(crate) json: bool,
    /// Whether stdout takes colours.
    pub(crate) color: bool,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to colour, on a stream that is a terminal or not.
    pub(crate) fn on(self, terminal: bool, no_color: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !no_color,
        }
    }
}

/// Whether `NO_COLOR` is set (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

impl Output {
    /// One line of data.
    pub(crate) fn line(self, text: impl std::fmt::Display) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Bytes without a change.
    #[expect(clippy::unused_self, reason = "only a command that has the output may write data")]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // The reader has closed the pipe: it needs no more.
            Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(why) => Err(Failure::new(Exit::Negative, format!("stdout cannot be written: {why}"))),
            Ok(()) => Ok(()),
        }
    }

    /// A value: exactly its bytes, and a line break after it on a terminal.
    pub(crate) fn value(self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes(bytes)?;
        if std::io::stdout().is_terminal() && !bytes.ends_with(b"\n") { self.bytes(b"\n") } else { Ok(()) }
    }

    /// One JSON document on one line.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|why| Failure::usage(format!("the result cannot be printed as JSON: {why}")))?;
        self.line(text)
    }

    /// A table for people.
    pub(crate) fn table(self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        self.line(table(header, rows))
    }

    /// A text in bold, where colours are on.
    pub(crate) fn bold(self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A text in red, where colours are on.
    pub(crate) fn red(self, text: &str) -> String {
        if self.color { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints a message for people.
pub(crate) fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_unless_told_otherwise() {
        assert!(Color::Auto.on(true, false) && !Color::Auto.on(true, true) && !Color::Auto.on(false, false));
        assert!(Color::Always.on(false, true) && !Color::Never.on(true, false));
    }

    #[test]
    fn a_table_has_a_row_per_line_and_no_frame() {
        let text = table(&["name", "up"], vec![vec!["n1".into(), "yes".into()], vec!["n2".into(), "no".into()]]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["NAME", "UP"], ["n1", "yes"], ["n2", "no"]]);
    }
}
