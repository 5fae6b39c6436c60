//! The fault atlas of a storm: it allows no wipe that takes the last copy of an acknowledged write.
//!
//! The rule is that of the simulator (`tests/sim/src/atlas.rs`): a write is kept if the context of another disk's copy
//! covers it. What other disks hold is asked of their nodes, each for its own copy (r = 1). Writes that are
//! acknowledged meanwhile have two durable copies, of which one wipe takes one.

use std::sync::Mutex;
use std::sync::PoisonError;

use rejoin_proto::VersionVector;
use rejoin_test_sim::history::{Asked, KeyId, NodeIndex};

use crate::clients::{Load, name_of};
use crate::healing::{Pins, each};

/// Whether everything that was acknowledged so far is on another disk than that of `node`.
///
/// # Errors
/// A write is not, or a node does not say.
pub async fn may_wipe(load: &Load, pins: &Pins, node: NodeIndex) -> Result<(), String> {
    let acknowledged = acknowledged(load);
    let refusal = Mutex::new(None);
    each(0..acknowledged.len() as KeyId, async |key| {
        let wanted = &acknowledged[key as usize];
        if wanted.is_empty() || refusal.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        if let Err(why) = is_elsewhere(load, pins, node, key, wanted).await {
            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    })
    .await;
    refusal.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// By key: what its acknowledged writes had seen, and they themselves.
fn acknowledged(load: &Load) -> Vec<VersionVector> {
    let run = load.recording.run();
    let mut by_key = vec![VersionVector::new(); run.keys.len()];
    for call in run.calls.iter().filter(|call| matches!(call.asked, Asked::Put { .. })) {
        if let Some(answer) = call.answer() {
            by_key[call.key as usize].join(&answer.context);
        }
    }
    by_key
}

async fn is_elsewhere(
    load: &Load,
    pins: &Pins,
    node: NodeIndex,
    key: KeyId,
    wanted: &VersionVector,
) -> Result<(), String> {
    // Only in a calm, while no layout changes, so the owners are those that are recorded.
    let others: Vec<NodeIndex> =
        load.recording.run().keys[key as usize].owners.iter().copied().filter(|owner| *owner != node).collect();
    let mut held = VersionVector::new();
    let mut silent = Vec::new();
    for owner in others {
        match pins.copy(load, owner, key).await {
            Ok(copy) => {
                if let Some(object) = &copy.object {
                    held.join(&object.context);
                }
            }
            Err(why) => silent.push(why),
        }
        if held.covers(wanted) {
            return Ok(());
        }
    }
    Err(format!("no other disk is known to have all that was acknowledged of {} {silent:?}", name_of(key)))
}
