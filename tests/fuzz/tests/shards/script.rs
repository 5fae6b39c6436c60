//! Parses scripts. Every byte is valid: a number that is too large is taken modulo the number of choices.

use bytes::Bytes;

use rejoin_core::members::Liveness;
use rejoin_core::shard::event::{Event, Merged};
use rejoin_proto::catalog::{Durability, Quorum};
use rejoin_proto::client::{Basis, Get, GetReply, Put, PutOutcome, PutReply, Reply, Show, StartId};
use rejoin_proto::exchange::{
    Answer, Ask, BucketRanges, ExchangeAnswer, ExchangeAsk, HashRange, KeyName, ObjectBatch, RangeHashes, WalkId,
};
use rejoin_proto::fault::{MergeFault, Refusal};
use rejoin_proto::peer::{
    Absorbed, ActorNext, DataRequest, Forward, Holder, Offer, OfferAnswer, OfferedObject, OpId, PeerBody, Replicate,
};
use rejoin_proto::{
    ActorId, Content, Dot, DotSet, DotSpan, Entry, ErrorCode, ErrorReply, FoldedBy, Hlc, Object, PartitionId,
    PluginDigest, ProfileId, ReapEpoch, RequestId, VersionVector,
};

use super::world::{PEERS, World};

/// The first byte of a step: what happens.
pub(super) mod op {
    pub(crate) const PUT: u8 = 0;
    pub(crate) const GET: u8 = 1;
    pub(crate) const REPLICATED: u8 = 2;
    pub(crate) const READ_REPLY: u8 = 3;
    pub(crate) const DURABLE: u8 = 4;
    pub(crate) const MERGED: u8 = 5;
    pub(crate) const REPLICATE: u8 = 6;
    pub(crate) const READ: u8 = 7;
    pub(crate) const FORWARD: u8 = 8;
    pub(crate) const FORWARD_REPLY: u8 = 9;
    pub(crate) const OBSERVED: u8 = 10;
    pub(crate) const PEER_UP: u8 = 11;
    pub(crate) const PEER_DOWN: u8 = 12;
    pub(crate) const PASS: u8 = 13;
    pub(crate) const DISK: u8 = 14;
    pub(crate) const DAMAGE: u8 = 15;
    pub(crate) const RESTART: u8 = 16;
    pub(crate) const BUCKET: u8 = 17;
    pub(crate) const DAMAGED: u8 = 18;
    pub(crate) const VALIDATED: u8 = 19;
    pub(crate) const EXCHANGE: u8 = 20;
    pub(crate) const HOLDINGS: u8 = 21;
    pub(crate) const OFFER: u8 = 22;
    pub(crate) const OFFER_REPLY: u8 = 23;
    pub(crate) const LIVENESS: u8 = 24;
    pub(super) const COUNT: u8 = 25;
}

/// The bytes of a step, zeros behind its end.
struct Draw<'a>(&'a [u8]);

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    fn quorum(&mut self) -> Option<Quorum> {
        [None, Some(Quorum::Majority), Some(Quorum::Count(1)), Some(Quorum::Count(3)), Some(Quorum::Count(255))]
            [self.below(5)]
    }
}

/// Does one step.
pub(super) fn step(world: &mut World, bytes: &[u8]) {
    let mut draw = Draw(bytes);
    match draw.byte() % op::COUNT {
        op::PUT => {
            let put = put(world, &mut draw);
            world.ask(DataRequest::Put(put));
        }
        op::GET => {
            let get = get(world, &mut draw);
            world.ask(DataRequest::Get(get));
        }
        op::DURABLE => world.durable(draw.below(8)),
        op::MERGED => merged(world, &mut draw),
        op::VALIDATED => {
            let which = draw.byte();
            let result = match draw.below(4) {
                0 => Err(MergeFault::Refused(Refusal::Malformed).into()),
                1 => Err(MergeFault::Stopped.into()),
                _ => Ok(()),
            };
            world.validated(usize::from(which), result);
        }
        op::PEER_UP => {
            let peer = PEERS[draw.below(PEERS.len())];
            let actors = (0..draw.below(4)).map(|at| ActorNext {
                partition: PartitionId(at as u16),
                actor: ActorId(at as u64),
                next: 1,
            });
            world.event(None, Event::PeerUp(world.node(peer)));
            world.event(None, Event::PeerActors(world.node(peer), actors.collect()));
        }
        op::PEER_DOWN => {
            let peer = PEERS[draw.below(PEERS.len())];
            world.event(None, Event::PeerDown(world.node(peer)));
        }
        op::PASS => world.pass([1, 30, 700, 5_000, 70_000][draw.below(5)]),
        op::DISK => world.disk(draw.byte()),
        op::DAMAGE => {
            let (bucket, key) = (draw.below(3), draw.below(8));
            world.damage(bucket, key, draw.flag());
        }
        op::RESTART => world.restart(draw.flag()),
        op::BUCKET => world.change_bucket(draw.byte()),
        op::DAMAGED => {
            let peer = PEERS[draw.below(PEERS.len())];
            let edits: Vec<(u8, u8)> = (0..4).map(|_| (draw.byte(), draw.byte())).collect();
            world.damaged(peer, &edits);
        }
        op::LIVENESS => {
            let peer = world.node(PEERS[draw.below(PEERS.len())]);
            let liveness = [Liveness::Alive, Liveness::Suspect, Liveness::Down][draw.below(3)];
            world.event(None, Event::Liveness(peer, liveness));
        }
        said => {
            let peer = PEERS[draw.below(PEERS.len())];
            let body = says(world, said, &mut draw);
            world.says(peer, body);
        }
    }
}

