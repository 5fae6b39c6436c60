//! What is not well at this node, one line for each source: shown by `status` and `/health`, and logged when it
//! changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The current problems. A source has one line at most; a new line replaces the old one.
#[derive(Default)]
pub(crate) struct Problems(Mutex<BTreeMap<String, String>>);

impl Problems {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a problem of that source. Logged only if it is news.
    pub(crate) fn set(&self, source: &str, problem: impl Into<String>) {
        let problem = problem.into();
        if self.lines().insert(source.to_owned(), problem.clone()).as_ref() != Some(&problem) {
            tracing::error!(source, "{problem}");
        }
    }

    /// The source is well again.
    pub(crate) fn clear(&self, source: &str) {
        if self.lines().remove(source).is_some() {
            tracing::info!(source, "well again");
        }
    }

    /// All problems, ordered by their sources.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lines().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_one_line_until_it_is_well_again() {
        let problems = Problems::default();
        problems.set("disk", "90 % full");
        problems.set("clock", "off by 3 s");
        problems.set("disk", "full");
        assert_eq!(problems.all(), ["off by 3 s", "full"]);
        problems.clear("disk");
        problems.clear("disk");
        assert_eq!(problems.all(), ["off by 3 s"]);
    }
}
