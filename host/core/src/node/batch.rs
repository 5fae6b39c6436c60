//! Group commit: events of one shard go in, the journal is written once for all of them, and then the effects go out.
//!
//! The rules live here that keep acknowledged writes: no effect of a batch leaves the node before the batch is
//! *written* to the journal file, and an acknowledgement that promises more also waits until the batch is on the disk.
//! After a failure of the store nothing leaves any more. [`GroupCommit`] starts no sync and sends nothing itself.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use rejoin_proto::client::Reply;
use rejoin_proto::exchange::{Answer, Ask, ExchangeAnswer, ExchangeAsk};
use rejoin_proto::peer::{ActorNext, PeerBody, PeerEnvelope};
use rejoin_proto::{ErrorCode, LayoutRef, NodeId, PluginDigest, TenantId};

use super::sync_queue::SyncQueue;
use crate::causal;
use crate::members::Requests;
use crate::port::{CommitSeq, Journal, StoreFault};
use crate::shard::Shard;
use crate::shard::event::{
    Alarm, ApplyJob, ApplyTicket, Barrier, DurableTicket, Effect, Event, MergeJob, MergeTicket, Now, ReplyTo, ScanJob,
    ScanTicket, ValidateJob, ValidateTicket,
};

/// The bytes of values in the effects of a batch at which the batch is full. The budget of requests under way does not
/// bound them: a read that one copy answers has ended while its reply still waits for the commit.
pub const FULL_BATCH_BYTES: usize = 16 << 20;

/// An input of a batch.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are events, and handled at once.
pub enum Input {
    /// An event for the shard.
    Event(Event),
    /// A peer is up, and has announced its actors in this shard's partitions.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// The connection to it, for [`Output::ActorsChecked`].
        connection: u64,
        /// Its actors.
        actors: Vec<ActorNext>,
    },
    /// A sync has ended: everything up to that commit is on the disk, or the disk has failed.
    Synced(Result<CommitSeq, StoreFault>),
}

/// What the node has to do after a batch, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send a message to another node.
    Send(NodeId, Box<PeerEnvelope>),
    /// Reply to a client.
    Reply(ReplyTo, Reply),
    /// Run a plugin; [`Event::Merged`] answers.
    Merge(MergeTicket, MergeJob),
    /// Have a plugin look at a value; [`Event::Validated`] answers.
    Validate(ValidateTicket, ValidateJob),
    /// Have a plugin apply an operation; [`Event::Applied`] answers.
    Apply(ApplyTicket, ApplyJob),
    /// Read object rows at a position that has this batch; [`Event::Scanned`] answers.
    Scan(ScanTicket, ScanJob),
    /// The shard has checked the actors that a peer has announced on that connection; its objections precede this.
    ActorsChecked(NodeId, u64),
    /// A tenure has ended: the node's start id is made anew from this shard's.
    StartRenewed(u64),
    /// What has become of this shard's requests to peers, for [`Members`](crate::members::Members).
    Requests(Vec<(NodeId, Requests)>),
    /// Tell the ring that this shard has settled in that generation,
    /// [`RingEvent::Settled`](crate::ring::RingEvent::Settled).
    OlderEnded(u64),
    /// Tell the ring that this shard has exchanged, [`RingEvent::Exchanged`](crate::ring::RingEvent::Exchanged).
    Exchanged(LayoutRef),
    /// Log it for an operator.
    Alarm(Alarm),
    /// The shard is rebuilt: the links are told.
    Rebuilt,
    /// A plugin is not deterministic, with the evidence: the catalog is to quarantine it.
    Quarantine(TenantId, PluginDigest, String),
    /// Begin a sync of everything that is committed by now; [`Input::Synced`] answers.
    Sync,
    /// Run another batch at once: something is ready that needs no sync.
    Again,
    /// So many acknowledgements found no room to wait for the disk. Those that wait for them are told.
    Dropped(usize),
    /// The store has failed for good. Nothing comes out any more; the node must stop.
    Failed(String),
}

/// Drives a shard in batches. Call [`handle`](Self::handle) for each input, then [`commit`](Self::commit) once.
#[derive(Debug)]
pub struct GroupCommit {
    shard: Shard,
    /// Messages that wait for the disk, and tickets of requests that do.
    held: SyncQueue<(NodeId, Box<PeerEnvelope>)>,
    tickets: SyncQueue<DurableTicket>,
    /// News of those that found no room in the two, for the shard's next batch.
    refused: Vec<Event>,
    /// Effects of the current batch, and the peers whose actors were checked in it.
    effects: Vec<Effect>,
    /// The bytes of values in them, and how many of them are counted.
    effect_bytes: usize,
    counted: usize,
    checked: Vec<(NodeId, u64)>,
    fault: Option<String>,
    failed: bool,
}

