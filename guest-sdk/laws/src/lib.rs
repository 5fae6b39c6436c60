//! The laws that a merge must obey, generators for test cases, and a shrinker.
//!
//! Owns the definition of the laws. It contains no WebAssembly: a [`Merge`] is anything that makes one value of
//! several, so a plugin's author checks the plain function in an ordinary test, and the host checks the component with
//! the same code.
//!
//! ```
//! use rejoin_laws::{CheckConfig, Merge, MergeResult, Sampler, Sibling, check};
//!
//! struct Highest;
//! impl Merge for Highest {
//!     fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
//!         siblings.iter().map(|sibling| sibling.value.clone()).max().ok_or_else(|| "nothing to merge".into())
//!     }
//! }
//! struct Numbers;
//! impl Sampler for Numbers {
//!     fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
//!         Ok(vec![(seed % (u64::from(size) + 1)) as u8])
//!     }
//! }
//! check(&Highest, &Numbers, CheckConfig::default()).expect("the highest number obeys every law");
//! ```
//!
//! [`check()`] returns a [`Counterexample`] for the first law that is broken. It has been shrunk, it can be printed,
//! and it can be run again.
//!
//! The laws are necessary and not sufficient: a plain union of shopping carts obeys all of them and still brings
//! removed items back. A [`Scenario`] says what must come out: it runs reads and writes with contexts on a
//! [`ModelCluster`]. An [`Intent`] says what operations mean, and [`check_histories`] tries every history of a few of
//! them.
//!
//! # Reading order
//! `merge` has the traits and `laws` the laws. `judge` and `totality` check a law on given siblings. `cases` draws
//! siblings at random, `damage` damages values (`cbor` those in CBOR), `fixed` has the cases that random ones rarely
//! hit, `largest` fills a bucket, `samples` counts what a sampler draws and `fixtures` adds a team's own values.
//! `check` runs a law on many cases, `corpus` keeps those that have run new code, `small_scope` checks all triples of
//! the smallest values, `memoised` remembers merges, `recorded` checks a law on siblings of a cluster. `progress`
//! reports on a check, `shrink` makes a counterexample smaller (by `elements` of JSON, too) and `counterexample` prints
//! it. `scenario` is the model cluster, `history` has intents and all histories, `rng` is the only source of
//! randomness. [`panic_record`] has the bytes in which a guest leaves the message of a panic for the host.

#![forbid(unsafe_code)]

mod cases;
mod cbor;
mod check;
mod corpus;
mod counterexample;
mod damage;
mod elements;
mod fixed;
mod fixtures;
mod history;
mod judge;
mod largest;
mod laws;
mod memoised;
mod merge;
pub mod panic_record;
mod progress;
mod recorded;
mod rng;
mod samples;
mod scenario;
mod shrink;
mod small_scope;
mod totality;

pub use cases::{Case, CaseError, Input};
pub use check::{CheckConfig, LawStats, check, check_law, check_law_with_progress};
pub use counterexample::Counterexample;
pub use damage::RawBytes;
pub use fixtures::WithFixtures;
pub use history::{
    CLASSICS, Classic, ConvergenceConfig, ConvergenceStats, DeclaredIntent, Edit, Facts, HistoryConfig, HistoryStats,
    Intent, OperationDot, Roles, Specification, check_classics, check_convergence, check_histories,
};
pub use judge::{GROWTH_SLACK, Trial, Verdict, Violation};
pub use largest::BucketLimits;
pub use laws::Law;
pub use memoised::Memoised;
pub use merge::{Merge, MergeError, MergeResult, Sampler, Sibling};
pub use progress::Progress;
pub use recorded::{RecordedCount, check_recorded};
pub use rng::Rng;
pub use samples::{RememberedSamples, SampleStats, sample_stats};
pub use scenario::{DiskImage, ModelCluster, ReadResult, Scenario, ScenarioError};
pub use small_scope::{SmallScope, check_small_scope};
