//! The traits of the checker: a merge, and the source of its values.

use core::fmt;

/// One of the concurrent values of a key, as a plugin gets it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sibling {
    /// The bytes that a client wrote or an earlier merge returned.
    pub value: Vec<u8>,
    /// When it was written, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// The actor that took the write.
    pub writer: u64,
}

/// Why a merge gave no result. Only a refusal can be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeError {
    /// The merge refuses a value, with its reason: the value is not in its format.
    Refused(String),
    /// The merge panicked, trapped, or returned bytes that are no result.
    Trapped(String),
    /// The merge exceeded its fuel, memory or time.
    Exceeded(String),
    /// The result would be larger than the merge or its bucket allows. Valid values may lead to this.
    TooLarge(String),
}

impl MergeError {
    /// Whether the merge refused, and neither trapped nor exceeded a limit.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge(_))
    }
}

/// The merged value, or why there is none.
pub type MergeResult = Result<Vec<u8>, MergeError>;

/// A bare text is a refusal.
impl From<&str> for MergeError {
    fn from(reason: &str) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<String> for MergeError {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) | Self::TooLarge(reason) => write!(f, "refused: {reason}"),
            Self::Trapped(reason) => write!(f, "broke: {reason}"),
            Self::Exceeded(reason) => write!(f, "over its limits: {reason}"),
        }
    }
}

/// Anything that makes one value of several: a plain function, or a component on a host.
pub trait Merge {
    /// Merges siblings.
    ///
    /// # Errors
    /// A [`MergeError`] that says why there is no result.
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult;

    /// Merges the same siblings again, in another engine if there is one.
    ///
    /// # Errors
    /// As [`Merge::merge`].
    fn merge_elsewhere(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        self.merge(key, siblings)
    }

    /// Whether the merges since the last question have run code that none has run before, as far as that is known: the
    /// checker then makes more cases like the last one.
    fn has_reached_new_code(&self) -> bool {
        false
    }

    /// What the validator says of a value; `None` without a validator.
    fn validate(&self, _key: &[u8], _value: &[u8]) -> Option<Result<(), MergeError>> {
        None
    }
}

/// The source of the values that a merge is checked on.
pub trait Sampler {
    /// A value, always the same for the same arguments. `size` is a hint from 0.
    ///
    /// # Errors
    /// Why there is none.
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String>;

    /// Whether the values are guaranteed to be valid. Then no merge of them may be refused.
    fn draws_valid_values(&self) -> bool {
        true
    }
}

impl<T: Merge + ?Sized> Merge for &T {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        (**self).merge(key, siblings)
    }

    fn merge_elsewhere(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        (**self).merge_elsewhere(key, siblings)
    }

    fn has_reached_new_code(&self) -> bool {
        (**self).has_reached_new_code()
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        (**self).validate(key, value)
    }
}

impl<T: Sampler + ?Sized> Sampler for &T {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        (**self).sample(seed, size)
    }

    fn draws_valid_values(&self) -> bool {
        (**self).draws_valid_values()
    }
}

/// A merged value as a sibling: it has the latest stamp of its inputs and the highest of their writers, as after a fold
/// in a cluster. The host does not know which input has won, so the writer may not be the winner's.
#[must_use]
pub(crate) fn folded(value: Vec<u8>, inputs: &[Sibling]) -> Sibling {
    let stamp_ms = inputs.iter().map(|sibling| sibling.stamp_ms).max().unwrap_or(0);
    let writer = inputs.iter().map(|sibling| sibling.writer).max().unwrap_or(0);
    Sibling { value, stamp_ms, writer }
}
