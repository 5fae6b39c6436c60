//! The carts in C and in JavaScript obey the laws and pass the scenarios of the one in Rust, with the same bytes.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rejoin_guest::{Fault, Merger, Native, Presenter, Validator};
use rejoin_laws::{Case, CheckConfig, Law, Merge, Rng, Sampler};
use rejoin_merge::{
    CallLimits, CancelToken, Compiler, Host, HostConfig, MergeFault, ModuleLimits, Plugin as Compiled, PluginUnderTest,
    Refusal, Sibling, check_laws,
};
use rejoin_plugin_cart::{Cart, Plugin};
use rejoin_proto::catalog::BucketProps;
use rejoin_test_laws::cart::SCENARIOS;
use rejoin_test_laws::languages::{Language, cart_in};

/// A component with a JavaScript engine has 11 MiB.
const MODULE_BYTES: usize = 16 << 20;

/// What a bucket gives a plugin in that language.
fn props(language: Language) -> BucketProps {
    match language {
        Language::C => BucketProps::default(),
        // The interpreted engine takes up to 6 000 units of fuel a byte, and small merges get the most for a byte.
        Language::JavaScript => BucketProps { value_bytes: 8 << 10, ..BucketProps::default() },
    }
}

/// A cart on two hosts.
struct Built {
    under_test: PluginUnderTest,
    elsewhere: (Host, Compiled),
}

/// The cart in a language, built and compiled once a process. `None` where its tools are not.
fn built(language: Language) -> Option<&'static Built> {
    static C: OnceLock<Option<Built>> = OnceLock::new();
    static JAVASCRIPT: OnceLock<Option<Built>> = OnceLock::new();
    let place = if language == Language::C { &C } else { &JAVASCRIPT };
    place.get_or_init(|| cart_in(language).map(|bytes| on_two_hosts(language, &bytes))).as_ref()
}

fn on_two_hosts(language: Language, bytes: &[u8]) -> Built {
    let host = || Host::new(HostConfig::default()).expect("a host");
    let (here, there, props) = (host(), host(), props(language));
    let limits = ModuleLimits::for_bytes(MODULE_BYTES);
    let compiled = Compiler::InProcess.compile(&here, bytes, &limits, &CancelToken::default());
    let compiled = compiled.unwrap_or_else(|why| panic!("{language}: {why}"));
    let load = |host: &Host| host.load(&compiled).unwrap_or_else(|why| panic!("{language}: {why}"));
    let (plugin, twin) = (load(&here), load(&there));
    let limits = CallLimits {
        fuel: props.fuel,
        memory_bytes: props.memory_bytes as usize,
        result_bytes: props.value_bytes as usize,
        max_siblings: usize::from(props.siblings),
        wall: Duration::from_secs(300),
    };
    let under_test = PluginUnderTest::new(here, plugin, limits).and_elsewhere(there.clone(), twin.clone());
    Built { under_test, elsewhere: (there, twin) }
}

fn cart(language: Language) -> Option<&'static PluginUnderTest> {
    built(language).map(|built| &built.under_test)
}

