//! Cases that every law is tried on beside those that are drawn: what chance finds too seldom.
//!
//! All triples of the few smallest values, eight values that all differ, as many siblings as a bucket allows, a few
//! large values, garbage beside a valid value, and values with a member that the plugin does not know. Merges that pass
//! thousands of small random cases have failed on one of these.

use std::collections::BTreeSet;

use crate::cases::{Case, Input};
use crate::damage::{TO_UNKNOWN, TO_UNREADABLE, unreadable_texts};
use crate::merge::Sampler;
use crate::rng::Rng;
use crate::totality::DIFFERENT;

/// Of so many of the smallest values all triples are tried.
const SMALLEST: usize = 5;
/// The seeds and sizes among which the smallest values are looked for.
const SEEDS: u64 = 24;
const SIZES: u32 = 4;
/// Hints for large values, and the most bytes of one: a larger hint is halved until the value fits.
const LARGE: [u32; 3] = [60, 250, 1000];
const LARGE_BYTES: usize = 64 << 10;
/// The sizes of the values to which an unknown member is added, and to how many of their objects.
const TOLD: [u32; 3] = [1, 3, 8];
const OBJECTS: u64 = 6;
/// The stamp at which they collide.
const NOON_MS: u64 = 1_700_000_000_000;

/// The cases, the smallest first. `siblings` is the most that a merge is given; garbage comes only where the sampler
/// says what is none.
pub(crate) fn draw(seed: u64, sampler: &dyn Sampler, siblings: usize) -> Vec<Case> {
    let mut rng = Rng::new(seed);
    let mut cases = triples(&mut rng, sampler);
    cases.extend(different(&mut rng, sampler));
    cases.extend(wide(&mut rng, siblings));
    cases.extend(large(&mut rng, sampler));
    if sampler.draws_valid_values() {
        cases.extend(garbage(&mut rng));
        cases.extend(unknown(&mut rng));
    }
    cases
}

fn input(rng: &mut Rng, seed: u64, size: u32) -> Input {
    Input { seeds: vec![seed], size, damage: None, stamp_ms: NOON_MS + rng.below(2), writer: 1 + rng.below(3) }
}

fn case(inputs: Vec<Input>) -> Case {
    Case { key: b"k".to_vec(), inputs }
}

/// As many different values as show whether the merge keeps anything of them, if the sampler has so many.
fn different(rng: &mut Rng, sampler: &dyn Sampler) -> Option<Case> {
    let values = smallest(sampler, DIFFERENT);
    (values.len() == DIFFERENT).then(|| case(values.into_iter().map(|(seed, size)| input(rng, seed, size)).collect()))
}

/// The smallest values, so many at the most, as seed and size.
fn smallest(sampler: &dyn Sampler, count: usize) -> Vec<(u64, u32)> {
    let mut values = BTreeSet::new();
    let mut found = Vec::new();
    for size in 0..SIZES {
        for seed in 0..SEEDS {
            let Ok(value) = sampler.sample(seed, size) else { continue };
            if values.insert(value.clone()) {
                found.push((value.len(), value, seed, size));
            }
        }
    }
    found.sort();
    found.truncate(count);
    found.into_iter().map(|(_, _, seed, size)| (seed, size)).collect()
}

fn triples(rng: &mut Rng, sampler: &dyn Sampler) -> Vec<Case> {
    let values = smallest(sampler, SMALLEST);
    let mut cases = Vec::new();
    for one in &values {
        for two in &values {
            for three in &values {
                cases.push(case([one, two, three].into_iter().map(|(seed, size)| input(rng, *seed, *size)).collect()));
            }
        }
    }
    cases
}

/// As many siblings as there may be, and a few numbers in between.
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

fn large(rng: &mut Rng, sampler: &dyn Sampler) -> Vec<Case> {
    let fitting = |rng: &mut Rng, mut size: u32| {
        let seed = rng.below(SEEDS);
        while size > 0 && sampler.sample(seed, size).is_ok_and(|value| value.len() > LARGE_BYTES) {
            size /= 2;
        }
        input(rng, seed, size)
    };
    LARGE.into_iter().map(|size| case((0..3).map(|_| fitting(rng, size)).collect())).collect()
}

/// A valid value beside texts that nothing can read, in both orders.
fn garbage(rng: &mut Rng) -> Vec<Case> {
    let damaged = |rng: &mut Rng, nth: u64| Input { damage: Some(TO_UNREADABLE + nth), ..input(rng, 0, 1) };
    let mut cases = Vec::new();
    for seed in 0..4 {
        let valid = input(rng, seed, 1 + u32::try_from(seed).unwrap_or(0) * 2);
        let mut all: Vec<Input> = (0..unreadable_texts()).map(|nth| damaged(rng, nth)).collect();
        cases.push(case(vec![valid.clone(), damaged(rng, seed % unreadable_texts())]));
        all.insert(usize::try_from(seed).unwrap_or(0), valid);
        cases.push(case(all));
    }
    cases
}

/// A value with a member that the plugin does not know beside one without.
fn unknown(rng: &mut Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for size in TOLD {
        for nth in 0..OBJECTS {
            let told = Input { damage: Some(TO_UNKNOWN + nth), ..input(rng, nth, size) };
            cases.push(case(vec![told, input(rng, nth + 1, size)]));
        }
    }
    cases
}
