//! Key ranges whose rows were lost with a damaged table. They are kept beside the tree until it is rebuilt.
//!
//! A row in such a range is valid if it is newer than the lost table. Any other row there may have been replaced by one
//! that was lost, so the key reads as lost, never as absent.
//!
//! A removal heals a key like any other write, but a compaction into the last level drops the tombstone. So removals in
//! lost ranges are listed here before they are compacted.
//!
//! ```text
//! damaged     one line per range: table ‖ highest sequence number of its rows ‖ first bound ‖ last bound
//!             one line per removal: "removed" ‖ sequence number of the tombstone ‖ key as an inclusive bound
//!             a bound is -, or ( or [ and the key in hexadecimal
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Bound::{self, Excluded, Included, Unbounded};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use rejoin_proto::hex::hex;

/// Above so many ranges, those of one table are merged into one.
const MAX_RANGES: usize = 1000;
/// Removals that are listed. Keys of further ones read as lost again once their tombstones are compacted.
const MAX_REMOVED: usize = 10_000;
/// Bytes of a key that are shown to people.
const SHOWN: usize = 24;

/// A range of keys that was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LostRange {
    /// The number of the table that held the rows.
    pub(crate) table: u64,
    /// The highest sequence number that its rows can have had.
    pub(crate) upto: u64,
    pub(crate) from: Bound<Bytes>,
    pub(crate) to: Bound<Bytes>,
}

impl LostRange {
    fn covers(&self, key: &[u8]) -> bool {
        let above = match &self.from {
            Included(from) => key >= from,
            Excluded(from) => key > from,
            Unbounded => true,
        };
        above
            && match &self.to {
                Included(to) => key <= to,
                Excluded(to) => key < to,
                Unbounded => true,
            }
    }

    /// Whether the range and two bounds may have a key in common.
    pub(super) fn meets(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
        let before = |to: Bound<&[u8]>, from: Bound<&[u8]>| match (to, from) {
            (Included(to), Included(from)) => to < from,
            (Included(to) | Excluded(to), Included(from) | Excluded(from)) => to <= from,
            _ => false,
        };
        let (own_from, own_to) = (self.from.as_ref().map(|key| &key[..]), self.to.as_ref().map(|key| &key[..]));
        !before(own_to, from) && !before(to, own_from)
    }
}

impl LostRange {
    /// The part of the range that lies between two bounds.
    pub(super) fn clipped(&self, from: &Bound<Bytes>, to: &Bound<Bytes>) -> (Bound<Bytes>, Bound<Bytes>) {
        let first = if lower(from, &self.from) { &self.from } else { from };
        let last = if higher(to, &self.to) { &self.to } else { to };
        (first.clone(), last.clone())
    }
}

impl fmt::Display for LostRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bound: &Bound<Bytes>, open: &str| match bound {
            Included(key) | Excluded(key) => hex(&key[..key.len().min(SHOWN)]),
            Unbounded => open.to_owned(),
        };
        write!(
            f,
            "keys from {} to {} of table {}",
            shown(&self.from, "the first"),
            shown(&self.to, "the last"),
            self.table
        )
    }
}

/// All lost ranges of a tree.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct LostRanges {
    ranges: Vec<LostRange>,
    /// Keys that were removed after they were lost, with the sequence numbers of their tombstones.
    removed: BTreeMap<Bytes, u64>,
}

