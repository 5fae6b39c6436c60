//! Laws and scenarios for the plugins in the tree, natively and on the built component, by the same code.
//!
//! [`cart`] has the cart's scenarios; [`component`] builds the real things.

#![forbid(unsafe_code)]

pub mod cart;
pub mod component;
pub mod strangers;
