//! A broken component is reported by the law that it breaks and by no other, and its counterexample can be replayed.

use std::time::Duration;

use rejoin_laws::{CheckConfig, Counterexample, Law, MergeError, Sibling, Trial, Verdict, Violation, check, check_law};
use rejoin_merge::{
    CallLimits, Compiler, Fixture, FixtureError, LawOptions, LawReport, ModuleLimits, PluginUnderTest, check_laws,
    check_laws_with_options,
};
use rejoin_proto::catalog::BucketProps;
use rejoin_test_hostile::{guests, lawless};
use rejoin_test_laws::component;

/// A bucket with little fuel: what is too slow shows soon.
fn bucket() -> BucketProps {
    BucketProps { fuel: 100_000_000, ..BucketProps::default() }
}

fn on_a_host(bytes: &[u8]) -> PluginUnderTest {
    load(bytes, &bucket())
}

fn load(bytes: &[u8], props: &BucketProps) -> PluginUnderTest {
    let loaded = PluginUnderTest::load(bytes, &Compiler::InProcess, &ModuleLimits::default(), props);
    loaded.unwrap_or_else(|why| panic!("{why}"))
}

fn checked(under_test: &PluginUnderTest, config: CheckConfig) -> LawReport {
    check_laws(under_test, &bucket(), config)
}

fn broken(report: &LawReport) -> Vec<Law> {
    report.counterexamples().map(|found| found.law).collect()
}

/// The one counterexample to a law.
fn refuted(bytes: &[u8], law: Law) -> (PluginUnderTest, Counterexample) {
    let under_test = on_a_host(bytes);
    let found = match law {
        Law::Limits => checked(&under_test, CheckConfig::default()).counterexamples().next().cloned(),
        _ => check_law(law, &under_test, &under_test, CheckConfig::default()).err().map(|found| *found),
    };
    (under_test, found.unwrap_or_else(|| panic!("nothing breaks the law of {law}")))
}

#[test]
fn each_broken_component_is_refuted_by_its_law_and_by_no_other() {
    let cases: [(&str, Vec<u8>, &[Law]); 10] = [
        ("the order decides", lawless::first(), &[Law::Permutation]),
        ("clocks that agree", lawless::last_writer(), &[Law::Permutation]),
        ("rock, paper, scissors", lawless::rock_paper_scissors(), &[Law::Bracketing]),
        // Whatever is not idempotent breaks another law too: m(m(a,a),m(a,a)) = m(a,a) follows from bracketing and
        // absorption.
        ("a sum", lawless::sum(), &[Law::Idempotence, Law::Absorption]),
        ("once or twice", lawless::once_or_twice(), &[Law::Absorption]),
        ("a valid value traps", lawless::trapping(), &[Law::Totality]),
        ("garbage traps", lawless::trusting(), &[Law::Totality]),
        ("everything is refused", lawless::refusing(), &[Law::Totality]),
        ("a page for a digit", lawless::verbose(), &[Law::Growth]),
        ("too slow for much", lawless::slow(), &[Law::Limits]),
    ];
    for (name, bytes, laws) in cases {
        let report = checked(&on_a_host(&bytes), CheckConfig::default());
        assert_eq!(broken(&report), laws, "{name}: {:#?}", report.counterexamples().collect::<Vec<_>>());
        let tried = if laws == [Law::Totality] { 7 } else { 8 };
        assert_eq!(report.outcomes.len(), tried, "{name}: only what breaks at once is not tried on large values");
    }
}

#[test]
fn a_component_that_looks_at_five_siblings_is_refuted_and_random_cases_miss_it() {
    let under_test = on_a_host(&lawless::first_five());
    let random = check(&under_test, &under_test, CheckConfig::only_random());
    assert!(random.is_ok(), "{random:?}");
    let (_, found) = refuted(&lawless::first_five(), Law::Permutation);
    assert_eq!(found.trial.siblings.len(), 6, "{found}");
}