impl GroupCommit {
    /// Drives `shard`, whose store has everything up to `synced` on the disk. At most `max_waiting` messages, and as
    /// many requests, wait for the disk ([`super::MAX_WAITING`] in a node).
    #[must_use]
    pub fn new(shard: Shard, synced: CommitSeq, max_waiting: usize) -> Self {
        let (held, tickets) = (SyncQueue::new(max_waiting, synced), SyncQueue::new(max_waiting, synced));
        Self {
            shard,
            held,
            tickets,
            refused: Vec::new(),
            effects: Vec::new(),
            effect_bytes: 0,
            counted: 0,
            checked: Vec::new(),
            fault: None,
            failed: false,
        }
    }

    /// The shard. Between two batches its state is that of the journal.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Whether the store has failed for good.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// When a batch is due even if there is no input, in microseconds of [`Now::mono_us`]. Never after a failure.
    #[must_use]
    pub fn next_wake_us(&self) -> u64 {
        if self.failed { u64::MAX } else { self.shard.next_wake_us() }
    }

    /// Takes one input of the current batch.
    pub fn handle(&mut self, now: Now, input: Input, store: &mut impl Journal) {
        if self.failed {
            return;
        }
        match input {
            Input::Event(event) => self.shard.handle(now, event, store, &mut self.effects),
            Input::PeerUp { peer, connection, actors } => {
                self.shard.handle(now, Event::PeerUp(peer), store, &mut self.effects);
                self.shard.handle(now, Event::PeerActors(peer, actors), store, &mut self.effects);
                self.checked.push((peer, connection));
            }
            Input::Synced(Ok(seq)) => {
                self.held.synced(seq);
                self.tickets.synced(seq);
            }
            Input::Synced(Err(fault)) => self.fault = Some(fault.to_string()),
        }
        self.effect_bytes += self.effects[self.counted..].iter().map(value_bytes).sum::<usize>();
        self.counted = self.effects.len();
    }

