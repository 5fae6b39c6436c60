//! The catalog: small records of tenants, buckets, tokens and plugins that every node holds.
//!
//! [`Control`] owns the records of one node. It decides which changes are good, sends them to the other nodes, compares
//! catalogs on every connect, and resolves races. It never reads a file or a clock: the shell saves the catalog when
//! asked to, and tells what came of it.
//!
//! A change is compare-and-set on a record's version. Of two changes that race, the record with the larger (version,
//! hash) wins on every node; nothing is deleted because of it, and an operator whose change has lost is told so. There
//! is no leader: a node that was away learns what it missed when it connects. A node passes on what it learns, so a
//! change also reaches the nodes that its maker does not. A change is answered when every connected node has saved it,
//! or after [`CHANGE_WAIT_US`]; the answer names the nodes that have.
//!
//! A full disk does not stop the catalog. Records of other nodes hold in memory, are saved again every
//! [`SAVE_AGAIN_US`], and are not reported as taken until then. A change that was asked for here is refused and undone.
//!
//! In reading order: [`CatalogEvent`], [`CatalogEffect`], [`Control::handle`], `decide` (is a change good), `learn`
//! (records of others), `race` (what becomes of the loser).

mod decide;
mod deletions;
mod quotas;
mod race;
mod signers;
mod tokens;
mod transcripts;
mod trials;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use deletions::open_deletion;
use serde::{Deserialize, Serialize};

use rejoin_proto::access::Scope;
use rejoin_proto::catalog::{
    BucketProps, MAX_QUARANTINE_BYTES, MAX_TRANSCRIPTS, PluginRecord, Record, RecordBody, RecordKey, Transcript,
};
use rejoin_proto::client::RecordKind;
use rejoin_proto::codec::{self, Versioned};
use rejoin_proto::peer::PeerBody;
use rejoin_proto::quota::Quota;
use rejoin_proto::signing::{MAX_SIGNERS, SignerChange};
use rejoin_proto::{ErrorReply, Name, NodeId, PluginDigest, TenantId};

pub use tokens::TokenChange;
pub use transcripts::transcribed_record;

use crate::tenants::incarnation_of;

/// How long the answer to a change waits for the other nodes at most, in microseconds.
pub const CHANGE_WAIT_US: u64 = 2_000_000;
/// The pause after a failed save, in microseconds.
pub const SAVE_AGAIN_US: u64 = 1_000_000;
/// The most messages per peer that are reported as taken once the catalog can be saved. Any more are reported at the
/// peer's next connect.
const MAX_UNTAKEN: usize = 1024;
/// The most refused records that are remembered. Beyond that a start waits for its peers in vain, as long as it may.
const MAX_REFUSED: usize = 1024;
/// The most records that a catalog holds.
pub const MAX_RECORDS: usize = 100_000;

/// The last version of a record. No honest catalog gets there. A higher one is not taken from another node, because it
/// could never be changed again.
const MAX_VERSION: u64 = 1 << 48;
/// The bytes of records after which a message is full: a large catalog must fit the frames and queues of control
/// messages.
const PART_BYTES: usize = 4 << 20;

/// A catalog as it is saved.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Catalog {
    /// All records, ordered by key.
    pub records: Vec<Record>,
}

impl Versioned for Catalog {
    const VERSION: u8 = 1;
    const WHAT: &'static str = "catalog";
}

