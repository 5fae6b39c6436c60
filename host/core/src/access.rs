//! Who may do what: one table of scopes and verbs, [`allows`]. Nothing else decides about access.
//!
//! A node asks [`authorise`] for every request. The chapter of the book about tenants has the table, and a test
//! compares the two; another one walks every cell through a node.

use core::fmt;

use rejoin_proto::access::{Grant, Limits, Scope};
use rejoin_proto::client::{AdminRequest, Basis, Put, RecordKind, RequestBody};
use rejoin_proto::layout_request::LayoutRequest;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    /// Reads an object.
    Read,
    /// Writes or deletes an object.
    Write,
    /// Lists the keys of a bucket whose merge has failed, and explains what became of a key.
    ConflictShow,
    /// Undoes a fold.
    FoldUndo,
    /// Lists buckets, or shows one.
    BucketShow,
    /// Makes a bucket.
    BucketCreate,
    /// Changes a bucket.
    BucketSet,
    /// Deletes a bucket, or restores it.
    BucketDelete,
    /// Sets the quota of a bucket.
    BucketQuota,
    /// Lists plugins.
    PluginShow,
    /// Pushes a plugin.
    PluginPush,
    /// Pushes a plugin whose laws are not checked.
    PluginPushUnchecked,
    /// Pushes a plugin whose laws are checked on siblings of a bucket, which the report may show.
    PluginPushSiblings,
    /// Ends a plugin's quarantine.
    PluginRelease,
    /// Deletes a plugin, or restores it.
    PluginDelete,
    /// Changes who may sign plugins.
    SignersSet,
    /// Lists tokens.
    TokenShow,
    /// Makes a token.
    TokenCreate,
    /// Gives a token another secret.
    TokenRotate,
    /// Revokes a token.
    TokenRevoke,
    /// Shows the tenant, to an operator all tenants.
    TenantShow,
    /// Makes a tenant.
    TenantCreate,
    /// Deletes a tenant, or restores it.
    TenantDelete,
    /// Sets the quota of a tenant.
    TenantQuota,
    /// Shows nodes, layouts and exchanges.
    ClusterShow,
    /// Changes layouts, pauses exchanges, lets nodes join.
    ClusterChange,
    /// Reads the audit log of a node.
    AuditShow,
    /// Shows what has come of the shadow of a bucket, without keys and values.
    ShadowShow,
    /// Shows keys and values of merges that a shadow was compared on.
    ShadowSamples,
    /// Fetches the component of a plugin.
    PluginFetch,
}

impl Verb {
    /// All of them, in the order of the book's table.
    pub const ALL: [Self; 30] = [
        Self::Read,
        Self::Write,
        Self::ConflictShow,
        Self::FoldUndo,
        Self::BucketShow,
        Self::BucketCreate,
        Self::BucketSet,
        Self::BucketDelete,
        Self::BucketQuota,
        Self::PluginShow,
        Self::PluginPush,
        Self::PluginPushUnchecked,
        Self::PluginPushSiblings,
        Self::PluginRelease,
        Self::PluginDelete,
        Self::SignersSet,
        Self::TokenShow,
        Self::TokenCreate,
        Self::TokenRotate,
        Self::TokenRevoke,
        Self::TenantShow,
        Self::TenantCreate,
        Self::TenantDelete,
        Self::TenantQuota,
        Self::ClusterShow,
        Self::ClusterChange,
        Self::AuditShow,
        Self::ShadowShow,
        Self::ShadowSamples,
        Self::PluginFetch,
    ];

