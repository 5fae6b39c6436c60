//! A sample of each message between nodes, with every error code.

use bytes::Bytes;

use rejoin_proto::catalog::{Durability, RecordKey};
use rejoin_proto::client::{Basis, PROTOCOL, Reply};
use rejoin_proto::exchange::{
    Answer, Ask, BucketRanges, Compared, Differing, Digest, ExchangeAnswer, ExchangeAsk, HashRange, KeyName,
    ObjectBatch, OtherCopy, PartitionBuckets, RangeHashes, Sum, WalkId,
};
use rejoin_proto::peer::{
    Absorbed, ActorNext, ClusterParams, DataRequest, DiskId, Forward, Holder, Offer, OfferAnswer, OfferedObject, OpId,
    PeerBody, PeerEnvelope, PeerHello, PeerReady, Replicate, ViewAsk,
};
use rejoin_proto::plugin_state::PluginState;
use rejoin_proto::{
    ActorId, ClusterId, Content, Dot, ErrorCode, LayoutRange, LayoutRef, NodeId, PartitionId, ProfileId, ReapEpoch,
    RingMessage,
};

use super::{Sample, bucket_record, client, digest, layout_ref, name, object, object_id, sample, tenant, vector};

/// In the order that is frozen: an error code's number is its place here.
pub(crate) const CODES: [ErrorCode; 22] = [
    ErrorCode::BadRequest,
    ErrorCode::Denied,
    ErrorCode::NotFound,
    ErrorCode::Exists,
    ErrorCode::BadContext,
    ErrorCode::TooLarge,
    ErrorCode::TooManySiblings,
    ErrorCode::Unavailable,
    ErrorCode::TimedOut,
    ErrorCode::Unknown,
    ErrorCode::Overloaded,
    ErrorCode::StaleLayout,
    ErrorCode::VersionConflict,
    ErrorCode::DiskFull,
    ErrorCode::Damaged,
    ErrorCode::PluginRejected,
    ErrorCode::Protocol,
    ErrorCode::Stopping,
    ErrorCode::InvalidValue,
    ErrorCode::NotServing,
    ErrorCode::QuotaExceeded,
    ErrorCode::PluginNotReady,
];

pub(crate) fn samples() -> Vec<Sample> {
    let hello = PeerHello {
        params: ClusterParams {
            protocol: PROTOCOL,
            cluster: ClusterId(0xfeed),
            secret_check: 0x5ec4e7,
            origin: layout_ref(),
            max_skew_ms: 60_000,
        },
        node: NodeId::from_name(&name("n1")),
        run: 77,
        disk: DiskId(88),
        replaced: true,
        rebuilt: false,
        member_of: Some(layout_ref()),
        known_disk: Some(DiskId(99)),
        wall_ms: 1_700_000_000_000,
        catalog: 0xdead_beef,
        partition_bits: 8,
        actors: vec![actor(), ActorNext { partition: PartitionId(255), ..actor() }],
    };
    let ready =
        PeerReady { catalog: 0xca7a, layouts: LayoutRange { oldest: LayoutRef::default(), newest: layout_ref() } };
    let mut all = vec![sample("peer-hello", &hello), sample("peer-ready", &ready)];
    let envelope =
        |tag: &str, body| sample(&format!("peer-{tag}"), &PeerEnvelope { layout: layout_ref(), trace: 42, body });
    all.extend(bodies().into_iter().map(|(tag, body)| envelope(tag, body)));
    for (at, code) in CODES.into_iter().enumerate() {
        let body = PeerBody::ReadReply { op: op(), epoch: ReapEpoch::default(), copy: Err(code), complete: true };
        all.push(envelope(&format!("error-{at:02}"), body));
    }
    all
}

fn op() -> OpId {
    OpId { shard: 3, number: 900 }
}

fn actor() -> ActorNext {
    ActorNext { partition: PartitionId(7), actor: ActorId(0xabcd), next: 301 }
}

fn replicate(op: Option<OpId>, dot: Option<Dot>, durability: Durability) -> PeerBody {
    let epoch = ReapEpoch { number: 4, proposer: 5 };
    PeerBody::Replicate(Replicate {
        op,
        object: object_id(),
        bucket_version: 2,
        epoch,
        dot,
        durability,
        state: object().into(),
    })
}

