//! The checkers: each in a file of its own, with one promise that must hold in every run. They read the record only.
//!
//! | checker | promise |
//! |---|---|
//! | [`survival`] | 1: no acknowledged write is lost unless a reader overwrote it; no value appears from nowhere |
//! | [`convergence`] | 2: all owners have the same bytes, those that a model computes from the writes |
//! | [`deletions`] | 3: nothing deleted comes back |
//! | [`dots`] | 4: one dot, one value; one write, one dot; contexts never go back |
//! | [`reads`] | 5: with quorums that meet, of owners where fallbacks count, a read shows what was acknowledged |
//! | [`merges`] | 6: merges give the same bytes in every order, grouping and place |
//! | [`handoff`] | 7: what a fallback drops is on the disks of all owners |
//! | [`steps`] | 8: at each step of a change of layout, owners old and new hold every acknowledged write |
//! | [`tenants`] | 9: a tenant never sees a byte of another, and no context of it opens anything |
//! | [`bounds`] | 10: every bounded value stays within its limit |
//! | [`carts`] | 11: an acknowledged add that no observing remove covered is in the cart |
//! | [`undos`] | what a bad version of a plugin has folded is undone, and nothing that was written over it |
//! | [`versions`] | canaries have their share of the keys, the same at all nodes, and shadows are never seen |
//! | [`values`] | a value that its bucket's plugin must refuse is never written |
//!
//! The numbers name the promises in failures. Each checker takes time nearly linear in the record, and is tested with
//! histories in which it must find a fault. None calls the code that it checks: what a write replaces is read from the
//! record, and [`convergence`] has a model of the algebra of its own. The other half of promise 9, that a tenant's
//! answers are the same with the neighbour on or off, compares two runs: `tests/sim/tests/sim/tenants.rs`.

pub mod bounds;
pub mod carts;
pub mod convergence;
pub mod deletions;
pub mod dots;
pub mod handoff;
mod index;
pub mod merges;
pub mod reads;
pub mod steps;
#[cfg(test)]
mod story;
pub mod survival;
pub mod tenants;
pub mod undos;
pub mod values;
pub mod versions;

use index::Index;

use rejoin_laws::Merge;

use crate::history::{KeyId, Kind, Run};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The checker's name.
    pub checker: &'static str,
    /// The key, if it is about one.
    pub key: Option<KeyId>,
    /// The evidence.
    pub evidence: String,
}

/// The most findings of one checker that are reported.
const MOST: usize = 5;

/// A checker.
type Check = fn(&Index<'_>, &mut Vec<Finding>);

/// All of them, by name.
const CHECKS: [(&str, Check); 14] = [
    (survival::NAME, survival::check),
    (convergence::NAME, convergence::check),
    (deletions::NAME, deletions::check),
    (dots::NAME, dots::check),
    (reads::NAME, reads::check),
    (merges::NAME, merges::check),
    (handoff::NAME, handoff::check),
    (steps::NAME, steps::check),
    (tenants::NAME, tenants::check),
    (bounds::NAME, bounds::check),
    (carts::NAME, carts::check),
    (values::NAME, values::check),
    (undos::NAME, undos::check),
    (versions::NAME, versions::check),
];

/// The native plugin of a kind.
pub type Native = fn(Kind) -> &'static dyn Merge;

/// What a record comes to, in writes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Elements that were acknowledged, are not in some owner's final copy, and that nothing may have ended.
    pub lost: usize,
    /// Elements that were deleted, and that a later read or a final copy shows.
    pub resurrected: usize,
    /// Writes that may or may not have been done.
    pub unknown: usize,
}

impl Tally {
    /// Counts.
    #[must_use]
    pub fn of(run: &Run, native: Native) -> Self {
        let index = Index::new(run, native);
        let writes = || index.keys.iter().flat_map(|key| &key.writes);
        Self {
            acknowledged: writes().filter(|write| write.acked_us.is_some()).count(),
            lost: survival::lost(&index).len(),
            resurrected: deletions::returned(&index).len(),
            unknown: writes().filter(|write| write.attempted && write.acked_us.is_none()).count(),
        }
    }
}

/// Runs every checker. Nothing is found in a sound run.
#[must_use]
pub fn all(run: &Run, native: Native) -> Vec<Finding> {
    let index = Index::new(run, native);
    let mut findings = Vec::new();
    for (_, check) in CHECKS {
        let mut found = Vec::new();
        check(&index, &mut found);
        findings.extend(found.into_iter().take(MOST));
    }
    findings
}
