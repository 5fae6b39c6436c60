//! The record as an application uses it, and the laws on the plain functions.

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Dot, Fault, Merger, Native, Operator, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_metadata::{Plugin, Record};

fn merge(values: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 }).collect();
    Plugin::merge(b"", &siblings)
}

fn apply(state: Option<&[u8]>, operation: &str, (actor, counter): (u64, u64)) -> Result<Vec<u8>, Fault> {
    Plugin::apply(b"", state, operation.as_bytes(), Dot { actor, counter })
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::with_validator();
    check(&plugin, &plugin, CheckConfig { cases: 2_000, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn of_two_concurrent_changes_of_a_field_both_are_kept_and_a_later_one_replaces_them() {
    let one = apply(None, r#"{"set":{"title":"Minutes","pages":3}}"#, (1, 1)).expect("a record");
    assert_eq!(
        one,
        br#"{"clock":{"0000000000000001":1},"items":{"pages":{"0000000000000001":{"seq":1,"value":3}},"title":{"0000000000000001":{"seq":1,"value":"Minutes"}}}}"#
    );
    let east = apply(Some(&one), r#"{"set":{"title":"Minutes of May"}}"#, (1, 2)).expect("a record");
    let west = apply(Some(&one), r#"{"set":{"title":null},"remove":["pages"]}"#, (2, 1)).expect("a record");
    let both = merge(&[&east, &west]).expect("records");
    assert_eq!(Plugin::show(&both), br#"{"title":{"concurrent":["Minutes of May",null]}}"#);
    assert_eq!(Plugin::query(&both, br#"{"get":"title"}"#), Ok(br#"["Minutes of May",null]"#.to_vec()));
    assert_eq!(Plugin::query(&both, br#"{"get":"pages"}"#), Ok(b"[]".to_vec()));
    let settled = apply(Some(&both), r#"{"set":{"title":"May"}}"#, (2, 5)).expect("a record");
    let settled = merge(&[&settled, &east, &west]).expect("records");
    assert_eq!(Plugin::query(&settled, b""), Ok(br#"{"title":"May"}"#.to_vec()));
}

#[test]
fn an_operation_of_a_used_dot_or_of_another_form_is_refused() {
    let one = apply(None, r#"{"set":{"a":1}}"#, (1, 4)).expect("a record");
    assert_eq!(apply(Some(&one), r#"{"set":{"b":1}}"#, (1, 4)), Err(Fault::Malformed), "the tag is used");
    assert_eq!(apply(None, r#"{"set":{"b":1}}"#, (1, (1 << 53) + 1)), Err(Fault::TooLarge));
    for bad in ["", "[]", r#"{"set":["a"]}"#, r#"{"set":{"a":1.5}}"#, r#"{"put":{}}"#, r#"{"set":{"a":1,"a":2}}"#] {
        assert_eq!(apply(None, bad, (1, 1)), Err(Fault::Malformed), "{bad}");
    }
}

#[test]
fn what_is_no_record_is_a_fault() {
    let empty = Record::default().to_json();
    let bad: [&[u8]; 5] = [
        b"",
        b"{\"title\":\"x\"}",
        br#"{"clock":{},"items":{"title":{"a":{"seq":1,"value":1}}}}"#,
        br#"{"clock":{"a":1},"items":{"title":{"a":{"seq":1}}}}"#,
        br#"{"clock":{"a":1},"items":{"title":{"a":{"seq":1,"value":{"x":1,"x":2}}}}}"#,
    ];
    for value in bad {
        assert_eq!(merge(&[&empty, value]), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert!(Plugin::show(value).starts_with(b"{\"error\":"));
    }
    assert!((0..200).all(|seed| Plugin::validate(b"", &Plugin::sample(seed, 20)).is_ok()));
}