fn put(world: &World, draw: &mut Draw<'_>) -> Put {
    let (bucket, key, basis, content, request) = (draw.below(3), draw.below(8), draw.byte(), draw.byte(), draw.byte());
    let basis = match basis % 4 {
        0 => Basis::Blind,
        1 => Basis::Create,
        2 => world.context(bucket, key, usize::from(basis / 4)).map_or(Basis::Blind, Basis::Context),
        _ => Basis::Context(Bytes::copy_from_slice(&[1, basis, content, request])),
    };
    let content = match content {
        0x80.. => Content::Tombstone,
        _ => Content::Value(Bytes::from(vec![content; [0, 1, 10, 32, 33][usize::from(content) % 5]])),
    };
    let attempt = draw.byte() % 3;
    let start = if draw.flag() { StartId(1) } else { world.start() };
    let ttl_ms = [None, None, Some(1), Some(10_000), Some(u64::MAX)][draw.below(5)];
    let request = RequestId(u128::from(request % 16));
    Put {
        bucket: world.bucket(bucket),
        key: world.key(key),
        content,
        basis,
        request,
        start,
        attempt,
        w: draw.quorum(),
        pw: draw.quorum(),
        ttl_ms,
    }
}

fn get(world: &World, draw: &mut Draw<'_>) -> Get {
    let (bucket, key) = (world.bucket(draw.below(3)), world.key(draw.below(8)));
    Get {
        bucket,
        key,
        r: draw.quorum(),
        pr: draw.quorum(),
        siblings: draw.flag(),
        show: if draw.flag() { Show::Readable } else { Show::Nothing },
    }
}

fn merged(world: &mut World, draw: &mut Draw<'_>) {
    let (which, failed, len) = (draw.byte(), draw.flag(), draw.byte());
    let shown = draw.flag().then(|| Bytes::from_static(b"shown"));
    let merged = Merged { value: vec![b'm'; usize::from(len) % 80].into(), shown, profile: ProfileId(7), fuel_used: 7 };
    world.merged(usize::from(which), if failed { Err(MergeFault::OutOfFuel { limit: 1 }.into()) } else { Ok(merged) });
}

