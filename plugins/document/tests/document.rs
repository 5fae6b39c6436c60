//! A document as clients of Yjs use it, and the laws on the plain functions.

use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Array, Doc, GetString, Map, ReadTxn, StateVector, Text, Transact, Update};

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Dot, Fault, Merger, Native, Operator, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_document::Plugin;

const DOT: Dot = Dot { actor: 1, counter: 1 };

fn apply(state: Option<&[u8]>, update: &[u8]) -> Result<Vec<u8>, Fault> {
    Plugin::apply(b"key", state, update, DOT)
}

fn merge(values: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 }).collect();
    Plugin::merge(b"key", &siblings)
}

/// All that a client has.
fn all(client: &Doc) -> Vec<u8> {
    client.transact().encode_state_as_update_v1(&StateVector::default())
}

fn update(client: &Doc, update: &[u8]) {
    client.transact_mut().apply_update(Update::decode_v1(update).expect("an update")).expect("a good one");
}

fn text(value: &[u8]) -> String {
    String::from_utf8(Plugin::show(value)).expect("a text")
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::with_validator();
    check(&plugin, &plugin, CheckConfig { smallest: 12, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn two_write_at_once_and_both_read_the_same() {
    let (ann, bob) = (Doc::with_client_id(1), Doc::with_client_id(2));
    ann.get_or_insert_text("note").insert(&mut ann.transact_mut(), 0, "feed cat");
    let first = apply(None, &all(&ann)).expect("a document");
    update(&bob, &Plugin::query(&first, b"").expect("a document"));
    ann.get_or_insert_text("note").insert(&mut ann.transact_mut(), 5, "the ");
    bob.get_or_insert_text("note").remove_range(&mut bob.transact_mut(), 0, 4);
    bob.get_or_insert_text("note").insert(&mut bob.transact_mut(), 0, "call");
    let (east, west) =
        (apply(Some(&first), &all(&ann)).expect("a document"), apply(Some(&first), &all(&bob)).expect("a document"));
    let merged = merge(&[&east, &west]).expect("a document");
    assert_eq!(merge(&[&west, &east, &first]).as_ref(), Ok(&merged), "in any order, and an old copy changes nothing");
    assert_eq!(text(&merged), r#"{"note":"call the cat"}"#);
    // A client asks for what it lacks, by what it has.
    let seen = ann.transact().state_vector().encode_v1();
    let lacks = Plugin::query(&merged, &seen).expect("a document");
    assert!(lacks.len() < Plugin::query(&merged, b"").expect("a document").len());
    update(&ann, &lacks);
    assert_eq!(ann.get_or_insert_text("note").get_string(&ann.transact()), "call the cat");
}

#[test]
fn objects_and_lists_are_shown_as_such() {
    let ann = Doc::with_client_id(1);
    ann.get_or_insert_map("settings").insert(&mut ann.transact_mut(), "colour", "red");
    ann.get_or_insert_array("rows").insert_range(&mut ann.transact_mut(), 0, [1.0, 2.5]);
    let value = apply(None, &all(&ann)).expect("a document");
    let shown: serde_json::Value = serde_json::from_slice(&Plugin::show(&value)).expect("a document");
    assert_eq!(shown, serde_json::json!({ "settings": { "colour": "red" }, "rows": [1, 2.5] }));
}

#[test]
fn what_is_no_document_is_a_fault() {
    let ann = Doc::with_client_id(1);
    let note = ann.get_or_insert_text("note");
    note.insert(&mut ann.transact_mut(), 0, "first");
    let (value, seen) = (apply(None, &all(&ann)).expect("a document"), ann.transact().state_vector());
    note.insert(&mut ann.transact_mut(), 5, " and second");
    let second = ann.transact().encode_diff_v1(&seen);
    assert_eq!(apply(None, &second), Err(Fault::Malformed), "it needs the first");
    assert!(apply(Some(&value), &second).is_ok());
    for bad in [&b""[..], b"\xff\xfe", b"[[[", b"{\"no\":1}", &all(&ann), &value[..value.len() - 1]] {
        assert_eq!(merge(&[&value, bad]), Err(Fault::Malformed), "{bad:?}");
        assert_eq!(Plugin::validate(b"key", bad), Err(Fault::Malformed), "{bad:?}");
        assert!(Plugin::show(bad).starts_with(b"{\"error\":"));
    }
    for bad in [&b"\xff\xfe"[..], b"[[[", b"{\"no\":1}"] {
        assert_eq!(apply(Some(&value), bad), Err(Fault::Malformed), "{bad:?}");
        assert_eq!(Plugin::query(&value, bad), Err(Fault::Malformed), "{bad:?}");
    }
    assert!((0..100).all(|seed| Plugin::validate(b"key", &Plugin::sample(seed, 12)).is_ok()));
}
