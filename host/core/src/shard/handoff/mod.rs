//! Sloppy quorums and handoff: other nodes stand in for owners that cannot take a write, and hand what they hold over
//! to the owners when these are back.
//!
//! A *fallback* stores an object under its partition like any other. It has no log of hints that could overflow or
//! expire: what it holds is what its store has. While it holds anything of a partition, it has a row that says so, and
//! its peers know by an advertisement. A read that has found nothing asks it before it says so.
//!
//! A *former owner*, which has objects that belong to others by now, holds them in the same way.
//!
//! In reading order: `fallbacks` (who stands in, for whom), `holdings` (which nodes hold what, and how that is told),
//! `former_owners` (objects that change owners), `drain` (the walk that empties a fallback), `offer` (the owner's side
//! of it).

pub(super) mod drain;
mod fallbacks;
mod former_owners;
pub(super) mod holdings;
mod offer;

pub use holdings::Held;

/// Limits of the walk that empties a fallback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandoffLimits {
    /// The most objects that are offered at once, up to [`rejoin_proto::peer::MAX_OFFERED`].
    pub batch_objects: usize,
    /// The bytes of keys and objects at which a batch is full. At least one object is in it.
    pub batch_bytes: usize,
    /// The pause between two batches, in microseconds. The rate of a shard is at most a batch per pause.
    pub pause_us: u64,
    /// When what was not confirmed is offered again, in microseconds.
    pub retry_us: u64,
    /// How long the owners may take for a batch, in microseconds.
    pub wait_us: u64,
    /// The shortest time, in microseconds, after which a write that waits for a node asks a fallback too, and a read
    /// that was forwarded to one the next owner. A suspected node is given this time; another one's follows its recent
    /// answers.
    pub relief_min_us: u64,
    /// The longest such time, in microseconds. A node that has not answered anything yet is given this time.
    pub relief_max_us: u64,
}

impl Default for HandoffLimits {
    fn default() -> Self {
        Self {
            batch_objects: 64,
            batch_bytes: 1 << 20,
            pause_us: 5_000,
            retry_us: 1_000_000,
            wait_us: 5_000_000,
            relief_min_us: 100_000,
            relief_max_us: 1_000_000,
        }
    }
}