fn says(world: &World, said: u8, draw: &mut Draw<'_>) -> PeerBody {
    let number = u64::from(draw.byte());
    let foreign = OpId { shard: 0, number };
    // Mostly an answer to what was asked last.
    let asked = world.asked(number as usize).unwrap_or(foreign);
    let epoch = ReapEpoch { number: u64::from(draw.byte() % 4 == 3), proposer: 0 };
    match said {
        op::REPLICATED => {
            let outcome = match draw.below(6) {
                0..=2 => Ok(Absorbed::Stored),
                3 => Ok(Absorbed::Superseded(vector(world, draw))),
                _ => Err([ErrorCode::DiskFull, ErrorCode::Damaged, ErrorCode::StaleLayout][draw.below(3)]),
            };
            PeerBody::Replicated { op: asked, layout: world.layout(), bucket_version: 1, outcome, held: None }
        }
        op::READ_REPLY => {
            let copy = match draw.below(6) {
                0..=2 => Ok(object(world, draw)),
                3 => {
                    // Mostly the digest that was asked about last.
                    let digest = Some(world.digest()).filter(|_| number % 4 != 3).unwrap_or([7; 16]);
                    return PeerBody::ReadSame { op: asked, epoch, digest, complete: true };
                }
                4 => Ok(Object::default()),
                _ => Err(ErrorCode::Damaged),
            };
            PeerBody::ReadReply { op: asked, epoch, copy, complete: true }
        }
        op::REPLICATE => {
            let object = world.object_id(draw.below(3), draw.below(8));
            let durability = if draw.flag() { Durability::Os } else { Durability::Fsync };
            let state = self::object(world, draw);
            let dot = state.entries.first().and_then(|entry| entry.dots.highest().next()).filter(|_| draw.flag());
            let op = (number % 4 != 3).then_some(foreign);
            let state = state.into();
            PeerBody::Replicate(Replicate { op, object, bucket_version: 1, epoch, dot, durability, state })
        }
        op::READ => {
            let object = world.object_id(draw.below(3), draw.below(8));
            let digest = draw.flag().then_some([7; 16]);
            PeerBody::Read { op: foreign, object, as_fallback: false, digest }
        }
        op::FORWARD => {
            let request =
                if draw.flag() { DataRequest::Get(get(world, draw)) } else { DataRequest::Put(put(world, draw)) };
            PeerBody::Forward(Forward {
                op: foreign,
                tenant: world.tenant(),
                deadline_ms: [0, 1, 500, u32::MAX][draw.below(4)],
                request,
            })
        }
        op::FORWARD_REPLY => PeerBody::ForwardReply { op: asked, reply: reply(draw) },
        op::EXCHANGE => exchange(world, number, epoch, draw),
        op::HOLDINGS => {
            let holder = |draw: &mut Draw<'_>| Holder {
                node: world.node(draw.below(4)),
                version: u64::from(draw.byte()) << (8 * draw.below(8)),
                holds: draw.flag(),
            };
            let holders = (0..draw.below(3)).map(|_| holder(draw)).collect();
            let partition_bits = bits(world, draw);
            PeerBody::Holdings { partition_bits, partition: PartitionId(number as u16 % 8), holders }
        }
        op::OFFER => {
            let id = world.object_id(draw.below(3), draw.below(8));
            let object = OfferedObject { key: id.key, hash: [draw.byte(); 16] };
            PeerBody::Offer(Offer {
                op: foreign,
                partition_bits: bits(world, draw),
                partition: PartitionId(number as u16 % 8),
                tenant: id.tenant,
                bucket: id.bucket,
                bucket_version: 1,
                epoch,
                objects: vec![object; draw.below(3)],
            })
        }
        op::OFFER_REPLY => {
            let answer = |draw: &mut Draw<'_>| [OfferAnswer::Confirmed, OfferAnswer::Wanted][draw.below(2)];
            let answers = (0..draw.below(4)).map(|_| answer(draw)).collect();
            PeerBody::OfferReply { op: asked, layout: world.layout(), bucket_version: 1, answers }
        }
        _ => {
            let actor = ActorNext {
                partition: PartitionId(draw.byte().into()),
                actor: actor(world, draw),
                next: u64::from(draw.byte()),
            };
            PeerBody::Observed { actor, counter: u64::from(draw.byte()) }
        }
    }
}

/// A question of an exchange, or an answer to one that was hardly asked.
fn exchange(world: &World, number: u64, epoch: ReapEpoch, draw: &mut Draw<'_>) -> PeerBody {
    let id = world.object_id(draw.below(3), draw.below(8));
    let walk = WalkId { shard: 0, number };
    let partition = if draw.flag() { world.partition(&id) } else { PartitionId(draw.byte().into()) };
    let range = HashRange { bucket: id.bucket, start: u64::from(draw.byte()) << 56, depth: draw.byte() % 70 };
    let range = if draw.flag() { range } else { HashRange::of_partition(id.bucket, partition, world.partition_bits()) };
    let width = draw.byte();
    let hashes = Bytes::from(vec![draw.byte(); draw.below(70)]);
    let objects = vec![(id.key.clone(), object(world, draw))];
    let batch = ObjectBatch { bucket: id.bucket, bucket_version: 1, objects };
    let compare = |hashes| {
        let ranges = vec![BucketRanges { bucket: id.bucket, ranges: vec![(range.into(), hashes)] }];
        Ask::Compare { width, ranges }
    };
    let ask = match draw.below(10) {
        0 => Ask::Roots(vec![(partition, u128::from(number)), (PartitionId(300), 0)]),
        1 => Ask::Buckets(vec![partition, PartitionId(300)]),
        2 => compare(RangeHashes::Parts(hashes)),
        3 => compare(RangeHashes::Objects(hashes)),
        4 => Ask::Wanted { range, from: hashes.clone(), width, except: hashes, max_bytes: number as u32 },
        5 => Ask::Objects { batch, last: draw.flag() },
        6 => Ask::Ended { failed: vec![partition] },
        7 => {
            let names = vec![KeyName::of(&range), KeyName::of(&range.at_place(draw.byte().into()))];
            Ask::Named { bucket: draw.flag().then_some(id.bucket), names, last: draw.flag() }
        }
        8 => {
            let answer = Ok(Answer::Found { batch, considered: draw.byte().into(), unreadable: draw.flag() });
            return PeerBody::ExchangeAnswer(ExchangeAnswer { walk, number, epoch, answer });
        }
        _ => {
            let answer = Ok(Answer::Objects { batch, next: Some(hashes), unreadable: false });
            return PeerBody::ExchangeAnswer(ExchangeAnswer { walk, number, epoch, answer });
        }
    };
    let partition_bits = bits(world, draw);
    PeerBody::ExchangeAsk(ExchangeAsk { walk, number, partition_bits, partition, epoch, ask })
}

