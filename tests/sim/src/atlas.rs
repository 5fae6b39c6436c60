//! The fault atlas: it knows the copies of acknowledged writes, and allows no fault that takes the last one.
//!
//! A database cannot keep what every disk has lost, so a simulator that destroys all copies finds nothing. Before each
//! fault that takes something from a disk (power lost before a sync, a wipe, an old copy put back, a reported loss) the
//! atlas checks that every acknowledged write that this disk would forget is contained in another disk's copy.
//!
//! *Contained* means that the copy's context covers the write's dot: the copy has the write or has seen what replaced
//! it. Copies count once they are written, also on nodes that are down, and also before they are durable: a later power
//! loss of that node is checked as well, so at every moment each acknowledged write is in some disk's copy. A copy in a
//! bad block does not count while it cannot be read. A write is acknowledged when its coordinator lets the reply go,
//! whether or not the reply arrives.
//!
//! The atlas does not promise that a *quorum* of the copies is left. After a fault reads may miss acknowledged writes
//! until they are repaired, so the checkers of reads look up the losses in the history.

use std::collections::BTreeMap;

use bytes::Bytes;

use rejoin_proto::{Dot, Object, VersionVector, codec};

use crate::history::KeyId;

/// Acknowledged writes by their keys.
#[derive(Default, Debug)]
pub(crate) struct Atlas {
    acknowledged: Vec<Vec<Dot>>,
    /// The content of unreadable copies that were written over.
    replaced: BTreeMap<KeyId, VersionVector>,
}

impl Atlas {
    /// A coordinator has let an acknowledgement go. `false`: a bad block had taken the only copy before, so the write
    /// is not guarded.
    pub(crate) fn acknowledged<I: Iterator<Item = Bytes>>(
        &mut self,
        key: KeyId,
        dot: Dot,
        copies: impl FnOnce() -> I,
    ) -> bool {
        let lost = self.replaced.get(&key).is_some_and(|lost| lost.contains(dot));
        if lost && !copies().any(|copy| object(&copy).context.contains(dot)) {
            return false;
        }
        let key = key as usize;
        if self.acknowledged.len() <= key {
            self.acknowledged.resize(key + 1, Vec::new());
        }
        self.acknowledged[key].push(dot);
        true
    }

    /// An unreadable copy was written over. Returns the acknowledged writes that no readable copy has any more, and
    /// forgets them: their other copies had gone bad before, or only this node had acknowledged them.
    pub(crate) fn replaced<'a>(&mut self, key: KeyId, old: &[u8], copies: impl Iterator<Item = &'a [u8]>) -> Vec<Dot> {
        let (old, copies) = (object(old), copies.map(object).collect::<Vec<_>>());
        let mut gone = Vec::new();
        if let Some(dots) = self.acknowledged.get_mut(key as usize) {
            let is_gone =
                |dot: &mut Dot| old.context.contains(*dot) && !copies.iter().any(|copy| copy.context.contains(*dot));
            gone.extend(dots.extract_if(.., is_gone));
        }
        self.replaced.entry(key).or_default().join(&old.context);
        gone
    }

    /// Whether a disk's copy of a key may shrink to `left` while the other disks have `others`.
    pub(crate) fn allows<'a>(
        &self,
        key: KeyId,
        now: Option<&[u8]>,
        left: Option<&[u8]>,
        others: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> bool {
        let Some(dots) = self.acknowledged.get(key as usize) else { return true };
        let (now, left) = (now.map(object).unwrap_or_default(), left.map(object).unwrap_or_default());
        let mut forgotten =
            dots.iter().filter(|dot| now.context.contains(**dot) && !left.context.contains(**dot)).peekable();
        if forgotten.peek().is_none() {
            return true;
        }
        let others: Vec<Object> = others.map(object).collect();
        forgotten.all(|dot| others.iter().any(|other| other.context.contains(*dot)))
    }
}

fn object(bytes: &[u8]) -> Object {
    codec::decode(bytes).expect("a stored object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::ActorId;

    fn dot(counter: u64) -> Dot {
        Dot { actor: ActorId(1), counter }
    }

    fn copy(counter: u64) -> Vec<u8> {
        codec::encode(&Object { context: [dot(counter)].into_iter().collect(), entries: Vec::new() })
    }

    fn acknowledge(atlas: &mut Atlas, key: KeyId, counter: u64) {
        assert!(atlas.acknowledged(key, dot(counter), std::iter::empty::<Bytes>));
    }

    #[test]
    fn a_copy_that_was_written_over_takes_with_it_what_nobody_else_holds() {
        let mut atlas = Atlas::default();
        let (old, new) = (copy(5), copy(4));
        acknowledge(&mut atlas, 3, 4);
        acknowledge(&mut atlas, 3, 5);
        assert_eq!(atlas.replaced(3, &old, [&new[..]].into_iter()), [dot(5)]);
        assert!(atlas.allows(3, Some(&old), None, [&new[..]].into_iter()), "only what is left is guarded");
        assert!(!atlas.allows(3, Some(&new), None, std::iter::empty()));
    }

    #[test]
    fn what_is_acknowledged_after_its_only_copy_was_written_over_is_not_guarded() {
        let mut atlas = Atlas::default();
        let (old, new) = (copy(5), copy(4));
        assert!(atlas.replaced(3, &old, [&new[..]].into_iter()).is_empty());
        let copies = |copy: &Vec<u8>| std::iter::once(Bytes::from(copy.clone()));
        assert!(!atlas.acknowledged(3, dot(5), || copies(&new)), "nobody has it");
        assert!(atlas.acknowledged(3, dot(5), || copies(&old)), "somebody does");
        assert!(atlas.acknowledged(3, dot(6), || copies(&new)), "what no block has taken must be somewhere");
    }

    #[test]
    fn the_last_copy_of_what_was_acknowledged_is_not_given_away() {
        let mut atlas = Atlas::default();
        acknowledge(&mut atlas, 3, 5);
        let (old, new) = (copy(4), copy(5));
        let asks = |left: Option<&[u8]>, others: &[&[u8]]| atlas.allows(3, Some(&new), left, others.iter().copied());
        assert!(!asks(None, &[]), "a wipe without another copy");
        assert!(!asks(Some(&old), &[&old]), "an old copy beside an old copy");
        assert!(asks(Some(&old), &[&old, &new]), "somebody else has it");
        assert!(asks(Some(&new), &[]), "nothing is forgotten");
    }

    #[test]
    fn what_was_never_acknowledged_may_be_forgotten() {
        let mut atlas = Atlas::default();
        assert!(atlas.allows(0, Some(&copy(9)), None, std::iter::empty()));
        acknowledge(&mut atlas, 0, 8);
        let left = copy(8);
        assert!(atlas.allows(0, Some(&copy(9)), Some(&left), std::iter::empty()));
    }
}
