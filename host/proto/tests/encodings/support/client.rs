//! A sample of each message between clients and nodes.

use bytes::Bytes;

use rejoin_proto::access::Scope;
use rejoin_proto::audit::{
    self, AuditActor, AuditCommand, AuditEntry, AuditEvent, AuditHead, AuditOutcome, AuditPage, AuditRecord,
    AuditRequest,
};
use rejoin_proto::catalog::Quorum;
use rejoin_proto::client::{
    AdminRequest, Basis, BucketUsage, ClientHello, Doubt, ExchangePair, ExchangeStatus, Get, GetReply, HelloReply,
    Holdings, LawState, Liveness, MemberView, MergedBy, MovedNode, NodeStatus, PROTOCOL, PushChecks, Put, PutOutcome,
    PutReply, ReachedLimit, Rebuild, Receipt, RecordKind, Reply, ReplyEnvelope, Request, RequestBody, Routes,
    ServerHello, Show, Sibling, StartId, Status, TenantUsage, TokenStatus,
};
use rejoin_proto::conflict::{ConflictNote, LawViolation};
use rejoin_proto::layout_request::{
    AwaitedNode, BucketChange, ChangeStatus, CopiesStatus, LayoutChanges, LayoutNodeStatus, LayoutPlan, LayoutRequest,
    LayoutStatus, LayoutStep, MemberStatus, NodeChange, PastLayoutStatus, PlannedNode,
};
use rejoin_proto::plugin_state::{NodePlugins, PluginState};
use rejoin_proto::quota::Limit;
use rejoin_proto::receipt::{CopyReport, EntryReport, FailedMerge, KeptReceipt, KeyReport, ReceiptPage, ReceiptQuery};
use rejoin_proto::ring::{ChangedBucket, PastLayout, Role};
use rejoin_proto::signing::SignerChange;
use rejoin_proto::trial::{ShadowCounts, ShadowReport, ShadowSample};
use rejoin_proto::{
    BucketId, ClusterId, Content, ErrorCode, ErrorReply, Hlc, LayoutPolicy, NodeFailure, NodeId, PartitionId,
    PluginSignature, ProfileId, RequestId, Ring, SignerKey, ZoneDemand, codec,
};

use super::{
    Sample, bucket_record, digest, fold_receipt, layout, layout_ref, name, plain_props, plugin_record, props,
    ring_notes, runs, sample, token_record, vector,
};

fn laws(state: LawState) -> Reply {
    Reply::Laws { digest: digest(), state }
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut all = vec![
        sample(
            "hello-client",
            &ClientHello {
                protocol: PROTOCOL,
                token: "shop/ops:c2VjcmV0".into(),
                tenant: Some(name("shop")),
                client: "cart-service/1".into(),
            },
        ),
        sample("hello-welcome", &HelloReply::Welcome(welcome())),
        sample("hello-refused", &HelloReply::Refused(ErrorReply::new(ErrorCode::Denied, "the token is unknown"))),
    ];
    let request = |(tag, body)| {
        sample(&format!("request-{tag}"), &Request { deadline_ms: 1500, trace: 42, layout: layout_ref(), body })
    };
    all.extend(requests().into_iter().map(request));
    let answer = |(tag, reply)| {
        sample(&format!("answer-{tag}"), &ReplyEnvelope { layout: layout_ref(), start: StartId(11), reply })
    };
    all.extend(replies().into_iter().map(answer));
    all
}

fn welcome() -> ServerHello {
    ServerHello {
        protocol: PROTOCOL,
        cluster: ClusterId(0xfeed),
        node: name("n1"),
        tenant: name("shop"),
        tenant_id: super::tenant(),
        start: StartId(11),
        retry_window_ms: 60_000,
        routes: routes(),
    }
}

fn routes() -> Routes {
    let layout = layout();
    let node = layout.nodes[0].id;
    Routes { layout, moved: vec![MovedNode { node, number: 2, address: ([127, 0, 0, 1], 7777).into() }] }
}

pub(crate) fn get() -> Get {
    Get {
        bucket: name("cart"),
        key: "alice".into(),
        r: Some(Quorum::Count(2)),
        pr: Some(Quorum::Majority),
        siblings: true,
        show: Show::Readable,
    }
}

