//! The last writer on plain functions, and the laws.

use rejoin_guest::laws::{CheckConfig, ModelCluster, check};
use rejoin_guest::{Merger, Native, Presenter, Sibling};
use rejoin_plugin_last_writer::Plugin;

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::default();
    check(&plugin, &plugin, CheckConfig { cases: 2_000, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn the_later_stamp_wins_and_then_the_larger_bytes() {
    let merged = |values: &[(&str, u64, u64)]| {
        let sibling = |(value, stamp_ms, writer): &(&str, u64, u64)| Sibling {
            value: (*value).into(),
            stamp_ms: *stamp_ms,
            writer: *writer,
        };
        let siblings: Vec<Sibling> = values.iter().map(sibling).collect();
        Plugin::merge(b"", &siblings).expect("there are siblings")
    };
    assert_eq!(merged(&[("z", 1, 9), ("a", 2, 1)]), b"a");
    assert_eq!(merged(&[("a", 2, 9), ("b", 2, 1)]), b"b", "the writer does not decide");
}

#[test]
fn of_two_concurrent_writes_the_later_one_is_read_everywhere() {
    let plugin = Native::<Plugin>::default();
    let mut cluster = ModelCluster::new(&plugin, b"page/1");
    let nothing = cluster.read("east").expect("nothing yet");
    cluster.write("east", "ann", b"second to last", &nothing);
    cluster.write("west", "bob", b"last", &nothing);
    cluster.sync("east", "west");
    cluster.fold("east").expect("they merge");
    cluster.sync("east", "west");
    for at in ["east", "west"] {
        cluster.expect(at, b"last").unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn a_value_is_shown_as_json_as_text_or_by_its_length() {
    assert_eq!(Plugin::show(br#"{"b":1,"a":[null]}"#), br#"{"a":[null],"b":1}"#);
    assert_eq!(Plugin::show(b"plain \"text\""), br#""plain \"text\"""#);
    assert_eq!(Plugin::show(b"\xff\x00\xfe"), br#"{"bytes":3}"#);
}
