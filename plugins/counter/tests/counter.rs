//! The counter as an application uses it, and the laws on the plain functions.

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Dot, Fault, Merger, Native, Operator, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_counter::{Counter, Plugin};

const EAST: Dot = Dot { actor: 0xa07, counter: 3 };

fn merge(values: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 }).collect();
    Plugin::merge(b"", &siblings)
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::with_validator();
    check(&plugin, &plugin, CheckConfig { cases: 2_000, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn operations_add_to_the_share_of_their_actor() {
    let one = Plugin::apply(b"", None, b"5", EAST).expect("a number");
    assert_eq!(one, br#"{"0000000000000a07":{"seq":3,"sum":5}}"#);
    let later = Plugin::apply(b"", Some(&one), b"-7", Dot { counter: 9, ..EAST }).expect("a number");
    let elsewhere = Plugin::apply(b"", Some(&one), b"1", Dot { actor: 7, counter: 1 }).expect("a number");
    let merged = merge(&[&later, &elsewhere, &one]).expect("counters");
    assert_eq!((Plugin::show(&merged), Plugin::query(&merged, b"")), (b"-1".to_vec(), Ok(b"-1".to_vec())));
    assert_eq!(Plugin::query(&merged, b"\"total\""), Ok(b"-1".to_vec()));
    assert_eq!(Plugin::query(&merged, b"\"mean\""), Err(Fault::Unsupported));
}

#[test]
fn an_operation_that_was_counted_or_is_out_of_range_is_refused() {
    let one = Plugin::apply(b"", None, b"5", EAST).expect("a number");
    assert_eq!(Plugin::apply(b"", Some(&one), b"5", EAST), Err(Fault::Malformed), "it would count twice");
    for bad in ["", "many", "1.5", "\"1\"", "[1]", "9007199254740993"] {
        assert_eq!(Plugin::apply(b"", None, bad.as_bytes(), EAST), Err(Fault::Malformed), "{bad}");
    }
    let most = Plugin::apply(b"", None, b"9007199254740992", EAST).expect("the most");
    assert_eq!(Plugin::apply(b"", Some(&most), b"1", Dot { counter: 4, ..EAST }), Err(Fault::TooLarge));
    assert!(Plugin::apply(b"", Some(&most), b"-1", Dot { counter: 4, ..EAST }).is_ok());
    assert_eq!(Plugin::apply(b"", None, b"1", Dot { counter: (1 << 53) + 1, ..EAST }), Err(Fault::TooLarge));
}

#[test]
fn a_client_can_count_without_operations() {
    let mut counter = Counter::default();
    counter.add("web-7f3a", 1, 4).expect("the first change");
    assert_eq!(counter.add("web-7f3a", 1, 4), Err(Fault::Malformed));
    counter.add("web-7f3a", 2, -1).expect("the second change");
    assert_eq!((counter.total(), Counter::parse(&counter.to_json()).expect("a counter")), (3, counter));
}

#[test]
fn what_is_no_counter_is_a_fault() {
    let bad: [&[u8]; 7] = [
        b"",
        b"7",
        b"[]",
        br#"{"a":7}"#,
        br#"{"a":{"seq":1}}"#,
        br#"{"a":{"seq":1,"sum":2,"more":3}}"#,
        br#"{"a":{"seq":1,"sum":2},"a":{"seq":2,"sum":2}}"#,
    ];
    for value in bad {
        assert_eq!(merge(&[b"{}", value]), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::query(value, b""), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert!(Plugin::show(value).starts_with(b"{\"error\":"));
    }
    assert!((0..200).all(|seed| Plugin::validate(b"", &Plugin::sample(seed, 20)).is_ok()));
}