fn holdings() -> PeerBody {
    let holder = |at, holds| Holder { node: NodeId::from_name(&name(at)), version: 1_700_000_000_000, holds };
    let holders = vec![holder("n1", true), holder("n2", false)];
    PeerBody::Holdings { partition_bits: 8, partition: PartitionId(7), holders }
}

fn offer() -> PeerBody {
    let object = |key: &'static str, byte| OfferedObject { key: key.into(), hash: [byte; 16] };
    PeerBody::Offer(Offer {
        op: op(),
        partition_bits: 8,
        partition: PartitionId(7),
        tenant: tenant(),
        bucket: object_id().bucket,
        bucket_version: 2,
        epoch: ReapEpoch { number: 4, proposer: 5 },
        objects: vec![object("alice", 1), object("bob", 2)],
    })
}

fn view_ask() -> PeerBody {
    let (object, hash, plugin, profile) = (object_id(), [5; 16], digest(), ProfileId(9));
    PeerBody::ViewAsk(ViewAsk { op: op(), object, hash, plugin, profile })
}

fn bodies() -> Vec<(&'static str, PeerBody)> {
    let epoch = ReapEpoch { number: 4, proposer: 5 };
    let forward = |request| PeerBody::Forward(Forward { op: op(), tenant: tenant(), deadline_ms: 700, request });
    let replicated = |outcome, held| {
        let (op, layout, bucket_version) = (op(), layout_ref(), 2);
        PeerBody::Replicated { op, layout, bucket_version, outcome, held }
    };
    let put = client::put(Basis::Blind, Content::Value("milk".into()));
    let dot = Dot { actor: ActorId(3), counter: 300 };
    vec![
        ("forward-get", forward(DataRequest::Get(client::get()))),
        ("forward-put", forward(DataRequest::Put(put))),
        ("forward-reply", PeerBody::ForwardReply { op: op(), reply: Reply::Get(client::get_reply()) }),
        ("read", PeerBody::Read { op: op(), object: object_id(), as_fallback: true, digest: None }),
        ("read-digest", PeerBody::Read { op: op(), object: object_id(), as_fallback: false, digest: Some([6; 16]) }),
        ("read-same", PeerBody::ReadSame { op: op(), epoch, digest: [6; 16], complete: true }),
        ("read-reply", PeerBody::ReadReply { op: op(), epoch, copy: Ok(object()), complete: false }),
        ("replicate", replicate(Some(op()), Some(dot), Durability::Fsync)),
        ("repair", replicate(None, None, Durability::Os)),
        ("replicated-stored", replicated(Ok(Absorbed::Stored), Some(9))),
        ("replicated-superseded", replicated(Ok(Absorbed::Superseded(vector())), None)),
        ("replicated-refused", replicated(Err(ErrorCode::DiskFull), None)),
        ("observed", PeerBody::Observed { actor: actor(), counter: 400 }),
        (
            "catalog-summary",
            PeerBody::CatalogSummary(vec![
                (RecordKey::Token(tenant(), name("ops")), 2, 99),
                (RecordKey::Plugin(tenant(), digest()), 1, 3),
            ]),
        ),
        ("catalog-records", PeerBody::CatalogRecords { number: 6, records: vec![bucket_record()] }),
        ("catalog-taken", PeerBody::CatalogTaken { number: 6 }),
        ("module-wanted", PeerBody::ModuleWanted(digest())),
        ("module", PeerBody::Module { digest: digest(), bytes: Some(Bytes::from_static(b"\0asm")) }),
        ("module-absent", PeerBody::Module { digest: digest(), bytes: None }),
        ("holdings", holdings()),
        ("offer", offer()),
        (
            "offer-reply",
            PeerBody::OfferReply {
                op: op(),
                layout: layout_ref(),
                bucket_version: 2,
                answers: vec![OfferAnswer::Confirmed, OfferAnswer::Wanted],
            },
        ),
        ("view-ask", view_ask()),
        ("view-answer", PeerBody::ViewAnswer { op: op(), view: Some([7; 16]) }),
        ("sizes-wanted", PeerBody::SizesWanted(8)),
        ("sizes", PeerBody::Sizes { number: 8, partition_bits: 8, bytes: vec![(PartitionId(3), 4_096)] }),
        ("plugin-ask", PeerBody::PluginAsk { number: 8, digest: digest() }),
        (
            "plugin-answer",
            PeerBody::PluginAnswer { number: 8, state: PluginState::Differs("it computes otherwise".into()) },
        ),
        ("view-no-answer", PeerBody::ViewAnswer { op: op(), view: None }),
    ]
    .into_iter()
    .chain(exchange())
    .chain(ring())
    .collect()
}