pub(crate) fn put(basis: Basis, content: Content) -> Put {
    Put {
        bucket: name("cart"),
        key: "alice".into(),
        content,
        basis,
        request: RequestId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        start: StartId(11),
        attempt: 1,
        w: Some(Quorum::Count(2)),
        pw: None,
        ttl_ms: Some(1000),
    }
}

fn requests() -> Vec<(&'static str, RequestBody)> {
    let value = || Content::Value(Bytes::from_static(b"milk"));
    let admin = RequestBody::Admin;
    vec![
        ("settled", RequestBody::Settled(vec![Receipt { partition: PartitionId(3), id: 0x77 << 100 }])),
        ("get", RequestBody::Get(get())),
        ("get-answer", RequestBody::Get(Get { show: Show::Answer(Bytes::from_static(b"total")), ..get() })),
        ("put-operation", RequestBody::Put(put(Basis::Operation, value()))),
        ("put-undo", RequestBody::Put(put(Basis::Undo(Bytes::from_static(&[1, 2, 3])), value()))),
        ("put-context", RequestBody::Put(put(Basis::Context(Bytes::from_static(&[1, 2, 3])), value()))),
        ("put-create", RequestBody::Put(put(Basis::Create, value()))),
        ("put-blind", RequestBody::Put(put(Basis::Blind, value()))),
        ("delete", RequestBody::Put(put(Basis::Blind, Content::Tombstone))),
        ("layout", RequestBody::Layout),
        ("status", admin(AdminRequest::Status)),
        ("members", admin(AdminRequest::Members)),
        ("exchange", admin(AdminRequest::Exchange)),
        ("exchange-pause", admin(AdminRequest::ExchangePause(true))),
        ("layout-show", admin(AdminRequest::Layout(LayoutRequest::Show))),
        ("layout-stage", admin(AdminRequest::Layout(LayoutRequest::Stage(layout_changes())))),
        ("layout-revert", admin(AdminRequest::Layout(LayoutRequest::Revert))),
        ("layout-plan", admin(AdminRequest::Layout(LayoutRequest::Plan))),
        ("layout-apply", admin(AdminRequest::Layout(LayoutRequest::Apply(layout_ref())))),
        ("layout-skip", admin(AdminRequest::Layout(LayoutRequest::Skip(name("n2"))))),
        ("layout-join", admin(AdminRequest::Layout(LayoutRequest::Join(name("n4"))))),
        ("list-tenants", admin(AdminRequest::List(RecordKind::Tenant))),
        ("list-buckets", admin(AdminRequest::List(RecordKind::Bucket))),
        ("list-plugins", admin(AdminRequest::List(RecordKind::Plugin))),
        ("list-tokens", admin(AdminRequest::List(RecordKind::Token))),
        ("bucket-create", admin(AdminRequest::BucketCreate { name: name("cart"), props: plain_props() })),
        ("bucket-set", admin(AdminRequest::BucketSet { name: name("cart"), version: 3, props: props(), force: true })),
        (
            "token-create",
            admin(AdminRequest::TokenCreate {
                name: name("app"),
                grant: Scope::ReadWrite.into(),
                secret_hash: [9; 32],
            }),
        ),
        (
            "token-rotate",
            admin(AdminRequest::TokenRotate { name: name("app"), secret_hash: [9; 32], overlap_ms: 86_400_000 }),
        ),
        ("tenant-create", admin(AdminRequest::TenantCreate { name: name("shop") })),
        ("audit", admin(AdminRequest::Audit(AuditRequest { from: 813 }))),
        ("tenant-delete", admin(AdminRequest::TenantDelete { name: name("shop"), after_ms: 86_400_000 })),
        ("tenant-restore", admin(AdminRequest::TenantRestore { name: name("shop") })),
        ("bucket-delete", admin(AdminRequest::BucketDelete { name: name("cart"), after_ms: 86_400_000 })),
        ("bucket-restore", admin(AdminRequest::BucketRestore { name: name("cart") })),
        ("plugin-delete", admin(AdminRequest::PluginDelete { digest: digest(), after_ms: 86_400_000 })),
        ("plugin-restore", admin(AdminRequest::PluginRestore { digest: digest() })),
        ("usage", admin(AdminRequest::Usage)),
        ("list-quotas", admin(AdminRequest::List(RecordKind::Quota))),
        ("quota-set", admin(AdminRequest::QuotaSet { bucket: Some(name("cart")), quota: Box::new(super::quota()) })),
        ("conflicts", admin(AdminRequest::Conflicts { bucket: name("cart") })),
        ("token-revoke", admin(AdminRequest::TokenRevoke { name: name("app"), certificates: true })),
        ("plugin-release", admin(AdminRequest::PluginRelease { digest: digest() })),
        (
            "plugin-push",
            admin(AdminRequest::PluginPush {
                name: name("cart"),
                module: Bytes::from_static(b"\0asm"),
                unchecked: true,
                signature: Some(PluginSignature::new(SignerKey([3; 32]), &[4; 64])),
            }),
        ),
        (
            "plugin-push-with",
            admin(AdminRequest::PluginPushWith {
                name: name("cart"),
                module: Bytes::from_static(b"\0asm"),
                signature: None,
                checks: Box::new(PushChecks {
                    intent: Some(Bytes::from_static(b"{}")),
                    siblings_of: Some(name("cart")),
                    fixtures: vec![Bytes::from_static(b"7"), Bytes::from_static(b"")],
                }),
            }),
        ),
        ("plugin-laws", admin(AdminRequest::PluginLaws { digest: digest() })),
        ("plugin-states", admin(AdminRequest::PluginStates { digest: Some(digest()) })),
        ("signers-add", admin(AdminRequest::SignersSet(SignerChange::Add(SignerKey([3; 32]))))),
        ("signers-remove", admin(AdminRequest::SignersSet(SignerChange::Remove(SignerKey([3; 32]))))),
        ("list-signers", admin(AdminRequest::List(RecordKind::Signers))),
        ("law-violations", admin(AdminRequest::LawViolations { bucket: name("cart") })),
        (
            "receipts",
            admin(AdminRequest::Receipts(Box::new(ReceiptQuery {
                bucket: name("cart"),
                key: Some("alice".into()),
                plugin: Some(digest()),
                since_ms: 1_700_000_000_000,
                from: Some(Bytes::from_static(&[0, 1, 2])),
                undo: true,
            }))),
        ),
        ("key-show", admin(AdminRequest::KeyShow { bucket: name("cart"), key: "alice".into() })),
        ("shadow-report", admin(AdminRequest::ShadowReport { bucket: name("cart"), samples: true })),
        ("plugin-fetch", admin(AdminRequest::PluginFetch { digest: digest() })),
    ]
}