fn laws_and_scenarios(language: Language, cases: u32, smallest: usize) {
    let Some(cart) = cart(language) else { return };
    let report = check_laws(cart, &props(language), CheckConfig { cases, smallest, ..CheckConfig::default() });
    let found: Vec<String> = report.counterexamples().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{language}: {found:#?}");
    let judged = |law: Law| {
        let tried = report.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
        tried.filter(|tried| tried.law == law).map(|tried| tried.judged).sum::<u32>()
    };
    assert!(judged(Law::Replay) > cases / 2 && judged(Law::Permutation) > cases / 2, "{language}: {report:?}");
    assert!(judged(Law::Limits) == 2, "{language}: {report:?}");
    for scenario in &SCENARIOS {
        scenario.run(cart).unwrap_or_else(|wrong| panic!("{language}: {wrong}"));
    }
}

#[test]
fn the_cart_in_c_obeys_the_laws_and_passes_the_scenarios() {
    laws_and_scenarios(Language::C, 200, 16);
}

#[test]
fn the_cart_in_javascript_obeys_the_laws_and_passes_the_scenarios() {
    laws_and_scenarios(Language::JavaScript, 20, 6);
}

/// Draws cases, and compares what is sampled, merged, refused and shown with the cart in Rust.
fn same_bytes(language: Language, cases: usize) {
    let Some(cart) = cart(language) else { return };
    let rust = Native::<Plugin>::default();
    let (mut rng, mut refused) = (Rng::new(7), 0);
    for _ in 0..cases {
        let case = Case::draw(&mut rng, 20, true);
        let trial = case.build(&rust, &rust).expect("the sampler draws carts");
        assert_eq!(trial, case.build(cart, cart).expect("the sampler draws carts"), "{language}");
        let siblings: Vec<Sibling> = trial
            .siblings
            .iter()
            .map(|one| Sibling { value: one.value.clone().into(), stamp_ms: one.stamp_ms, writer: one.writer })
            .collect();
        let here = rust.merge(&case.key, &trial.siblings).ok();
        let there = cart.host.merge(&cart.plugin, &case.key, &siblings, &cart.limits);
        match (here, there) {
            (Some(here), Ok(there)) => assert_eq!(here, there.value, "{language}: {trial:?}"),
            (None, Err(MergeFault::Refused(Refusal::Malformed))) => refused += 1,
            (here, there) => panic!("{language}: {here:?} and {there:?} of {trial:?}"),
        }
        same_answers(language, cart, &trial.siblings[0].value);
    }
    assert!(refused > cases / 20, "{language}: {refused} of {cases} cases were refused");
}

/// The validator and the presenter, on one value.
fn same_answers(language: Language, cart: &PluginUnderTest, value: &[u8]) {
    let words = || format!("{language}: {}", String::from_utf8_lossy(&value[..value.len().min(200)]));
    let there = cart.host.validate(&cart.plugin, b"k", value, &cart.limits);
    match Plugin::validate(b"k", value) {
        Ok(()) => assert_eq!(there, Ok(()), "{}", words()),
        Err(_) => assert_eq!(there, Err(MergeFault::Refused(Refusal::Malformed)), "{}", words()),
    }
    let (here, there) = (Plugin::show(value), cart.host.show(&cart.plugin, value, &cart.limits).expect("JSON"));
    // Only the words of an error may differ.
    let error = b"{\"error\":".as_slice();
    assert!(here == there || (here.starts_with(error) && there.starts_with(error)), "{}", words());
}

#[test]
fn the_cart_in_c_gives_the_bytes_of_the_one_in_rust() {
    same_bytes(Language::C, 1_000);
}

#[test]
fn the_cart_in_javascript_gives_the_bytes_of_the_one_in_rust() {
    same_bytes(Language::JavaScript, 150);
}

/// Values that readers of JSON take differently, and names that languages sort or treat differently.
fn hard_values() -> Vec<Vec<u8>> {
    let deep = format!("{{\"clock\":{}", "{\"a\":".repeat(50_000));
    let long = format!("{{\"clock\":{{\"a\":{}}},\"items\":{{}}}}", "1".repeat(50_000));
    let text = format!("{{\"clock\":{{\"{}\":1}},\"items\":{{}}}}", "\\u0041é\\\"".repeat(20_000));
    let mut values = vec![deep.into_bytes(), long.into_bytes(), text.into_bytes()];
    let members = [
        r#""clock":{"a":2},"items":{"x":{"a:1":1},"x":{"a:2":1}}"#,
        r#""clock":{"a":2},"items":{"x":{},"\u0078":{}}"#,
        r#""clock":{"a":1,"\u0061":2},"items":{}"#,
        r#""clock":{"b":1,"a":1,"b":1},"items":{}"#,
        r#""clock":{"a":1},"items":{"x":{"a:1":1}},"items":{}"#,
        r#""clock":{},"items":{},"more":1"#,
        r#""clock":{},"items":{},"__proto__":{}"#,
        r#""clock":{}"#,
        r#""items":{},"clock":[]"#,
        r#""clock":{"a":"1"},"items":{}"#,
        r#""clock":{"a":null},"items":{}"#,
        r#""clock":{"a":1e0},"items":{}"#,
        r#""clock":{"a":-0},"items":{}"#,
        r#""clock":{"a":01},"items":{}"#,
        r#""clock":{"a":0},"items":{}"#,
        r#""clock":{"a":9007199254740992},"items":{"x":{"a:9007199254740992":1}}"#,
        r#""clock":{"a":9007199254740993},"items":{}"#,
        r#""clock":{"a":9007199254740992},"items":{"x":{"a:9007199254740993":1}}"#,
        r#""clock":{"a":18446744073709551617},"items":{}"#,
        r#""clock":{"a":1},"items":{"x":{"a:18446744073709551617":1}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:1":4294967295}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:1":4294967296}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:1":0}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:01":1}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:+1":1}}"#,
        r#""clock":{"a":1},"items":{"x":{"a: 1":1}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:1 ":1}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:":1}}"#,
        r#""clock":{"a":1},"items":{"x":{"a":1}}"#,
        r#""clock":{"":1,"a:b":2},"items":{"":{":1":1},"y":{"a:b:2":3}}"#,
        r#""clock":{"a":1},"items":{"x":{"a:0.5":1}}"#,
        r#""clock":{"\ud800":1},"items":{}"#,
        r#""clock":{"\udc00\ud800":1},"items":{}"#,
        r#""clock":{"\ud83d\ude00":1,"\ue000":1,"\u0000":1,"\/\b\f\n\r\t\u001f\u007f\u2028":1},"items":{}"#,
        "\"clock\":{\"\u{1f600}\":1,\"\u{ffff}\":2,\"\u{e000}\":3,\"\u{10000}\":4,\"\u{d7ff}\":5},\"items\":{}",
        r#""clock":{"10":1,"9":1,"__proto__":1,"constructor":1},"items":{"10":{"10:1":1},"9":{"9:1":1},"__proto__":{"__proto__:1":2}}"#,
        "\"clock\":{\"tab\there\":1},\"items\":{}",
        " \"items\" :\t{ \"pears\" :{} ,\r\n\"apples\":{\"a:1\":1}} , \"clock\":{\"b\":0,\"a\":1} ",
        "\u{b}\"clock\":{},\"items\":{}",
        "\u{a0}\"clock\":{},\"items\":{}",
    ];
    values.extend(members.iter().map(|members| format!("{{{members}}}").into_bytes()));
    let whole: [&[u8]; 10] = [
        b"",
        b"null",
        b"5",
        b"\"clock,items\"",
        b"[{},{}]",
        b"{\"clock\":{},\"items\":{}} {}",
        b"{\"clock\":{},\"items\":{}}\0",
        b"\xef\xbb\xbf{\"clock\":{},\"items\":{}}",
        b"{\"clock\":{\"\xc0\x80\":1},\"items\":{}}",
        b"{\"clock\":{\"\xed\xa0\x80\":1},\"items\":{}}",
    ];
    values.extend(whole.iter().map(|value| value.to_vec()));
    values
}

#[test]
fn what_is_hard_to_read_is_read_alike() {
    for language in [Language::C, Language::JavaScript] {
        let Some(cart) = cart(language) else { continue };
        let (values, mut accepted) = (hard_values(), 0);
        let limits = CallLimits { result_bytes: 1 << 20, ..cart.limits };
        for value in &values {
            same_answers(language, cart, value);
            let siblings = [Cart::default().to_json(), value.clone()].map(|value| rejoin_guest::Sibling {
                value,
                stamp_ms: 1,
                writer: 1,
            });
            let lent = siblings.clone().map(|one| Sibling {
                value: one.value.into(),
                stamp_ms: one.stamp_ms,
                writer: one.writer,
            });
            let there = cart.host.merge(&cart.plugin, b"k", &lent, &limits);
            match Plugin::merge(b"k", &siblings) {
                Ok(here) => assert_eq!(here, there.expect("a cart").value, "{language}"),
                Err(Fault::Malformed) => {
                    assert_eq!(there.expect_err("no cart"), MergeFault::Refused(Refusal::Malformed), "{language}");
                    continue;
                }
                Err(other) => panic!("the cart has no other fault: {other:?}"),
            }
            accepted += 1;
        }
        assert!(accepted > 5 && accepted < values.len() / 2, "{language}: {accepted} of {}", values.len());
    }
}

/// The heap of the JavaScript engine is part of the component, so that its addresses and hash seeds are everywhere the
/// same: so is the fuel that a merge takes.
#[test]
fn two_hosts_agree_on_bytes_and_fuel() {
    for language in [Language::C, Language::JavaScript] {
        let Some(Built { under_test: cart, elsewhere: (host, plugin) }) = built(language) else { continue };
        for seed in 0..10 {
            let value = |seed| Sibling { value: sample(cart, seed).into(), stamp_ms: 1, writer: 1 };
            let siblings = [value(seed), value(seed + 1), value(seed + 2)];
            let here = cart.host.merge(&cart.plugin, b"k", &siblings, &cart.limits).expect("carts");
            assert_eq!(host.merge(plugin, b"k", &siblings, &cart.limits), Ok(here), "{language}");
        }
    }
}

fn sample(cart: &PluginUnderTest, seed: u64) -> Vec<u8> {
    Sampler::sample(cart, seed, 40).expect("the sampler draws carts")
}

#[test]
fn the_carts_say_what_they_are_and_import_nothing() {
    for language in [Language::C, Language::JavaScript] {
        let Some(cart) = cart(language) else { continue };
        let metadata = cart.plugin.metadata().expect("the cart exports `about`");
        assert_eq!((metadata.name.as_str(), metadata.schema, metadata.self_causal), ("cart", 1, true), "{language}");
        let exports = cart.plugin.exports();
        let all = exports.present && exports.sample && exports.describe && exports.validate;
        assert!(all && !exports.operate, "{language}");
    }
}

/// Checked everywhere, also where there is no clang: a change of the interfaces must reach the tree.
#[test]
fn the_bindings_of_the_cart_in_c_are_those_that_the_generator_makes() {
    let generated: [(&str, &[u8]); 3] = [
        ("cart.h", include_bytes!(concat!(env!("OUT_DIR"), "/cart.h"))),
        ("cart.c", include_bytes!(concat!(env!("OUT_DIR"), "/cart.c"))),
        ("cart_component_type.o", include_bytes!(concat!(env!("OUT_DIR"), "/cart_component_type.o"))),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/cart-c/generated");
    for (name, bytes) in generated {
        let file = folder.join(name);
        if std::env::var_os("REJOIN_WRITE_BINDINGS").is_some() {
            std::fs::create_dir_all(&folder).expect("the folder can be made");
            std::fs::write(&file, bytes).expect("the bindings can be written");
        }
        let here = std::fs::read(&file).unwrap_or_default();
        assert!(
            here == bytes,
            "{} is not what wit-bindgen makes: run REJOIN_WRITE_BINDINGS=1 cargo test --workspace --test laws languages",
            file.display()
        );
    }
}