fn ring() -> Vec<(&'static str, PeerBody)> {
    let news = RingMessage::News { live: vec![layout_ref()], notes: Box::new(super::ring_notes()), wants: true };
    vec![
        ("ring-digest", PeerBody::Ring(RingMessage::Digest(7))),
        ("ring-news", PeerBody::Ring(news)),
        ("ring-wanted", PeerBody::Ring(RingMessage::Wanted(vec![layout_ref()]))),
        ("ring-layouts", PeerBody::Ring(RingMessage::Layouts(vec![super::layout()]))),
    ]
}

/// Every question and answer of a walk.
fn exchange() -> Vec<(&'static str, PeerBody)> {
    let (walk, epoch) = (WalkId { shard: 3, number: 12 }, ReapEpoch { number: 4, proposer: 5 });
    let ask = |ask| {
        let partition = PartitionId(7);
        PeerBody::ExchangeAsk(ExchangeAsk { walk, number: 2, partition_bits: 8, partition, epoch, ask })
    };
    let answer = |answer| PeerBody::ExchangeAnswer(ExchangeAnswer { walk, number: 2, epoch, answer });
    let bucket = object_id().bucket;
    let range = HashRange::of_partition(bucket, PartitionId(7), 8);
    let hashes = Bytes::from_static(b"eight by");
    let batch = || ObjectBatch { bucket, bucket_version: 2, objects: vec![("alice".into(), object())] };
    let ranges = vec![
        (range.into(), RangeHashes::Parts(Bytes::from_static(&[7; 32]))),
        (range.part(3).into(), RangeHashes::Objects(hashes.clone())),
    ];
    let ranges = vec![BucketRanges { bucket, ranges }];
    let wanted = Ask::Wanted { range, from: "key".into(), width: 4, except: hashes.clone(), max_bytes: 1000 };
    let sum = Sum { count: 300, live: 0, bytes: 70_000, hash: 1 << 100 | 5, places: 1 << 50 | 6, weights: 900 };
    let differ = Answer::Differ {
        considered: 2,
        partitions: vec![Differing { partition: PartitionId(7), buckets: 1, digest: sum.digest() }],
        refused: vec![PartitionId(8)],
        incomplete: vec![PartitionId(7)],
    };
    let compared = vec![
        Compared::Parts { differ: 0x8001, digests: vec![sum.digest(), Digest::default()] },
        Compared::Objects(hashes),
        Compared::Objections { lacking: Bytes::from_static(&[5]), others: vec![OtherCopy { place: 9, weight: 3 }] },
        Compared::Many,
        Compared::Unknown,
        Compared::Refused,
    ];
    let names = vec![KeyName::of(&range.part(3)), KeyName::of(&range.at_place(77))];
    let buckets = vec![Some(PartitionBuckets { complete: true, sums: vec![(bucket, 2, sum)] }), None];
    vec![
        ("exchange-roots", ask(Ask::Roots(vec![(PartitionId(7), 1 << 99), (PartitionId(8), 0)]))),
        ("exchange-buckets", ask(Ask::Buckets(vec![PartitionId(7), PartitionId(8)]))),
        ("exchange-compare", ask(Ask::Compare { width: 4, ranges })),
        ("exchange-wanted", ask(wanted)),
        ("exchange-named", ask(Ask::Named { bucket: Some(bucket), names, last: true })),
        ("exchange-objects", ask(Ask::Objects { batch: batch(), last: false })),
        ("exchange-ended", ask(Ask::Ended { failed: vec![PartitionId(9)] })),
        ("exchange-differ", answer(Ok(differ))),
        ("exchange-sums", answer(Ok(Answer::Buckets(buckets)))),
        ("exchange-compared", answer(Ok(Answer::Compared(compared)))),
        ("exchange-sent", answer(Ok(Answer::Objects { batch: batch(), next: Some("next".into()), unreadable: true }))),
        ("exchange-found", answer(Ok(Answer::Found { batch: batch(), considered: 2, unreadable: false }))),
        ("exchange-taken", answer(Ok(Answer::Taken { same: true }))),
        ("exchange-refused", answer(Err(ErrorCode::StaleLayout))),
    ]
}
