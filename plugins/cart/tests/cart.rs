//! The cart as an application uses it, and the laws on the plain function.

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Fault, Merger, Native, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_cart::{Cart, Plugin, Session};

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
fn a_remove_of_what_was_seen_holds_and_an_add_at_the_same_time_wins() {
    let mut start = Cart::default();
    start.add("ann", "apples", 2);
    let (mut remover, mut adder) = (start.clone(), start.clone());
    remover.remove("apples");
    adder.add("bob", "apples", 1);
    let merged = merge(&[&remover.to_json(), &adder.to_json(), &start.to_json()]).expect("three carts");
    assert_eq!(merged, br#"{"clock":{"ann":1,"bob":1},"items":{"apples":{"bob:1":1}}}"#);
    assert_eq!(Plugin::show(&merged), br#"{"apples":1}"#);
}

#[test]
fn a_session_that_reads_an_old_replica_keeps_its_own_adds() {
    let mut ann = Session::new("ann");
    let first = ann.edit(None, |cart, me| cart.add(me, "apples", 1)).expect("no cart yet");
    let second = ann.edit(None, |cart, me| cart.add(me, "pears", 1)).expect("still none here");
    let both = Cart::parse(&merge(&[&first, &second]).expect("two carts")).expect("a cart");
    assert_eq!(both.items().into_iter().collect::<Vec<_>>(), [("apples", 1), ("pears", 1)]);
}

/// A client may write any clock. A writer that is at its last counter must not be told that an add was taken.
#[test]
fn an_add_beyond_the_last_counter_is_refused_and_does_not_block_the_session() {
    let last = br#"{"clock":{"ann":9007199254740992},"items":{}}"#;
    let mut cart = Cart::parse(last).expect("the largest counter");
    cart.add("ann", "apples", 1);
    assert_eq!(Plugin::validate(b"", &cart.to_json()), Err(Fault::Malformed));
    assert!(cart.check().expect_err("one too many").to_string().contains("\"ann\""));
    let mut ann = Session::new("ann");
    ann.edit(Some(last), |cart, me| cart.add(me, "apples", 1)).expect_err("it could not be written");
    let edited = ann.edit(None, |cart, me| cart.add(me, "pears", 1)).expect("the failed edit is forgotten");
    assert_eq!(Plugin::show(&edited), br#"{"pears":1}"#);
    let mut other = Session::new("ann-2");
    let edited = other.edit(Some(last), |cart, me| cart.add(me, "apples", 1)).expect("a new session can add");
    assert_eq!(Plugin::validate(b"", &edited), Ok(()));
}

#[test]
fn a_tag_used_twice_loses_neither_add() {
    let mut here = Cart::default();
    here.add("ann", "apples", 1);
    let mut there = Cart::default();
    there.add("ann", "pears", 1);
    let merged = merge(&[&here.to_json(), &there.to_json()]).expect("two carts");
    assert_eq!(Plugin::show(&merged), br#"{"apples":1,"pears":1}"#);
}

#[test]
fn what_is_no_cart_is_a_fault() {
    let good = Cart::default().to_json();
    let bad: [&[u8]; 11] = [
        b"",
        b"{",
        b"null",
        b"{\"clock\":{}}",
        b"{\"clock\":{},\"items\":{},\"more\":1}",
        b"{\"clock\":{\"a\":-1},\"items\":{}}",
        b"{\"clock\":{\"a\":9007199254740993},\"items\":{}}",
        b"{\"clock\":{},\"items\":{\"x\":{\"a:1\":1}}}",
        b"{\"clock\":{\"a\":1},\"items\":{\"x\":{\"a:01\":1}}}",
        b"{\"clock\":{\"a\":1},\"items\":{\"x\":{\"a:1\":0}}}",
        b"{\"clock\":{\"a\":1},\"items\":{\"x\":{\"a:1\":1.5}}}",
    ];
    for value in bad {
        assert_eq!(merge(&[&good, value]), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert!(Plugin::show(value).starts_with(b"{\"error\":"));
    }
}

/// Of two members of one name a reader that takes the last loses the first: an add that was acknowledged.
#[test]
fn what_two_readers_could_read_differently_is_no_cart() {
    let deep = format!("{{\"clock\":{}", "[".repeat(100_000));
    let long = format!("{{\"clock\":{{\"a\":{}}},\"items\":{{}}}}", "1".repeat(100_000));
    let bad: [&[u8]; 34] = [
        br#"{"clock":{"a":2},"items":{"x":{"a:1":1},"x":{"a:2":1}}}"#,
        br#"{"clock":{"a":2},"items":{"x":{"a:1":1},"\u0078":{"a:2":1}}}"#,
        br#"{"clock":{"a":1},"items":{"y":{},"x":{"a:1":1,"a:1":9}}}"#,
        br#"{"clock":{"a":1,"a":2},"items":{}}"#,
        br#"{"clock":{"b":1,"a":1,"b":1},"items":{}}"#,
        br#"{"clock":{"a":1},"items":{"x":{"a:1":1}},"items":{}}"#,
        br#"{"clock":{},"clock":{"a":1},"items":{"x":{"a:1":1}}}"#,
        br#"[{"a":1},{"x":{"a:1":1}}]"#,
        br#"{"clock":{"\ud800":1},"items":{}}"#,
        br#"{"clock":{"a":1e0},"items":{}}"#,
        br#"{"clock":{"a":1.0},"items":{}}"#,
        br#"{"clock":{"a":-0},"items":{}}"#,
        br#"{"clock":{"a":01},"items":{}}"#,
        br#"{"clock":{"a":+1},"items":{}}"#,
        br#"{"clock":{"a":NaN},"items":{}}"#,
        br#"{"clock":{"a":Infinity},"items":{}}"#,
        br#"{"clock":{"a":1e999},"items":{}}"#,
        br#"{"clock":{"a":18446744073709551617},"items":{}}"#,
        br#"{"clock":{"a":1},"items":{"x":{"a:1":4294967297}}}"#,
        br#"{"clock":{},"items":{}} {}"#,
        b"{\"clock\":{\"\xff\":1},\"items\":{}}",
        b"\xef\xbb\xbf{\"clock\":{},\"items\":{}}",
        b"{\"clock\":{},\"items\":{}}\0",
        b"{\"clock\":{\"\xc0\x80\":1},\"items\":{}}",
        b"{\"clock\":{\"\xed\xa0\x80\":1},\"items\":{}}",
        b"{\0\"\0c\0",
        br#"{"clock":{"a":1,},"items":{}}"#,
        br#"{"clock":{'a':1},"items":{}}"#,
        br#"{"clock":{"a":0x1},"items":{}}"#,
        br#"{"clock":{"a":1e-400},"items":{}}"#,
        br#"{"clock":{"a":true},"items":{}}"#,
        br#"{"clock":{},"items":{}}//"#,
        long.as_bytes(),
        deep.as_bytes(),
    ];
    for value in bad {
        let shown = String::from_utf8_lossy(&value[..value.len().min(80)]);
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{shown}");
        assert_eq!(merge(&[&Cart::default().to_json(), value]), Err(Fault::Malformed), "{shown}");
    }
    let why = Cart::parse(bad[1]).expect_err("x comes twice").to_string();
    assert!(why.contains("the name \"x\" comes twice"), "{why}");
}

#[test]
fn what_is_sampled_and_merged_is_valid() {
    for seed in 0..200 {
        let (one, two) = (Plugin::sample(seed, 20), Plugin::sample(seed + 1, 20));
        let merged = merge(&[&one, &two]).expect("two carts");
        assert!([one, two, merged].iter().all(|cart| Plugin::validate(b"", cart).is_ok()), "seed {seed}");
    }
}

#[test]
fn equal_carts_have_equal_bytes() {
    let loose = b"{ \"items\" : {\"pears\":{}, \"apples\":{\"a:1\":1}}, \"clock\":{\"b\":0,\"a\":1} }";
    let canonical = br#"{"clock":{"a":1},"items":{"apples":{"a:1":1}}}"#;
    assert_eq!(Cart::parse(loose).expect("a cart").to_json(), canonical);
    assert_eq!(merge(&[loose, canonical]).expect("two carts"), canonical);
}
