//! Folds of objects whose siblings an exchange has brought together. A bucket whose plugin is self-causal folds at
//! once, any other one at its limit, as reads and writes do. A fold is conditional: it is thrown away if the object has
//! changed since its inputs were taken.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::catalog::BucketProps;
use rejoin_proto::{Entry, FoldedBy, Object, ObjectId, PluginDigest};

use super::Shard;
use super::copy::Place;
use super::event::{Effect, MergeTicket, Merged, PluginError};
use super::jobs::fold_job;
use super::op::PendingFold;
use super::turn::Turn;
use crate::causal;
use crate::trials;
use crate::view::Bucket;

/// The most merges for exchanges under way. Other objects are folded by a read, or when they are exchanged again.
const MAX_FOLDS: usize = 64;
/// The time that a merge for an exchange has, in microseconds.
const FOLD_US: u64 = 10_000_000;

/// A merge under way.
#[derive(Debug)]
pub(super) struct ExchangeFold {
    id: ObjectId,
    bucket: Arc<Bucket>,
    inputs: Vec<Entry>,
    plugin: PluginDigest,
}

impl Shard {
    /// An exchange has brought an object: its siblings are merged if its bucket folds them.
    pub(super) fn fold_exchanged(&mut self, turn: &mut Turn<'_>, bucket: &Arc<Bucket>, id: &ObjectId, object: &Object) {
        let props = &bucket.props;
        if object.entries.len() < 2 || self.folds.len() >= MAX_FOLDS {
            return;
        }
        let Ok(activation) = self.merger(bucket, id) else { return };
        let is_at_limit = is_at_limit(props, object.entries.len(), causal::value_bytes(object));
        if !is_at_limit && !trials::folds_at_once(props, &activation, turn.now.wall_ms) {
            return;
        }
        let inputs = causal::visible(object, turn.now.wall_ms);
        let siblings = causal::siblings(&inputs);
        if siblings.len() < 2 {
            return;
        }
        let number = self.ops.ticket();
        self.counters.merges += 1;
        let deadline_us = turn.now.mono_us.saturating_add(FOLD_US);
        let job = fold_job(bucket, id, activation.plugin, siblings, deadline_us);
        turn.effects.push(Effect::Merge(MergeTicket(number), job));
        let (id, bucket, plugin) = (id.clone(), bucket.clone(), activation.plugin);
        self.folds.insert(number, ExchangeFold { id, bucket, inputs, plugin });
    }

    /// The plugin has run. A failure leaves the siblings.
    pub(super) fn exchange_merged(
        &mut self,
        turn: &mut Turn<'_>,
        fold: ExchangeFold,
        result: Result<Merged, PluginError>,
    ) {
        let Ok(merged) = result else { return };
        let ExchangeFold { id, bucket, inputs, plugin } = fold;
        let store_key = Bytes::from(id.store_key());
        let place = Place { partition: self.view.layout().partition(&id), store_key: &store_key };
        let Ok(mut copy) = self.load(turn, place) else { return };
        let by = Some(FoldedBy { plugin, profile: merged.profile });
        let fold = PendingFold { inputs, value: merged.value, by, fuel_used: merged.fuel_used };
        // Without room the siblings stay.
        let _ = self.store_fold(turn, &bucket, (&id, &mut copy), &fold);
    }
}

/// Whether an object of so many entries and bytes is folded whatever its plugin is.
pub(super) fn is_at_limit(props: &BucketProps, entries: usize, bytes: usize) -> bool {
    entries >= usize::from(props.siblings) || bytes > props.object_bytes()
}
