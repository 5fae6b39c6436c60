//! The laws and their texts. `judge` checks them.

use core::fmt;

/// A property that every merge must have. `m` is the merge, `a'` the canonical form `m(a,a)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Law {
    /// Valid values are merged, invalid ones are refused, no byte of a value is ignored, and nothing traps.
    Totality,
    /// m(a,b,c) = m(c,a,b): replicas see siblings in any order.
    Permutation,
    /// m(m(a,b),c) = m(a,b,c) = m(a,m(b,c)): replicas merge in any grouping.
    Bracketing,
    /// m(a',a') = m(a,a') = a': the canonical form is stable.
    Idempotence,
    /// m(m(a,b),a) = m(a,b): merging a result with one of its inputs changes nothing.
    Absorption,
    /// |m(a',b')| is at most |a'| + |b'| + [`GROWTH_SLACK`](crate::GROWTH_SLACK) bytes.
    Growth,
    /// Equal siblings give equal bytes, in another call and in another engine.
    Replay,
    /// The largest siblings of a bucket are merged within its fuel and memory.
    Limits,
}

impl Law {
    /// Every law, in the order in which they are checked. Totality comes first: where it is broken, the laws that
    /// compare answers have nothing to compare.
    pub const ALL: [Self; 8] = [
        Self::Totality,
        Self::Permutation,
        Self::Bracketing,
        Self::Idempotence,
        Self::Absorption,
        Self::Growth,
        Self::Replay,
        Self::Limits,
    ];

    /// The law's name, one word in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Totality => "totality",
            Self::Permutation => "permutation",
            Self::Bracketing => "bracketing",
            Self::Idempotence => "idempotence",
            Self::Absorption => "absorption",
            Self::Growth => "growth",
            Self::Replay => "replay",
            Self::Limits => "limits",
        }
    }

    /// The law with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|law| law.name() == name)
    }

    /// The law in one line.
    #[must_use]
    pub fn statement(self) -> &'static str {
        match self {
            Self::Totality => "valid values are merged, garbage is refused, nothing is ignored, nothing traps",
            Self::Permutation => "m(a,b,c) = m(c,a,b)",
            Self::Bracketing => "m(m(a,b),c) = m(a,b,c) = m(a,m(b,c))",
            Self::Idempotence => "m(a',a') = m(a,a') = a', where a' = m(a,a)",
            Self::Absorption => "m(m(a,b),a) = m(a,b)",
            Self::Growth => "a result is no longer than its inputs together",
            Self::Replay => "equal siblings give equal bytes, in another call and another engine",
            Self::Limits => "the largest siblings of a bucket are merged within its fuel and memory",
        }
    }

    /// What happens in a cluster if a plugin breaks the law.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Totality => {
                "keys with such siblings are never merged, and readers get all of them; or a part of a value is lost \
                    without a word."
            }
            Self::Permutation => {
                "siblings may come in another order on another replica: replicas show different values."
            }
            Self::Bracketing => {
                "replicas merge values that others have already merged, in any grouping: replicas show different \
                    values."
            }
            Self::Idempotence => "a value that is merged again changes again, so replicas never agree.",
            Self::Absorption => "a replica that was away brings a value that was already merged, and it counts twice.",
            Self::Growth => "values grow with every merge, until the object reaches its limit in bytes.",
            Self::Replay => {
                "nodes return different values for the same siblings, and a merge cannot be repeated to find out what \
                    it did."
            }
            Self::Limits => "keys with many writers, which have the most and the largest siblings, are not merged.",
        }
    }

    /// What to change in the plugin.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Totality => {
                "return a Fault for a value that cannot be read, and merge every value that can: no panic, no index, \
                    no overflow, no \
                 sibling that is skipped, no value that is cut. Keep or refuse unknown members (serde's \
                 deny_unknown_fields): a newer \
                 client has written them. A validator accepts exactly what the merge accepts."
            }
            Self::Permutation => {
                "where two siblings compete, compare by a total order and not by position: the stamp, then the bytes. \
                    Not the writer: \
                 a merged value has the latest stamp of its inputs, but not always the writer of the one that won."
            }
            Self::Bracketing => {
                "let the result carry everything that the next merge needs of its inputs, or take a maximum: of the \
                    value, or of the \
                 stamp, then the value. A merged value has the latest stamp of its inputs and the largest of their \
                 writers, so a merge \
                 that decides by the writer breaks this law."
            }
            Self::Idempotence => {
                "join sets or take maxima instead of adding or appending; count the elements of a set of tagged writes."
            }
            Self::Absorption => {
                "let the result remember its inputs: as a set of tags, or as a counter for each writer."
            }
            Self::Growth => "drop what the merged value no longer needs.",
            Self::Replay => "iterate in a fixed order (BTreeMap, sorted lists), and keep nothing between calls.",
            Self::Limits => {
                "merge in one pass over sorted inputs, without copying each; or give the bucket more fuel or memory."
            }
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
