//! The ring of this node: runs the ring's machine for the catalog task, which publishes layouts and catalog together.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use rejoin_core::ring::{RingCommand, RingControl, RingEffect, RingEvent, RingView};
use rejoin_proto::{ErrorCode, ErrorReply, LayoutRef, NodeId, Ring, RingMessage, codec};
use rejoin_store::{ControlFile, FileError};

use crate::context::NodeContext;
use crate::control_files::RING_FILE;
use crate::view::{KnownNode, known_nodes};

/// Gets the answer to an operator's command.
pub(crate) type RingAnswer = oneshot::Sender<Result<LayoutRef, ErrorReply>>;

/// The machine, and the callers that wait for its answers.
pub(crate) struct RingPart {
    control: RingControl,
    files: ControlFile,
    answers: BTreeMap<u64, RingAnswer>,
    last_call: u64,
    /// The nodes as they were last published.
    shown: BTreeMap<NodeId, KnownNode>,
}

/// What is left for the catalog task to do, in this order.
pub(crate) enum RingWork {
    /// Shards, sessions, links and members need a new view.
    Publish,
    Send(NodeId, RingMessage),
}

impl RingPart {
    pub(crate) fn new(control: RingControl, files: ControlFile) -> Self {
        let shown = known_nodes(control.ring());
        Self { control, files, answers: BTreeMap::new(), last_call: 0, shown }
    }

    pub(crate) fn ring(&self) -> &Ring {
        self.control.ring()
    }

    pub(crate) fn view(&self) -> RingView {
        self.control.view()
    }

    pub(crate) fn next_wake_us(&self) -> u64 {
        self.control.next_wake_us()
    }

    /// Carries a command out, and answers when it is saved.
    ///
    /// # Errors
    /// As [`RingPart::step`].
    pub(crate) fn command(
        &mut self,
        ctx: &NodeContext,
        command: RingCommand,
        answer: RingAnswer,
    ) -> Result<Vec<RingWork>, FileError> {
        self.last_call += 1;
        self.answers.insert(self.last_call, answer);
        self.step(ctx, RingEvent::Command(self.last_call, command))
    }

    /// Handles one event, and the result of a save that it asks for.
    ///
    /// # Errors
    /// The ring could not be saved, for another reason than a full disk.
    pub(crate) fn step(&mut self, ctx: &NodeContext, event: RingEvent) -> Result<Vec<RingWork>, FileError> {
        let (mut next, mut work) = (Some(event), Vec::new());
        while let Some(event) = next.take() {
            let (now, mut effects) = (ctx.clock.now(), Vec::new());
            self.control.handle(now.mono_us, now.wall_ms, event, &mut effects);
            for effect in effects {
                match effect {
                    RingEffect::Save => next = Some(RingEvent::Saved(self.save(ctx)?)),
                    RingEffect::Changed => work.push(RingWork::Publish),
                    RingEffect::Send(peer, message) => work.push(RingWork::Send(peer, message)),
                    RingEffect::Answer(call, result) => {
                        if let Some(answer) = self.answers.remove(&call) {
                            // The caller may be gone.
                            let _ = answer.send(result);
                        }
                    }
                }
            }
        }
        let nodes = known_nodes(self.control.ring());
        if self.shown != nodes {
            self.shown = nodes;
            // The layouts stay as they are when a node has another address.
            work.push(RingWork::Publish);
        }
        Ok(work)
    }

    /// Saves the ring. The inner error says that the disk is full, for the caller of a command.
    fn save(&self, ctx: &NodeContext) -> Result<Result<(), ErrorReply>, FileError> {
        let name = &ctx.config.name;
        match self.files.write(RING_FILE, &codec::encode(self.control.ring())) {
            Ok(()) => {
                ctx.problems.clear(RING_FILE);
                Ok(Ok(()))
            }
            Err(error) if error.is_for_want_of_room() => {
                ctx.problems.set(
                    RING_FILE,
                    format!("{name}: the ring cannot be saved ({error}): changes of layouts wait for this node"),
                );
                let message = format!(
                    "{name} cannot save the change ({error}): nothing was changed; free space on its disk, or ask \
                        another node"
                );
                Ok(Err(ErrorReply::new(ErrorCode::DiskFull, message)))
            }
            Err(error) => Err(error),
        }
    }
}
