//! The output of `--json`. A field never changes its meaning: it is removed, and a new one is added.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use rejoin_client::admin::{BucketInfo, Durability, PluginInfo, Quorum, Status, Transcript};
use rejoin_client::{Object, Written};
use rejoin_merge::{EncodedBytes, FixtureSibling};

use crate::commands::laws::shown;
use crate::commands::readiness::NodeState;

/// `get`.
#[derive(Serialize, Debug)]
pub(crate) struct GetOutput {
    pub(crate) bucket: String,
    /// `None` if it is not UTF-8.
    pub(crate) key: Option<String>,
    pub(crate) key_base64: String,
    pub(crate) found: bool,
    /// `None` if there is none, or it is not UTF-8.
    pub(crate) value: Option<String>,
    pub(crate) value_base64: Option<String>,
    /// The plugin's readable form.
    pub(crate) shown: Option<String>,
    pub(crate) context: String,
    pub(crate) siblings: Vec<Sibling>,
    pub(crate) merged_by: Option<MergedBy>,
    pub(crate) merge_fault: Option<String>,
    /// Fallbacks that may hold writes to the key and could not be asked.
    pub(crate) unreachable: Vec<String>,
}

#[derive(Serialize, Debug)]
pub(crate) struct Sibling {
    pub(crate) value: Option<String>,
    pub(crate) value_base64: String,
    pub(crate) stamp_ms: u64,
    /// 16 hexadecimal digits: many JSON readers would round a 64-bit number.
    pub(crate) writer: String,
}

#[derive(Serialize, Debug)]
pub(crate) struct MergedBy {
    pub(crate) name: Option<String>,
    pub(crate) digest: String,
}

impl GetOutput {
    pub(crate) fn new(bucket: &str, key: &[u8], object: &Object<Vec<u8>>) -> Self {
        let sibling = |s: &rejoin_client::Sibling<Vec<u8>>| Sibling {
            value: text(&s.value),
            value_base64: STANDARD.encode(&s.value),
            stamp_ms: s.stamp_ms,
            writer: format!("{:016x}", s.writer),
        };
        Self {
            bucket: bucket.into(),
            key: text(key),
            key_base64: STANDARD.encode(key),
            found: object.is_found(),
            value: object.value.as_deref().and_then(text),
            value_base64: object.value.as_deref().map(|value| STANDARD.encode(value)),
            shown: object.shown.clone(),
            context: object.context.to_string(),
            siblings: object.siblings.iter().map(sibling).collect(),
            merged_by: object
                .merged_by
                .as_ref()
                .map(|by| MergedBy { name: by.name.clone(), digest: by.digest.clone() }),
            merge_fault: object.merge_fault.clone(),
            unreachable: object.unreachable.clone(),
        }
    }
}

/// A key, in the line of what else is told of it.
#[derive(Serialize, Debug)]
pub(crate) struct KeyJson {
    /// `None` if it is not UTF-8.
    key: Option<String>,
    key_base64: String,
}

impl KeyJson {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self { key: text(key), key_base64: STANDARD.encode(key) }
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        self.key.clone().unwrap_or_else(|| format!("base64:{}", self.key_base64))
    }
}

/// What a merge has made, or why nothing.
#[derive(Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MadeJson {
    Value(EncodedBytes),
    Failure(String),
}

impl MadeJson {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Value(value) => shown(value),
            Self::Failure(why) => format!("none: {why}"),
        }
    }
}

