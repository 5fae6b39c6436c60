//! stdout is data, stderr is talk.

use std::io::{ErrorKind, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// Where a verb's results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// For programs.
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

/// Whether `NO_COLOR` asks for none (<https://no-color.org>).
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

impl Output {
    /// One line of data.
    pub(crate) fn line(self, text: impl std::fmt::Display) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Bytes as they are.
    #[expect(clippy::unused_self, reason = "whoever writes data must have been given the output")]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // Whoever reads has seen enough.
            Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(why) => Err(Failure::new(Exit::Negative, format!("stdout cannot be written: {why}"))),
            Ok(()) => Ok(()),
        }
    }

    /// A value: exact bytes for a program, and a line of its own for a person.
    pub(crate) fn value(self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes(bytes)?;
        if std::io::stdout().is_terminal() && !bytes.ends_with(b"\n") { self.bytes(b"\n") } else { Ok(()) }
    }

    /// One JSON document on one line.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|why| Failure::usage(format!("the result cannot be printed as JSON: {why}")))?;
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
}

/// Talk.
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

/// Milliseconds since 1970 as a date and time in UTC.
pub(crate) fn utc(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03} UTC", rest % 1000)
}

/// The date so many days after 1970-01-01, by whole years and months: dates of interest are few years away.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years have 146 097 days whatever the first of them is.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
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
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc(951_827_696_007), "2000-02-29 12:34:56.007 UTC");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59.999 UTC");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00.000 UTC");
    }

    #[test]
    fn a_table_has_a_row_per_line_and_no_frame() {
        let text = table(&["name", "up"], vec![vec!["n1".into(), "yes".into()], vec!["n2".into(), "no".into()]]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["NAME", "UP"], ["n1", "yes"], ["n2", "no"]]);
    }
}
