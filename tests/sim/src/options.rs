//! Options: every option of a run is drawn from its seed (swarm testing: Groce, Zhang, Eide, Chen, Regehr 2012). Each
//! fault is off in many seeds, because faults hide one another: a cluster that is always cut never has two crashes in
//! one write.

use serde::Serialize;

use crate::history::Kind;
use crate::rng::{Rng, Stream};

pub use crate::rng::PerMillion;

/// One millisecond of virtual time.
pub(crate) const MS: u64 = 1000;
/// One second of virtual time.
pub(crate) const SECOND: u64 = 1000 * MS;

/// A run's options.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// The seed that they were drawn from.
    pub seed: u64,
    /// Nodes, 3 to 7.
    pub nodes: u8,
    /// Shards of each node.
    pub shards: u16,
    /// Partitions of the ring.
    pub partitions: u32,
    /// Zones that the nodes are spread over.
    pub zones: u8,
    /// The buckets, each with a kind of values.
    pub buckets: Vec<BucketOptions>,
    /// The clients.
    pub clients: ClientOptions,
    /// The network.
    pub network: NetworkOptions,
    /// The faults.
    pub faults: FaultOptions,
    /// What operators do with the versions of plugins.
    pub versions: VersionOptions,
    /// How long the chaos lasts, in virtual microseconds.
    pub chaos_us: u64,
    /// Whether messages go through their encoding.
    pub encoded: bool,
    /// Whether carts are merged by the component on the real host.
    pub wasm: bool,
    /// How long a node that starts waits for its peers, in microseconds.
    pub start_grace_us: u64,
    /// For how long a shard remembers retries, in milliseconds.
    pub retry_window_ms: u64,
    /// How far clocks may differ, in milliseconds.
    pub max_skew_ms: u64,
    /// The most requests under way in a shard.
    pub max_ops: usize,
    /// The most bytes of retry rows in a shard.
    pub max_retry_bytes: usize,
    /// The most bytes of receipts of folds in a shard.
    pub max_receipt_bytes: u64,
    /// The most messages, and tickets, of a shard that wait for the disk.
    pub max_waiting: usize,
    /// Whether replicas exchange. Without, reads must bring them together.
    pub exchange: bool,
    /// How many of the nodes are in no layout at the start.
    pub spares: u8,
    /// Whether operators change the copies of buckets too. All quorums of these are majorities, of whatever n there is.
    pub change_copies: bool,
    /// How the plugin of sets is not deterministic. Never drawn.
    pub liar: Option<Liar>,
    /// Tenants, 1 or 2. Each has all the buckets, under the same names, and keys of the same names; the sessions are of
    /// one and the other in turns.
    pub tenants: u8,
    /// Whether sessions are independent: each has keys and a random stream of its own, and begins when all nodes serve.
    /// Never drawn.
    pub apart: bool,
    /// Whether the sessions of the second tenant do anything. Never drawn otherwise.
    pub neighbour: bool,
}

/// On what the result of a merge depends that it must not depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Liar {
    /// On the call.
    Calls,
    /// On the node.
    Nodes,
    /// On whether it is that node: it computes wrongly.
    OneNode(u8),
}

/// A bucket.
#[derive(Clone, Debug, Serialize)]
pub struct BucketOptions {
    /// The kind of its values.
    pub kind: Kind,
    /// n, the number of copies.
    pub n: u8,
    /// r.
    pub r: u8,
    /// w.
    pub w: u8,
    /// pr.
    pub pr: u8,
    /// pw.
    pub pw: u8,
    /// Whether acknowledgements wait for the disk.
    pub fsync: bool,
    /// The limit of siblings.
    pub siblings: u16,
    /// Whether it has a merge plugin.
    pub plugin: bool,
    /// The number of keys in use at one time.
    pub keys: u16,
    /// Whether other nodes stand in for owners.
    pub sloppy: bool,
}