impl From<Result<EncodedBytes, String>> for MadeJson {
    fn from(made: Result<EncodedBytes, String>) -> Self {
        match made {
            Ok(value) => Self::Value(value),
            Err(why) => Self::Failure(why),
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// `put` and `delete`.
#[derive(PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Put {
    /// `stored` or `unknown`.
    pub(crate) outcome: &'static str,
    /// Covers the write; with `unknown` only if the node replied.
    pub(crate) context: Option<String>,
    pub(crate) acked: u8,
    pub(crate) needed: u8,
}

impl Put {
    pub(crate) fn stored(written: &Written) -> Self {
        Self {
            outcome: "stored",
            context: Some(written.context.to_string()),
            acked: written.acked,
            needed: written.needed,
        }
    }

    pub(crate) fn unknown(error: &rejoin_client::Error) -> Self {
        Self {
            outcome: "unknown",
            context: error.context().map(ToString::to_string),
            acked: error.got(),
            needed: error.needed(),
        }
    }
}

/// `status`.
#[derive(Serialize, Debug)]
pub(crate) struct ClusterStatus {
    cluster: String,
    node: String,
    release: String,
    uptime_ms: u64,
    layout_version: u64,
    partitions: u32,
    nodes: Vec<NodeStatus>,
    lost: Vec<String>,
    problems: Vec<String>,
    /// How many nodes can fail before some key cannot be read, or written; negative if some key cannot be now.
    spare_reads: Option<i16>,
    spare_writes: Option<i16>,
    missing_plugins: Vec<String>,
    warnings: Vec<String>,
    certificate_until_ms: u64,
    authority_until_ms: u64,
    /// What `node` holds for the owners.
    holdings: Holdings,
    /// What it rebuilds; null if it has lost nothing.
    rebuild: Option<Rebuild>,
}

#[derive(Serialize, Debug)]
struct Holdings {
    partitions: Vec<u16>,
    objects: u64,
}

#[derive(Serialize, Debug)]
struct Rebuild {
    /// The partitions that are left, and how many there were.
    left: Vec<u16>,
    partitions: u32,
    /// What was taken for them.
    objects: u64,
    bytes: u64,
}

#[derive(Serialize, Debug)]
struct NodeStatus {
    name: String,
    zone: String,
    address: String,
    up: bool,
    /// Whether its data directory was replaced by an empty one. Reads do not count it.
    replaced: bool,
    first_owner_of: u32,
    owner_of: u32,
}

impl From<&Status> for ClusterStatus {
    fn from(status: &Status) -> Self {
        let node = |node: &rejoin_client::admin::NodeStatus| NodeStatus {
            name: node.name.to_string(),
            zone: node.zone.to_string(),
            address: node.address.to_string(),
            up: node.up,
            replaced: node.replaced,
            first_owner_of: node.first_owner_of,
            owner_of: node.owner_of,
        };
        Self {
            cluster: status.cluster.to_string(),
            node: status.node.to_string(),
            release: status.release.clone(),
            uptime_ms: status.uptime_ms,
            layout_version: status.layout.version,
            partitions: status.partitions,
            nodes: status.nodes.iter().map(node).collect(),
            lost: status.lost.clone(),
            problems: status.problems.clone(),
            spare_reads: status.spare.map(|(reads, _)| reads),
            spare_writes: status.spare.map(|(_, writes)| writes),
            missing_plugins: status.missing_plugins.iter().map(ToString::to_string).collect(),
            warnings: status.warnings.clone(),
            certificate_until_ms: status.certificate_until_ms,
            authority_until_ms: status.authority_until_ms,
            holdings: Holdings {
                partitions: status.holdings.partitions.iter().map(|partition| partition.0).collect(),
                objects: status.holdings.objects,
            },
            rebuild: status.rebuild.as_ref().map(|rebuild| Rebuild {
                left: rebuild.left.iter().map(|partition| partition.0).collect(),
                partitions: rebuild.partitions,
                objects: rebuild.objects,
                bytes: rebuild.bytes,
            }),
        }
    }
}

/// `bucket create|list|show|set`.
#[derive(Serialize, Debug)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) version: u64,
    pub(crate) n: u8,
    pub(crate) r: Count,
    pub(crate) w: Count,
    pub(crate) pr: Count,
    pub(crate) pw: Count,
    pub(crate) durability: &'static str,
    pub(crate) sloppy: bool,
    pub(crate) zones: u8,
    pub(crate) plugin: Option<String>,
    pub(crate) self_causal: bool,
    /// Whether the plugin validates each value before it is written.
    pub(crate) validates: bool,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) value_bytes: u32,
    pub(crate) sibling_limit: u16,
    pub(crate) fuel: u64,
    pub(crate) memory_bytes: u32,
    pub(crate) fold_delay_ms: u64,
    pub(crate) fold_undo_ms: u64,
    /// The plugin that merges a share of the keys in the place of `plugin`.
    pub(crate) canary: Option<Trial>,
    /// The plugin that is compared with the one that merges.
    pub(crate) shadow: Option<Trial>,
    /// The plugins that it had before, the latest last.
    pub(crate) past_plugins: Vec<PastPlugin>,
    /// Until when it can be restored, if it is deleted.
    pub(crate) reap_ms: Option<u64>,
    /// For people.
    #[serde(skip)]
    pub(crate) state: String,
}

