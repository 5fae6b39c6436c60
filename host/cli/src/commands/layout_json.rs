//! What `rejoin layout` prints with `--json`.

use serde::Serialize;

use rejoin_client::admin::{
    AwaitedNode, BucketChange, ChangeStatus, LayoutNodeStatus, LayoutPlan, LayoutRef, LayoutStatus, PastLayoutStatus,
    PlannedNode, Role,
};

use super::json::Bucket;
use super::layout::{hash, least_seconds, step, zones};

/// A layout by its name.
#[derive(Serialize, Debug)]
pub(super) struct NameJson {
    version: u64,
    hash: String,
}

impl From<LayoutRef> for NameJson {
    fn from(layout: LayoutRef) -> Self {
        Self { version: layout.version, hash: hash(layout) }
    }
}

/// The newest layout after a change.
#[derive(Serialize, Debug)]
pub(super) struct ChangedJson {
    newest: NameJson,
}

impl From<LayoutRef> for ChangedJson {
    fn from(newest: LayoutRef) -> Self {
        Self { newest: newest.into() }
    }
}

/// `layout show`.
#[derive(Serialize, Debug)]
pub(super) struct ShowJson {
    /// The node that answered.
    node: String,
    /// The newest one last.
    live: Vec<NameJson>,
    partitions: u32,
    n: u8,
    /// `spread`, `any` or a number.
    zones: String,
    nodes: Vec<NodeJson>,
    /// Null if no change is under way.
    change: Option<ChangeJson>,
    /// The buckets whose copies it changes.
    buckets: Vec<CopiesChangeJson>,
    staged_policy: Option<PolicyJson>,
    /// The number of partitions that is staged, or null.
    staged_partitions: Option<u32>,
}

#[derive(Serialize, Debug)]
struct PolicyJson {
    n: u8,
    zones: String,
}

#[derive(Serialize, Debug)]
struct NodeJson {
    node: String,
    address: String,
    up: bool,
    /// `member`, `leaving` or `unassigned`.
    standing: &'static str,
    /// Null unless it is a member.
    zone: Option<String>,
    capacity: Option<u32>,
    owner_of: Option<u32>,
    dead: bool,
    staged: Option<RoleJson>,
}

/// What is staged for a node. Without a zone: it is to be removed.
#[derive(Serialize, Debug)]
struct RoleJson {
    zone: Option<String>,
    capacity: u32,
}

/// `bucket show`.
#[derive(Serialize, Debug)]
pub(super) struct ShownBucket {
    #[serde(flatten)]
    pub(super) bucket: Bucket,
    /// Null if its copies do not change.
    pub(super) change: Option<BucketChangeJson>,
}

/// How far a change of a bucket's copies has come.
#[derive(Serialize, Debug)]
pub(super) struct BucketChangeJson {
    #[serde(flatten)]
    copies: CopiesChangeJson,
    /// Null when it is done on all nodes, and the one that answered has not noticed yet.
    change: Option<ChangeJson>,
}

impl BucketChangeJson {
    pub(super) fn of(changing: &BucketChange, layout: &LayoutStatus) -> Self {
        Self { copies: changing.into(), change: layout.change.as_ref().map(ChangeJson::from) }
    }
}

#[derive(Serialize, Debug)]
struct CopiesChangeJson {
    bucket: String,
    n_from: u8,
    n_to: u8,
    sloppy_from: bool,
    sloppy_to: bool,
}

impl From<&BucketChange> for CopiesChangeJson {
    fn from(changing: &BucketChange) -> Self {
        Self {
            bucket: changing.name.to_string(),
            n_from: changing.from.n,
            n_to: changing.to.n,
            sloppy_from: changing.from.sloppy,
            sloppy_to: changing.to.sloppy,
        }
    }
}

#[derive(Serialize, Debug)]
struct ChangeJson {
    /// `acknowledge`, `exchange` or `read`.
    step: &'static str,
    waits_for: Vec<AwaitedJson>,
}

#[derive(Serialize, Debug)]
struct AwaitedJson {
    node: String,
    up: bool,
}

impl From<&ChangeStatus> for ChangeJson {
    fn from(change: &ChangeStatus) -> Self {
        let awaited = |node: &AwaitedNode| AwaitedJson { node: node.name.to_string(), up: node.up };
        Self { step: step(change.step), waits_for: change.waits_for.iter().map(awaited).collect() }
    }
}

