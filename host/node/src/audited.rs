//! What the audit log says of each request.

use rejoin_merge::digest_of;
use rejoin_proto::access::Grant;
use rejoin_proto::catalog::RecordKey;
use rejoin_proto::client::{AdminRequest, RecordKind};
use rejoin_proto::layout_request::{LayoutChanges, LayoutRequest, NodeChange};
use rejoin_proto::quota::{Amounts, Limit, Quota};
use rejoin_proto::signing::SignerChange;
use rejoin_proto::{Name, PluginDigest, TenantId, ZoneDemand};

/// What a request changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    /// Nothing: it asks. It is recorded only if it is denied.
    Unchanged,
    /// Something without a state that could be compared.
    Nothing,
    /// A record of the catalog.
    Record(RecordKind, TenantId, RecordKey),
    /// The tenant that has a name, as the tenant that asks may see it.
    Tenant(TenantId, Name),
    /// The quota of a tenant, or of one of its buckets.
    Quota(TenantId, Option<Name>),
    /// The layouts.
    Ring,
}

/// A request in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Described {
    /// As on the command line, such as `token create`.
    pub(crate) verb: &'static str,
    pub(crate) object: String,
    pub(crate) detail: String,
    pub(crate) subject: Subject,
}

/// Describes a request about a tenant, with the digest of the component that it pushes, if the caller has made that
/// already. There is no arm for all others: whoever adds a request decides what is recorded.
pub(crate) fn describe(request: &AdminRequest, tenant: TenantId, pushed: Option<PluginDigest>) -> Described {
    let bucket = |name| Subject::Record(RecordKind::Bucket, tenant, RecordKey::Bucket(tenant, name));
    let token = |name| Subject::Record(RecordKind::Token, tenant, RecordKey::Token(tenant, name));
    let owner = |name: &Name| Subject::Tenant(tenant, name.clone());
    let plugin = |digest| Subject::Record(RecordKind::Plugin, tenant, RecordKey::Plugin(tenant, digest));
    let (verb, object, detail, subject) = match request {
        AdminRequest::Status => asks("status"),
        AdminRequest::Members => asks("node list"),
        AdminRequest::Exchange => asks("exchange status"),
        AdminRequest::Audit(_) => asks("audit list"),
        AdminRequest::List(kind) => asks(match kind {
            RecordKind::Tenant => "tenant list",
            RecordKind::Bucket => "bucket list",
            RecordKind::Plugin => "plugin list",
            RecordKind::Token => "token list",
            RecordKind::Quota => "tenant quota",
            RecordKind::Signers => "tenant signers list",
        }),
        AdminRequest::Usage => asks("tenant usage"),
        AdminRequest::Conflicts { .. } => asks("conflict list"),
        AdminRequest::LawViolations { .. } => asks("conflict violations"),
        AdminRequest::SignersSet(change) => {
            let (verb, key) = match change {
                SignerChange::Add(key) => ("tenant signers add", key),
                SignerChange::Remove(key) => ("tenant signers remove", key),
            };
            let record = Subject::Record(RecordKind::Signers, tenant, RecordKey::Signers(tenant));
            (verb, key.to_string(), String::new(), record)
        }
        AdminRequest::KeyShow { .. } => asks("explain"),
        AdminRequest::Receipts(query) if query.undo => {
            let plugin = query.plugin.map(|plugin| format!("folds by {plugin}")).unwrap_or_default();
            ("plugin undo", query.bucket.to_string(), plugin, Subject::Nothing)
        }
        AdminRequest::Receipts(_) => asks("explain"),
        AdminRequest::ShadowReport { .. } => asks("plugin shadow"),
        AdminRequest::PluginFetch { .. } => asks("plugin fetch"),
        AdminRequest::ExchangePause(paused) => {
            let verb = if *paused { "exchange pause" } else { "exchange start" };
            (verb, String::new(), String::new(), Subject::Nothing)
        }
        AdminRequest::Layout(request) => layout(request),
        AdminRequest::BucketCreate { name, .. } => {
            ("bucket create", name.to_string(), String::new(), bucket(name.clone()))
        }
        AdminRequest::BucketSet { name, version, force, .. } => {
            let how = if *force { ", ready or not" } else { "" };
            ("bucket set", name.to_string(), format!("from version {version}{how}"), bucket(name.clone()))
        }
        AdminRequest::TokenCreate { name, grant, .. } => {
            ("token create", name.to_string(), granted(grant), token(name.clone()))
        }
        AdminRequest::TokenRotate { name, overlap_ms, .. } => {
            let detail = format!("the old secret is taken for {overlap_ms} ms");
            ("token rotate", name.to_string(), detail, token(name.clone()))
        }
        AdminRequest::TokenRevoke { name, certificates } => {
            let detail = if *certificates { "and all certificates of that name" } else { "" };
            ("token revoke", name.to_string(), detail.to_owned(), token(name.clone()))
        }
        AdminRequest::PluginLaws { .. } => asks("plugin push"),
        AdminRequest::PluginStates { .. } => asks("plugin show"),
        AdminRequest::PluginPush { name, module, unchecked, signature } => {
            let digest = pushed.unwrap_or_else(|| digest_of(module));
            let how = if *unchecked { ", unchecked" } else { "" };
            // Whether it is a good one is not known yet.
            let by = signature.map_or_else(String::new, |signature| format!(", signature of {}", signature.signer));
            ("plugin push", digest.to_string(), format!("{name}, {} bytes{how}{by}", module.len()), plugin(digest))
        }
        AdminRequest::PluginPushWith { name, module, signature, checks } => {
            let digest = pushed.unwrap_or_else(|| digest_of(module));
            let with = checks.siblings_of.as_ref().map_or_else(String::new, |of| format!(", siblings of {of}"));
            let with = match checks.fixtures.len() {
                0 => with,
                count => format!("{with}, {count} fixtures"),
            };
            let by = signature.map_or_else(String::new, |signature| format!(", signature of {}", signature.signer));
            ("plugin push", digest.to_string(), format!("{name}, {} bytes{with}{by}", module.len()), plugin(digest))
        }
        AdminRequest::PluginRelease { digest } => {
            ("plugin release", digest.to_string(), String::new(), plugin(*digest))
        }
        AdminRequest::TenantCreate { name } => ("tenant create", name.to_string(), String::new(), owner(name)),
        AdminRequest::TenantDelete { name, after_ms } => {
            ("tenant delete", name.to_string(), reaped(*after_ms), owner(name))
        }
        AdminRequest::TenantRestore { name } => ("tenant restore", name.to_string(), String::new(), owner(name)),
        AdminRequest::BucketDelete { name, after_ms } => {
            ("bucket delete", name.to_string(), reaped(*after_ms), bucket(name.clone()))
        }
        AdminRequest::BucketRestore { name } => {
            ("bucket restore", name.to_string(), String::new(), bucket(name.clone()))
        }
        AdminRequest::PluginDelete { digest, after_ms } => {
            ("plugin delete", digest.to_string(), reaped(*after_ms), plugin(*digest))
        }
        AdminRequest::PluginRestore { digest } => {
            ("plugin restore", digest.to_string(), String::new(), plugin(*digest))
        }
        AdminRequest::QuotaSet { bucket, quota } => {
            let (verb, object) = match bucket {
                Some(bucket) => ("bucket quota", bucket.to_string()),
                None => ("tenant quota", String::new()),
            };
            (verb, object, limited(quota), Subject::Quota(tenant, bucket.clone()))
        }
    };
    Described { verb, object, detail, subject }
}

