//! The checker itself, measured: every wrong merge of the corpus is refuted by what it breaks, and no right one is.

use std::time::Duration;

use rejoin_guest::{Merger, Native, Sampler};
use rejoin_laws::{CheckConfig, HistoryConfig, Law, check_classics, check_histories};
use rejoin_test_laws::corpus::{Refutation, Specimen, broken, refutations, right, typed};
use rejoin_test_laws::strangers::*;

fn refuted(specimen: &Specimen, config: CheckConfig) -> Vec<(Refutation, String)> {
    let intent = specimen.intent.map(|intent| intent());
    refutations(specimen, specimen, intent.as_deref(), config)
}

/// Fewer triples than the default, which all merges of the corpus can do with.
fn config() -> CheckConfig {
    // Long enough for a machine that is busy with other tests.
    CheckConfig { smallest: 40, exhaust: Duration::from_secs(600), ..CheckConfig::default() }
}

fn wrong_ones() -> Vec<Specimen> {
    [broken::plain(), broken::hidden(), typed::broken()].concat()
}

#[test]
fn each_wrong_merge_is_refuted_by_what_it_breaks() {
    let all = wrong_ones();
    assert!(all.len() >= 40, "{} wrong merges", all.len());
    for specimen in &all {
        let (found, wanted) = (refuted(specimen, config()), specimen.refuted_by.expect("it is wrong"));
        assert!(found.iter().any(|(what, _)| *what == wanted), "{}: not {wanted:?}, but {found:#?}", specimen.name);
    }
}

#[test]
fn histories_alone_refute_data_types_that_obey_every_law() {
    for specimen in typed::broken() {
        let found = refuted(&specimen, config());
        assert!(found.iter().all(|(what, _)| *what == Refutation::History), "{}: {found:#?}", specimen.name);
    }
}

#[test]
fn three_hundred_random_cases_miss_what_is_hidden() {
    let all = broken::hidden();
    for specimen in &all {
        let found = refuted(specimen, CheckConfig::only_random());
        assert!(found.is_empty(), "{}: {found:#?}", specimen.name);
    }
    assert!(all.len() >= 5, "{} are hidden", all.len());
}

#[test]
fn no_right_merge_is_accused() {
    let all = [right::all(), typed::sound()].concat();
    assert!(all.len() >= 12, "{} right merges", all.len());
    for specimen in all {
        let found = refuted(&specimen, config());
        assert!(found.is_empty(), "{}: {found:#?}", specimen.name);
    }
}

#[test]
fn sound_data_types_pass_four_operations_and_every_classic() {
    for specimen in typed::sound() {
        let intent = specimen.intent.map(|intent| intent()).expect("it has operations");
        let stats = check_histories(&specimen, &*intent, HistoryConfig::default(), &mut |_| {})
            .unwrap_or_else(|wrong| panic!("{}: {wrong}", specimen.name));
        assert!(stats.histories > 1_000 && stats.operations >= 2, "{}: {stats:?}", specimen.name);
        let played = check_classics(&specimen, &*intent).unwrap_or_else(|wrong| panic!("{}: {wrong}", specimen.name));
        assert_eq!(played > 0, intent.roles().is_some(), "{}", specimen.name);
    }
}

#[test]
fn each_classic_is_failed_by_some_data_type() {
    let mut failed: Vec<&str> = Vec::new();
    for specimen in typed::broken() {
        let intent = specimen.intent.map(|intent| intent()).expect("it has operations");
        failed.extend(check_classics(&specimen, &*intent).err().and_then(|wrong| wrong.scenario));
    }
    failed.sort_unstable();
    failed.dedup();
    assert!(failed.len() >= 3, "the first classics that fail are {failed:?}");
}

fn of_a_stranger<T: Merger + Sampler>() -> Vec<Refutation> {
    let plugin = Native::<T>::default();
    refutations(&plugin, &plugin, None, config()).into_iter().map(|(what, _)| what).collect()
}

#[test]
fn the_merges_of_strangers_belong_to_the_corpus() {
    for (name, found) in [
        ("skips bad", of_a_stranger::<SkipsBad>()),
        ("skips some bad", of_a_stranger::<SkipsSomeBad>()),
        ("drops unknown", of_a_stranger::<DropsUnknown>()),
        ("first bytes", of_a_stranger::<FirstBytes>()),
        ("two shapes", of_a_stranger::<TwoShapes>()),
    ] {
        assert_eq!(found, [Refutation::Law(Law::Totality)], "{name}");
    }
    for (name, found) in [
        ("top ten", of_a_stranger::<TopTen>()),
        ("refuses unknown", of_a_stranger::<RefusesUnknown>()),
        ("registers", of_a_stranger::<Registers>()),
        ("trimmed", of_a_stranger::<Trimmed>()),
        ("last by value", of_a_stranger::<LastByValue>()),
    ] {
        assert_eq!(found, [], "{name}");
    }
}
