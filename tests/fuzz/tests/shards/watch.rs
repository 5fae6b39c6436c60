//! The invariants of a shard under any events: of the effects of each call, of its state, and of all its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use rejoin_core::causal;
use rejoin_core::port::Space;
use rejoin_core::shard::Shard;
use rejoin_core::shard::event::{Barrier, Effect, ReplyTo};
use rejoin_core::view::{Bucket, Target};
use rejoin_proto::catalog::Durability;
use rejoin_proto::client::{Basis, Put, PutOutcome, PutReply, Reply};
use rejoin_proto::context::{ContextError, ContextKey};
use rejoin_proto::peer::{Absorbed, DataRequest, PeerBody, PeerEnvelope, Replicate};
use rejoin_proto::{Content, Dot, NodeId, Object, ObjectId, VersionVector, codec};

use super::store::Memory;
use super::world::{Cause, MAX_OPS};

/// The actors of others that are remembered per partition.
const MAX_OBSERVED: usize = 64;

/// A client's request, while it may still be answered.
struct Asked {
    object: ObjectId,
    bucket: Arc<Bucket>,
    /// What its writer had seen, by a context; an error if that is not of this object.
    seen: Result<VersionVector, ContextError>,
    /// Whether it writes a value that the bucket's plugin must have taken.
    judged: bool,
}

pub(super) struct Watch {
    node: NodeId,
    contexts: ContextKey,
    waiting: BTreeMap<ReplyTo, Asked>,
    /// Where each dot of this node was minted.
    minted: BTreeMap<Dot, ObjectId>,
    /// Who has taken the write of a request, and where this node's own copy is on the disk.
    acks: BTreeMap<u64, BTreeSet<NodeId>>,
    /// The requests whose values the plugin has taken.
    taken: BTreeSet<u64>,
    /// Each object's context as it was last seen in the store.
    contexts_seen: BTreeMap<Bytes, VersionVector>,
    /// The message that is being answered.
    arrived: Option<(NodeId, PeerEnvelope)>,
    /// The answers of this call are another node's, and passed on as they came: these peers lie.
    relayed: bool,
}

impl Watch {
    pub(super) fn new(node: NodeId, contexts: ContextKey) -> Self {
        Self {
            node,
            contexts,
            waiting: BTreeMap::new(),
            minted: BTreeMap::new(),
            acks: BTreeMap::new(),
            taken: BTreeSet::new(),
            contexts_seen: BTreeMap::new(),
            arrived: None,
            relayed: false,
        }
    }

    pub(super) fn asked(&mut self, reply_to: ReplyTo, target: &Target, request: &DataRequest) {
        let seen = match request {
            DataRequest::Put(Put { basis: Basis::Context(context), .. }) => self.contexts.open(&target.object, context),
            _ => Ok(VersionVector::new()),
        };
        let validates = target.bucket.props.plugin.is_some_and(|activation| activation.validates);
        let judged = validates && matches!(request, DataRequest::Put(Put { content: Content::Value(_), .. }));
        self.waiting
            .insert(reply_to, Asked { object: target.object.clone(), bucket: target.bucket.clone(), seen, judged });
    }

    /// The plugin has looked at a value.
    pub(super) fn validated(&mut self, cause: Cause, taken: bool) {
        self.taken.extend(cause.filter(|_| taken));
    }

    pub(super) fn durable(&mut self, cause: Cause) {
        self.good(cause, self.node);
    }

    /// A message comes. What acknowledges a write counts from now on.
    pub(super) fn arrives(&mut self, from: NodeId, cause: Cause, envelope: &PeerEnvelope) {
        if let PeerBody::Replicated { outcome: Ok(_), .. } = &envelope.body {
            self.good(cause, from);
        }
        self.arrived = Some((from, envelope.clone()));
    }

    fn good(&mut self, cause: Cause, node: NodeId) {
        if let Some(trace) = cause {
            self.acks.entry(trace).or_default().insert(node);
        }
    }

