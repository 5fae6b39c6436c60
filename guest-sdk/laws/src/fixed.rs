//! Cases that random ones rarely hit. Every law is checked on them as well.
//!
//! All triples of the five smallest values, eight different values, as many siblings as a bucket allows, a few large
//! values and one of more than 64 KiB, texts that cannot be read beside a valid value, values with an unknown member,
//! and values that differ in one byte. Each has found a wrong merge that passed thousands of small random cases.

use std::collections::BTreeSet;

use crate::cases::{Case, Input};
use crate::damage::{BYTE_CHANGES, TO_CHANGED, TO_NO_FORMAT, TO_UNKNOWN, TO_UNREADABLE, unreadable_texts};
use crate::merge::Sampler;
use crate::rng::Rng;
use crate::samples::smallest;
use crate::totality::DIFFERENT;

/// All triples of this many of the smallest values are cases.
const SMALLEST: usize = 5;
/// The seeds of all other values.
const SEEDS: u64 = 24;
/// Size hints for large values, and the most bytes of one: the hint is halved until the value fits.
const LARGE: [u32; 3] = [60, 250, 1000];
const LARGE_BYTES: usize = 64 << 10;
/// Bytes of a huge value: lengths of 16 bits end below. It is one beside small ones, because every law merges it a few
/// times.
const HUGE_BYTES: std::ops::RangeInclusive<usize> = (64 << 10) + 1..=80 << 10;
/// The largest hint with which a huge value is searched, and the most values that are drawn for it.
const MAX_HINT: u32 = 1 << 20;
const SEARCH_STEPS: u32 = 24;
/// The sizes of values that get an unknown member or a changed byte, and how many of their objects get the member.
const DAMAGED: [u32; 3] = [1, 3, 8];
const OBJECTS: u64 = 6;
/// The stamp that siblings share.
const NOON_MS: u64 = 1_700_000_000_000;

/// The cases, the smallest first. `siblings` is the most that a merge is given, `value_bytes` the largest value.
/// Damaged values are drawn only if the sampler draws valid ones, since otherwise nothing can be said of them.
pub(crate) fn draw(seed: u64, sampler: &dyn Sampler, siblings: usize, value_bytes: usize) -> Vec<Case> {
    let mut rng = Rng::new(seed);
    let mut cases = triples(&mut rng, sampler);
    cases.extend(different(&mut rng, sampler));
    cases.extend(wide(&mut rng, siblings));
    cases.extend(large(&mut rng, sampler, value_bytes));
    if value_bytes >= *HUGE_BYTES.end() {
        cases.extend(huge(&mut rng, sampler));
    }
    if sampler.draws_valid_values() {
        cases.extend(garbage(&mut rng));
        cases.extend(unknown(&mut rng));
        cases.extend(changed(&mut rng, sampler, value_bytes));
    }
    cases
}

fn input(rng: &mut Rng, seed: u64, size: u32) -> Input {
    Input { seeds: vec![seed], size, damage: None, stamp_ms: NOON_MS + rng.below(2), writer: 1 + rng.below(3) }
}

fn case(inputs: Vec<Input>) -> Case {
    Case { key: b"k".to_vec(), inputs }
}

/// [`DIFFERENT`] values that all differ, if the sampler draws as many.
fn different(rng: &mut Rng, sampler: &dyn Sampler) -> Option<Case> {
    let values = smallest(sampler, DIFFERENT);
    (values.len() == DIFFERENT).then(|| case(values.iter().map(|one| input(rng, one.seed, one.size)).collect()))
}

fn triples(rng: &mut Rng, sampler: &dyn Sampler) -> Vec<Case> {
    let values = smallest(sampler, SMALLEST);
    let mut cases = Vec::new();
    for one in &values {
        for two in &values {
            for three in &values {
                cases.push(case([one, two, three].into_iter().map(|it| input(rng, it.seed, it.size)).collect()));
            }
        }
    }
    cases
}

