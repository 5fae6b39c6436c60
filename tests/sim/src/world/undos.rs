//! The operator who has the folds of a bad version undone, as `rejoin plugin undo` does: the receipts of all nodes that
//! can be asked, a plan of what takes the place of what, and one write for each fold.

use std::collections::BTreeSet;

use bytes::Bytes;

use rejoin_core::shard::ReceiptsWanted;
use rejoin_proto::client::{Basis as Given, Put, StartId};
use rejoin_proto::peer::DataRequest;
use rejoin_proto::receipt::{KeptReceipt, Restoration, Restored};
use rejoin_proto::undo::{Undo, plan};
use rejoin_proto::{Content, Entry, Object, PluginDigest, RequestId, codec};

use super::World;
use crate::history::{Asked, KeyId, Kind, Stray};
use crate::options::SECOND;
use crate::record::{FORGED_UNDO_REFUSED, UNDO_REFUSED, UNDONE};
use crate::workload::Ask;

/// The time in which the bad version must be gone from all nodes, once all of them serve, and that of the undos of a
/// round; and how much longer they may take for each of them, since one session asks for one after the other.
const GONE_US: u64 = 60 * SECOND;
const UNDO_US: u64 = SECOND;
/// The most rounds of undos, and the time until what was refused is tried again: the memory of retries may be full, and
/// empties within the longest window.
const ROUNDS: u32 = 12;
const AGAIN_US: u64 = 10 * SECOND;

impl World {
    /// Plans the undos of all folds of a bucket's bad version that receipts tell of.
    pub(super) fn plan_undos(&mut self, bucket: usize) {
        let (Some(operator), true) = (self.versions.operator, self.versions.undos.is_empty()) else { return };
        let bad: Vec<PluginDigest> = self.versions.bad().collect();
        let kept = self.receipts_of(bucket);
        for plugin in bad {
            for undo in plan(&kept, plugin).undos {
                let ask = self.undo(bucket, &undo);
                self.versions.undos.extend(ask);
            }
        }
        if self.sessions[usize::from(operator)].pending.is_none() {
            self.next_undo(operator);
        }
    }

