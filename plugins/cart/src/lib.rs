//! A shopping cart that never brings a removed item back.
//!
//! # Format
//! The value is JSON that a person can read:
//! ```json
//! {"clock":{"ann-7f3a":2,"bob-01c9":1},"items":{"apples":{"ann-7f3a:2":3},"pears":{"bob-01c9:1":1}}}
//! ```
//! - Every *add* has a tag, `writer:counter`, and a quantity from 1. A writer's counters are 1, 2, 3, ... without a
//!   gap. An item's quantity is the sum of its tags.
//! - `clock` says, for each writer, up to which counter this cart has seen its adds. Removing an item removes its tags
//!   and leaves the clock.
//! - So a tag that the clock covers and the items lack *was removed*, for ever: no list of removed tags has to be kept,
//!   and however old the cart is that comes back with the tag, it stays removed.
//!
//! # Merging
//! A tag survives if every cart whose clock covers it still has it. An add and a remove of one item at the same time:
//! the add wins, because the remover has not seen its tag. The values carry all of this themselves (`self-causal`);
//! stamps and writers of siblings are not looked at.
//!
//! Deleting the key deletes the clock with it: a cart written at the same time by somebody who had not seen the delete
//! stays as it was written. To empty a cart, remove its items.
//!
//! # Writers
//! A writer's name stands for *one session*: its next counter comes from the clock of the cart it has read, so two
//! sessions under one name would use a tag twice, and so would one session that reads a replica which has not got its
//! last write yet. [`Session`] prevents the second, and a name with something random in it the first. Should a tag be
//! used twice all the same, both adds are kept while nobody removes either.
//!
//! # Limits
//! Quantities are 32-bit, counters at most 2^53 (exact in every JSON reader). What readers of JSON could take for
//! different carts, such as a name that comes twice, is no cart: it is refused when it is written. A writer costs its
//! name and a counter for as long as the cart lives.
//!
//! [`cart`] is the data type and needs no plugin; [`session`] writes one; `plugin` lends it to the host.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

pub mod cart;
mod plugin;
pub mod session;

pub use cart::{BadCart, Cart};
pub use plugin::Plugin;
pub use session::Session;
