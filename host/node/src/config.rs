//! A node's configuration: one TOML file, every key with a default but the few that name the node and its files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use rejoin_proto::{Address, Name, PluginDigest};

use crate::config_encryption::EncryptionConfig;
use crate::config_exchange::ExchangeConfig;
use crate::config_members::MembersConfig;

/// What a node is started with. Paths are relative to the file they stand in.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// The node's name, as in its certificate.
    pub name: Name,
    /// The UDP address for clients and peers alike. A host name is looked up once, at the start.
    pub listen: Address,
    /// The TCP address of metrics and health; none by default. A host name is looked up once, at the start.
    pub admin: Option<Address>,
    /// A file of tokens, one on each line, that open the admin port where it is not on loopback, and nothing else.
    pub admin_token: Option<PathBuf>,
    /// The data directory.
    pub data: PathBuf,
    /// The cluster's authority (PEM).
    pub ca: PathBuf,
    /// This node's certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The cluster's secret: at least 16 bytes, the same on every node. One line end at the end of the file does not
    /// count.
    pub secret: PathBuf,
    /// Shards, a power of two; fixed once the data directory is made. Each has a journal and a tree of its own, and
    /// works on one thread at a time.
    #[serde(default = "defaults::shards")]
    pub shards: u16,
    /// Threads that run plugins. The last of several is always left to other tenants than the busiest.
    #[serde(default = "defaults::merge_threads")]
    pub merge_threads: usize,
    /// Merges that may wait for a thread.
    #[serde(default = "defaults::merge_queue")]
    pub merge_queue: usize,
    /// Threads that run plugins of one tenant at once.
    #[serde(default = "defaults::merge_tenant_threads")]
    pub merge_tenant_threads: usize,
    /// Merges of one tenant that may wait for a thread.
    #[serde(default = "defaults::merge_tenant_queue")]
    pub merge_tenant_queue: usize,
    /// Threads that run plugins of one bucket at once. The last of several of its tenant's is left to other buckets.
    #[serde(default = "defaults::merge_bucket_threads")]
    pub merge_bucket_threads: usize,
    /// Merges of one bucket that may wait for a thread.
    #[serde(default = "defaults::merge_bucket_queue")]
    pub merge_bucket_queue: usize,
    /// Bytes of merged and shown views that are remembered.
    #[serde(default = "defaults::memo_bytes")]
    pub memo_bytes: u64,
    /// The most bytes of a plugin's component.
    #[serde(default = "defaults::module_bytes")]
    pub module_bytes: u64,
    /// Plugins that are compiled at once, each in a process and on a processor of its own.
    #[serde(default = "defaults::compile_threads")]
    pub compile_threads: usize,
    /// Plugins that may wait to be compiled.
    #[serde(default = "defaults::compile_queue")]
    pub compile_queue: usize,
    /// Plugins of one tenant that may wait to be compiled.
    #[serde(default = "defaults::compile_tenant_queue")]
    pub compile_tenant_queue: usize,
    /// Bytes of memory of a process that compiles.
    #[serde(default = "defaults::compile_memory_bytes")]
    pub compile_memory_bytes: u64,
    /// Seconds of a processor that compiling one plugin may take. By the wall clock it may take three times as many.
    #[serde(default = "defaults::compile_seconds")]
    pub compile_seconds: u32,
    /// The program that compiles plugins; by default this one.
    pub compile_program: Option<PathBuf>,
    /// Whether the laws of a plugin are checked before it is stored. Without it every plugin is stored, and its record
    /// says that it was not checked.
    #[serde(default = "defaults::check_laws")]
    pub check_laws: bool,
    /// Seconds of a processor that checking the laws of one plugin may take. By the wall clock it may take five times
    /// as many.
    #[serde(default = "defaults::law_seconds")]
    pub law_seconds: u32,
    /// The most sets of siblings of a bucket on which the laws of a pushed plugin are checked, if the push asks for
    /// that.
    #[serde(default = "defaults::law_sibling_sets")]
    pub law_sibling_sets: usize,
    /// The most bytes of them.
    #[serde(default = "defaults::law_sibling_bytes")]
    pub law_sibling_bytes: usize,
    /// The most fixtures, values of a team, that a push may bring along for the check of its laws.
    #[serde(default = "defaults::law_fixtures")]
    pub law_fixtures: usize,
    /// The most bytes of them.
    #[serde(default = "defaults::law_fixture_bytes")]
    pub law_fixture_bytes: usize,
    /// The plugins that the release has been tested with: their laws are not checked again. Not a key of the file.
    #[serde(skip)]
    pub released: BTreeSet<PluginDigest>,
    /// Of so many merges of a bucket the laws are checked again on one; 0: on none. They are at least on one a minute
    /// and at most on one a second.
    #[serde(default = "defaults::sentinel_every")]
    pub sentinel_every: u64,
    /// A plugin is quarantined when merges of so many keys have broken a law; 0: this is only said.
    #[serde(default = "defaults::sentinel_threshold")]
    pub sentinel_threshold: u32,
    /// Bytes of compiled plugins that are kept in the data directory, so that a restart need not compile them.
    #[serde(default = "defaults::compiled_bytes")]
    pub compiled_bytes: u64,
    /// Requests that may wait before a shard; one more is answered *overloaded*. Of one tenant at most as many as there
    /// are places left may wait, so half of them. As many messages of peers may wait beside them.
    #[serde(default = "defaults::inbox")]
    pub inbox: usize,
    /// Bytes of the requests that wait before a shard, and of the messages of peers beside them.
    #[serde(default = "defaults::inbox_bytes")]
    pub inbox_bytes: u32,
    /// Requests of one tenant that may wait before a shard, if that is less.
    #[serde(default = "defaults::tenant_inbox")]
    pub tenant_inbox: usize,
    /// Bytes of these requests.
    #[serde(default = "defaults::tenant_inbox_bytes")]
    pub tenant_inbox_bytes: u32,
    /// How long requests of a tenant may wait before a shard, in milliseconds. Once they have waited longer for a tenth
    /// of a second on end, further ones are answered *overloaded* while the oldest one has.
    #[serde(default = "defaults::queue_wait_ms")]
    pub queue_wait_ms: u32,
    /// Bytes that the requests under way in a shard hold.
    #[serde(default = "defaults::in_flight_bytes")]
    pub in_flight_bytes: usize,
    /// Requests that a shard works on at once; one more is answered *overloaded*.
    #[serde(default = "defaults::in_flight")]
    pub in_flight: usize,
    /// Clients that are connected at once. Nodes have places of their own.
    #[serde(default = "defaults::max_clients")]
    pub max_clients: usize,
    /// Of those, clients that have not shown a token yet. When there are more, the oldest of them goes.
    #[serde(default = "defaults::max_new_clients")]
    pub max_new_clients: usize,
    /// Connections that one token may have at once.
    #[serde(default = "defaults::clients_per_token")]
    pub clients_per_token: usize,
    /// How long a client may take for its hello, in milliseconds.
    #[serde(default = "defaults::hello_ms")]
    pub hello_ms: u64,
    /// How long a node that is asked to stop waits for the requests that are under way, in milliseconds.
    #[serde(default = "defaults::drain_ms")]
    pub drain_ms: u64,
    /// How long a request may take if it does not say, in milliseconds.
    #[serde(default = "defaults::timeout_ms")]
    pub timeout_ms: u32,
    /// The longest a request may ask for, in milliseconds.
    #[serde(default = "defaults::max_timeout_ms")]
    pub max_timeout_ms: u32,
    /// How far the nodes' clocks may differ, in milliseconds.
    #[serde(default = "defaults::max_skew_ms")]
    pub max_skew_ms: u64,
    /// For how long a retried write is recognised, in milliseconds.
    #[serde(default = "defaults::retry_window_ms")]
    pub retry_window_ms: u32,
    /// Writes that each shard remembers for their retries.
    #[serde(default = "defaults::retry_bytes")]
    pub retry_bytes: usize,
    /// Bytes of receipts of folds that each shard keeps.
    #[serde(default = "defaults::receipt_bytes")]
    pub receipt_bytes: u64,
    /// How long a starting node waits for its peers to object to its actors before it takes writes, in milliseconds, if
    /// half of the nodes, itself included, are met by then.
    #[serde(default = "defaults::start_grace_ms")]
    pub start_grace_ms: u64,
    /// How long a starting node waits for peers that it has reached and that are not ready yet, in milliseconds; and,
    /// for 3 s at most, while fewer than half of the nodes, itself included, are met.
    #[serde(default = "defaults::start_wait_ms")]
    pub start_wait_ms: u64,
    /// Objects that a node which stands in for owners offers them at once, when they are back.
    #[serde(default = "defaults::handoff_objects")]
    pub handoff_objects: usize,
    /// Bytes of keys and objects at which such a batch is full. One object is always in it.
    #[serde(default = "defaults::handoff_bytes")]
    pub handoff_bytes: usize,
    /// The pause of a shard between two batches, in milliseconds.
    #[serde(default = "defaults::handoff_pause_ms")]
    pub handoff_pause_ms: u64,
    /// The least time that a node is given to answer a write before a fallback is asked too, and a forwarded read
    /// before the next owner is, in milliseconds. A suspected node is given this time.
    #[serde(default = "defaults::relief_min_ms")]
    pub relief_min_ms: u64,
    /// The longest such time, in milliseconds. Between the two it follows the node's recent answers.
    #[serde(default = "defaults::relief_max_ms")]
    pub relief_max_ms: u64,
    /// The least time that a read gives an owner to answer before it asks the others too, in milliseconds. A suspected
    /// owner is given this time.
    #[serde(default = "defaults::hedge_min_ms")]
    pub hedge_min_ms: u64,
    /// The longest such time, in milliseconds; between the two it follows the owner's recent answers. 0: every read
    /// asks all owners at once.
    #[serde(default = "defaults::hedge_max_ms")]
    pub hedge_max_ms: u64,
    /// Of so many reads one asks all owners, once it is answered, and repairs them; 0: none.
    #[serde(default = "defaults::repair_one_in")]
    pub repair_one_in: u32,
    /// Bytes of a journal segment.
    #[serde(default = "defaults::segment_bytes")]
    pub segment_bytes: u64,
    /// Bytes of a shard's memtable at most. Every shard of every node has its own share, three quarters or more, so
    /// that they are not flushed at once.
    #[serde(default = "defaults::memtable_bytes")]
    pub memtable_bytes: u64,
    /// Bytes of a shard's caches: a quarter for single rows, the rest for blocks of its tree.
    #[serde(default = "defaults::cache_bytes")]
    pub cache_bytes: u64,
    /// Free bytes on the disk below which writes are refused.
    #[serde(default = "defaults::free_space_floor")]
    pub free_space_floor: u64,
    /// Bytes of the audit log. The oldest records make room for new ones.
    #[serde(default = "defaults::audit_bytes")]
    pub audit_bytes: u64,
    /// The keys that values are encrypted with on this node's disk; by default they are in the clear.
    pub encryption: Option<EncryptionConfig>,
    /// When a peer that does not answer is asked last, and when another node takes its place.
    #[serde(default)]
    pub members: MembersConfig,
    /// How often partitions are compared with their other owners, and how much that may cost.
    #[serde(default)]
    pub exchange: ExchangeConfig,
    /// Lets the admin port cut connections and hold the disk back. For demonstrations and tests; refused off loopback.
    #[serde(default)]
    pub dev_faults: bool,
    /// Where the other nodes and clients reach this one. By default the address in the `[[bootstrap]]` list, or else
    /// `listen`. A node with another address than before is found under the new one once it has met another node.
    pub address: Option<Address>,
    /// Addresses of nodes of a running cluster, which this node joins; only read while the data directory has no ring.
    #[serde(default)]
    pub join: Vec<Address>,
    /// The nodes of a new cluster, the same list on each; only read while the data directory has no ring.
    #[serde(default)]
    pub bootstrap: Vec<BootstrapNode>,
}

