//! Checks laws and scenarios on the plugins of the tree, natively and on the built components, with the same code.
//!
//! [`cart`] has the cart's scenarios and [`ready`] those of the other data types, which [`stories`] tells,
//! [`component`] builds components and [`languages`] those in other languages than Rust, [`strangers`] has right and
//! wrong merges of plugin authors, [`corpus`] those that measure the checker. [`second_engine`] runs merges in wasmi.

#![forbid(unsafe_code)]

pub mod cart;
pub mod component;
pub mod corpus;
pub mod languages;
pub mod ready;
pub mod second_engine;
pub mod stories;
pub mod strangers;
