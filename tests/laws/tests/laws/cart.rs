//! The cart obeys the laws and passes its scenarios, natively and as the component, with the same bytes.

use rejoin_guest::Native;
use rejoin_laws::{Case, CheckConfig, Merge, Rng, Sampler, check};
use rejoin_plugin_cart::Plugin;
use rejoin_test_laws::cart::SCENARIOS;
use rejoin_test_laws::component;

fn laws_hold(under_test: &(impl Merge + Sampler), cases: u32) {
    let report = check(under_test, under_test, CheckConfig { cases, smallest: 20, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
    assert!(
        report.iter().all(|tried| tried.collisions > 0 && tried.judged > cases / 2),
        "that finds nothing: {report:?}"
    );
}

fn stories_end_well(merge: &dyn Merge) {
    for scenario in &SCENARIOS {
        scenario.run(merge).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn natively() {
    laws_hold(&Native::<Plugin>::default(), 1_000);
    stories_end_well(&Native::<Plugin>::default());
}

#[test]
fn as_a_component() {
    laws_hold(component::cart(), 300);
    stories_end_well(component::cart());
}

#[test]
fn both_give_the_same_bytes() {
    let (native, component) = (Native::<Plugin>::default(), component::cart());
    let mut rng = Rng::new(3);
    for _ in 0..300 {
        let case = Case::draw(&mut rng, 20, true);
        let trial = case.build(&native, &native).expect("the sampler draws carts");
        assert_eq!(trial, case.build(component, component).expect("the sampler draws carts"));
        let (one, other) = (native.merge(&case.key, &trial.siblings), component.merge(&case.key, &trial.siblings));
        assert!(one == other || (one.is_err() && other.is_err()), "{one:?} and {other:?}");
    }
}

#[test]
fn the_component_says_what_it_is() {
    let plugin = &component::cart().plugin;
    let metadata = plugin.metadata().expect("the cart exports `about`");
    assert_eq!((metadata.name.as_str(), metadata.schema, metadata.self_causal), ("cart", 1, true));
    let exports = plugin.exports();
    assert!(exports.present && exports.sample && exports.describe && exports.validate && !exports.operate);
    let shown = component::cart().host.show(
        plugin,
        br#"{"clock":{"a":1},"items":{"figs":{"a:1":2}}}"#,
        &component::cart().limits,
    );
    assert_eq!(shown.expect("a cart"), br#"{"figs":2}"#);
}

#[test]
fn what_is_no_cart_is_refused_and_does_not_trap() {
    let cart = component::cart();
    let sibling = |value: &'static [u8]| rejoin_merge::Sibling { value: value.into(), stamp_ms: 1, writer: 1 };
    let twice = br#"{"clock":{"a":2},"items":{"x":{"a:1":1},"x":{"a:2":1}}}"#;
    for garbage in [&b""[..], b"null", b"\xff\xfe", b"{\"clock\":{},\"items\":{\"x\":{\"a:1\":1}}}", twice] {
        let siblings = [sibling(b"{\"clock\":{},\"items\":{}}"), sibling(garbage)];
        let fault = cart.host.merge(&cart.plugin, b"k", &siblings, &cart.limits).expect_err("no cart");
        assert_eq!(fault, rejoin_merge::MergeFault::Refused(rejoin_merge::Refusal::Malformed));
        let fault = cart.host.validate(&cart.plugin, b"k", garbage, &cart.limits).expect_err("no cart");
        assert_eq!(fault, rejoin_merge::MergeFault::Refused(rejoin_merge::Refusal::Malformed));
    }
}

#[test]
fn the_component_knows_nothing_of_the_machine_that_built_it() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let workspace = std::path::Path::new(here).canonicalize().expect("it is here");
    let registry = b"registry/src/index.crates.io";
    let bytes = component::cart_bytes();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!has(workspace.to_string_lossy().as_bytes()), "the workspace's path is in the component");
    for home in [std::env::var("CARGO_HOME"), std::env::var("HOME")].into_iter().flatten().filter(|home| home.len() > 1)
    {
        assert!(!has(format!("{home}/").as_bytes()), "{home} is in the component");
    }
    assert!(has(registry), "paths are expected in panic messages; without any this test would show nothing");
}