/// As many siblings as a merge may be given, and a few numbers below.
fn wide(rng: &mut Rng, siblings: usize) -> Vec<Case> {
    let counts = BTreeSet::from([6, 11, siblings / 2, siblings.saturating_sub(1), siblings]);
    let of = |count: usize| {
        let inputs = (0..count).map(|_| {
            let (seed, size) = (rng.below(SEEDS), 1 + u32::try_from(rng.below(3)).unwrap_or(0));
            input(rng, seed, size)
        });
        case(inputs.collect())
    };
    counts.into_iter().filter(|count| (3..=siblings).contains(count)).map(of).collect()
}

fn large(rng: &mut Rng, sampler: &dyn Sampler, most: usize) -> Vec<Case> {
    LARGE.into_iter().map(|size| case((0..3).map(|_| fitting(rng, sampler, size, most)).collect())).collect()
}

/// A value of that size hint, or of a smaller one if it has too many bytes.
fn fitting(rng: &mut Rng, sampler: &dyn Sampler, mut size: u32, most: usize) -> Input {
    let (seed, most) = (rng.below(SEEDS), most.min(LARGE_BYTES));
    while size > 0 && sampler.sample(seed, size).is_ok_and(|value| value.len() > most) {
        size /= 2;
    }
    input(rng, seed, size)
}

/// A value of more than 64 KiB between two small ones, if the sampler draws one.
fn huge(rng: &mut Rng, sampler: &dyn Sampler) -> Option<Case> {
    let seed = rng.below(SEEDS);
    // A sampler that fails was asked for too much.
    let length = |size: u32| sampler.sample(seed, size).map_or(usize::MAX, |value| value.len());
    let mut size = LARGE[LARGE.len() - 1];
    let (mut below, mut above, mut longest) = (0, None, 0);
    // The hint is doubled until the value is too large, and then bisected. A value that does not grow never gets there.
    for _ in 0..SEARCH_STEPS {
        let bytes = length(size);
        if HUGE_BYTES.contains(&bytes) {
            return Some(case(vec![input(rng, 1, 2), input(rng, seed, size), input(rng, 2, 3)]));
        }
        if bytes > *HUGE_BYTES.end() {
            above = Some(size);
        } else if bytes <= longest && above.is_none() {
            return None;
        } else {
            (below, longest) = (size, bytes.max(longest));
        }
        size = above.map_or(size.saturating_mul(2), |above| below + (above - below) / 2);
        if size > MAX_HINT || size == below {
            return None;
        }
    }
    None
}

/// A valid value beside texts that cannot be read, of either kind and in both orders.
fn garbage(rng: &mut Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in [TO_UNREADABLE, TO_NO_FORMAT] {
        let damaged = |rng: &mut Rng, nth: u64| Input { damage: Some(kind + nth), ..input(rng, 0, 1) };
        for seed in 0..4 {
            let valid = input(rng, seed, 1 + u32::try_from(seed).unwrap_or(0) * 2);
            let mut all: Vec<Input> = (0..unreadable_texts()).map(|nth| damaged(rng, nth)).collect();
            cases.push(case(vec![valid.clone(), damaged(rng, seed % unreadable_texts())]));
            all.insert(usize::try_from(seed).unwrap_or(0), valid);
            cases.push(case(all));
        }
    }
    cases
}

/// A value and three copies in which one byte differs: the last, the middle or the first of a small value, the last of
/// a large one.
fn changed(rng: &mut Rng, sampler: &dyn Sampler, most: usize) -> Vec<Case> {
    let copies = |value: Input, place: u64| {
        let copy = |nth: u64| Input { damage: Some(TO_CHANGED + place * BYTE_CHANGES + nth), ..value.clone() };
        case(std::iter::once(value.clone()).chain((0..BYTE_CHANGES).map(copy)).collect())
    };
    let mut cases = Vec::new();
    for size in DAMAGED {
        cases.extend((0..3).map(|place| copies(input(rng, place, size), place)));
    }
    cases.extend(LARGE.map(|size| copies(fitting(rng, sampler, size, most), 0)));
    cases
}

/// A value with an unknown member beside one without.
fn unknown(rng: &mut Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for size in DAMAGED {
        for nth in 0..OBJECTS {
            let damaged = Input { damage: Some(TO_UNKNOWN + nth), ..input(rng, nth, size) };
            cases.push(case(vec![damaged, input(rng, nth + 1, size)]));
        }
    }
    cases
}
