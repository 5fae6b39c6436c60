//! The ready-made merges: laws and stories natively, and on the components with the same bytes.

use rejoin_guest::{Dot, Native, Operator};
use rejoin_laws::{Case, CheckConfig, Merge, Rng, Sampler, check};
use rejoin_merge::{MergeFault, OperationDot, PluginUnderTest, Refusal};
use rejoin_plugin_counter::Plugin as Counter;
use rejoin_plugin_document::Plugin as Document;
use rejoin_plugin_last_writer::Plugin as LastWriter;
use rejoin_plugin_leaderboard::Plugin as Leaderboard;
use rejoin_plugin_metadata::Plugin as Record;
use rejoin_plugin_set::Plugin as Set;
use rejoin_test_laws::{component, ready};

/// The laws on the component, and that it merges like the plain function.
fn laws_hold(native: &(impl Merge + Sampler), component: &PluginUnderTest, cases: u32) {
    let report = check(component, component, CheckConfig { cases, smallest: 20, ..CheckConfig::default() })
        .unwrap_or_else(|found| panic!("{found}"));
    assert!(
        report.iter().all(|tried| tried.collisions > 0 && tried.judged > cases / 2),
        "that finds nothing: {report:?}"
    );
    let mut rng = Rng::new(7);
    for _ in 0..100 {
        let case = Case::draw(&mut rng, 20, true);
        let trial = case.build(native, native).expect("the sampler draws valid values");
        let (one, other) = (native.merge(&case.key, &trial.siblings), component.merge(&case.key, &trial.siblings));
        assert!(one == other || (one.is_err() && other.is_err()), "{one:?} and {other:?}");
    }
}

/// Whether it says its name, and which of operator and validator it has.
fn describes_itself(component: &PluginUnderTest, name: &str, self_causal: bool, abilities: bool) {
    let metadata = component.plugin.metadata().expect("it exports `about`");
    assert_eq!((metadata.name.as_str(), metadata.schema, metadata.self_causal), (name, 1, self_causal));
    let exports = component.plugin.exports();
    assert!(exports.present && exports.sample && exports.describe, "{name}");
    assert_eq!((exports.operate, exports.validate), (abilities, abilities), "{name}");
}

/// The component applies and answers as the plain functions do.
fn operates<P: Operator>(component: &PluginUnderTest, operation: &[u8], question: &[u8]) {
    let (host, plugin, limits) = (&component.host, &component.plugin, &component.limits);
    let mut state: Option<Vec<u8>> = None;
    for counter in [3, 7] {
        let dot = OperationDot { actor: 0xa07, counter };
        let applied = host.apply(plugin, (b"k", state.as_deref()), (operation, dot), limits).expect("an operation");
        let native = P::apply(b"k", state.as_deref(), operation, Dot { actor: 0xa07, counter });
        assert_eq!(native.as_deref(), Ok(&applied.value[..]));
        state = Some(applied.value.to_vec());
    }
    let state = state.unwrap_or_default();
    let answer = host.query(plugin, &state, question, limits).expect("a question");
    assert_eq!(P::query(&state, question).as_deref(), Ok(&answer.value[..]));
    for garbage in [&b"\xff\xfe"[..], b"[[[", b"{\"no\":1}"] {
        let dot = OperationDot { actor: 1, counter: 1 };
        let fault = host.apply(plugin, (b"k", None), (garbage, dot), limits).expect_err("no operation");
        assert_eq!(fault, MergeFault::Refused(Refusal::Malformed));
        let fault = host.query(plugin, &state, garbage, limits).expect_err("no question");
        assert_eq!(fault, MergeFault::Refused(Refusal::Malformed));
    }
}

macro_rules! ready_made {
    ($($test:ident: $plugin:ident, $name:literal, $operation:literal, $question:literal, $stories:expr;)*) => {
        $(
            #[test]
            fn $test() {
                let native = Native::<$plugin>::with_validator();
                let component = component::on_a_host(&component::built($name));
                describes_itself(&component, $name, true, true);
                laws_hold(&native, &component, 200);
                operates::<$plugin>(&component, $operation, $question);
                for story in $stories {
                    for merge in [&native as &dyn Merge, &component] {
                        story.run::<$plugin>(merge).unwrap_or_else(|wrong| panic!("{wrong}"));
                    }
                }
            }
        )*
    };
}

ready_made! {
    counters_count_each_increment_once: Counter, "counter", b"5", br#""total""#, ready::COUNTER;
    sets_bring_nothing_back: Set, "set", br#"{"add":["x","y"]}"#, br#"{"has":"y"}"#, ready::SET;
    fields_of_records_do_not_compete: Record, "metadata", br#"{"set":{"a":[1]}}"#, br#"{"get":"a"}"#, ready::METADATA;
    boards_keep_the_best: Leaderboard, "leaderboard", br#"{"player":"x","score":5}"#, br#"{"best":1}"#, ready::LEADERBOARD;
}

#[test]
fn the_last_writer_wins_whatever_the_values_are() {
    let component = component::on_a_host(&component::built("last-writer"));
    describes_itself(&component, "last-writer", false, false);
    laws_hold(&Native::<LastWriter>::default(), &component, 200);
}

/// It is no ready-made merge: its operations are the updates of Yjs, which nobody types.
#[test]
fn a_document_of_yjs() {
    /// Client 3908401244 has typed "abc" into the text `test`.
    const UPDATE: &[u8] = &[1, 1, 220, 240, 237, 172, 15, 0, 4, 1, 4, 116, 101, 115, 116, 3, 97, 98, 99, 0];
    let native = Native::<Document>::with_validator();
    let component = component::on_a_host(&component::built("document"));
    describes_itself(&component, "document", true, true);
    laws_hold(&native, &component, 100);
    operates::<Document>(&component, UPDATE, b"");
    for story in ready::DOCUMENT {
        for merge in [&native as &dyn Merge, &component] {
            story.run::<Document>(merge).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
}