/// The partitions of a sender's ring: mostly as many as there are.
fn bits(world: &World, draw: &mut Draw<'_>) -> u8 {
    if draw.below(8) == 0 { draw.byte() } else { world.partition_bits() }
}

fn reply(draw: &mut Draw<'_>) -> Reply {
    match draw.below(3) {
        0 => Reply::Error(ErrorReply::new(ErrorCode::TimedOut, "late")),
        1 => Reply::Put(PutReply {
            outcome: PutOutcome::Unknown,
            context: Bytes::new(),
            acked: draw.byte(),
            needed: draw.byte(),
            receipt: None,
        }),
        _ => Reply::Get(GetReply {
            value: None,
            shown: None,
            siblings: Vec::new(),
            context: Bytes::new(),
            merged_by: None,
            merge_fault: None,
            answered: Vec::new(),
            unreachable: Vec::new(),
        }),
    }
}

/// An actor: one of this shard's own, or one of a few others.
fn actor(world: &World, draw: &mut Draw<'_>) -> ActorId {
    let at = draw.byte();
    let own = world.own_actors();
    if at % 4 == 3 && !own.is_empty() { own[usize::from(at / 4) % own.len()] } else { ActorId(u64::from(at % 4)) }
}

fn counter(draw: &mut Draw<'_>) -> u64 {
    match draw.byte() {
        0xff => u64::MAX,
        byte => u64::from(byte % 8) + 1,
    }
}

fn vector(world: &World, draw: &mut Draw<'_>) -> VersionVector {
    let mut vector = VersionVector::new();
    for _ in 0..draw.below(3) {
        let (actor, hi) = (actor(world, draw), counter(draw));
        // Of an even counter only the one write was seen, and not what came before it.
        if hi.is_multiple_of(2) {
            vector.insert_span(DotSpan { actor, lo: hi - 1, hi });
        } else {
            vector.insert(Dot { actor, counter: hi });
        }
    }
    vector
}

/// An object as a peer could send it: what it would have refused to decode, it has not.
fn object(world: &World, draw: &mut Draw<'_>) -> Object {
    let mut context = vector(world, draw);
    let entries = (0..draw.below(3)).map(|_| {
        let (actor, hi, kind) = (actor(world, draw), counter(draw), draw.byte());
        context.insert(Dot { actor, counter: hi });
        let dots: DotSet =
            [DotSpan { actor, lo: hi - 1 - (hi - 1).min(u64::from(kind % 3)), hi }].into_iter().collect();
        Entry {
            covers: dots.clone(),
            dots,
            content: if kind % 5 == 4 {
                Content::Tombstone
            } else {
                Content::Value(vec![kind; usize::from(kind % 40)].into())
            },
            stamp: [Hlc(1), world.stamp(0), world.stamp(3_600_000), Hlc(u64::MAX)][usize::from(kind / 16) % 4],
            expires: [None, Some(Hlc(1)), Some(world.stamp(1000))][usize::from(kind / 4) % 3],
            folded_by: (kind % 7 == 6).then_some(FoldedBy { plugin: PluginDigest([1; 32]), profile: ProfileId(7) }),
        }
    });
    let entries = entries.collect();
    Object { context, entries }
}
