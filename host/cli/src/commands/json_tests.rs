use serde_json::json;

use super::*;

#[test]
fn a_get_has_the_documented_fields() {
    let sibling =
        Sibling { value: None, value_base64: "/w==".into(), stamp_ms: 5, writer: format!("{:016x}", u64::MAX) };
    let got = GetOutput {
        bucket: "b".into(),
        key: text(b"k"),
        key_base64: "aw==".into(),
        found: true,
        value: text(b"\xff"),
        value_base64: Some("/w==".into()),
        shown: None,
        context: "c".into(),
        siblings: vec![sibling],
        merged_by: Some(MergedBy { name: Some("cart".into()), digest: "d".into() }),
        merge_fault: None,
        unreachable: vec!["n4".into()],
    };
    let expected = json!({
        "bucket": "b", "key": "k", "key_base64": "aw==", "found": true, "value": null, "value_base64": "/w==",
        "shown": null, "context": "c",
        "siblings": [{"value": null, "value_base64": "/w==", "stamp_ms": 5, "writer": "ffffffffffffffff"}],
        "merged_by": {"name": "cart", "digest": "d"}, "merge_fault": null,
        "unreachable": ["n4"],
    });
    assert_eq!(serde_json::to_value(got).expect("plain data is JSON"), expected);
}

#[test]
fn a_put_has_the_documented_fields_whatever_its_outcome() {
    let put = Put { outcome: "unknown", context: None, acked: 1, needed: 2 };
    assert_eq!(
        serde_json::to_value(put).expect("plain data is JSON"),
        json!({"outcome": "unknown", "context": null, "acked": 1, "needed": 2})
    );
}

#[test]
fn a_quorum_is_a_number_or_the_word() {
    assert_eq!(
        serde_json::to_value([Count::from(Quorum::Count(2)), Quorum::Majority.into()]).expect("plain data is JSON"),
        json!([2, "quorum"])
    );
}

#[test]
fn a_key_and_what_was_made_are_flat() {
    #[derive(serde::Serialize)]
    struct Row {
        #[serde(flatten)]
        key: KeyJson,
        #[serde(flatten)]
        made: MadeJson,
        fuel: u64,
    }
    let row = |key: &[u8], made: Result<EncodedBytes, String>| Row {
        key: KeyJson::new(key),
        made: MadeJson::from(made),
        fuel: 7,
    };
    assert_eq!(row(b"\xff", Err(String::new())).key.shown(), "base64:/w==");
    assert_eq!(
        serde_json::to_value([row(b"k", Ok(EncodedBytes::of_key(b"v"))), row(b"\xff", Err("so".into()))])
            .expect("plain data is JSON"),
        json!([
            {"key": "k", "key_base64": "aw==", "value": {"shown": "v", "base64": "dg=="}, "fuel": 7},
            {"key": null, "key_base64": "/w==", "failure": "so", "fuel": 7},
        ])
    );
}
