//! Every law must be able to fail, and a counterexample must be small and readable.

use rejoin_laws::{Effort, Law, Merge, Rng, Sampler, Sibling, check, check_law};

struct By(fn(&[Sibling]) -> Vec<u8>);

impl Merge for By {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, String> {
        Ok((self.0)(siblings))
    }
}

/// Sorted sets of small letters.
struct Sets;

impl Sampler for Sets {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        let mut rng = Rng::new(seed);
        let mut letters: Vec<u8> = (0..size.min(6)).map(|_| b'a' + u8::try_from(rng.below(8)).unwrap_or(0)).collect();
        letters.sort_unstable();
        letters.dedup();
        Ok(letters)
    }
}

fn union(siblings: &[Sibling]) -> Vec<u8> {
    let mut all: Vec<u8> = siblings.iter().flat_map(|sibling| sibling.value.clone()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn last(siblings: &[Sibling]) -> Vec<u8> {
    siblings.last().map(|sibling| sibling.value.clone()).unwrap_or_default()
}

/// The middle of three: any order gives the same, any grouping does not.
fn median(siblings: &[Sibling]) -> Vec<u8> {
    let mut values: Vec<&[u8]> = siblings.iter().map(|sibling| sibling.value.as_slice()).collect();
    values.sort_unstable();
    values[values.len() / 2].to_vec()
}

/// Counts every letter as often as it comes.
fn bag(siblings: &[Sibling]) -> Vec<u8> {
    let mut all: Vec<u8> = siblings.iter().flat_map(|sibling| sibling.value.clone()).collect();
    all.sort_unstable();
    all
}

/// The latest by stamp, and by order where stamps are equal: right only as long as clocks never agree.
fn latest(siblings: &[Sibling]) -> Vec<u8> {
    siblings.iter().max_by_key(|sibling| sibling.stamp_ms).map(|sibling| sibling.value.clone()).unwrap_or_default()
}

#[test]
fn a_union_obeys_every_law() {
    let report = check(&By(union), &Sets, Effort::default()).expect("a union is a semilattice");
    assert_eq!(report.laws.len(), 4);
    assert!(report.collisions > report.cases / 8, "only {} of {} cases collide", report.collisions, report.cases);
}

#[test]
fn each_law_refutes_the_merge_that_breaks_it() {
    for (law, merge) in [
        (Law::Permutation, By(last)),
        (Law::Permutation, By(latest)),
        (Law::Bracketing, By(median)),
        (Law::Idempotence, By(bag)),
        (Law::Absorption, By(bag)),
    ] {
        let found = check_law(law, &merge, &Sets, Effort::default()).expect_err("this merge breaks the law");
        assert_eq!(found.law, law);
        assert!(law.hold(&merge, &found.key, &found.siblings).is_err(), "the printed siblings must show it: {found}");
    }
}

#[test]
fn a_counterexample_is_small_and_readable() {
    let found = check_law(Law::Permutation, &By(last), &Sets, Effort::default()).expect_err("the order decides");
    assert_eq!(found.siblings.len(), 2, "{found}");
    assert!(found.siblings.iter().all(|sibling| sibling.value.len() <= 1 && sibling.stamp_ms == 0), "{found}");
    let text = found.to_string();
    assert!(text.starts_with("the merge breaks the law of permutation (found with seed 1)"), "{text}");
    assert!(text.contains("input 0: \"") && text.contains("left:"), "{text}");
}

#[test]
fn the_same_seed_finds_the_same() {
    let find = |seed| check(&By(bag), &Sets, Effort { seed, ..Effort::default() }).expect_err("a bag is not idempotent");
    assert_eq!(find(7), find(7));
}

#[test]
fn a_merge_that_always_refuses_obeys_nothing() {
    struct Refuses;
    impl Merge for Refuses {
        fn merge(&self, _key: &[u8], _siblings: &[Sibling]) -> Result<Vec<u8>, String> {
            Err("no".into())
        }
    }
    assert!(check(&Refuses, &Sets, Effort::default()).is_err());
    for law in rejoin_laws::laws::ALL {
        assert!(check_law(law, &Refuses, &Sets, Effort { cases: 50, ..Effort::default() }).is_err(), "{law}");
    }
}
