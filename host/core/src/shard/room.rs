//! What operations under way may hold in memory. Answered reads that wait for late owners give way to others.

use rejoin_proto::client::Show;
use rejoin_proto::peer::DataRequest;

use super::Shard;
use super::op::{OP_BYTES, Step};
use super::turn::Turn;

/// What a request takes when it is admitted.
pub(super) fn of_request(request: &DataRequest) -> usize {
    let carried = match request {
        DataRequest::Put(put) => put.content.len(),
        DataRequest::Get(get) => match &get.show {
            Show::Answer(question) => question.len(),
            Show::Nothing | Show::Readable => 0,
        },
    };
    OP_BYTES + carried
}

impl Shard {
    /// Whether an operation may hold so many bytes beside all others. Answered reads that wait for late owners give way
    /// to it.
    pub(super) fn has_room_for(&mut self, turn: &mut Turn<'_>, bytes: usize) -> bool {
        let above =
            |shard: &Self| shard.op_bytes > 0 && shard.op_bytes.saturating_add(bytes) > shard.config.max_op_bytes;
        while above(self) && self.end_oldest_lingering(turn) {}
        // Rule: bytes are bounded.
        !above(self)
    }

    /// Ends the oldest of the answered reads that wait for late owners, if there are too many, or no place for another
    /// operation: with what has come, those that are known are repaired.
    pub(super) fn bound_lingering(&mut self, turn: &mut Turn<'_>) {
        let many = |shard: &Self| shard.lingering.len() >= shard.config.max_ops || shard.ops.is_full();
        while many(self) && self.end_oldest_lingering(turn) {}
    }

    /// Ends one of them, if there is any.
    fn end_oldest_lingering(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(number) = self.lingering.pop_first() else { return false };
        self.with_op(turn, number, |shard, turn, op| {
            shard.repair(turn, &op);
            Step::Done
        });
        true
    }
}
