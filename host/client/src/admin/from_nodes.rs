//! What was asked of all nodes.

use rejoin_proto::Name;

/// What the nodes have answered, and who has not.
///
/// ```
/// use rejoin_client::admin::FromNodes;
///
/// fn told(found: FromNodes<Vec<u64>>) -> String {
///     match found.silent.as_slice() {
///         [] => format!("{:?}", found.answers),
///         [(node, why), ..] => format!("{:?}, but {node} was not asked: {why}", found.answers),
///     }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FromNodes<T> {
    /// What those that have answered say together.
    pub answers: T,
    /// The nodes that gave no answer, by name, each with why.
    pub silent: Vec<(Name, String)>,
    /// Of receipts: the nodes that have lost a part of their disk which may have had others, by name.
    pub lost: Vec<Name>,
}

impl<T> FromNodes<T> {
    pub(crate) fn new(answers: T, mut silent: Vec<(Name, String)>) -> Self {
        silent.sort();
        Self { answers, silent, lost: Vec::new() }
    }

    /// The same nodes have said this.
    pub(crate) fn with<U>(self, made: impl FnOnce(T) -> U) -> FromNodes<U> {
        FromNodes { answers: made(self.answers), silent: self.silent, lost: self.lost }
    }

    /// The same nodes have said this, if it can be told.
    pub(crate) fn try_with<U>(self, made: impl FnOnce(T) -> crate::Result<U>) -> crate::Result<FromNodes<U>> {
        Ok(FromNodes { answers: made(self.answers)?, silent: self.silent, lost: self.lost })
    }
}
