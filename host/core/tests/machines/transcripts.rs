//! What nodes must compute with a plugin is recorded once for each engine.

use rejoin_core::control::{CatalogChange, Control, plugin_record, transcribed_record};
use rejoin_proto::catalog::{MAX_TRANSCRIPTS, RecordBody, RecordKey, Transcript};
use rejoin_proto::{ErrorCode, PluginDigest, ProfileId};

use crate::support::catalog::Nodes;
use crate::support::{name, tenant};

const DIGEST: PluginDigest = PluginDigest([5; 32]);

fn transcript(profile: u64, hash: u8) -> Transcript {
    Transcript { profile: ProfileId(profile), cases: 1, hash: [hash; 32] }
}

/// A push at a node that has got these transcripts.
fn push(transcripts: &[Transcript]) -> CatalogChange {
    let record = plugin_record(name("cart"), "1".into(), 9, false, false);
    CatalogChange::PluginAdd(tenant(), DIGEST, transcribed_record(record, transcripts))
}

fn record(of: Transcript) -> CatalogChange {
    CatalogChange::PluginTranscript(tenant(), DIGEST, of)
}

/// The version of the record at a node, and its transcripts.
fn known(control: &Control) -> (u64, Vec<Transcript>) {
    let record = control.get(&RecordKey::Plugin(tenant(), DIGEST)).expect("a plugin");
    match &record.body {
        RecordBody::Plugin(plugin) | RecordBody::DeletedPlugin { plugin, .. } => {
            (record.version, plugin.transcripts.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn equal_pushes_at_two_nodes_make_equal_records() {
    let mut nodes = Nodes::connected(2);
    nodes.cut(0, 1);
    (0..2).for_each(|at| nodes.change(at, at as u64 + 1, push(&[transcript(1, 7)])));
    nodes.connect(0, 1);
    assert!(nodes.agree());
    assert_eq!(known(&nodes.all[0]), (1, vec![transcript(1, 7)]));
    // Neither a push nor a node that has found the same changes anything.
    nodes.change(1, 3, push(&[transcript(1, 7)]));
    nodes.change(0, 4, record(transcript(1, 7)));
    nodes.deliver();
    assert_eq!(known(&nodes.all[1]), (1, vec![transcript(1, 7)]));
}

#[test]
fn each_engine_has_one_and_the_first_one_stays() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, push(&[transcript(1, 7)]));
    nodes.deliver();
    for (call, change) in [(2, record(transcript(1, 8))), (3, push(&[transcript(1, 8)]))] {
        nodes.change(1, call, change);
        nodes.deliver();
        assert_eq!(known(&nodes.all[1]), (1, vec![transcript(1, 7)]), "another answer of the same engine");
    }
    nodes.change(1, 4, record(transcript(2, 8)));
    nodes.deliver();
    assert_eq!(known(&nodes.all[0]), (2, vec![transcript(1, 7), transcript(2, 8)]));
    // A push at a node with a third engine adds that one, and other cases are another transcript.
    nodes.change(0, 5, push(&[transcript(3, 9)]));
    nodes.deliver();
    let newer = Transcript { cases: 2, ..transcript(3, 9) };
    nodes.change(0, 6, record(newer));
    nodes.deliver();
    assert_eq!(known(&nodes.all[1]).1, [transcript(1, 7), transcript(2, 8), transcript(3, 9), newer]);
    nodes.change(1, 7, record(transcript(4, 1)));
    nodes.deliver();
    let (version, kept) = known(&nodes.all[0]);
    assert_eq!((version, kept.len(), kept[0], kept[3]), (5, MAX_TRANSCRIPTS, transcript(2, 8), transcript(4, 1)));
    assert!(nodes.agree());
}

#[test]
fn of_two_answers_of_one_engine_that_are_recorded_at_once_one_stays_everywhere() {
    let mut nodes = Nodes::connected(3);
    nodes.change(0, 1, push(&[transcript(1, 7)]));
    nodes.deliver();
    nodes.cut(1, 2);
    nodes.cut(0, 1);
    nodes.cut(0, 2);
    nodes.change(1, 2, record(transcript(2, 8)));
    nodes.change(2, 3, record(transcript(2, 9)));
    [(1, 2), (0, 1), (0, 2)].iter().for_each(|&(a, b)| nodes.connect(a, b));
    assert!(nodes.agree());
    let (version, kept) = known(&nodes.all[0]);
    assert!(version == 2 && kept.len() == 2, "{kept:?}");
    assert!([transcript(2, 8), transcript(2, 9)].contains(&kept[1]), "{kept:?}");
}

#[test]
fn a_deleted_plugin_has_its_transcripts_until_it_is_pushed_again() {
    let mut nodes = Nodes::new(1);
    nodes.change(0, 1, push(&[transcript(1, 7)]));
    nodes.change(0, 2, CatalogChange::PluginDelete(tenant(), DIGEST, 60_000));
    assert_eq!(known(&nodes.all[0]), (2, vec![transcript(1, 7)]));
    nodes.change(0, 3, record(transcript(2, 8)));
    assert_eq!(nodes.answer(3).expect_err("it is deleted").code, ErrorCode::NotFound);
    nodes.change(0, 4, CatalogChange::PluginRestore(tenant(), DIGEST));
    assert_eq!(known(&nodes.all[0]).1, [transcript(1, 7)]);
    // The way out if the node where it was pushed is the one that computes wrongly.
    nodes.change(0, 5, CatalogChange::PluginDelete(tenant(), DIGEST, 60_000));
    nodes.change(0, 6, push(&[transcript(1, 9)]));
    assert_eq!(known(&nodes.all[0]).1, [transcript(1, 9)]);
}

/// Also while a bucket uses the plugin, which then cannot be deleted.
#[test]
fn a_release_clears_what_a_faulty_node_has_recorded_first() {
    let mut nodes = Nodes::connected(2);
    nodes.change(0, 1, push(&[transcript(1, 9)]));
    nodes.deliver();
    nodes.change(1, 2, record(transcript(1, 7)));
    nodes.change(1, 3, CatalogChange::PluginRelease(tenant(), DIGEST));
    nodes.deliver();
    assert_eq!(known(&nodes.all[0]), (2, Vec::new()));
    nodes.change(1, 4, record(transcript(1, 7)));
    nodes.deliver();
    assert!(nodes.agree());
    assert_eq!(known(&nodes.all[0]), (3, vec![transcript(1, 7)]));
    // A second release clears it again, and one of a plugin without any changes nothing.
    for call in [5, 6] {
        nodes.change(0, call, CatalogChange::PluginRelease(tenant(), DIGEST));
        nodes.deliver();
        assert_eq!(known(&nodes.all[1]), (4, Vec::new()));
    }
}
