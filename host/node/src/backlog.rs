//! What waits in a shard for space in the send queues to a peer.

use rejoin_wire::{Class, Frame, SendError, Sender};

use crate::frames::unshare;

/// Messages to a peer whose send queue was full, in order. A burst of large messages between healthy nodes loses none;
/// their bytes are counted by the operations that they belong to. Bulk messages do not wait here: the exchange sends
/// them again when the peer takes some.
#[derive(Default)]
pub(crate) struct Backlog {
    pub(crate) frames: Vec<Frame>,
    /// By class: whether a [`ShardMessage::QueueSpace`] will come.
    ///
    /// [`ShardMessage::QueueSpace`]: crate::messages::ShardMessage::QueueSpace
    pub(crate) awaited: [bool; Class::COUNT],
    /// By class: how many frames, the first ones, share their room with no others.
    unshared: [usize; Class::COUNT],
}

impl Backlog {
    /// Queues the frames that fit. The small ones that stay here get rooms of their own. Returns the frames that no
    /// queue can ever take.
    pub(crate) fn queue(&mut self, sender: &Sender) -> Vec<Frame> {
        let before = counts(&self.frames);
        let too_large = queue(sender, &mut self.frames);
        self.unshare(before);
        too_large
    }

    /// Copies small bodies of frames that were not queued, each once: as parts of an encoder's room, a few bytes might
    /// keep all of it, and the limit of the backlog counts the bytes only. `before` has the frames that there were.
    fn unshare(&mut self, before: [usize; Class::COUNT]) {
        let left = counts(&self.frames);
        // The first frames of a class are queued first.
        let mut unshared = self.unshared;
        for (class, count) in unshared.iter_mut().enumerate() {
            *count = count.saturating_sub(before[class].saturating_sub(left[class]));
        }
        // Those of bulk go.
        for frame in self.frames.iter_mut().filter(|frame| frame.class != Class::Bulk) {
            let count = &mut unshared[frame.class.index()];
            match count.checked_sub(1) {
                Some(others) => *count = others,
                None => unshare(&mut frame.body),
            }
        }
        self.unshared = left;
    }

    /// Drops the bulk messages, and then messages from the end until at most `limit` bytes are left. Returns those that
    /// were dropped.
    pub(crate) fn truncate(&mut self, limit: usize) -> Vec<Frame> {
        let (kept, mut dropped): (Vec<Frame>, Vec<Frame>) =
            std::mem::take(&mut self.frames).into_iter().partition(|frame| frame.class != Class::Bulk);
        self.frames = kept;
        let before = self.frames.len();
        let mut bytes = 0_usize;
        let over = self.frames.iter().position(|frame| {
            bytes = bytes.saturating_add(frame.body.len());
            bytes > limit
        });
        dropped.extend(self.frames.split_off(over.unwrap_or(before)));
        self.unshared = counts(&self.frames);
        dropped
    }
}

fn counts(frames: &[Frame]) -> [usize; Class::COUNT] {
    let mut counts = [0; Class::COUNT];
    for frame in frames {
        counts[frame.class.index()] += 1;
    }
    counts
}

/// Queues the frames that fit and leaves the others in `frames`. Returns the frames that no queue can ever take, so
/// that they do not block the others.
pub(crate) fn queue(sender: &Sender, frames: &mut Vec<Frame>) -> Vec<Frame> {
    let mut too_large = Vec::new();
    while let Err(SendError::TooLarge { class, limit, .. }) = sender.try_send_batch(frames) {
        let fits =
            |frame: &Frame| frame.class != class || u32::try_from(frame.body.len()).is_ok_and(|len| len <= limit);
        let (kept, refused): (Vec<Frame>, Vec<Frame>) = std::mem::take(frames).into_iter().partition(fits);
        *frames = kept;
        too_large.extend(refused);
    }
    too_large
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_core::shard::event::ReplyTo;
    use rejoin_proto::LayoutRef;
    use rejoin_proto::client::{Reply, StartId};

    use crate::frames::Encoder;

    /// One turn of a shard: a small frame that waits, and others that are sent at once and fill the rest of its room.
    fn turn(encoder: &mut Encoder, id: u64) -> Frame {
        let mut answer = |id| {
            let reply_to = ReplyTo { connection: 1, request: id };
            encoder.answer(reply_to, LayoutRef::default(), StartId(3), Reply::Records(Vec::new()))
        };
        let kept = answer(id);
        (0..2_000).for_each(|_| drop(answer(0)));
        kept
    }

    /// As [`Backlog::queue`] where the first `taken` frames find space.
    fn queued(backlog: &mut Backlog, taken: usize) {
        let before = counts(&backlog.frames);
        drop(backlog.frames.drain(..taken));
        backlog.unshare(before);
        assert!(backlog.truncate(1 << 20).is_empty());
    }

    fn places(backlog: &Backlog) -> Vec<*const u8> {
        backlog.frames.iter().map(|frame| frame.body.as_ptr()).collect()
    }

    #[test]
    fn what_waits_keeps_no_more_than_its_bytes_and_is_copied_once() {
        let (mut encoder, mut backlog) = (Encoder::default(), Backlog::default());
        for id in 0..10 {
            let (frame, before) = (turn(&mut encoder, id), places(&backlog));
            let (body, place) = (frame.body.clone(), frame.body.as_ptr());
            backlog.frames.push(frame);
            queued(&mut backlog, 0);
            let (after, last) = (places(&backlog), backlog.frames.last().expect("it waits"));
            assert_eq!(after[..before.len()], before[..], "what has waited longer stays where it is");
            assert!(last.body == body && last.body.as_ptr() != place, "it left the room that it was made in");
        }
        let before = places(&backlog);
        let fresh = turn(&mut encoder, 10);
        let made = fresh.body.as_ptr();
        backlog.frames.push(fresh);
        queued(&mut backlog, 4);
        let after = places(&backlog);
        assert_eq!(after[..6], before[4..], "the first ones were sent");
        assert!(after.len() == 7 && after[6] != made);
        assert_eq!(backlog.frames.iter().map(|frame| frame.id).collect::<Vec<_>>(), (4..=10).collect::<Vec<_>>());
        // All are sent: a later one begins anew.
        let fresh = turn(&mut encoder, 11);
        let made = fresh.body.as_ptr();
        queued(&mut backlog, 7);
        backlog.frames.push(fresh);
        queued(&mut backlog, 0);
        assert!(places(&backlog).len() == 1 && places(&backlog)[0] != made);
    }

    #[test]
    fn bulk_messages_and_those_beyond_the_limit_do_not_wait() {
        let frame = |class, bytes| Frame { class, id: 0, body: vec![0; bytes].into() };
        let frames = vec![frame(Class::Request, 60), frame(Class::Bulk, 10), frame(Class::Control, 50)];
        let mut backlog = Backlog { frames, ..Backlog::default() };
        backlog.unshare([0; Class::COUNT]);
        let dropped = backlog.truncate(100);
        assert_eq!(dropped.iter().map(|frame| frame.class).collect::<Vec<_>>(), [Class::Bulk, Class::Control]);
        assert_eq!(backlog.frames.len(), 1);
        assert_eq!(backlog.unshared, counts(&backlog.frames));
    }
}