/// What clients do.
#[derive(Clone, Debug, Serialize)]
pub struct ClientOptions {
    /// The number of sessions.
    pub sessions: u16,
    /// The mean pause of a session between two calls, in microseconds.
    pub think_us: u64,
    /// The deadline of a call, in milliseconds.
    pub deadline_ms: u32,
    /// The share of calls that are reads.
    pub reads: PerMillion,
    /// The share of writes without a context.
    pub blind: PerMillion,
    /// The share of writes that are creates.
    pub creates: PerMillion,
    /// The share of writes with an old context.
    pub stale: PerMillion,
    /// The share of writes that delete (in carts: remove items).
    pub deletes: PerMillion,
    /// The share of writes with a time to live.
    pub ttl: PerMillion,
    /// The share of *unknown* writes that are retried under their request id.
    pub retries: PerMillion,
    /// The share of writes answered at once that are settled with their receipts.
    pub receipts: PerMillion,
    /// The share of writes to validated buckets with a value that must be refused.
    pub malformed: PerMillion,
    /// The share of contexts that are altered, or another key's.
    pub forged: PerMillion,
    /// The share of contexts that another tenant was given for its key of the same name.
    pub foreign: PerMillion,
    /// How much more often the first keys are chosen: 0 is evenly, 3 is mostly the first.
    pub heat: u8,
}

/// What the network does.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkOptions {
    /// The least delay of a message, in microseconds.
    pub latency_us: u64,
    /// The mean of the delay above that.
    pub jitter_us: u64,
    /// Whether messages of one connection keep their order.
    pub ordered: bool,
    /// The share of messages lost on a live connection, as by a full queue.
    pub loss: PerMillion,
    /// The share of messages that find their queue full: the sender is told.
    pub unsent: PerMillion,
    /// The share of bulk messages at which their stream stands for a while.
    pub bulk_stalls: PerMillion,
    /// The share of messages that come twice.
    pub duplicates: PerMillion,
    /// The share of messages that take a hundred times as long.
    pub stragglers: PerMillion,
    /// Whether messages outlive their connection.
    pub ghosts: bool,
    /// The idle time of a connection, in microseconds.
    pub idle_us: u64,
}

/// The mean time between two faults of each class, in microseconds; 0 is never.
#[derive(Clone, Default, Debug, Serialize)]
pub struct FaultOptions {
    /// Two groups of nodes do not hear one another.
    pub partition: u64,
    /// One node is not heard by some, but hears them.
    pub one_way: u64,
    /// A link comes and goes.
    pub flap: u64,
    /// A connection is reset.
    pub reset: u64,
    /// A process is killed.
    pub kill: u64,
    /// A machine loses power.
    pub power: u64,
    /// A process stops as it should.
    pub stop: u64,
    /// A disk is wiped.
    pub wipe: u64,
    /// An old copy of a disk is put back.
    pub old_copy: u64,
    /// A store loses something, and says so.
    pub loss: u64,
    /// A block cannot be read for a while.
    pub bad_block: u64,
    /// A wall clock jumps.
    pub clock: u64,
    /// A node is slow for a while.
    pub slow_node: u64,
    /// A disk is slow, or stands, for a while.
    pub slow_disk: u64,
    /// A disk is full for a while.
    pub full_disk: u64,
    /// A store refuses writes for a moment.
    pub busy: u64,
    /// A write to a disk fails.
    pub failing: u64,
    /// Plugins trap, or never end, for a while.
    pub plugin: u64,
    /// A bucket's properties change, and nodes learn of it one after the other.
    pub catalog: u64,
    /// Two operators make one bucket at the same time, with different properties.
    pub race: u64,
    /// A full disk loses objects, and its node is killed on it before there is room.
    pub crammed: u64,
    /// A store loses a table, and with it a range of keys.
    pub lost_range: u64,
    /// An operator changes the layout.
    pub layout: u64,
    /// Two groups of nodes do not hear one another, and some nodes hear both. Half of the changes of layout begin so.
    pub bridge: u64,
    /// An operator changes the versions of a bucket's plugin, or has the folds of a bad one undone.
    pub version: u64,
}

/// What operators do with the versions of plugins. Nothing of it counts while [`FaultOptions::version`] is 0.
#[derive(Clone, Default, Debug, Serialize)]
pub struct VersionOptions {
    /// The share of the changes that bring in the bad version, which loses all siblings but one. Each bucket has it
    /// once at most, and then it is rolled back and undone.
    pub bad: PerMillion,
    /// The share of new versions that begin as a canary.
    pub canaries: PerMillion,
    /// The share of the changes that set a shadow, or end one.
    pub shadows: PerMillion,
    /// The time in which a version that has replaced another one stores nothing, until a bad one comes, in
    /// milliseconds.
    pub fold_delay_ms: u64,
    /// The share of the nodes that are not ready when a version is named for the first time.
    pub late: PerMillion,
    /// The mean time until they are, in microseconds.
    pub late_us: u64,
}

