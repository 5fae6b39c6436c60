//! Connects a plugin's plain functions with the law checker.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::catch_unwind;

use rejoin_laws::{MergeError, MergeResult};

use crate::traits::{Fault, Merger, Sampler, Sibling, Validator};

type Validate = fn(&[u8], &[u8]) -> Result<(), Fault>;

/// The plugin `T` for [`rejoin_laws::check()`], run natively and without limits.
///
/// ```
/// use rejoin_guest::laws::{CheckConfig, check};
/// use rejoin_guest::{Fault, Merger, Native, Sampler, Sibling};
///
/// /// Keeps the longest word, and of those the last in the dictionary.
/// struct Longest;
///
/// impl Merger for Longest {
///     fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
///         let words = siblings.iter().map(|sibling| sibling.value.clone());
///         words.max_by_key(|word| (word.len(), word.clone())).ok_or(Fault::Malformed)
///     }
/// }
///
/// impl Sampler for Longest {
///     fn sample(seed: u64, size: u32) -> Vec<u8> {
///         vec![b'a' + (seed % 3) as u8; size as usize]
///     }
/// }
///
/// let plugin = Native::<Longest>::default();
/// check(&plugin, &plugin, CheckConfig::default()).unwrap_or_else(|found| panic!("{found}"));
/// ```
#[derive(Debug)]
pub struct Native<T> {
    validate: Option<Validate>,
    plugin: PhantomData<T>,
}

impl<T> Default for Native<T> {
    fn default() -> Self {
        Self { validate: None, plugin: PhantomData }
    }
}

impl<T: Validator> Native<T> {
    /// Checks the validator as well: the law of totality compares it with the merge.
    #[must_use]
    pub fn with_validator() -> Self {
        Self { validate: Some(T::validate), plugin: PhantomData }
    }
}

impl<T: Merger> rejoin_laws::Merge for Native<T> {
    /// A panic counts as a trap, which it would be in WebAssembly.
    fn merge(&self, key: &[u8], siblings: &[rejoin_laws::Sibling]) -> MergeResult {
        let lend = |one: &rejoin_laws::Sibling| Sibling {
            value: one.value.clone(),
            stamp_ms: one.stamp_ms,
            writer: one.writer,
        };
        let siblings: Vec<Sibling> = siblings.iter().map(lend).collect();
        let answer =
            catch_unwind(|| T::merge(key, &siblings)).map_err(|panic| MergeError::Trapped(panic_message(&*panic)))?;
        answer.map_err(failure)
    }

    fn validate(&self, key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        let validate = self.validate?;
        Some(match catch_unwind(|| validate(key, value)) {
            Ok(answer) => answer.map_err(failure),
            Err(panic) => Err(MergeError::Trapped(panic_message(&*panic))),
        })
    }
}

impl<T: Sampler> rejoin_laws::Sampler for Native<T> {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        catch_unwind(|| T::sample(seed, size)).map_err(|panic| panic_message(&*panic))
    }
}

fn failure(fault: Fault) -> MergeError {
    let reason = format!("{fault:?}");
    if fault == Fault::TooLarge { MergeError::TooLarge(reason) } else { MergeError::Refused(reason) }
}

/// The message of a panic. The panic hook has written its location to stderr.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", message.unwrap_or("without a message"))
}
