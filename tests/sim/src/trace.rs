//! The trace of a run, in order: always as a running digest, and as readable lines if they are wanted.

use std::fmt;

use crate::history::{KeyId, NodeIndex};
use crate::rng::mix;

/// The lines that are wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only those about this key.
    pub key: Option<KeyId>,
    /// Only those of this node.
    pub node: Option<NodeIndex>,
    /// From this virtual time on, in microseconds.
    pub from_us: u64,
    /// Up to this virtual time.
    pub to_us: u64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { key: None, node: None, from_us: 0, to_us: u64::MAX }
    }
}

/// One line of a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Virtual time, in microseconds.
    pub at_us: u64,
    /// The node; `None` for the world itself.
    pub node: Option<NodeIndex>,
    /// The key, if it is about one.
    pub key: Option<KeyId>,
    /// The event.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        let node = self.node.map_or_else(|| "--".to_owned(), |node| format!("n{node}"));
        let key = self.key.map_or_else(String::new, |key| format!("k{key}"));
        write!(f, "{seconds:>4}.{micros:06} {node:<3} {key:<4} {}", self.text)
    }
}

/// The trace of a run.
#[derive(Default, Debug)]
pub(crate) struct Trace {
    digest: u64,
    events: u64,
    filter: Option<Filter>,
    lines: Vec<Line>,
}

impl Trace {
    /// A trace that keeps the lines that pass the filter; without a filter none.
    pub(crate) fn new(filter: Option<Filter>) -> Self {
        Self { digest: 0, events: 0, filter, lines: Vec::new() }
    }

    /// Adds an event to the digest. Every event is in it with its time, so runs with equal digests are the same run.
    pub(crate) fn event(&mut self, at_us: u64, node: u64, what: u64) {
        self.events += 1;
        self.digest = mix(self.digest ^ at_us.rotate_left(24) ^ node << 56 ^ what);
    }

    /// Adds a line if it is wanted. The text is made only then.
    pub(crate) fn line(
        &mut self,
        at_us: u64,
        node: Option<NodeIndex>,
        key: Option<KeyId>,
        text: impl FnOnce() -> String,
    ) {
        let Some(filter) = &self.filter else { return };
        let in_time = (filter.from_us..=filter.to_us).contains(&at_us);
        // Lines about a whole node are shown for every key.
        let about = filter.key.is_none_or(|wanted| key.is_none_or(|key| key == wanted));
        if in_time && about && (filter.node.is_none() || filter.node == node || node.is_none()) {
            self.lines.push(Line { at_us, node, key, text: text() });
        }
    }

    /// Whether lines are kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.filter.is_some()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn into_lines(self) -> Vec<Line> {
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_what_was_asked_for_and_what_concerns_everybody() {
        let mut trace = Trace::new(Some(Filter { key: Some(1), node: Some(2), from_us: 10, to_us: 20 }));
        let mut add = |at, node, key| trace.line(at, node, key, || format!("{at} {node:?} {key:?}"));
        add(9, Some(2), Some(1));
        add(10, Some(2), Some(1));
        add(11, Some(2), Some(3));
        add(12, Some(1), Some(1));
        add(13, Some(2), None);
        add(14, None, None);
        add(21, Some(2), Some(1));
        let times: Vec<u64> = trace.into_lines().iter().map(|line| line.at_us).collect();
        assert_eq!(times, [10, 13, 14]);
    }

    #[test]
    fn a_digest_depends_on_every_event_and_on_their_order() {
        let digest = |events: &[(u64, u64, u64)]| {
            let mut trace = Trace::new(None);
            events.iter().for_each(|&(at, node, what)| trace.event(at, node, what));
            trace.digest()
        };
        let base = digest(&[(1, 0, 5), (2, 1, 6)]);
        for other in [
            &[(1, 0, 5), (2, 1, 7)][..],
            &[(1, 0, 5), (3, 1, 6)],
            &[(1, 0, 5), (2, 0, 6)],
            &[(2, 1, 6), (1, 0, 5)],
            &[(1, 0, 5)],
        ] {
            assert_ne!(digest(other), base);
        }
    }
}
