//! What is checked: a merge, and where its values come from.

use core::fmt;

/// One of the concurrent values of a key, as a plugin sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Sibling {
    /// The value.
    pub value: Vec<u8>,
    /// When it was written, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// Which actor took the write.
    pub writer: u64,
}

/// Why a merge gave no answer. The laws treat them differently, and only a refusal is ever right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MergeError {
    /// It says that it will not, and why: a value is not in its format.
    Refused(String),
    /// It broke: a panic, a trap, or an answer that is none.
    Trapped(String),
    /// It went over a limit on its work: fuel, memory or time.
    Exceeded(String),
    /// It says that it will not, because the result would be too large. Two good values may come to that.
    TooLarge(String),
}

impl MergeError {
    /// Whether the merge itself says no.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge(_))
    }
}

/// What a merge answers.
pub type MergeResult = Result<Vec<u8>, MergeError>;

/// Words alone are the merge's own reason.
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

/// Anything that makes one value of several: a plain function, or a component in its host.
pub trait Merge {
    /// Merges siblings.
    ///
    /// # Errors
    /// A [`MergeError`] that says why there is no answer.
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult;

    /// Merges the same siblings once more, in surroundings as different as can be had: another instance, another host.
    ///
    /// # Errors
    /// As [`Merge::merge`].
    fn merge_elsewhere(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        self.merge(key, siblings)
    }

    /// Whether a value may be written, if there is a validator that says so.
    fn validate(&self, _key: &[u8], _value: &[u8]) -> Option<Result<(), MergeError>> {
        None
    }
}

/// Where values come from.
pub trait Sampler {
    /// A value, always the same for the same arguments; `size` is a hint from 0.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String>;

    /// Whether its values are valid, so that no merge of them may be refused.
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

/// The sibling that stands for a merged value: the latest stamp and the writer with the highest id, as the host does
/// for a fold. The host does not know which input has won, so this writer may be another one's than the winner's.
#[must_use]
pub(crate) fn folded(value: Vec<u8>, inputs: &[Sibling]) -> Sibling {
    let stamp_ms = inputs.iter().map(|sibling| sibling.stamp_ms).max().unwrap_or(0);
    let writer = inputs.iter().map(|sibling| sibling.writer).max().unwrap_or(0);
    Sibling { value, stamp_ms, writer }
}