#[test]
fn the_plugins_of_the_tree_obey_every_law() {
    for plugin in ["cart", "session"] {
        let props = BucketProps::default();
        let under_test = load(&component::built(plugin), &props);
        // Long enough for a machine that is busy with other tests.
        let exhaust = Duration::from_secs(600);
        let config = CheckConfig { cases: 200, smallest: 16, exhaust, ..CheckConfig::default() };
        let report = check_laws(&under_test, &props, config);
        assert_eq!(
            broken(&report),
            [],
            "{plugin}: {}",
            report.counterexamples().next().map_or("".into(), ToString::to_string)
        );
        let tried = |law: Law| {
            *report
                .outcomes
                .iter()
                .find_map(|outcome| outcome.result.as_ref().ok().filter(|t| t.law == law))
                .expect("it held")
        };
        assert!(tried(Law::Replay).judged > 100 && tried(Law::Permutation).judged > 100, "{report:?}");
        let scope = report.findings.small_scope.expect("no law was broken");
        assert_eq!((scope.values, scope.of, scope.triples, scope.stamped), (16, 16, 4_096, 30), "{plugin}");
        let random =
            report.findings.convergence.as_ref().expect("no law was broken").as_ref().expect("folds change nothing");
        assert!(random.histories > 50 && report.findings.samples.distinct > 50, "{plugin}: {:?}", report.findings);
        let largest = tried(Law::Limits);
        assert!(largest.judged == 2 && largest.bytes > 2 << 20, "the sampler fills a bucket: {largest:?}");
        assert!(
            plugin != "cart" || report.too_large() > 0,
            "a union of the largest carts is larger than one value may be: {report:?}"
        );
        assert!((1_000_000..report.fuel).contains(&report.most_fuel), "{}", report.most_fuel);
    }
}

/// With the limits of a bucket. The other tests have their own laws and stories.
#[test]
fn the_ready_made_merges_obey_every_law() {
    for plugin in ["counter", "highest", "last-writer", "leaderboard", "metadata", "set"] {
        let props = BucketProps::default();
        let report = check_laws(
            &load(&component::built(plugin), &props),
            &props,
            CheckConfig { cases: 60, smallest: 24, ..CheckConfig::default() },
        );
        let found: Vec<String> = report.counterexamples().map(ToString::to_string).collect();
        assert!(found.is_empty() && report.has_judged(), "{plugin}: {found:?}");
    }
}

#[test]
fn siblings_of_a_bucket_are_merged_under_its_limits_and_all_others_are_not() {
    let under_test = on_a_host(&lawless::largest());
    let sibling = |value: &[u8]| Sibling { value: value.to_vec(), stamp_ms: 1, writer: 1 };
    let siblings = ["1", "2", "2"].map(|value| sibling(value.as_bytes()));
    let report = |recorded_limits: Option<CallLimits>| {
        let recorded = vec![Trial { key: b"k".to_vec(), siblings: siblings.to_vec(), valid: true }];
        let config = CheckConfig { cases: 40, smallest: 4, ..CheckConfig::default() };
        let options = LawOptions { config, recorded, recorded_limits, ..LawOptions::default() };
        check_laws_with_options(&under_test, &bucket(), &options, &mut |_| {}).expect("it has no intent")
    };
    let same = report(None);
    assert_eq!(broken(&same), []);
    let recorded = same.findings.recorded.expect("there are some");
    assert_eq!((recorded.sets, recorded.siblings), (1, 3));
    let two = report(Some(CallLimits { max_siblings: 2, ..under_test.limits }));
    assert_eq!(two.findings.recorded.map(|recorded| recorded.siblings), Some(2), "the bucket allows two");

    let poor = report(Some(CallLimits { fuel: 1, ..under_test.limits }));
    assert_eq!(broken(&poor), [Law::Totality], "with so little fuel nothing is merged");
    let found = poor.counterexamples().next().expect("one law is broken");
    assert!(matches!(&found.violation, Violation::NoAnswer { failure: MergeError::Exceeded(_), .. }), "{found}");
    assert_eq!((found.trial.key.as_slice(), found.trial.siblings.len()), (&b"k"[..], 2));
}

