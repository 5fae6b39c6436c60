//! Every law must be able to fail, and a counterexample must be small and readable.

use std::cell::Cell;

use rejoin_laws::{
    BucketLimits, CheckConfig, Law, Merge, MergeError, MergeResult, RawBytes, Rng, Sampler, Sibling, Verdict,
    Violation, check, check_law,
};

/// Merges small letters by a function, and refuses whatever else there is.
struct By(fn(&[Sibling]) -> Vec<u8>);

impl Merge for By {
    fn merge(&self, _key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let letters = siblings.iter().flat_map(|sibling| &sibling.value).all(u8::is_ascii_lowercase);
        if letters { Ok((self.0)(siblings)) } else { Err("no small letters".into()) }
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

/// Whichever comes first.
fn first(siblings: &[Sibling]) -> Vec<u8> {
    siblings.first().map(|sibling| sibling.value.clone()).unwrap_or_default()
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

/// Says of each letter whether it came once, or more often (twice): a value that comes again is counted again.
fn once_or_twice(siblings: &[Sibling]) -> Vec<u8> {
    let mut all = bag(siblings);
    let mut seen: Vec<u8> = Vec::new();
    all.retain(|letter| {
        seen.push(*letter);
        seen.iter().filter(|one| *one == letter).count() <= 2
    });
    all
}

/// Values that differ are a conflict, and a conflict is a long word.
fn conflict(siblings: &[Sibling]) -> Vec<u8> {
    let agreed = siblings.iter().all(|sibling| sibling.value == siblings[0].value);
    if agreed { siblings[0].value.clone() } else { vec![b'x'; 500] }
}

/// The latest by stamp, and the first of those that are equal: right only as long as clocks never agree.
fn latest(siblings: &[Sibling]) -> Vec<u8> {
    let latest = siblings.iter().reduce(|best, next| if next.stamp_ms > best.stamp_ms { next } else { best });
    latest.map(|sibling| sibling.value.clone()).unwrap_or_default()
}

fn broken(merge: &dyn Merge, sampler: &dyn Sampler, config: CheckConfig) -> Vec<Law> {
    Law::ALL.into_iter().filter(|law| check_law(*law, merge, sampler, config).is_err()).collect()
}

#[test]
fn a_union_obeys_every_law() {
    let largest = BucketLimits { siblings: 32, value_bytes: 1 << 16, object_bytes: 1 << 18 };
    let tried = check(&By(union), &Sets, CheckConfig { bucket: Some(largest), ..CheckConfig::default() })
        .expect("a union is a semilattice");
    assert_eq!(tried.iter().map(|tried| tried.law).collect::<Vec<_>>(), Law::ALL);
    for tried in &tried[..7] {
        assert!(tried.cases == 300 && tried.judged > 100, "{tried:?}");
        assert!(tried.collisions > tried.cases / 4, "cases that do not collide find nothing: {tried:?}");
    }
}

#[test]
fn each_law_refutes_the_merge_that_breaks_it_and_no_other_law_does() {
    let lawless: [(By, &[Law]); 7] = [
        (By(first), &[Law::Permutation]),
        (By(last), &[Law::Permutation, Law::Absorption]),
        (By(latest), &[Law::Permutation]),
        (By(median), &[Law::Bracketing, Law::Absorption]),
        (By(bag), &[Law::Idempotence, Law::Absorption]),
        (By(once_or_twice), &[Law::Absorption]),
        (By(conflict), &[Law::Growth]),
    ];
    for (number, (merge, laws)) in lawless.iter().enumerate() {
        assert_eq!(broken(merge, &Sets, CheckConfig::default()), *laws, "merge {number}");
    }
}

#[test]
fn what_is_printed_shows_the_fault() {
    for merge in [By(first), By(median), By(bag), By(once_or_twice), By(conflict)] {
        let found = check(&merge, &Sets, CheckConfig::default()).expect_err("it breaks a law");
        assert!(matches!(found.replay(&merge), Verdict::Broken(violation) if violation == found.violation), "{found}");
        assert_eq!(found.replay(&By(union)), Verdict::Held, "{found}");
    }
}

#[test]
fn equal_stamps_are_met_only_where_values_are_made_to_collide() {
    let apart = CheckConfig { collide: false, cases: 3_000, ..CheckConfig::default() };
    assert_eq!(broken(&By(latest), &Sets, apart), []);
    let found = check(&By(latest), &Sets, CheckConfig::default()).expect_err("clocks do agree");
    let [one, two] = found.trial.siblings.as_slice() else { panic!("two are enough: {found}") };
    assert_eq!(one.stamp_ms, two.stamp_ms, "{found}");
}

/// Breaks on the letter d, asks too much of the machine on e, and refuses f, though all three are valid.
struct Picky;

impl Merge for Picky {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        let merged = By(union).merge(key, siblings)?;
        match merged.iter().find(|letter| (b'd'..=b'f').contains(*letter)) {
            Some(b'd') => Err(MergeError::Trapped("d".into())),
            Some(b'e') => Err(MergeError::Exceeded("e".into())),
            Some(_) => Err("f".into()),
            None => Ok(merged),
        }
    }
}

#[test]
fn a_merge_that_does_not_answer_breaks_totality_alone() {
    assert_eq!(broken(&Picky, &Sets, CheckConfig::default()), [Law::Totality]);
    let found = check_law(Law::Totality, &Picky, &Sets, CheckConfig::default()).expect_err("d, e and f are valid");
    let Violation::NoAnswer { siblings, failure } = &found.violation else { panic!("{found}") };
    let merged: Vec<u8> = siblings.iter().flat_map(|sibling| sibling.value.clone()).collect();
    assert!(merged.iter().any(|letter| failure.to_string().ends_with(char::from(*letter))), "{found}");
    assert!(found.trial.siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>() <= 3, "it is small: {found}");
}

#[test]
fn a_merge_that_breaks_where_a_case_is_made_breaks_totality_too() {
    /// Breaks on two values of one writer and one time: where nothing collides, only what is merged beforehand has
    /// that.
    struct OneAtATime;
    impl Merge for OneAtATime {
        fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let [one, two] = siblings else { return By(union).merge(key, siblings) };
            let all = union(siblings);
            let rivals = ![&one.value, &two.value].contains(&&all)
                && one.value != two.value
                && (one.stamp_ms, one.writer) == (two.stamp_ms, two.writer);
            if rivals { Err(MergeError::Trapped("rivals".into())) } else { By(union).merge(key, siblings) }
        }
    }
    let found = check_law(Law::Totality, &OneAtATime, &Sets, CheckConfig { collide: false, ..CheckConfig::default() })
        .expect_err("there are rivals");
    let Violation::NoAnswer { siblings, .. } = &found.violation else { panic!("{found}") };
    assert!(siblings.len() == 2 && siblings[0].writer == siblings[1].writer, "{found}");
}

#[test]
fn a_merge_that_always_refuses_is_not_total() {
    struct Refuses;
    impl Merge for Refuses {
        fn merge(&self, _key: &[u8], _siblings: &[Sibling]) -> MergeResult {
            Err("no".into())
        }
    }
    assert_eq!(broken(&Refuses, &Sets, CheckConfig::default()), [Law::Totality]);
    assert_eq!(
        broken(&Refuses, &RawBytes, CheckConfig::default()),
        [],
        "of values that may be invalid nothing can be said"
    );
}

#[test]
fn garbage_may_be_refused_and_must_not_break_anything() {
    struct Trusting;
    impl Merge for Trusting {
        fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let merged = By(union).merge(key, siblings);
            if siblings.iter().any(|sibling| sibling.value.contains(&b'[')) {
                Err(MergeError::Trapped("a bracket".into()))
            } else {
                merged
            }
        }
    }
    assert_eq!(broken(&Trusting, &Sets, CheckConfig::default()), [Law::Totality]);
    let found = check(&Trusting, &Sets, CheckConfig::default()).expect_err("brackets break it");
    let bytes: usize = found.trial.siblings.iter().map(|sibling| sibling.value.len()).sum();
    assert!(!found.trial.valid && bytes <= 2, "only the bracket is left: {found}");
}

