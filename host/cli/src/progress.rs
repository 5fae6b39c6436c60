//! Progress bars on stderr, for a person who waits at a terminal. Elsewhere the callers print lines.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar is drawn while nothing changes, so that its clock advances.
const TICK: Duration = Duration::from_millis(200);

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
