//! Progress on stderr: bars for a person who waits at a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar is drawn while nothing changes, so that its clock advances.
const TICK: Duration = Duration::from_millis(200);

/// The pause between two lines of a [`Progress`] where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of work that a node does, with rate and time left.
pub(crate) struct Progress {
    what: String,
    bar: Option<Bar>,
    began: Instant,
    /// What was done when it was first looked at: the rate counts from there.
    first: Option<u64>,
    line_due: Instant,
}

impl Progress {
    /// Of `what`, such as "n4 is rebuilt".
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let (what, began) = (what.into(), Instant::now());
        let bar = Bar::new(std::io::stderr().is_terminal(), "{msg} {wide_bar} {human_pos}/{human_len}");
        Self { what, bar, began, first: None, line_due: began + LINE_EVERY }
    }

    /// So much is done by now of all that there is to do, as far as is known.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        let since = done.saturating_sub(*self.first.get_or_insert(done));
        let pace = pace(since, total.saturating_sub(done), now - self.began);
        if let Some(Bar(bar)) = &self.bar {
            bar.set_message(format!("{}, {pace}", self.what));
            bar.set_length(total);
            bar.set_position(done);
        } else if now >= self.line_due {
            self.line_due = now + LINE_EVERY;
            eprintln!("{}: {done} of {total}, {pace}", self.what);
        }
    }
}

/// Rate and time left, for people.
fn pace(done: u64, left: u64, took: Duration) -> String {
    let per_second = done as f64 / took.as_secs_f64().max(1e-3);
    if left == 0 || per_second < 1e-3 {
        return format!("{per_second:.0}/s");
    }
    let seconds = left as f64 / per_second;
    let time = match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        120.0..7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3_600.0),
    };
    format!("{per_second:.0}/s, {time} left")
}

/// A bar on stderr that is removed when it is dropped.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar with a message, a position and the time that has passed; `None` if stderr is no terminal.
    pub(crate) fn on_terminal() -> Option<Self> {
        Self::new(std::io::stderr().is_terminal(), "{msg} {wide_bar} {pos}/{len}, {elapsed}")
    }

    /// A message and the time that has passed; `None` if stderr is no terminal.
    pub(crate) fn spinner(message: &str) -> Option<Self> {
        let bar = Self::new(std::io::stderr().is_terminal(), "{spinner} {msg} {elapsed}")?;
        bar.message(message);
        Some(bar)
    }

    fn new(terminal: bool, template: &str) -> Option<Self> {
        if !terminal {
            return None;
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style);
        bar.enable_steady_tick(TICK);
        Some(Self(bar))
    }

    /// Shows a message and a position.
    pub(crate) fn set(&self, message: &'static str, position: u32, length: u32) {
        self.0.set_message(message);
        self.0.set_length(u64::from(length));
        self.0.set_position(u64::from(position));
    }

    /// Shows another message.
    pub(crate) fn message(&self, message: &str) {
        self.0.set_message(message.to_owned());
    }

    /// Prints something while the bar is hidden.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_are_of_what_was_done_since_the_beginning() {
        let seconds = Duration::from_secs;
        assert_eq!(pace(500, 1_000, seconds(10)), "50/s, 20 s left");
        assert_eq!(pace(1_000, 100_000, seconds(10)), "100/s, 17 min left");
        assert_eq!(pace(10, 100_000, seconds(10)), "1/s, 28 h left");
        assert_eq!(pace(500, 0, seconds(10)), "50/s");
        assert_eq!(pace(0, 500, seconds(10)), "0/s", "no rate yet");
    }

    #[test]
    fn there_is_a_bar_on_a_terminal_only() {
        assert!(Bar::new(false, "{msg}").is_none());
        let bar = Bar::new(true, "{msg} {wide_bar} {pos}/{len}, {elapsed}").unwrap();
        bar.set("growth", 7, 300);
        assert_eq!((bar.0.position(), bar.0.length(), bar.0.message().as_str()), (7, Some(300), "growth"));
        let mut printed = false;
        bar.suspend(|| printed = true);
        assert!(printed);
    }
}