    /// What a request does. `None`: it concerns the connection only, and whoever has one may do it.
    #[must_use]
    pub fn of(request: &RequestBody) -> Option<Self> {
        Some(match request {
            RequestBody::Get(_) => Self::Read,
            // Its values are not validated again.
            RequestBody::Put(Put { basis: Basis::Undo(_), .. }) => Self::FoldUndo,
            RequestBody::Put(_) => Self::Write,
            // Clients route by the layout; a receipt names a write of its client.
            RequestBody::Layout | RequestBody::Settled(_) => return None,
            RequestBody::Admin(request) => match request {
                AdminRequest::Status | AdminRequest::Members | AdminRequest::Exchange => Self::ClusterShow,
                AdminRequest::Layout(LayoutRequest::Show | LayoutRequest::Plan) => Self::ClusterShow,
                AdminRequest::Layout(_) | AdminRequest::ExchangePause(_) => Self::ClusterChange,
                AdminRequest::List(RecordKind::Bucket) => Self::BucketShow,
                // Whoever pushes plugins must see which keys would do.
                AdminRequest::List(RecordKind::Plugin | RecordKind::Signers) | AdminRequest::PluginStates { .. } => {
                    Self::PluginShow
                }
                AdminRequest::List(RecordKind::Token) => Self::TokenShow,
                AdminRequest::List(RecordKind::Tenant | RecordKind::Quota) | AdminRequest::Usage => Self::TenantShow,
                AdminRequest::Receipts(query) if query.undo => Self::FoldUndo,
                // All tell keys, and some siblings: whoever may list conflicts may read.
                AdminRequest::Conflicts { .. }
                | AdminRequest::LawViolations { .. }
                | AdminRequest::Receipts(_)
                | AdminRequest::KeyShow { .. } => Self::ConflictShow,
                AdminRequest::ShadowReport { samples: false, .. } => Self::ShadowShow,
                AdminRequest::ShadowReport { samples: true, .. } => Self::ShadowSamples,
                AdminRequest::PluginFetch { .. } => Self::PluginFetch,
                AdminRequest::QuotaSet { bucket: Some(_), .. } => Self::BucketQuota,
                AdminRequest::QuotaSet { bucket: None, .. } => Self::TenantQuota,
                AdminRequest::BucketCreate { .. } => Self::BucketCreate,
                AdminRequest::BucketSet { .. } => Self::BucketSet,
                AdminRequest::BucketDelete { .. } | AdminRequest::BucketRestore { .. } => Self::BucketDelete,
                AdminRequest::PluginPush { unchecked: false, .. } | AdminRequest::PluginLaws { .. } => Self::PluginPush,
                AdminRequest::PluginPush { unchecked: true, .. } => Self::PluginPushUnchecked,
                AdminRequest::PluginPushWith { checks, .. } if checks.siblings_of.is_some() => Self::PluginPushSiblings,
                AdminRequest::PluginPushWith { .. } => Self::PluginPush,
                AdminRequest::PluginRelease { .. } => Self::PluginRelease,
                AdminRequest::PluginDelete { .. } | AdminRequest::PluginRestore { .. } => Self::PluginDelete,
                AdminRequest::SignersSet(_) => Self::SignersSet,
                AdminRequest::TokenCreate { .. } => Self::TokenCreate,
                AdminRequest::TokenRotate { .. } => Self::TokenRotate,
                AdminRequest::TokenRevoke { .. } => Self::TokenRevoke,
                AdminRequest::TenantCreate { .. } => Self::TenantCreate,
                AdminRequest::Audit(_) => Self::AuditShow,
                AdminRequest::TenantDelete { .. } | AdminRequest::TenantRestore { .. } => Self::TenantDelete,
            },
        })
    }

    /// For a sentence: "may not …".
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ConflictShow => "list conflicts",
            Self::FoldUndo => "undo folds",
            Self::BucketShow => "show buckets",
            Self::BucketCreate => "make buckets",
            Self::BucketSet => "change buckets",
            Self::BucketDelete => "delete buckets",
            Self::BucketQuota => "set quotas of buckets",
            Self::PluginShow => "list plugins",
            Self::PluginPush => "push plugins",
            Self::PluginPushUnchecked => "push plugins unchecked",
            Self::PluginPushSiblings => "push plugins with siblings of a bucket",
            Self::PluginRelease => "release plugins",
            Self::PluginDelete => "delete plugins",
            Self::SignersSet => "change who signs plugins",
            Self::TokenShow => "list tokens",
            Self::TokenCreate => "make tokens",
            Self::TokenRotate => "rotate tokens",
            Self::TokenRevoke => "revoke tokens",
            Self::TenantShow => "show the tenant",
            Self::TenantCreate => "make tenants",
            Self::TenantDelete => "delete tenants",
            Self::TenantQuota => "set quotas of tenants",
            Self::ClusterShow => "show nodes and layouts",
            Self::ClusterChange => "change nodes and layouts",
            Self::AuditShow => "read the audit log",
            Self::ShadowShow => "show shadows",
            Self::ShadowSamples => "show samples of shadows",
            Self::PluginFetch => "fetch plugins",
        }
    }

    /// Whether it concerns the whole cluster, whatever tenant a request names.
    const fn is_of_the_cluster(self) -> bool {
        matches!(
            self,
            Self::TenantCreate
                | Self::TenantDelete
                | Self::TenantQuota
                | Self::ClusterShow
                | Self::ClusterChange
                | Self::AuditShow
        )
    }
}

