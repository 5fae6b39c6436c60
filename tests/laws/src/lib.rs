//! Laws and scenarios for the plugins in the tree, natively and on the built component, by the same code.
//!
//! [`cart`] has the cart's scenarios; [`native`] lends a plugin's plain functions to the checker; [`component`] builds the real thing, once a process.

#![forbid(unsafe_code)]

pub mod cart;
pub mod component;
pub mod native;
