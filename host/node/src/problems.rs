//! The node's present problems, one line for each source. `status` and `/health` show them; changes are logged.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use crate::lock::lock;

/// The present problems. A source has at most one; a new one replaces it.
#[derive(Default)]
pub(crate) struct Problems(Mutex<BTreeMap<String, String>>);

impl Problems {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        lock(&self.0)
    }

    /// Reports a problem. It is logged only if it differs from the source's last one.
    pub(crate) fn set(&self, source: &str, problem: impl Into<String>) {
        let problem = problem.into();
        if self.lines().insert(source.to_owned(), problem.clone()).as_ref() != Some(&problem) {
            tracing::error!(source, "{problem}");
        }
    }

    /// Clears the problem of a source.
    pub(crate) fn clear(&self, source: &str) {
        if self.lines().remove(source).is_some() {
            tracing::info!(source, "the problem is solved");
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
