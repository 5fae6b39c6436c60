//! The laws. Each is tried on concrete siblings and compared on bytes.

use crate::merge::{Merge, Sibling, folded};
use core::fmt;

/// What must hold of every merge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Law {
    /// m(a,b,c) = m(c,a,b): replicas see siblings in any order.
    Permutation,
    /// m(m(a,b),c) = m(a,b,c): replicas merge in any grouping.
    Bracketing,
    /// m(a,a) = a' and m(a',a') = a': a merge with oneself gives the canonical form, and that form is stable.
    Idempotence,
    /// m(m(a,b),a) = m(a,b): merging again with what has been merged changes nothing.
    Absorption,
}

/// Every law there is, in the order in which they are tried.
pub const ALL: [Law; 4] = [Law::Permutation, Law::Bracketing, Law::Idempotence, Law::Absorption];

/// Two ways to the same answer that gave two answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What the two ways are, such as `m(a,b,c) = m(c,a,b)`.
    pub equation: String,
    /// The answer of the left way.
    pub left: Result<Vec<u8>, String>,
    /// The answer of the right way.
    pub right: Result<Vec<u8>, String>,
}

impl Law {
    /// The law's name in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Permutation => "permutation",
            Self::Bracketing => "bracketing",
            Self::Idempotence => "idempotence",
            Self::Absorption => "absorption",
        }
    }

    /// Tries the law on two or more siblings. A merge that refuses is a violation too: the siblings are valid values.
    ///
    /// # Errors
    /// The first pair of answers that differ.
    pub fn hold(self, merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), Violation> {
        match self {
            Self::Permutation => permutation(merge, key, siblings),
            Self::Bracketing => bracketing(merge, key, siblings),
            Self::Idempotence => siblings.iter().try_for_each(|sibling| idempotence(merge, key, sibling)),
            Self::Absorption => absorption(merge, key, siblings),
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn same(equation: &str, left: Result<Vec<u8>, String>, right: Result<Vec<u8>, String>) -> Result<(), Violation> {
    if left.is_ok() && left == right { Ok(()) } else { Err(Violation { equation: equation.into(), left, right }) }
}

fn permutation(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), Violation> {
    let straight = merge.merge(key, siblings);
    let mut turned = siblings.to_vec();
    for turn in 1..siblings.len() {
        turned.rotate_right(1);
        same(&format!("m(all) = m(all, turned by {turn})"), straight.clone(), merge.merge(key, &turned))?;
    }
    let reversed: Vec<Sibling> = siblings.iter().rev().cloned().collect();
    same("m(all) = m(all, reversed)", straight, merge.merge(key, &reversed))
}

fn bracketing(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), Violation> {
    let flat = merge.merge(key, siblings);
    for split in 2..siblings.len() {
        let (head, tail) = siblings.split_at(split);
        same(&format!("m(m(first {split}), rest) = m(all)"), grouped(merge, key, head, tail), flat.clone())?;
        let (head, tail) = siblings.split_at(siblings.len() - split);
        same(&format!("m(m(last {split}), rest) = m(all)"), grouped(merge, key, tail, head), flat.clone())?;
    }
    Ok(())
}

fn grouped(merge: &dyn Merge, key: &[u8], group: &[Sibling], rest: &[Sibling]) -> Result<Vec<u8>, String> {
    let mut inputs = vec![folded(merge.merge(key, group)?, group)];
    inputs.extend_from_slice(rest);
    merge.merge(key, &inputs)
}

fn idempotence(merge: &dyn Merge, key: &[u8], sibling: &Sibling) -> Result<(), Violation> {
    let canonical = merge.merge(key, &[sibling.clone(), sibling.clone()]);
    let Ok(value) = &canonical else { return same("m(a,a) = a'", canonical.clone(), canonical) };
    let again = Sibling { value: value.clone(), ..sibling.clone() };
    same("m(a',a') = a', where a' = m(a,a)", merge.merge(key, &[again.clone(), again.clone()]), canonical.clone())?;
    same("m(a,a') = a', where a' = m(a,a)", merge.merge(key, &[sibling.clone(), again]), canonical)
}

fn absorption(merge: &dyn Merge, key: &[u8], siblings: &[Sibling]) -> Result<(), Violation> {
    let all = merge.merge(key, siblings);
    let Ok(value) = &all else { return same("m(a,b)", all.clone(), all) };
    let whole = folded(value.clone(), siblings);
    for (index, part) in siblings.iter().enumerate() {
        let again = merge.merge(key, &[whole.clone(), part.clone()]);
        same(&format!("m(m(all), input {index}) = m(all)"), again, all.clone())?;
    }
    Ok(())
}
