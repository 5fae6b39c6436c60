//! The SDK for merge plugins.
//!
//! A plugin makes one value out of the concurrent values of a key, its *siblings*. In Rust it is a type that implements
//! [`Merger`]. This is a whole plugin, which keeps the largest number:
//!
//! ```
//! use rejoin_guest::{Describer, Fault, Merger, Metadata, Sibling};
//!
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
//! # Start
//! 1. `rejoin plugin new my-plugin --sdk PATH/TO/guest-sdk` makes a crate with such a plugin and a test of its laws.
//! 2. `cargo test` in the crate checks the [`laws`] on the plain functions, through [`Native`].
//! 3. `rejoin plugin build my-plugin` makes `my-plugin.wasm`, a WebAssembly component without imports.
//! 4. `rejoin plugin test my-plugin.wasm` checks the laws on the component, `rejoin plugin push` sends it to a cluster.
//!
//! The crate needs the crate types `cdylib` (for the component) and `rlib` (for its tests). On native targets
//! [`export!`] exports nothing.
//!
//! # Rules for a merge
//! - Equal siblings give equal bytes, in any order and any grouping, on every node.
//! - Merging a result with one of its inputs gives the result.
//! - A value that cannot be read is answered with a [`Fault`]. The siblings are then kept and nothing is lost. A panic
//!   keeps the siblings as well; the host reports its message.
//! - There is no clock, random number, file or network, and nothing is kept between calls.
//!
//! # Optional traits
//! [`Validator`] refuses bad values before they are written, [`Sampler`] draws values for `rejoin plugin test`,
//! [`Presenter`] shows values as JSON, [`Operator`] is for data types with operations of their own. List each one that
//! the type implements in [`export!`]. The feature `json` adds a strict JSON reader, `rejoin_guest::json`.
//!
//! # Reading order
//! `traits` has the traits and their types, `export` the macro, `adapter` connects the traits with the `bindings` that
//! are generated from `wit/rejoin.wit`, `native` connects them with the law checker, `panic` records panic messages.

mod adapter;
mod bindings;
#[cfg(feature = "json")]
pub mod causal;
mod export;
#[cfg(feature = "json")]
pub mod json;
mod native;
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))] // Native tests use the panic hook of their process.
mod panic;
mod traits;

pub use native::Native;
pub use rejoin_laws as laws;
pub use traits::{Describer, Dot, Fault, Merger, Metadata, Operator, Presenter, Sampler, Sibling, Validator};

/// Used by the expansion of [`export!`] only.
#[doc(hidden)]
pub mod macro_support {
    pub use crate::adapter::Adapter;
    pub use crate::bindings::{describe, merge, operate, present, sample, validate};
}