#[test]
fn a_merge_that_remembers_is_not_replayed() {
    struct Counting(Cell<u8>);
    impl Merge for Counting {
        fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
            self.0.set(self.0.get() % 26 + 1);
            By(union).merge(key, siblings).map(|merged| [merged, vec![b'a' + self.0.get() - 1]].concat())
        }
    }
    assert!(check_law(Law::Replay, &Counting(Cell::new(0)), &Sets, CheckConfig::default()).is_err());
    assert!(check_law(Law::Replay, &By(last), &Sets, CheckConfig::default()).is_ok());
}

/// Letters, as many as asked for.
struct Words;

impl Sampler for Words {
    fn sample(&self, seed: u64, size: u32) -> Result<Vec<u8>, String> {
        Ok(vec![b'a' + (seed % 8) as u8; size as usize])
    }
}

#[test]
fn only_the_largest_siblings_show_what_is_over_the_limits() {
    struct Slow;
    impl Merge for Slow {
        fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
            let bytes: usize = siblings.iter().map(|sibling| sibling.value.len()).sum();
            if siblings.len() > 2 && bytes > 150_000 {
                Err(MergeError::Exceeded("fuel".into()))
            } else {
                By(union).merge(key, siblings)
            }
        }
    }
    assert_eq!(broken(&Slow, &Words, CheckConfig::default()), [], "small values do not show it");
    let config = CheckConfig {
        bucket: Some(BucketLimits { siblings: 32, value_bytes: 1 << 16, object_bytes: 1 << 18 }),
        ..CheckConfig::default()
    };
    assert_eq!(broken(&Slow, &Words, config), [Law::Limits]);
    let found = check_law(Law::Limits, &Slow, &Words, config).expect_err("too slow");
    let bytes: usize = found.trial.siblings.iter().map(|sibling| sibling.value.len()).sum();
    assert!(
        found.trial.siblings.len() == 3 && bytes < 180_000,
        "{} siblings, {bytes} bytes",
        found.trial.siblings.len()
    );
}

