//! Catalog messages from a lying peer: invalid records are refused, and honest nodes still agree afterwards.

use std::collections::{BTreeSet, VecDeque};

use rejoin_core::control::{
    CHANGE_WAIT_US, Catalog, CatalogChange, CatalogEffect, CatalogEvent, Control, TokenChange, Wait,
};
use rejoin_proto::access::{Grant, Scope};
use rejoin_proto::catalog::{BucketProps, Record, RecordBody, RecordKey};
use rejoin_proto::peer::{PeerBody, PeerEnvelope};
use rejoin_proto::quota::{Limit, Quota};
use rejoin_proto::{Hlc, LayoutRef, Name, NodeId, PluginDigest, TenantId, codec};
use rejoin_test_fuzz::corpus;

use crate::fuzz;

/// Places of the nodes: two honest ones, and one that says what the input makes it say.
const LIAR: u64 = 2;

#[derive(Default)]
struct Nodes {
    all: Vec<Control>,
    wire: VecDeque<(u64, u64, PeerBody)>,
    now_us: u64,
    waiting: BTreeSet<u64>,
}

impl Nodes {
    fn event(&mut self, to: u64, event: CatalogEvent) {
        let mut effects = Vec::new();
        self.all[to as usize].handle(self.now_us, 1_000, event, &mut effects);
        if effects.last() == Some(&CatalogEffect::Save) {
            self.all[to as usize].handle(self.now_us, 1_000, CatalogEvent::Saved(Ok(())), &mut effects);
        }
        for effect in effects {
            match effect {
                CatalogEffect::Send(peer, body) if peer.0 < LIAR => self.wire.push_back((to, peer.0, body)),
                CatalogEffect::Send(..)
                | CatalogEffect::Save
                | CatalogEffect::Changed
                | CatalogEffect::CaughtUp(_)
                | CatalogEffect::Overruled { .. } => {}
                CatalogEffect::Answer(call, _) => assert!(self.waiting.remove(&call), "a change is answered once"),
            }
        }
    }

    fn connect(&mut self, digest_of: [u64; 2]) {
        self.event(0, CatalogEvent::PeerUp(NodeId(1), digest_of[1]));
        self.event(1, CatalogEvent::PeerUp(NodeId(0), digest_of[0]));
    }

    /// Delivers everything between the honest ones; `most` messages have to be enough.
    fn settle(&mut self, most: usize) {
        for _ in 0..most {
            let Some((from, to, body)) = self.wire.pop_front() else { return };
            self.event(to, CatalogEvent::Peer(NodeId(from), body));
        }
        panic!("two nodes never stop talking");
    }
}

/// Each line of an input is a length and so many bytes: what happens, and to whom.
fn lines(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (line, rest) = rest.split_at(usize::from(length).min(rest.len()));
        lines.push(line);
        bytes = rest;
    }
    lines
}

fn property(bytes: &[u8]) {
    let mut nodes =
        Nodes { all: vec![Control::new(Catalog::default()), Control::new(Catalog::default())], ..Nodes::default() };
    nodes.event(0, CatalogEvent::PeerUp(NodeId(LIAR), 7));
    for (call, line) in lines(bytes).into_iter().enumerate() {
        let Some((&what, line)) = line.split_first() else { continue };
        let to = u64::from(what % 2);
        match what / 2 % 5 {
            0 | 1 => {
                let Ok(PeerEnvelope { body, .. }) = codec::decode(line) else { continue };
                nodes.event(to, CatalogEvent::Peer(NodeId(LIAR), body));
            }
            2 => {
                nodes.waiting.insert(call as u64);
                nodes.event(
                    to,
                    CatalogEvent::Change(call as u64, change(line), Wait { all: BTreeSet::new(), until_us: 0 }),
                );
            }
            3 => {
                nodes.event(to, CatalogEvent::PeerDown(NodeId(LIAR)));
                nodes.event(to, CatalogEvent::PeerUp(NodeId(LIAR), 8));
            }
            _ => {
                nodes.now_us += CHANGE_WAIT_US;
                nodes.event(to, CatalogEvent::Tick);
            }
        }
    }
    nodes.now_us += CHANGE_WAIT_US;
    (0..2).for_each(|at| nodes.event(at, CatalogEvent::Tick));
    assert!(nodes.waiting.is_empty(), "every change is answered in the end");
    nodes.wire.clear();
    let digests = [nodes.all[0].digest(), nodes.all[1].digest()];
    nodes.connect(digests);
    nodes.settle(20);
    assert_eq!(nodes.all[0].catalog(), nodes.all[1].catalog(), "who compares agrees");
    assert_eq!(nodes.all[0].digest(), nodes.all[1].digest());
    let kept = nodes.all[0].catalog();
    kept.records.iter().for_each(is_sound);
    assert!(kept.records.windows(2).all(|pair| pair[0].key < pair[1].key), "one record a key");
    assert_eq!(codec::decode::<Catalog>(&codec::encode(&kept)).as_ref(), Ok(&kept), "what is kept can be read");
    assert_eq!(Control::new(kept).digest(), nodes.all[0].digest());
}

