//! Checks of the repository itself: the directions between the crates, code style and documents.
//!
//! A rule is a function from the workspace (as `cargo metadata` describes it) or the files of the tree to a list of
//! problems. Its unit tests give it bad examples; `tests/the_house.rs` runs it over the real tree.
//!
//! Reading order: [`workspace`] (crates and edges), [`directions`] (which edges are allowed), [`files`] (the tree),
//! [`code`] (source without comments, literals and tests), [`rules`] (rules for each file), [`crates`] (rules for each
//! crate and the top level), [`documents`] (links and names in documents), [`builds`] (crates that cargo would build
//! twice), [`layout`] (columns and imports), [`sbom`] (what the binary is made of).
#![forbid(unsafe_code)]

pub mod builds;
pub mod code;
pub mod crates;
pub mod directions;
pub mod documents;
pub mod files;
pub mod layout;
pub mod rules;
pub mod sbom;
pub mod workspace;