/// A plugin on trial in a bucket.
#[derive(Serialize, Debug)]
pub(crate) struct Trial {
    pub(crate) plugin: String,
    /// The share of the keys.
    pub(crate) percent: u8,
    pub(crate) since_ms: u64,
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} % of the keys", self.plugin, self.percent)
    }
}

/// A plugin that a bucket had before.
#[derive(Serialize, Debug)]
pub(crate) struct PastPlugin {
    /// Null: it had none.
    pub(crate) plugin: Option<String>,
    pub(crate) until_ms: u64,
}

/// A number, or the word `quorum`.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(untagged)]
pub(crate) enum Count {
    Number(u8),
    Word(&'static str),
}

impl From<Quorum> for Count {
    fn from(quorum: Quorum) -> Self {
        match quorum {
            Quorum::Majority => Self::Word("quorum"),
            Quorum::Count(number) => Self::Number(number),
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl From<&BucketInfo> for Bucket {
    fn from(bucket: &BucketInfo) -> Self {
        let props = &bucket.props;
        Self {
            name: bucket.name.to_string(),
            id: bucket.id.to_string(),
            version: bucket.version,
            n: props.n,
            r: props.r.into(),
            w: props.w.into(),
            pr: props.pr.into(),
            pw: props.pw.into(),
            durability: match props.durability {
                Durability::Fsync => "fsync",
                Durability::Os => "os",
            },
            sloppy: props.sloppy,
            zones: props.zones,
            plugin: props.plugin.map(|activation| activation.plugin.to_string()),
            self_causal: props.plugin.is_some_and(|activation| activation.self_causal),
            validates: props.plugin.is_some_and(|activation| activation.validates),
            ttl_ms: props.ttl_ms,
            value_bytes: props.value_bytes,
            sibling_limit: props.siblings,
            fuel: props.fuel,
            memory_bytes: props.memory_bytes,
            fold_delay_ms: props.fold_delay_ms,
            fold_undo_ms: props.fold_undo_ms,
            canary: props.canary.map(|canary| Trial {
                plugin: canary.plugin.plugin.to_string(),
                percent: canary.percent,
                since_ms: canary.plugin.since.ms(),
            }),
            shadow: props.shadow.map(|shadow| Trial {
                plugin: shadow.plugin.to_string(),
                percent: shadow.percent,
                since_ms: shadow.since.ms(),
            }),
            past_plugins: bucket
                .past_plugins
                .iter()
                .map(|past| PastPlugin {
                    plugin: past.plugin.map(|of| of.plugin.to_string()),
                    until_ms: past.until.ms(),
                })
                .collect(),
            reap_ms: bucket.deleted.map(|deleted| deleted.reap_ms),
            state: super::delete::state(bucket.deleted),
        }
    }
}

/// What a plugin answers in the fixed run.
#[derive(Clone, Serialize, Debug)]
pub(crate) struct TranscriptJson {
    /// The engine.
    pub(crate) profile: String,
    /// The version of the list of calls.
    pub(crate) cases: u16,
    /// SHA-256 of the answers.
    pub(crate) hash: String,
}

impl From<&Transcript> for TranscriptJson {
    fn from(of: &Transcript) -> Self {
        let hash = of.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { profile: of.profile.to_string(), cases: of.cases, hash }
    }
}

/// `plugin push|list`, and with its file `plugin build`.
#[derive(Serialize, Debug)]
pub(crate) struct Plugin {
    pub(crate) digest: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) bytes: u64,
    pub(crate) self_causal: bool,
    /// Why its merges are not run; null if they are.
    pub(crate) quarantined: Option<String>,
    /// The token of the operator who has pushed it without a check of its laws; null if nobody ever has.
    pub(crate) unchecked: Option<String>,
    /// What each node must compute with it, one for each engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) transcripts: Vec<TranscriptJson>,
    /// Whether each node can run it: of `plugin list` and `plugin show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nodes: Option<Vec<NodeState>>,
    /// Where it comes from; null for a file.
    pub(crate) provenance: Option<PluginProvenance>,
    /// Until when it can be restored, if it is deleted.
    pub(crate) reap_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// For people.
    #[serde(skip)]
    pub(crate) state: String,
}

/// Where a plugin comes from.
#[derive(Serialize, Debug)]
pub(crate) struct PluginProvenance {
    /// The token or certificate with which it was pushed first.
    pub(crate) pushed_by: String,
    pub(crate) pushed_ms: u64,
    /// The key that has signed it, which a node has verified; null without a signature.
    pub(crate) signer: Option<String>,
    /// The tools that it says have built it; null if it says nothing.
    pub(crate) builder: Option<String>,
}

impl From<&PluginInfo> for Plugin {
    fn from(plugin: &PluginInfo) -> Self {
        Self {
            digest: plugin.digest.to_string(),
            name: plugin.name.to_string(),
            version: plugin.version.clone(),
            bytes: plugin.bytes,
            self_causal: plugin.self_causal,
            quarantined: plugin.quarantined.clone(),
            unchecked: plugin.unchecked.as_ref().map(ToString::to_string),
            transcripts: plugin.transcripts.iter().map(TranscriptJson::from).collect(),
            nodes: None,
            provenance: plugin.provenance.as_ref().map(|from| PluginProvenance {
                pushed_by: from.pushed_by.to_string(),
                pushed_ms: from.pushed.ms(),
                signer: from.signer.map(|signer| signer.to_string()),
                builder: from.builder.clone(),
            }),
            reap_ms: plugin.deleted.map(|deleted| deleted.reap_ms),
            file: None,
            state: match (plugin.deleted, &plugin.quarantined) {
                (None, None) => "good".to_owned(),
                (None, Some(_)) => "quarantined".to_owned(),
                (deleted, _) => super::delete::state(deleted),
            },
        }
    }
}

/// `plugin new`.
#[derive(Serialize, Debug)]
pub(crate) struct New {
    #[serde(rename = "crate")]
    pub(crate) crate_name: String,
    pub(crate) dir: String,
}

/// `plugin run`.
#[derive(Serialize, Debug)]
pub(crate) struct PluginRun {
    pub(crate) digest: String,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    /// One merge, or one for each counterexample of the file.
    pub(crate) merges: Vec<PluginMerge>,
}

/// One merge of `plugin run`.
#[derive(Serialize, Debug)]
pub(crate) struct PluginMerge {
    /// The law that the counterexample breaks; null if there is no file.
    pub(crate) law: Option<String>,
    pub(crate) key: EncodedBytes,
    pub(crate) siblings: Vec<FixtureSibling>,
    /// The result; null if the merge failed.
    pub(crate) value: Option<EncodedBytes>,
    pub(crate) failure: Option<String>,
    /// Whether it has exceeded a limit.
    pub(crate) over: bool,
    pub(crate) used: MergeUse,
    pub(crate) limits: MergeUse,
    /// What it takes without the bucket's limits; null unless it is over and answers then.
    pub(crate) takes: Option<MergeUse>,
}

/// What a merge uses, or may use.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MergeUse {
    pub(crate) fuel: u64,
    pub(crate) memory_bytes: usize,
    /// Null if the merge failed.
    pub(crate) result_bytes: Option<usize>,
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
