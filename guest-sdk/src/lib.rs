//! What the author of a merge plugin writes against.
//!
//! A plugin turns concurrent versions of one value into one. It is a WebAssembly component with no imports, and in Rust
//! it is a type that implements [`Merger`], and whichever other traits it has, and says so in [`export!`]:
//!
//! ```
//! use rejoin_guest::{Describer, Metadata, Fault, Merger, Sibling};
//!
//! /// Keeps the largest number.
//! struct Highest;
//!
//! impl Merger for Highest {
//!     fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
//!         let read = |sibling: &Sibling| std::str::from_utf8(&sibling.value).ok()?.parse::<u64>().ok();
//!         let numbers: Option<Vec<u64>> = siblings.iter().map(read).collect();
//!         let highest = numbers.ok_or(Fault::Malformed)?.into_iter().max();
//!         highest.map(|number| number.to_string().into_bytes()).ok_or(Fault::Malformed)
//!     }
//! }
//!
//! impl Describer for Highest {
//!     fn describe() -> Metadata {
//!         Metadata { name: "highest", version: "1.0.0", schema: 1, self_causal: true }
//!     }
//! }
//!
//! rejoin_guest::export!(Highest: Merger, Describer);
//! ```
//!
//! The crate is a `cdylib`, and `rejoin plugin build` makes the component of it. Without WebAssembly `export!` exports
//! nothing, so the same crate also builds natively (with crate type `rlib` as well), and its tests run as any others.
//!
//! What a merge owes its host: the same bytes for the same inputs in any order and grouping, and a [`Fault`] instead of
//! a panic for what it cannot read. `rejoin plugin test` checks that on the component, and [`laws`] in an ordinary
//! test, on [`Native`]. A plugin cannot see a clock, a random number, a file or the network.
//!
//! In reading order: [`traits`] has the traits, `adapter` lends them to the bindings, `bindings` are generated from
//! `wit/rejoin.wit`, `native` lends them to the laws.

mod adapter;
mod bindings;
mod export;
#[cfg(feature = "json")]
pub mod json;
mod native;
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))] // Native tests have the panics of their own process.
mod panic;
mod traits;

pub use native::Native;
pub use rejoin_laws as laws;
pub use traits::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator};

/// What the expansion of [`export!`] refers to. Not for people.
#[doc(hidden)]
pub mod macro_support {
    pub use crate::adapter::Adapter;
    pub use crate::bindings::{describe, merge, operate, present, sample, validate};
}
