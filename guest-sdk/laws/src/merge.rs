//! What is checked: a merge, and where its values come from.

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

/// Anything that makes one value of several: a plain function, or a component in its host.
pub trait Merge {
    /// Merges siblings.
    ///
    /// # Errors
    /// Why there is no answer, in words. An `Err` stands for a fault, a trap and an exhausted limit alike.
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, String>;
}

/// Where valid values come from.
pub trait Sampler {
    /// A valid value, always the same for the same arguments; `size` is a hint from 0.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String>;
}

impl<T: Merge + ?Sized> Merge for &T {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, String> {
        (**self).merge(key, siblings)
    }
}

impl<T: Sampler + ?Sized> Sampler for &T {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        (**self).sample(seed, size)
    }
}

/// The sibling that stands for a merged value: the latest stamp and the writer with the highest id, as the host does for a fold.
#[must_use]
pub fn folded(value: Vec<u8>, inputs: &[Sibling]) -> Sibling {
    let stamp_ms = inputs.iter().map(|sibling| sibling.stamp_ms).max().unwrap_or(0);
    let writer = inputs.iter().map(|sibling| sibling.writer).max().unwrap_or(0);
    Sibling { value, stamp_ms, writer }
}