pub(crate) fn get_reply() -> GetReply {
    let sibling = |value: &'static str, stamp_ms| Sibling { value: value.into(), stamp_ms, writer: 3 };
    GetReply {
        value: Some("milk,bread".into()),
        shown: Some("[milk, bread]".into()),
        siblings: vec![sibling("milk", 1), sibling("bread", 2)],
        context: Bytes::from_static(&[1, 2, 3]),
        merged_by: Some(MergedBy { name: Some(name("cart")), digest: digest() }),
        merge_fault: Some("out of fuel".into()),
        answered: vec![name("n1"), name("n3")],
        unreachable: vec![name("n4")],
    }
}

fn status() -> Status {
    let node = NodeStatus {
        name: name("n1"),
        zone: name("z1"),
        address: ([127, 0, 0, 1], 7101).into(),
        up: true,
        first_owner_of: 2,
        owner_of: 4,
        replaced: true,
    };
    Status {
        cluster: ClusterId(0xfeed),
        node: name("n1"),
        release: "0.1.0".into(),
        uptime_ms: 12_345,
        layout: layout_ref(),
        partitions: 4,
        nodes: vec![node],
        lost: vec!["partition 3".into()],
        missing_plugins: vec![digest()],
        warnings: vec!["the certificate ends in 12 days".into()],
        certificate_until_ms: 1_767_225_600_000,
        authority_until_ms: 2_082_585_600_000,
        problems: vec!["the disk is full".into()],
        spare: Some((1, -1)),
        holdings: Holdings { partitions: vec![PartitionId(2), PartitionId(3)], objects: 40 },
        rebuild: Some(Rebuild { left: vec![PartitionId(1)], partitions: 4, objects: 500, bytes: 60_000 }),
    }
}

