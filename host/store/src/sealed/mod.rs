//! Encryption of object rows at rest.
//!
//! A row is sealed before it is written to the journal and the tree, and opened after it was read, both in `ShardStore`
//! and `Snapshot` and nowhere else. Behind them everything handles sealed rows as it handles others: buffers, replay,
//! flushes, repairs. Keys of rows stay in the clear, and so does everything that is not an object: pinned rows and hash
//! trees hold no values.
//!
//! Reading order: `keys` (keys and their ids), `row` (a sealed row), `list` (which keys a shard needs), and
//! `shard/reseal.rs` (rows under older keys are sealed anew).

mod keys;
mod list;
mod row;

pub use keys::{Key, KeyId, Keys};
pub(crate) use list::{KeyList, list_file};
pub(crate) use row::{Sealer, Unopened, is_sealed};