impl LostRanges {
    /// Decodes the file; `None` if it is malformed.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let mut lost = Self::default();
        for line in std::str::from_utf8(text).ok()?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [REMOVED, seqno, removed] => {
                    let Included(removed) = bound(removed)? else { return None };
                    lost.removed.insert(removed, seqno.parse().ok()?);
                }
                [table, upto, from, to] => {
                    let (table, upto) = (table.parse().ok()?, upto.parse().ok()?);
                    lost.ranges.push(LostRange { table, upto, from: bound(from)?, to: bound(to)? });
                }
                _ => return None,
            }
        }
        Some(lost)
    }

    /// Encodes the file.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for LostRange { table, upto, from, to } in &self.ranges {
            let _ = writeln!(text, "{table} {upto} {} {}", encoded(from), encoded(to));
        }
        for (key, seqno) in &self.removed {
            let _ = writeln!(text, "{REMOVED} {seqno} [{}", hex(key));
        }
        text
    }

    /// A number that is another one for other ranges, 0 for none.
    pub(crate) fn fingerprint(&self) -> u64 {
        if self.ranges.is_empty() {
            return 0;
        }
        let of_ranges = Self { ranges: self.ranges.clone(), removed: BTreeMap::new() };
        xxh3_64(of_ranges.encode().as_bytes()).max(1)
    }

    /// Adds ranges that are not in the list.
    pub(crate) fn extend(&mut self, ranges: impl IntoIterator<Item = LostRange>) {
        ranges.into_iter().for_each(|range| {
            if !self.ranges.contains(&range) {
                self.ranges.push(range);
            }
        });
        if self.ranges.len() > MAX_RANGES {
            self.merge();
        }
    }

    /// Merges the ranges of each table. Keys between them read as lost too then, and no lost key is forgotten.
    fn merge(&mut self) {
        let mut merged: Vec<LostRange> = Vec::new();
        for range in std::mem::take(&mut self.ranges) {
            match merged.iter_mut().find(|other| other.table == range.table) {
                Some(other) => {
                    if lower(&range.from, &other.from) {
                        other.from = range.from;
                    }
                    if higher(&range.to, &other.to) {
                        other.to = range.to;
                    }
                    other.upto = other.upto.max(range.upto);
                }
                None => merged.push(range),
            }
        }
        self.ranges = merged;
    }

    /// Lists a key's removal, if there is room for it in the list.
    pub(crate) fn remove(&mut self, key: &[u8], seqno: u64) {
        if let Some(last) = self.removed.get_mut(key) {
            *last = seqno.max(*last);
        } else if self.removed.len() < MAX_REMOVED {
            self.removed.insert(Bytes::copy_from_slice(key), seqno);
        }
    }

    /// The sequence number of a key's last listed removal.
    pub(crate) fn removed(&self, key: &[u8]) -> Option<u64> {
        self.removed.get(key).copied()
    }

    pub(crate) fn ranges(&self) -> &[LostRange] {
        &self.ranges
    }

    /// The highest sequence number that is listed.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.ranges.iter().map(|range| range.upto).chain(self.removed.values().copied()).max()
    }

    /// The range in which a key is lost whose newest readable row has this sequence number. Of several, the one whose
    /// rows were the newest.
    pub(crate) fn hides(&self, key: &[u8], newest: Option<u64>) -> Option<&LostRange> {
        let newest = newest.max(self.removed(key));
        let hides = |range: &&LostRange| newest.is_none_or(|newest| newest <= range.upto) && range.covers(key);
        self.ranges.iter().filter(hides).max_by_key(|range| range.upto)
    }

    /// Whether a row with this sequence number, the newest readable one of its key below `at`, was the key's row at
    /// that time: nothing newer was lost, and the key was not removed in between.
    pub(crate) fn is_valid(&self, key: &[u8], seqno: u64, at: u64) -> bool {
        if self.ranges.is_empty() {
            return true;
        }
        let removed = self.removed(key).filter(|removed| *removed < at);
        let newest = Some(seqno).max(removed);
        newest == Some(seqno) && !self.ranges.iter().any(|range| seqno <= range.upto && range.covers(key))
    }

    /// The first range that may have a key between two bounds.
    pub(crate) fn between(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<&LostRange> {
        self.ranges.iter().find(|range| range.meets(from, to))
    }
}

/// The first word of a removal's line.
const REMOVED: &str = "removed";

fn key(bound: &Bound<Bytes>) -> Option<&Bytes> {
    match bound {
        Included(key) | Excluded(key) => Some(key),
        Unbounded => None,
    }
}

/// Compares two bounds as beginnings of ranges.
fn lower(one: &Bound<Bytes>, other: &Bound<Bytes>) -> bool {
    match (key(one), key(other)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a < b || a == b && matches!(one, Included(_)),
    }
}

/// Compares two bounds as ends of ranges.
fn higher(one: &Bound<Bytes>, other: &Bound<Bytes>) -> bool {
    match (key(one), key(other)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b || a == b && matches!(one, Included(_)),
    }
}

fn encoded(bound: &Bound<Bytes>) -> String {
    match bound {
        Unbounded => "-".to_owned(),
        Included(key) => format!("[{}", hex(key)),
        Excluded(key) => format!("({}", hex(key)),
    }
}

