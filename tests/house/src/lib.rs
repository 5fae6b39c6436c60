//! The directions between the crates, and the style of the house.
//!
//! Every rule is a function from what was read (the workspace as `cargo metadata` describes it, the files of the tree)
//! to a list of problems, so that each can be shown a bad example. `tests/the_house.rs` runs them all over the real
//! tree.
//!
//! Reading order: [`workspace`] (crates and edges), [`directions`] (which edges are allowed), [`files`] (the tree),
//! [`code`] (source without comments, literals and tests), [`rules`] (what a file may say), [`rooms`] (what a crate and
//! the top level must have), [`documents`] (what documents lead to), [`builds`] (what cargo would build twice),
//! [`layout`] (columns and imports).
#![forbid(unsafe_code)]

pub mod builds;
pub mod code;
pub mod directions;
pub mod documents;
pub mod files;
pub mod layout;
pub mod rooms;
pub mod rules;
pub mod workspace;
