//! Ranges of keys whose rows were lost with a damaged table, kept beside the tree until it is rebuilt.
//!
//! A row in such a range counts if it is newer than the table was. Anything else there may be an older row that the
//! lost one had replaced, so it reads as damaged, never as absent.
//!
//! ```text
//! damaged     one line per range: table ‖ sequence number up to which it had rows ‖ first bound ‖ last bound
//!             a bound is -, or ( or [ and the key in hexadecimal
//! ```

use std::fmt::{self, Write as _};
use std::ops::Bound::{self, Excluded, Included, Unbounded};

use bytes::Bytes;

/// Above so many ranges those of one table become one.
const MOST_RANGES: usize = 1000;
/// Bytes of a key that are shown to people.
const SHOWN: usize = 24;

/// A range of keys that was lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LostRange {
    /// The table that had the rows.
    pub(crate) table: u64,
    /// The highest sequence number that it can have had.
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

    /// Whether a key of it may lie between two bounds, given as borrowed bytes.
    fn meets(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
        let before = |to: Bound<&[u8]>, from: Bound<&[u8]>| match (to, from) {
            (Included(to), Included(from)) => to < from,
            (Included(to) | Excluded(to), Included(from) | Excluded(from)) => to <= from,
            _ => false,
        };
        let (own_from, own_to) = (self.from.as_ref().map(|key| &key[..]), self.to.as_ref().map(|key| &key[..]));
        !before(own_to, from) && !before(to, own_from)
    }
}

impl fmt::Display for LostRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bound: &Bound<Bytes>, open: &str| match bound {
            Included(key) | Excluded(key) => hex(&key[..key.len().min(SHOWN)]),
            Unbounded => open.to_owned(),
        };
        write!(f, "keys from {} to {} of table {}", shown(&self.from, "the first"), shown(&self.to, "the last"), self.table)
    }
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Lost {
    ranges: Vec<LostRange>,
}

impl Lost {
    /// Reads the list back; `None` if it is none.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        let ranges = std::str::from_utf8(text).ok()?.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [table, upto, from, to] = words[..] else { return None };
            Some(LostRange { table: table.parse().ok()?, upto: upto.parse().ok()?, from: bound(from)?, to: bound(to)? })
        });
        Some(Self { ranges: ranges.collect::<Option<_>>()? })
    }

    /// The list as text.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for LostRange { table, upto, from, to } in &self.ranges {
            let _ = writeln!(text, "{table} {upto} {} {}", encoded(from), encoded(to));
        }
        text
    }

    /// Adds ranges.
    pub(crate) fn extend(&mut self, ranges: impl IntoIterator<Item = LostRange>) {
        ranges.into_iter().for_each(|range| {
            if !self.ranges.contains(&range) {
                self.ranges.push(range);
            }
        });
        if self.ranges.len() > MOST_RANGES {
            self.merge();
        }
    }

    /// Makes one of those of each table: too much reads as damaged then, and nothing that should is forgotten.
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

    pub(crate) fn ranges(&self) -> &[LostRange] {
        &self.ranges
    }

    /// The highest sequence number that a lost row can have had.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.ranges.iter().map(|range| range.upto).max()
    }

    /// The range in which a key was lost for which nothing newer than this sequence number is known. Of several it is
    /// the one whose rows were the newest.
    pub(crate) fn hides(&self, key: &[u8], newest: Option<u64>) -> Option<&LostRange> {
        let hides = |range: &&LostRange| newest.is_none_or(|newest| newest <= range.upto) && range.covers(key);
        self.ranges.iter().filter(hides).max_by_key(|range| range.upto)
    }

    /// The first range that has keys between two bounds.
    pub(crate) fn between(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<&LostRange> {
        self.ranges.iter().find(|range| range.meets(from, to))
    }
}

fn key(bound: &Bound<Bytes>) -> Option<&Bytes> {
    match bound {
        Included(key) | Excluded(key) => Some(key),
        Unbounded => None,
    }
}

/// Whether the first bound begins before the second, as a range's beginning.
fn lower(one: &Bound<Bytes>, other: &Bound<Bytes>) -> bool {
    match (key(one), key(other)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a < b || a == b && matches!(one, Included(_)),
    }
}

/// Whether the first bound ends after the second, as a range's end.
fn higher(one: &Bound<Bytes>, other: &Bound<Bytes>) -> bool {
    match (key(one), key(other)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b || a == b && matches!(one, Included(_)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
        let mut lost = Lost::default();
        lost.extend([range(1, Unbounded, Included("b")), range(2, Excluded("c"), Unbounded)]);
        assert_eq!(Lost::decode(lost.encode().as_bytes()), Some(lost.clone()));
        assert_eq!(Lost::decode(b""), Some(Lost::default()));
        for bad in ["1 2 - ", "1 2 (0 -", "1 2 [xx -", "x 2 - -", "1 2 - - -", "\u{e9}"] {
            assert_eq!(Lost::decode(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(lost.highest(), Some(10));
    }

    #[test]
    fn only_what_is_newer_counts_in_a_lost_range() {
        let mut lost = Lost::default();
        lost.extend([range(1, Excluded("b"), Included("d"))]);
        let hidden = |key: &str, newest| lost.hides(key.as_bytes(), newest).is_some();
        assert!(hidden("c", None) && hidden("c", Some(10)) && hidden("d", Some(3)));
        assert!(!hidden("c", Some(11)) && !hidden("b", None) && !hidden("e", None));
        let meets = |from: Bound<&str>, to: Bound<&str>| lost.between(from.map(str::as_bytes), to.map(str::as_bytes)).is_some();
        assert!(meets(Included("a"), Excluded("c")) && meets(Unbounded, Unbounded) && meets(Included("d"), Unbounded));
        assert!(!meets(Included("a"), Included("b")) && !meets(Excluded("d"), Unbounded) && !meets(Unbounded, Excluded("b")));
        for (table, upto) in [(2, 20), (3, 15)] {
            lost.extend([LostRange { upto, ..range(table, Unbounded, Included("c")) }]);
        }
        let upto = |key: &str| lost.hides(key.as_bytes(), None).map(|range| range.upto);
        assert_eq!([upto("c"), upto("d"), upto("e")], [Some(20), Some(10), None], "the newest that may be lost");
    }

    #[test]
    fn too_many_ranges_become_one_for_each_table() {
        let mut lost = Lost::default();
        let key = |number: usize| Bytes::from(format!("{number:05}"));
        lost.extend((0..=MOST_RANGES).map(|number| LostRange {
            table: 7,
            upto: number as u64,
            from: Excluded(key(2 * number)),
            to: Included(key(2 * number + 1)),
        }));
        let whole = LostRange { table: 7, upto: 1000, from: Excluded(key(0)), to: Included(key(2 * MOST_RANGES + 1)) };
        assert_eq!(lost.ranges(), [whole]);
    }
}
