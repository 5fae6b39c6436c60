//! The board as an application uses it, and the laws on the plain functions.

use rejoin_guest::laws::{CheckConfig, check};
use rejoin_guest::{Dot, Fault, Merger, Native, Operator, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_leaderboard::{Board, Plugin};

fn merge(values: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 }).collect();
    Plugin::merge(b"", &siblings)
}

fn apply(state: Option<&[u8]>, operation: &str) -> Result<Vec<u8>, Fault> {
    Plugin::apply(b"", state, operation.as_bytes(), Dot { actor: 1, counter: 1 })
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::with_validator();
    check(&plugin, &plugin, CheckConfig { cases: 2_000, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn the_worst_player_goes_when_a_better_one_comes() {
    let one = apply(None, r#"{"player":"ann","score":9,"top":2}"#).expect("a board");
    let two = apply(Some(&one), r#"{"player":"bob","score":9}"#).expect("a board");
    let worse = apply(Some(&two), r#"{"player":"ann","score":3}"#).expect("a board");
    assert_eq!(worse, two, "a worse score of a player changes nothing");
    let full = apply(Some(&two), r#"{"player":"cy","score":10}"#).expect("a board");
    assert_eq!(full, br#"{"top":2,"scores":{"ann":9,"cy":10}}"#, "of equal scores the first name ranks higher");
    assert_eq!(Plugin::query(&full, br#"{"rank":"ann"}"#), Ok(b"2".to_vec()));
    assert_eq!(Plugin::query(&full, br#"{"rank":"bob"}"#), Ok(b"null".to_vec()));
    assert_eq!(Plugin::query(&full, br#"{"best":1}"#), Ok(br#"[{"player":"cy","score":10}]"#.to_vec()));
    assert_eq!(Plugin::query(&full, b""), Ok(Plugin::show(&full)));
    assert_eq!(merge(&[&full, &two, &one]), Ok(full));
}

#[test]
fn a_board_has_a_hundred_players_unless_its_first_operation_says_otherwise() {
    let board = apply(None, r#"{"player":"ann","score":1}"#).expect("a board");
    assert!(board.starts_with(br#"{"top":100,"#));
    let later = apply(Some(&board), r#"{"player":"ann","score":2,"top":5}"#).expect("a board");
    assert!(later.starts_with(br#"{"top":100,"#), "the first operation has decided");
    for bad in [r#"{"player":"a","score":1,"top":0}"#, r#"{"player":"a","score":1,"top":1001}"#, r#"{"player":"a"}"#] {
        assert_eq!(apply(None, bad), Err(Fault::Malformed), "{bad}");
    }
}

#[test]
fn what_is_no_board_is_a_fault() {
    let empty = Board::new(3).to_json();
    let bad: [&[u8]; 6] = [
        b"",
        b"{}",
        br#"{"top":0,"scores":{}}"#,
        br#"{"top":1001,"scores":{}}"#,
        br#"{"top":1,"scores":{"a":1,"b":2}}"#,
        br#"{"top":1,"scores":{},"more":1}"#,
    ];
    for value in bad {
        assert_eq!(merge(&[&empty, value]), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert!(Plugin::show(value).starts_with(b"{\"error\":"));
    }
    assert!((0..200).all(|seed| Plugin::validate(b"", &Plugin::sample(seed, 20)).is_ok()));
}