type Words = (&'static str, String, String, Subject);

fn asks(verb: &'static str) -> Words {
    (verb, String::new(), String::new(), Subject::Unchanged)
}

fn layout(request: &LayoutRequest) -> Words {
    let changes = |verb, object, detail| (verb, object, detail, Subject::Ring);
    match request {
        LayoutRequest::Show => asks("layout show"),
        LayoutRequest::Plan => asks("layout plan"),
        LayoutRequest::Stage(staged) => changes("layout stage", String::new(), listed(staged)),
        LayoutRequest::Revert => changes("layout revert", String::new(), String::new()),
        LayoutRequest::Apply(name) => {
            changes("layout apply", name.version.to_string(), format!("its hash is {:016x}", name.hash))
        }
        LayoutRequest::Skip(node) => changes("layout skip", node.to_string(), String::new()),
        LayoutRequest::Join(node) => ("node join", node.to_string(), String::new(), Subject::Nothing),
    }
}

fn reaped(after_ms: u64) -> String {
    format!("reaped after {after_ms} ms")
}

fn limited(quota: &Quota) -> String {
    let said = |amounts: &Amounts, kind| {
        let of = |(limit, most): (Limit, u64)| format!("{} {kind} {most}", limit.name());
        amounts.iter().map(of).collect::<Vec<_>>()
    };
    let weight = quota.weight.map(|weight| vec![format!("weight {weight}")]).unwrap_or_default();
    let parts = [said(&quota.hard, "at most"), said(&quota.soft, "warn above"), weight].concat();
    if parts.is_empty() { "no limits".to_owned() } else { parts.join("; ") }
}

fn granted(grant: &Grant) -> String {
    let limits = if grant.limits.is_none() { String::new() } else { format!(", only {}", grant.limits) };
    let end = grant.expires_ms.map_or_else(String::new, |end| format!(", until {end} ms since 1970"));
    format!("scope {}{limits}{end}", grant.scope)
}

fn listed(changes: &LayoutChanges) -> String {
    let of_node = |change: &NodeChange| match change {
        NodeChange::Remove(node) => format!("remove {node}"),
        NodeChange::Assign { node, zone, capacity } => {
            let zone = zone.as_ref().map_or_else(String::new, |zone| format!(", zone {zone}"));
            let capacity = capacity.map_or_else(String::new, |capacity| format!(", capacity {capacity}"));
            format!("assign {node}{zone}{capacity}")
        }
    };
    let n = changes.n.map(|n| format!("n = {n}"));
    let zones = changes.zones.map(|zones| match zones {
        ZoneDemand::Spread => "zones: all".to_owned(),
        ZoneDemand::AtLeast(zones) => format!("zones: at least {zones}"),
        ZoneDemand::Waived => "zones: any".to_owned(),
    });
    let split = changes.split.then(|| "twice as many partitions".to_owned());
    let parts: Vec<String> = changes.nodes.iter().map(of_node).chain(n).chain(zones).chain(split).collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rejoin_proto::access::{Limits, Scope};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn no_secret_and_no_hash_of_one_is_in_the_words() {
        let secret_hash = [0xab; 32];
        let limits = Limits { buckets: vec![name("cart")], prefix: "eu/".into() };
        let grant = Grant { scope: Scope::ReadOnly, limits, expires_ms: Some(7) };
        let create = AdminRequest::TokenCreate { name: name("app"), grant, secret_hash };
        let rotate = AdminRequest::TokenRotate { name: name("app"), secret_hash, overlap_ms: 9 };
        let words = [create, rotate].map(|request| {
            let Described { verb, object, detail, .. } = describe(&request, TenantId(1), None);
            format!("{verb} {object}: {detail}")
        });
        let create = "token create app: scope read-only, only buckets cart, keys that begin with \"eu/\", until 7 ms \
            since 1970";
        assert_eq!(words, [create, "token rotate app: the old secret is taken for 9 ms"]);
    }

    #[test]
    fn what_is_staged_is_listed() {
        let assign = NodeChange::Assign { node: name("n4"), zone: Some(name("z2")), capacity: None };
        let nodes = vec![assign, NodeChange::Remove(name("n1"))];
        let changes = LayoutChanges { nodes, n: Some(5), zones: Some(ZoneDemand::AtLeast(2)), split: false };
        let described = describe(&AdminRequest::Layout(LayoutRequest::Stage(changes)), TenantId(1), None);
        assert_eq!(described.detail, "assign n4, zone z2; remove n1; n = 5; zones: at least 2");
        assert_eq!(described.subject, Subject::Ring);
    }
}
