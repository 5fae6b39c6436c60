//! The session as an application uses it, and the laws on the plain function.

use rejoin_guest::laws::{CheckConfig, ModelCluster, check};
use rejoin_guest::{Fault, Merger, Native, Presenter, Sampler, Sibling, Validator};
use rejoin_plugin_session::{Plugin, Session, StampsUsedUp};

fn session(edit: impl FnOnce(&mut Session) -> Result<(), StampsUsedUp>) -> Session {
    let mut session = Session::default();
    edit(&mut session).expect("there are larger stamps");
    session
}

fn merge(values: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let siblings: Vec<Sibling> =
        values.iter().map(|value| Sibling { value: value.to_vec(), stamp_ms: 0, writer: 0 }).collect();
    Plugin::merge(b"", &siblings)
}

fn shown(values: &[&Session]) -> String {
    let values: Vec<Vec<u8>> = values.iter().map(|session| session.to_json()).collect();
    let merged = merge(&values.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("sessions");
    String::from_utf8(Plugin::show(&merged)).expect("JSON")
}

#[test]
fn the_laws_hold() {
    let plugin = Native::<Plugin>::with_validator();
    check(&plugin, &plugin, CheckConfig { cases: 2_000, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
}

#[test]
fn different_fields_do_not_compete_and_the_later_of_one_field_wins() {
    let web = session(|s| {
        s.set("web", 10, "name", "Ann")?;
        s.set("web", 10, "theme", "dark")
    });
    let app = session(|s| {
        s.set("app", 5, "name", "Anne")?;
        s.set("app", 5, "lang", "fr")
    });
    assert_eq!(shown(&[&web, &app]), r#"{"lang":"fr","name":"Ann","theme":"dark"}"#);
}

#[test]
fn ties_are_broken_the_same_way_on_both_sides() {
    let at = |writer: &'static str, value: &'static str| session(|s| s.set(writer, 7, "name", value));
    for (one, two, kept) in [(at("app", "z"), at("web", "a"), "a"), (at("app", "a"), at("app", "b"), "b")] {
        let kept = format!("{{\"name\":\"{kept}\"}}");
        assert_eq!((shown(&[&one, &two]), shown(&[&two, &one])), (kept.clone(), kept));
    }
    let (set, removed) = (at("app", "a"), session(|s| s.remove("app", 7, "name")));
    assert_eq!(shown(&[&set, &removed]), r#"{"name":"a"}"#);
}

#[test]
fn a_removed_field_stays_removed_when_an_old_copy_returns() {
    let old = session(|s| s.set("web", 10, "name", "Ann"));
    let mut now = old.clone();
    now.remove("app", 11, "name").expect("there are larger stamps");
    assert_eq!(shown(&[&now, &old]), "{}");
    assert_eq!(now.to_json(), br#"{"name":{"stamp":11,"writer":"app","value":null}}"#);
}

#[test]
fn whoever_has_seen_a_field_replaces_it_even_with_a_slow_clock() {
    let ahead = session(|s| s.set("web", 1_000_000, "name", "Ann"));
    let mut seen = ahead.clone();
    seen.set("app", 3, "name", "Anne").expect("there are larger stamps");
    assert_eq!(shown(&[&ahead, &seen]), r#"{"name":"Anne"}"#);
}

/// A clock at the end of all stamps must not make later changes compete by their writers: one of them would be lost
/// though it was acknowledged.
#[test]
fn a_change_that_has_seen_another_replaces_it_up_to_the_last_stamp_and_fails_beyond() {
    let wrong_clock = session(|s| s.set("web", u64::MAX, "name", "Ann"));
    let mut seen = wrong_clock.clone();
    seen.set("app", 0, "name", "Zoe").expect("a wrong clock leaves room");
    assert_eq!(shown(&[&wrong_clock, &seen]), r#"{"name":"Zoe"}"#, "though web is the larger writer");
    let last = br#"{"name":{"stamp":9007199254740992,"writer":"web","value":"Ann"}}"#;
    let mut last = Session::parse(last).expect("the largest stamp");
    let before = last.clone();
    let error = last.set("app", 0, "name", "Zoe").expect_err("there is no larger stamp");
    assert!(error.to_string().contains("\"name\"") && last == before, "{error}");
    assert_eq!(last.remove("web", u64::MAX, "name"), Err(error));
    last.set("app", 0, "theme", "dark").expect("other fields can be changed");
}

#[test]
fn two_browsers_and_an_old_replica_agree_in_the_end() {
    let plugin = Native::<Plugin>::default();
    let mut cluster = ModelCluster::new(&plugin, b"session/17");
    let edit = |seen: &Option<Vec<u8>>, change: &dyn Fn(&mut Session) -> Result<(), StampsUsedUp>| {
        let mut session =
            seen.as_deref().map_or_else(Session::default, |json| Session::parse(json).expect("a session"));
        change(&mut session).expect("there are larger stamps");
        session.to_json()
    };
    let seen = cluster.read("east").expect("nothing yet");
    cluster.write("east", "web", &edit(&seen.value, &|s| s.set("web", 1, "name", "Ann")), &seen);
    cluster.sync("east", "attic");
    let disk = cluster.copy_disk("attic");
    for (at, who, name) in [("east", "web", "theme"), ("attic", "app", "lang")] {
        let seen = cluster.read(at).expect("a session");
        cluster.write(at, who, &edit(&seen.value, &|s| s.set(who, 2, name, "x")), &seen);
    }
    let seen = cluster.read("east").expect("a session");
    cluster.write("east", "web", &edit(&seen.value, &|s| s.remove("web", 3, "name")), &seen);
    cluster.sync("east", "attic");
    cluster.fold("east").expect("they merge");
    cluster.restore_disk("attic", disk);
    let seen = cluster.read("attic").expect("the old session");
    cluster.write("attic", "app", &edit(&seen.value, &|s| s.set("app", 9, "size", "l")), &seen);
    cluster.sync("east", "attic");
    for at in ["east", "attic"] {
        let wanted = |found: Option<&[u8]>| {
            found.is_some_and(|json| Plugin::show(json) == br#"{"lang":"x","size":"l","theme":"x"}"#)
        };
        cluster.expect_that(at, "lang, size and theme", wanted).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn what_is_no_session_is_a_fault() {
    let good = Session::default().to_json();
    let bad: [&[u8]; 7] = [
        b"",
        b"null",
        b"[]",
        br#"{"name":"Ann"}"#,
        br#"{"name":{"stamp":-1,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":9007199254740993,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":1,"writer":"a","value":"x","more":1}}"#,
    ];
    for value in bad {
        assert_eq!(merge(&[&good, value]), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{}", String::from_utf8_lossy(value));
        assert!(Plugin::show(value).starts_with(b"{\"error\":"));
    }
}

/// Of two fields of one name a reader that takes the last loses the first, though it may be the later one.
#[test]
fn what_two_readers_could_read_differently_is_no_session() {
    let deep = format!("{{\"name\":{}", "{\"a\":".repeat(100_000));
    let long = format!("{{\"name\":{{\"stamp\":{},\"writer\":\"a\",\"value\":\"x\"}}}}", "1".repeat(100_000));
    let bad: [&[u8]; 26] = [
        br#"{"name":{"stamp":2,"writer":"a","value":"new"},"name":{"stamp":1,"writer":"a","value":"old"}}"#,
        br#"{"name":{"stamp":2,"writer":"a","value":"x"},"\u006eame":{"stamp":1,"writer":"a","value":"x"}}"#,
        br#"{"b":{"stamp":1,"writer":"a","value":"x"},"a":{"stamp":1,"writer":"a","value":"x"},"b":{"stamp":1,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":1,"stamp":2,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":1,"writer":"a","value":"x","value":null}}"#,
        br#"{"name":[1,"a","x"]}"#,
        br#"{"name":{"stamp":1,"writer":"a","value":"\udc00"}}"#,
        br#"{"name":{"stamp":1.0,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":1e3,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":-0,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":NaN,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":1e999,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":18446744073709551617,"writer":"a","value":"x"}}"#,
        br#"{},"#,
        b"{\"name\":{\"stamp\":1,\"writer\":\"\xff\",\"value\":\"x\"}}",
        b"\xef\xbb\xbf{}",
        b"{}\0",
        b"{\"name\":{\"stamp\":1,\"writer\":\"\xc0\x80\",\"value\":\"x\"}}",
        b"{\"name\":{\"stamp\":1,\"writer\":\"\xed\xa0\x80\",\"value\":\"x\"}}",
        br#"{"name":{"stamp":1,"writer":"a","value":"x"},}"#,
        br#"{'name':{"stamp":1,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":1e-400,"writer":"a","value":"x"}}"#,
        br#"{"name":{"stamp":"1","writer":"a","value":"x"}}"#,
        br#"{}//"#,
        long.as_bytes(),
        deep.as_bytes(),
    ];
    for value in bad {
        let shown = String::from_utf8_lossy(&value[..value.len().min(80)]);
        assert_eq!(Plugin::validate(b"", value), Err(Fault::Malformed), "{shown}");
        assert_eq!(merge(&[&Session::default().to_json(), value]), Err(Fault::Malformed), "{shown}");
    }
}

#[test]
fn what_is_sampled_and_merged_is_valid() {
    for seed in 0..200 {
        let (one, two) = (Plugin::sample(seed, 20), Plugin::sample(seed + 1, 20));
        let merged = merge(&[&one, &two]).expect("two sessions");
        assert!([one, two, merged].iter().all(|session| Plugin::validate(b"", session).is_ok()), "seed {seed}");
    }
}