/// A change that an operator wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogChange {
    /// A new bucket.
    BucketCreate(TenantId, Name, BucketProps),
    /// New properties of a bucket, if its record is still at that version. They are given with its copies as they are
    /// now; those are not changed by it.
    BucketSet(TenantId, Name, u64, BucketProps),
    /// A change of a tenant's token, asked for with a token of that scope.
    Token(TenantId, Name, Scope, TokenChange),
    /// A tenant's plugin whose component this node has checked and stored.
    PluginAdd(TenantId, PluginDigest, Box<PluginRecord>),
    /// A plugin's merges are not to be run any more, with the reason.
    PluginQuarantine(TenantId, PluginDigest, String),
    /// A plugin is not quarantined any more, and its transcripts are forgotten: nodes record them anew.
    PluginRelease(TenantId, PluginDigest),
    /// A tenant.
    TenantCreate(Name),
    /// A tenant is disabled, and reaped after so many milliseconds.
    TenantDelete(Name, u64),
    /// A tenant that was deleted and is not reaped comes back.
    TenantRestore(Name),
    /// A bucket is disabled, and reaped after so many milliseconds.
    BucketDelete(TenantId, Name, u64),
    /// A bucket that was deleted and is not reaped comes back.
    BucketRestore(TenantId, Name),
    /// The quota of a tenant, or of one of its buckets.
    QuotaSet(TenantId, Option<Name>, Box<Quota>),
    /// A plugin that no bucket uses is not offered any more, and reaped after so many milliseconds.
    PluginDelete(TenantId, PluginDigest, u64),
    /// A plugin that was deleted and is not reaped comes back.
    PluginRestore(TenantId, PluginDigest),
    /// What a plugin has answered here, for nodes with the same engine. One that is recorded already stays.
    PluginTranscript(TenantId, PluginDigest, Transcript),
    /// Who may sign a tenant's plugins.
    SignersSet(TenantId, SignerChange),
}

/// The other nodes that the answer to a change waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// All other nodes. A change of a bucket's quorums waits for them, connected or not: while some nodes have the old
    /// r and w, a read by one need not meet a write by another. Every other change waits for those that are connected.
    pub all: BTreeSet<NodeId>,
    /// Until when a change waits for all. For the connected ones it waits [`CHANGE_WAIT_US`] at most.
    pub until_us: u64,
}

/// What happens to the control machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogEvent {
    /// A peer is connected, with the digest of its catalog.
    PeerUp(NodeId, u64),
    /// A peer's connection is lost.
    PeerDown(NodeId),
    /// A peer is ready, with the digest of its catalog: everything it had to say about its catalog has come before.
    PeerReady(NodeId, u64),
    /// A message of another node. Those that are not about the catalog are ignored.
    Peer(NodeId, PeerBody),
    /// An operator's change. The number is the shell's name for it.
    Change(u64, CatalogChange, Wait),
    /// The answer to [`CatalogEffect::Save`], and always the next event after it. An error means that there was no
    /// room, and that nothing else is wrong: it is what the operator is told whose change is refused for it.
    Saved(Result<(), ErrorReply>),
    /// Time has passed; due at [`Control::next_wake_us`].
    Tick,
}

/// What the control machine wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogEffect {
    /// Save the catalog durably, then tell [`CatalogEvent::Saved`] before any other event. It is the last effect of its
    /// call.
    Save,
    /// The catalog has changed: make new views of it, and fetch the modules that are missing.
    Changed,
    /// A message to another node.
    Send(NodeId, PeerBody),
    /// The answer to a change.
    Answer(u64, Result<Published, ErrorReply>),
    /// This catalog has every record that the peer had when it became ready.
    CaughtUp(NodeId),
    /// A bucket or token has lost its name to another one. For the log.
    Overruled {
        /// The record that has lost.
        lost: Record,
        /// The name under which the bucket is kept.
        kept: Option<Name>,
    },
}

/// The answer to a change that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The record that it made.
    pub record: Record,
    /// The other nodes that have saved it.
    pub taken_by: BTreeSet<NodeId>,
}

/// What is known of a peer's catalog since it connected.
#[derive(Debug, Default)]
struct PeerCatalog {
    ready: bool,
    /// The records of its summary that are newer there than here; `None` until a summary has come.
    lacking: Option<BTreeMap<RecordKey, (u64, u64)>>,
}

