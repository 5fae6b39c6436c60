//! The operations under way, in a flat table.
//!
//! The low bits of an operation's number are its place in the table, so that an answer finds it without a search. The
//! high bits count: no number is given twice, a later one is higher, and an answer that comes late finds another number
//! in its place, or none.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// The low bits of a number.
const PLACE_BITS: u32 = 16;
/// The most operations that are kept at once.
const MAX_PLACES: usize = 1 << PLACE_BITS;
/// The largest [`Config::max_ops`](super::Config::max_ops): as many answered reads may wait for late owners beside the
/// requests under way.
pub const MAX_IN_FLIGHT: usize = MAX_PLACES / 2 - 1;
/// The pause between two searches for operations whose time is over, in microseconds. A search looks at the whole
/// table, so a deadline may be noticed so much later.
const SEARCH_PAUSE_US: u64 = 1_000;

/// The operations under way, and the numbers of everything for which a shard waits.
pub(super) struct Ops<T> {
    places: Vec<Place<T>>,
    /// The places that nobody has.
    free: Vec<u16>,
    /// How many operations are kept.
    len: usize,
    /// The high bits of the next number.
    next: u64,
    /// No deadline of an operation is earlier. Not moved when an operation ends, as all but a few do before their time.
    earliest_us: u64,
    /// The next search is not before this.
    search_from_us: u64,
}

struct Place<T> {
    /// The number of the operation that has the place, or had it last.
    number: u64,
    deadline_us: u64,
    /// `None` while a step has it.
    op: Option<Box<T>>,
}

impl<T> Ops<T> {
    /// A table without operations. `first` has the high bits of the first number, so it is below 2^48.
    pub(super) fn new(first: u64) -> Self {
        Self { places: Vec::new(), free: Vec::new(), len: 0, next: first, earliest_us: u64::MAX, search_from_us: 0 }
    }

    /// A number that no operation has, and neither have the 65 535 that follow it.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next += 1;
        (self.next - 1) << PLACE_BITS
    }

    /// Whether no operation can begin until another one ends.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.places.len() >= MAX_PLACES
    }

    /// Gives a new operation its number and its place. It is kept with [`keep`](Self::keep), or ends with
    /// [`end`](Self::end).
    ///
    /// # Panics
    /// If the table is full.
    pub(super) fn begin(&mut self) -> u64 {
        assert!(!self.is_full(), "a request is not admitted where there is no place for it");
        let place = self.free.pop().map_or(self.places.len(), usize::from);
        if place == self.places.len() {
            self.places.push(Place { number: 0, deadline_us: 0, op: None });
        }
        let number = self.ticket() | place as u64;
        self.places[place].number = number;
        number
    }

    /// Keeps an operation until the next step takes it.
    pub(super) fn keep(&mut self, number: u64, deadline_us: u64, op: Box<T>) {
        let place = self.place_mut(number).expect("an operation is kept in the place that it was given");
        (place.deadline_us, place.op) = (deadline_us, Some(op));
        self.len += 1;
        self.earliest_us = self.earliest_us.min(deadline_us);
    }

    /// Takes an operation out for a step. It keeps its place.
    pub(super) fn take(&mut self, number: u64) -> Option<Box<T>> {
        let op = self.place_mut(number)?.op.take()?;
        self.len -= 1;
        Some(op)
    }

    /// An operation that is not kept has ended. Its place is free for another one.
    pub(super) fn end(&mut self, number: u64) {
        let Some(place) = self.place_mut(number).filter(|place| place.op.is_none()) else { return };
        place.number = 0;
        self.free.push(at(number) as u16);
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let place = self.places.get(at(number)).filter(|place| place.number == number)?;
        place.op.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.place_mut(number)?.op.as_deref_mut()
    }

    fn place_mut(&mut self, number: u64) -> Option<&mut Place<T>> {
        self.places.get_mut(at(number)).filter(|place| place.number == number)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All that are kept, in the order of their places.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.op.as_deref())
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().filter_map(|place| place.op.as_deref_mut())
    }

    /// The numbers of those that are meant, in the order in which they came.
    pub(super) fn which(&self, mut is_meant: impl FnMut(&T) -> bool) -> Vec<u64> {
        let meant = |place: &&Place<T>| place.op.as_deref().is_some_and(&mut is_meant);
        let mut numbers: Vec<u64> = self.places.iter().filter(meant).map(|place| place.number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// When to look for operations whose time is over, in microseconds.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.earliest_us.max(self.search_from_us)
    }

    /// The operations whose time is over, the earliest deadline first.
    ///
    /// An ordered set of all deadlines would cost every operation two searches, and nearly all end in time.
    pub(super) fn out_of_time(&mut self, now_us: u64) -> Vec<u64> {
        if now_us < self.next_deadline_us() {
            return Vec::new();
        }
        let mut over: Vec<(u64, u64)> = Vec::new();
        self.earliest_us = u64::MAX;
        for place in self.places.iter().filter(|place| place.op.is_some()) {
            if place.deadline_us <= now_us {
                over.push((place.deadline_us, place.number));
            } else {
                self.earliest_us = self.earliest_us.min(place.deadline_us);
            }
        }
        self.search_from_us = now_us.saturating_add(SEARCH_PAUSE_US);
        over.sort_unstable();
        over.into_iter().map(|(_, number)| number).collect()
    }
}