fn members() -> Vec<MemberView> {
    let member = |liveness, doubt| MemberView {
        node: name("n2"),
        liveness,
        for_ms: 3_400,
        doubt,
        phi_milli: 8_250,
        probe_answered_ms: Some(9_000),
        request_answered_ms: None,
        gossip: Liveness::Suspect,
    };
    let doubted = [Doubt::NotConnected, Doubt::Probes, Doubt::Requests, Doubt::Gossip(name("n3"))];
    let doubted = doubted.into_iter().map(|doubt| member(Liveness::Down, Some(doubt)));
    [member(Liveness::Alive, None)].into_iter().chain(doubted).collect()
}

fn exchange() -> ExchangeStatus {
    let pair = |differs, equal_ago_ms| ExchangePair {
        partition: PartitionId(3),
        peer: name("n2"),
        equal_ago_ms,
        differs,
        walking: differs,
        failures: 2,
        sent: 10,
        received: 11,
        sent_bytes: 12_000,
        received_bytes: 13_000,
    };
    let (pairs, incomplete) = (vec![pair(true, None), pair(false, Some(1_500))], vec![PartitionId(3)]);
    ExchangeStatus { node: name("n1"), paused: true, pairs, incomplete, holdings: 7, handed_over: 1_000 }
}

fn layout_changes() -> LayoutChanges {
    let (node, zone, capacity) = (name("n4"), Some(name("z2")), Some(2));
    let nodes = vec![NodeChange::Assign { node, zone, capacity }, NodeChange::Remove(name("n1"))];
    LayoutChanges { nodes, n: Some(3), zones: Some(ZoneDemand::AtLeast(2)), split: true }
}

fn layout_status() -> LayoutStatus {
    let policy = LayoutPolicy::default();
    let node = |at: &str, member, staged| LayoutNodeStatus {
        name: name(at),
        address: ([127, 0, 0, 1], 7101).into(),
        up: true,
        member,
        in_older: true,
        dead: true,
        staged,
    };
    let member = MemberStatus { zone: name("z1"), capacity: 2, owner_of: 192 };
    let staged = Role::Member { zone: name("z2"), capacity: 3 };
    let bucket = Some(ChangedBucket { name: name("cart"), n: 5, sloppy: true });
    let by = NodeId::from_name(&name("n1"));
    let past = PastLayout { applied_ms: 1_700_000_000_000, by, nodes: 3, moved: 64, bucket, split: None };
    LayoutStatus {
        node: name("n1"),
        live: vec![layout_ref()],
        policy,
        partitions: 256,
        nodes: vec![node("n1", Some(member), Some(Role::Removed)), node("n4", None, Some(staged))],
        change: Some(ChangeStatus {
            step: LayoutStep::Exchange,
            waits_for: vec![AwaitedNode { name: name("n2"), up: false }],
        }),
        buckets: vec![BucketChange {
            bucket: BucketId(3),
            name: name("cart"),
            from: CopiesStatus { n: 3, sloppy: true },
            to: CopiesStatus { n: 5, sloppy: false },
        }],
        staged_policy: Some(policy),
        staged_split: Some(512),
        past: vec![PastLayoutStatus { name: layout_ref(), layout: past, by: name("n1") }],
    }
}

fn layout_plan() -> LayoutPlan {
    let node = PlannedNode {
        id: NodeId::from_name(&name("n4")),
        name: name("n4"),
        role: Some((name("z2"), 2)),
        before: 1,
        after: 192,
        gains: 193,
        loses: 2,
        bytes: 193_000_000,
    };
    LayoutPlan {
        name: layout_ref(),
        policy: LayoutPolicy::default(),
        partitions_before: 256,
        partitions: 512,
        nodes: vec![node],
        moved: 192,
        least_moved: 191,
        pace_bytes: 64 << 20,
        warnings: vec!["node n2 is down".into()],
    }
}

