//! What the operations of a data type mean.

use std::collections::BTreeMap;

/// What a reader sees, by name: the items of a set, the fields of a record, the total of a counter. A name that is not
/// there is absent.
pub type Facts = BTreeMap<String, String>;

/// The unique id of one operation. The counters of one actor are 1, 2, 3 and so on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OperationDot {
    /// The actor that takes the operation: a replica.
    pub actor: u64,
    /// The number of the operation among those of the actor.
    pub counter: u64,
}

/// Operations that play a part in [`CLASSICS`](crate::CLASSICS).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roles {
    /// Adds or sets something.
    pub add: String,
    /// Removes just that, if anything can be removed.
    pub remove: Option<String>,
    /// Adds or sets something else.
    pub other: String,
}

/// The operations of a data type and their sequential specification.
pub trait Intent {
    /// The operations, as text. Three to six: all histories of them are tried.
    fn operations(&self) -> Vec<String>;

    /// The value that a client writes for an operation, after it has read `state`; `None` is a key without a value.
    ///
    /// # Errors
    /// Why there is none.
    fn apply(&self, state: Option<&[u8]>, operation: &str, dot: OperationDot) -> Result<Vec<u8>, String>;

    /// What a reader sees in a value.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn facts(&self, value: &[u8]) -> Result<Facts, String>;

    /// What a reader must see after these operations, one after the other on a new key.
    fn specification(&self, operations: &[&str]) -> Facts;

    /// The operations that play the parts of [`CLASSICS`](crate::CLASSICS). Without them these are not played.
    fn roles(&self) -> Option<Roles> {
        None
    }
}
