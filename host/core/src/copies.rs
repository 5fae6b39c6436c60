//! The copies of a bucket: how many there are, and whether other nodes stand in for owners. Both are read off each live
//! layout, so that a change of them is a change of layout: writes need their quorum by the older and by the newest,
//! reads use one of them.

use smallvec::SmallVec;

use rejoin_proto::catalog::BucketProps;
use rejoin_proto::{BucketId, Layout};

use crate::layouts::LayoutSet;

/// The copies of a bucket in one layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copies {
    /// How many, 1 to 5.
    pub n: u8,
    /// Whether other healthy nodes stand in for owners that cannot take a write.
    pub sloppy: bool,
}

impl Copies {
    /// Those of a bucket that was made with these properties.
    #[must_use]
    pub fn of(layout: &Layout, bucket: BucketId, made_with: &BucketProps) -> Self {
        match layout.copies_of(bucket) {
            Some(changed) => Self { n: changed.n, sloppy: changed.sloppy },
            None => Self { n: made_with.n, sloppy: made_with.sloppy },
        }
    }
}

/// The copies of a bucket in each live layout, the newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveCopies(SmallVec<[Copies; 2]>);

impl LiveCopies {
    /// Those in these layouts, the newest first.
    pub fn new(in_each: impl IntoIterator<Item = Copies>) -> Self {
        Self(in_each.into_iter().collect())
    }

    /// Those in a layout, by its place; the newest is at 0.
    #[must_use]
    pub fn at(&self, place: usize) -> Copies {
        self.0[place.min(self.0.len() - 1)]
    }

    /// Those in a single layout.
    #[must_use]
    pub fn in_layout(&self, layout: LayoutSet) -> Copies {
        self.at(layout.place())
    }

    /// Each live layout with the copies in it.
    pub fn each(&self) -> impl Iterator<Item = (LayoutSet, Copies)> + '_ {
        self.0.iter().enumerate().map(|(place, copies)| (LayoutSet::at(place), *copies))
    }

    /// The most in any of them.
    #[must_use]
    pub fn most(&self) -> u8 {
        self.0.iter().map(|copies| copies.n).max().unwrap_or(u8::MAX)
    }

    /// The layouts in which other nodes stand in for owners.
    #[must_use]
    pub fn sloppy(&self) -> LayoutSet {
        let sloppy = self.each().filter(|(_, copies)| copies.sloppy);
        sloppy.fold(LayoutSet::EMPTY, |all, (layout, _)| all.union(layout))
    }

    /// Whether only owners store copies in the newest layout, and others may have had to in an older one.
    #[must_use]
    pub fn become_strict(&self) -> bool {
        !self.at(0).sloppy && !self.sloppy().is_empty()
    }

    /// Whether a quorum of the owners in the newest layout may not meet one in the oldest, even where they are the same
    /// nodes.
    #[must_use]
    pub fn are_to_meet(&self) -> bool {
        self.at(0).n != self.at(self.0.len() - 1).n || self.become_strict()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(copies: &[(u8, bool)]) -> LiveCopies {
        LiveCopies::new(copies.iter().map(|(n, sloppy)| Copies { n: *n, sloppy: *sloppy }))
    }

    #[test]
    fn what_changes_is_read_off_the_newest_and_the_oldest_layout() {
        let judge = |copies: &[(u8, bool)]| (live(copies).are_to_meet(), live(copies).become_strict());
        assert_eq!(judge(&[(3, true)]), (false, false));
        assert_eq!(judge(&[(5, true), (3, true)]), (true, false));
        assert_eq!(judge(&[(3, true), (3, false)]), (false, false), "owners have everything already");
        assert_eq!(judge(&[(3, false), (3, true)]), (true, true));
        assert_eq!(judge(&[(3, false), (3, true), (3, false)]), (true, true), "a node may hold what came in between");
        assert_eq!(
            judge(&[(3, true), (5, true), (3, true)]),
            (false, false),
            "each write had its quorum in the oldest"
        );
    }

    #[test]
    fn a_layout_has_its_place_among_the_copies() {
        let live = live(&[(5, false), (3, true), (1, true)]);
        assert_eq!((live.most(), live.at(0).n, live.in_layout(LayoutSet::at(2)).n), (5, 5, 1));
        assert_eq!(live.sloppy(), LayoutSet::at(1).union(LayoutSet::at(2)));
    }
}