/// From this seed on layouts change in every run.
pub const LAYOUT_SEEDS: u64 = 1 << 40;
/// From this seed on the versions of plugins change in every run, and layouts as well.
pub const VERSION_SEEDS: u64 = 1 << 41;

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = &mut Rng::new(seed, Stream::Options);
        let nodes = *rng.pick(&[3, 3, 3, 4, 5, 5, 7]);
        let clients = clients(rng);
        // Some thousand calls for each seed, whatever the pace, but never so short that no fault fits in.
        let calls = rng.between(2000, 6000);
        let chaos_us =
            (calls * (clients.think_us + 4 * MS) / u64::from(clients.sessions)).clamp(10 * SECOND, 300 * SECOND);
        let network = network(rng);
        let mut faults = faults(rng, chaos_us);
        if network.ghosts {
            // Messages of a node's own future must not reach its peers after they have met its old disk: no real
            // connection does that.
            faults.old_copy = 0;
        }
        let mut options = Self {
            seed,
            nodes,
            shards: *rng.pick(&[1, 1, 2, 4]),
            partitions: *rng.pick(&[4, 8, 16]),
            zones: *rng.pick(&[1, 1, 3]),
            buckets: buckets(rng, nodes),
            clients,
            network,
            faults,
            versions: VersionOptions::default(),
            chaos_us,
            encoded: rng.percent(10),
            wasm: rng.percent(2),
            start_grace_us: *rng.pick(&[300 * MS, SECOND, 3 * SECOND]),
            retry_window_ms: *rng.pick(&[2_000, 10_000, 60_000]),
            max_skew_ms: *rng.pick(&[500, 2_000, 60_000]),
            max_ops: *rng.pick(&[8, 64, 1024]),
            max_retry_bytes: *rng.pick(&[40_000, 20 << 20, 20 << 20]),
            max_receipt_bytes: 1 << 20,
            max_waiting: 0,
            exchange: true,
            liar: None,
            spares: 0,
            change_copies: false,
            tenants: 1,
            apart: false,
            neighbour: true,
        };
        // Drawn last, so that earlier seeds still draw what they drew.
        options.clients.receipts = PerMillion(*rng.pick(&[0, 50, 100]) * 10_000);
        options.max_waiting = *rng.pick(&[4, 1 << 18, 1 << 18, 1 << 18]);
        options.clients.malformed = PerMillion(*rng.pick(&[0, 0, 2, 10]) * 10_000);
        if rng.percent(15) && !options.is_calm() {
            options.faults.crammed = chaos_us / rng.between(1, 4);
        }
        if rng.percent(15) && !options.is_calm() {
            options.faults.lost_range = chaos_us / rng.between(1, 6);
        }
        options.exchange = rng.percent(85);
        options.network.unsent = sometimes(rng, 30, 20_000);
        options.network.bulk_stalls = sometimes(rng, 40, 100_000);
        options.buckets.iter_mut().for_each(|bucket| bucket.sloppy = rng.percent(50));
        // Where fallbacks count, reads show what was written if the owners meet.
        for bucket in options.buckets.iter_mut().filter(|bucket| bucket.sloppy) {
            let (n, majority) = (bucket.n, bucket.n / 2 + 1);
            let choices = [(0, 0), (0, 0), (majority, majority), (majority, majority), (1, n), (n, 1)];
            (bucket.pr, bucket.pw) = *rng.pick(&choices);
        }
        if (rng.percent(20) && !options.is_calm()) || seed >= LAYOUT_SEEDS {
            options.change_layouts(rng);
        }
        if rng.percent(15) {
            options.tenants = 2;
            options.clients.foreign = PerMillion(*rng.pick(&[0, 1, 5]) * 10_000);
        }
        options.max_receipt_bytes = *rng.pick(&[2_000, 1 << 20]);
        if rng.percent(20) || seed >= VERSION_SEEDS {
            options.change_versions(rng);
        }
        options
    }

    /// Has operators change the versions of plugins.
    pub fn change_versions(&mut self, rng: &mut Rng) {
        let mut share = |percents: &[u32]| PerMillion(rng.pick(percents) * 10_000);
        let (mut bad, canaries) = (share(&[0, 15, 40, 40]), share(&[0, 30, 70]));
        // An undo asks more owners than a read may. Without exchange, one that has lost something is never rebuilt.
        if !self.exchange {
            bad = PerMillion(0);
        }
        let (shadows, late) = (share(&[0, 10, 30]), share(&[0, 20, 60]));
        let fold_delay_ms = *rng.pick(&[0, 500, 5_000, 24 * 60 * 60 * 1000]);
        let late_us = *rng.pick(&[300 * MS, 2 * SECOND, 10 * SECOND]);
        self.versions = VersionOptions { bad, canaries, shadows, fold_delay_ms, late, late_us };
        self.faults.version = self.chaos_us / rng.between(4, 20);
        for bucket in &mut self.buckets {
            bucket.plugin |= rng.percent(50);
            // What is folded in a key that is in use is soon written over, and there is nothing to undo.
            bucket.keys = bucket.keys.max(*rng.pick(&[1, 8, 40]));
        }
        if rng.percent(80) {
            // Else most folds cannot be undone for want of their receipts.
            self.max_receipt_bytes = 4 << 20;
        }
    }

    /// Has operators change the layout, some of them with spare nodes.
    pub fn change_layouts(&mut self, rng: &mut Rng) {
        self.faults.layout = self.chaos_us / rng.between(1, 8);
        self.spares = rng.between(0, 2) as u8;
        self.nodes += self.spares;
        self.exchange = true;
        if rng.percent(50) {
            self.change_copies();
        }
        if rng.percent(50) {
            self.faults.bridge = self.chaos_us / rng.between(1, 6);
        }
    }

    /// Has them change the copies of buckets too.
    pub fn change_copies(&mut self) {
        self.change_copies = true;
        for bucket in &mut self.buckets {
            let majority = bucket.n / 2 + 1;
            (bucket.r, bucket.w) = (majority, majority);
            let of_owners = if bucket.sloppy && bucket.pr + bucket.pw > bucket.n { majority } else { 0 };
            (bucket.pr, bucket.pw) = (of_owners, of_owners);
        }
    }

    /// Whether anything can go wrong at all.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let json = serde_json::to_value(&self.faults).unwrap_or_default();
        json.as_object().is_some_and(|faults| faults.values().all(|every| every == 0))
    }
}

