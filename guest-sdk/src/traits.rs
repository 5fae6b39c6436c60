//! The traits a plugin implements, and the types they use. Only [`Merger`] is required.
//!
//! Each trait is one interface of `wit/rejoin.wit`.

/// One of the concurrent values of a key. All fields are equal on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The bytes that a client wrote or an earlier merge returned; at most the bucket's `value_bytes`, 1 MiB by
    /// default.
    pub value: Vec<u8>,
    /// When it was written: milliseconds since the Unix epoch, by the clock of the node that took the write. A merged
    /// value has the latest stamp of its inputs.
    pub stamp_ms: u64,
    /// The actor that took the write. Actor ids have no order in time. A merged value has the actor of its largest dot,
    /// which need not be the actor of the input that won, so a merge that decides by the writer breaks the law of
    /// bracketing.
    pub writer: u64,
}

/// Why there is no result. The host then keeps the siblings as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A value is not in this plugin's format.
    Malformed,
    /// A value is in a version of the format that this plugin does not support.
    Unsupported,
    /// The result would be larger than this plugin allows.
    TooLarge,
}

/// The unique id of one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dot {
    /// The actor that coordinated the operation.
    pub actor: u64,
    /// The number of the operation among those of the actor, from 1, growing.
    pub counter: u64,
}

impl Dot {
    /// The actor as a writer's name in a value: 16 hexadecimal digits.
    #[must_use]
    pub fn writer(&self) -> String {
        format!("{:016x}", self.actor)
    }
}

/// The WIT record `card`: a plugin's name, version and format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// 1 to 64 bytes of UTF-8 without control characters or invisible characters.
    pub name: &'static str,
    /// As `name`. For people only: a plugin is identified by the SHA-256 of its component.
    pub version: &'static str,
    /// The version of the value format.
    pub schema: u32,
    /// Whether values carry their own causality, as CRDT states do. The host then stores merged values at once. If it
    /// is set for values that do not, removed content comes back.
    pub self_causal: bool,
}

/// Merges siblings. The one required trait.
pub trait Merger {
    /// Merges two or more siblings. The result must not depend on their order or grouping, and merging a result with
    /// one of its inputs must give the result again.
    ///
    /// # Errors
    /// A [`Fault`] if a value cannot be read or the result would be too large. The host then keeps the siblings.
    fn merge(key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault>;
}

/// Refuses values that the merge could not read. The host calls it before every put to a bucket that merges with this
/// plugin, and does not write a value that is refused. It must accept exactly what the merge accepts and returns.
pub trait Validator {
    /// Whether the value may be stored under the key.
    ///
    /// # Errors
    /// The [`Fault`] that the client is told.
    fn validate(key: &[u8], value: &[u8]) -> Result<(), Fault>;
}

/// A data type with operations of its own.
pub trait Operator {
    /// The state after an operation. `None` is the state of a key without a value.
    ///
    /// # Errors
    /// A [`Fault`] if the state or the operation cannot be read, or the result would be too large.
    fn apply(key: &[u8], state: Option<&[u8]>, operation: &[u8], dot: Dot) -> Result<Vec<u8>, Fault>;

    /// The answer to a question about a state.
    ///
    /// # Errors
    /// A [`Fault`] if the state or the question cannot be read.
    fn query(state: &[u8], question: &[u8]) -> Result<Vec<u8>, Fault>;
}

/// Draws valid values for the law checker.
pub trait Sampler {
    /// A valid value, always the same for the same arguments. `size` is a hint: 0 asks for the smallest value, and the
    /// law of limits asks for large ones. Values of different seeds should share ids, counters and stamps, because most
    /// faults show only where two values collide.
    fn sample(seed: u64, size: u32) -> Vec<u8>;
}

/// Shows a value to people.
pub trait Presenter {
    /// The value as UTF-8 JSON. A value that cannot be read is shown as such; there is no error.
    fn show(value: &[u8]) -> Vec<u8>;
}

/// Describes the plugin: the WIT interface `about`.
pub trait Describer {
    /// A constant.
    fn describe() -> Metadata;
}
