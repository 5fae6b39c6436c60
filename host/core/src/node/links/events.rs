//! What the links are told, and what they ask for.

use alloc::string::String;
use alloc::vec::Vec;

use rejoin_proto::peer::{ActorNext, ClusterParams, PeerHello, PeerReady};
use rejoin_proto::{LayoutRange, LayoutRef, Name, NodeId};

/// The configuration of a node's links.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The other members of the live layouts. [`LinkEvent::Peers`] changes them.
    pub peers: Vec<(NodeId, Name)>,
    /// What must be equal on all nodes.
    pub params: ClusterParams,
    /// The live layouts of this node. [`LinkEvent::Layouts`] changes them.
    pub layouts: LayoutRange,
    /// The number of shards of this node.
    pub shards: u16,
    /// How long a starting node waits for peers that it has not reached, in microseconds.
    pub grace_us: u64,
    /// How long it waits while it has met fewer than half of the nodes, itself included, in microseconds.
    pub minority_us: u64,
    /// How long it waits for peers that it has reached and that have not come through, in microseconds.
    pub longest_start_us: u64,
    /// Pauses between two attempts to dial a peer, and limits.
    pub timing: Timing,
}

/// Pauses and limits of the links, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// The pause after the first failed attempt to dial; each further one is twice as long.
    pub first_pause_us: u64,
    /// The longest pause.
    pub longest_pause_us: u64,
    /// The longest pause for a peer that is no member. It may be gone for good; if it is not, it dials too.
    pub others_pause_us: u64,
    /// How long a peer may take for its hello.
    pub hello_us: u64,
    /// How long a connection stays open that another one to the same process has replaced. Answers may be under way on
    /// it.
    pub retire_us: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_pause_us: 50_000,
            longest_pause_us: 2_000_000,
            others_pause_us: 30_000_000,
            hello_us: 5_000_000,
            retire_us: 5_000_000,
        }
    }
}

/// What a peer is in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member of a live layout.
    Member,
    /// In no live layout: it was not assigned yet, or was removed.
    Other,
    /// In no live layout, and an operator has declared it dead for the layouts up to this one. With the data of that
    /// time it is refused.
    Dead(LayoutRef),
}

/// Something that has happened, for the links to handle. Connections are named by numbers.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// A connection is made, its other end has shown the certificate of that peer, and this node's hello is sent on it.
    Connected {
        /// The node at the other end.
        peer: NodeId,
        /// Its name.
        name: Name,
        /// The number of the connection; each is larger than all before it.
        connection: u64,
        /// Whether this node dialled it.
        dialled: bool,
    },
    /// The ring has changed: the other nodes that it names, with what they are.
    Peers {
        /// The newest live layout of which this node is a member. One that is none dials all others, which may not know
        /// of it.
        member_of: Option<LayoutRef>,
        /// The others.
        peers: Vec<(NodeId, Name, Standing)>,
    },
    /// The live layouts of this node, as its shards and sessions know them by now.
    Layouts(LayoutRange),
    /// An attempt to dial has failed. With the reason if it lasts until an operator changes something: one side does
    /// not accept the other's certificate or version.
    DialFailed(NodeId, Option<String>),
    /// The other side's hello.
    Hello(u64, PeerHello),
    /// One more shard has checked the peer's actors, and its objections are sent.
    ActorsChecked(u64),
    /// The catalog has been told of the peer, and its summary is sent if one is needed.
    CatalogSent(u64),
    /// The peer is ready.
    Ready(u64, PeerReady),
    /// This node's catalog has all records that the peer had when it became ready.
    CaughtUp(NodeId),
    /// A shard of this node is rebuilt after its data directory was replaced. Told once by each start.
    ShardRebuilt(u16),
    /// The peer says that it is rebuilt.
    PeerRebuilt(u64),
    /// A peer's wall clock, in milliseconds since 1970.
    Clock(u64, u64),
    /// A connection has ended, with the reason if the other side has refused this node.
    Closed(u64, Option<String>),
    /// Dial all peers that are not connected at once.
    Redial,
    /// Time has passed; due at [`Links::next_wake_us`](super::Links::next_wake_us).
    Tick,
}

/// Something that the links ask for, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum LinkOutput {
    /// Dial a peer; [`LinkEvent::Connected`] or [`LinkEvent::DialFailed`] answers.
    Dial(NodeId),
    /// Close a connection. No [`LinkEvent::Closed`] is owed for it.
    Close(u64, CloseReason),
    /// Save [`Links::disks`](super::Links::disks) durably before anything that follows.
    SaveDisks,
    /// This node's data directory was replaced, says that peer: every shard counts its copies as lost.
    Replaced(Name),
    /// All shards of this node are rebuilt since.
    Rebuilt,
    /// Tell the peer that this node is rebuilt, behind everything that was sent on the connection so far.
    SendRebuilt(u64),
    /// Tell shards and catalog that a peer is up: each shard its part of the actors, the catalog the digest.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// The connection to it.
        connection: u64,
        /// Its actors, by shard.
        actors: Vec<Vec<ActorNext>>,
        /// The digest of its catalog.
        catalog: u64,
    },
    /// Tell shards and catalog that a peer is gone.
    PeerDown(NodeId),
    /// Send *ready* with the digest of this node's catalog and its live layouts, behind everything that was sent on the
    /// connection so far.
    SendReady(u64),
    /// Send this node's wall clock over the connection.
    SendClock(u64),
    /// The wall clocks that are wrong have changed: a line for each, this node's or a peer's; none if all are good.
    Clocks(Vec<String>),
    /// This node's wall clock is so many milliseconds behind those of most nodes, by more than the allowed skew; 0 if
    /// it is good. Every shard adds that to its wall clock.
    CorrectClock(i64),
    /// Have the catalog compared with one of that digest; [`LinkEvent::CaughtUp`] answers.
    CompareCatalog(NodeId, u64),
    /// A peer and this node refuse each other, with the reason.
    Refused(NodeId, String),
    /// The peer fits again.
    Reconciled(NodeId),
    /// A peer cannot be dialled, for that reason. It lasts until the peer is up. Told once for attempts in a row that
    /// fail for the same reason.
    CannotConnect(NodeId, String),
    /// Take requests from now on. Unless all peers were met, every shard first ends the tenures of its actors.
    Serve {
        /// Whether every peer has come through.
        met_all: bool,
    },
}

/// Why a connection is closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The two nodes do not fit one cluster.
    Refused(String),
    /// A newer connection to the peer has taken its place.
    Replaced,
    /// No hello came in time.
    NoHello,
}

/// Why a node takes no requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotServing {
    /// The reason, for people.
    pub why: String,
    /// Whether an operator has to change something first. A start ends by itself.
    pub lasting: bool,
}
