//! Wrong merges are found: by a law where a law can, and by a scenario where only a scenario can.

use serde_json::Value;

use rejoin_guest::{Fault, Merger, Native, Sampler, Sibling};
use rejoin_laws::{CheckConfig, Law, check};
use rejoin_plugin_cart::{Cart, Plugin};
use rejoin_test_laws::cart::SCENARIOS;

/// Whatever is broken is tried on carts.
macro_rules! samples_carts {
    ($($broken:ty),*) => {
        $(impl Sampler for $broken {
            fn sample(seed: u64, size: u32) -> Vec<u8> {
                Plugin::sample(seed, size)
            }
        })*
    };
}

samples_carts!(Union, LastInLine, Latest, Freshest);

/// Keeps every tag that anyone has: a perfect semilattice that brings removed items back.
struct Union;

impl Merger for Union {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let mut all = Value::Null;
        for sibling in siblings {
            join(&mut all, serde_json::from_slice(&sibling.value).map_err(|_| Fault::Malformed)?);
        }
        Ok(all.to_string().into_bytes())
    }
}

/// Every key of either, the larger of two numbers.
fn join(known: &mut Value, other: Value) {
    match (known, other) {
        (Value::Object(known), Value::Object(other)) => {
            other.into_iter().for_each(|(key, value)| join(known.entry(key).or_insert(Value::Null), value));
        }
        (known, other) => {
            if known.as_u64() <= other.as_u64() {
                *known = other;
            }
        }
    }
}

/// Takes whichever sibling comes last.
struct LastInLine;

impl Merger for LastInLine {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        siblings.last().map(|sibling| sibling.value.clone()).ok_or(Fault::Malformed)
    }
}

/// Takes the latest by stamp, and whichever comes first of those: right only while clocks never agree.
struct Latest;

impl Merger for Latest {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        let latest = siblings.iter().reduce(|best, next| if next.stamp_ms > best.stamp_ms { next } else { best });
        latest.map(|sibling| sibling.value.clone()).ok_or(Fault::Malformed)
    }
}

/// The cart with the most in its clock decides alone: the laws see nothing wrong in taking a greatest element.
struct Freshest;

impl Merger for Freshest {
    fn merge(_key: &[u8], siblings: &[Sibling]) -> Result<Vec<u8>, Fault> {
        siblings
            .iter()
            .map(|sibling| sibling.value.clone())
            .max_by_key(|value| (value.len(), value.clone()))
            .ok_or(Fault::Malformed)
    }
}

fn failed_stories<T: Merger + Sampler>() -> Vec<&'static str> {
    let merge = Native::<T>::default();
    SCENARIOS.iter().filter(|scenario| scenario.run(&merge).is_err()).map(|scenario| scenario.name).collect()
}

#[test]
fn a_union_obeys_every_law_and_still_brings_back_what_was_removed() {
    let union = Native::<Union>::default();
    check(&union, &union, CheckConfig::default()).unwrap_or_else(|found| panic!("a union is a semilattice: {found}"));
    assert_eq!(failed_stories::<Union>(), ["an old replica returns", "an old tab writes", "add against remove"]);
}

#[test]
fn the_story_that_fails_says_why() {
    let wrong = SCENARIOS[2].run(&Native::<Union>::default()).expect_err("the apples are back");
    let text = wrong.to_string();
    assert!(
        text.starts_with("an old tab writes: a read at east should give [(\"bread\", 1), (\"plums\", 1)]"),
        "{text}"
    );
    assert!(text.contains("bob writes") && text.contains("apples"), "{text}");
}

#[test]
fn order_is_no_merge() {
    let merge = Native::<LastInLine>::default();
    let found = check(&merge, &merge, CheckConfig::default()).expect_err("the order decides");
    assert_eq!(found.law, Law::Permutation);
    assert_eq!(found.trial.siblings.len(), 2, "{found}");
    assert!(
        found
            .trial
            .siblings
            .iter()
            .all(|sibling| Cart::parse(&sibling.value).is_ok_and(|cart| cart.items().len() <= 1)),
        "{found}"
    );
}

#[test]
fn neither_is_the_clock() {
    let merge = Native::<Latest>::default();
    let found = check(&merge, &merge, CheckConfig::default()).expect_err("stamps can be equal");
    assert_eq!(found.law, Law::Permutation);
    assert_eq!(found.trial.siblings[0].stamp_ms, found.trial.siblings[1].stamp_ms, "{found}");
}

#[test]
fn the_greatest_value_obeys_every_law_and_loses_adds() {
    let merge = Native::<Freshest>::default();
    check(&merge, &merge, CheckConfig::default())
        .unwrap_or_else(|found| panic!("a greatest element is a semilattice: {found}"));
    assert!(failed_stories::<Freshest>().contains(&"both sides add"));
}
