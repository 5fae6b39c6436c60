//! Undoes a fold: its inputs take the place of the folded entry, as writes of their own. A person asks for it, with the
//! inputs from the fold's receipt. That receipt may be another node's, so an input that is in no receipt of this one
//! has to please the bucket's validator, as any other write.
//!
//! All inputs are put in one step, and with the folded entry's context. So no reader sees some of them without the
//! others, and what was written beside the fold stays. Writes may have left only a part of the entry, and so may the
//! undo of another fold that has inputs in common with it: then the inputs of that part are put.

use core::ops::ControlFlow;

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use bytes::Bytes;

use rejoin_proto::client::{Basis, Put, Reply};
use rejoin_proto::receipt::{FoldReceipt, RECEIPT_PAGE_BYTES, Restoration};
use rejoin_proto::{Content, DotSet, EncodedObject, ErrorCode, ErrorReply, Object, VersionVector, codec};

use super::Shard;
use super::copy::{Copy, Place};
use super::op::{Op, PendingWrite, Step, WritePhase};
use super::turn::{Turn, fault_code};
use crate::causal::{self, Write};
use crate::port::{Change, Space};
use crate::receipts::range_of;
use crate::rows::RetryRow;
use crate::trials;

impl Shard {
    /// The values that an undo restores and that this node cannot know to have been accepted before: they are in none
    /// of its receipts of the key. The bucket's plugin has to validate them. Of another write, and where nothing is
    /// validated, there are none.
    pub(super) fn unproven_inputs(&self, turn: &mut Turn<'_>, op: &Op, put: &Put) -> Result<Vec<Bytes>, Box<Reply>> {
        if !matches!(put.basis, Basis::Undo(_)) {
            return Ok(Vec::new());
        }
        let refused = |error| Box::new(Reply::Error(error));
        let restoration = restoration_of(put).map_err(refused)?;
        // So many are never put, whatever else the object has; and none of them is looked for.
        fits(op, &Object::default(), &restoration).map_err(refused)?;
        if trials::validators(&op.target.bucket.props).next().is_none() {
            return Ok(Vec::new());
        }
        let value = |content| match content {
            Content::Value(value) => Some(value),
            Content::Tombstone => None,
        };
        let mut unproven: Vec<Bytes> =
            restoration.inputs.into_iter().filter_map(|input| value(input.content)).collect();
        let (object, mut bytes) = (&op.target.object, 0);
        let mut visit = |_: &[u8], row: Bytes| {
            bytes += row.len();
            let receipt = codec::decode::<FoldReceipt>(&row).ok().filter(|receipt| receipt.object == *object);
            let inputs = receipt.map(|receipt| receipt.inputs).unwrap_or_default();
            let accepted = |value: &Bytes| {
                inputs.iter().any(|input| matches!(&input.content, Content::Value(input) if input == value))
            };
            unproven.retain(|value| !accepted(value));
            // A key may have many receipts, and requests wait: what is not found by then is validated.
            if unproven.is_empty() || bytes > RECEIPT_PAGE_BYTES {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let (start, end) = range_of(object.bucket, Some(object));
        if let Err(fault) = turn.store.scan(Space::Receipts, &start, Some(&end), &mut visit) {
            let code = fault_code(turn, fault);
            return Err(Box::new(self.store_error(code)));
        }
        // Rule: undos restore what was accepted. The inputs are the client's word.
        Ok(unproven)
    }

    /// Puts the inputs of a fold in the place of what is left of the entry, which are dots that were `seen`.
    /// [`Shard::undo_fold`] comes before, and the owners have answered.
    pub(super) fn restore(&mut self, turn: &mut Turn<'_>, mut op: Box<Op>, put: Put, seen: &VersionVector) -> Step {
        let restoration = match restoration_of(&put) {
            Ok(restoration) => restoration,
            Err(error) => return self.finish(turn, &op, Reply::Error(error)),
        };
        let tally = match self.reachable_tally(&op, &put) {
            Ok(tally) => tally,
            Err(reply) => return self.finish(turn, &op, *reply),
        };
        let partition = op.target.partition;
        self.check_context(turn, partition, seen);
        let Copy { mut object, row } = match self.take_read(turn, &mut op) {
            Ok(copy) => copy,
            Err(reply) => return self.finish(turn, &op, *reply),
        };
        self.check_claims(turn, partition, seen, &object.context);
        // Rule: undos find their fold. Whatever was written over it since has seen its inputs.
        if !has_fold(&object, seen, &restoration) {
            let message = "the key was written, or folded again, since: the folded value is not what it has now; \
                           nothing was written";
            return self.finish(turn, &op, Reply::Error(ErrorReply::new(ErrorCode::VersionConflict, message)));
        }
        let restoration = match left_of(restoration, &live_of(&object, seen)) {
            Ok(restoration) => restoration,
            Err(error) => return self.finish(turn, &op, Reply::Error(error)),
        };
        let mut others = object.clone();
        others.entries.retain(|entry| !entry.dots.is_seen_by(seen));
        let allowed = fits(&op, &others, &restoration)
            .and_then(|()| self.check_stays(turn, &op, &others, &restoration))
            .and_then(|()| self.check_quota(&op, &object, &put, seen));
        if let Err(error) = allowed {
            return self.finish(turn, &op, Reply::Error(error));
        }
        let mut change = Change::default();
        let mut last = None;
        for input in restoration.inputs {
            let dot = self.tenures.mint(partition, &mut change, &mut self.rng);
            let stamp = self.stamp(turn.now);
            let (content, expires) = (input.content, input.expires);
            causal::put(&mut object, Write { seen: seen.clone(), dot, content, stamp, expires });
            last = Some(dot);
        }
        // There is one input at least.
        let Some(dot) = last else { return Step::Done };
        let view = causal::writers_view(&object, seen, dot);
        let context = self.config.contexts.seal(&op.target.object, &view);
        let (retry, epoch) = (op.retry_id(&put), self.retry_epoch(turn.now));
        self.retries.insert(partition, retry, &RetryRow { dot, context: context.clone(), epoch }, &mut change);
        let place = Place { partition, store_key: &op.target.store_key };
        let state = EncodedObject::from(object);
        if let Err(code) = self.store_row(turn, place, &row, state.row().clone(), change) {
            self.retries.forget(epoch, partition, retry);
            let failed =
                "the coordinating node's store has failed and the node is stopping: the fold may have been undone";
            let reply = match code {
                ErrorCode::Stopping => Reply::Error(ErrorReply::new(ErrorCode::Unknown, failed)),
                code => self.store_error(code),
            };
            return self.finish(turn, &op, reply);
        }
        self.counters.folds_undone += 1;
        self.replicate(turn, &op, state, dot, &tally);
        let write = PendingWrite { put, seen: VersionVector::new() };
        self.await_acks(turn, op, write, WritePhase::Replicating { dot, tally, context })
    }
}

pub(super) fn restoration_of(put: &Put) -> Result<Restoration, ErrorReply> {
    let bad = |why: &str| ErrorReply::new(ErrorCode::BadRequest, alloc::format!("no inputs of a fold: {why}"));
    let Content::Value(encoded) = &put.content else { return Err(bad("a delete has none")) };
    // Also of more inputs than any object has siblings.
    let restoration: Restoration =
        codec::decode(encoded).map_err(|error| bad(&(error.to_string() + ", or more than an object has siblings")))?;
    if restoration.inputs.len() < 2 { Err(bad("a fold has two or more")) } else { Ok(restoration) }
}

/// Whether an object has the fold, or a part of it.
fn has_fold(object: &Object, seen: &VersionVector, restoration: &Restoration) -> bool {
    let by = Some(restoration.by);
    object.entries.iter().any(|entry| entry.folded_by == by && entry.dots.is_seen_by(seen))
}

/// The live dots of an object that were `seen`.
fn live_of(object: &Object, seen: &VersionVector) -> DotSet {
    let seen = |dots: &DotSet| dots.difference(&dots.unseen_by(seen)).spans().to_vec();
    object.entries.iter().flat_map(|entry| seen(&entry.dots)).collect()
}

/// The inputs that stand for something live: others were written over by somebody who had seen the fold, or put again
/// by the undo of another one.
fn left_of(mut restoration: Restoration, live: &DotSet) -> Result<Restoration, ErrorReply> {
    // Rule: undos restore what is live.
    restoration.inputs.retain(|input| !input.dots.intersection(live).is_empty());
    let stood_for: DotSet = restoration.inputs.iter().flat_map(|input| input.dots.spans().to_vec()).collect();
    if restoration.inputs.is_empty() || !live.is_subset(&stood_for) {
        let message = "the inputs do not stand for all writes of the fold that are live; nothing was written";
        return Err(ErrorReply::new(ErrorCode::BadRequest, message));
    }
    Ok(restoration)
}

/// The entries and the bytes of an object with the inputs of a fold beside the others.
pub(super) fn size_with(others: &Object, restoration: &Restoration) -> (usize, usize) {
    let inputs = restoration.inputs.iter().map(|input| input.content.len());
    (others.entries.len() + restoration.inputs.len(), causal::value_bytes(others) + inputs.sum::<usize>())
}

/// Whether an object is within its bucket's limits with the inputs of a fold beside the others.
fn fits(op: &Op, others: &Object, restoration: &Restoration) -> Result<(), ErrorReply> {
    let bucket = &op.target.bucket;
    let props = &bucket.props;
    let (entries, bytes) = size_with(others, restoration);
    let siblings = bucket.siblings_quota.map_or(props.siblings, |quota| quota.min(props.siblings));
    // A fold at a limit has as many inputs, or bytes, as an object may have, and one more was written beside it.
    let most = props.object_bytes().saturating_add(props.value_bytes as usize);
    let largest = restoration.inputs.iter().map(|input| input.content.len()).max().unwrap_or_default();
    if entries > usize::from(siblings) + 1 || bytes > most || largest > props.value_bytes as usize {
        let message = alloc::format!(
            "with the inputs of the fold the object would have {entries} siblings and {bytes} bytes, of which the \
             largest value has {largest}: the limits of bucket {} are {siblings}, {} and {}; nothing was written",
            bucket.name,
            props.object_bytes(),
            props.value_bytes
        );
        return Err(ErrorReply::new(ErrorCode::TooManySiblings, message));
    }
    Ok(())
}
