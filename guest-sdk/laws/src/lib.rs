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
//! [`ModelCluster`].
//!
//! # Reading order
//! `merge` has the traits and `laws` the laws. `judge` and `totality` check a law on given siblings. `cases` draws
//! siblings at random, `damage` damages values, `fixed` has the cases that random ones rarely hit, `largest` fills a
//! bucket. `check` runs a law on many cases, `progress` reports on it, `shrink` makes a counterexample smaller and
//! `counterexample` prints it. `scenario` is the model cluster, `rng` the only source of randomness. [`panic_record`]
//! has the bytes in which a guest leaves the message of a panic for the host.

#![forbid(unsafe_code)]

mod cases;
mod check;
mod counterexample;
mod damage;
mod fixed;
mod judge;
mod largest;
mod laws;
mod merge;
pub mod panic_record;
mod progress;
mod rng;
mod scenario;
mod shrink;
mod totality;

pub use cases::{Case, CaseError, Input};
pub use check::{CheckConfig, LawStats, check, check_law, check_law_with_progress};
pub use counterexample::Counterexample;
pub use damage::RawBytes;
pub use judge::{GROWTH_SLACK, Trial, Verdict, Violation};
pub use largest::BucketLimits;
pub use laws::Law;
pub use merge::{Merge, MergeError, MergeResult, Sampler, Sibling};
pub use progress::Progress;
pub use rng::Rng;
pub use scenario::{DiskImage, ModelCluster, ReadResult, Scenario, ScenarioError};
