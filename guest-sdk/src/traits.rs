//! The traits a plugin may have, one trait each. Only [`Merger`] is required.

/// One of the concurrent values of a key. All fields are the same on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// What a client wrote, or what an earlier merge returned.
    pub value: Vec<u8>,
    /// When it was written: milliseconds since the Unix epoch by the clock of the node that took the write. For a
    /// merged value, the latest.
    pub stamp_ms: u64,
    /// Which actor took the write: an id without an order in time. For a merged value, that of its largest dot, which
    /// need not be that of the input that won. So a merge must not decide by it: see the law of bracketing.
    pub writer: u64,
}

/// Why there is no answer. The host then keeps the siblings as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A value is not in this plugin's format.
    Malformed,
    /// A value is in a form that this version does not know.
    Unsupported,
    /// The result would be larger than this plugin allows.
    TooLarge,
}

/// The identity of one operation: unique, and the counters of one actor grow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Dot {
    /// Who coordinated the operation.
    pub actor: u64,
    /// Its place in that actor's own order, from 1.
    pub counter: u64,
}

/// What a plugin says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The plugin's name.
    pub name: &'static str,
    /// The plugin's version, for people; a plugin is identified by the hash of its bytes.
    pub version: &'static str,
    /// The version of the value format.
    pub schema: u32,
    /// The values carry their own causality (they are CRDT states), so that the host may store what was merged at once.
    /// Saying so of values that do not brings removed content back.
    pub self_causal: bool,
}

/// Makes one value out of several: the one required ability.
pub trait Merger {
    /// Merges two or more siblings. The answer must not depend on their order or grouping, and merging a result with
    /// one of its inputs must change nothing.
    ///
    /// # Errors
    /// A [`Fault`] if a value cannot be read or the result would be too large; the host then keeps the siblings.
    fn merge(key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault>;
}

/// Refuses values that the merge could not read. Asked before every put of a value to a bucket that merges with this
/// plugin; a refused value is not written. It should take exactly what the merge takes, and what the merge returns.
pub trait Validator {
    /// Whether the value may be stored under the key.
    ///
    /// # Errors
    /// The [`Fault`] that the writer is told.
    fn validate(key: &[u8], value: &[u8]) -> Result<(), Fault>;
}

/// A data type with operations of its own.
pub trait Operator {
    /// The state after an operation; no state is a key that holds nothing yet.
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
    /// A valid value, the same for the same arguments. `size` is a hint from 0 (the smallest value there is). Values of
    /// different seeds should collide (the same ids, counters and stamps): faults hide where two values touch.
    fn sample(seed: u64, size: u32) -> Vec<u8>;
}

/// Shows a value to people.
pub trait Presenter {
    /// The value as UTF-8 JSON. What cannot be read is shown as such; there is no error.
    fn show(value: &[u8]) -> Vec<u8>;
}

/// Says what the plugin is.
pub trait Describer {
    /// The plugin's card. A constant.
    fn describe() -> Metadata;
}