impl From<&LayoutStatus> for ShowJson {
    fn from(status: &LayoutStatus) -> Self {
        Self {
            node: status.node.to_string(),
            live: status.live.iter().copied().map(NameJson::from).collect(),
            partitions: status.partitions,
            n: status.policy.n,
            zones: zones(status.policy.zones),
            nodes: status.nodes.iter().map(NodeJson::from).collect(),
            change: status.change.as_ref().map(ChangeJson::from),
            buckets: status.buckets.iter().map(CopiesChangeJson::from).collect(),
            staged_policy: status.staged_policy.map(|policy| PolicyJson { n: policy.n, zones: zones(policy.zones) }),
            staged_partitions: status.staged_split,
        }
    }
}

impl From<&LayoutNodeStatus> for NodeJson {
    fn from(node: &LayoutNodeStatus) -> Self {
        let standing = match (&node.member, node.in_older) {
            (Some(_), _) => "member",
            (None, true) => "leaving",
            (None, false) => "unassigned",
        };
        Self {
            node: node.name.to_string(),
            address: node.address.to_string(),
            up: node.up,
            standing,
            zone: node.member.as_ref().map(|part| part.zone.to_string()),
            capacity: node.member.as_ref().map(|part| part.capacity),
            owner_of: node.member.as_ref().map(|part| part.owner_of),
            dead: node.dead,
            staged: node.staged.as_ref().map(|role| match role {
                Role::Member { zone, capacity } => RoleJson { zone: Some(zone.to_string()), capacity: *capacity },
                Role::Removed => RoleJson { zone: None, capacity: 0 },
            }),
        }
    }
}

/// `layout plan`.
#[derive(Serialize, Debug)]
pub(super) struct PlanJson {
    version: u64,
    /// What `apply --plan` has to be given.
    plan: String,
    partitions_before: u32,
    partitions: u32,
    n: u8,
    zones: String,
    nodes: Vec<PlannedJson>,
    copies_moved: u32,
    copies_moved_at_least: u32,
    /// At the configured pace, for the node that takes most.
    seconds_at_least: u64,
    warnings: Vec<String>,
}

#[derive(Serialize, Debug)]
struct PlannedJson {
    node: String,
    /// Null if it is removed.
    zone: Option<String>,
    capacity: Option<u32>,
    owner_of: u32,
    then: u32,
    takes: u32,
    gives_up: u32,
    bytes_taken: u64,
}

impl From<&LayoutPlan> for PlanJson {
    fn from(plan: &LayoutPlan) -> Self {
        let node = |node: &PlannedNode| PlannedJson {
            node: node.name.to_string(),
            zone: node.role.as_ref().map(|(zone, _)| zone.to_string()),
            capacity: node.role.as_ref().map(|(_, capacity)| *capacity),
            owner_of: node.before,
            then: node.after,
            takes: node.gains,
            gives_up: node.loses,
            bytes_taken: node.bytes,
        };
        Self {
            version: plan.name.version,
            plan: hash(plan.name),
            partitions_before: plan.partitions_before,
            partitions: plan.partitions,
            n: plan.policy.n,
            zones: zones(plan.policy.zones),
            nodes: plan.nodes.iter().map(node).collect(),
            copies_moved: plan.moved,
            copies_moved_at_least: plan.least_moved,
            seconds_at_least: least_seconds(plan),
            warnings: plan.warnings.clone(),
        }
    }
}

/// A line of `layout history`.
#[derive(Serialize, Debug)]
pub(super) struct PastJson {
    version: u64,
    hash: String,
    applied_ms: u64,
    /// The node that took the command.
    by: String,
    members: u32,
    copies_moved: u32,
    /// The bucket whose copies it changed; null if it changed something else.
    bucket: Option<String>,
    /// The partitions into which it split the ring; null if it did not.
    split: Option<u32>,
}

impl From<&PastLayoutStatus> for PastJson {
    fn from(past: &PastLayoutStatus) -> Self {
        Self {
            version: past.name.version,
            hash: hash(past.name),
            applied_ms: past.layout.applied_ms,
            by: past.by.to_string(),
            members: past.layout.nodes,
            copies_moved: past.layout.moved,
            bucket: past.layout.bucket.as_ref().map(|of| of.name.to_string()),
            split: past.layout.split,
        }
    }
}