fn change(line: &[u8]) -> CatalogChange {
    let (which, version) = (line.first().copied().unwrap_or(0), u64::from(line.get(1).copied().unwrap_or(0)));
    let name = Name::new(format!("x{}", which / 8 % 4)).unwrap();
    let tenant = TenantId::from_name(&name);
    let props = BucketProps { siblings: u16::from(line.get(2).copied().unwrap_or(9)), ..BucketProps::default() };
    let token = |change| CatalogChange::Token(tenant, name.clone(), Scope::ALL[usize::from(which / 32) % 5], change);
    match which % 13 {
        0 => CatalogChange::BucketCreate(tenant, name, props),
        1 => CatalogChange::BucketSet(tenant, name, version, props),
        2 => token(TokenChange::Create(Grant::of(Scope::ALL[version as usize % 5]), [which; 32])),
        3 => token(TokenChange::Revoke),
        5 => token(TokenChange::Bar),
        7 => CatalogChange::BucketDelete(tenant, name, version),
        8 => CatalogChange::BucketRestore(tenant, name),
        9 => CatalogChange::TenantDelete(name, version),
        10 => CatalogChange::TenantRestore(name),
        11 if version % 2 == 0 => CatalogChange::PluginRestore(tenant, PluginDigest([which; 32])),
        11 => CatalogChange::PluginDelete(tenant, PluginDigest([which; 32]), version),
        12 => CatalogChange::QuotaSet(
            tenant,
            (version > 9).then_some(name),
            Box::new(Quota::default().with(Limit::Bytes, version)),
        ),
        4 => token(TokenChange::Rotate([which; 32], version)),
        _ => CatalogChange::TenantCreate(name),
    }
}

/// A record that a node may hold: its key and its body belong together, and its properties and
/// its version are within their bounds.
fn is_sound(record: &Record) {
    let fits = match (&record.key, &record.body) {
        (RecordKey::Tenant(id), RecordBody::Tenant { name } | RecordBody::DeletedTenant { name, .. }) => {
            (0..=32).any(|incarnation| *id == TenantId::of_incarnation(name, incarnation))
        }
        (RecordKey::Quota(..), RecordBody::Quota(_)) => true,
        (RecordKey::Signers(_), RecordBody::Signers(keys)) => keys.len() <= 16,
        (
            RecordKey::Bucket(..),
            RecordBody::Bucket { id, props, past } | RecordBody::DeletedBucket { id, props, past, .. },
        ) => {
            (1..=5).contains(&props.n)
                && (2..=256).contains(&props.siblings)
                && (1..=16 << 20).contains(&props.value_bytes)
                && past.buckets.len() <= 32
                && past.plugins.len() <= 100
                && !past.buckets.contains(id)
        }
        (RecordKey::Plugin(..), RecordBody::Plugin(plugin) | RecordBody::DeletedPlugin { plugin, .. }) => {
            let builder = plugin.provenance.as_ref().and_then(|provenance| provenance.builder.as_ref());
            plugin.version.len() <= 64
                && plugin.quarantined.as_ref().is_none_or(|why| why.len() <= 512)
                && plugin.transcripts.len() <= 4
                && builder.is_none_or(|builder| builder.len() <= 256)
        }
        (RecordKey::Token(..), RecordBody::Token { grant, revoked, barred, .. }) => {
            grant.check().is_ok() && (*revoked || !barred)
        }
        _ => false,
    };
    assert!(fits && record.version > 0 && record.version < u64::MAX / 2, "{record:?}");
}

#[test]
fn catalogs() {
    let line = |what: u8, bytes: &[u8]| [&[bytes.len() as u8 + 1, what], bytes].concat();
    let said = corpus::fixtures(&["peer-catalog"]);
    let mut seeds: Vec<Vec<u8>> = said.iter().map(|bytes| line(0, bytes)).collect();
    seeds.push(said.iter().enumerate().flat_map(|(at, bytes)| line(at as u8 % 2, bytes)).collect());
    let changes = [
        line(4, &[0, 0, 9]),
        line(5, &[8, 0, 9]),
        line(4, &[1, 1, 12]),
        line(4, &[2]),
        line(5, &[3]),
        line(8, &[]),
        line(6, &[]),
    ];
    seeds.push(changes.concat());
    seeds.push([changes.concat(), line(1, &said[0])].concat());
    // The name is one that changes are about, and the version the last there is.
    let grant = Grant::of(Scope::ReadWrite);
    let body = RecordBody::Token { grant, secret_hash: [0; 32], before: None, revoked: false, barred: false };
    let name = Name::new("x0").unwrap();
    let last =
        Record { key: RecordKey::Token(TenantId::from_name(&name), name), version: u64::MAX, stamp: Hlc(1), body };
    let body = PeerBody::CatalogRecords { number: 0, records: vec![last] };
    let said = codec::encode(&PeerEnvelope { layout: LayoutRef::default(), trace: 0, body });
    seeds.push([line(0, &said), line(4, &[3])].concat());
    fuzz("catalogs", seeds, property);
}