fn tenant_usage() -> TenantUsage {
    let (bucket, limit) = (Some(name("cart")), Limit::InFlight);
    TenantUsage {
        requests: 12,
        refused: 3,
        bytes_in: 5_000,
        bytes_out: 70_000,
        fuel: 1_000_000,
        connections: 2,
        in_flight: 9,
        buckets: vec![BucketUsage { bucket: super::object_id().bucket, objects: 3, bytes: 400 }],
        reached: vec![ReachedLimit { bucket, limit, hard: true, most: 9, used: 9 }],
    }
}

fn shadow_report() -> ShadowReport {
    let sibling = Sibling { value: Bytes::from_static(b"v"), stamp_ms: 1_700_000_000_000, writer: 3 };
    let sample = ShadowSample {
        key: Bytes::from_static(b"k"),
        siblings: vec![sibling],
        active: digest(),
        made: Ok(Bytes::from_static(b"merged")),
        shadow: Err("the merge used all of its fuel".into()),
        at_ms: 1_700_000_600_000,
    };
    ShadowReport {
        node: name("n1"),
        shadow: Some(digest()),
        counts: ShadowCounts { equal: 5, different: 0, faulted: 1, skipped: 2 },
        samples: vec![sample],
        keys: vec![Bytes::from_static(b"k")],
    }
}

fn conflict() -> ConflictNote {
    ConflictNote {
        key: Bytes::from_static(b"k"),
        plugin: digest(),
        reason: "fuel".into(),
        why: "the merge used all of its fuel".into(),
        siblings: 3,
        first_ms: 1_700_000_000_000,
        last_ms: 1_700_000_600_000,
        times: 4,
    }
}

fn violation() -> LawViolation {
    LawViolation {
        key: Bytes::from_static(b"k"),
        plugin: digest(),
        law: "permutation".into(),
        equation: "m(all) = m(all, reversed)".into(),
        siblings: vec![Sibling { value: "milk".into(), stamp_ms: 1, writer: 3 }],
        confirmed: true,
        at_ms: 1_700_000_000_000,
    }
}

fn token_status() -> TokenStatus {
    let (rotating_until_ms, last_used_ms) = (Some(1_700_000_600_000), Some(1_700_000_000_000));
    TokenStatus { name: name("app"), grant: super::grant(), rotating_until_ms, revoked: true, last_used_ms }
}

fn replies() -> Vec<(&'static str, Reply)> {
    let context = Bytes::from_static(&[1, 2, 3]);
    let receipt = Some(Receipt { partition: PartitionId(3), id: 0x77 << 100 });
    let put = |outcome| Reply::Put(PutReply { outcome, context: context.clone(), acked: 1, needed: 2, receipt });
    let verdict = NodeFailure { node: name("n2"), why: "not connected".into() };
    let error = ErrorReply::new(ErrorCode::Unavailable, "too few replicas").quorum(2, 1, vec![verdict]).retry_after(50);
    vec![
        ("get", Reply::Get(get_reply())),
        ("put-stored", put(PutOutcome::Stored)),
        ("put-unknown", put(PutOutcome::Unknown)),
        ("layout", Reply::Layout(routes())),
        ("tokens", Reply::Tokens(vec![token_status()])),
        ("usage", Reply::Usage(tenant_usage())),
        ("laws-waiting", laws(LawState::Waiting)),
        ("laws-checking", laws(LawState::Checking { law: "growth".into(), case: 7, cases: 300 })),
        (
            "laws-checked",
            laws(LawState::Checked {
                broken: Some("it breaks the law of growth".into()),
                report: Bytes::from_static(b"{}"),
            }),
        ),
        ("conflicts", Reply::Conflicts(vec![conflict()])),
        ("plugin-states", Reply::PluginStates(node_plugins())),
        ("violations", Reply::Violations(vec![violation()])),
        ("receipts", Reply::Receipts(receipts())),
        ("key", Reply::Key(Box::new(key_report()))),
        ("shadow-report", Reply::ShadowReport(Box::new(shadow_report()))),
        ("module", Reply::Module(Bytes::from_static(b"\0asm"))),
        ("status", Reply::Status(status())),
        ("members", Reply::Members(members())),
        ("exchange", Reply::Exchange(exchange())),
        ("layout-status", Reply::LayoutStatus(layout_status())),
        ("layout-planned", Reply::LayoutPlan(layout_plan())),
        ("layout-changed", Reply::LayoutChanged(layout_ref())),
        ("ring", Reply::Ring(Ring { notes: ring_notes(), ..Ring::new(layout()) })),
        ("records", Reply::Records(vec![bucket_record(), plugin_record(), token_record()])),
        ("changed", Reply::Changed { record: bucket_record(), behind: vec![name("n2")] }),
        ("audit", Reply::Audit(audit_page())),
        ("error", Reply::Error(error)),
    ]
}