fn clients(rng: &mut Rng) -> ClientOptions {
    let mut share = |percents: &[u32]| PerMillion(rng.pick(percents) * 10_000);
    let (reads, blind, creates) = (share(&[10, 30, 50]), share(&[0, 5, 20, 60]), share(&[0, 0, 5]));
    let (stale, deletes, ttl) = (share(&[0, 5, 30]), share(&[0, 5, 20]), share(&[0, 0, 10]));
    let (retries, forged) = (share(&[0, 50, 90]), share(&[0, 0, 1]));
    ClientOptions {
        sessions: rng.between(2, 12) as u16,
        think_us: *rng.pick(&[2 * MS, 20 * MS, 60 * MS, 150 * MS, 400 * MS]),
        deadline_ms: *rng.pick(&[100, 300, 1000, 3000]),
        reads,
        blind,
        creates,
        stale,
        deletes,
        ttl,
        retries,
        receipts: PerMillion::default(),
        malformed: PerMillion::default(),
        forged,
        foreign: PerMillion::default(),
        heat: rng.below(4) as u8,
    }
}

fn buckets(rng: &mut Rng, nodes: u8) -> Vec<BucketOptions> {
    const KINDS: [&[Kind]; 5] =
        [&[Kind::Set], &[Kind::Cart], &[Kind::Latest], &[Kind::Set, Kind::Cart], &[Kind::Set, Kind::Latest]];
    let kinds = *rng.pick(&KINDS);
    let bucket = |&kind: &Kind| {
        let n = (*rng.pick(&[1, 2, 3, 3, 3, 3, 3, 5])).min(nodes);
        let majority = n / 2 + 1;
        // Mostly quorums that meet. Without that, only convergence and survival are checked.
        let (r, w) = *rng.pick(&[
            (majority, majority),
            (majority, majority),
            (majority, majority),
            (1, n),
            (n, 1),
            (1, 1),
            (1, majority),
        ]);
        BucketOptions {
            kind,
            n,
            r,
            w,
            pr: 0,
            pw: 0,
            fsync: rng.percent(65),
            siblings: *rng.pick(&[2, 4, 8, 32]),
            plugin: kind != Kind::Set || rng.percent(70),
            keys: *rng.pick(&[1, 2, 4, 8, 16]),
            sloppy: false,
        }
    };
    kinds.iter().map(bucket).collect()
}

