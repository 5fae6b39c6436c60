//! The read that an undo begins with. The coordinator's copy alone cannot tell whether a fold is what the key still
//! has: the node may have been away when the key was written. So the owners are asked first, as for a create.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rejoin_proto::client::{Put, Reply};
use rejoin_proto::receipt::Restoration;
use rejoin_proto::{ErrorCode, ErrorReply, Object, VersionVector};

use super::Shard;
use super::copy::{Copy, Place};
use super::folding::is_at_limit;
use super::op::{Op, PendingWrite, ReadPurpose, Step, Work};
use super::turn::Turn;
use super::undoing::{restoration_of, size_with};
use crate::trials;

impl Shard {
    /// Begins to undo a fold; it goes on in [`Shard::restore`].
    pub(super) fn undo_fold(&mut self, turn: &mut Turn<'_>, op: Box<Op>, put: Put, seen: &VersionVector) -> Step {
        // What cannot be done needs no read.
        if let Err(error) = restoration_of(&put) {
            return self.finish(turn, &op, Reply::Error(error));
        }
        if let Err(reply) = self.reachable_tally(&op, &put) {
            return self.finish(turn, &op, *reply);
        }
        let (w, n) = (op.target.bucket.props.w, op.target.read_copies().n);
        // Rule: undos meet every write. Of so many owners one has each write that W owners have.
        let owners = n.saturating_sub(w.of(n).max(1)) + 1;
        let write = PendingWrite { put, seen: seen.clone() };
        self.start_read(turn, op, ReadPurpose::Undo(write), (owners, owners))
    }

    /// Takes what the owners have answered into this node's copy, and returns that.
    pub(super) fn take_read(&mut self, turn: &mut Turn<'_>, op: &mut Op) -> Result<Copy, Box<Reply>> {
        let Work::Read(read) = core::mem::replace(&mut op.work, Work::Starting) else {
            let place = Place { partition: op.target.partition, store_key: &op.target.store_key };
            return self.load(turn, place).map_err(|code| Box::new(self.store_error(code)));
        };
        let refused = |message: &str| Box::new(Reply::Error(ErrorReply::new(ErrorCode::Unavailable, message)));
        if !read.unreachable.is_empty() {
            let names: Vec<String> =
                read.unreachable.iter().map(|node| self.view.node_name(*node).to_string()).collect();
            let names = names.join(", ");
            let message = "may have a newer value of the key and cannot be reached; nothing was written";
            return Err(refused(&alloc::format!("{names} {message}")));
        }
        self.absorb(turn, &op.target.object, read.epoch, &read.joined).map_err(|code| match code {
            ErrorCode::VersionConflict => {
                refused("an owner has not removed what this node knows to be reaped; nothing was written: try again")
            }
            code => Box::new(self.store_error(code)),
        })
    }

    /// Refuses an undo that would not last, because the plugin that has folded would be given the inputs again at once.
    /// `others` stay beside them.
    pub(super) fn check_stays(
        &self,
        turn: &Turn<'_>,
        op: &Op,
        others: &Object,
        restoration: &Restoration,
    ) -> Result<(), ErrorReply> {
        let bucket = self.view.bucket(op.target.object.bucket).unwrap_or(&op.target.bucket);
        let merger = self.merger(bucket, &op.target.object).ok();
        let Some(merger) = merger.filter(|merger| merger.plugin == restoration.by.plugin) else { return Ok(()) };
        let (entries, bytes) = size_with(others, restoration);
        let folds = trials::folds_at_once(&bucket.props, &merger, turn.now.wall_ms);
        if !folds && !is_at_limit(&bucket.props, entries, bytes) {
            return Ok(());
        }
        let message = alloc::format!(
            "the plugin that has folded still merges the key, and would fold the same again at once; nothing was \
             written. Go back to another one first, with `rejoin plugin rollback {}`",
            bucket.name
        );
        Err(ErrorReply::new(ErrorCode::BadRequest, message))
    }
}