    /// Whether the batch should be committed before it takes another input, because its effects hold
    /// [`FULL_BATCH_BYTES`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.effect_bytes >= FULL_BATCH_BYTES
    }

    /// Ends the batch: durable requests hear of the disk, the journal is written, and `outputs` gets what may leave
    /// now.
    pub fn commit(&mut self, now: Now, store: &mut impl Journal, outputs: &mut Vec<Output>) {
        if self.failed {
            return;
        }
        // What has the disk belongs to earlier batches, so it goes whatever becomes of this one.
        while let Some((to, envelope)) = self.held.pop() {
            outputs.push(Output::Send(to, envelope));
        }
        while let Some(ticket) = self.tickets.pop() {
            self.shard.handle(now, Event::Durable(ticket), store, &mut self.effects);
        }
        for event in mem::take(&mut self.refused) {
            self.shard.handle(now, event, store, &mut self.effects);
        }
        self.shard.handle(now, Event::Tick, store, &mut self.effects);
        (self.effect_bytes, self.counted) = (0, 0);
        let fault = self.fault.take().or_else(|| fatal(&self.effects));
        let committed = match fault {
            Some(why) => Err(why),
            None => store.commit().map_err(|fault| fault.to_string()),
        };
        match committed {
            Ok(seq) => self.release(seq, store, outputs),
            Err(why) => {
                // Nothing of this batch leaves, and nothing of a later one.
                self.failed = true;
                self.effects.clear();
                self.checked.clear();
                outputs.push(Output::Failed(why));
            }
        }
    }

    /// Lets the effects of a written batch go; those that need the disk wait for it.
    fn release(&mut self, seq: CommitSeq, store: &mut impl Journal, outputs: &mut Vec<Output>) {
        let mut dropped = 0;
        let mut effects = mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, barrier: Barrier::Durable, envelope } if !self.held.is_synced(seq) => {
                    if let Err((to, envelope)) = self.held.push(seq, (to, Box::new(envelope))) {
                        dropped += 1;
                        self.refuse(to, envelope, outputs);
                    }
                }
                Effect::Send { to, envelope, .. } => outputs.push(Output::Send(to, Box::new(envelope))),
                Effect::WhenDurable(ticket) => {
                    if let Err(ticket) = self.tickets.push(seq, ticket) {
                        dropped += 1;
                        self.refused.push(Event::NotDurable(ticket));
                    }
                }
                Effect::Reply { reply_to, reply } => outputs.push(Output::Reply(reply_to, reply)),
                Effect::Merge(ticket, job) => outputs.push(Output::Merge(ticket, job)),
                Effect::Validate(ticket, job) => outputs.push(Output::Validate(ticket, job)),
                Effect::Apply(ticket, job) => outputs.push(Output::Apply(ticket, job)),
                Effect::Scan(ticket, job) => outputs.push(Output::Scan(ticket, job)),
                Effect::StartRenewed(start) => outputs.push(Output::StartRenewed(start)),
                Effect::Requests(requests) => outputs.push(Output::Requests(requests)),
                Effect::OlderEnded(generation) => outputs.push(Output::OlderEnded(generation)),
                Effect::Exchanged(layout) => outputs.push(Output::Exchanged(layout)),
                Effect::Alarm(alarm) => outputs.push(Output::Alarm(alarm)),
                Effect::Rebuilt => outputs.push(Output::Rebuilt),
                Effect::Quarantine(tenant, plugin, why) => outputs.push(Output::Quarantine(tenant, plugin, why)),
                // Looked for before the commit.
                Effect::Fatal(_) => {}
            }
        }
        // Kept for its room.
        self.effects = effects;
        // Behind the objections that were sent above.
        outputs.extend(self.checked.drain(..).map(|(peer, connection)| Output::ActorsChecked(peer, connection)));
        if dropped > 0 {
            outputs.push(Output::Dropped(dropped));
        }
        if store.sync_is_due() || self.held.needs_sync() || self.tickets.needs_sync() {
            outputs.push(Output::Sync);
        }
        if self.tickets.has_ready() || !self.refused.is_empty() {
            outputs.push(Output::Again);
        }
    }

    /// A message has found no room to wait for the disk. The coordinator of a write gets a refusal at once, which does
    /// not count as an acknowledgement; of any other message the shard hears that it was not sent.
    fn refuse(&mut self, to: NodeId, mut envelope: Box<PeerEnvelope>, outputs: &mut Vec<Output>) {
        if let PeerBody::Replicated { outcome, .. } = &mut envelope.body {
            *outcome = Err(ErrorCode::Overloaded);
            outputs.push(Output::Send(to, envelope));
        } else {
            self.refused.push(Event::NotSent(to, Box::new(envelope.body)));
        }
    }

    /// Whether something waits for a sync that has not been.
    #[must_use]
    pub fn needs_sync(&self) -> bool {
        self.held.needs_sync() || self.tickets.needs_sync()
    }
}

/// The bytes of the values that an effect holds.
fn value_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Reply { reply, .. } => reply_bytes(reply),
        Effect::Send { envelope, .. } => match &envelope.body {
            PeerBody::ReadReply { copy: Ok(object), .. } => causal::value_bytes(object),
            PeerBody::Replicate(message) => causal::value_bytes(&message.state),
            PeerBody::ForwardReply { reply, .. } => reply_bytes(reply),
            PeerBody::ExchangeAsk(ExchangeAsk { ask: Ask::Objects { batch, .. }, .. })
            | PeerBody::ExchangeAnswer(ExchangeAnswer {
                answer: Ok(Answer::Objects { batch, .. } | Answer::Found { batch, .. }),
                ..
            }) => batch.objects.iter().map(|(_, object)| causal::value_bytes(object)).sum(),
            _ => 0,
        },
        Effect::Merge(_, MergeJob { siblings, .. }) | Effect::Apply(_, ApplyJob { siblings, .. }) => {
            siblings.iter().map(|sibling| sibling.value.len()).sum()
        }
        _ => 0,
    }
}

fn reply_bytes(reply: &Reply) -> usize {
    let Reply::Get(get) = reply else { return 0 };
    let single = [&get.value, &get.shown].into_iter().flatten().map(Bytes::len).sum::<usize>();
    single + get.siblings.iter().map(|sibling| sibling.value.len()).sum::<usize>()
}

/// Why the store has failed, if the shard met that within the batch.
fn fatal(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Fatal(why) => Some(why.clone()),
        _ => None,
    })
}
