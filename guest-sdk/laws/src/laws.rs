//! The laws, in words. [`crate::judge`] tries them.

use core::fmt;

/// What must hold of every merge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Law {
    /// Valid values are merged, and garbage is refused: a merge never breaks.
    Totality,
    /// m(a,b,c) = m(c,a,b): replicas see siblings in any order.
    Permutation,
    /// m(m(a,b),c) = m(a,b,c) = m(a,m(b,c)): replicas merge in any grouping.
    Bracketing,
    /// m(a,a) = a' and m(a',a') = a': a merge with oneself gives the canonical form, and that form is stable.
    Idempotence,
    /// m(m(a,b),a) = m(a,b): merging again with what has been merged changes nothing.
    Absorption,
    /// |m(a,b)| is at most |a| + |b| and a little: merging does not make values grow.
    Growth,
    /// The same siblings give the same bytes, at another time and in another place.
    Replay,
    /// The largest siblings that a bucket takes are merged within its limits.
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

    /// The law's name in one word.
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

    /// The law of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|law| law.name() == name)
    }

    /// What the law says, on a line.
    #[must_use]
    pub fn statement(self) -> &'static str {
        match self {
            Self::Totality => "valid values are merged, garbage is refused, nothing breaks",
            Self::Permutation => "m(a,b,c) = m(c,a,b)",
            Self::Bracketing => "m(m(a,b),c) = m(a,b,c) = m(a,m(b,c))",
            Self::Idempotence => "m(a',a') = m(a,a') = a', where a' = m(a,a)",
            Self::Absorption => "m(m(a,b),a) = m(a,b)",
            Self::Growth => "a result is no longer than what was merged",
            Self::Replay => "the same siblings give the same bytes, later and elsewhere",
            Self::Limits => "the largest siblings of a bucket are merged within its limits",
        }
    }

    /// What goes wrong in a cluster when the law does not hold.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Totality => {
                "a key with such siblings is never merged: readers get all of them, until the object is at its sibling limit."
            }
            Self::Permutation => {
                "the order of siblings says nothing about time, and may differ between replicas: they show different values."
            }
            Self::Bracketing => "replicas merge what others have merged already, in any grouping: they show different values.",
            Self::Idempotence => "a value that meets itself changes, so what is merged over and over never comes to rest.",
            Self::Absorption => "a replica that comes late brings what was merged long ago, and it is counted once more.",
            Self::Growth => "values grow with every merge, until the object is at its limit in bytes.",
            Self::Replay => "nodes give different answers to the same question, and a merge cannot be run again to see what it did.",
            Self::Limits => "the siblings that matter most, those of a busy key, are the ones that are not merged.",
        }
    }

    /// Where to look for the fault.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Totality => {
                "answer what cannot be read with a Fault, and merge everything that can: no panic, no index, no arithmetic that overflows, no \
                 sibling that is skipped. Members that are not known are kept or refused (serde's deny_unknown_fields), since a newer client has \
                 written them. A validator takes what the merge takes."
            }
            Self::Permutation => {
                "where two siblings compete, compare something total, not their places: the stamp, then the bytes. Not the writer: a merged value has \
                 the latest stamp of its inputs, but not always the writer of the one that won."
            }
            Self::Bracketing => {
                "let the result carry all that the next merge needs to know of its inputs, or decide by a greatest element: by the value, or by the \
                 stamp, then the value. A merged value has the latest stamp of its inputs and the largest of their writers, so a merge that \
                 decides by the writer breaks this law."
            }
            Self::Idempotence => {
                "join sets or take maxima where values are added up or appended; a count is the size of a set of tagged writes."
            }
            Self::Absorption => "let the result remember what has gone into it: a set of tags, or a counter for each writer.",
            Self::Growth => "drop what the merged value no longer needs to say.",
            Self::Replay => "iterate in a fixed order (BTreeMap, sorted lists), and keep nothing between calls.",
            Self::Limits => "merge in one pass over sorted inputs, without a copy of each; or give the bucket more fuel or memory.",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