    /// The receipts of folds that running nodes keep of a bucket.
    fn receipts_of(&self, bucket: usize) -> Vec<KeptReceipt> {
        let of = self.keys.bucket_id(bucket);
        let mut all: Vec<KeptReceipt> = Vec::new();
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            for (task, disk) in running.shards.iter().zip(&node.disks) {
                let mut from = None;
                loop {
                    let (plugin, undo) = (None, true);
                    let wanted = ReceiptsWanted { bucket: of, object: None, plugin, since_ms: 0, from, undo };
                    // A store that cannot be read now is asked again in the next round.
                    let Ok((kept, next, _)) = task.batch.shard().kept_receipts(disk, &wanted) else { break };
                    all.extend(kept);
                    from = next;
                    if from.is_none() {
                        break;
                    }
                }
            }
        }
        all
    }

    /// The write that undoes a fold. `None` if that is not of the bucket's tenant.
    fn undo(&mut self, bucket: usize, undo: &Undo<'_>) -> Option<Ask> {
        let (receipt, context) = (&undo.kept.receipt, undo.kept.context.clone()?);
        let key = self.keys.of_name(receipt.object.bucket, &receipt.object.key);
        let of = &self.keys.buckets[bucket];
        let (tenant, name) = (of.tenant, of.name.clone());
        if receipt.object.tenant != tenant {
            let evidence = format!("a receipt of {:?} was given to the operator of another tenant", receipt.object);
            self.recorder.run.strays.push(Stray { key, evidence });
            return None;
        }
        let seen = self.opened(key, &context);
        let part = |input: &Entry| {
            let (content, dots) = (input.content.clone(), input.dots.clone());
            Restored { content, expires: input.expires, dots }
        };
        let mut inputs: Vec<Restored> = undo.inputs.iter().map(part).collect();
        let malformed = self.versions.is_forged(self.options.clients.malformed);
        if malformed && let Some(last) = inputs.last_mut() {
            let bytes: &[u8] = if self.keys.kind(key) == Kind::Cart { b"[]" } else { b"no eigh" };
            last.content = Content::Value(Bytes::from_static(bytes));
        }
        let asked = Asked::Undo {
            seen,
            inputs: inputs.iter().map(|input| input.content.clone()).collect(),
            stood_for: inputs.iter().map(|input| input.dots.clone()).collect(),
            malformed,
        };
        let put = Put {
            bucket: name,
            key: receipt.object.key.clone(),
            content: Content::Value(codec::encode(&Restoration { by: receipt.by, inputs }).into()),
            basis: Given::Undo(context),
            request: RequestId(0),
            start: StartId(0),
            attempt: 0,
            w: None,
            pw: None,
            ttl_ms: None,
        };
        Some(Ask { key, asked, request: DataRequest::Put(put) })
    }

    /// The operator asks for the next undo.
    pub(super) fn next_undo(&mut self, session: u16) {
        if self.sessions[usize::from(session)].pending.is_some() {
            return;
        }
        self.sessions[usize::from(session)].retry = None;
        let first = self.versions.any(self.nodes.len());
        let Some(node) = self.node_from(first) else { return };
        if let Some(ask) = self.versions.undos.pop_front() {
            self.ask(session, node, ask);
        }
    }

    /// After the chaos: takes the bad versions away, and undoes what they have folded. Returns what did not come to
    /// pass.
    pub(super) fn mend_versions(&mut self) -> Vec<String> {
        let Some(operator) = self.versions.operator else { return Vec::new() };
        let until_us = self.now_us + GONE_US;
        while let Some(still) = self.still_bad() {
            if self.now_us >= until_us {
                return vec![still];
            }
            self.end_bad_versions();
            self.run_until(self.now_us + SECOND);
        }
        let mut problems = Vec::new();
        let idle =
            |world: &Self| world.versions.undos.is_empty() && world.sessions[usize::from(operator)].pending.is_none();
        for _ in 0..ROUNDS {
            if !self.has_bad_folds() {
                break;
            }
            let times = |world: &Self, mark| world.recorder.marks.get(mark).copied().unwrap_or_default();
            // An undo that was forged and refused is asked again as it should be.
            let came_to_something = |world: &Self| times(world, UNDONE) + times(world, FORGED_UNDO_REFUSED);
            let (before, refused) = (came_to_something(self), times(self, UNDO_REFUSED));
            if self.options.exchange {
                problems.extend(self.agree().map(|apart| format!("before undos {apart}")));
            } else {
                problems.extend(self.read_everything(0));
            }
            for bucket in self.versions.spoiled() {
                self.plan_undos(bucket);
                let until_us = self.now_us + GONE_US + UNDO_US * self.versions.undos.len() as u64;
                if !self.run_while(until_us, idle) {
                    problems.push(format!("undos of bucket b{bucket} did not end"));
                }
            }
            if times(self, UNDO_REFUSED) > refused {
                self.run_until(self.now_us + AGAIN_US);
            } else if came_to_something(self) == before {
                break;
            }
        }
        self.versions.settled = true;
        let left = self.bad_folds();
        let now_us = self.now_us;
        for (key, spoiled) in &mut self.recorder.run.spoiled {
            if !left.contains(key) {
                spoiled.until_us = now_us;
            }
        }
        problems
    }

    fn has_bad_folds(&self) -> bool {
        !self.versions.spoiled().is_empty() && !self.bad_folds().is_empty()
    }

    /// The keys of which a disk has a fold of a bad version.
    fn bad_folds(&self) -> BTreeSet<KeyId> {
        let spoiled = self.versions.spoiled();
        let is_bad = |bytes: &Bytes| {
            let object = codec::decode::<Object>(bytes).expect("a stored object");
            object.entries.iter().any(|entry| entry.folded_by.is_some_and(|by| self.is_bad(&by.plugin)))
        };
        let places = (0..).zip(&self.keys.places).filter(|(_, place)| spoiled.contains(&place.bucket));
        let held = |place: &crate::keys::Place| {
            self.nodes
                .iter()
                .filter_map(|node| node.disks[usize::from(place.shard)].object(&place.store_key))
                .any(is_bad)
        };
        places.filter(|(_, place)| held(place)).map(|(key, _)| key).collect()
    }
}
