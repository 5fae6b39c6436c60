//! The set as an application uses it, and the laws on the plain functions.

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Dot, Fault, Merger, Native, Operator, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_set::{Plugin, Set};

const EAST: Dot = Dot { actor: 0xa07, counter: 3 };

fn merge(values: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 }).collect();
    Plugin::merge(b"", &siblings)
}

fn apply(state: Option<&[u8]>, operation: &str, counter: u64) -> Result<Vec<u8>, Fault> {
    Plugin::apply(b"", state, operation.as_bytes(), Dot { counter, ..EAST })
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::with_validator();
    check(&plugin, &plugin, CheckConfig { cases: 2_000, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn operations_add_and_remove() {
    let one = apply(None, r#"{"add":["pears","apples"]}"#, 3).expect("a set");
    assert_eq!(
        one,
        br#"{"clock":{"0000000000000a07":3},"items":{"apples":{"0000000000000a07":3},"pears":{"0000000000000a07":3}}}"#
    );
    let two = apply(Some(&one), r#"{"remove":["apples","figs","pears"],"add":["pears"]}"#, 4).expect("a set");
    assert_eq!(Plugin::show(&two), br#"["pears"]"#, "removals come first");
    assert_eq!(merge(&[&one, &two]), Ok(two.clone()), "an old copy brings nothing back");
    for (question, answer) in [("", r#"["pears"]"#), ("\"items\"", r#"["pears"]"#), ("\"count\"", "1")] {
        assert_eq!(Plugin::query(&two, question.as_bytes()), Ok(answer.into()), "{question}");
    }
    assert_eq!(Plugin::query(&two, br#"{"has":"pears"}"#), Ok(b"true".to_vec()));
    assert_eq!(Plugin::query(&two, br#"{"has":"apples"}"#), Ok(b"false".to_vec()));
    assert_eq!(Plugin::query(&two, br#""size""#), Err(Fault::Malformed));
}

#[test]
fn an_operation_of_a_used_dot_or_of_another_form_is_refused() {
    let one = apply(None, r#"{"add":["apples"]}"#, 3).expect("a set");
    assert_eq!(apply(Some(&one), r#"{"add":["pears"]}"#, 3), Err(Fault::Malformed), "the tag is used");
    assert_eq!(apply(None, r#"{"add":["pears"]}"#, (1 << 53) + 1), Err(Fault::TooLarge));
    for bad in ["", "[]", "apples", r#"{"add":"apples"}"#, r#"{"drop":["apples"]}"#, r#"{"add":[],"add":[]}"#] {
        assert_eq!(apply(None, bad, 3), Err(Fault::Malformed), "{bad}");
    }
    assert_eq!(apply(Some(b"[]"), "{}", 3), Err(Fault::Malformed), "the state is no set");
}

#[test]
fn what_is_no_set_is_a_fault() {
    let empty = Set::default().to_json();
    let bad: [&[u8]; 5] = [
        b"",
        b"[\"apples\"]",
        br#"{"clock":{},"items":{"apples":{"a":1}}}"#,
        br#"{"clock":{"a":1},"items":{"apples":{"a":0}}}"#,
        br#"{"clock":{},"items":{},"more":1}"#,
    ];
    for value in bad {
        assert_eq!(merge(&[&empty, value]), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert!(Plugin::show(value).starts_with(b"{\"error\":"));
    }
    assert!((0..200).all(|seed| Plugin::validate(b"", &Plugin::sample(seed, 20)).is_ok()));
}
