//! Merges as authors write them: each wrong one is reported by the law that it breaks, and no right one is.
//!
//! Two kinds of wrong merges break no law: the maximum of numbers compared as text, and a total stored beside its parts
//! that is no longer their sum. Both are lattice joins, of another order than was meant. Only a validator that checks
//! the total, or a scenario, finds them.

use rejoin_guest::{Merger, Native, Sampler};
use rejoin_laws::{CheckConfig, Counterexample, Law, Violation, check, check_law};
use rejoin_test_laws::strangers::*;

fn found<T: Merger + Sampler>() -> Vec<Counterexample> {
    let plugin = Native::<T>::default();
    Law::ALL
        .into_iter()
        .filter_map(|law| check_law(law, &plugin, &plugin, CheckConfig::default()).err().map(|found| *found))
        .collect()
}

fn broken<T: Merger + Sampler>() -> Vec<Law> {
    found::<T>().iter().map(|found| found.law).collect()
}

#[test]
fn right_merges_are_not_accused() {
    let all = [
        ("last by value", found::<LastByValue>()),
        ("top ten", found::<TopTen>()),
        ("refuses unknown", found::<RefusesUnknown>()),
        ("registers", found::<Registers>()),
        ("trimmed", found::<Trimmed>()),
    ];
    for (name, found) in all {
        assert!(found.is_empty(), "{name}: {}", found[0]);
    }
}

#[test]
fn each_wrong_merge_is_refuted_by_the_law_that_it_breaks() {
    for (name, broken, law) in [
        ("last by writer", broken::<LastByWriter>(), Law::Bracketing),
        ("average", broken::<Average>(), Law::Bracketing),
        ("sum", broken::<Sum>(), Law::Idempotence),
        ("hash order", broken::<HashOrder>(), Law::Permutation),
        ("first two", broken::<FirstTwo>(), Law::Permutation),
        ("first five", broken::<FirstFive>(), Law::Permutation),
        ("first fifty", broken::<FirstFifty>(), Law::Permutation),
        ("skips bad", broken::<SkipsBad>(), Law::Totality),
        ("skips some bad", broken::<SkipsSomeBad>(), Law::Totality),
        ("drops unknown", broken::<DropsUnknown>(), Law::Totality),
        ("constant", broken::<Constant>(), Law::Totality),
        ("nothing", broken::<Nothing>(), Law::Totality),
        ("length only", broken::<LengthOnly>(), Law::Totality),
        ("first bytes", broken::<FirstBytes>(), Law::Totality),
        ("first hundred", broken::<FirstHundred>(), Law::Totality),
        ("two shapes", broken::<TwoShapes>(), Law::Totality),
    ] {
        assert!(broken.contains(&law), "{name} breaks {broken:?}");
        if matches!(law, Law::Totality) {
            assert_eq!(broken, [law], "{name}: it merges what it takes by the laws");
        }
    }
    assert_eq!(broken::<LastByWriter>(), [Law::Bracketing], "it does all else as it was advised");
}

/// What the law of permutation advises must not break another law.
#[test]
fn who_follows_the_advice_breaks_no_law() {
    let advice = Law::Permutation.advice();
    assert!(advice.contains("the stamp, then the bytes. Not the writer"), "{advice}");
    let plugin = Native::<LastByValue>::default();
    let config = CheckConfig { cases: 3_000, ..CheckConfig::default() };
    check(&plugin, &plugin, config).unwrap_or_else(|found| panic!("{found}"));
    let plugin = Native::<LastByWriter>::default();
    let found = check(&plugin, &plugin, config).expect_err("the folded writer is another one's");
    assert!(found.law == Law::Bracketing && found.law.advice().contains("decides by the writer"), "{found}");
}

#[test]
fn what_refutes_them_is_small_and_says_why() {
    for (name, found, siblings, words) in [
        ("first five", found::<FirstFive>(), 6, "m(all)"),
        ("first fifty", found::<FirstFifty>(), 2, "m(all)"),
        ("skips bad", found::<SkipsBad>(), 4, "a value that cannot be read is a Fault"),
        ("skips some bad", found::<SkipsSomeBad>(), 2, "garbage must not be skipped"),
        ("drops unknown", found::<DropsUnknown>(), 2, "= all members of input"),
        ("constant", found::<Constant>(), 8, "something of the first"),
        ("nothing", found::<Nothing>(), 8, "something of the first"),
        ("length only", found::<LengthOnly>(), 4, "depends on byte"),
        ("first bytes", found::<FirstBytes>(), 4, "depends on byte"),
        ("first hundred", found::<FirstHundred>(), 4, "depends on byte"),
        ("two shapes", found::<TwoShapes>(), 2, "as every input alone has one"),
    ] {
        assert_eq!(found[0].trial.siblings.len(), siblings, "{name}: {}", found[0]);
        assert!(found[0].to_string().contains(words), "{name}: {}", found[0]);
    }
}

#[test]
fn a_sampler_with_one_value_has_tried_nothing() {
    let plugin = Native::<Lazy>::default();
    let found = check(&plugin, &plugin, CheckConfig::default()).expect_err("it passes any law");
    assert!(
        matches!(found.violation, Violation::NoSample { .. }) && found.to_string().contains("the same value"),
        "{found}"
    );
}