/// A node of a new cluster.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct BootstrapNode {
    /// As in its certificate.
    pub name: Name,
    /// Where peers and clients reach it. A host name is looked up each time the node is dialled.
    pub address: Address,
    /// Copies are spread over zones.
    #[serde(default = "defaults::zone")]
    pub zone: Name,
    /// Its share in relation to the others'.
    #[serde(default = "defaults::capacity")]
    pub capacity: u32,
}

mod defaults {
    use rejoin_proto::Name;

    pub(super) fn shards() -> u16 {
        2
    }
    pub(super) fn merge_threads() -> usize {
        4
    }
    pub(super) fn merge_tenant_threads() -> usize {
        3
    }
    pub(super) fn merge_tenant_queue() -> usize {
        512
    }
    pub(super) fn compile_tenant_queue() -> usize {
        16
    }
    pub(super) fn tenant_inbox() -> usize {
        2048
    }
    pub(super) fn tenant_inbox_bytes() -> u32 {
        32 << 20
    }
    pub(super) fn queue_wait_ms() -> u32 {
        100
    }
    pub(super) fn merge_bucket_threads() -> usize {
        2
    }
    pub(super) fn merge_bucket_queue() -> usize {
        256
    }
    pub(super) fn compile_threads() -> usize {
        1
    }
    pub(super) fn compile_queue() -> usize {
        32
    }
    pub(super) fn compile_memory_bytes() -> u64 {
        512 << 20
    }
    pub(super) fn compile_seconds() -> u32 {
        20
    }
    pub(super) fn check_laws() -> bool {
        true
    }
    pub(super) fn law_seconds() -> u32 {
        240
    }
    pub(super) fn law_sibling_sets() -> usize {
        64
    }
    pub(super) fn law_sibling_bytes() -> usize {
        2 << 20
    }
    pub(super) fn law_fixtures() -> usize {
        256
    }
    pub(super) fn law_fixture_bytes() -> usize {
        2 << 20
    }
    pub(super) fn sentinel_every() -> u64 {
        1_000
    }
    pub(super) fn sentinel_threshold() -> u32 {
        3
    }
    pub(super) fn compiled_bytes() -> u64 {
        256 << 20
    }
    pub(super) fn merge_queue() -> usize {
        1024
    }
    pub(super) fn memo_bytes() -> u64 {
        32 << 20
    }
    pub(super) fn module_bytes() -> u64 {
        rejoin_proto::catalog::MAX_MODULE_BYTES
    }
    pub(super) fn inbox_bytes() -> u32 {
        64 << 20
    }
    pub(super) fn in_flight_bytes() -> usize {
        128 << 20
    }
    pub(super) fn inbox() -> usize {
        4096
    }
    pub(super) fn in_flight() -> usize {
        8192
    }
    pub(super) fn max_clients() -> usize {
        4096
    }
    pub(super) fn max_new_clients() -> usize {
        512
    }
    pub(super) fn clients_per_token() -> usize {
        1024
    }
    pub(super) fn hello_ms() -> u64 {
        5_000
    }
    pub(super) fn drain_ms() -> u64 {
        5_000
    }
    pub(super) fn timeout_ms() -> u32 {
        5_000
    }
    pub(super) fn max_timeout_ms() -> u32 {
        60_000
    }
    pub(super) fn max_skew_ms() -> u64 {
        60_000
    }
    pub(super) fn retry_window_ms() -> u32 {
        30_000
    }
    pub(super) fn retry_bytes() -> usize {
        128 << 20
    }
    pub(super) fn receipt_bytes() -> u64 {
        256 << 20
    }
    pub(super) fn start_wait_ms() -> u64 {
        10_000
    }
    pub(super) fn start_grace_ms() -> u64 {
        500
    }
    pub(super) fn handoff_objects() -> usize {
        64
    }
    pub(super) fn handoff_bytes() -> usize {
        1 << 20
    }
    pub(super) fn handoff_pause_ms() -> u64 {
        5
    }
    pub(super) fn relief_min_ms() -> u64 {
        100
    }
    pub(super) fn relief_max_ms() -> u64 {
        1_000
    }
    pub(super) fn hedge_min_ms() -> u64 {
        5
    }
    pub(super) fn hedge_max_ms() -> u64 {
        200
    }
    pub(super) fn repair_one_in() -> u32 {
        32
    }
    pub(super) fn segment_bytes() -> u64 {
        64 << 20
    }
    pub(super) fn memtable_bytes() -> u64 {
        64 << 20
    }
    pub(super) fn cache_bytes() -> u64 {
        32 << 20
    }
    pub(super) fn free_space_floor() -> u64 {
        64 << 20
    }
    pub(super) fn audit_bytes() -> u64 {
        64 << 20
    }
    pub(super) fn zone() -> Name {
        Name::new("default").expect("a good name")
    }
    pub(super) fn capacity() -> u32 {
        1
    }
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a value is not what its key takes.
    #[error("{key}: {message}")]
    Invalid {
        /// Which key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A key that means nothing.
    #[error(
        "{key}: there is no such key{}",
        suggestion.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default()
    )]
    UnknownKey {
        /// As it was written.
        key: String,
        /// The nearest one that exists.
        suggestion: Option<String>,
    },
}