/// Whose tenant a request is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Whose {
    /// That of the token.
    Own,
    /// Another one, which the client has named.
    Other,
}

/// The table: whether a token of that scope may do that in its own tenant, or in another one.
#[must_use]
pub fn allows(scope: Scope, verb: Verb, whose: Whose) -> bool {
    match (scope, whose) {
        (Scope::Operator, _) => true,
        // Rule: other tenants are closed.
        (_, Whose::Other) => false,
        (Scope::TenantAdmin, Whose::Own) => !verb.is_of_the_cluster() && verb != Verb::PluginPushUnchecked,
        (Scope::PluginAuthor, Whose::Own) => {
            matches!(
                verb,
                Verb::BucketShow
                    | Verb::PluginShow
                    | Verb::PluginPush
                    | Verb::PluginRelease
                    | Verb::ShadowShow
                    | Verb::PluginFetch
            )
        }
        (Scope::ReadWrite, Whose::Own) => {
            let reads = allows(Scope::ReadOnly, verb, whose);
            reads || verb == Verb::Write
        }
        (Scope::ReadOnly, Whose::Own) => {
            matches!(verb, Verb::Read | Verb::ConflictShow | Verb::BucketShow | Verb::ShadowShow | Verb::ShadowSamples)
        }
    }
}

/// The first scope that allows it.
#[must_use]
pub fn least_scope(verb: Verb, whose: Whose) -> Scope {
    Scope::ALL.into_iter().find(|scope| allows(*scope, verb, whose)).unwrap_or(Scope::Operator)
}

/// Whether a token of one scope may make, rotate and revoke a token of the other: nobody gives what he has not.
#[must_use]
pub fn may_grant(by: Scope, granted: Scope) -> bool {
    match by {
        Scope::Operator => true,
        // Rule: nobody grants what he lacks. Whoever could rotate an operator's token would have one.
        Scope::TenantAdmin => !matches!(granted, Scope::Operator),
        _ => false,
    }
}

/// Why a request is denied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denial {
    /// Its scope does not allow it.
    Scope {
        /// What was asked for.
        verb: Verb,
        /// In whose tenant.
        whose: Whose,
    },
    /// Its limits exclude that bucket or key.
    Limits {
        /// The scope that it takes, without the limits.
        scope: Scope,
        /// Them.
        limits: Limits,
    },
}

impl fmt::Display for Denial {
    /// What follows the name of the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope { verb, whose } => {
                let place = if *whose == Whose::Other { " in another tenant" } else { "" };
                let least = least_scope(*verb, *whose);
                write!(f, "may not {}{place}: that takes a token of scope {least}", verb.as_str())
            }
            Self::Limits { scope, limits } => {
                write!(f, "opens only {limits}: this takes a token of scope {scope} without that limit")
            }
        }
    }
}

/// Decides about one request.
///
/// # Errors
/// Why it is denied.
pub fn authorise(grant: &Grant, whose: Whose, request: &RequestBody) -> Result<(), Denial> {
    let Some(verb) = Verb::of(request) else { return Ok(()) };
    if !allows(grant.scope, verb, whose) {
        return Err(Denial::Scope { verb, whose });
    }
    // Rule: tokens keep their limits.
    let is_admitted = match request {
        RequestBody::Get(get) => grant.limits.admit(&get.bucket, &get.key),
        RequestBody::Put(put) => grant.limits.admit(&put.bucket, &put.key),
        // The node leaves out the keys that it does not admit.
        RequestBody::Admin(
            AdminRequest::Conflicts { bucket }
            | AdminRequest::LawViolations { bucket }
            | AdminRequest::ShadowReport { bucket, .. },
        ) => grant.limits.admit_bucket(bucket),
        RequestBody::Admin(AdminRequest::KeyShow { bucket, key }) => grant.limits.admit(bucket, key),
        RequestBody::Admin(AdminRequest::Receipts(query)) => grant.limits.admit_bucket(&query.bucket),
        RequestBody::Admin(AdminRequest::PluginPushWith { checks, .. }) => {
            checks.siblings_of.as_ref().is_none_or(|bucket| grant.limits.admit_bucket(bucket))
        }
        _ => true,
    };
    match is_admitted {
        true => Ok(()),
        false => Err(Denial::Limits { scope: grant.scope, limits: grant.limits.clone() }),
    }
}