#[test]
fn a_plugin_that_refuses_every_value_has_not_been_judged() {
    let refuses = on_a_host(&guests::refusing());
    let report = checked(&refuses, CheckConfig { cases: 40, ..CheckConfig::default() });
    assert_eq!(broken(&report), []);
    assert!(!report.has_judged(), "{report:?}");
    assert!(checked(&on_a_host(&lawless::largest()), CheckConfig { cases: 40, ..CheckConfig::default() }).has_judged());
}

#[test]
fn counterexamples_are_as_small_as_they_can_be() {
    for (bytes, law, siblings) in [
        (lawless::first(), Law::Permutation, 2),
        (lawless::rock_paper_scissors(), Law::Bracketing, 3),
        (lawless::sum(), Law::Idempotence, 2),
        (lawless::once_or_twice(), Law::Absorption, 2),
        (lawless::trapping(), Law::Totality, 2),
        (lawless::verbose(), Law::Growth, 2),
    ] {
        let (_, found) = refuted(&bytes, law);
        assert_eq!(found.trial.siblings.len(), siblings, "{found}");
        assert!(found.trial.key.is_empty() && found.trial.siblings.iter().all(|one| one.value.len() == 1), "{found}");
    }
    let (_, found) = refuted(&lawless::trusting(), Law::Totality);
    let garbage: usize = found.trial.siblings.iter().map(|one| one.value.len()).sum();
    assert!(!found.trial.valid && garbage <= 2, "{found}");
    let (_, found) = refuted(&lawless::slow(), Law::Limits);
    let bytes: usize = found.trial.siblings.iter().map(|one| one.value.len()).sum();
    assert!((1_000_001..1_300_000).contains(&bytes), "{bytes} bytes");
}

#[test]
fn equal_stamps_are_found_only_because_cases_collide() {
    let under_test = on_a_host(&lawless::last_writer());
    let apart = CheckConfig { collide: false, cases: 600, ..CheckConfig::default() };
    assert_eq!(broken(&checked(&under_test, apart)), []);
    let (_, found) = refuted(&lawless::last_writer(), Law::Permutation);
    assert_eq!(found.trial.siblings[0].stamp_ms, found.trial.siblings[1].stamp_ms, "{found}");
}

#[test]
fn what_traps_is_told_with_the_merge_that_did() {
    let (_, found) = refuted(&lawless::trapping(), Law::Totality);
    let Violation::NoAnswer { siblings, failure: MergeError::Trapped(reason) } = &found.violation else {
        panic!("{found}")
    };
    assert!(siblings.iter().any(|one| one.value == b"5") && reason.contains("arithmetic"), "{found}");
    let (_, found) = refuted(&lawless::slow(), Law::Limits);
    assert!(
        matches!(&found.violation, Violation::NoAnswer { failure: MergeError::Exceeded(why), .. } if why.contains("fuel")),
        "{found}"
    );
}

#[test]
fn a_fixture_is_red_on_the_broken_plugin_and_green_on_the_mended_one() {
    let mended = on_a_host(&lawless::largest());
    let broken = [
        lawless::first(),
        lawless::rock_paper_scissors(),
        lawless::sum(),
        lawless::once_or_twice(),
        lawless::trapping(),
    ];
    for bytes in broken {
        let under_test = on_a_host(&bytes);
        let report = checked(&under_test, CheckConfig::default());
        let written = Fixture::new(&under_test, 1, report.counterexamples()).to_json();
        let read = Fixture::parse(&written).expect("it was just written");
        assert_eq!(read.to_json(), written);
        assert_eq!(read.digest(), under_test.plugin.digest().to_string());
        let trials = read.trials(&under_test.plugin).expect("they are its own");
        assert_eq!(trials.iter().map(|(law, _)| *law).collect::<Vec<_>>(), self::broken(&report));
        for (law, trial) in trials {
            assert!(matches!(law.judge(&under_test, &trial), Verdict::Broken(_)), "{law}");
            assert_eq!(law.judge(&mended, &trial), Verdict::Held, "{law}");
        }
    }
}