fn bound(text: &str) -> Option<Bound<Bytes>> {
    let digits = |text: &str| {
        let pairs = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        pairs.collect::<Option<Vec<u8>>>().filter(|_| text.len().is_multiple_of(2)).map(Bytes::from)
    };
    match text.split_at_checked(1)? {
        ("-", "") => Some(Unbounded),
        ("[", rest) => digits(rest).map(Included),
        ("(", rest) => digits(rest).map(Excluded),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(table: u64, from: Bound<&'static str>, to: Bound<&'static str>) -> LostRange {
        LostRange { table, upto: 10, from: from.map(Bytes::from), to: to.map(Bytes::from) }
    }

    #[test]
    fn a_list_is_read_back_and_nothing_else_is() {
        let mut lost = LostRanges::default();
        lost.extend([range(1, Unbounded, Included("b")), range(2, Excluded("c"), Unbounded)]);
        assert_eq!(LostRanges::decode(lost.encode().as_bytes()), Some(lost.clone()));
        assert_eq!(LostRanges::decode(b""), Some(LostRanges::default()));
        for bad in [
            "1 2 - ",
            "1 2 (0 -",
            "1 2 [xx -",
            "x 2 - -",
            "1 2 - - -",
            "removed 2 (00",
            "removed x [00",
            "removed 2 -",
            "\u{e9}",
        ] {
            assert_eq!(LostRanges::decode(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(lost.highest(), Some(10));
        lost.remove(b"a", 12);
        assert_eq!((lost.highest(), LostRanges::decode(lost.encode().as_bytes())), (Some(12), Some(lost)));
    }

    #[test]
    fn a_removal_heals_a_key_that_was_lost_before_it_and_none_that_was_lost_after_it() {
        let mut lost = LostRanges::default();
        lost.extend([range(1, Unbounded, Unbounded)]);
        lost.remove(b"a", 12);
        lost.remove(b"a", 11);
        assert!(lost.hides(b"a", None).is_none() && lost.hides(b"b", None).is_some());
        lost.extend([LostRange { upto: 12, ..range(2, Unbounded, Unbounded) }]);
        assert!(lost.hides(b"a", None).is_some() && lost.hides(b"a", Some(13)).is_none());
        (0..=MAX_REMOVED).for_each(|number| lost.remove(&number.to_be_bytes(), 20));
        assert_eq!(lost.removed.len(), MAX_REMOVED);
    }

    #[test]
    fn a_range_is_clipped_to_the_bounds_within_it() {
        let lost = range(1, Excluded("b"), Included("f"));
        let clipped = |from: Bound<&'static str>, to: Bound<&'static str>| {
            lost.clipped(&from.map(Bytes::from), &to.map(Bytes::from))
        };
        let same = |from: Bound<&'static str>, to: Bound<&'static str>| (from.map(Bytes::from), to.map(Bytes::from));
        assert_eq!(clipped(Unbounded, Unbounded), same(Excluded("b"), Included("f")));
        assert_eq!(clipped(Included("c"), Excluded("e")), same(Included("c"), Excluded("e")));
        assert_eq!(clipped(Included("b"), Excluded("f")), same(Excluded("b"), Excluded("f")));
    }

    #[test]
    fn only_what_is_newer_counts_in_a_lost_range() {
        let mut lost = LostRanges::default();
        lost.extend([range(1, Excluded("b"), Included("d"))]);
        let hidden = |key: &str, newest| lost.hides(key.as_bytes(), newest).is_some();
        assert!(hidden("c", None) && hidden("c", Some(10)) && hidden("d", Some(3)));
        assert!(!hidden("c", Some(11)) && !hidden("b", None) && !hidden("e", None));
        let meets =
            |from: Bound<&str>, to: Bound<&str>| lost.between(from.map(str::as_bytes), to.map(str::as_bytes)).is_some();
        assert!(meets(Included("a"), Excluded("c")) && meets(Unbounded, Unbounded) && meets(Included("d"), Unbounded));
        assert!(
            !meets(Included("a"), Included("b"))
                && !meets(Excluded("d"), Unbounded)
                && !meets(Unbounded, Excluded("b"))
        );
        for (table, upto) in [(2, 20), (3, 15)] {
            lost.extend([LostRange { upto, ..range(table, Unbounded, Included("c")) }]);
        }
        let upto = |key: &str| lost.hides(key.as_bytes(), None).map(|range| range.upto);
        assert_eq!([upto("c"), upto("d"), upto("e")], [Some(20), Some(10), None], "the newest that may be lost");
    }

    #[test]
    fn too_many_ranges_become_one_for_each_table() {
        let mut lost = LostRanges::default();
        let key = |number: usize| Bytes::from(format!("{number:05}"));
        lost.extend((0..=MAX_RANGES).map(|number| LostRange {
            table: 7,
            upto: number as u64,
            from: Excluded(key(2 * number)),
            to: Included(key(2 * number + 1)),
        }));
        let whole = LostRange { table: 7, upto: 1000, from: Excluded(key(0)), to: Included(key(2 * MAX_RANGES + 1)) };
        assert_eq!(lost.ranges(), [whole]);
    }
}