/// The purpose of a save that is under way.
#[derive(Debug)]
enum PendingSave {
    /// A change that was asked for here. It is published when it is saved, and undone if it cannot be.
    Change { call: u64, record: Box<Record>, before: Option<Box<Record>>, wait: Wait },
    /// Records of a peer: the effects that follow in any case, and the message to report as taken if they are saved.
    Learnt { effects: Vec<CatalogEffect>, taken: Option<(NodeId, u64)> },
    /// An earlier save had failed.
    Again,
}

/// A catalog that could not be saved.
#[derive(Debug)]
struct FailedSave {
    again_at_us: u64,
    /// The messages to report as taken once it is saved.
    untaken: BTreeMap<NodeId, Vec<u64>>,
}

#[derive(Debug)]
struct PendingChange {
    call: u64,
    record: Record,
    waiting: BTreeSet<NodeId>,
    /// It also waits for nodes that are not connected.
    for_all: bool,
    taken_by: BTreeSet<NodeId>,
    until_us: u64,
}

/// The catalog of one node.
#[derive(Debug)]
pub struct Control {
    records: BTreeMap<RecordKey, Record>,
    up: BTreeSet<NodeId>,
    /// The peers that were sent this node's summary since they connected. Once is enough: an answer to every answer
    /// would never end.
    summarised: BTreeSet<NodeId>,
    pending: BTreeMap<u64, PendingChange>,
    /// The records that a peer still lacks, and the number of the message that it must take before the next.
    sending: BTreeMap<NodeId, (u64, VecDeque<RecordKey>)>,
    /// Peers whose catalog this one does not contain yet, as far as is known.
    peers: BTreeMap<NodeId, PeerCatalog>,
    saving: Option<PendingSave>,
    failed_save: Option<FailedSave>,
    /// Records of peers that this catalog does not take, with their ranks: it does not wait for them.
    refused: BTreeMap<RecordKey, (u64, u64)>,
    next_number: u64,
    /// When to look whether something deleted is to be reaped.
    reap_at_us: Option<u64>,
}

impl Control {
    /// The machine of a node that starts with this catalog.
    #[must_use]
    pub fn new(kept: Catalog) -> Self {
        let reap_at_us = kept.records.iter().any(|record| open_deletion(&record.body).is_some()).then_some(0);
        let records = kept.records.into_iter().map(|record| (record.key.clone(), record)).collect();
        let (up, summarised) = (BTreeSet::new(), BTreeSet::new());
        let (pending, sending, peers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            records,
            up,
            summarised,
            pending,
            sending,
            peers,
            saving: None,
            failed_save: None,
            refused: BTreeMap::new(),
            next_number: 1,
            reap_at_us,
        }
    }