/// A share of at most `most` in so many percent of the seeds.
fn sometimes(rng: &mut Rng, percent: u32, most: u64) -> PerMillion {
    let on = rng.percent(percent);
    PerMillion(if on { rng.between(1, most) as u32 } else { 0 })
}

fn network(rng: &mut Rng) -> NetworkOptions {
    NetworkOptions {
        latency_us: *rng.pick(&[50, 200, 200, 2000]),
        jitter_us: *rng.pick(&[10, 100, 1000, 10_000]),
        ordered: rng.percent(50),
        loss: sometimes(rng, 40, 50_000),
        unsent: PerMillion::default(),
        bulk_stalls: PerMillion::default(),
        duplicates: sometimes(rng, 40, 50_000),
        stragglers: sometimes(rng, 40, 10_000),
        ghosts: rng.percent(25),
        idle_us: *rng.pick(&[300 * MS, SECOND, 4 * SECOND]),
    }
}

/// In one of ten seeds only the network has faults. In the others each class has its own chance and its own pace.
fn faults(rng: &mut Rng, chaos_us: u64) -> FaultOptions {
    let calm = rng.percent(10);
    let mut every = |percent: u32, most: u64| {
        let on = rng.percent(percent) && !calm;
        let times = rng.between(1, most);
        if on { chaos_us / times } else { 0 }
    };
    FaultOptions {
        partition: every(40, 10),
        one_way: every(30, 10),
        flap: every(25, 6),
        reset: every(30, 30),
        kill: every(50, 20),
        power: every(45, 15),
        stop: every(30, 10),
        wipe: every(12, 3),
        old_copy: every(25, 12),
        loss: every(12, 4),
        bad_block: every(15, 5),
        clock: every(30, 10),
        slow_node: every(30, 8),
        slow_disk: every(30, 8),
        full_disk: every(15, 5),
        busy: every(20, 20),
        failing: every(15, 5),
        plugin: every(35, 10),
        catalog: every(15, 4),
        race: every(15, 4),
        crammed: 0,
        lost_range: 0,
        layout: 0,
        bridge: 0,
        version: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_stands_for_the_same_options_and_two_seeds_hardly_ever() {
        let text = |seed| format!("{:?}", Options::draw(seed));
        assert_eq!(text(5), text(5));
        let different: std::collections::BTreeSet<String> = (0..1000).map(text).collect();
        assert_eq!(different.len(), 1000);
    }

    #[test]
    fn every_class_of_faults_is_on_in_some_seeds_and_off_in_others() {
        let all: Vec<serde_json::Value> =
            (0..300).map(|seed| serde_json::to_value(Options::draw(seed).faults).unwrap()).collect();
        for name in all[0].as_object().unwrap().keys() {
            let on = all.iter().filter(|faults| faults[name] != 0).count();
            assert!((10..250).contains(&on), "{name} is on in {on} of 300 seeds");
        }
    }

    #[test]
    fn a_share_of_the_seeds_has_two_tenants_and_most_of_these_pass_contexts_across() {
        let all: Vec<Options> = (0..300).map(Options::draw).filter(|options| options.tenants == 2).collect();
        assert!((20..80).contains(&all.len()), "{}", all.len());
        assert!(all.iter().any(|options| options.clients.foreign.0 > 0));
        assert!(all.iter().all(|options| options.clients.sessions >= 2 && options.neighbour && !options.apart));
    }

    #[test]
    fn some_seeds_are_calm_and_most_are_not() {
        let calm = (0..300).filter(|seed| Options::draw(*seed).is_calm()).count();
        assert!((10..90).contains(&calm), "{calm}");
    }
}
