//! Transcripts of plugins: a node runs a plugin only if it computes with it what the node where it was pushed does.
//!
//! `rejoin_merge` makes a transcript when a plugin is loaded, and `plugins` compares it with the recorded one. Here
//! is what else becomes of transcripts: which one of a record concerns this node, recording those of an engine that has
//! none yet, and telling clients which plugins this node can run.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use rejoin_core::control::{CatalogChange, Wait};
use rejoin_merge::{Rejection, TRANSCRIPT_CASES};
use rejoin_proto::catalog::{Record, RecordBody, RecordKey, Transcript};
use rejoin_proto::client::{RecordKind, Reply};
use rejoin_proto::plugin_state::{MAX_STATE_BYTES, NodePlugins, PluginState};
use rejoin_proto::{Name, PluginDigest, ProfileId, TenantId};

use crate::context::NodeContext;
use crate::messages::CatalogRequest;
use crate::operator::{records, stopping};

/// The transcript of a plugin's record that concerns engines of a profile. Without one, the tenant whose record needs
/// it. A deleted plugin is not run, and can be pushed with another transcript.
pub(crate) fn recorded(
    profile: ProfileId,
    tenant: TenantId,
    body: &RecordBody,
) -> (Option<Transcript>, Option<TenantId>) {
    let RecordBody::Plugin(plugin) = body else { return (None, None) };
    let own = Transcript { profile, cases: TRANSCRIPT_CASES, hash: [0; 32] };
    let recorded = plugin.transcripts.iter().find(|known| known.is_comparable(&own)).copied();
    (recorded, recorded.is_none().then_some(tenant))
}

/// Why a node does not run a plugin, if its own transcript differs from the recorded one.
pub(crate) fn difference(
    node: &Name,
    digest: &PluginDigest,
    own: Option<Transcript>,
    recorded: Option<Transcript>,
) -> Option<Rejection> {
    let (own, recorded) = (own?, recorded?);
    let differs = own.is_comparable(&recorded) && own.hash != recorded.hash;
    let short: String = digest.to_string().chars().take(12).collect();
    differs.then(|| Rejection::Differs {
        reason: format!(
            "{node} does not run plugin {short}, since it computes otherwise than the node where that was pushed \
             (transcript {} here, {} there). One of both is unsound: `rejoin plugin show {short}` names those that \
             differ. Restart {node}, and replace its machine if it differs again. If most nodes differ, the other one \
             is unsound: `rejoin plugin release {digest}` has another one record it",
            own.short(),
            recorded.short()
        ),
    })
}

/// Records the transcripts of plugins whose records have none for this engine, as after an upgrade. Another node may do
/// the same: then one of both stays, and the other compares.
pub(crate) fn record(ctx: &NodeContext) {
    for (tenant, digest, transcript) in ctx.plugins.take_unrecorded() {
        tracing::info!(%digest, profile = %transcript.profile, "the transcript of this engine is recorded");
        let (change, nobody) = (CatalogChange::PluginTranscript(tenant, digest, transcript), BTreeSet::new());
        let (answer, _) = oneshot::channel();
        let _ = ctx.catalog.send(CatalogRequest::Change(change, Wait { all: nobody, until_us: 0 }, answer));
    }
}

/// The plugins that records are of, and which of them can be used: those that are not deleted.
fn known_plugins(records: &[Record]) -> BTreeMap<PluginDigest, bool> {
    let plugin = |record: &Record| match (&record.key, &record.body) {
        (RecordKey::Plugin(_, digest), RecordBody::Plugin(_)) => Some((*digest, true)),
        (RecordKey::Plugin(_, digest), RecordBody::DeletedPlugin { deleted, .. }) if !deleted.reaped => {
            Some((*digest, false))
        }
        _ => None,
    };
    records.iter().filter_map(plugin).collect()
}

/// Which of a tenant's plugins this node can run. One that is asked for by its digest is loaded, unless it is deleted.
pub(crate) async fn states(ctx: &NodeContext, tenant: TenantId, digest: Option<PluginDigest>) -> Reply {
    let Some(records) = records(ctx, RecordKind::Plugin, tenant).await else { return Reply::Error(stopping()) };
    let known = known_plugins(&records);
    let node = ctx.config.name.clone();
    let Some(digest) = digest else {
        let plugins = known.into_keys().map(|digest| (digest, ctx.plugins.state(&digest))).collect();
        return Reply::PluginStates(NodePlugins { node, plugins });
    };
    let state = match known.get(&digest) {
        Some(can_be_used) => {
            if *can_be_used {
                ctx.plugins.prepare(&digest);
            }
            ctx.plugins.state(&digest)
        }
        // The record has not come here yet.
        None => PluginState::Missing,
    };
    Reply::PluginStates(NodePlugins { node, plugins: vec![(digest, state)] })
}

/// The beginning of a reason, as much as a reply takes.
pub(crate) fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_STATE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_core::control::{plugin_record, transcribed_record};
    use rejoin_proto::Hlc;
    use rejoin_proto::catalog::Deleted;

    fn transcript(profile: u64, hash: u8) -> Transcript {
        Transcript { profile: ProfileId(profile), cases: TRANSCRIPT_CASES, hash: [hash; 32] }
    }

    #[test]
    fn a_record_concerns_a_node_by_its_engine() {
        let name = Name::new("cart").expect("a name");
        let body = plugin_record(name, "1".into(), 9, false, false);
        let body = RecordBody::Plugin(transcribed_record(body, &[transcript(1, 7), transcript(2, 8)]));
        let of = |profile| recorded(ProfileId(profile), TenantId(5), &body);
        assert_eq!(of(2), (Some(transcript(2, 8)), None));
        assert_eq!(of(3), (None, Some(TenantId(5))), "it is to be recorded");
    }

    #[test]
    fn a_deleted_plugin_is_known_and_cannot_be_used() {
        let body = || plugin_record(Name::new("cart").expect("a name"), "1".into(), 9, false, false);
        let deleted = |reaped| RecordBody::DeletedPlugin { plugin: body(), deleted: Deleted { reap_ms: 9, reaped } };
        let records = [RecordBody::Plugin(body()), deleted(false), deleted(true)];
        let record = |(number, body)| Record {
            key: RecordKey::Plugin(TenantId(5), PluginDigest([number; 32])),
            version: 1,
            stamp: Hlc(1),
            body,
        };
        let records: Vec<Record> = (0..).zip(records).map(record).collect();
        let of = |number| PluginDigest([number; 32]);
        assert_eq!(known_plugins(&records), BTreeMap::from([(of(0), true), (of(1), false)]));
    }

    #[test]
    fn only_another_answer_of_the_same_engine_is_a_difference() {
        let node = Name::new("n".repeat(64)).expect("a name");
        let of = |own, recorded| difference(&node, &PluginDigest([0xab; 32]), own, recorded);
        let own = Some(transcript(1, 7));
        assert_eq!((of(own, own), of(own, None), of(None, own)), (None, None, None));
        assert_eq!(of(own, Some(transcript(2, 8))), None, "another engine");
        let other_cases = Transcript { cases: TRANSCRIPT_CASES + 1, ..transcript(1, 8) };
        assert_eq!(of(own, Some(other_cases)), None, "other cases");
        let differs = of(own, Some(transcript(1, 8))).expect("a difference");
        let said = differs.to_string();
        assert!(said.contains("070707070707 here, 080808080808 there") && said.contains("abababababab"), "{said}");
        assert!(!differs.is_final(), "the machine is tried again");
        assert_eq!(cut(&"é".repeat(MAX_STATE_BYTES)).len(), MAX_STATE_BYTES);
    }
}