    /// The catalog to be saved.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        Catalog { records: self.records.values().cloned().collect() }
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> + Clone + '_ {
        self.records.values()
    }

    /// The record under a key.
    #[must_use]
    pub fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.records.get(key)
    }

    /// A tenant's records of a kind, or all tenants.
    #[must_use]
    pub fn list(&self, kind: RecordKind, tenant: TenantId) -> Vec<Record> {
        let wanted = |record: &&Record| match (&record.key, kind) {
            (RecordKey::Tenant(_), RecordKind::Tenant) => true,
            (RecordKey::Plugin(owner, _), RecordKind::Plugin)
            | (RecordKey::Token(owner, _), RecordKind::Token)
            | (RecordKey::Quota(owner, _), RecordKind::Quota)
            | (RecordKey::Signers(owner), RecordKind::Signers)
            | (RecordKey::Bucket(owner, _), RecordKind::Bucket) => *owner == tenant,
            _ => false,
        };
        self.records.values().filter(wanted).cloned().collect()
    }

    /// A digest of everything: equal catalogs have equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for record in self.records.values() {
            let (version, content) = record.rank();
            for word in [version, content] {
                hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
            }
        }
        hash
    }

    /// When an [`CatalogEvent::Tick`] is due, in microseconds.
    #[must_use]
    pub fn next_wake_us(&self) -> Option<u64> {
        let again = self.failed_save.as_ref().map(|save| save.again_at_us);
        self.pending.values().map(|pending| pending.until_us).chain(again).chain(self.reap_at_us).min()
    }

    /// Handles one event at a time: `now_us` of a clock that never goes back, `wall_ms` for the stamps of records.
    pub fn handle(&mut self, now_us: u64, wall_ms: u64, event: CatalogEvent, effects: &mut Vec<CatalogEffect>) {
        debug_assert_eq!(
            self.saving.is_some(),
            matches!(event, CatalogEvent::Saved(_)),
            "a save is answered before anything else"
        );
        match event {
            CatalogEvent::PeerUp(peer, digest) => {
                self.up.insert(peer);
                self.summarised.remove(&peer);
                self.sending.remove(&peer);
                self.peers.insert(peer, PeerCatalog::default());
                if digest != self.digest() {
                    self.summarise(peer, effects);
                }
                // Changes that wait for the peer are sent again under their numbers, so that it reports them as taken.
                for (&number, pending) in self.pending.iter().filter(|(_, pending)| pending.waiting.contains(&peer)) {
                    let records = alloc::vec![pending.record.clone()];
                    effects.push(CatalogEffect::Send(peer, PeerBody::CatalogRecords { number, records }));
                }
            }
            CatalogEvent::PeerDown(peer) => {
                self.up.remove(&peer);
                self.summarised.remove(&peer);
                self.sending.remove(&peer);
                self.peers.remove(&peer);
                if let Some(save) = &mut self.failed_save {
                    save.untaken.remove(&peer);
                }
                self.taken(peer, None, effects);
            }
            CatalogEvent::Peer(peer, PeerBody::CatalogSummary(summary)) => {
                let lacking = self.missing_from(&summary);
                if !lacking.is_empty() {
                    self.send_part(peer, lacking, effects);
                }
                let newer = self.newer_in(&summary);
                if let Some(catalog) = self.peers.get_mut(&peer) {
                    catalog.lacking = Some(newer);
                }
                // The peer waits for this node's summary. None was sent if the digests were equal at the hello.
                self.summarise(peer, effects);
                self.agree(effects);
            }
            CatalogEvent::PeerReady(peer, digest) => self.peer_ready(peer, digest, effects),
            CatalogEvent::Peer(peer, PeerBody::CatalogRecords { number, records }) => {
                self.learn(peer, number, records, effects)
            }
            CatalogEvent::Peer(peer, PeerBody::CatalogTaken { number }) => {
                if self.sending.get(&peer).is_some_and(|(awaited, _)| *awaited == number)
                    && let Some((_, lacking)) = self.sending.remove(&peer)
                {
                    self.send_part(peer, lacking, effects);
                }
                self.taken(peer, Some(number), effects);
            }
            CatalogEvent::Peer(..) => {}
            CatalogEvent::Change(call, change, wait) => match self.decide(wall_ms, change) {
                Ok(record) => {
                    let before = self.records.insert(record.key.clone(), record.clone());
                    self.save(
                        PendingSave::Change { call, record: Box::new(record), before: before.map(Box::new), wait },
                        effects,
                    );
                }
                Err(error) => effects.push(CatalogEffect::Answer(call, Err(error))),
            },
            CatalogEvent::Tick => {
                let late: Vec<u64> =
                    self.pending.iter().filter(|(_, s)| s.until_us <= now_us).map(|(&number, _)| number).collect();
                late.into_iter().for_each(|number| self.answer(number, effects));
                if self.failed_save.as_ref().is_some_and(|save| save.again_at_us <= now_us) {
                    self.save(PendingSave::Again, effects);
                } else if self.reap_at_us.is_some_and(|at_us| at_us <= now_us) {
                    self.reap(now_us, wall_ms, effects);
                }
            }
            CatalogEvent::Saved(Ok(())) => {
                // The records have changed: something may be to be reaped sooner, or not any more.
                self.reap_at_us = self.next_reap_us(now_us, wall_ms);
                self.saved(now_us, effects);
            }
            CatalogEvent::Saved(Err(error)) => self.not_saved(now_us, error, effects),
        }
    }

    fn save(&mut self, saving: PendingSave, effects: &mut Vec<CatalogEffect>) {
        self.saving = Some(saving);
        effects.push(CatalogEffect::Save);
    }

    fn saved(&mut self, now_us: u64, effects: &mut Vec<CatalogEffect>) {
        for (peer, numbers) in self.failed_save.take().map(|save| save.untaken).unwrap_or_default() {
            effects
                .extend(numbers.into_iter().map(|number| CatalogEffect::Send(peer, PeerBody::CatalogTaken { number })));
        }
        match self.saving.take() {
            Some(PendingSave::Change { call, record, before, wait }) => {
                let for_all = before.is_some_and(|before| moves_quorums(&before, &record));
                let (waiting, until_us) = match for_all {
                    true => (wait.all, wait.until_us),
                    false => (self.up.clone(), now_us + CHANGE_WAIT_US),
                };
                let taken_by = BTreeSet::new();
                self.publish(PendingChange { call, record: *record, waiting, for_all, taken_by, until_us }, effects);
            }
            Some(PendingSave::Learnt { effects: behind, taken }) => {
                effects.extend(behind);
                effects
                    .extend(taken.map(|(peer, number)| CatalogEffect::Send(peer, PeerBody::CatalogTaken { number })));
            }
            Some(PendingSave::Again) | None => {}
        }
    }

    fn not_saved(&mut self, now_us: u64, error: ErrorReply, effects: &mut Vec<CatalogEffect>) {
        match self.saving.take() {
            Some(PendingSave::Change { call, record, before, .. }) => {
                // Rule: unsaved changes are undone. Nobody has seen it yet.
                match before {
                    Some(before) => self.records.insert(record.key, *before),
                    None => self.records.remove(&record.key),
                };
                effects.push(CatalogEffect::Answer(call, Err(error)));
            }
            // The records of peers hold here too, above all the end of a token. But a restart may forget them, so they
            // are not reported as taken.
            Some(PendingSave::Learnt { effects: behind, taken }) => {
                self.save_again(now_us);
                effects.extend(behind);
                taken.into_iter().for_each(|(peer, number)| self.untaken(peer, number));
            }
            Some(PendingSave::Again) | None => self.save_again(now_us),
        }
    }

    fn save_again(&mut self, now_us: u64) {
        let again_at_us = now_us + SAVE_AGAIN_US;
        self.failed_save.get_or_insert_with(|| FailedSave { again_at_us, untaken: BTreeMap::new() }).again_at_us =
            again_at_us;
    }

    /// A message is reported as taken when the catalog is saved.
    fn untaken(&mut self, peer: NodeId, number: u64) {
        let Some(save) = &mut self.failed_save else { return };
        let numbers = save.untaken.entry(peer).or_default();
        if numbers.len() < MAX_UNTAKEN {
            numbers.push(number);
        }
    }

    fn summarise(&mut self, peer: NodeId, effects: &mut Vec<CatalogEffect>) {
        if self.summarised.insert(peer) {
            effects.push(CatalogEffect::Send(peer, PeerBody::CatalogSummary(self.summary())));
        }
    }

    /// The records of a summary that are newer there than here, or not here.
    fn newer_in(&self, summary: &[(RecordKey, u64, u64)]) -> BTreeMap<RecordKey, (u64, u64)> {
        let newer = |(key, version, hash): &&(RecordKey, u64, u64)| self.is_older(key, (*version, *hash));
        summary.iter().filter(newer).map(|(key, version, hash)| (key.clone(), (*version, *hash))).collect()
    }

    fn is_older(&self, key: &RecordKey, rank: (u64, u64)) -> bool {
        self.records.get(key).is_none_or(|known| known.rank() < rank) && self.refused.get(key) != Some(&rank)
    }

    fn peer_ready(&mut self, peer: NodeId, digest: u64, effects: &mut Vec<CatalogEffect>) {
        let equal = digest == self.digest();
        let Some(catalog) = self.peers.get_mut(&peer) else { return };
        catalog.ready = true;
        if equal {
            catalog.lacking = Some(BTreeMap::new());
        } else if catalog.lacking.is_none() {
            // The catalogs were equal at the hello and are not any more. The peer answers a summary with its own.
            self.summarise(peer, effects);
        }
        self.agree(effects);
    }

    /// Reports the peers whose catalog this one now contains.
    fn agree(&mut self, effects: &mut Vec<CatalogEffect>) {
        let mut peers = core::mem::take(&mut self.peers);
        for (peer, of) in &mut peers {
            if let Some(lacking) = &mut of.lacking {
                lacking.retain(|key, rank| self.is_older(key, *rank));
                if of.ready && lacking.is_empty() {
                    effects.push(CatalogEffect::CaughtUp(*peer));
                }
            }
        }
        peers.retain(|_, of| !(of.ready && of.lacking.as_ref().is_some_and(BTreeMap::is_empty)));
        self.peers = peers;
    }

    fn summary(&self) -> Vec<(RecordKey, u64, u64)> {
        let line = |record: &Record| {
            let (version, hash) = record.rank();
            (record.key.clone(), version, hash)
        };
        self.records.values().map(line).collect()
    }

    /// Sends a peer records that it lacks, as many as fit a message. The next ones follow when these are taken, so that
    /// one message at a time waits for the peer, however large the catalog is.
    fn send_part(&mut self, peer: NodeId, mut lacking: VecDeque<RecordKey>, effects: &mut Vec<CatalogEffect>) {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(key) = lacking.pop_front()
        {
            let record = self.records.get(&key).cloned();
            bytes += record.as_ref().map_or(0, |record| codec::encode(record).len());
            records.extend(record);
        }
        let number = if lacking.is_empty() { 0 } else { self.number() };
        if number != 0 {
            self.sending.insert(peer, (number, lacking));
        }
        effects.push(CatalogEffect::Send(peer, PeerBody::CatalogRecords { number, records }));
    }

    /// Sends what was learnt from a peer to all others: they may not be connected to the node that made it. Those that
    /// have it learn nothing and pass nothing on.
    fn pass_on(&mut self, from: NodeId, learnt: &VecDeque<RecordKey>, effects: &mut Vec<CatalogEffect>) {
        let others: Vec<NodeId> = self.up.iter().copied().filter(|other| *other != from).collect();
        for other in others {
            // Rule: learnt records are passed on.
            let learnt = learnt.clone();
            match self.sending.get_mut(&other) {
                // Behind the part that it has not taken yet.
                Some((_, lacking)) => lacking.extend(learnt),
                None if learnt.is_empty() => {}
                None => self.send_part(other, learnt, effects),
            }
        }
    }

    /// The next number that an answer can name.
    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// The records that are newer here than in a summary, or not in it.
    fn missing_from(&self, summary: &[(RecordKey, u64, u64)]) -> VecDeque<RecordKey> {
        let theirs: BTreeMap<&RecordKey, (u64, u64)> =
            summary.iter().map(|(key, version, hash)| (key, (*version, *hash))).collect();
        let newer = |record: &&Record| theirs.get(&record.key).is_none_or(|rank| *rank < record.rank());
        self.records.values().filter(newer).map(|record| record.key.clone()).collect()
    }

    fn learn(&mut self, peer: NodeId, number: u64, records: Vec<Record>, effects: &mut Vec<CatalogEffect>) {
        let (mut changed, mut better, mut kept, mut learnt) = (false, Vec::new(), Vec::new(), VecDeque::new());
        let (is_alone, mut refused) = (records.len() == 1, Vec::new());
        for record in records {
            match self.records.get(&record.key).cloned() {
                _ if !is_sound(&record) => refused.push(record),
                None if self.records.len() >= MAX_RECORDS => refused.push(record),
                Some(known) if known.rank() == record.rank() => {}
                // Rule: races renumber no bucket.
                Some(known) if race::renumbers(&known, &record) => refused.push(record),
                Some(known) if known.rank() > record.rank() => {
                    kept.extend(self.keep_loser(record, &known, effects));
                    better.push(known);
                }
                known => {
                    self.records.insert(record.key.clone(), record.clone());
                    changed = true;
                    if let Some(known) = known {
                        kept.extend(self.keep_loser(known.clone(), &record, effects));
                    }
                    learnt.push_back(record.key);
                }
            }
        }
        changed |= !kept.is_empty();
        // A change that is refused here is not reported as taken. A part of a catalog is, or the next one would not
        // follow.
        let number = if is_alone && !refused.is_empty() { 0 } else { number };
        let mut behind = Vec::new();
        if !refused.is_empty() {
            self.refuse(refused);
            self.agree(&mut behind);
        }
        if changed {
            behind.push(CatalogEffect::Changed);
            self.overrule(&mut behind);
            self.agree(&mut behind);
        }
        self.pass_on(peer, &learnt, &mut behind);
        if !kept.is_empty() {
            let records = |_| PeerBody::CatalogRecords { number: 0, records: kept.clone() };
            behind.extend(self.up.iter().map(|&peer| CatalogEffect::Send(peer, records(peer))));
        }
        if number != 0 && !better.is_empty() {
            // Before the report that its records were taken: the peer's operator waits for that, and must learn first
            // that the change has lost.
            behind.push(CatalogEffect::Send(peer, PeerBody::CatalogRecords { number: 0, records: better }));
        }
        let taken = (number != 0).then_some((peer, number));
        if changed {
            return self.save(PendingSave::Learnt { effects: behind, taken }, effects);
        }
        effects.extend(behind);
        match taken {
            // Rule: unsaved records are not taken. They may be among those that could not be saved.
            Some((peer, number)) if self.failed_save.is_some() => self.untaken(peer, number),
            Some((peer, number)) => effects.push(CatalogEffect::Send(peer, PeerBody::CatalogTaken { number })),
            None => {}
        }
    }

    fn refuse(&mut self, records: Vec<Record>) {
        if self.refused.len() + records.len() > MAX_REFUSED {
            self.refused.clear();
        }
        self.refused.extend(records.into_iter().take(MAX_REFUSED).map(|record| (record.key.clone(), record.rank())));
    }

    /// Keeps a bucket that has lost its name under another one. Returns the record that does, if the catalog did not
    /// have it.
    fn keep_loser(&mut self, loser: Record, winner: &Record, effects: &mut Vec<CatalogEffect>) -> Option<Record> {
        if !race::are_rivals(&loser, winner) {
            return None;
        }
        let Some((name, record)) = race::kept(&loser) else {
            effects.push(CatalogEffect::Overruled { lost: loser, kept: None });
            return None;
        };
        let known = self.records.get(&record.key);
        let (room, newer) = (self.records.len() < MAX_RECORDS, known.is_none_or(|known| known.rank() < record.rank()));
        if !newer || (known.is_none() && !room) {
            return None;
        }
        effects.push(CatalogEffect::Overruled { lost: loser, kept: Some(name) });
        self.records.insert(record.key.clone(), record.clone());
        Some(record)
    }

    /// Refuses the pending changes that have lost.
    fn overrule(&mut self, effects: &mut Vec<CatalogEffect>) {
        let records = &self.records;
        self.pending.retain(|_, pending| {
            let Some(now) = records.get(&pending.record.key).filter(|now| race::has_lost(&pending.record, now)) else {
                return true;
            };
            effects.push(CatalogEffect::Answer(pending.call, Err(race::refusal(&pending.record, now))));
            false
        });
    }

    fn publish(&mut self, pending: PendingChange, effects: &mut Vec<CatalogEffect>) {
        let number = self.number();
        effects.push(CatalogEffect::Changed);
        for &peer in &self.up {
            let records = alloc::vec![pending.record.clone()];
            effects.push(CatalogEffect::Send(peer, PeerBody::CatalogRecords { number, records }));
        }
        let waits = !pending.waiting.is_empty();
        self.pending.insert(number, pending);
        if !waits {
            self.answer(number, effects);
        }
    }

    /// A peer has saved one pending change, or (`None`) is gone and will save none.
    fn taken(&mut self, peer: NodeId, number: Option<u64>, effects: &mut Vec<CatalogEffect>) {
        let mut done = Vec::new();
        for (&at, pending) in &mut self.pending {
            let concerns = number.map_or(!pending.for_all, |number| number == at);
            if concerns && pending.waiting.remove(&peer) {
                pending.taken_by.extend(number.map(|_| peer));
                done.extend(pending.waiting.is_empty().then_some(at));
            }
        }
        done.into_iter().for_each(|number| self.answer(number, effects));
    }

    fn answer(&mut self, number: u64, effects: &mut Vec<CatalogEffect>) {
        if let Some(PendingChange { call, record, taken_by, .. }) = self.pending.remove(&number) {
            // Another node may have made the same at the same time; then it is that one's record that stays.
            let same = self.records.get(&record.key).filter(|now| now.version == record.version).cloned();
            effects.push(CatalogEffect::Answer(call, Ok(Published { record: same.unwrap_or(record), taken_by })));
        }
    }
}

