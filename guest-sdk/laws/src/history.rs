//! Histories: operations on replicas, and what readers must see after them.
//!
//! The laws compare results of a merge with one another. They cannot tell a union that brings removed items back from
//! one that does not: both obey every law. An [`Intent`] says what the operations of a data type mean, one after the
//! other, and [`check_histories`] tries *every* history of a few operations on a few replicas that exchange what they
//! have at any time between. [`check_classics`] plays the histories in which sets and maps of other systems went wrong,
//! and [`check_convergence`] plays random histories of a sampler's values without any intent.
//!
//! ```
//! use std::collections::BTreeSet;
//! use rejoin_laws::{Facts, HistoryConfig, Intent, Merge, MergeResult, OperationDot, Sibling, check_histories};
//!
//! /// A union of letters: it obeys every law.
//! struct Union;
//! impl Merge for Union {
//!     fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
//!         Ok(siblings.iter().flat_map(|one| one.value.clone()).collect::<BTreeSet<u8>>().into_iter().collect())
//!     }
//! }
//!
//! /// `+a` adds a letter, `-a` removes it.
//! struct Letters;
//! impl Intent for Letters {
//!     fn operations(&self) -> Vec<String> {
//!         ["+a", "-a", "+b"].map(String::from).to_vec()
//!     }
//!     fn apply(&self, state: Option<&[u8]>, operation: &str, _dot: OperationDot) -> Result<Vec<u8>, String> {
//!         let (what, letter) = (operation.as_bytes()[0], operation.as_bytes()[1]);
//!         let mut letters: BTreeSet<u8> = state.unwrap_or_default().iter().copied().collect();
//!         if what == b'+' { letters.insert(letter) } else { letters.remove(&letter) };
//!         Ok(letters.into_iter().collect())
//!     }
//!     fn facts(&self, value: &[u8]) -> Result<Facts, String> {
//!         Ok(value.iter().map(|letter| (char::from(*letter).to_string(), "there".into())).collect())
//!     }
//!     fn specification(&self, operations: &[&str]) -> Facts {
//!         let mut letters = Facts::new();
//!         for operation in operations {
//!             let letter = operation[1..].to_owned();
//!             match operation.starts_with('+') {
//!                 true => letters.insert(letter, "there".into()),
//!                 false => letters.remove(&letter),
//!             };
//!         }
//!         letters
//!     }
//! }
//!
//! let wrong = check_histories(&Union, &Letters, HistoryConfig::default(), &mut |_| {}).expect_err("a comes back");
//! assert!(wrong.to_string().contains("a is \"there\", and should be absent"), "{wrong}");
//! ```
//!
//! # What is right
//! Operations that did not see each other have no order. A reader may see the outcome of any order that keeps the order
//! of those that did. This is judged for each *fact* on its own, such as whether one item is in a set, because a set
//! that lets every add win over a concurrent removal is right, and has no single order for all its items (Perrin,
//! Mostéfaoui and Jard, "Update consistency for wait-free concurrent objects", 2015).
//!
//! # Reading order
//! `intent` has the trait, `declared` intents that are data, `linear` the orders of operations, `world` a few replicas,
//! `enumerate` all histories, `classics` the named ones, `convergence` the random ones.

mod classics;
mod convergence;
mod declared;
mod enumerate;
mod intent;
mod linear;
mod world;

pub use classics::{CLASSICS, Classic, check_classics};
pub use convergence::{ConvergenceConfig, ConvergenceStats, check_convergence};
pub use declared::{DeclaredIntent, Edit, Specification};
pub use enumerate::{HistoryConfig, HistoryStats, check_histories};
pub use intent::{Facts, Intent, OperationDot, Roles};
