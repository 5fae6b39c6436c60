//! Checks laws and scenarios on the plugins of the tree, natively and on the built components, with the same code.
//!
//! [`cart`] has the cart's scenarios, [`component`] builds components, [`strangers`] has right and wrong merges.

#![forbid(unsafe_code)]

pub mod cart;
pub mod component;
pub mod strangers;