/// Whether a change of a bucket moves one of its quorums.
fn moves_quorums(before: &Record, after: &Record) -> bool {
    let quorums = |props: &BucketProps| (props.r, props.w, props.pr, props.pw);
    match (&before.body, &after.body) {
        (RecordBody::Bucket { props, .. }, RecordBody::Bucket { props: now, .. }) => quorums(props) != quorums(now),
        _ => false,
    }
}

/// Whether a record of another node may be kept: its key and body fit, and its properties and version are within
/// bounds.
fn is_sound(record: &Record) -> bool {
    let fits = match (&record.key, &record.body) {
        (RecordKey::Tenant(id), RecordBody::Tenant { name } | RecordBody::DeletedTenant { name, .. }) => {
            incarnation_of(*id, name).is_some()
        }
        (
            RecordKey::Bucket(..),
            RecordBody::Bucket { id, props, past } | RecordBody::DeletedBucket { id, props, past, .. },
        ) => props.check_record().is_ok() && past.is_bounded() && !past.buckets.contains(id),
        (RecordKey::Quota(..), RecordBody::Quota(_)) => true,
        (RecordKey::Signers(_), RecordBody::Signers(keys)) => keys.len() <= MAX_SIGNERS,
        (RecordKey::Plugin(..), RecordBody::Plugin(plugin) | RecordBody::DeletedPlugin { plugin, .. }) => {
            plugin.version.len() <= 64
                && plugin.quarantined.as_ref().is_none_or(|why| why.len() <= MAX_QUARANTINE_BYTES)
                && plugin.transcripts.len() <= MAX_TRANSCRIPTS
                && plugin.provenance.as_ref().is_none_or(|provenance| provenance.is_bounded())
        }
        (RecordKey::Token(..), RecordBody::Token { grant, revoked, barred, .. }) => {
            grant.check().is_ok() && (*revoked || !barred)
        }
        _ => false,
    };
    fits && (1..=MAX_VERSION).contains(&record.version)
}

/// What a plugin's record says, made from its card and its exports.
#[must_use]
pub fn plugin_record(name: Name, version: String, bytes: u64, self_causal: bool, validates: bool) -> Box<PluginRecord> {
    let version = version.chars().take(64).filter(char::is_ascii).collect();
    Box::new(PluginRecord {
        name,
        version,
        bytes,
        self_causal,
        validates,
        quarantined: None,
        unchecked: None,
        transcripts: Vec::new(),
        provenance: None,
    })
}