    /// Looks at everything that one call wants done.
    pub(super) fn effects(&mut self, cause: Cause, effects: &[Effect], store: &Memory) {
        let arrived = self.arrived.take();
        self.relayed = matches!(&arrived, Some((_, PeerEnvelope { body: PeerBody::ForwardReply { .. }, .. })));
        let mut fresh = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Send { to, barrier, envelope } => {
                    assert_ne!(*to, self.node, "a node never writes to itself");
                    assert_eq!(
                        codec::decode::<PeerEnvelope>(&codec::encode(envelope)).as_ref(),
                        Ok(envelope),
                        "what is sent can be read"
                    );
                    self.sent(cause, envelope, store, &mut fresh);
                    self.answered(arrived.as_ref(), *to, *barrier, envelope, store);
                }
                Effect::Reply { reply_to, reply: Reply::Put(reply) } if !self.relayed => {
                    self.put_ended(cause, *reply_to, reply)
                }
                Effect::Merge(_, job) => {
                    let values: BTreeSet<&Bytes> = job.siblings.iter().map(|sibling| &sibling.value).collect();
                    assert!(!values.is_empty() && values.len() == job.siblings.len(), "a plugin gets each value once");
                }
                _ => {}
            }
        }
    }

    /// Looks at a message to a peer.
    fn sent(&mut self, cause: Cause, envelope: &PeerEnvelope, store: &Memory, fresh: &mut BTreeSet<Dot>) {
        let PeerBody::Replicate(message) = &envelope.body else { return };
        assert_eq!(causal::sync(&message.state, &message.state).0, *message.state, "objects travel in canonical form");
        let stored = object(store, &message.object.store_key());
        if let Some(stored) = &stored {
            assert_eq!(causal::sync(stored, &message.state).0, *stored, "nothing is sent that is not kept");
        }
        let (Some(_), Some(dot)) = (message.op, message.dot) else { return };
        assert!(message.state.context.contains(dot));
        let known = self.minted.insert(dot, message.object.clone());
        assert!(known.is_none_or(|object| object == message.object), "{dot:?} was minted twice");
        let is_new = !self.minted_before(message, dot);
        if is_new && fresh.insert(dot) {
            self.minted_well(message, dot);
            let asked = cause.and_then(|trace| self.waiting.get(&ReplyTo { connection: 1, request: trace }));
            asked.into_iter().for_each(|asked| {
                replaced_well(asked, message, dot);
                assert!(
                    !asked.judged || cause.is_some_and(|trace| self.taken.contains(&trace)),
                    "what is written was validated"
                );
            });
        }
    }

    /// Whether the write was on its way before: then it is a retry that is sent again.
    fn minted_before(&self, message: &Replicate, dot: Dot) -> bool {
        self.contexts_seen.get(&message.object.store_key()[..]).is_some_and(|seen| seen.contains(dot))
    }

    /// A dot may be minted only where all that its actor minted for the key before has been seen.
    fn minted_well(&self, message: &Replicate, dot: Dot) {
        let earlier = self.minted.iter().filter(|(other, object)| {
            other.actor == dot.actor && **object == message.object && other.counter < dot.counter
        });
        for (other, _) in earlier {
            assert!(message.state.context.contains(*other), "{dot:?} is minted beside {other:?}, which it would hide");
        }
        assert!(
            message.state.entries.iter().any(|entry| entry.dots.contains(dot)),
            "a write is live where it was just made"
        );
    }

    /// Looks at an answer to a peer: what it promises, and behind which barrier.
    fn answered(
        &self,
        arrived: Option<&(NodeId, PeerEnvelope)>,
        to: NodeId,
        barrier: Barrier,
        envelope: &PeerEnvelope,
        store: &Memory,
    ) {
        let PeerBody::Replicated { outcome, .. } = &envelope.body else { return };
        let Some((from, PeerEnvelope { body: PeerBody::Replicate(message), .. })) = arrived else {
            panic!("nobody has asked for this")
        };
        assert_eq!(to, *from, "who asked is answered");
        assert!(
            message.durability == Durability::Os || barrier == Barrier::Durable,
            "an acknowledgement waits for the disk"
        );
        match outcome {
            Ok(absorbed) => {
                let kept = object(store, &message.object.store_key()).unwrap_or_default();
                assert!(kept.context.covers(&message.state.context), "what is acknowledged has been seen");
                if let (Absorbed::Stored, Some(dot)) = (absorbed, message.dot) {
                    assert!(
                        kept.entries.iter().any(|entry| entry.dots.contains(dot)),
                        "what is said to be stored is live"
                    );
                }
            }
            Err(code) => assert!(!format!("{code:?}").is_empty()),
        }
    }

    /// Looks at how a write ended: what counts is who has taken it, each node once, this one when its disk has it.
    fn put_ended(&self, cause: Cause, reply_to: ReplyTo, reply: &PutReply) {
        let Some(asked) = self.waiting.get(&reply_to) else { panic!("a request is answered once") };
        let acks = cause.and_then(|trace| self.acks.get(&trace));
        let own = usize::from(
            asked.bucket.props.durability == Durability::Os && acks.is_none_or(|acks| !acks.contains(&self.node)),
        );
        let got = acks.map_or(0, BTreeSet::len) + own;
        match reply.outcome {
            PutOutcome::Stored => {
                assert!(reply.acked >= reply.needed && reply.needed >= 1);
                assert!(usize::from(reply.acked) <= got, "{} acknowledgements are claimed, {got} came", reply.acked);
            }
            PutOutcome::Unknown => assert!(reply.acked < reply.needed),
        }
    }

    /// A reply leaves. Returns the context that its client has now, and of which object.
    pub(super) fn told(&mut self, reply_to: ReplyTo, reply: &Reply) -> Option<(ObjectId, Bytes)> {
        let Some(asked) = self.waiting.remove(&reply_to) else { panic!("a request is answered once") };
        let context = match reply {
            _ if self.relayed => return None,
            Reply::Get(reply) => {
                let names: BTreeSet<_> = reply.answered.iter().collect();
                assert!(!names.is_empty() && names.len() == reply.answered.len(), "each node answers once");
                assert!(
                    reply.value.is_some() || reply.siblings.is_empty() || reply.merge_fault.is_some(),
                    "siblings without a value have a reason"
                );
                assert!(reply.merge_fault.is_none() || reply.siblings.len() > 1, "a single value is never withheld");
                reply.context.clone()
            }
            Reply::Put(reply) => reply.context.clone(),
            Reply::Error(error) => {
                assert!(!error.message.is_empty());
                return None;
            }
            other => panic!("no answer to this request: {other:?}"),
        };
        assert!(self.contexts.open(&asked.object, &context).is_ok(), "a context opens its own object");
        Some((asked.object, context))
    }

    /// Looks at what is kept, and at how much is under way.
    pub(super) fn state(&mut self, shard: &Shard, store: &Memory) {
        assert!(shard.in_flight() <= 2 * MAX_OPS, "{} requests are under way", shard.in_flight());
        assert!(
            shard.in_flight() > 0 || shard.in_flight_bytes() == 0,
            "{} bytes of no request",
            shard.in_flight_bytes()
        );
        // A fallback drops what its owners have confirmed.
        self.contexts_seen.retain(|key, _| store.rows.contains_key(&(Space::Objects, key.clone())));
        let mut observed: BTreeMap<&[u8], usize> = BTreeMap::new();
        for ((space, key), value) in &store.rows {
            match space {
                Space::Pinned if key[0] == b'o' => *observed.entry(&key[..3]).or_default() += 1,
                Space::Pinned | Space::Trees | Space::Receipts => {}
                Space::Objects if store.damaged.contains(&key[..]) => {}
                Space::Objects => {
                    let object: Object = codec::decode(value).expect("what is kept can be read");
                    assert_eq!(causal::sync(&object, &object).0, object, "objects are kept in canonical form");
                    let before = self.contexts_seen.insert(key.clone(), object.context.clone()).unwrap_or_default();
                    assert!(object.context.covers(&before), "what was seen is never unseen");
                }
            }
        }
        assert!(observed.values().all(|&rows| rows <= MAX_OBSERVED), "{observed:?}");
    }

    /// A copy cannot be read any more. Whatever comes in takes its place, even if it has seen less.
    pub(super) fn damaged(&mut self, key: &[u8]) {
        self.contexts_seen.remove(key);
    }

    /// Nobody who waited at the last run is answered by this one.
    pub(super) fn restarted(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn end(&self) {
        assert!(self.waiting.is_empty(), "{} requests were never answered", self.waiting.len());
    }
}

/// A write takes the place of what its writer had seen, of nothing else, and remembers it.
fn replaced_well(asked: &Asked, message: &Replicate, dot: Dot) {
    let Ok(seen) = &asked.seen else { panic!("a context of another object lets nothing be written") };
    assert!(message.state.context.covers(seen), "what the writer had seen is remembered");
    let others = message.state.entries.iter().filter(|entry| !entry.dots.contains(dot));
    others.for_each(|entry| assert_eq!(entry.dots.unseen_by(seen), entry.dots, "what the writer had seen is replaced"));
}

/// The object under a key, if it is there and readable.
fn object(store: &Memory, key: &[u8]) -> Option<Object> {
    let value =
        store.rows.get(&(Space::Objects, Bytes::copy_from_slice(key))).filter(|_| !store.damaged.contains(key))?;
    codec::decode(value).ok()
}