/// A plugin in each state.
fn node_plugins() -> NodePlugins {
    let states = [
        PluginState::Ready,
        PluginState::Compiling,
        PluginState::Missing,
        PluginState::Stored,
        PluginState::Removed,
        PluginState::Differs("n1 got another transcript".into()),
        PluginState::Refused("it takes too much memory to compile".into()),
    ];
    NodePlugins { node: name("n1"), plugins: states.into_iter().map(|state| (digest(), state)).collect() }
}

fn receipts() -> ReceiptPage {
    let kept = KeptReceipt { receipt: fold_receipt(), live: true, context: Some(Bytes::from_static(&[1, 2, 3])) };
    ReceiptPage { node: name("n1"), receipts: vec![kept], next: Some(Bytes::from_static(&[0, 1, 2])), lost: true }
}

fn key_report() -> KeyReport {
    let entry = EntryReport {
        dots: runs(&[(3, 0, 2)]),
        covers: runs(&[(3, 0, 2), (4, 1, 2)]),
        bytes: Some(9),
        stamp: Hlc::from_ms(1_700_000_000_000),
        expires: Some(Hlc::from_ms(1_700_000_000_001)),
        folded_by: Some(fold_receipt().by),
    };
    let failure = FailedMerge {
        plugin: digest(),
        profile: ProfileId(0x88eb_322e_a296_8ef9),
        siblings: vec![Sibling { value: "milk".into(), stamp_ms: 1, writer: 3 }],
        limits: fold_receipt().limits,
        reason: "out_of_fuel".into(),
        why: "the plugin used up its 1000 units of fuel".into(),
        at_ms: 1_700_000_000_002,
    };
    KeyReport {
        node: name("n1"),
        owners: vec![name("n1"), name("n2")],
        copy: Ok(CopyReport { context: vector(), entries: vec![entry] }),
        plugin: props().plugin,
        quarantined: Some("two results".into()),
        profile: ProfileId(7),
        failures: vec![failure],
    }
}

/// A record of each kind.
fn audit_page() -> AuditPage {
    let by = AuditActor {
        tenant: "shop".into(),
        name: "team".into(),
        certificate: true,
        scope: Scope::TenantAdmin,
        from: "127.0.0.1:40000".into(),
    };
    let command = AuditCommand {
        by,
        tenant: "shop".into(),
        verb: "bucket set".into(),
        object: "cart".into(),
        detail: "version 3".into(),
        before: Some([7; 32]),
    };
    let refused = AuditOutcome::Refused { code: ErrorCode::VersionConflict, why: "it is at version 4".into() };
    let done = AuditOutcome::Done { after: Some([8; 32]) };
    let ended = [refused, done, AuditOutcome::Unanswered].map(|outcome| AuditEvent::Ended { asked: 813, outcome });
    let denied = AuditEvent::Denied { command: command.clone(), why: "may not".into(), times: 3 };
    let events = [AuditEvent::Asked(command), denied].into_iter().chain(ended);
    let mut head = AuditHead { first: 813, before: [1; 32], last: 812, hash: [1; 32] };
    let record = |event| {
        let entry = codec::encode(&AuditEntry { at_ms: 1_767_225_600_000, event });
        let (number, hash) = (head.last + 1, audit::link(&head.hash, head.last + 1, &entry));
        (head.last, head.hash) = (number, hash);
        AuditRecord { number, hash, entry: entry.into() }
    };
    let records = events.map(record).collect();
    let (broken, notes) = (Some("cut off".into()), vec!["record 3 was removed".into()]);
    AuditPage { node: name("n1"), head, records, broken, next: Some(900), notes }
}
