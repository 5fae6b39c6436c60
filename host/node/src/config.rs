//! The keys of a node's configuration and their defaults. Only the keys that name the node and its files have none.
//! `config_file` reads and checks the file.

use std::path::PathBuf;

use serde::Deserialize;

use rejoin_proto::{Address, Name};

/// The configuration of a node. Paths are relative to the configuration file's directory.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// The node's name. It must be the one in its certificate.
    pub name: Name,
    /// The UDP address for clients and peers. A host name is resolved once, at the start.
    pub listen: Address,
    /// The TCP address of metrics and health; none by default. A host name is resolved once, at the start.
    pub admin: Option<Address>,
    /// The data directory.
    pub data: PathBuf,
    /// The certificate of the cluster's authority (PEM).
    pub ca: PathBuf,
    /// This node's certificate (PEM).
    pub certificate: PathBuf,
    /// The key of the certificate (PEM).
    pub key: PathBuf,
    /// The cluster's secret: at least 16 bytes, the same on every node. One line end at the end of the file does not
    /// count.
    pub secret: PathBuf,
    /// The number of shards: a power of two, 1 to 256, fixed once the data directory exists. Each shard has a journal
    /// and a tree of its own, and works on one thread at a time.
    #[serde(default = "defaults::shards")]
    pub shards: u16,
    /// Threads that run plugins. If there are several, the busiest bucket leaves one of them to others.
    #[serde(default = "defaults::merge_threads")]
    pub merge_threads: usize,
    /// Merges that may wait for a thread.
    #[serde(default = "defaults::merge_queue")]
    pub merge_queue: usize,
    /// The most threads that run plugins of one bucket at once.
    #[serde(default = "defaults::merge_bucket_threads")]
    pub merge_bucket_threads: usize,
    /// Merges of one bucket that may wait for a thread.
    #[serde(default = "defaults::merge_bucket_queue")]
    pub merge_bucket_queue: usize,
    /// Bytes of the cache of merge results.
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
    /// Bytes of memory of a process that compiles.
    #[serde(default = "defaults::compile_memory_bytes")]
    pub compile_memory_bytes: u64,
    /// Seconds of a processor that compiling one plugin may take. By the wall clock it may take three times as many.
    #[serde(default = "defaults::compile_seconds")]
    pub compile_seconds: u32,
    /// The program that compiles plugins; by default the running one.
    pub compile_program: Option<PathBuf>,
    /// Bytes of the cache of compiled plugins in the data directory, which saves compiling them at a restart.
    #[serde(default = "defaults::compiled_bytes")]
    pub compiled_bytes: u64,
    /// Requests in a shard's inbox; a further one is answered *overloaded*.
    #[serde(default = "defaults::inbox")]
    pub inbox: usize,
    /// Bytes of the requests and messages in a shard's inbox, 1 MiB or more.
    #[serde(default = "defaults::inbox_bytes")]
    pub inbox_bytes: u32,
    /// Bytes that a shard's requests under way may hold, 1 MiB or more.
    #[serde(default = "defaults::in_flight_bytes")]
    pub in_flight_bytes: usize,
    /// Requests under way in a shard; a further one is answered *overloaded*.
    #[serde(default = "defaults::in_flight")]
    pub in_flight: usize,
    /// Clients that are connected at once. Connections of nodes do not count.
    #[serde(default = "defaults::max_clients")]
    pub max_clients: usize,
    /// Of those, clients that have not shown a token yet. A further one replaces the oldest of them.
    #[serde(default = "defaults::max_new_clients")]
    pub max_new_clients: usize,
    /// Connections that one token may have at once.
    #[serde(default = "defaults::clients_per_token")]
    pub clients_per_token: usize,
    /// How long a client may take for its hello, in milliseconds, 1 to 60 000.
    #[serde(default = "defaults::hello_ms")]
    pub hello_ms: u64,
    /// How long a stopping node waits for requests under way, in milliseconds, at most 600 000.
    #[serde(default = "defaults::drain_ms")]
    pub drain_ms: u64,
    /// The time-out of a request that names none, in milliseconds.
    #[serde(default = "defaults::timeout_ms")]
    pub timeout_ms: u32,
    /// The longest time-out of a request, in milliseconds.
    #[serde(default = "defaults::max_timeout_ms")]
    pub max_timeout_ms: u32,
    /// How far the nodes' clocks may differ, in milliseconds.
    #[serde(default = "defaults::max_skew_ms")]
    pub max_skew_ms: u64,
    /// For how long a retried write is recognised, in milliseconds.
    #[serde(default = "defaults::retry_window_ms")]
    pub retry_window_ms: u32,
    /// Bytes of the rows by which a shard recognises retried writes, 1 MiB or more.
    #[serde(default = "defaults::retry_bytes")]
    pub retry_bytes: usize,
    /// How long a starting node waits for objections of its peers before it serves, in milliseconds, if at least half
    /// of the nodes, itself included, are connected by then. At most 600 000.
    #[serde(default = "defaults::start_grace_ms")]
    pub start_grace_ms: u64,
    /// How long a starting node waits for peers that are connected and not ready yet, in milliseconds; and, for 3 s at
    /// most, while fewer than half of the nodes, itself included, are connected. At most 600 000.
    #[serde(default = "defaults::start_wait_ms")]
    pub start_wait_ms: u64,
    /// Bytes of a journal segment, 64 KiB to 1 GiB.
    #[serde(default = "defaults::segment_bytes")]
    pub segment_bytes: u64,
    /// The most bytes of a shard's memtable, 1 MiB to 64 GiB. Each shard of each node has its own limit, three quarters
    /// of this or more, so that they do not all flush at once.
    #[serde(default = "defaults::memtable_bytes")]
    pub memtable_bytes: u64,
    /// Bytes of a shard's caches, at most 1 TiB: a quarter for rows, the rest for blocks of its tree.
    #[serde(default = "defaults::cache_bytes")]
    pub cache_bytes: u64,
    /// Free bytes on the disk below which writes are refused. Less than the disk's size.
    #[serde(default = "defaults::free_space_floor")]
    pub free_space_floor: u64,
    /// Lets the admin port inject faults: cut connections and block the disk. For demonstrations and tests; refused off
    /// loopback.
    #[serde(default)]
    pub dev_faults: bool,
    /// The nodes of a new cluster, the same list on each node. Only read while the data directory has no layout.
    #[serde(default)]
    pub bootstrap: Vec<BootstrapNode>,
}

/// A node of a new cluster.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct BootstrapNode {
    /// As in its certificate.
    pub name: Name,
    /// Its address for peers and clients. A host name is resolved at each dial.
    pub address: Address,
    /// Its zone. Copies of a key are placed in different zones if possible.
    #[serde(default = "defaults::zone")]
    pub zone: Name,
    /// Its share of the data, relative to the other nodes' capacities.
    #[serde(default = "defaults::capacity")]
    pub capacity: u32,
}

mod defaults {
    use rejoin_proto::Name;

    pub(super) fn shards() -> u16 {
        2
    }
    pub(super) fn merge_threads() -> usize {
        3
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
    pub(super) fn start_wait_ms() -> u64 {
        10_000
    }
    pub(super) fn start_grace_ms() -> u64 {
        500
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
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value is not valid for its key.
    #[error("{key}: {message}")]
    Invalid {
        /// The key.
        key: String,
        /// What is wrong with the value.
        message: String,
    },
    /// An unknown key.
    #[error("{key}: there is no such key{}", suggestion.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The most similar known key.
        suggestion: Option<String>,
    },
}
