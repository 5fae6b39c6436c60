//! The laws a merge must obey, generators that look for trouble, and a shrinker.
//!
//! No WebAssembly here: a [`Merge`] is anything that makes one value of several, so the author of a plugin checks the
//! plain function in an ordinary test, and the host checks the component with the very same code.
//!
//! ```
//! use rejoin_laws::{MergeResult, CheckConfig, Merge, Sampler, Sibling, check};
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
//! [`check()`] answers with a [`Counterexample`] that has been made as small as it could be, and prints as something
//! one can read and run again.
//!
//! Laws are necessary and not sufficient: a plain union of shopping carts obeys all of them and still brings removed
//! items back. So there are also [`scenario`](scenario::ModelCluster): replicas with contexts,
//! clients that read and write them, and
//! what must come out.
//!
//! In reading order: [`merge`] has the traits, [`laws`] what must hold, [`judge`] tries it (and `totality` the first of
//! them), [`cases`] what it is tried on ([`damage`] makes garbage, `fixed` has what chance finds too seldom,
//! [`largest`] fills a bucket), [`mod@check`] does it many times, [`progress`] says how far it has come, `shrink` makes
//! a counterexample small, [`counterexample`] prints it, [`story`] tells who wrote what; [`rng`] is the only source of
//! chance.

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