impl<T> fmt::Debug for Ops<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.places.len() - self.free.len();
        f.debug_struct("Ops").field("taken", &taken).finish_non_exhaustive()
    }
}

/// The place that a number names.
fn at(number: u64) -> usize {
    (number & (MAX_PLACES as u64 - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operation of the tests is a number of its own.
    fn begun(ops: &mut Ops<u32>, deadline_us: u64, op: u32) -> u64 {
        let number = ops.begin();
        ops.keep(number, deadline_us, Box::new(op));
        number
    }

    #[test]
    fn a_number_finds_its_operation_until_that_ends_and_never_the_next_one_in_its_place() {
        let mut ops = Ops::new(1 << 47);
        let (one, two) = (begun(&mut ops, 10, 1), begun(&mut ops, 10, 2));
        assert_eq!((ops.get(one), ops.get(two), ops.len()), (Some(&1), Some(&2), 2));
        let taken = ops.take(one).expect("it is kept");
        assert_eq!((ops.take(one), ops.get(one), ops.len()), (None, None, 1), "a step has it");
        ops.keep(one, 10, taken);
        *ops.get_mut(one).expect("it is kept") = 3;
        ops.end(one);
        assert_eq!((ops.get(one), ops.len()), (Some(&3), 2), "what is kept has not ended");
        drop(ops.take(one));
        ops.end(one);
        ops.end(one);
        let three = begun(&mut ops, 10, 4);
        assert!(at(three) == at(one) && three > two, "the same place, and a higher number");
        assert_eq!((ops.take(one), ops.get(one), ops.get(three)), (None, None, Some(&4)));
        let four = ops.begin();
        assert_ne!(at(four), at(three), "the place was free once");
        ops.end(four);
        assert_eq!(ops.which(|_| true), [two, three], "in the order in which they came");
        assert_eq!(ops.which(|op| *op == 4), [three]);
    }

    #[test]
    fn tickets_and_those_that_follow_them_are_no_operations() {
        let mut ops = Ops::new(0);
        for _ in 0..100 {
            begun(&mut ops, 10, 1);
        }
        let ticket = ops.ticket();
        let next = begun(&mut ops, 10, 2);
        for number in ticket..ticket + MAX_PLACES as u64 {
            assert!(ops.get(number).is_none() && number < next);
        }
    }

    #[test]
    fn a_full_table_takes_no_more_until_one_ends() {
        let mut ops = Ops::new(0);
        let first = begun(&mut ops, 10, 0);
        for op in 1..MAX_PLACES as u32 {
            begun(&mut ops, 10, op);
        }
        assert!(ops.is_full());
        drop(ops.take(first));
        assert!(ops.is_full(), "a step has it");
        ops.end(first);
        assert!(!ops.is_full());
        ops.begin();
        assert!(ops.is_full());
    }

    #[test]
    fn operations_end_at_their_deadlines_in_order_and_a_search_has_a_pause_behind_it() {
        let mut ops = Ops::new(0);
        assert_eq!(ops.next_deadline_us(), u64::MAX);
        let late = begun(&mut ops, 50_000, 1);
        let soon = begun(&mut ops, 20_000, 2);
        let sooner = begun(&mut ops, 10_000, 3);
        let ended = begun(&mut ops, 5_000, 4);
        drop(ops.take(ended));
        ops.end(ended);
        assert_eq!((ops.next_deadline_us(), ops.out_of_time(4_999)), (5_000, Vec::new()));
        assert_eq!(ops.out_of_time(5_000), [0; 0], "it has ended");
        assert_eq!(ops.next_deadline_us(), 10_000);
        let at_once = begun(&mut ops, 5_100, 5);
        assert_eq!(ops.next_deadline_us(), 5_000 + SEARCH_PAUSE_US);
        assert_eq!(ops.out_of_time(6_000), [at_once]);
        assert_eq!(ops.out_of_time(20_000), [at_once, sooner, soon], "one that is still there is named again");
        for number in [at_once, sooner, soon] {
            drop(ops.take(number));
            ops.end(number);
        }
        assert_eq!(ops.out_of_time(30_000), [0; 0]);
        assert_eq!((ops.next_deadline_us(), ops.out_of_time(50_000)), (50_000, alloc::vec![late]));
    }
}