#[test]
fn a_counterexample_is_small_and_readable() {
    let found = check_law(Law::Permutation, &By(last), &Sets, CheckConfig::default()).expect_err("the order decides");
    let siblings = &found.trial.siblings;
    assert_eq!(siblings.len(), 2, "{found}");
    assert!(siblings.iter().all(|sibling| sibling.value.len() <= 1 && sibling.stamp_ms == 0), "{found}");
    let text = found.to_string();
    assert!(text.starts_with("the merge breaks the law of permutation (found with seed 1)"), "{text}");
    assert!(text.contains("input 0: \"") && text.contains("left:"), "{text}");
}

#[test]
fn a_sampler_that_fails_is_a_counterexample_too() {
    struct Empty;
    impl Sampler for Empty {
        fn sample(&self, _seed: u64, _size: u32) -> Result<Vec<u8>, String> {
            Err("no values today".into())
        }
    }
    let found = check(&By(union), &Empty, CheckConfig::default()).expect_err("there is nothing to try");
    assert!(
        matches!(found.violation, Violation::NoSample { .. }) && found.to_string().contains("no values today"),
        "{found}"
    );
}

#[test]
fn the_same_seed_finds_the_same() {
    let find = |seed| {
        check(&By(bag), &Sets, CheckConfig { seed, ..CheckConfig::default() }).expect_err("a bag is not idempotent")
    };
    assert_eq!(find(7), find(7));
}

/// A union of letters with a validator of its own.
struct Validated(fn(&[u8]) -> Result<(), MergeError>);

impl Merge for Validated {
    fn merge(&self, key: &[u8], siblings: &[Sibling]) -> MergeResult {
        By(union).merge(key, siblings)
    }

    fn validate(&self, _key: &[u8], value: &[u8]) -> Option<Result<(), MergeError>> {
        Some((self.0)(value))
    }
}

#[test]
fn a_validator_takes_what_the_merge_takes_and_makes() {
    let letters = |value: &[u8]| {
        value.iter().all(u8::is_ascii_lowercase).then_some(()).ok_or_else(|| MergeError::from("no small letters"))
    };
    assert_eq!(broken(&Validated(letters), &Sets, CheckConfig::default()), []);
    let too_strict = |value: &[u8]| {
        let good = value.iter().all(|byte| byte.is_ascii_lowercase() && *byte != b'c');
        good.then_some(()).ok_or_else(|| MergeError::from("no c"))
    };
    let too_lax = |_: &[u8]| Ok(());
    let no_results = |value: &[u8]| {
        (value.len() <= 6 && value.iter().all(u8::is_ascii_lowercase))
            .then_some(())
            .ok_or_else(|| MergeError::from("too many letters"))
    };
    let breaks = |value: &[u8]| match value.iter().find(|byte| !byte.is_ascii_lowercase()) {
        Some(b'[') => Err(MergeError::Trapped("a bracket".into())),
        Some(_) => Err("no small letters".into()),
        None => Ok(()),
    };
    for (validate, words) in [
        (too_strict as fn(&[u8]) -> Result<(), MergeError>, "the validator does not take a valid value: no c"),
        (too_lax, "validate(input"),
        (no_results, "the validator does not take the result of a merge: too many letters"),
        (breaks, "the validator, given garbage: a bracket"),
    ] {
        let validated = Validated(validate);
        assert_eq!(broken(&validated, &Sets, CheckConfig::default()), [Law::Totality]);
        let found = check_law(Law::Totality, &validated, &Sets, CheckConfig::default()).expect_err("it breaks the law");
        assert!(found.to_string().contains(words), "{found}");
    }
}

#[test]
fn a_check_says_how_far_it_has_come_and_shrinking_ends_with_its_time() {
    let mut told = Vec::new();
    let config = CheckConfig { shrink: std::time::Duration::ZERO, ..CheckConfig::default() };
    let found = rejoin_laws::check_law_with_progress(Law::Permutation, &By(last), &Sets, config, &mut |progress| {
        told.push(progress)
    });
    let unshrunk = found.expect_err("the order decides");
    assert!(
        matches!(told[0], rejoin_laws::Progress::Checking { law: Law::Permutation, case: 1, cases } if cases > 300),
        "{:?}",
        told[0]
    );
    let end = rejoin_laws::Progress::OutOfTime { law: Law::Permutation, budget: config.shrink };
    assert!(told.ends_with(&[end]) && told.iter().filter(|one| **one == end).count() == 1, "{:?}", told.last());
    assert!(matches!(unshrunk.replay(&By(last)), Verdict::Broken(_)), "what was found first is kept: {unshrunk}");
}
