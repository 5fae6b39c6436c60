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
//! - A tag that the clock covers and the items lack *was removed*, for ever. No list of removed tags is kept, and an
//!   old cart that still has the tag cannot bring it back.
//!
//! # Merging
//! A tag survives if every cart whose clock covers it still has it. An add wins over a concurrent remove of the same
//! item, because the remover has not seen its tag. Values carry all of this themselves (`self-causal`); the merge
//! ignores the stamps and writers of siblings.
//!
//! Deleting the key deletes the clock as well: a concurrent write survives as it was written. To empty a cart, remove
//! its items.
//!
//! # Writers
//! A writer's name stands for *one session*. Its next counter comes from the clock of the cart it has read, so two
//! sessions under one name would use a tag twice, and so would a session that reads a replica without its last write.
//! [`Session`] prevents the latter, and a random suffix of the name the former. If a tag is used twice anyway, both
//! adds are kept until one of them is removed.
//!
//! # Limits
//! Quantities have 32 bits. Counters are at most 2^53, which every JSON reader represents exactly; the plugin refuses a
//! cart with a larger one, so an add beyond is never acknowledged. Ambiguous JSON, such as a duplicate name, is refused
//! when it is written. Each writer costs its name and a counter for as long as the cart lives.
//!
//! # Reading order
//! `cart` is the data type, `session` edits one, `plugin` exports the merge.

#![cfg_attr(not(target_arch = "wasm32"), forbid(unsafe_code))]

mod cart;
mod plugin;
mod session;

pub use cart::{BadCart, Cart};
pub use plugin::Plugin;
pub use session::Session;