#[test]
fn a_fixture_shows_values_as_the_plugin_does() {
    let (under_test, found) = refuted(&lawless::trapping(), Law::Totality);
    let fixture = Fixture::new(&under_test, 1, [&found]);
    let shown: Vec<_> =
        fixture.cases()[0].siblings.iter().map(|one| (one.value.shown.clone(), one.value.base64.as_str())).collect();
    assert!(shown.contains(&(Some(serde_json::json!(5)), "NQ==")), "{shown:?}");
}

#[test]
fn what_is_no_fixture_of_this_plugin_is_refused_with_advice() {
    let cart = on_a_host(component::cart_bytes());
    let (under_test, found) = refuted(&lawless::first(), Law::Permutation);
    let good: serde_json::Value =
        serde_json::from_slice(&Fixture::new(&under_test, 1, [&found]).to_json()).expect("JSON");
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = good.clone();
        change(&mut json);
        Fixture::parse(json.to_string().as_bytes())
            .and_then(|fixture| fixture.trials(&cart.plugin).map(|trials| trials.len()))
    };
    assert_eq!(with(&|_| {}).expect("a plugin without a name may be anyone"), 1);
    for (what, change, words) in [
        (
            "another plugin",
            (&|json: &mut serde_json::Value| json["plugin"]["name"] = "session".into())
                as &dyn Fn(&mut serde_json::Value),
            "session",
        ),
        ("another format", &|json| json["format"] = 2.into(), "format 2"),
        ("no format", &|json| json["format"] = "one".into(), "`format`"),
        ("no digest", &|json| json["plugin"]["digest"] = "abc".into(), "digest"),
        ("no such law", &|json| json["counterexamples"][0]["law"] = "gravity".into(), "gravity"),
        ("no base64", &|json| json["counterexamples"][0]["siblings"][0]["base64"] = "?".into(), "base64"),
        ("no writer", &|json| json["counterexamples"][0]["siblings"][0]["writer"] = "ann".into(), "ann"),
        ("no siblings", &|json| json["counterexamples"][0]["siblings"] = serde_json::json!([]), "0 siblings"),
    ] {
        let error = with(change).expect_err(what).to_string();
        assert!(error.contains(words), "{what}: {error}");
    }
    assert!(matches!(Fixture::parse(b"text"), Err(FixtureError::Malformed(_))));
}

#[test]
fn a_plugin_that_would_remember_cannot() {
    // It counts its calls in a global and in memory; each call is given an instance that has never been called.
    let under_test = on_a_host(&guests::counter());
    let report = checked(&under_test, CheckConfig { smallest: 10, ..CheckConfig::default() });
    assert_eq!(broken(&report), []);
    let replay = report
        .outcomes
        .iter()
        .find(|outcome| outcome.law == Law::Replay)
        .and_then(|outcome| outcome.result.as_ref().ok());
    assert!(replay.is_some_and(|tried| tried.judged == tried.cases), "it was judged by its answers: {replay:?}");
}

#[test]
fn a_merge_is_replayed_on_the_other_host() {
    let (here, there) = (on_a_host(&lawless::largest()), on_a_host(&lawless::first()));
    let two_faced = PluginUnderTest::new(here.host, here.plugin, here.limits).and_elsewhere(there.host, there.plugin);
    assert_eq!(
        broken(&checked(&two_faced, CheckConfig::default())),
        [Law::Replay],
        "the other host runs another component"
    );
}

#[test]
fn without_a_sampler_only_what_is_accepted_is_judged() {
    // The first sibling wins, of whatever bytes.
    let report = checked(&on_a_host(&guests::first()), CheckConfig::default());
    assert_eq!(broken(&report), [Law::Permutation]);
    let (_, found) = refuted(&guests::first(), Law::Permutation);
    assert!(
        !found.trial.valid && found.trial.siblings.iter().map(|one| one.value.len()).sum::<usize>() <= 1,
        "{found}"
    );
}
